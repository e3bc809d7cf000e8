"""The figures, in the order in which they are shown: a name and the module that holds its entry.

An entry is a :class:`dbksvd.report.figures.entry.Figure`. This table does not decide whether a
figure is drawn again (workflow/source_hash.py): the entry does, with all that its module imports.
"""

from __future__ import annotations

from dbksvd.base.registry import find_entry
from dbksvd.report.figures.entry import Facts, Figure

FIGURES = {
    "variance_explained": "dbksvd.report.figures.variance_explained:FIGURE",
    "description_length": "dbksvd.report.figures.description_length:FIGURE",
    "sparsity": "dbksvd.report.figures.sparsity:FIGURE",
    "loss_recovered": "dbksvd.report.figures.loss_recovered:FIGURE",
    "depth": "dbksvd.report.figures.depth:FIGURE",
    "cost": "dbksvd.report.figures.cost:FIGURE",
    "convergence": "dbksvd.report.figures.convergence:FIGURE",
    "stability": "dbksvd.report.figures.stability:FIGURE",
    "atom_usage": "dbksvd.report.figures.atom_usage:FIGURE",
    "evals": "dbksvd.report.figures.evals:FIGURE",
    "differences": "dbksvd.report.figures.differences:FIGURE",
    "probing": "dbksvd.report.figures.probing:FIGURE",
    "facts": "dbksvd.report.figures.facts:FIGURE",
    "encoders": "dbksvd.report.figures.encoders:FIGURE",
    "identification": "dbksvd.report.figures.identification:FIGURE",
    "correlation_recovery": "dbksvd.report.figures.correlation_recovery:FIGURE",
    "routing": "dbksvd.report.figures.routing:FIGURE",
}


def find_figure(name: str) -> Figure:
    """Return the entry of a figure.

    Raises
    ------
    ValueError
        If no such figure is registered.
    """
    figure: Figure = find_entry(FIGURES, name, "figure")
    return figure


def list_figures(facts: Facts) -> list[str]:
    """Return the names of the figures that an experiment has the data for, in order."""
    return [name for name in FIGURES if find_figure(name).applies(facts)]
