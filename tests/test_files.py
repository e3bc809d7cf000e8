import json
from pathlib import Path

import pytest

from dbksvd.files import hash_file, read_json, replace_file, replace_folder, write_json


def list_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_replace_file_writes_all_or_nothing(tmp_path: Path):
    target = tmp_path / "deep" / "file.txt"
    with replace_file(target) as temporary:
        temporary.write_text("first")
        assert not target.exists()
    assert target.read_text() == "first"
    with pytest.raises(KeyboardInterrupt), replace_file(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "first"
    assert list_names(target.parent) == ["file.txt"]


def test_replace_folder_replaces_the_whole_folder(tmp_path: Path):
    target = tmp_path / "folder"
    with replace_folder(target) as temporary:
        (temporary / "old").write_text("old")
    with replace_folder(target) as temporary:
        (temporary / "new").write_text("new")
    assert list_names(target) == ["new"]
    with pytest.raises(OSError, match="disk"), replace_folder(target) as temporary:
        (temporary / "newer").write_text("half")
        raise OSError("disk full")
    assert list_names(target) == ["new"]
    assert list_names(tmp_path) == ["folder"]


def test_json_refuses_nan_and_names_a_cut_file(tmp_path: Path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert not path.exists()
    write_json(path, {"a": [1, 2]})
    assert read_json(path) == {"a": [1, 2]} == json.loads(path.read_text())
    path.write_text(path.read_text()[:5])
    with pytest.raises(ValueError, match=r"a\.json: expected JSON"):
        read_json(path)


def test_hash_file_is_sha256(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert hash_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
