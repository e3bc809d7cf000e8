"""Draw one figure from the tables of the experiment."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from dbksvd.base.errors import report_errors
from dbksvd.base.files import replace_file
from dbksvd.report.figures.evals import EVAL_FIGURES
from dbksvd.report.figures.fits import FIT_FIGURES
from dbksvd.report.figures.ground_truth import SYNTHETIC_FIGURES
from dbksvd.report.figures.reconstruction import FIGURES
from dbksvd.report.figures.styles import Styles
from dbksvd.report.published import load_reference


@report_errors()
def main() -> None:
    figures = FIGURES | FIT_FIGURES | EVAL_FIGURES | SYNTHETIC_FIGURES
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", choices=sorted(figures), required=True)
    parser.add_argument("--settings", type=json.loads, required=True)
    for table in ("scores", "curves", "usage"):
        parser.add_argument(f"--{table}", type=Path, required=True)
    parser.add_argument("--routing", type=Path, nargs="?", help="where there are routers")
    parser.add_argument("--published", type=Path, nargs="?", help="numbers of others")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()

    settings = arguments.settings["figures"]
    styles = Styles(arguments.settings["methods"], settings["labels"], settings["controls"])
    # Nothing of the day of drawing goes into the SVG: equal data give an equal file.
    plt.rcParams.update({"svg.hashsalt": "dbksvd", "svg.fonttype": "none"})
    sns.set_theme(context=settings["context"], style="ticks")
    names = ("scores", "curves", "usage", "routing")
    paths = {name: getattr(arguments, name) for name in names}
    tables = {name: pd.read_csv(path) for name, path in paths.items() if path is not None}
    tables["published"] = load_reference(arguments.published, arguments.settings["model"])
    figure = figures[arguments.figure](tables, styles)
    sns.despine(figure)
    for path in arguments.output:
        date = {"Date": None} if path.suffix == ".svg" else None
        with replace_file(path) as temporary:
            figure.savefig(temporary, dpi=settings["dpi"], bbox_inches="tight", metadata=date)


if __name__ == "__main__":
    main()
