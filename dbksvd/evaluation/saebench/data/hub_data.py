"""SAEBench's own data sets, read from the hub without running the hub's code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

GITHUB_CODE = "codeparrot/github-code"
# Its files hold the text of all languages; its loading script, which is never run, tells the
# language by the ending. These are SAEBench's five.
_ENDINGS = {
    "C": (".c", ".h"),
    "HTML": (".html",),
    "Java": (".java",),
    "PHP": (".php", ".php3", ".php4", ".php5", ".phps", ".phpt"),
    "Python": (".py",),
}


def read_data_set(name: str, *arguments: Any, **options: Any) -> Any:
    """Return ``datasets.load_dataset(name, …)``, with remote code off.

    Parameters
    ----------
    name : str
        Name on the hub.
    *arguments, **options
        As SAEBench gives them to ``load_dataset``.

    Raises
    ------
    ValueError
        If the data set cannot be read; the message names it.
    """
    options.pop("trust_remote_code", None)
    languages = options.pop("languages", None)
    if name == GITHUB_CODE:
        return _iterate_code(_load(name, "parquet", data_files=_locate_files(name)), languages)
    return _load(name, locate(name), *arguments, **options)


def stream_texts(name: str) -> Iterator[str]:
    """Yield the texts of a data set's column ``text``, in its order, nothing kept on disk.

    Raises
    ------
    ValueError
        If the data set cannot be read or has no such column.
    """
    for row in read_data_set(name, split="train", streaming=True):
        if "text" not in row:
            raise ValueError(f"{name}: expected a column 'text', got {', '.join(row)}")
        yield row["text"]


def fetch_folder(name: str, pattern: str) -> Path:
    """Return a folder with the files of a data set's repository that match `pattern`.

    Raises
    ------
    ValueError
        If they cannot be had.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=pattern))
    except (errors.HTTPError, OSError) as error:
        raise ValueError(f"{name}: expected it on the hub, got: {error}") from error


def locate(name: str) -> str:
    """Return where `datasets` finds a data set of the hub: under its name."""
    return name


def _locate_files(name: str) -> str:
    where = locate(name)
    return (
        f"{where}/data/*.parquet"
        if Path(where).is_dir()
        else f"hf://datasets/{where}/data/*.parquet"
    )


def _load(name: str, path: str, *arguments: Any, **options: Any) -> Any:
    from datasets import load_dataset

    if path == "parquet":
        options = {"split": "train", "streaming": True, **options}
    try:
        return load_dataset(path, *arguments, **options, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"{name}: expected it on the hub, got: {error}") from error


def _iterate_code(rows: Iterable[dict[str, Any]], languages: list[str]) -> Iterator[dict[str, str]]:
    """Yield code and language as SAEBench wants them, of `languages` only."""
    endings = {ending: name for name in languages for ending in _ENDINGS[name]}
    for row in rows:
        if missing := {"path", "content"} - row.keys():
            raise ValueError(f"{GITHUB_CODE}: expected columns path and content, no {missing}")
        language = endings.get(Path(row["path"]).suffix)
        if language is not None:
            yield {"code": row["content"], "language": language}
