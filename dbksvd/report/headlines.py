"""The numbers that stand for evals in the short table and the figure of all evals, in order."""

from __future__ import annotations

from dbksvd.base.headline import Headline
from dbksvd.evaluation.saebench.registry import EVALS, find_eval

# Of every dictionary, whichever evals are run.
_RECONSTRUCTION = (
    Headline("variance explained", "heldout", "explained_variance", floor=0.0),
    Headline("L0", "heldout", "l0", 1, in_overview=False, is_compared=False),
)
_USAGE = (
    Headline("unused atoms", "heldout", "dead_atoms", 0, in_overview=False, is_compared=False),
)
# Of dictionaries that differ in their seed only. The rows of the seeds depend on one another.
_STABILITY = (Headline("stability (PW-MCC)", "stability", "pw_mcc", floor=0.0, is_compared=False),)
_COST = (
    Headline(
        *("encoder MFLOP a token", "fit", "encoder_flops", 3),
        unit=1e6,
        in_overview=False,
        is_compared=False,
    ),
    Headline("fit seconds", "fit", "seconds", 0, in_overview=False, is_compared=False),
)


def list_headlines() -> list[Headline]:
    """Return all headlines in the order of the table's columns; each eval's entry has its own."""
    entries = {name: find_eval(name) for name in EVALS}
    truth = [line for entry in entries.values() if entry.needs_truth for line in entry.headlines]
    others = [
        line for entry in entries.values() if not entry.needs_truth for line in entry.headlines
    ]
    return [*_RECONSTRUCTION, *truth, *_USAGE, *_STABILITY, *others, *_COST]
