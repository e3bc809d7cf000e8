"""Lines below tables on what a model knows of what evals ask it."""

from __future__ import annotations

import pandas as pd

from dbksvd.base.layout import FAILED

KNOWN, ASKED = "prompts_known", "prompts_asked"


def list_eval_notes(scores: pd.DataFrame) -> list[str]:
    """Return a line for each site and each eval that asks a model for facts.

    Parameters
    ----------
    scores : DataFrame
        From :func:`dbksvd.report.collect.collect_scores`. Such an eval has the metrics
        ``prompts_known`` and ``prompts_asked``, and behind a slash those of each kind of fact; they
        are the same for all dictionaries.
    """
    table = scores[scores["eval"] != FAILED]
    table = table[table["metric"].astype(str).str.startswith(("prompts_", "applicable"))]
    notes = []
    for (site, name), rows in table.groupby(["site", "eval"]):
        values = rows.groupby("metric")["value"].first()
        if KNOWN not in values or ASKED not in values:
            continue
        parts = [
            f"{metric.removeprefix(KNOWN)[1:]} {values[metric]:.0f} of "
            f"{values[metric.replace(KNOWN, ASKED)]:.0f}"
            for metric in values.index
            if metric.startswith(f"{KNOWN}/")
        ]
        known = f"{values[KNOWN]:.0f} of {values[ASKED]:.0f}"
        ending = "" if values.get("applicable", 1) else "; too few for a score"
        told = f" ({', '.join(parts)})" if parts else ""
        notes.append(f"{site}: the model continues {known} prompts of {name} right{told}{ending}.")
    return notes
