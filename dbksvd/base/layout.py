"""Where the results of an experiment are: folders, files, keys."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

# What identifies a dictionary in every table.
KEYS = ("site", "method", "n_atoms", "k", "seed")
# Says of a dictionary why it could not be made or scored: entry of a row, eval in tables.
FAILED = "failed"
# In the folder of a dictionary.
CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
LOG_FILE = "log.csv"
SEAL_FILE = "fit.json"
# In the folder of a kind of dictionary below ``<site>/stability/``.
STABILITY_FILE = "stability.json"


def name_fit(method: str, n_atoms: int, k: int, seed: int) -> str:
    """Return the folder of a fit below ``<site>/dictionaries/`` and below its scores."""
    return f"{method}/m{n_atoms}-k{k}-s{seed}"


def name_kind(method: str, n_atoms: int, k: int) -> str:
    """Return the folder of what is known of all seeds together, below ``<site>/stability/``."""
    return f"{method}/m{n_atoms}-k{k}"


def expand_rows(text: str) -> list[dict[str, Any]]:
    """Return the fits of an experiment, each with the folders of its dictionary and scores.

    Parameters
    ----------
    text : str
        JSON with ``folder`` (of the experiment) and ``fits``: lists of site, method, n_atoms, k and
        seed. Short, because a command line holds 128 KiB: some 3,000 fits. ``failed`` has lists of
        the same and a reason, which becomes the entry ``failed`` of the row. Where ``stability``
        is true, rows whose site, method and sizes have several seeds have the entry ``stability``.
    """
    content = json.loads(text)
    reasons = {tuple(keys): reason for *keys, reason in content.get("failed", ())}
    kinds = Counter((site, *sizes[:-1]) for site, *sizes in content["fits"])
    rows = []
    for site, *sizes in content["fits"]:
        folder, name = f"{content['folder']}/{site}", name_fit(*sizes)
        row = dict(zip(("method", "n_atoms", "k", "seed"), sizes, strict=True))
        row |= {
            "site": site,
            "dictionary": f"{folder}/dictionaries/{name}",
            "evaluation": f"{folder}/evaluations/{name}",
            "ground_truth": f"{folder}/ground_truth/{name}/scores.json"
            if site == "synthetic"
            else None,
        }
        if content.get("stability") and kinds[site, *sizes[:-1]] > 1:
            row["stability"] = f"{folder}/stability/{name_kind(*sizes[:-1])}/{STABILITY_FILE}"
        if (site, *sizes) in reasons:
            row[FAILED] = reasons[site, *sizes]
        rows.append(row)
    return rows
