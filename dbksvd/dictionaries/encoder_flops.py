"""Floating-point operations of encoding a token, counted from ``cfg.json``; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def count_encoder_flops(cfg: Mapping[str, Any]) -> float:
    """Return the floating-point operations of encoding one token, two for each multiply–add.

    Counted is what grows with the width. Not counted are comparisons (TopK, arg-max, ReLU,
    thresholds), biases, the softmax of a router, what is done once for all tokens (the Gram
    matrix), and the decoder, which is a separate 2·k·d for every architecture. With d = d_in and
    m = d_sae:

    - topk, abstopk, batchtopk, matryoshka_batchtopk, jumprelu, standard, transcoder,
      jumprelu_transcoder: ``2·d·m``. (SAELens saves BatchTopK and Matryoshka SAEs as jumprelu, as
      Llama Scope's are; our transcoders are saved as jumprelu_transcoder.)
    - gated: ``2·(d·m + m)``: the paths share one product, which one of them scales.
    - matching_pursuit: ``2·k·(d·m + 2·d)``, a full product, the coefficient and the residual for
      each of k = max_iterations picks (d picks where not set): an upper bound.
    - switch: ``2·(d·m/E + d·E)``: one of E experts, and the router.
    - kron: ``2·(d·h·(b + e) + h·b·e)``: the factors of h heads of base b and extension e, and their
      products, of which our selection forms only a part.
    - dbksvd: ``2·d·m + picks + refit``, with m the stored atoms before any sign split and one pick
      for each of the k atoms (an atom picked again is not counted, a sample that ends early is):
      mp ``2·m·(k − 1)`` for updating the products, and a refit of ``k³/3 + 2·k²`` for one Cholesky
      solve (non-negative least squares may take several);
      omp ``m·k·(k − 1)`` for products against 1 … k − 1 atoms, and ``k(k + 1)(2k + 1)/2`` for
      growing the factor and solving after each pick;
      ols ``m·(k − 1)·(k − 2)`` for making the products of atom i orthogonal to those of the
      i − 1 before it, ``m·(7·k − 5)`` for updating products and distances and for the ratios, and
      ``k³/3 + 2·k²`` for one factor and solve.

    Parameters
    ----------
    cfg : mapping
        The content of ``cfg.json``.

    Returns
    -------
    float
        Operations per token.

    Raises
    ------
    ValueError
        If the architecture is unknown or a field it needs is missing.

    References
    ----------
    Kurochkin et al. (2025), arXiv 2505.22255: multiply–adds d·F for TopK, d·h(m + n) + m·n·h for
    KronSAE, k·d for either decoder. Mudide et al. (2024), arXiv 2410.08201, for Switch.
    """
    architecture = cfg.get("architecture")
    if architecture not in _COUNTS:
        raise ValueError(
            f"architecture: expected one of {', '.join(_COUNTS)}, got {architecture!r}"
        )
    try:
        return float(_COUNTS[architecture](cfg))
    except KeyError as error:
        raise ValueError(
            f"{error.args[0]}: expected in the config of architecture {architecture!r}, got none"
        ) from error


def _count_product(cfg: Mapping[str, Any]) -> float:
    return 2 * cfg["d_in"] * cfg["d_sae"]


def _count_gated(cfg: Mapping[str, Any]) -> float:
    return _count_product(cfg) + 2 * cfg["d_sae"]


def _count_matching_pursuit(cfg: Mapping[str, Any]) -> float:
    picks = cfg["max_iterations"] or cfg["d_in"]
    return picks * (_count_product(cfg) + 4 * cfg["d_in"])


def _count_switch(cfg: Mapping[str, Any]) -> float:
    return _count_product(cfg) / cfg["n_experts"] + 2 * cfg["d_in"] * cfg["n_experts"]


def _count_kron(cfg: Mapping[str, Any]) -> float:
    heads, base, extension = cfg["n_heads"], cfg["base"], cfg["extension"]
    return 2 * heads * (cfg["d_in"] * (base + extension) + base * extension)


def _count_pursuit(cfg: Mapping[str, Any]) -> float:
    k = cfg["k"]
    m = cfg["d_sae"] / (2 if cfg.get("sign_split", False) else 1)
    products = 2 * cfg["d_in"] * m
    if cfg["method"] == "omp":
        return products + m * k * (k - 1) + k * (k + 1) * (2 * k + 1) / 2
    solve = k**3 / 3 + 2 * k**2
    if cfg["method"] == "ols":
        return products + m * (k - 1) * (k - 2) + m * (7 * k - 5) + solve
    return products + 2 * m * (k - 1) + (solve if cfg["refit"] else 0)


_COUNTS: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "dbksvd": _count_pursuit,
    "topk": _count_product,
    "abstopk": _count_product,
    "batchtopk": _count_product,
    "matryoshka_batchtopk": _count_product,
    "jumprelu": _count_product,
    "llama_scope": _count_product,
    "standard": _count_product,
    "transcoder": _count_product,
    "jumprelu_transcoder": _count_product,
    "gated": _count_gated,
    "matching_pursuit": _count_matching_pursuit,
    "switch": _count_switch,
    "kron": _count_kron,
}
