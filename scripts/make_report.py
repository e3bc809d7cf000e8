"""Make Snakemake's HTML report if the results are newer, and say where everything is."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()

    experiment = yaml.safe_load(arguments.config.read_text())["experiment"]
    folder = Path("results") / experiment
    report = folder / "report.html"
    results = [*folder.glob("*.csv"), *folder.glob("figures/*")]
    if not report.exists() or any(
        file.stat().st_mtime > report.stat().st_mtime for file in results
    ):
        command = ["snakemake", "--report", str(report), "--configfile", str(arguments.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
            sys.exit(f"error: {report}: snakemake --report ended with {done.returncode}")

    print((folder / "table.md").read_text())
    print((folder / "budgets.md").read_text())
    print(f"differ   {folder / 'differences.md'}")
    print(f"figures  {folder / 'figures'}")
    if (folder / "site" / "index.html").is_file():
        print(f"pages    {folder / 'site' / 'index.html'}")
    print(f"table    {folder / 'table.csv'} (all scores: {folder / 'scores.csv'})")
    print(f"report   {report}")


if __name__ == "__main__":
    main()
