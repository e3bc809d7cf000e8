"""Write what was collected of a dictionary's atoms in a form that other tools read."""

from __future__ import annotations

import argparse
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.features.exports import export_activations, export_neuronpedia
from dbksvd.features.site import SiteFeatures


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--site", type=Path, required=True, help="such as results/minilm/layer4/features"
    )
    parser.add_argument("--name", required=True, help="such as dbksvd/m512-k16-s0")
    parser.add_argument(
        "--format",
        choices=["activations", "neuronpedia"],
        required=True,
        help="one safetensors file, or a folder of JSON files",
    )
    parser.add_argument("--output", type=Path, required=True, help="file or folder to write")
    parser.add_argument(
        "--dictionary", type=Path, help="its folder; default: ../dictionaries/NAME from the site"
    )
    parser.add_argument("--sae-set", help="name of the set on Neuronpedia; default: the experiment")
    arguments = parser.parse_args()

    features = SiteFeatures.open(arguments.site)
    features.read(arguments.name)  # says which names there are
    if arguments.format == "activations":
        export_activations(features, arguments.name, arguments.output)
    else:
        place = arguments.site.resolve().parent
        folder = arguments.dictionary or place / "dictionaries" / arguments.name
        export_neuronpedia(
            features,
            arguments.name,
            load_dictionary(folder),
            arguments.output,
            sae_set=arguments.sae_set or place.parent.name,
        )
    print(f"{arguments.format}  {arguments.output}")


if __name__ == "__main__":
    main()
