"""README's tables from finished runs, so that no number is typed by hand.

``python -m workflow.readme --config FILE`` (``make readme``) copies the tables of a run to
``results/reference/<experiment>/`` and writes README's table of that experiment from the copies; a
test compares README with them, and checks the sentences below each table.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pandas as pd

from dbksvd.base.files import replace_file
from dbksvd.report.headlines import list_headlines
from dbksvd.report.tables import BEST, write_csv
from workflow.experiment import SYNTHETIC, Experiment
from workflow.layers import read_layers

BEGIN, END = "<!-- table of `make readme`: {} -->", "<!-- end of the table -->"
REFERENCE = Path("results/reference")
TABLES = ("table.csv", "differences.csv", "matched.csv", "budgets.csv")
BASELINES = "baselines.csv"  # scores that are reached without a dictionary
# Columns of each experiment: title in the tables, title in README.
SHOWN = {
    "minilm": {
        "variance explained": "variance explained",
        "probing, 1 atom": "probing, 1 atom",
        "probing, 5 atoms": "probing, 5 atoms",
        "AG News, 1 atom": "AG News, 1",
        "AG News, 5 atoms": "AG News, 5",
        "stability (PW-MCC)": "PW-MCC",
        "F1": "F1",
        "MCC": "MCC",
        "encoder MFLOP a token": "encoder MFLOP a token",
        "fit seconds": "fit seconds",
    },
    "smollm2": {
        "variance explained": "variance explained",
        "CE loss score": "CE loss score",
        "probing, 1 atom": "probing, 1 atom",
        "probing, 5 atoms": "probing, 5 atoms",
        "facts": "facts",
        "RAVEL": "RAVEL",
        "absorption": "absorption",
        "stability (PW-MCC)": "PW-MCC",
        "fit seconds": "fit seconds",
    },
}
# What the scores of the last row are reached by, without a dictionary.
WITHOUT = {
    "minilm": "probe on all raw activations",
    "smollm2": "no dictionary: probe on all, DAS, MDAS",
}
WITHOUT_SPREAD = ("stability (PW-MCC)", "encoder MFLOP a token", "fit seconds")


def copy_tables(run: Path, reference: Path) -> None:
    """Copy the tables of a run, and what is reached without a dictionary.

    Raises
    ------
    FileNotFoundError
        If the run has not ended.
    """
    scores = pd.read_csv(run / "scores.csv")
    found = {
        line.title: scores.loc[
            (scores["eval"] == line.evaluation) & (scores["metric"] == line.baseline), "value"
        ].mean()
        for line in list_headlines()
        if line.baseline is not None
    }
    baselines = pd.DataFrame({"score": found.keys(), "value": found.values()}).dropna()
    tables = {name: (run / name).read_text() for name in TABLES}
    reference.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        with replace_file(reference / name) as temporary:
            temporary.write_text(text)
    write_csv(baselines, reference / BASELINES)


def render(reference: Path, experiment: Experiment) -> str:
    """Return README's table, in Markdown: the size that most dictionaries have.

    Trained methods come first, then controls, each by variance explained; scores against known
    features are those of the same method at the site synthetic. A score on which no trained method
    is told apart from the best has no bold.
    """
    table = pd.read_csv(reference / "table.csv", dtype=str, keep_default_na=False)
    here, truth = table[table["site"] != SYNTHETIC], table[table["site"] == SYNTHETIC]
    seeds = pd.to_numeric(here["seeds"])
    site, k = seeds.groupby([here["site"], here["k"]]).sum().idxmax()
    here = here[(here["site"] == site) & (here["k"] == k)]
    name = experiment.config.experiment
    titles = SHOWN[name]
    shown = [title for title in titles if title in table and (table[title] != "").any()]
    lines = ["| " + " | ".join(["method", *(titles[title] for title in shown)]) + " |"]
    lines.append("| --- " * (len(shown) + 1) + "|")
    is_control = here["method"].isin(experiment.controls)
    for title in shown:
        if here.loc[~is_control, title].str.endswith(BEST).all():
            here = here.assign(**{title: here[title].str.removesuffix(BEST)})
    explained = here["variance explained"].str.split(" ").str[0].astype(float)
    order = pd.DataFrame({"control": is_control, "low": -explained}).sort_values(["control", "low"])
    for _, row in here.loc[order.index].iterrows():
        own = truth[truth["method"] == row["method"]]
        cells = [
            _format(own.iloc[0][title] if row[title] == "" and len(own) else row[title], title)
            for title in shown
        ]
        lines.append(f"| {experiment.labels[row['method']]} | {' | '.join(cells)} |")
    raw = pd.read_csv(reference / BASELINES).set_index("score")["value"]
    cells = [_format(f"{raw[title]:.3f}", title) if title in raw else "" for title in shown]
    return "\n".join([*lines, f"| {WITHOUT[name]} | {' | '.join(cells)} |"])


def _format(cell: str, title: str) -> str:
    """Return a cell as README writes numbers: .767 ± .002, bold where not told apart."""
    text = cell.removesuffix(BEST)
    if title in WITHOUT_SPREAD:
        text = text.split(" ± ")[0]
    text = re.sub(r"\b0\.(?=\d)", ".", text).replace("-", "\N{MINUS SIGN}")
    return f"**{text}**" if cell.endswith(BEST) else text


def find_table(readme: str, experiment: str = "minilm") -> str:
    """Return the table of an experiment: what stands between its marks.

    Raises
    ------
    ValueError
        If its mark is not there once, or no end follows.
    """
    begin = BEGIN.format(experiment)
    if readme.count(begin) != 1 or END not in readme.split(begin)[1]:
        raise ValueError(f"README.md: expected one table between {begin!r} and {END!r}, got none")
    return readme.split(begin)[1].split(END)[0].strip()


def main() -> None:
    """Copy the tables of a finished run and write README's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="config.yaml", help="of the run")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--run", type=Path, help="its folder; results/<experiment> by default")
    arguments = parser.parse_args()
    experiment = Experiment(read_layers([arguments.config], {}))
    name = experiment.config.experiment
    if name not in SHOWN:
        raise SystemExit(f"{arguments.config}: expected one of {', '.join(SHOWN)}, got {name}")
    reference = REFERENCE / name
    copy_tables(arguments.run or Path(experiment.folder), reference)
    text = arguments.readme.read_text()
    find_table(text, name)
    before, rest = text.split(BEGIN.format(name))
    after = rest.split(END, 1)[1]
    table = render(reference, experiment)
    with replace_file(arguments.readme) as temporary:
        temporary.write_text(f"{before}{BEGIN.format(name)}\n{table}\n{END}{after}")


if __name__ == "__main__":
    main()
