"""Damage as files meet it: cut short, emptied, replaced by a pointer or a folder, gone."""

from __future__ import annotations

from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"


def damage_file(path: Path, kind: str) -> None:
    """Damage a file in one of the ways "cut", "empty", "pointer", "missing" and "folder".

    Any other kind leaves the file as it is.
    """
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pointer":
        path.write_bytes(LFS_POINTER)
    elif kind in ("folder", "missing"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
