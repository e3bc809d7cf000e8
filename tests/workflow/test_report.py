"""`make run` ends with a report, and says where everything is."""

import json
import subprocess
import sys
from pathlib import Path

from running import CONFIG, make_environment


def make_report(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dbksvd.command.main", "report", CONFIG, *arguments],
        cwd=folder,
        env=make_environment() | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_report_holds_figures_and_tables_and_is_made_once(project: Path):
    done = make_report(project)
    assert done.returncode == 0, done.stderr
    for line in (
        "| layer4 |",
        "figures      results/tiny/figures",
        "report       results/tiny/report.html",
    ):
        assert line in done.stdout
    report = project / "results/tiny/report.html"
    text = report.read_text()
    for part in ("probing.png", "convergence.png", "table.csv", "a logistic probe that sees only"):
        assert part in text
    before = report.stat().st_mtime_ns
    done = make_report(project, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["report"] == "results/tiny/report.html"
    assert report.stat().st_mtime_ns == before
