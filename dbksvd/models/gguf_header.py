"""What a GGUF file says of its model: the header, read without the weights, torch or gguf.

The layout is that of the GGUF specification (ggml, ``docs/gguf.md``), versions 2 and 3: magic,
version, counts, metadata, a table of tensors, and from the next multiple of the alignment on the
tensors themselves.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# How struct calls the scalars of the specification.
_SCALARS = dict(enumerate("BbHhIif?")) | dict(enumerate("Qqd", start=10))
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32  # bytes, where the metadata name none
_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor as the table has it: shape in torch's order, ggml's type, bytes from the data on."""

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class GGUFHeader:
    """The header of a GGUF file; of an array in ``metadata`` only its length is kept."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]
    data_start: int  # bytes

    @property
    def architecture(self) -> str:
        """Llama.cpp's name of the architecture."""
        return str(self.metadata.get("general.architecture"))

    @property
    def width(self) -> int:
        """Width d of the residual stream."""
        return self._count("embedding_length")

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return self._count("block_count")

    @property
    def positions(self) -> int:
        """Most tokens that the model takes."""
        return self._count("context_length")

    @property
    def parameters(self) -> int:
        """Number of weights; a shared embedding counts once."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    def _count(self, key: str) -> int:
        name = f"{self.architecture}.{key}"
        value = self.metadata.get(name)
        if type(value) is not int or value < 1:
            raise ValueError(f"{self.path}: expected {name} of at least 1, got {value!r}")
        return value


def read_header(path: Path) -> GGUFHeader:
    """Read the header of a GGUF file.

    Raises
    ------
    ValueError
        If the file is no GGUF file, is of another version, or its header is cut; the message
        names it.
    OSError
        If it cannot be read.
    """
    state = path.stat()
    return _read(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, size: int, _changed: int) -> GGUFHeader:
    with path.open("rb") as stream:
        magic = stream.read(4)
        if magic != MAGIC:
            raise ValueError(f"{path}: expected a GGUF file, which begins with GGUF, got {magic!r}")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Reader(path, content).read()
            except (struct.error, UnicodeDecodeError, EOFError, OverflowError) as error:
                raise ValueError(
                    f"{path}: expected a whole GGUF file, got {size} bytes that end in its header"
                ) from error


class _Reader:
    """Walks through the header of one file."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path = path
        self.content = content
        self.position = len(MAGIC)

    def read(self) -> GGUFHeader:
        version = self._take("I")
        if version not in VERSIONS:
            raise ValueError(f"{self.path}: expected GGUF version 2 or 3, got {version}")
        n_tensors, n_entries = self._take("Q"), self._take("Q")
        metadata = {}
        for _ in range(n_entries):
            key = self._take_string()
            metadata[key] = self._take_value(self._take("I"))
        tensors = dict(self._list_tensors(n_tensors))
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or alignment < 1:
            raise ValueError(f"{self.path}: expected a general.alignment, got {alignment!r}")
        start = -(-self.position // alignment) * alignment
        return GGUFHeader(self.path, metadata, tensors, start)

    def _list_tensors(self, count: int) -> Iterator[tuple[str, GGUFTensor]]:
        for _ in range(count):
            name = self._take_string()
            n_dimensions = self._take("I")
            if n_dimensions > _MOST_DIMENSIONS:
                raise ValueError(
                    f"{self.path}: expected tensors of at most {_MOST_DIMENSIONS} dimensions, "
                    f"got {n_dimensions} for {name!r}"
                )
            shape = [self._take("Q") for _ in range(n_dimensions)]  # the fastest one first
            yield name, GGUFTensor(tuple(reversed(shape)), self._take("I"), self._take("Q"))

    def _take(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.content, self.position)
        self.position += struct.calcsize(f"<{code}")
        return value

    def _skip_string(self) -> slice:
        length = self._take("Q")
        start, self.position = self.position, self.position + length
        if self.position > len(self.content):
            raise EOFError
        return slice(start, self.position)

    def _take_string(self) -> str:
        return self.content[self._skip_string()].decode()

    def _take_value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._take(_SCALARS[kind])
        if kind == _STRING:
            return self._take_string()
        if kind != _ARRAY:
            raise ValueError(f"{self.path}: expected metadata of a known type, got type {kind}")
        kind, length = self._take("I"), self._take("Q")
        if kind in _SCALARS:
            self.position += length * struct.calcsize(f"<{_SCALARS[kind]}")
            return length
        for _ in range(length):
            if kind == _STRING:
                self._skip_string()
            else:
                self._take_value(kind)
        return length
