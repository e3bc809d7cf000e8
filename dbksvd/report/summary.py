"""The short table of an experiment: one row for each kind of dictionary, mean and interval."""

from __future__ import annotations

import pandas as pd

from dbksvd.base.headline import Headline
from dbksvd.base.layout import FAILED
from dbksvd.report.eval_notes import list_eval_notes
from dbksvd.report.headlines import list_headlines
from dbksvd.report.loss_notes import list_loss_notes
from dbksvd.report.measured import SIZES, Measured, align, find_families, pool_sites, read_measured
from dbksvd.report.noise import SeedNoise, estimate, find_best, find_smallest
from dbksvd.report.tables import BEST, add_notes, explain_empty, format_interval, format_spread

ABOUT = (
    "± is half a 95 % interval: over seeds, and over data sets, classes or groups of held-out "
    "documents where the score has them, after what is as hard for all methods is taken off. A "
    "method with one seed takes the others' spread over seeds. Bold (* in the CSV file): not told "
    "apart from the best of its site, width and k, at 5 % for all pairs of methods together. "
    "Without interval: nothing says how noisy it is. L0, unused atoms and costs are not compared; "
    "there ± is half the range over seeds."
)


def summarise(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return one row per site × method × n_atoms × k: "mean ± half a 95 % interval".

    What is not told apart from the best of its family (:func:`dbksvd.report.measured.
    find_families`) is marked `BEST`. Columns without a value are left out. Where a dictionary could
    not be made or scored, the last column says "failed: reason", with its seed where other seeds
    stand.
    """
    if scores.empty:
        return explain_empty(
            pd.DataFrame(columns=[*SIZES, "seeds"]),
            "expected scores of at least one dictionary, got none",
        )
    scored = scores[scores["eval"] != FAILED]
    keys = scores[SIZES].drop_duplicates()
    table = keys.set_index(pd.MultiIndex.from_frame(keys))
    table["seeds"] = scored.groupby(SIZES)["seed"].nunique()
    table["seeds"] = table["seeds"].fillna(0).astype(int)
    families = find_families(keys)
    headlines = list_headlines()
    for headline in headlines:
        table[headline.title] = pd.Series(_format_column(scored, headline, families), dtype=object)
    table[FAILED] = pd.Series(_tell_failures(scores, table["seeds"].to_dict()), dtype=object)
    table = table.fillna("").reset_index(drop=True)
    table["rank"] = table["method"].map({method: place for place, method in enumerate(methods)})
    table = table.sort_values(["site", "n_atoms", "k", "rank"])
    optional = [FAILED, *(headline.title for headline in headlines)]
    empty = [title for title in optional if (table[title] == "").all()]
    warnings = {line.warning for line in headlines if line.title not in empty} - {""}
    told = [*list_eval_notes(scores), *list_loss_notes(scores)]
    notes = [ABOUT, *tell_smallest(scored, families), *told, *sorted(warnings)]
    return add_notes(table.drop(columns=["rank", *empty]), notes)


def _format_column(
    scores: pd.DataFrame, headline: Headline, families: list[pd.DataFrame]
) -> dict[tuple[str, str, int, int], str]:
    """Return the text of each kind of dictionary that has the score."""
    measured = read_measured(scores, headline)
    if not headline.is_compared:
        return {
            key: format_spread(each.whole.tolist(), headline.decimals)
            for key, each in measured.items()
        }
    texts: dict[tuple[str, str, int, int], str] = {}
    pooled = pool_sites(measured)
    for family in families:
        found = {
            key: measured[key]
            for key in family[SIZES].itertuples(index=False, name=None)
            if key in measured
        }
        texts |= _format_family(found, headline, pooled.get(family["site"].iloc[0]))
    return texts


def _format_family(
    found: dict[tuple[str, str, int, int], Measured], headline: Headline, pooled: SeedNoise | None
) -> dict[tuple[str, str, int, int], str]:
    """Return the texts of sizes that are compared."""
    values = align(found)
    if not values:
        return {}
    common = pd.DataFrame([table.mean(axis=0) for table in values.values()]).to_numpy()
    best = find_best(values, pooled, lower_is_better=headline.lower_is_better)
    texts = {}
    for key, each in found.items():
        known = estimate(values[key], common, pooled)
        half = None if known is None else known.widen()
        text = format_interval(float(each.whole.mean()), half, headline.decimals)
        texts[key] = text + BEST if key in best else text
    return texts


def tell_smallest(scores: pd.DataFrame, families: list[pd.DataFrame]) -> list[str]:
    """Return a line for each site: the smallest difference of each score that is told apart.

    Of the sizes of a site, the one with most dictionaries counts.
    """
    counts = scores.drop_duplicates([*SIZES, "seed"]).groupby(SIZES).size()
    largest: dict[str, tuple[int, list[tuple[str, str, int, int]]]] = {}
    for family in families:
        keys = list(family[SIZES].itertuples(index=False, name=None))
        count = int(counts.reindex(keys).sum())
        if count > largest.get(keys[0][0], (0, []))[0]:
            largest[keys[0][0]] = count, keys
    measured = [
        (line, read_measured(scores, line)) for line in list_headlines() if line.is_compared
    ]
    lines = []
    for site, (_, keys) in largest.items():
        told = []
        for headline, by_key in measured:
            values = align({key: by_key[key] for key in keys if key in by_key})
            least = find_smallest(values.values(), pool_sites(by_key).get(site))
            if least is not None:
                told.append(f"{headline.title} {least:.{headline.decimals + 1}f}")
        if told:
            size = f"{site}, k = {keys[0][3]}"
            lines.append(
                f"Smallest difference that is told apart in 80 % of experiments, median over pairs "
                f"of methods ({size}): {'; '.join(told)}."
            )
    return lines


def _tell_failures(
    scores: pd.DataFrame, seeds: dict[tuple[str, str, int, int], int]
) -> dict[tuple[str, str, int, int], str]:
    """Return why dictionaries could not be made or scored, by kind."""
    failed = scores[scores["eval"] == FAILED]
    texts = {}
    for key, rows in failed.groupby(SIZES):
        reasons = rows.drop_duplicates("metric")[["seed", "metric"]]
        texts[key] = "; ".join(
            f"seed {seed} failed: {reason}" if seeds[key] else f"failed: {reason}"
            for seed, reason in reasons.itertuples(index=False)
        )
    return texts
