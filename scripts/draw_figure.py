"""Draw one figure from the tables of the experiment."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.base.settings import parse
from dbksvd.report.figures.drawing import draw_files
from dbksvd.report.figures.registry import FIGURES, find_figure
from dbksvd.report.settings import DrawingSettings


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", choices=list(FIGURES), required=True)
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: DrawingSettings")
    parser.add_argument(
        "--tables", type=Path, nargs="+", required=True, help="such as scores.csv: stem is the name"
    )
    parser.add_argument("--note", default="", help="a line below the figure")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()

    settings: DrawingSettings = parse(DrawingSettings, arguments.settings, "settings")
    figure = find_figure(arguments.figure)
    draw_files(figure, arguments.tables, settings, arguments.output, note=arguments.note)


if __name__ == "__main__":
    main()
