"""A first config: small, commented, and sure to pass the check."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from dbksvd.activations.file_headers import ENDINGS, read_shape
from dbksvd.activations.settings import ReadySettings
from dbksvd.base.files import replace_file
from dbksvd.base.local_files import expand_user
from dbksvd.base.settings import parse
from dbksvd.images.amount import count_images, count_patches
from dbksvd.images.settings import ImageSettings
from dbksvd.models.access import check_model
from dbksvd.models.places import GGUF_ENDING, find_config, find_folder
from dbksvd.models.sizes import ModelKind, ModelSizes, find_kind, read_positions, read_sizes
from workflow.commands.init_text import (
    LEAST_ROWS,
    describe_amount,
    describe_text,
    find_short_split,
    shorten_context,
    take_rows,
)
from workflow.commands.loading import ROOT
from workflow.config_files import read_config_file
from workflow.experiment import Experiment
from workflow.local_checks import check_local

STARTERS = Path(__file__).parents[1] / "starters"
CONFIG = "config.yaml"
HELDOUT_SHARE = 10  # a tenth of the rows of a file is held out
MOST_ROWS = 1_000_000  # of a file, to begin with
N_TRAIN_PATCHES, N_HELDOUT_PATCHES = 50_000, 5_000
MOST_IMAGES = 2000  # that are looked at; more than the usual numbers need
USUAL_K = {"causal": 32}  # non-zeros of a token
K = 16


@dataclass(frozen=True)
class Model:
    """A model as its own files describe it."""

    section: Mapping[str, Any]
    kind: ModelKind
    sizes: ModelSizes
    positions: int | None  # most tokens that it takes, where its config says so


def write_config(
    folder: Path,
    *,
    model: str | None = None,
    layer: int | None = None,
    text: str | None = None,
    column: str | None = None,
    like: str | None = None,
    data: str | None = None,
    tensor: str | None = None,
    force: bool = False,
) -> Path:
    """Write ``config.yaml`` into a folder, once it has passed the check of a run.

    Parameters
    ----------
    folder : Path
        Made where it is missing; its name becomes that of the experiment.
    model : str, optional
        Local folder or name on the hub; default: that of the default experiment.
    layer : int, optional
        Block whose output is taken, counted from 1; default: the middle one.
    text : str, optional
        File, folder or data set of the hub; default: the text that is installed.
    column : str, optional
        Column or field of the text; default: ``text``, or of a .jsonl file the longest.
    like : str, optional
        Which of the starters; default: as model and data are.
    data : str, optional
        File of activations, or folder of images.
    tensor : str, optional
        Dataset or tensor inside a file of activations; default: ``activations``.
    force : bool
        Whether an older config is replaced.

    Returns
    -------
    Path
        The config.

    Raises
    ------
    ValueError, OSError
        If something named is not there or of another kind; nothing is written then.
    SettingsError
        If the config would not pass the check.
    """
    path = folder / CONFIG
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: expected a folder or a new name, got a file")
    if path.exists() and not force:
        raise FileExistsError(f"{path}: expected no config there (or --force), found one")
    like = like or choose_starter(model, data)
    known = sorted(path.stem for path in STARTERS.glob("*.yaml"))
    if like not in known:
        raise ValueError(f"--like: expected {', '.join(known)}, got {like!r}")
    facts = gather(like, model, layer, text, column, data, tensor)
    # A pursuit picks no more atoms than there are dimensions.
    facts["k"] = min(USUAL_K.get(like, K), max(1, facts.get("width", K) // 4))
    filled = fill(like, {**facts, "experiment": name_experiment(folder)})
    check_local(Experiment(yaml.safe_load(filled)))
    folder.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        temporary.write_text(filled)
    return path


def choose_starter(model: str | None, data: str | None) -> str:
    """Return which starter fits what is named."""
    if data is not None:
        return "images" if expand_user(data).is_dir() else "files"
    if model is None:
        return "default"
    return "causal" if look_at_model(model).kind == "causal" else "default"


def gather(
    like: str,
    model: str | None,
    layer: int | None,
    text: str | None,
    column: str | None,
    data: str | None,
    tensor: str | None = None,
) -> dict[str, Any]:
    """Return what a starter is filled with.

    Raises
    ------
    ValueError
        If something is named that the starter has no place for, or is not what it should be.
    """
    needs = {"files": ("data", "tensor"), "images": ("data", "model", "layer"), "synthetic": ()}
    takes = needs.get(like, ("model", "layer", "text", "column"))
    given = {"model": model, "layer": layer, "text": text, "column": column}
    given |= {"data": data, "tensor": tensor}
    for name, value in given.items():
        if value is not None and name not in takes:
            raise ValueError(f"--{name}: expected none for --like {like}, got {value}")
    if "data" in takes and data is None:
        raise ValueError(f"--data: expected a {'file' if like == 'files' else 'folder'}, got none")
    if like == "files":
        return describe_file(str(data), tensor)
    facts: dict[str, Any] = {"data": quote(str(expand_user(data).absolute())) if data else None}
    if "model" in takes:
        if model is None and like in ("causal", "images"):
            raise ValueError(
                f"--model: expected a hub name or a folder for --like {like}, got none"
            )
        found = look_at_model(model)
        facts |= describe_model(found, layer, is_default=model is None)
    if like == "images":
        facts |= describe_images(str(data), find_config(found.section), facts["n_atoms"])
    if "text" in takes:
        source = describe_text(text, column)
        facts["source"] = as_flow(source)
        facts |= shorten_context(found.positions)
        facts |= describe_amount(source, facts["n_atoms"], facts["context_length"])
    return facts


def look_at_model(name: str | None) -> Model:
    """Return what a model's own config says; that of a model of the hub is fetched.

    Raises
    ------
    ValueError, FileNotFoundError
        If there is no such model.
    """
    if name is None:
        section = read_config_file(ROOT / CONFIG)["model"]
    elif name.endswith(GGUF_ENDING):
        section = {"gguf": str(expand_user(name).absolute())}
    elif find_folder(name) is not None:
        section = {"name": str(expand_user(name).absolute())}
    else:
        _, facts = check_model({"name": name, "revision": "main"}, [])
        section = {"name": name, "revision": facts["commit"]}
    path, kind = find_config(section), find_kind(section)
    if path is None or kind is None:
        raise ValueError(f"--model: expected a model with a config.json, got {name!r}")
    return Model(section, kind, read_sizes(path), read_positions(path))


def describe_model(model: Model, layer: int | None, *, is_default: bool) -> dict[str, Any]:
    """Return the section of a model, the layer, and sizes that suit its width.

    Raises
    ------
    ValueError
        If the model has no such block.
    """
    depth, width = model.sizes.layers, model.sizes.width
    if layer is None:
        own = read_config_file(ROOT / CONFIG)["activations"]["layers"][0]
        layer = own if is_default else (depth + 1) // 2
    if not 0 <= layer <= depth:
        raise ValueError(f"--layer: expected 0 to {depth}, the blocks of the model, got {layer}")
    section = "\n".join(f"  {key}: {quote(value)}" for key, value in model.section.items())
    return {
        "model": section,
        "layer": layer,
        "depth": depth,
        "width": width,
        "n_atoms": count_atoms(width),
        "hook": f"blocks.{layer - 1}.hook_resid_post" if layer else "the embedding",
    }


def count_atoms(width: int) -> int:
    """Return the least power of two of at least twice a width."""
    return 1 << (2 * width - 1).bit_length()


def describe_images(folder: str, config: Path | None, n_atoms: int) -> dict[str, Any]:
    """Return how many patches to take of a folder of images, no more than it has, and atoms.

    Raises
    ------
    ValueError, OSError
        If there are too few images.
    """
    settings: ImageSettings = parse(ImageSettings, {"folder": folder}, "images")
    patches = None if config is None else count_patches(config)
    counts = count_images(settings, most=MOST_IMAGES)
    rows = {split: count * (patches or 1) for split, count in counts.items()}
    split = find_short_split(rows)
    if split is not None:
        raise ValueError(
            f"--data: expected images enough for {LEAST_ROWS[split]} {split} tokens, got "
            f"{counts[split]} {split} images in {folder}; a tenth of the images is held out"
        )
    return take_rows(rows, N_TRAIN_PATCHES, N_HELDOUT_PATCHES, n_atoms)


def describe_file(data: str, tensor: str | None = None) -> dict[str, Any]:
    """Return path, rows and sizes for an array of activations.

    Raises
    ------
    ValueError
        If the file holds no array of activations.
    """
    path = expand_user(data).absolute()
    if path.suffix not in ENDINGS:
        raise ValueError(f"--data: expected a file of kind {', '.join(ENDINGS)}, got {data}")
    section = {"path": str(path)} | ({} if tensor is None else {"tensor": tensor})
    shape = read_shape(parse(ReadySettings, section, "activations.files"))
    if shape is None:
        raise ValueError(f"{path}: expected h5py to read it, which is not installed")
    rows = min(shape[0], MOST_ROWS)
    heldout = max(1, rows // HELDOUT_SHARE)
    return {
        "file": as_flow(section),
        "n_heldout": heldout,
        "n_train": rows - heldout,
        "width": shape[1],
        "n_atoms": min(count_atoms(shape[1]), rows - heldout),
    }


def name_experiment(folder: Path) -> str:
    """Return a name for an experiment from that of its folder."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    return name or "mine"


def quote(value: Any) -> str:
    """Return a value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).split(
        "\n"
    )[0]


def as_flow(section: Mapping[str, Any]) -> str:
    """Return a mapping as ``{key: value}`` in one line."""
    return "{" + ", ".join(f"{key}: {quote(value)}" for key, value in section.items()) + "}"


def fill(like: str, facts: Mapping[str, Any]) -> str:
    """Return a starter with its places filled."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(STARTERS),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(f"{like}.yaml").render(facts)
