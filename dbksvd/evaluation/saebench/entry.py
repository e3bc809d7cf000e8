"""What an eval says of itself: everything that others need of it, in one entry.

An eval is one module that exports an `Eval`, and one line in
:mod:`dbksvd.evaluation.saebench.registry`. The module is imported when a config is checked, so that
it must not import torch, pandas or SAEBench at its top: what computes is imported inside
``prepare`` and ``run``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd.base.headline import Headline
from dbksvd.base.settings import Settings
from dbksvd.models.sizes import ModelKind

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel


@dataclass(frozen=True)
class EvalTexts:
    """What an eval costs: the text that it reads, in tokens, and its work on the CPU, in seconds.

    Parameters
    ----------
    prepared : float
        Tokens that the model reads once, up to the layer.
    stored : float
        Tokens whose activations are kept on disk.
    held : float
        Tokens whose activations are in memory at the same time.
    coded : float
        Tokens that each dictionary codes.
    forward : float
        Tokens that the whole model reads for each dictionary, gradients counted as two more.
    host_seconds, prepare_seconds : float
        Probes on one CPU core for each dictionary, and once.
    """

    prepared: float = 0.0
    stored: float = 0.0
    held: float = 0.0
    coded: float = 0.0
    forward: float = 0.0
    host_seconds: float = 0.0
    prepare_seconds: float = 0.0


@dataclass(frozen=True)
class ApiKey:
    """A key that an eval reads from the environment.

    Parameters
    ----------
    setting : str
        Setting of the eval that names the variable, such as ``judge``.
    variable : str
        Environment variable that holds the key.
    url : str
        Whom the key is for.
    """

    setting: str
    variable: str
    url: str


def _prepare_nothing(_loaded: LoadedModel, _site: EvalSite, _settings: Any, _folder: Path) -> None:
    """Write nothing: every dictionary is scored without the model's data."""


def _read_no_text(_settings: Any, _kind: ModelKind) -> EvalTexts:
    """Return that no text is read."""
    return EvalTexts()


def _list_nothing(_settings: Any) -> list[str]:
    """Return no name."""
    return []


def _ask_for_no_key(_settings: Any) -> list[ApiKey]:
    """Return that no key is needed."""
    return []


def _accept(_settings: Any, _kind: ModelKind | None) -> None:
    """Accept any settings on any model."""


def _keep(settings: Any) -> Any:
    """Return settings that hold no path as they are."""
    return settings


@dataclass(frozen=True, kw_only=True)
class Eval:
    """The entry of an eval.

    Parameters
    ----------
    settings : type
        A subclass of :class:`dbksvd.base.settings.Settings`: meaning, unit and default of each.
    run : callable
        ``run(task)`` scores one dictionary (:class:`dbksvd.evaluation.saebench.task.EvalTask`).
    prepare : callable
        ``prepare(loaded, site, settings, folder)`` writes what no dictionary changes.
    headlines : tuple of Headline
        The numbers that stand for it in tables and figures, each with label and direction.
    cost : callable
        ``cost(settings, kind)`` returns the `EvalTexts` of an eval on a kind of model.
    datasets : callable
        ``datasets(settings)`` lists the data sets of sae-probes that it reads.
    hub : callable
        ``hub(settings)`` lists the data sets of the hub that it reads, by SAEBench's names.
    files : callable
        ``files(settings)`` lists the local files that it reads.
    keys : callable
        ``keys(settings)`` lists the `ApiKey` that it takes from the environment.
    locate : callable
        ``locate(settings)`` returns settings with absolute paths: evals run in folders of their
        own.
    check : callable
        ``check(settings, kind)`` raises a ValueError that begins with a key of the settings, where
        the eval cannot run on this machine or this kind of model (None: not known yet).
    not_for_encoders : str
        Why an encoder cannot be scored; empty where it can.
    refusal : str
        Why no experiment can have this eval; empty where it can.
    needs_norm_limit : bool
        Whether its preparation pools raw activations or trains on them, so that it has to leave out
        what fits leave out for its norm (``site.norm_limit``) and waits for the shards to say it.
    scores_places : bool
        Whether it also scores dictionaries of what a block's attention or MLP reads or adds; else
        those of the residual stream behind a block alone.
    needs_truth : bool
        Whether it scores samples with known features, at the site ``synthetic``, instead of a
        language model's activations. It is then prepared and run by no rule of SAEBench's.
    """

    settings: type[Settings]
    run: Callable[[EvalTask], None]
    prepare: Callable[[LoadedModel, EvalSite, Any, Path], None] = _prepare_nothing
    headlines: tuple[Headline, ...] = ()
    cost: Callable[[Any, ModelKind], EvalTexts] = _read_no_text
    datasets: Callable[[Any], list[str]] = _list_nothing
    hub: Callable[[Any], list[str]] = _list_nothing
    files: Callable[[Any], list[str]] = _list_nothing
    keys: Callable[[Any], list[ApiKey]] = _ask_for_no_key
    locate: Callable[[Any], Any] = _keep
    check: Callable[[Any, ModelKind | None], None] = _accept
    not_for_encoders: str = ""
    refusal: str = ""
    needs_norm_limit: bool = False
    scores_places: bool = False
    needs_truth: bool = False


def make_probe_headlines(evaluation: str, name: str) -> tuple[Headline, ...]:
    """Return the accuracies of probes that see 1 and 5 atoms, beside that of raw activations.

    Parameters
    ----------
    evaluation : str
        Name of the eval.
    name : str
        How its probes are called in tables and figures.
    """
    return tuple(
        Headline(
            f"{name}, {count} atom{'s' if count > 1 else ''}",
            evaluation,
            f"sae_top_{count}_test_accuracy",
            baseline="llm_test_accuracy",
        )
        for count in (1, 5)
    )
