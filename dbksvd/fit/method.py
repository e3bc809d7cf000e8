"""What a method says of itself: everything that others need of it, in one entry.

A method is one module (or folder) that exports a `Method`, and one line in
:mod:`dbksvd.fit.registry`. The module is imported when a config is checked, so that it must not
import torch at its top: what computes is imported inside ``fit``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbksvd.base.settings import DeviceName, Settings
from dbksvd.base.work import Work

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask


class MethodSettings(Settings):
    """What every method has; a subclass allows one value of `algorithm`, its name."""

    algorithm: str
    """The method's name in the registry."""
    device: DeviceName = "auto"
    """Where to compute; auto is a GPU if the job is given one, else the CPU."""


@dataclass(frozen=True)
class FitSizes:
    """Sizes that decide what a fit costs.

    Parameters
    ----------
    n_atoms, k : int
        Atoms of the dictionary and non-zeros of a sample.
    width : int
        Width d of the activations.
    n_train, n_heldout : int
        Samples to learn from and to measure on.
    model_parameters : int
        Weights of the model that they are of; 0 where there is none, or it is not known.
    depth : float
        Share of its blocks up to the site.
    """

    n_atoms: int
    k: int
    width: int
    n_train: int
    n_heldout: int
    model_parameters: int = 0
    depth: float = 1.0


def _accept_sizes(_settings: Any, _n_atoms: int, _k: int) -> None:
    """Accept any number of atoms and non-zeros."""


def _accept_rows(_settings: Any, _n_atoms: int, _width: int, _n_train: int) -> None:
    """Accept any number of rows of any width."""


def _find_no_unused(_settings: Any) -> Mapping[str, str]:
    """Return that every key has an effect."""
    return {}


@dataclass(frozen=True)
class Base:
    """The fits of another method that a fit begins from; all are of its own site and sizes.

    Parameters
    ----------
    key : str
        Key of the settings that names the method.
    method : str
        Name of the other method of the experiment.
    seeds : tuple of int, optional
        Seeds of the fits that a fit of seed 0 begins from; None is one fit, of its own seed.
    """

    key: str
    method: str
    seeds: tuple[int, ...] | None = None

    def list_seeds(self, seed: int) -> tuple[int, ...]:
        """Return the seeds of the fits that a fit of `seed` begins from.

        Those of seed 0 are shifted by seed · (largest − smallest + 1), so that no two fits begin
        from the same one, and what differs between them is what differs between such pools.
        """
        if self.seeds is None:
            return (seed,)
        shift = seed * (max(self.seeds) - min(self.seeds) + 1)
        return tuple(each + shift for each in self.seeds)


def _find_no_base(_settings: Any) -> None:
    """Return that no other method's fit is needed."""


def _accept_base(_settings: Any, _base: Any) -> None:
    """Accept any method to begin from."""


def _take_no_pairs(_settings: Any) -> bool:
    """Return that samples are rows of one place."""
    return False


def _list_no_sources(_settings: Any) -> tuple[str, ...]:
    """Return that no module beside the method's own shapes its fits."""
    return ()


@dataclass(frozen=True)
class Method:
    """The entry of a method.

    Parameters
    ----------
    settings : type
        A subclass of `MethodSettings` whose only value of ``algorithm`` is the method's name in the
        registry, or a union of such classes.
    fit : callable
        ``fit(task)`` returns the :class:`~dbksvd.fit.task.FitResult`; ``task.settings`` is parsed.
    plan : callable
        ``plan(settings, sizes)`` returns the `Work` of one fit, counted from the same plan that the
        fit follows.
    coding : callable or None
        ``coding(settings, sizes)`` returns the `Work` of coding one sample by the finished
        dictionary; None where the encoder is that of the fit that this one begins from.
    label : callable
        ``label(settings)`` returns how tables and figures call it.
    stage : str
        Line of ``make estimate`` that its fits are counted in.
    is_control : bool or callable
        Whether it is a control: drawn in grey, left out of comparisons of rivals;
        ``is_control(settings)`` where that depends on the settings.
    is_floor : bool
        Whether its controls learn nothing of the data, or are kept from it, so that what a score
        gives to them is drawn as the floor of that score.
    needs_truth : bool
        Whether it is given the generative model that made the samples (``task.truth``), so that
        it fits at the site synthetic only. No other method sees the model.
    needs_model : bool
        Whether it is given the causal model that the samples are of and its documents
        (``task.extraction``, ``task.text``), so that it fits the residual stream behind a block of
        such a model only.
    is_data_parallel : bool
        Whether several processes can fit together.
    check_sizes : callable
        ``check_sizes(settings, n_atoms, k)`` raises a ValueError that begins with a key of the
        settings, ``n_atoms:`` or ``k:``, where they do not fit.
    check_rows : callable
        ``check_rows(settings, n_atoms, width, n_train)`` raises a ValueError, as ``check_sizes``,
        where rows of that width and number cannot be fitted. It is asked where they are known
        before anything runs.
    find_unused : callable
        ``find_unused(settings)`` returns the keys that other keys leave without effect, each with
        what it goes with, such as ``init: doubling``. A config that gives one is refused.
    find_base : callable
        ``find_base(settings)`` returns the `Base` whose fits become ``task.bases``, or None.
    check_base : callable
        ``check_base(settings, base)`` raises a ValueError that begins with a key of the settings
        where fits of the method that ``find_base`` names, whose settings `base` are, are none to
        begin from.
    takes_pairs : callable
        ``takes_pairs(settings)`` returns whether it fits pairs of an input and a target, as the
        site ``mlp_pair`` has them, and nothing else.
    list_sources : callable
        ``list_sources(settings)`` returns further modules that shape fits with these settings,
        such as ``dbksvd.dictionaries.switch``.
    """

    settings: Any
    fit: Callable[[FitTask], FitResult]
    plan: Callable[[Any, FitSizes], Work]
    coding: Callable[[Any, FitSizes], Work] | None
    label: Callable[[Any], str]
    stage: str = "fit controls"
    is_control: bool | Callable[[Any], bool] = False
    is_floor: bool = False
    needs_truth: bool = False
    needs_model: bool = False
    is_data_parallel: bool = False
    check_sizes: Callable[[Any, int, int], None] = _accept_sizes
    check_rows: Callable[[Any, int, int, int], None] = _accept_rows
    find_unused: Callable[[Any], Mapping[str, str]] = _find_no_unused
    find_base: Callable[[Any], Base | None] = _find_no_base
    check_base: Callable[[Any, Any], None] = _accept_base
    takes_pairs: Callable[[Any], bool] = _take_no_pairs
    list_sources: Callable[[Any], tuple[str, ...]] = _list_no_sources

    def makes_control(self, settings: Any) -> bool:
        """Return whether fits with these settings are controls."""
        return self.is_control(settings) if callable(self.is_control) else self.is_control
