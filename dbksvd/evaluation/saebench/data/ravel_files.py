"""RAVEL's files: entities, their attributes, and the prompts that ask for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel

from dbksvd.base.local_files import expand_user, require_file, tell_path
from dbksvd.evaluation.saebench.data.names import HUB

HUB_FOLDER = "adamkarvonen/ravel_prompts"


class ReadsRavel(Protocol):
    """Settings that say where RAVEL's files are: the word hub, or a folder with them in base/."""

    data: str


Reader = TypeVar("Reader", bound=BaseModel)


def list_hub(settings: ReadsRavel) -> list[str]:
    """Return the repository of RAVEL's prompts, where they come from the hub."""
    return [HUB_FOLDER] if settings.data == HUB else []


def list_files(settings: ReadsRavel) -> list[str]:
    """Return RAVEL's files, where they are in a folder."""
    if settings.data == HUB:
        return []
    return sorted(map(str, expand_user(settings.data).glob("base/*.json")))


def locate(settings: Reader) -> Reader:
    """Return the settings with the folder as an absolute path."""
    data = settings.data  # type: ignore[attr-defined]
    if data == HUB:
        return settings
    return settings.model_copy(update={"data": str(expand_user(data).resolve())})


def check_files(settings: ReadsRavel, entities: Iterable[str]) -> None:
    """Refuse a folder without RAVEL's files of some kinds of entities."""
    if settings.data == HUB:
        return
    folder = expand_user(settings.data) / "base"
    if not folder.is_dir():
        raise ValueError(
            f"data: expected {HUB!r} or a folder with RAVEL's files in base/, "
            f"found none at {tell_path(settings.data)}"
        )
    for entity in entities:
        for name in name_files(entity):
            require_file(folder / name, "data", f"the file {name} of RAVEL")


def find_folder(settings: ReadsRavel) -> Path:
    """Return the folder that holds RAVEL's JSON files, fetched where they are on the hub."""
    from dbksvd.evaluation.saebench.data.hub_data import fetch_folder

    if settings.data == HUB:
        return fetch_folder(HUB_FOLDER, "*.json")
    return expand_user(settings.data) / "base"


def copy_files(data: Path, entity: str, to: Path) -> None:
    """Copy the files of one kind of entity to where SAEBench reads them.

    Raises
    ------
    FileNotFoundError
        If one is missing.
    """
    (to / "base").mkdir(exist_ok=True)
    for name in name_files(entity):
        path = data / name
        if not path.is_file():
            raise FileNotFoundError(f"evaluation.evals.ravel.data: expected {path}, no such file")
        shutil.copy(path, to / "base")


def name_files(entity: str) -> list[str]:
    """Return the names of RAVEL's files of one kind of entity."""
    parts = ("attribute_to_prompts", "prompt_to_split", "entity_attributes", "entity_to_split")
    return [f"ravel_{entity}_{part}.json" for part in parts]
