"""One dictionary scored by those evals that have not scored it yet.

SAEBench's checks of array shapes refuse any model but its own: set ``JAXTYPING_DISABLE=1`` before
anything imports jaxtyping.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd.base.files import (
    DamagedFileError,
    check_folder,
    hash_content,
    hash_file,
    hash_files,
    read_seal,
    write_json,
)
from dbksvd.base.provenance import seed_everything
from dbksvd.base.saving import Folder
from dbksvd.evaluation.saebench.machine_paths import drop_machine_paths
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.preparation import MANIFEST, own_working_folder, read_manifest
from dbksvd.evaluation.saebench.registry import EVALS, find_eval, parse_evals
from dbksvd.evaluation.saebench.results import CORRECTIONS, NOT_APPLICABLE, RESULT_SUFFIX, SEAL
from dbksvd.evaluation.saebench.shims.imports import import_quickly
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from sae_lens import SAE

    from dbksvd.base.settings import Settings
    from dbksvd.models.loading import LoadedModel

logger = logging.getLogger(__name__)

DICTIONARY_FILES = ("cfg.json", "sae_weights.safetensors")


def run_evals(
    dictionary: Path,
    evals: Mapping[str, Settings | Mapping[str, Any]],
    prepared: Path,
    output: Path,
    *,
    load_model: Callable[[], LoadedModel],
    device: str = "cpu",
    code: Mapping[str, str] | None = None,
    norm_limit: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Score one dictionary by every eval; SAEBench's JSON goes to a sub-folder of the eval's name.

    An eval that is finished, with the same settings, data, dictionary and code, is kept, unless
    its files are others than were written. One that fails leaves the others standing, and only it
    is run again next time. Folders of evals that are not asked for are removed.

    Parameters
    ----------
    dictionary : path
        Folder with ``cfg.json`` and ``sae_weights.safetensors``.
    evals : mapping of str to Settings, or to a mapping of them
        Settings of each eval, by name: those it was prepared with.
    prepared : path
        Folder with a folder of :func:`prepare_eval` for each eval, only read.
    output : path
        Folder of the scores.
    load_model : callable
        Returns the model; called only by evals that need it.
    device : str
        Where dictionary and model are.
    code : mapping of str to str, optional
        Hash of each eval's sources.
    norm_limit : float, optional
        Largest norm of the rows that the dictionary was fitted on; evals leave positions over it
        as they are.

    Returns
    -------
    dict of str to dict
        The seal of each eval: ``key``, ``seconds``, ``width`` (latents that SAEBench saw),
        ``sha256`` of its files.

    Raises
    ------
    ValueError
        If some eval failed; the message names each with its reason, the log has the traceback.
    FileNotFoundError
        If an eval was not prepared.
    DamagedFileError
        If a prepared file is missing or another.
    """
    parsed = parse_evals(evals)
    manifests = {name: read_manifest(prepared / name) for name in evals}
    for name in EVALS:
        if name not in evals and (output / name / SEAL).is_file():
            shutil.rmtree(_list_own(output / name).check(output / name))
    for name in evals:
        _list_own(output / name).check(output / name)
    files = {name: hash_file(dictionary / name) for name in DICTIONARY_FILES}
    seals, failures = {}, []
    for name, settings in parsed.items():
        identity = {
            "settings": settings.dump(),
            "prepared": hash_file(prepared / name / MANIFEST),
            "dictionary": files,
            "code": (code or {}).get(name),
            "norm_limit": norm_limit,
        }
        key = hash_content(identity)
        seal = _read_seal(output / name, key)
        if seal is None:
            check_folder(prepared / name / MANIFEST)
            try:
                _check_settings(name, settings, manifests[name])
                site = _find_site(name, manifests[name], norm_limit)
                task = _make_task(dictionary, settings, manifests[name], site, load_model, device)
                seal = _run_eval(name, task, prepared / name, output / name, key)
            except DamagedFileError:  # is made anew by a rerun
                raise
            except Exception as error:  # an eval's own code may raise anything
                logger.exception("%s: failed", name)
                failures.append(f"{name} ({type(error).__name__}: {error})")
                continue
        seals[name] = seal
    if failures:
        raise ValueError(f"evals: expected all to end well, these did not: {', '.join(failures)}")
    return seals


def _read_seal(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the seal of an eval that is finished with the same key and files, else None."""
    if not (folder / SEAL).is_file():
        return None
    try:
        seal = check_folder(folder / SEAL)
    except DamagedFileError as error:
        logger.info("%s: scored again: %s", folder.name, error.reason)
        return None
    if seal.get("key") != key:
        return None
    logger.info("%s: scored before, kept", folder.name)
    return dict(seal)


def _check_settings(name: str, settings: Settings, manifest: Mapping[str, Any]) -> None:
    if manifest["settings"] != settings.dump():
        raise ValueError(
            f"evals.{name}: prepared with {manifest['settings']}, asked for are {settings.dump()}"
        )


def _find_site(name: str, manifest: Mapping[str, Any], norm_limit: float | None) -> EvalSite:
    """Return the site that an eval was prepared for, with the norm limit of the shards.

    Raises
    ------
    ValueError
        If the preparation left out positions over another limit.
    """
    site = EvalSite(**manifest["site"])
    if find_eval(name).needs_norm_limit and site.norm_limit != norm_limit:
        raise ValueError(
            f"evals.{name}: prepared with the norm limit {site.norm_limit}, the shards have "
            f"{norm_limit}"
        )
    return replace(site, norm_limit=norm_limit)


def _make_task(
    dictionary: Path,
    settings: Settings,
    manifest: Mapping[str, Any],
    site: EvalSite,
    load_model: Callable[[], LoadedModel],
    device: str,
) -> EvalTask:
    """Return a task without its folders. Every eval gets an SAE of its own: some change it."""
    from dbksvd.dictionaries.loading import load_sae

    sae = load_sae(dictionary, device)
    if sae.cfg.d_in != manifest["width"]:
        raise ValueError(
            f"dictionary: expected width {manifest['width']}, the model's, got {sae.cfg.d_in}"
        )
    place_sae(sae, site)
    name = "_".join(dictionary.resolve().parts[-2:])  # method and sizes
    return EvalTask(sae, name, site, settings, Path(), Path(), load_model, device)


def _list_own(folder: Path) -> Folder:
    """Return what an earlier run wrote into the folder of an eval, as its seal says."""
    names = {SEAL, CORRECTIONS, NOT_APPLICABLE, f"*{RESULT_SUFFIX}"}
    if (folder / SEAL).is_file():
        try:
            names |= {Path(file).parts[0] for file in read_seal(folder / SEAL)["sha256"]}
        except (DamagedFileError, KeyError):  # its eval is run again
            names.add("*")
    return Folder(tuple(sorted(names)))


def _run_eval(name: str, task: EvalTask, prepared: Path, output: Path, key: str) -> dict[str, Any]:
    """Run an eval; return its seal, which is written with its files."""
    start, roots = time.perf_counter(), [Path.cwd(), prepared.resolve(), prepared.resolve().parent]
    with _list_own(output).replace(output) as folder:
        placed = replace(task, prepared=prepared.resolve(), output=folder.resolve())
        import_quickly()
        from dbksvd.evaluation.saebench.shims.common import read_on

        with own_working_folder(), read_on(task.device):
            roots += [Path.cwd(), folder.resolve()]
            seed_everything(task.site.seed)
            find_eval(name).run(placed)
        drop_machine_paths(folder, roots)
        seconds = time.perf_counter() - start
        logger.info("%s: scored in %.1f s", name, seconds)
        seal = {
            **{"seconds": seconds, "width": task.sae.cfg.d_sae, "key": key},
            "sha256": hash_files(folder),
        }
        write_json(folder / SEAL, seal)
    return seal


def place_sae(sae: SAE[Any], site: EvalSite) -> None:
    """Write the site into the SAE's metadata, where SAEBench reads model and hook from."""
    metadata = sae.cfg.metadata
    metadata.model_name, metadata.hook_name = site.model_name, site.hook
    metadata.hook_layer, metadata.prepend_bos = site.layer - 1, False
