import json
import os
from pathlib import Path

import pytest

from dbksvd.base.errors import report_errors
from dbksvd.base.files import (
    DamagedFileError,
    check_folder,
    hash_file,
    hash_files,
    read_json,
    recall_hash,
    remove_leftovers,
    replace_file,
    replace_folder,
    write_json,
)


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
        (temporary / "old").chmod(0o600)  # as safetensors writes
    assert (target / "old").stat().st_mode & 0o777 == 0o644
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
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d").write_bytes(b"abc")
    assert hash_files(tmp_path) == {"a": hash_file(path), "b/c/d": hash_file(path)}


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, record = tmp_path / "a.npy", tmp_path / "deep" / "record.json"
    path.write_bytes(b"abc")
    first = recall_hash(path, record)
    assert first == hash_file(path)
    with monkeypatch.context() as patched:
        patched.setattr("dbksvd.base.files.hash_file", lambda _path: pytest.fail("it was read"))
        assert recall_hash(path, record) == first
    times = path.stat()
    path.write_bytes(b"abd")  # of the same size, with the old time
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert recall_hash(path, record) == hash_file(path) != first
    for damaged in ("", "[]", '{"sha256": "0"}'):
        record.write_text(damaged)
        assert recall_hash(path, record) == hash_file(path)
    with pytest.raises(FileNotFoundError):
        recall_hash(tmp_path / "none", record)


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / ".part-0-abc_1234.h5").touch()
    (deep / ".shards-qwertyui").mkdir()
    (deep / ".shards-qwertyui" / ".manifest-12345678.json").touch()
    kept = [
        deep / "part-0.h5",
        deep / ".snakemake_timestamp",
        deep / ".hidden",
        deep / "x-12345678",
    ]
    for path in kept:
        path.touch()
    removed = remove_leftovers(tmp_path)
    assert {path.name for path in removed} >= {".part-0-abc_1234.h5", ".shards-qwertyui"}
    assert sorted(deep.iterdir()) == sorted(kept)
    assert remove_leftovers(tmp_path) == []


def test_temporary_names_are_those_that_are_removed(tmp_path: Path):
    with replace_file(tmp_path / "a.json") as file, replace_folder(tmp_path / "b") as folder:
        assert set(remove_leftovers(tmp_path)) >= {file, folder}
        file.touch()
        folder.mkdir()


def test_a_seal_tells_which_file_is_damaged(tmp_path: Path):
    (tmp_path / "weights").write_text("abc")
    seal = tmp_path / "fit.json"
    content = {"sha256": {"weights": hash_file(tmp_path / "weights")}}
    write_json(seal, content)
    assert check_folder(seal) == content
    (tmp_path / "weights").write_text("abd")
    with pytest.raises(DamagedFileError, match=r"weights: expected sha256 .*; delete .*fit\.json"):
        check_folder(seal)
    (tmp_path / "weights").unlink()
    with pytest.raises(DamagedFileError, match=r"weights: no such file; delete .*fit\.json"):
        check_folder(seal)
    seal.write_text('{"sha256": ')
    with pytest.raises(DamagedFileError, match=r"fit\.json: expected JSON"):
        check_folder(seal)
    with pytest.raises(FileNotFoundError):
        check_folder(tmp_path / "none.json")


def test_the_seal_of_a_damaged_file_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    seal = tmp_path / "manifest.json"
    seal.write_text("{}")
    for message in (
        "error: x.h5: got none; run again to make it anew (manifest.json is now manifest.json.damaged)\n",
        f"error: x.h5: got none; delete {seal} and run again\n",  # another job was faster
    ):
        with pytest.raises(SystemExit), report_errors():
            raise DamagedFileError("x.h5: got none", seal)
        assert capsys.readouterr().err == message
        assert [path.name for path in tmp_path.iterdir()] == ["manifest.json.damaged"]


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"[" * 200_000, b"PK\x03\x04", b""])
def test_what_is_no_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json: expected JSON, got ") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)
