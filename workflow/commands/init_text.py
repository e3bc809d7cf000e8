"""What `dbksvd init` says of a text: where it is, and how many tokens it has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbksvd.activations.settings import TextRowSettings
from dbksvd.base.local_files import expand_user, is_path
from dbksvd.base.settings import parse
from dbksvd.base.splits import Split
from dbksvd.models.access import check_data_set
from dbksvd.models.settings import HubDataSet
from dbksvd.text.amount import count_words
from dbksvd.text.settings import TextSettings

TEXT_FILES = (".txt", ".jsonl")
N_TRAIN, N_HELDOUT = 200_000, 20_000  # tokens
LEAST_ROWS: Mapping[Split, int] = {"train": 1000, "heldout": 100}  # fewer say nothing
EVAL_LENGTH = 64  # context_length of the evals in the starters
SPECIAL_TOKENS = 2  # around a text
LOCAL_KINDS = ("file", "local_dataset")


def describe_text(text: str | None, column: str | None = None) -> dict[str, Any]:
    """Return the source of a text: a file, a folder, or a data set of the hub.

    Raises
    ------
    ValueError, FileNotFoundError
        If there is no such text, no field of a .jsonl file holds text, or it has no columns.
    """
    own = {} if column is None else {"column": column}
    path = None if text is None else expand_user(text)
    if text is None or path is None or (path.is_file() and path.suffix == ".txt"):
        if own:
            raise ValueError(f"--column: expected a text with columns, got {text}")
        return {"kind": "file", "path": str(path.absolute())} if path else {"kind": "sae_probes"}
    if path.is_file() and path.suffix == ".jsonl":
        own = own or {"column": find_column(path)}
        return {"kind": "file", "path": str(path.absolute()), **own}
    if path.exists():
        return {"kind": "local_dataset", "path": str(path.absolute()), **own}
    if is_path(text) or path.suffix in TEXT_FILES:
        raise FileNotFoundError(f"--text: expected a file or a folder, found none at {path}")
    check_data_set(HubDataSet(key="--text", name=text, streaming=True))
    hub = {"kind": "hub", "name": text, "split": "train", "streaming": True, "limit": 50000}
    return hub | own


def shorten_context(positions: int | None) -> dict[str, Any]:
    """Return the tokens of a document, and the settings of each eval, that a model has room for."""
    usual = TextRowSettings.model_fields["context_length"].default
    length = min(usual, positions or usual)
    return {
        "context_length": length,
        "is_shortened": length < usual,
        "eval_settings": f"{{context_length: {length}}}" if length < EVAL_LENGTH else "{}",
    }


def describe_amount(source: Mapping[str, Any], n_atoms: int, context_length: int) -> dict[str, Any]:
    """Return how many tokens to take of a text, no more than a local one holds, and atoms.

    Raises
    ------
    ValueError, OSError
        If a local text is too small for dictionaries, or cannot be read.
    """
    usual = {"n_train": N_TRAIN, "n_heldout": N_HELDOUT, "n_atoms": n_atoms}
    if source["kind"] not in LOCAL_KINDS:
        return usual
    settings: TextSettings = parse(TextSettings, {"sources": [source]}, "text")
    words = count_words(settings, most=max(1, context_length - SPECIAL_TOKENS))
    split = find_short_split(words)
    if split is not None:
        raise ValueError(
            f"--text: expected at least {LEAST_ROWS[split]} words of {split} documents, got "
            f"{words[split]} in {source['path']}; a tenth of the documents is held out"
        )
    return take_rows(words, N_TRAIN, N_HELDOUT, n_atoms)


def find_short_split(rows: Mapping[Split, int]) -> Split | None:
    """Return the first split that has too few rows, or None."""
    return next((split for split, least in LEAST_ROWS.items() if rows[split] < least), None)


def take_rows(
    rows: Mapping[Split, int], n_train: int, n_heldout: int, n_atoms: int
) -> dict[str, int]:
    """Return how many rows to take, the usual numbers or what there are, and no more atoms."""
    n_train = min(n_train, round_down(rows["train"]))
    n_heldout = min(n_heldout, round_down(rows["heldout"]))
    return {"n_train": n_train, "n_heldout": n_heldout, "n_atoms": min(n_atoms, n_train)}


def round_down(count: int) -> int:
    """Return a count with two digits that are not zero."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return count // unit * unit


def find_column(path: Path) -> str:
    """Return the field of a .jsonl file with the longest text in its first line.

    Raises
    ------
    ValueError
        If there is none.
    """
    with path.open(encoding="utf-8-sig") as stream:
        line = stream.readline()
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}: line 1: expected JSON, got: {error}") from error
    texts = content if isinstance(content, dict) else {}
    found = {name: len(value) for name, value in texts.items() if isinstance(value, str)}
    if not found:
        raise ValueError(f"{path}: line 1: expected a field with text, got {line.strip()[:80]}")
    return max(found, key=lambda name: (name == "text", found[name]))
