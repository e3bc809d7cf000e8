"""The first page: the experiment in a paragraph, figures, scores, dictionaries, what was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dbksvd.base.layout import KEYS
from dbksvd.report.headlines import list_headlines

SPLIT_NAMES = {"heldout": "held-out", "train": "training"}
KINDS = {"text": "tokens", "images": "tokens", "rows": "samples"}
SIZES = [key for key in KEYS if key != "seed"]


def make_table(
    table: pd.DataFrame, labels: Mapping[str, str], paths: Mapping[tuple[Any, ...], str]
) -> dict[str, Any]:
    """Return the summary for the template: columns, cells with text, value to sort by and link.

    Parameters
    ----------
    table : DataFrame
        ``table.csv``, as text.
    labels : mapping of str to str
        How methods are called.
    paths : mapping of (site, method, n_atoms, k) to str
        Pages of dictionaries.
    """
    rows = []
    for _, line in table.iterrows():
        key = (line["site"], line["method"], int(line["n_atoms"]), int(line["k"]))
        cells = [{"text": text, "value": text, "path": None} for text in line.astype(str)]
        place = list(table.columns).index("method")
        name = labels.get(line["method"], line["method"])
        cells[place] = {"text": name, "value": name, "path": paths.get(key)}
        rows.append(cells)
    texts = [place for place, name in enumerate(table.columns) if name in ("site", "method")]
    caption = (
        "Means over seeds ± half a 95 % interval; *: not told apart from the best. One row for "
        "each kind of dictionary."
    )
    return {"columns": list(table.columns), "rows": rows, "texts": texts, "caption": caption}


def list_scores(scores: pd.DataFrame, key: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the headline scores of one dictionary, each with its rank among those of its k.

    Parameters
    ----------
    scores : DataFrame
        ``scores.csv``.
    key : mapping
        Site, method, n_atoms, k and seed of the dictionary.
    """
    found = []
    for headline in list_headlines():
        table = headline.select(scores)
        table = table[(table["site"] == key["site"]) & (table["k"] == key["k"])]
        mine = table[(table[list(key)] == pd.Series(key)).all(axis=1)]["value"]
        if mine.empty:
            continue
        value = float(mine.iloc[0])
        text = f"{value / headline.unit:.{headline.decimals}f}"
        if headline.in_overview:
            means = table.groupby(SIZES)["value"].mean()
            better = means < value if headline.lower_is_better else means > value
            others = means.drop(tuple(key[name] for name in SIZES), errors="ignore")
            rank = 1 + int(better[others.index].sum())
            text += f" (rank {rank} of {len(means)} with k = {key['k']})"
        found.append((headline.title, text))
    return found


def describe_experiment(
    name: str, manifests: Sequence[Mapping[str, Any]], table: pd.DataFrame
) -> str:
    """Return the experiment in a paragraph.

    Parameters
    ----------
    name : str
        The experiment.
    manifests : sequence of mappings
        Manifests of what was collected at each site.
    table : DataFrame
        ``table.csv``.
    """
    fits = int(pd.to_numeric(table["seeds"]).sum())
    sentences = [
        f"Experiment {name}: {fits} dictionaries of {table['method'].nunique()} methods, scored on "
        f"the same activations."
    ]
    for manifest in manifests:
        model, data = manifest["model"], manifest["data"]
        of = f"of {model['model']} at {model['site']}" if model.get("site") else ""
        what = f"{data['tokens']:,} {SPLIT_NAMES[data['split']]} {KINDS[manifest['kind']]}"
        sentences.append(f"The pages show where atoms fire in {what} {of}".strip() + ".")
    return " ".join(sentences)


def copy_figures(figures: Sequence[Path], folder: Path) -> list[dict[str, str]]:
    """Copy figures below the site; return their paths and titles.

    Parameters
    ----------
    figures : sequence of paths
        Image files.
    folder : path
        Folder of the site.
    """
    shown = []
    for figure in figures:
        path = folder / "figures" / figure.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(figure.read_bytes())
        shown.append(
            {"path": f"figures/{figure.name}", "title": figure.stem.replace("_", " ").capitalize()}
        )
    return shown


def name_label(dataset: str, positive: str) -> str:
    """Return how pages call the label that a probe predicts: its data set, and a class with a name.

    Parameters
    ----------
    dataset : str
        Such as ``161_agnews_0``.
    positive : str
        Class of label 1; it goes without saying where it is ``1`` itself.
    """
    return dataset if positive in ("1", "1.0", "True") else f"{dataset}: {positive}"
