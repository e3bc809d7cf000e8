"""Evals prepared once for a model and layer: what no dictionary changes.

SAEBench's checks of array shapes refuse any model but its own: set ``JAXTYPING_DISABLE=1`` before
anything imports jaxtyping.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dbksvd.base.files import hash_files, read_seal, write_json
from dbksvd.base.provenance import seed_everything
from dbksvd.base.saving import Folder
from dbksvd.base.site import RESIDUAL
from dbksvd.evaluation.saebench.checks import check_context, check_eval, check_eval_place
from dbksvd.evaluation.saebench.data.heldout import serve_heldout
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.registry import find_eval, parse_eval
from dbksvd.evaluation.saebench.shims.imports import import_quickly
from dbksvd.models.hooks import find_hook
from dbksvd.models.loading import load_model

if TYPE_CHECKING:
    from dbksvd.base.settings import Settings
    from dbksvd.models.loading import LoadedModel

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
# Beside it, for the next preparation: what is there besides.
WRITTEN = "written.json"


def prepare_folder(
    name: str,
    param: Mapping[str, Any],
    folder: Path,
    *,
    gpus: int = 0,
    text: Path | None = None,
    norm_limit: float | None = None,
) -> None:
    """Load the model and write the prepared folder of an eval, whole or not at all.

    Parameters
    ----------
    name : str
        The eval.
    param : mapping
        ``model`` (section of the config), ``layer``, ``seed``, ``settings`` of the eval, and
        ``place`` where it is another than the block's output.
    folder : path
        Where the result goes.
    gpus : int
        GPUs that the scheduler gave to this job.
    text : path, optional
        Folder of :func:`dbksvd.text.documents.prepare_text`, for ``datasets: heldout``.
    norm_limit : float, optional
        Largest norm of the rows that fits see, for evals that need it (``Eval.needs_norm_limit``).

    Raises
    ------
    ValueError
        As :func:`prepare_eval` and :func:`dbksvd.models.loading.load_model`.
    """
    settings = parse_eval(name, param["settings"])
    _list_own(name, folder).check(folder)
    loaded = load_model(param["model"], gpus=gpus)
    site = EvalSite(
        name_model(loaded.name),
        param["layer"],
        param["seed"],
        loaded.kind,
        norm_limit,
        param.get("place", RESIDUAL),
    )
    with _list_own(name, folder).replace(folder) as temporary:
        prepare_eval(name, loaded, site, settings, temporary, text=text)
        written = sorted(path.name for path in temporary.iterdir())
        write_json(temporary / WRITTEN, {"written": written})


def _list_own(name: str, folder: Path) -> Folder:
    """Return what an earlier preparation wrote: its names are SAEBench's, and differ by eval."""
    if (folder / WRITTEN).is_file():
        names = list(map(str, read_seal(folder / WRITTEN).get("written", ())))
    elif (folder / MANIFEST).is_file():  # written before there was such a list
        hashes = read_seal(folder / MANIFEST).get("sha256", {})
        names = [Path(file).parts[0] for file in hashes]
    elif (folder.parent.name, folder.name) == ("prepared", name):  # and its manifest is removed
        names = ["*"]
    else:
        names = []
    return Folder((MANIFEST, WRITTEN, *names), MANIFEST, ("eval", "sha256"))


def prepare_eval(
    name: str,
    loaded: LoadedModel,
    site: EvalSite,
    settings: Settings | Mapping[str, Any],
    folder: Path,
    *,
    text: Path | None = None,
) -> None:
    """Write what no dictionary changes, and `MANIFEST` with the sha256 of each file.

    The same model and settings give the same bytes: the manifest holds no times.

    Parameters
    ----------
    name : str
        The eval.
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : Settings, or a mapping of them
        Settings of the eval; the manifest holds all of them, defaults too.
    folder : path
        An empty folder.
    text : path, optional
        Folder with the run's own documents, for ``datasets: heldout``.

    Raises
    ------
    ValueError
        For an unknown eval or data set, one that the model cannot run, a layer that it does not
        have, or texts longer than its positions.
    """
    entry, settings = find_eval(name), parse_eval(name, settings)
    find_hook(loaded, site.layer, place=site.place)
    check_eval(name, settings, loaded.kind)
    check_eval_place(name, site.place)
    check_context(name, settings, loaded.max_length, loaded.name)
    start = time.perf_counter()
    folder = folder.resolve()
    located = entry.locate(settings)  # the working folder changes below
    import_quickly()
    with serve_heldout(text), own_working_folder():
        seed_everything(site.seed)
        entry.prepare(loaded, site, located, folder)
    logger.info("%s: prepared in %.1f s", name, time.perf_counter() - start)
    manifest = {
        "site": asdict(site),
        "width": loaded.width,
        "eval": name,
        "settings": settings.dump(),
        "sha256": hash_files(folder),
        "model_sha256": loaded.sha256,
        "versions": {name: version(name) for name in ("sae-bench", "sae-lens", "sae-probes")},
    }
    write_json(folder / MANIFEST, manifest)


def name_model(name: str) -> str:
    """Return a model's name as SAEBench and sae-probes can put it into file names."""
    return Path(name).name.replace(" ", "_")


def read_manifest(prepared: Path) -> dict[str, Any]:
    """Return the manifest of a prepared folder.

    Raises
    ------
    FileNotFoundError
        If there is none.
    DamagedFileError
        If it is cut short.
    """
    if not (prepared / MANIFEST).is_file():
        raise FileNotFoundError(
            f"{prepared}: expected a folder of prepare_evaluation, no {MANIFEST} there"
        )
    return dict(read_seal(prepared / MANIFEST))


@contextlib.contextmanager
def own_working_folder() -> Iterator[None]:
    """Work in an empty folder of one's own, with gradients on, and leave both as they were."""
    # SAEBench writes ./artifacts and more wherever it is run: jobs side by side must not meet.
    # Some evals turn gradients on or off for good: the next one must not inherit that.
    with (
        tempfile.TemporaryDirectory(prefix="saebench-") as folder,
        contextlib.chdir(folder),
        torch.set_grad_enabled(True),
    ):
        yield
