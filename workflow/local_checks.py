"""What a config names on this machine, looked at before anything runs.

Snakemake removes the outputs of a job before it starts, so that a wrong path that only the job
finds costs the last good result. This runs where ``snakemake`` is started, once; a file system that
jobs share is assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from dbksvd.activations.file_headers import check_ready
from dbksvd.base.settings import SettingsError
from dbksvd.base.settings_errors import Problems
from dbksvd.fit.registry import find_method
from dbksvd.images.local_checks import check_image_folder
from dbksvd.models.local_checks import check_model_files
from dbksvd.models.places import find_config
from dbksvd.models.sizes import read_sizes
from dbksvd.text.amount import count_most_tokens
from dbksvd.text.settings import TextSettings
from dbksvd.text.sources.registry import find_text_source
from dbksvd.text.sources.sae_probes import check_probe_names
from workflow.experiment import Experiment


def check_local(experiment: Experiment) -> None:
    """Check the files and folders that a config names, as far as their headers tell.

    Raises
    ------
    SettingsError
        With a line for each thing that is missing or of another kind than is asked for.
    """
    config, problems = experiment.config, Problems()
    activations: Any = config.activations
    width = None
    if experiment.source == "files":
        shape = problems.catch(_ask, check_ready, activations)
        width = None if shape is None else shape[1]
        problems.catch(_check_tensor, activations.files)
    if config.images is not None:
        problems.catch(_ask, check_image_folder, config.images)
    if config.model is not None:
        of_images = experiment.source == "images"
        problems.catch(_ask, partial(check_model_files, of_images=of_images), config.model)
        # a module of the user's own can have any width
        if activations.hook_module is None and not activations.modules:
            width = problems.catch(_ask, _find_width, config.model)
    if config.text is not None:
        for position, source in enumerate(config.text.sources):
            check = find_text_source(source.kind).check
            problems.catch(_ask, check, source, f"text.sources[{position}]")
        held_out = config.text.held_out_datasets
        problems.catch(_ask, check_probe_names, held_out, "text.held_out_datasets")
        problems.catch(_ask, _check_amount, config.text, activations)
    _check_fits(experiment, width, problems)
    problems.tell()


def _ask(check: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a check returns; what it finds wrong is wrong with the config."""
    try:
        return check(*arguments)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(" ".join(str(error).split())) from error
    except OSError as error:
        raise SettingsError(f"{error.filename}: {error.strerror}") from error


def _check_amount(text: TextSettings, rows: Any) -> None:
    """Refuse a text that cannot have as many tokens as are asked for."""
    wanted = rows.n_train_tokens + rows.n_heldout_tokens
    of_documents = text.max_documents * rows.context_length
    if of_documents < wanted:
        raise SettingsError(
            f"text.max_documents: expected at least {ceil(wanted / rows.context_length)} for "
            f"{wanted} tokens (n_train_tokens + n_heldout_tokens) at context_length "
            f"{rows.context_length}, got {text.max_documents}"
        )
    try:
        most = count_most_tokens(text, rows.context_length)
    except (OSError, ValueError):  # told by the check of the source, or by the job that reads it
        return
    if most is not None and most < wanted:
        raise SettingsError(
            f"text.sources: expected text for {wanted} tokens (n_train_tokens + "
            f"n_heldout_tokens), got at most {most}"
        )


def _check_tensor(ready: Any) -> None:
    if "tensor" in ready.model_fields_set and Path(ready.path).suffix == ".npy":
        raise SettingsError("activations.files.tensor: no use for a .npy file, which has one array")


def _find_width(model: Any) -> int | None:
    """Return the width of a model's layers, where its config is on this machine."""
    path = find_config(model)
    return None if path is None else read_sizes(path).width


def _check_fits(experiment: Experiment, width: int | None, problems: Problems) -> None:
    """Check the sizes of fits against the rows that they read, where these are known."""
    drawn = experiment.drawing
    for fit in experiment.made:
        section = drawn if fit.site == "synthetic" else experiment.config.activations
        own: Any = drawn.synthetic.hidden_dim if fit.site == "synthetic" else width
        if own is None:
            continue
        settings = experiment.config.methods[fit.method]
        problems.catch(_check_pursuit, settings, fit.k, own, fit.method)
        check = find_method(settings.algorithm).check_rows
        problems.catch(
            _place, check, settings, fit.n_atoms, own, section.n_train_tokens, fit.method
        )


def _check_pursuit(settings: Any, k: int, width: int, method: str) -> None:
    pursuit = getattr(settings, "pursuit", "mp")
    if pursuit != "mp" and k > width:
        raise SettingsError(
            f"methods.{method}.pursuit: expected mp for k = {k}, above the width {width} of the "
            f"activations, got {pursuit}"
        )


def _place(check: Callable[..., None], *arguments: Any) -> None:
    """Run a check of a method against rows; its message gets the method's name."""
    *sizes, name = arguments
    try:
        check(*sizes)
    except ValueError as error:
        raise SettingsError(f"methods.{name}.{error}") from error
