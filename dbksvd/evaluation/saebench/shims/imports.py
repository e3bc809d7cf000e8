"""What sae-bench and sae-probes do when they are imported and no eval of ours needs.

Both read catalogues: 155 data sets to count their rows, and SAELens's list of published SAEs. That
is a third of the imports of a job, and jobs are short.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from unittest.mock import patch


class RowCounts(Mapping[str, int]):
    """Rows of each of sae-probes' data sets, in the place of its dict; counted when asked for."""

    def __getitem__(self, name: str) -> int:
        """Return the rows of one data set."""
        return len(import_module("sae_probes.utils_data").read_numbered_dataset_df(name))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the data sets."""
        return iter(import_module("sae_probes.utils_data").get_numbered_binary_tags())

    def __len__(self) -> int:
        """Return the number of data sets."""
        return sum(1 for _ in self)


def import_quickly() -> None:
    """Import sae-probes and SAEBench's list of SAEs without reading their catalogues.

    Where they are imported already, nothing happens.
    """
    _import_sae_probes()
    _import_sae_selection()


def _import_sae_probes() -> None:
    """Import sae_probes with `RowCounts`: its ``__init__`` counts the rows of every data set."""
    if "sae_probes" in sys.modules:
        return
    spec = find_spec("sae_probes")
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    sys.modules["sae_probes"] = package  # submodules can be imported before __init__ has run
    try:
        utils_data = import_module("sae_probes.utils_data")
        with patch.object(utils_data, "get_dataset_sizes", RowCounts):
            spec.loader.exec_module(package)
    except BaseException:
        sys.modules.pop("sae_probes", None)
        raise


def _import_sae_selection() -> None:
    """Import sae_selection_utils, which builds a table of all published SAEs and drops it."""
    name = "sae_bench.sae_bench_utils.sae_selection_utils"
    if name in sys.modules:
        return
    directory = import_module("sae_lens.loading.pretrained_saes_directory")
    read = directory.get_pretrained_saes_directory
    with patch.object(directory, "get_pretrained_saes_directory", dict):
        module = import_module(name)
    vars(module)["get_pretrained_saes_directory"] = read
