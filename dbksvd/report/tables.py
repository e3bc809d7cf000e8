"""Tables for people: headline numbers, a mean with its spread, a table as CSV and Markdown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dbksvd.base.files import replace_file
from dbksvd.base.headline import Headline


def _list_probes(evaluation: str, name: str, counts: Sequence[int]) -> list[Headline]:
    return [
        Headline(
            f"{name}, {count} atom{'s' if count > 1 else ''}",
            evaluation,
            f"sae_top_{count}_test_accuracy",
            baseline="llm_test_accuracy",
        )
        for count in counts
    ]


HEADLINES = (
    Headline("variance explained", "heldout", "explained_variance", floor=0.0),
    Headline("L0", "heldout", "l0", 1, in_overview=False),
    Headline("F1", "ground_truth", "f1", in_overview=False),
    Headline("MCC", "ground_truth", "mcc", in_overview=False),
    Headline("RV", "ground_truth", "rv_modified", in_overview=False),
    Headline("router AMI", "ground_truth", "router_ami", in_overview=False),
    Headline("unused atoms", "heldout", "dead_atoms", 0, in_overview=False),
    *_list_probes("sparse_probing_sae_probes", "probing", (1, 5)),
    *_list_probes("sparse_probing", "AG News", (1, 5)),
    Headline("CE loss score", "core", "ce_loss_score", floor=0.0),
    Headline("TPP, 10 atoms", "tpp", "tpp_threshold_10_total_metric"),
    Headline("SCR, 10 atoms", "scr", "scr_metric_threshold_10"),
    Headline("absorption", "absorption", "mean_absorption_fraction_score", lower_is_better=True),
    Headline("RAVEL", "ravel", "disentanglement_score"),
    Headline("autointerp", "autointerp", "autointerp_score"),
    Headline("token matching", "token_matching", "token_matching_score"),
    Headline("description length, bits", "mdl", "description_length", 0, lower_is_better=True),
    Headline("meta-structure", "meta_structure", "decoder_fraction_variance_explained"),
    Headline("encoder MFLOP a token", "fit", "encoder_flops", 3, unit=1e6, in_overview=False),
    Headline("fit seconds", "fit", "seconds", 0, in_overview=False),
)


def format_spread(values: Sequence[float], decimals: int, *, sign: str = "") -> str:
    """Return "mean ± half the range" of several values, a single one as it is.

    `sign` is "+" where a positive mean is to have one.
    """
    text = f"{np.mean(values):{sign}.{decimals}f}"
    return f"{text} ± {np.ptp(values) / 2:.{decimals}f}" if len(values) > 1 else text


def write_table(table: pd.DataFrame, csv: Path, markdown: Path) -> None:
    """Write a table to both files, each atomically."""
    with replace_file(csv) as temporary:
        table.to_csv(temporary, index=False)
    with replace_file(markdown) as temporary:
        temporary.write_text(table.to_markdown(index=False, disable_numparse=True) + "\n")


def run_table(
    doc: str | None, source: str, make: Callable[[pd.DataFrame, list[str]], pd.DataFrame]
) -> None:
    """Run a script that makes a table of some methods from a CSV file and writes it twice.

    Parameters
    ----------
    doc : str
        What the script is for.
    source : str
        Name of the option that names the CSV file.
    make : callable
        Makes the table from that file and the methods, in the order of the rows.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument(f"--{source}", dest="source", type=Path, required=True)
    parser.add_argument("--methods", type=json.loads, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    arguments = parser.parse_args()

    table = make(pd.read_csv(arguments.source), arguments.methods)
    write_table(table, arguments.csv, arguments.markdown)
