"""Reading what SAEBench wrote. Light to import: neither torch nor SAEBench is needed."""

from __future__ import annotations

from pathlib import Path

from dbksvd.files import read_json

RESULT_SUFFIX = "_eval_results.json"
# Beside SAEBench's JSON: right values of metrics that it computes wrongly, under other names.
CORRECTIONS = "corrections.json"


def read_metrics(folder: Path) -> dict[str, float | None]:
    """Return the headline metrics in SAEBench's JSON in `folder`, and the right ones beside them.

    Every number of ``eval_result_metrics`` under its own name, and those of `CORRECTIONS` under
    theirs. Metrics that core did not compute (CE loss and KL of an encoder, which its schema
    makes -1) are None.

    Raises
    ------
    FileNotFoundError, ValueError
        If the JSON is missing, cut short, or another file; the message names it.
    """
    paths = sorted(folder.glob("*" + RESULT_SUFFIX))
    if len(paths) != 1:
        raise FileNotFoundError(f"{folder}: expected one *{RESULT_SUFFIX}, found {len(paths)}")
    content = read_json(paths[0])
    try:
        groups = content["eval_result_metrics"]
        config = content["eval_config"]
        metrics = {
            key: value
            for group in groups.values()
            for key, value in group.items()
            if value is None or isinstance(value, int | float)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{paths[0]}: expected SAEBench's JSON, got no {error}") from error
    for flag, group in [
        ("compute_kl", "model_behavior_preservation"),
        ("compute_ce_loss", "model_performance_preservation"),
    ]:
        if config.get(flag) is False:
            metrics.update(dict.fromkeys(groups[group], None))
    if (folder / CORRECTIONS).is_file():
        metrics |= read_json(folder / CORRECTIONS)
    return metrics
