"""The last good result of a job, put back where the job fails when it runs again.

Snakemake removes the outputs of a job before it runs and once more where it fails, and notes the
params of the failed run as if the outputs were of it. So a typo would cost every result that it
touches. Here the outputs of all jobs of a run get a second name (a hard link, which takes no room)
before the run begins, and their record in .snakemake is copied. After a run that failed, whatever
did not end well gets both back: the state is that of before, and an undone edit reruns nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dbksvd.base.files import hash_content

FOLDER = ".last-good"
RECORD_FILE = "record.json"
# A file of one of these names stands for all files beside it, which Snakemake does not know.
SEALS = ("manifest.json", "metrics.json")


class LastGood:
    """Second names of results.

    Parameters
    ----------
    folder : path
        Results of the experiment: links need one file system.
    persistence : snakemake.persistence.PersistenceBase
        Snakemake's records of outputs; those of the pinned version.
    """

    def __init__(self, folder: str | os.PathLike[str], persistence: Any) -> None:
        self.folder, self.persistence = Path(folder) / FOLDER, persistence

    def keep(self, jobs: Iterable[Any]) -> None:
        """Give the outputs of jobs that are about to run a second name.

        What a killed run has left is kept for jobs whose outputs are missing since then. A job is
        left out where the file system cannot link.
        """
        outputs = [[str(file) for file in job.output] for job in jobs]
        wanted = {self._locate(names): names for names in outputs if names}
        for entry in self._list_entries():
            if entry not in wanted or all(map(os.path.lexists, wanted[entry])):
                shutil.rmtree(entry)
        for entry, names in wanted.items():
            if not entry.exists() and all(map(os.path.lexists, names)):
                try:
                    self._keep_one(entry, names)
                except OSError:
                    shutil.rmtree(entry, ignore_errors=True)

    def _keep_one(self, entry: Path, names: list[str]) -> None:
        records = [self.persistence._read_record(name) for name in names]
        if None in records or self.persistence._filter_incomplete_keys(names):
            return
        entry.mkdir(parents=True)
        for number, name in enumerate(names):
            os.link(name, entry / str(number), follow_symlinks=False)
        content = {
            "outputs": names,
            "records": [dict(record.items()) for record in records],
            "beside": list_beside(names),
        }
        (entry / RECORD_FILE).write_text(json.dumps(content))

    def put_back(self, has_ended_well: Callable[[str], bool | None]) -> list[str]:
        """Put back all results whose jobs did not end well; return the names of those changed.

        Parameters
        ----------
        has_ended_well : callable
            Whether the job of an output did; None where it may still be running, which leaves the
            second names for the next run.
        """
        changed = []
        for entry in self._list_entries():
            try:
                content = json.loads((entry / RECORD_FILE).read_text())
            except (OSError, ValueError):  # killed while it was written
                shutil.rmtree(entry)
                continue
            ended_well = has_ended_well(content["outputs"][0])
            if ended_well is None:
                continue
            # Without the files beside it, a seal would say what is no longer true.
            if not ended_well and list_beside(content["outputs"]) == content["beside"]:
                changed += self._put_back_one(entry, content)
            shutil.rmtree(entry)
        self._remove_folder()
        return changed

    def _put_back_one(self, entry: Path, content: dict[str, Any]) -> list[str]:
        names = content["outputs"]
        if all(is_same(Path(name), entry / str(number)) for number, name in enumerate(names)):
            return []  # the job never began
        for number, name in enumerate(names):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            (entry / str(number)).replace(name)
        self.persistence._clear_cache()
        for name, record in zip(names, content["records"], strict=True):
            known = self.persistence._read_record(name)
            make = type(known) if known is not None else _find_record_type()
            self.persistence._write_record(name, make.model_validate(record))
            self.persistence._unmark_incomplete(name)
        self.persistence._clear_cache()
        return list(names)

    def clear(self) -> None:
        """Forget all second names: the run ended well."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _locate(self, names: list[str]) -> Path:
        return self.folder / hash_content(names)[:16]

    def _list_entries(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []

    def _remove_folder(self) -> None:
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def _find_record_type() -> Any:
    from snakemake.persistence import MetadataRecord

    return MetadataRecord


def is_same(one: Path, other: Path) -> bool:
    """Return whether two names are of one file; links are not followed."""
    try:
        first, second = one.lstat(), other.lstat()
    except FileNotFoundError:
        return False
    return (first.st_ino, first.st_dev) == (second.st_ino, second.st_dev)


def list_beside(names: Iterable[str]) -> dict[str, list[int]]:
    """Return size, time and inode of the files that outputs stand for but Snakemake does not know.

    Those are all files below the folder of a seal (`SEALS`), and below a folder that is named as
    an output without its suffix.
    """
    outputs = set(names)
    return {
        str(path): [(state := path.lstat()).st_size, state.st_mtime_ns, state.st_ino]
        for folder in sorted(set(_list_folders(outputs)))
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and str(path) not in outputs
    }


def _list_folders(names: Iterable[str]) -> Iterator[Path]:
    for path in map(Path, names):
        if path.name in SEALS:
            yield path.parent
        elif path.suffix == ".json" and path.with_suffix("").is_dir():
            yield path.with_suffix("")
