"""The labelled data sets that the installed package sae-probes carries."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from dbksvd.base.settings import Names
from dbksvd.text.sources.entry import NamedTexts, Source, SourceSettings

PROBE_PACKAGE = "sae_probes"
PROBE_FOLDER = "data/cleaned_data"
PROBE_SUFFIX = ".csv.zst"
PROBE_COLUMN = "prompt"


class SaeProbesSettings(SourceSettings):
    """Data sets of sae-probes; each is a source of its own name."""

    kind: Literal["sae_probes"]
    """Kind of source."""
    datasets: Names | None = None
    """Names of data sets, such as ``161_agnews_0``; null takes all."""


def read(settings: SaeProbesSettings, where: str) -> Iterator[NamedTexts]:
    """Yield name and texts of each data set."""
    for path in list_probe_datasets(settings.datasets, f"{where}.datasets"):
        name = path.name.removesuffix(PROBE_SUFFIX)
        yield f"sae_probes/{name}", read_csv_texts(path)


def list_probe_datasets(names: Iterable[str] | None, where: str) -> list[Path]:
    """Return the files of data sets in the installed package sae-probes, all of them for None.

    The package is found, not imported: its code is not needed.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    ValueError
        If it has no data set of a name.
    """
    spec = importlib.util.find_spec(PROBE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"{where}: expected the installed package sae-probes, found none")
    folder = Path(spec.submodule_search_locations[0]) / PROBE_FOLDER
    files = {path.name.removesuffix(PROBE_SUFFIX): path for path in folder.glob(f"*{PROBE_SUFFIX}")}
    if not files:
        raise FileNotFoundError(f"{where}: expected {folder}/*{PROBE_SUFFIX}, found none")
    if names is None:
        return [files[name] for name in sorted(files)]
    for name in names:
        if name not in files:
            close = difflib.get_close_matches(name, files, n=3, cutoff=0.4)
            hint = f", close names: {', '.join(close)}" if close else ""
            raise ValueError(f"{where}: expected a data set of sae-probes, got {name!r}{hint}")
    return [files[name] for name in names]


def read_csv_texts(path: Path) -> list[Any]:
    """Return the text column of one data set of sae-probes.

    Raises
    ------
    ValueError
        If the file is damaged or has no such column.
    """
    import pandas as pd

    try:
        return pd.read_csv(path, usecols=[PROBE_COLUMN])[PROBE_COLUMN].tolist()
    except (OSError, MemoryError):
        raise
    # pandas lets the errors of the decompressor through, which have no base of their own
    except Exception as error:
        raise ValueError(f"{path}: expected a CSV with {PROBE_COLUMN!r}, got: {error}") from error


def is_fixed(_settings: SaeProbesSettings) -> bool:
    """Return that the content is fixed: it is that of the locked package."""
    return True


def check(settings: SaeProbesSettings, where: str) -> None:
    """Check the names of data sets, where the package is installed."""
    check_probe_names(settings.datasets, f"{where}.datasets")


def check_probe_names(names: Iterable[str] | None, where: str) -> None:
    """Refuse names that are no data sets of sae-probes.

    It may be installed in the environment of the jobs only: then nothing is refused.

    Raises
    ------
    ValueError
        For the first such name.
    """
    try:
        list_probe_datasets(names, where)
    except FileNotFoundError:
        return


SOURCE = Source(SaeProbesSettings, read, is_fixed=is_fixed, check=check)
