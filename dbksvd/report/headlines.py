"""The numbers that stand for evals in the short table and the figure of all evals, in order."""

from __future__ import annotations

from collections.abc import Sequence

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
