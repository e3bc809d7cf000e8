"""Lines below tables on what training dictionaries on inside their model has changed."""

from __future__ import annotations

import pandas as pd

from dbksvd.report.measured import SIZES

ORIGINAL = "ce_loss_original"


def list_loss_notes(scores: pd.DataFrame) -> list[str]:
    """Return a line for each kind of dictionary that was trained on by what it costs its model.

    Parameters
    ----------
    scores : DataFrame
        From :func:`dbksvd.report.collect.collect_scores`. The fits of such methods have the metrics
        ``ce_loss_original``, and with the endings ``_before`` and ``_after`` ``ce_loss``, ``kl``
        (nats a token), ``l0`` and ``fve``. Several seeds give their means.
    """
    table = scores[scores["eval"] == "fit"]
    notes = []
    for (site, method, _, _), rows in table.groupby(SIZES, sort=False):
        values = rows.groupby("metric")["value"].mean()
        if ORIGINAL not in values:
            continue
        notes.append(
            f"{site}, {method}: inside the model, whose CE loss on held-out text is "
            f"{values[ORIGINAL]:.2f}, the dictionary it began from has a loss of "
            f"{values['ce_loss_before']:.2f} (KL {values['kl_before']:.2f}, L0 "
            f"{values['l0_before']:.1f}, variance explained {_show(values['fve_before'])}), the "
            f"trained one {values['ce_loss_after']:.2f} (KL {values['kl_after']:.2f}, L0 "
            f"{values['l0_after']:.1f}, variance explained {_show(values['fve_after'])})."
        )
    return notes


def _show(share: float) -> str:
    return f"{share:.3f}".replace("0.", ".", 1)
