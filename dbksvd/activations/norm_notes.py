"""What people are told of rows whose norm is many times the median."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dbksvd.activations.shard_settings import NORM_MULTIPLE


def describe_norms(manifest: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return what people are told of the norms of shards: who was left out, and a warning.

    Parameters
    ----------
    manifest : mapping
        Manifest of the shards.

    Returns
    -------
    left_out, warning : str or None
        One line each; the warning is about rows over `NORM_MULTIPLE` medians that are kept.
    """
    norms, splits = manifest.get("norms"), manifest["splits"]
    if norms is None:  # shards of an earlier version
        return None, None
    noun = "tokens" if manifest["model"].get("model_kind") else "rows"
    left_out = _tell(splits, "left_out", norms["multiple"], norms["median"], noun)
    kept = _tell(splits, "kept_outliers", NORM_MULTIPLE, norms["median"], noun, _tell_variance)
    return (
        left_out and f"left out {left_out}",
        kept
        and (
            f"kept {kept}: scores and latents are mostly theirs; "
            f"shards.outlier_norm_multiple: {NORM_MULTIPLE:g} leaves them out"
        ),
    )


def _tell_variance(described: Mapping[str, Any]) -> str:
    return f"; they hold {_show_share(described['variance_share'])} of the total variance"


def _tell(
    splits: Mapping[str, Any],
    key: str,
    multiple: float | None,
    median: float,
    noun: str,
    tell_more: Callable[[Mapping[str, Any]], str] | None = None,
) -> str | None:
    """Return who they are, how many of how many, and where: of the training rows, if there."""
    totals = {name: split["rows"] + split["masked_rows"] for name, split in splits.items()}
    found = {name: split[key] for name, split in splits.items() if split[key]["rows"]}
    if not found or multiple is None:
        return None
    first = "train" if "train" in found else "heldout"
    held = "" if first == "train" else "held-out "
    described, total = found[first], totals[first]
    more = tell_more(described) if tell_more else ""
    text = (
        f"{described['rows']:,} of {total:,} {held}{noun} "
        f"({_show_share(described['rows'] / total)}) whose norm is over {multiple:g} times the "
        f"median {_show_norm(median)}{more}{_tell_places(described)}; largest "
        f"{_show_norm(described['largest_norm'])}, {described['largest_norm'] / median:,.0f} "
        "times the median"
    )
    if first == "train" and "heldout" in found:
        text += f"; also {found['heldout']['rows']:,} of {totals['heldout']:,} held-out {noun}"
    return text


def _tell_places(described: Mapping[str, Any]) -> str:
    """Return where most of the rows sit; the token too where position alone does not tell."""
    rows = described["rows"]
    told: list[str] = []
    for key, name in (("positions", "at position"), ("tokens", "of token id")):
        if described.get(key) and not (told and described["positions"][0][1] > 0.9 * rows):
            value, count = described[key][0]
            told.append(f"{_show_share(count / rows)} {name} {value}")
    return f"; {', '.join(told)}" if told else ""


def _show_share(share: float) -> str:
    return f"{100 * share:.3g} %"


def _show_norm(norm: float) -> str:
    return f"{norm:,.0f}" if norm >= 100 else f"{norm:.3g}"
