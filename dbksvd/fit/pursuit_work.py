"""What coding one sample by a pursuit costs; the plans of several methods count with it."""

from __future__ import annotations

from dbksvd.base.work import Work
from dbksvd.dictionaries.encoder_flops import count_encoder_flops


def count_pursuit(d: int, m: int, k: int, method: str, *, refit: bool) -> Work:
    """Return the work of coding one sample; see :func:`count_encoder_flops`.

    Parameters
    ----------
    d, m : int
        Width of the sample and number of atoms.
    k : int
        Atoms that are picked.
    method : {"mp", "omp", "ols"}
        The pursuit.
    refit : bool
        Whether the coefficients are fitted again at the end; only "mp" asks.
    """
    cfg = {"architecture": "dbksvd", "d_in": d, "d_sae": m, "k": k, "method": method}
    products = 2.0 * d * m
    return Work(products=products, steps=count_encoder_flops({**cfg, "refit": refit}) - products)
