"""Odd files of text: refused in one line, or the documents that a plain reader finds."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from examples import try_examples
from front_door import knock
from hypothesis import given
from hypothesis import strategies as st

from dbksvd.text.documents import iterate_documents, prepare_text

ODD_TEXTS = [
    "", " ", "\t", "plain words", "a [SEP] b", "<|endoftext|>", "[PAD]", "\ufeffmarked", "nul \x00 byte",
    "right \u202eleft", "emoji 👩‍👩‍👧", "e\u0301 and é", "line\u2028separator", "form\x0cfeed", "\x85next",
    "<script>alert(1)</script>", "quote \" and '", "back\\slash", "comma, semi; tab\t", "x" * 5000,
    "123", "null", "true", "{}", "[1]", "high \udc80 surrogate", "nbsp\u00a0", "ﬁ ligature",
]  # fmt: skip
ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "utf-16", "latin-1"]
ENDS = ["\n", "\n", "\n", "\r\n", "\r"]


@st.composite
def texts(draw: st.DrawFn) -> list[str]:
    """Return texts, some odd; enough plain ones for both splits follow."""
    odd = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=12))
    found = draw(st.lists(odd, max_size=6))
    return found + [f"plain document {number}" for number in range(draw(st.integers(0, 12)))]


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes, list[str] | None]:
    """Return the name of a file, its content and its texts; None where no reader could agree."""
    lines, encoding = draw(texts()), draw(st.sampled_from(ENCODINGS))
    kind = draw(st.sampled_from([".txt", ".txt", ".jsonl", ".jsonl", ".csv", ".parquet"]))
    if kind == ".parquet":
        stream = io.BytesIO()
        lines = [line for line in lines if line.isprintable()] or ["a"]
        pd.DataFrame({"text": lines}).to_parquet(stream)
        return f"texts{kind}", stream.getvalue(), lines
    end = draw(st.sampled_from(ENDS))
    if kind == ".txt":
        content = end.join(lines)
    elif kind == ".jsonl":
        end = "\n" if end == "\r" else end
        content = end.join(
            json.dumps({"text": line}, ensure_ascii=draw(st.booleans())) for line in lines
        )
    else:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        lines = [line for line in lines if line.isprintable()]
        writer.writerows([["text"], *([line] for line in lines)])
        content = table.getvalue()
    try:
        encoded = content.encode(encoding)
    except UnicodeEncodeError:
        encoded = content.encode("utf-8", "surrogatepass")
        return f"texts{kind}", encoded, None
    if kind == ".txt":
        # a mark of the byte order at the beginning is no text
        lines = list(io.StringIO(content.removeprefix("\ufeff"), newline=None))
    is_plain = encoding in ("utf-8", "utf-8-sig") or (content.isascii() and encoding == "latin-1")
    return f"texts{kind}", encoded, lines if is_plain else None


def expect_documents(lines: list[str]) -> set[str]:
    """Return the documents of texts: without white space around them, each once."""
    return {line.strip() for line in lines} - {""}


@given(file=files(), damage=st.sampled_from(["none"] * 9 + ["cut", "empty", "column", "pointer"]))
@try_examples(90)
def test_odd_text_files(file: tuple[str, bytes, list[str] | None], damage: str):
    name, content, lines = file
    kind = "file" if name.endswith((".txt", ".jsonl")) else "local_dataset"
    source: dict[str, Any] = {"kind": kind}
    if damage == "cut":
        content, lines = content[: len(content) // 2], None
    elif damage == "empty":
        content, lines = b"", []
    elif damage == "pointer" and not name.endswith(".txt"):
        content, lines = b"version https://git-lfs.github.com/spec/v1\n", []
    elif damage == "column" and not name.endswith(".txt"):
        source["column"], lines = "no such column", []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        settings = {
            "sources": [{**source, "path": str(path)}],
            "max_documents": 100,
            "heldout_fraction": 0.3,
        }
        output = Path(folder) / "out"
        manifest, refusal = knock(
            lambda: prepare_text(settings, output), name, "text:", "text.sources[0]"
        )
        if refusal is not None:
            assert not output.exists()
            return
        found = {
            document.text
            for split in ("train", "heldout")
            for document in iterate_documents(output, split)
        }
        assert sum(manifest["documents"].values()) == len(found)
        if lines is not None:
            assert found == expect_documents(lines)
