"""The methods: a name in the config (``algorithm``), and the module that holds its entry.

An entry is a :class:`dbksvd.fit.method.Method`. This table does not decide whether a fit runs again
(workflow/source_hash.py): the entry does, with all that its module imports.
"""

from __future__ import annotations

from dbksvd.base.registry import find_entry
from dbksvd.fit.method import Method

METHODS = {
    "dbksvd": "dbksvd.fit.ksvd.method:DBKSVD_METHOD",
    "ksvd": "dbksvd.fit.ksvd.method:KSVD_METHOD",
    "grown": "dbksvd.fit.grown.method:METHOD",
    "sae": "dbksvd.fit.sae.method:METHOD",
    "random": "dbksvd.fit.baselines.controls:RANDOM",
    "identity": "dbksvd.fit.baselines.controls:IDENTITY",
    "pca": "dbksvd.fit.baselines.controls:PCA",
    "kmeans": "dbksvd.fit.baselines.controls:KMEANS",
    "itda": "dbksvd.fit.baselines.itda:METHOD",
    "consensus": "dbksvd.fit.consensus.method:METHOD",
    "mfr": "dbksvd.fit.mfr.method:METHOD",
    "e2e": "dbksvd.fit.e2e.method:E2E",
    "e2e_downstream": "dbksvd.fit.e2e.method:E2E_DOWNSTREAM",
    "permuted": "dbksvd.fit.baselines.permuted:METHOD",
    "true_features": "dbksvd.fit.baselines.true_features:METHOD",
    "pretrained": "dbksvd.fit.baselines.pretrained:METHOD",
}


def find_method(algorithm: str) -> Method:
    """Return the entry of an algorithm.

    Raises
    ------
    ValueError
        If no such algorithm is registered.
    """
    method: Method = find_entry(METHODS, algorithm, "algorithm")
    return method
