"""What a figure says of itself: everything that others need of it, in one entry.

A figure is one module that exports a `Figure`, and one line in
:mod:`dbksvd.report.figures.registry`. The module is imported when a config is checked, so that it
must not import matplotlib, seaborn or pandas at its top: ``draw`` imports them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles


@dataclass(frozen=True)
class Facts:
    """What decides which figures an experiment has the data for.

    Parameters
    ----------
    evals : frozenset of str
        SAEBench's evals that are run.
    has_loss : bool
        Whether core computes the cross-entropy loss of the language model.
    ground_truth : str or None
        Kind of the generative model whose features are known; None without one.
    architectures : frozenset of str
        Architectures of the SAEs that are fitted, such as ``switch``.
    seeds : int
        Most seeds that a method has at one size.
    rivals : int
        Most methods that are no controls and share a size with the first of them.
    has_stability : bool
        Whether it is measured how far seeds agree, of any kind of dictionary.
    sparsities : int
        Most k that a method has at one number of atoms.
    has_encoders : bool
        Whether dictionaries are coded by other encoders than their own.
    layers : int
        Layers of the model as it was trained that dictionaries are fitted at.
    """

    evals: frozenset[str]
    has_loss: bool
    ground_truth: str | None
    architectures: frozenset[str]
    seeds: int
    rivals: int = 0
    has_stability: bool = False
    sparsities: int = 1
    has_encoders: bool = False
    layers: int = 0


def always(_facts: Facts) -> bool:
    """Say that every experiment has the data for a figure."""
    return True


@dataclass(frozen=True)
class Figure:
    """The entry of a figure.

    Parameters
    ----------
    draw : callable
        ``draw(tables, styles)`` returns matplotlib's figure.
    tables : tuple of str
        Tables that ``draw`` is given: ``scores``, ``differences``, ``curves``, ``usage``,
        ``stability``, ``routing``, ``encoder_scores`` or ``published``, each a DataFrame with the
        columns of its CSV file. The figure is drawn again when one of these changes.
    caption : str
        Text below the figure in the report, in reStructuredText.
    applies : callable
        ``applies(facts)`` says whether an experiment has the data for the figure.
    """

    draw: Callable[[dict[str, pd.DataFrame], Styles], Drawing]
    tables: tuple[str, ...]
    caption: str
    applies: Callable[[Facts], bool] = always
