"""What SAEBench wrote: its JSON, corrections beside it, its headline metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dbksvd.base.files import read_json, write_json

RESULT_SUFFIX = "_eval_results.json"
# Beside SAEBench's JSON: what it was made from, and the sha256 of the files of the eval.
SEAL = "seal.json"
# Beside SAEBench's JSON: right values of metrics that it computes wrongly, under other names.
CORRECTIONS = "corrections.json"
# Beside SAEBench's JSON: scores on further splits, {metric: {part: [score of each split]}}.
RESPLITS = "resplits.json"
# Behind a metric: SAEBench's own number, where the metric is a mean over several splits.
OWN_SPLIT = "_own_split"
# In the place of SAEBench's JSON, where an eval finds that it does not apply: reason, metrics.
NOT_APPLICABLE = "not_applicable.json"


def find_result(folder: Path) -> Path:
    """Return the one JSON of SAEBench in `folder`.

    Raises
    ------
    FileNotFoundError
        If there is none, or more than one.
    """
    paths = sorted(folder.glob("*" + RESULT_SUFFIX))
    if len(paths) != 1:
        raise FileNotFoundError(f"{folder}: expected one *{RESULT_SUFFIX}, found {len(paths)}")
    return paths[0]


def write_not_applicable(folder: Path, reason: str, metrics: dict[str, int]) -> None:
    """Write, in the place of SAEBench's JSON, why an eval does not apply and what was found."""
    write_json(folder / NOT_APPLICABLE, {"reason": reason, "metrics": metrics})


def read_metrics(folder: Path) -> dict[str, float | None]:
    """Return the headline metrics in SAEBench's JSON in `folder`, and the right ones beside them.

    Every number of ``eval_result_metrics`` under its own name, and those of `CORRECTIONS` under
    theirs (None there takes a name away). A metric with further splits (`RESPLITS`) is the mean
    over all splits, and SAEBench's own number has `OWN_SPLIT` behind its name. Metrics that core
    did not compute (CE loss and KL of an encoder, which its schema makes -1) are None. Where an
    eval did not apply, its ``applicable`` is 0 and no score is there.

    Raises
    ------
    FileNotFoundError, ValueError
        If the JSON is missing, cut short, or another file; the message names it.
    """
    if (folder / NOT_APPLICABLE).is_file():
        return dict(read_json(folder / NOT_APPLICABLE)["metrics"])
    path = find_result(folder)
    content = read_json(path)
    try:
        metrics = _read_groups(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected SAEBench's JSON, got no {error}") from error
    if (folder / CORRECTIONS).is_file():
        metrics |= read_json(folder / CORRECTIONS)
    for metric, parts in _read_resplit(folder, content).items():
        metrics |= {metric: _mean(parts), f"{metric}{OWN_SPLIT}": metrics[metric]}
    return metrics


def read_parts(folder: Path) -> dict[str, dict[str, float]]:
    """Return the parts of metrics in SAEBench's JSON in `folder`, by metric and part.

    Parts are data sets, or classes where there is one data set. Only metrics that are the mean of
    two parts or more are here; corrected ones (`CORRECTIONS`) have no parts. Parts with further
    splits are means over all splits.
    """
    if (folder / NOT_APPLICABLE).is_file():
        return {}
    content, whole = read_json(find_result(folder)), read_metrics(folder)
    resplit = _read_resplit(folder, content)
    found: dict[str, dict[str, float]] = {}
    for part, values in _list_parts(content):
        for metric, value in values.items():
            if metric.startswith("llm_"):  # the same for every dictionary
                continue
            if isinstance(value, int | float) and isinstance(whole.get(metric), int | float):
                found.setdefault(metric, {})[part] = float(value)
    return {
        metric: parts
        for metric, parts in (found | resplit).items()
        if len(parts) > 1 and math.isclose(_mean(parts), float(whole[metric] or 0), abs_tol=1e-9)
    }


def _read_resplit(folder: Path, content: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the means over SAEBench's own split and all further ones, by metric and part."""
    if not (folder / RESPLITS).is_file():
        return {}
    own = dict(_list_parts(content))
    if len(own) < 2:  # the only data set is the whole
        own = {
            detail["dataset_name"]: detail for detail in content.get("eval_result_details") or []
        }
    return {
        metric: {
            part: sum([own[part][metric], *again]) / (1 + len(again))
            for part, again in parts.items()
        }
        for metric, parts in read_json(folder / RESPLITS).items()
    }


def _mean(parts: Mapping[str, float]) -> float:
    return sum(parts.values()) / len(parts)


def _list_parts(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (part, its metrics): data sets, or the classes of the only one."""
    details = [
        detail for detail in content.get("eval_result_details") or [] if "dataset_name" in detail
    ]
    if len(details) > 1:
        for detail in details:
            yield detail["dataset_name"].removesuffix("_results"), detail
        return
    for by_metric in (content.get("eval_result_unstructured") or {}).values():
        for metric, by_class in by_metric.items() if isinstance(by_metric, dict) else ():
            for name, value in by_class.items() if isinstance(by_class, dict) else ():
                yield name, {metric: value}


def _read_groups(content: dict[str, Any]) -> dict[str, float | None]:
    config = content["eval_config"]
    if content.get("eval_type_id") == "mdl":  # lists settings, without a metric of its own
        return {}
    groups = content["eval_result_metrics"]
    metrics = {
        key: value
        for group in groups.values()
        for key, value in group.items()
        if value is None or isinstance(value, int | float)
    }
    for flag, group in [
        ("compute_kl", "model_behavior_preservation"),
        ("compute_ce_loss", "model_performance_preservation"),
    ]:
        if config.get(flag) is False:
            metrics.update(dict.fromkeys(groups[group], None))
    return metrics
