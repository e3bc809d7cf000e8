"""Render the feature pages of an experiment: a folder of HTML that opens from disk."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.report.pages.render import PageInputs, render_pages


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--settings", type=json.loads, required=True, help="experiment, labels of methods"
    )
    parser.add_argument(
        "--features", type=Path, nargs="*", default=[], help="manifests, one a site"
    )
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--figures", type=Path, nargs="*", default=[])
    parser.add_argument(
        "--stability", type=Path, nargs="*", default=[], help="stability.json, one a kind"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of index.html")
    arguments = parser.parse_args()

    kinds = [(path.parents[3].name, "/".join(path.parts[-3:-1])) for path in arguments.stability]
    inputs = PageInputs(
        **arguments.settings,
        features={path.parent.parent.name: path.parent for path in arguments.features},
        table=arguments.table,
        scores=arguments.scores,
        figures=[path for path in arguments.figures if path.suffix == ".png"],
        stability=dict(zip(kinds, arguments.stability, strict=True)),
    )
    render_pages(inputs, arguments.output)
    print(f"pages  {arguments.output / 'index.html'}")


if __name__ == "__main__":
    main()
