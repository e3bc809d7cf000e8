"""Check a config and the local files that it names, as a run does before its first job."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow.commands.loading import load_experiment
from workflow.experiment import Experiment
from workflow.local_checks import check_local


def check(configs: Sequence[Path], *, as_json: bool = False) -> None:
    """Print what the experiment is.

    Raises
    ------
    SettingsError
        With a line for each thing that is wrong.
    """
    experiment = load_experiment(configs)
    check_local(experiment)
    found = describe(experiment)
    if as_json:
        print(json.dumps(found))
        return
    print(f"experiment    {found['experiment']}")
    for site, count in found["dictionaries"].items():
        print(f"dictionaries  {count} at {site}")
    print(f"evals         {', '.join(found['evals']) or 'none: scored on held-out rows only'}")
    print(f"from outside  {', '.join(found['from_outside']) or 'nothing'}")
    for name in found["idle_methods"]:
        print(f"note: no fit uses the method {name}")


def name_outside(wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words what an experiment asks for outside (workflow/external_access.py)."""
    if wanted.get("model"):
        yield f"model {wanted['model']['name']}"
    yield from dict.fromkeys(f"data set {each['name']}" for each in wanted.get("data_sets", ()))
    yield from dict.fromkeys(f"key {each['variable']}" for each in wanted.get("keys", ()))


def describe(experiment: Experiment) -> dict:
    """Return what an experiment makes and what it needs from outside this machine."""
    outside = json.loads(experiment.access() or "{}")
    return {
        "experiment": experiment.config.experiment,
        "results": experiment.folder,
        "dictionaries": dict(Counter(fit.site for fit in experiment.fits)),
        "evals": list(experiment.config.evaluation.list_evals()),
        "from_outside": list(name_outside(outside)),
        "idle_methods": experiment.idle_methods,
    }
