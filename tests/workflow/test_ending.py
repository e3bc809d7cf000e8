"""What a run says last, from stand-ins for Snakemake's jobs and records."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from snakemake.persistence import MetadataRecord

from dbksvd.base.files import write_json
from dbksvd.base.layout import expand_rows
from dbksvd.report.collect import collect_scores
from dbksvd.report.summary import summarise
from workflow.ending import find_reason, tell_failures, tell_table
from workflow.experiment import as_param
from workflow.last_good import FOLDER, LastGood
from workflow.unfinished import find_failed


def make_job(name: str, *, log: Path | None = None, output: tuple[str, ...] = ()) -> Any:
    """Return what is asked of a job of Snakemake; a name such as fit:3 has a wildcard."""
    rule, _, k = name.partition(":")
    return SimpleNamespace(
        rule=SimpleNamespace(name=rule),
        wildcards={"k": k} if k else {},
        log=[] if log is None else [str(log)],
        output=output,
        is_group=lambda: False,
        __hash__=None,
    )


class Job(SimpleNamespace):
    __hash__ = object.__hash__  # as Snakemake's jobs, which are keys of dictionaries
    __eq__ = object.__eq__


def write_log(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10%\rerror: text: expected 5, got 3\n", "text: expected 5, got 3"),
        ("error: a: first\nbar 3 %\r", "a: first"),
        ("Traceback (most recent call last):\n  x\nKeyError: 'a'\n\n", "KeyError: 'a'"),
        ("", "nothing in its log: was it killed, or out of memory?"),
    ],
)
def test_reason_is_one_line_of_the_log(tmp_path: Path, text: str, reason: str):
    assert find_reason(write_log(tmp_path / "job.log", text)) == reason
    assert find_reason(tmp_path / "missing.log").startswith("nothing in its log")


def test_ten_failures_have_a_line_each(tmp_path: Path):
    jobs = [
        make_job(f"fit:{k}", log=write_log(tmp_path / f"{k}.log", f"error: k: got {k}\n"))
        for k in range(10, 22)
    ]
    lines = tell_failures(jobs, 4, ["a", "b"]).splitlines()
    assert lines[0] == "not run: 4 jobs that come after"
    assert lines[1] == "put back as before the run: 2 files of failed jobs"
    assert lines[2] == f"failed: fit (k=10): k: got 10 (log: {tmp_path}/10.log)"
    assert len(lines) == 2 + 10 + 1
    assert lines[-1].startswith("failed: 2 more jobs")


def test_table_fits_into_a_hundred_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "300")
    metrics = {f"metric number {i}": [f"0.{i}", "0.5 ± 0.1"] for i in range(12)}
    table = pd.DataFrame(
        {"site": "layer4", "method": ["dbksvd", "topk"], "n_atoms": 64, "k": [4, 8], **metrics}
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    text = tell_table(tmp_path / "table.csv", "figures/")
    lines = text.splitlines()
    assert max(map(len, lines[:-2])) <= 100  # those two hold paths, which are not cut
    assert lines[0] == "site layer4, n_atoms 64"
    assert lines[1].split()[:3] == ["method", "k", "metric"]
    assert "0.5 ± 0.1" in text
    shown = lines[1].count("metric")
    assert shown > 2
    assert lines[-2] == f"table: {tmp_path}/table.md ({12 - shown} more columns)"
    assert lines[-1] == "figures: figures/"
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, tell_table(tmp_path / "table.csv").splitlines()[:-1])) <= 40


def test_failed_rows_say_why_and_others_stand(tmp_path: Path):
    fits = [("files", "dbksvd", 8, 2, 0), ("files", "dbksvd", 8, 2, 1), ("files", "topk", 8, 2, 0)]
    folder = str(tmp_path)
    failed = [[*fits[1], "evaluate_dictionary: core: no"], [*fits[2], "fit_dictionary: lr: too"]]
    rows = expand_rows(as_param({"folder": folder, "fits": fits, "failed": failed}))
    write_json(Path(rows[0]["evaluation"]) / "metrics.json", {"explained_variance": 0.5})
    scores = collect_scores(rows)
    scores.to_csv(tmp_path / "scores.csv", index=False)
    table = summarise(pd.read_csv(tmp_path / "scores.csv"), ["dbksvd", "topk"])
    assert table["variance explained"].tolist() == ["0.500", ""]
    assert table["seeds"].tolist() == [1, 0]
    assert table["failed"].tolist() == [
        "seed 1 failed: evaluate_dictionary: core: no",
        "failed: fit_dictionary: lr: too",
    ]


def test_cause_is_the_failed_job_before(tmp_path: Path):
    fit, evaluation, other, waiting, shards = (
        Job(**make_job(name, log=log, output=(f"{name}.json",)).__dict__)
        for name, log in [
            ("fit", write_log(tmp_path / "fit.log", "error: lr: too large\n")),
            ("evaluation", None),
            ("other", write_log(tmp_path / "other.log", "error: core: no\n")),
            ("waiting", None),
            ("shards", None),
        ]
    )
    good = Job(**make_job("good", output=("good.json",)).__dict__)
    dag = SimpleNamespace(
        jobs=[fit, evaluation, other, waiting, shards, good],
        dependencies={fit: [shards], evaluation: [fit], other: [], waiting: [], shards: [], good: []},
        finished=lambda job: job in (good, shards),
        needrun=lambda _: True,
    )  # fmt: skip
    metrics = {f"{name}.json": [name] for name in ("evaluation", "other", "waiting", "good")}
    assert find_failed(dag, [fit, other], metrics) == [
        ["evaluation", "fit: lr: too large"],
        ["other", "other: core: no"],
        ["waiting", "not run"],
    ]
    assert find_failed(dag, [fit], {"elsewhere.json": ["a"]}) is None


class Records:
    """Snakemake's records of outputs, in memory."""

    def __init__(self, **known: str) -> None:
        self.known = {name: MetadataRecord(params=[value]) for name, value in known.items()}
        self.incomplete: set[str] = set()

    def _read_record(self, name: str) -> Any:
        return self.known.get(name)

    def _write_record(self, name: str, record: Any) -> None:
        self.known[name] = record

    def _filter_incomplete_keys(self, names: list[str]) -> set[str]:
        return self.incomplete & set(names)

    def _unmark_incomplete(self, name: str) -> None:
        self.incomplete.discard(name)

    def _clear_cache(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/shards").mkdir(parents=True)
    (tmp_path / "results/shards/manifest.json").write_text("good")
    (tmp_path / "results/shards/a.h5").write_text("rows")
    return tmp_path / "results"


MANIFEST = "results/shards/manifest.json"


def fail(records: Records) -> None:
    """Do what Snakemake does about a job that fails."""
    Path(MANIFEST).unlink()
    records.known[MANIFEST] = MetadataRecord(params=["bad"])


def test_result_and_record_are_put_back(folder: Path):
    records = Records(**{MANIFEST: "good"})
    before = Path(MANIFEST).stat()
    kept = LastGood("results", records)
    kept.keep([make_job("shards", output=(MANIFEST,))])
    fail(records)
    records.incomplete.add(MANIFEST)
    assert kept.put_back(lambda _: False) == [MANIFEST]
    after = Path(MANIFEST).stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert records.known[MANIFEST].params == ["good"]
    assert not records.incomplete
    assert not (folder / FOLDER).exists()


def test_new_result_stays(folder: Path):
    records = Records(**{MANIFEST: "good"})
    kept = LastGood("results", records)
    kept.keep([make_job("shards", output=(MANIFEST,))])
    fail(records)
    Path(MANIFEST).write_text("better")
    assert kept.put_back(lambda _: True) == []
    assert Path(MANIFEST).read_text() == "better"
    assert records.known[MANIFEST].params == ["bad"]
    assert not (folder / FOLDER).exists()


def test_seal_is_not_put_back_over_other_files(folder: Path):
    """An evaluation that fails keeps the evals that it has finished: the old seal is not theirs."""
    records = Records(**{MANIFEST: "good"})
    kept = LastGood("results", records)
    kept.keep([make_job("shards", output=(MANIFEST,))])
    fail(records)
    (folder / "shards/a.h5").write_text("new")
    assert kept.put_back(lambda _: False) == []
    assert not Path(MANIFEST).exists()


def test_incomplete_and_unknown_results_are_not_kept(folder: Path):
    records = Records(**{MANIFEST: "good"})
    records.incomplete.add(MANIFEST)
    LastGood("results", records).keep([make_job("shards", output=(MANIFEST,))])
    LastGood("results", Records()).keep([make_job("shards", output=(MANIFEST,))])
    assert not (folder / FOLDER).exists()


def test_what_a_killed_run_left_is_kept_for_the_next(folder: Path):
    records = Records(**{MANIFEST: "good"})
    job = make_job("shards", output=(MANIFEST,))
    LastGood("results", records).keep([job])
    Path(MANIFEST).unlink()  # and Snakemake is killed
    kept = LastGood("results", records)
    kept.keep([job])
    assert kept.put_back(lambda _: None) == []  # on another machine, perhaps running
    assert kept.put_back(lambda _: False) == [MANIFEST]
    assert Path(MANIFEST).read_text() == "good"
