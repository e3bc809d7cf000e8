"""Documents: read from packages, hubs and files, deduplicated, split, in a fixed random order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from dbksvd.base.files import check_hash, hash_file, read_seal, write_json
from dbksvd.base.saving import Folder
from dbksvd.base.settings import parse
from dbksvd.base.splits import SPLITS, Split, choose_split, digest_item
from dbksvd.text.settings import AnySource, TextSettings
from dbksvd.text.sources.entry import NamedTexts, SourceSettings
from dbksvd.text.sources.registry import find_text_source
from dbksvd.text.sources.sae_probes import list_probe_datasets, read_csv_texts

SCHEMA_VERSION = 1
DOCUMENTS_FILE = "documents.jsonl"
MANIFEST_FILE = "manifest.json"
# Only what the documents are, not how they came about: equal text, equal seal.
SEAL_FILE = "seal.json"
TEXT_FOLDER = Folder(
    (DOCUMENTS_FILE, MANIFEST_FILE, SEAL_FILE), MANIFEST_FILE, ("schema_version", "documents")
)


@dataclass(frozen=True)
class Document:
    """One text: its line number in documents.jsonl (from 0), its split and its text."""

    index: int
    split: str
    text: str


@dataclass
class SourceCounts:
    """Where the documents of one source went; ``read`` is the sum of the others.

    ``held_out`` are texts kept away for scoring, ``kept`` those that passed all checks (before
    ``max_documents``).
    """

    read: int = 0
    empty: int = 0
    held_out: int = 0
    duplicates: int = 0
    kept: int = 0


class _Entry(NamedTuple):
    digest: bytes
    source: str
    text: str


def prepare_text(settings: Mapping[str, Any] | TextSettings, output: str | Path) -> dict[str, Any]:
    """Write ``documents.jsonl``, ``manifest.json`` and ``seal.json`` into the folder `output`.

    A document is kept once, by its exact text without surrounding white space. Its digest,
    sha256(seed, text), decides order and split, so both depend on nothing but seed and text.

    Parameters
    ----------
    settings : TextSettings, or a mapping of the same keys
        Section ``text`` of the config.
    output : path
        Folder; replaced as a whole when everything is written. One with other files is refused.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    ValueError
        If a setting or a source is not usable, or too little text is left.
    """
    checked = parse(TextSettings, settings, "text")
    TEXT_FOLDER.check(output)
    entries, counts = _collect_entries(checked)
    entries.sort()
    entries = entries[: checked.max_documents]
    splits = [choose_split(entry.digest, checked.heldout_fraction) for entry in entries]
    _check_amount(checked, splits, counts)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "documents": {split: splits.count(split) for split in SPLITS},
        "characters": {
            split: sum(len(e.text) for e, s in zip(entries, splits, strict=True) if s == split)
            for split in SPLITS
        },
        "sources": {name: asdict(count) for name, count in counts.items()},
        "settings": checked.dump(),
    }
    with TEXT_FOLDER.replace(output) as folder:
        with (folder / DOCUMENTS_FILE).open("w") as stream:
            for entry, split in zip(entries, splits, strict=True):
                identity = hashlib.sha256(entry.text.encode()).hexdigest()[:16]
                line = {"id": identity, "source": entry.source, "split": split, "text": entry.text}
                stream.write(json.dumps(line) + "\n")
        manifest["sha256"] = hash_file(folder / DOCUMENTS_FILE)
        write_json(folder / MANIFEST_FILE, manifest)
        seal = {"documents": manifest["documents"], "sha256": manifest["sha256"]}
        write_json(folder / SEAL_FILE, seal)
    return manifest


def read_source(
    settings: Mapping[str, Any] | SourceSettings, where: str = "text.sources"
) -> Iterator[NamedTexts]:
    """Yield (name, texts) of one source; a text that is not a string counts as empty.

    Parameters
    ----------
    settings : settings of a source, or a mapping of the same keys
        ``kind`` is a name in :mod:`dbksvd.text.sources.registry`.
    where : str
        Name of the setting, for messages.

    Raises
    ------
    ValueError, OSError
        If a setting is not usable, a column or file is missing, or the data cannot be read.
    """
    source: SourceSettings = parse(AnySource, settings, where)
    yield from find_text_source(source.kind).read(source, where)


def _collect_entries(settings: TextSettings) -> tuple[list[_Entry], dict[str, SourceCounts]]:
    """Read all sources; return what is kept and the counts of every source."""
    held_out = _read_held_out(settings.held_out_datasets or ())
    seen: set[str] = set()
    entries: list[_Entry] = []
    counts: dict[str, SourceCounts] = {}
    with tqdm(unit=" documents", unit_scale=True, desc="read text") as bar:
        for position, source in enumerate(settings.sources):
            for name, texts in read_source(source, f"text.sources[{position}]"):
                count = counts.setdefault(name, SourceCounts())
                for text in texts:
                    count.read += 1
                    bar.update()
                    text = text.strip() if isinstance(text, str) else ""
                    if not text:
                        count.empty += 1
                    elif text in held_out:
                        count.held_out += 1
                    elif text in seen:
                        count.duplicates += 1
                    else:
                        seen.add(text)
                        count.kept += 1
                        digest = digest_item(settings.seed, _encode(text, name, count.read))
                        entries.append(_Entry(digest, name, text))
    return entries, counts


def _read_held_out(names: Iterable[str]) -> set[str]:
    texts: set[str] = set()
    for path in list_probe_datasets(names, "text.held_out_datasets") if names else ():
        texts.update(text.strip() for text in read_csv_texts(path) if isinstance(text, str))
    return texts


def _encode(text: str, source: str, number: int) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{source}: document {number}: expected Unicode text, {error}") from error


def _check_amount(
    settings: TextSettings, splits: list[Split], counts: dict[str, SourceCounts]
) -> None:
    wanted = {"train": settings.min_train_documents, "heldout": settings.min_heldout_documents}
    for split in SPLITS:
        if splits.count(split) < wanted[split]:
            read = sum(count.read for count in counts.values())
            kept = sum(count.kept for count in counts.values())
            raise ValueError(
                f"text: expected at least {wanted[split]} {split} documents, got "
                f"{splits.count(split)} (read {read}, kept {kept}, "
                f"max_documents {settings.max_documents})"
            )


def check_documents(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of a text folder after checking the hash of its documents.

    Raises
    ------
    FileNotFoundError
        If there is no manifest.
    DamagedFileError
        If ``documents.jsonl`` is missing or not what the manifest describes.
    """
    folder = Path(folder)
    seal = folder / MANIFEST_FILE
    manifest: dict[str, Any] = read_seal(seal)
    check_hash(folder / DOCUMENTS_FILE, manifest.get("sha256"), seal)
    return manifest


def iterate_documents(
    folder: str | Path, split: Split, *, slice_index: int = 0, slices: int = 1
) -> Iterator[Document]:
    """Yield the documents ``slice_index::slices`` of a split, in the order of the file.

    Parameters
    ----------
    folder : path
        Folder written by :func:`prepare_text`.
    split : {"train", "heldout"}
        Which documents.
    slice_index, slices : int
        One of how many slices; by default the whole split.
    """
    position = 0
    with (Path(folder) / DOCUMENTS_FILE).open() as stream:
        for index, line in enumerate(stream):
            record = json.loads(line)
            if record["split"] != split:
                continue
            if position % slices == slice_index:
                yield Document(index, split, record["text"])
            position += 1
