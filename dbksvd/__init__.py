"""DB-KSVD: sparse dictionaries of transformer activations.

Public names are imported on first use, so that ``import dbksvd`` is cheap. If SAELens is
installed, importing dbksvd also teaches ``SAE.load_from_disk`` the architectures of this package
(now if SAELens is loaded already, else as soon as it is).
"""

from importlib import import_module
from typing import Any

import wrapt

from dbksvd.base.version import __version__

_HOMES = {
    "sparse_encode": "dbksvd.ops.pursuit.encode",
    "DBKSVD": "dbksvd.fit.ksvd.dbksvd",
    "KSVD": "dbksvd.fit.ksvd.ksvd",
    "Dictionary": "dbksvd.dictionaries.dictionary",
    "SparseCodes": "dbksvd.base.codes",
    "ActivationShards": "dbksvd.activations.shards",
    "load_dictionary": "dbksvd.dictionaries.loading",
    "find_top_contexts": "dbksvd.features.top_contexts",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dbksvd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


@wrapt.when_imported("sae_lens")
def _register_architectures(_module: Any) -> None:
    import_module("dbksvd.dictionaries.registration").register()
