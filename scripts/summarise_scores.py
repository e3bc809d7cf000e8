"""Make the short table of an experiment: one row for each kind of dictionary, mean and spread."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from dbksvd.commands import report_errors
from dbksvd.tables import format_spread, write_table

KEYS = ["site", "method", "n_atoms", "k"]
# Header in the table, eval and metric in scores.csv, decimals.
COLUMNS = (
    ("variance explained", "heldout", "explained_variance", 3),
    ("L0", "heldout", "l0", 1),
    ("F1", "ground_truth", "f1", 3),
    ("MCC", "ground_truth", "mcc", 3),
    ("RV", "ground_truth", "rv_modified", 3),
    ("router AMI", "ground_truth", "router_ami", 3),
    ("unused atoms", "heldout", "dead_atoms", 0),
    ("probing, 1 atom", "sparse_probing_sae_probes", "sae_top_1_test_accuracy", 3),
    ("probing, 5 atoms", "sparse_probing_sae_probes", "sae_top_5_test_accuracy", 3),
    ("AG News, 1 atom", "sparse_probing", "sae_top_1_test_accuracy", 3),
    ("CE loss score", "core", "ce_loss_score", 3),
    ("TPP, 10 atoms", "tpp", "tpp_threshold_10_total_metric", 3),
    ("SCR, 10 atoms", "scr", "scr_metric_threshold_10", 3),
    ("absorption", "absorption", "mean_absorption_fraction_score", 3),
    ("RAVEL", "ravel", "disentanglement_score", 3),
    ("autointerp", "autointerp", "autointerp_score", 3),
    ("token matching", "token_matching", "token_matching_score", 3),
    ("description length, bits", "mdl", "description_length", 0),
    ("meta-structure", "meta_structure", "decoder_fraction_variance_explained", 3),
    ("encoder MFLOP a token", "fit", "encoder_flops", 2),
    ("fit seconds", "fit", "seconds", 0),
)
UNITS = {"encoder_flops": 1e6}


def summarise(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return one row per site × method × n_atoms × k: "mean ± half the range" over seeds."""
    rank = {method: position for position, method in enumerate(methods)}
    rows = []
    for key, group in scores.groupby(KEYS):
        row = dict(zip(KEYS, key, strict=True), seeds=group["seed"].nunique())
        for header, evaluation, metric, decimals in COLUMNS:
            chosen = (group["eval"] == evaluation) & (group["metric"] == metric)
            unit = UNITS.get(metric, 1)
            values = (group.loc[chosen, "value"] / unit).tolist()
            row[header] = format_spread(values, decimals) if values else ""
        rows.append(row)
    table = pd.DataFrame(rows)
    table["rank"] = table["method"].map(rank)
    table = table.sort_values(["site", "n_atoms", "k", "rank"])
    empty = [header for header, *_ in COLUMNS if (table[header] == "").all()]
    return table.drop(columns=["rank", *empty])


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--methods", type=json.loads, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    arguments = parser.parse_args()

    table = summarise(pd.read_csv(arguments.scores), arguments.methods)
    write_table(table, arguments.csv, arguments.markdown)


if __name__ == "__main__":
    main()
