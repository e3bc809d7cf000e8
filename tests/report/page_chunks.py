"""What the data files of pages hold, read as ``static/site.js`` reads them."""

from __future__ import annotations

import base64
import gzip
import json
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

from dbksvd.report.pages.columns import DIGITS


def read_chunk(page: Path, name: str) -> Any:
    text = (page / f"{name}.js").read_text()
    found = re.fullmatch(r'DBKSVD\.put\("([^"]+)","([^"]+)"\)\n', text)
    assert found is not None
    assert found[1] == name
    return json.loads(gzip.decompress(base64.b64decode(found[2])))


def unfold(column: list[Any]) -> list[Any]:
    kind, *rest = column
    if kind == "j":
        return rest[0]
    if kind == "c":
        return [rest[1]] * rest[0]
    if kind == "i":
        rows = zip(*rest[1:], strict=True)
        places = range(len(rest) - 2, -1, -1)
        return [
            rest[0] + sum(DIGITS.index(d) * 64**place for d, place in zip(row, places, strict=True))
            for row in rows
        ]
    if kind == "f":
        parts = zip(unfold(rest[0]), unfold(rest[1]), strict=True)
        return [float(f"{mantissa}e{exponent}") for mantissa, exponent in parts]
    if kind == "s":
        return [rest[0][number] for number in unfold(rest[1])]
    if kind == "t":
        return [list(row) for row in zip(*map(unfold, rest[0]), strict=True)]
    if kind == "d":
        rows = zip(*map(unfold, rest[0].values()), strict=True)
        return [dict(zip(rest[0], row, strict=True)) for row in rows]
    assert kind == "l"
    entries = iter(unfold(rest[1]))
    return [[next(entries) for _ in range(length)] for length in unfold(rest[0])]


def read_info(page: Path) -> dict[str, Any]:
    html = (page / "index.html").read_text()
    found = re.search(r'id="info">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def read_contexts(page: Path) -> dict[str, list[Any]]:
    return {key: unfold(column) for key, column in read_chunk(page, "../contexts").items()}


def read_atoms(page: Path) -> list[dict[str, Any]]:
    """Return all atoms; ``values`` of an example are by position in the document."""
    paths = sorted((page / "data").glob("atoms-*.js"), key=lambda path: int(path.stem[6:]))
    chunks = [read_chunk(page, f"data/{path.stem}") for path in paths]
    atoms = [atom for chunk in chunks for atom in unfold(chunk["atoms"])]
    assert [chunk["first"] for chunk in chunks] == [
        number * read_info(page)["atoms_per_file"] for number in range(len(chunks))
    ]
    before, _ = read_info(page)["window"]
    for atom in atoms:
        for example in (example for side in atom["sides"] for example in side["examples"]):
            if "w" in example:
                example["f"] = max(example["p"] - before, 0)
                places = [example["f"] + place for place in accumulate(example["w"])]
                example["values"] = dict(zip(places, example["v"], strict=True))
    return atoms


def read_words(page: Path) -> dict[str, list[list[int]]]:
    """Return the atoms that fire on each word, and those that show it."""
    found: dict[str, list[list[int]]] = {}
    for number, buckets in enumerate(read_info(page)["buckets"]):
        for word, *steps in unfold(read_chunk(page, f"data/search-{number}")):
            assert word not in found
            assert any(word.startswith(prefix) for prefix in buckets)
            found[word] = [list(accumulate(one)) for one in steps]
    return found
