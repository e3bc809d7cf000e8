"""What a file holds, told by its first bytes: for messages about a file that is another kind."""

from __future__ import annotations

from pathlib import Path

_STARTS = {
    b"\x93NUMPY": "a .npy array",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"PK\x03\x04": "a zip archive, as .npz and .pt files are",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "a gzip file, which must be unpacked first",
    b"BZh": "a bzip2 file, which must be unpacked first",
    b"\xfd7zXZ\x00": "an xz file, which must be unpacked first",
    b"\x28\xb5\x2f\xfd": "a zstd file, which must be unpacked first",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"version https://git-lfs": "the pointer of a file in git LFS: fetch it with git lfs pull",
    b"\x80\x02": "a Python pickle, which is never opened",
    b"\x80\x03": "a Python pickle, which is never opened",
    b"\x80\x04": "a Python pickle, which is never opened",
    b"\x80\x05": "a Python pickle, which is never opened",
    b"%PDF": "a PDF file",
}


def tell_kind(path: Path) -> str:
    """Return what a file is by its first bytes; "another kind of file" where that is not known."""
    with path.open("rb") as stream:
        start = stream.read(32)
    if not start:
        return "an empty file"
    for known, kind in _STARTS.items():
        if start.startswith(known):
            return kind
    if start[8:10] == b'{"' or (start[8:9] == b"{" and start[3:8] == bytes(5)):
        return "a safetensors file"
    return "another kind of file"
