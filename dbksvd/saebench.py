"""SAEBench as a library: a dictionary in, its own evals in the middle, its own JSON out.

An eval has two parts: what no dictionary changes is prepared once per model and layer, and each
dictionary is scored with it. A new eval is two functions in :mod:`dbksvd.saebench_evals` and a
line in `EVALS`; faults of SAEBench are handled in :mod:`dbksvd.saebench_shims`.

SAEBench's checks of array shapes refuse any model but its own: set ``JAXTYPING_DISABLE=1`` before
anything imports jaxtyping.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd import saebench_evals as evals
from dbksvd.files import read_json, write_json
from dbksvd.hooks import find_hook
from dbksvd.provenance import seed_everything
from dbksvd.saebench_model import EvalSite
from dbksvd.saebench_shims import AG_NEWS_SOURCES

if TYPE_CHECKING:
    from sae_lens import SAE

    from dbksvd.models import LoadedModel

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Eval:
    """One eval of SAEBench.

    Parameters
    ----------
    prepare : callable
        ``prepare(loaded, site, settings, folder)`` writes what no dictionary changes.
    run : callable
        ``run(sae, name, site, settings, prepared, folder)`` scores one SAE and leaves SAEBench's
        JSON in `folder`.
    datasets : callable
        ``datasets(settings)`` lists the bundled data sets it reads.
    """

    prepare: Callable[[LoadedModel, EvalSite, Mapping[str, Any], Path], None]
    run: Callable[[SAE[Any], str, EvalSite, Mapping[str, Any], Path, Path], None]
    datasets: Callable[[Mapping[str, Any]], list[str]]


def _read_datasets(settings: Mapping[str, Any]) -> list[str]:
    return list(settings["datasets"])


EVALS = {
    "core": Eval(evals.prepare_core, evals.run_core, _read_datasets),
    "sparse_probing_sae_probes": Eval(
        evals.prepare_sae_probes, evals.run_sae_probes, _read_datasets
    ),
    "sparse_probing": Eval(
        evals.prepare_sparse_probing, evals.run_sparse_probing, lambda _: list(AG_NEWS_SOURCES)
    ),
}


def find_eval(name: str) -> Eval:
    """Return the eval called `name`.

    Raises
    ------
    ValueError
        If there is none; the message lists those there are.
    """
    if name not in EVALS:
        raise ValueError(f"evals: expected some of {sorted(EVALS)}, got {name!r}")
    return EVALS[name]


def list_datasets(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the bundled data sets that evals (name to settings) read: hold them out of fitting."""
    return sorted({name for key in settings for name in find_eval(key).datasets(settings[key])})


def prepare_evals(
    loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Mapping[str, Any]], folder: Path
) -> None:
    """Write what no dictionary changes: a sub-folder for each eval, and `MANIFEST`.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : mapping of str to mapping
        Settings of each eval, by name.
    folder : path
        An empty folder.

    Raises
    ------
    ValueError
        For an unknown eval or data set, or a layer that the model does not have.
    """
    find_hook(loaded, site.layer)
    parts = {name: find_eval(name) for name in settings}
    seconds = {}
    for name, part in parts.items():
        start = time.perf_counter()
        part_folder = (folder / name).resolve()
        part_folder.mkdir()
        with _own_working_folder():
            seed_everything(site.seed)
            part.prepare(loaded, site, settings[name], part_folder)
        seconds[name] = time.perf_counter() - start
        logger.info("%s: prepared in %.1f s", name, seconds[name])
    manifest = {
        "site": asdict(site),
        "width": loaded.width,
        "evals": {name: dict(settings[name]) for name in settings},
        "seconds": seconds,
        "versions": {name: version(name) for name in ("sae-bench", "sae-lens", "sae-probes")},
    }
    write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a prepared folder."""
    write_json(folder / MANIFEST, manifest)


def name_model(name: str) -> str:
    """Return a model's name as SAEBench and sae-probes can put it into file names."""
    return Path(name).name.replace(" ", "_")


def run_evals(
    sae: SAE[Any],
    name: str,
    settings: Mapping[str, Mapping[str, Any]],
    prepared: Path,
    folder: Path,
) -> dict[str, float]:
    """Score one SAE; SAEBench's JSON of each eval goes to a sub-folder of its name.

    Parameters
    ----------
    sae : sae_lens.SAE
        From :func:`dbksvd.architectures.loading.load_sae`.
    name : str
        Name of the dictionary in SAEBench's JSON.
    settings : mapping of str to mapping
        Settings of each eval, by name: those it was prepared with.
    prepared : path
        Folder of :func:`prepare_evals`, only read.
    folder : path
        An empty folder.

    Returns
    -------
    dict of str to float
        Seconds of each eval.

    Raises
    ------
    ValueError
        For an unknown eval, one not prepared with these settings, or a dictionary of another
        width.
    FileNotFoundError
        If `prepared` is not there.
    """
    parts = {key: find_eval(key) for key in settings}
    manifest = read_manifest(prepared)
    for key in parts:
        if manifest["evals"].get(key) != dict(settings[key]):
            raise ValueError(
                f"evals.{key}: {prepared} was prepared with {manifest['evals'].get(key)}, "
                f"asked for are {dict(settings[key])}"
            )
    if sae.cfg.d_in != manifest["width"]:
        raise ValueError(
            f"dictionary: expected width {manifest['width']}, the model's, got {sae.cfg.d_in}"
        )
    site = EvalSite(**manifest["site"])
    place_sae(sae, site)
    seconds = {}
    for key, part in parts.items():
        start = time.perf_counter()
        part_folder, source = (folder / key).resolve(), (prepared / key).resolve()
        part_folder.mkdir()
        with _own_working_folder():
            seed_everything(site.seed)
            part.run(sae, name, site, settings[key], source, part_folder)
        seconds[key] = time.perf_counter() - start
        logger.info("%s: scored in %.1f s", key, seconds[key])
    return seconds


def read_manifest(prepared: Path) -> dict[str, Any]:
    """Return the manifest of a prepared folder."""
    if not (prepared / MANIFEST).is_file():
        raise FileNotFoundError(
            f"{prepared}: expected a folder of prepare_evaluation, no {MANIFEST} there"
        )
    return read_json(prepared / MANIFEST)


def place_sae(sae: SAE[Any], site: EvalSite) -> None:
    """Write the site into the SAE's metadata, where SAEBench reads model and hook from."""
    metadata = sae.cfg.metadata
    metadata.model_name, metadata.hook_name = site.model_name, site.hook
    metadata.hook_layer, metadata.prepend_bos = site.layer - 1, False


@contextlib.contextmanager
def _own_working_folder() -> Iterator[None]:
    # SAEBench writes ./artifacts and more wherever it is run: jobs side by side must not meet.
    with tempfile.TemporaryDirectory(prefix="saebench-") as folder, contextlib.chdir(folder):
        yield
