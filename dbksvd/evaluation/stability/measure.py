"""The job that measures how far the seeds of one kind of dictionary agree."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from tqdm import tqdm

from dbksvd.base.codes import concatenate_codes
from dbksvd.base.files import hash_file, replace_file, write_json
from dbksvd.base.provenance import describe_run
from dbksvd.base.saving import check_replaceable
from dbksvd.base.settings import parse
from dbksvd.dictionaries.dictionary import SparseDictionary, is_signed
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.evaluation.heldout import Rows
from dbksvd.evaluation.stability.coactivation import CodeColumns
from dbksvd.evaluation.stability.compare import Comparison, Seed, compare, match_random
from dbksvd.evaluation.stability.settings import StabilitySettings
from dbksvd.ops.matching import Matching

ATOMS_FILE = "atoms.safetensors"
BINS = 100  # of the histograms of matched cosines, over [0, 1]
BLOCK = 4096  # rows coded at a time


def measure_stability(
    dictionaries: Mapping[int, Path],
    heldout: Rows,
    settings: Mapping[str, Any] | StabilitySettings,
    seal: Path,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Compare every two seeds of one kind of dictionary, and write what was found.

    Parameters
    ----------
    dictionaries : mapping of int to path
        Folder of the dictionary of each seed, at least two.
    heldout : ActivationShards
        Rows that no fit has seen.
    settings : StabilitySettings, or a mapping of the same keys
        How many rows and random draws.
    seal : path
        JSON file of the result. Beside it goes `ATOMS_FILE`: for each seed an array ``seed<s>``,
        float32 of shape (m,), the mean matched cosine of each atom over the other seeds.
    seed : int
        Of the random atoms.
    device : torch.device or str
        Where rows are coded.

    Returns
    -------
    dict
        What the file holds: ``seeds``, ``signed``, ``rows``, ``scores`` (of each seed, means over
        the pairs with it), ``pairs``, ``histograms``, ``seconds``, ``run``, ``sha256``.

    Raises
    ------
    ValueError
        If there are fewer than two dictionaries, or their widths differ.
    """
    checked: StabilitySettings = parse(StabilitySettings, settings, "evaluation.stability")
    if len(dictionaries) < 2:
        raise ValueError(f"dictionaries: expected at least 2 seeds, got {len(dictionaries)}")
    check_replaceable(seal, ("scores", "run", "sha256"))
    started = time.perf_counter()
    seeds, signed = _read_seeds(dictionaries, heldout, checked.rows, device)
    compared = {
        pair: compare(seeds[pair[0]], seeds[pair[1]], signed=signed)
        for pair in tqdm(list(combinations(seeds, 2)), desc="compare", unit="pair")
    }
    largest = max((one.atoms for one in seeds.values()), key=len)
    random = match_random(*largest.shape, signed=signed, draws=checked.draws, seed=seed)
    cosines = {number: _list_cosines(compared, number) for number in seeds}
    with replace_file(seal.with_name(ATOMS_FILE)) as temporary:
        save_file(
            {f"seed{number}": np.mean(found, axis=0) for number, found in cosines.items()},
            temporary,
        )
    content = {
        "seeds": list(seeds),
        "signed": signed,
        "rows": min(len(heldout), checked.rows),
        "scores": _score_seeds(compared, list(seeds), random),
        "pairs": [
            {"seeds": list(pair)} | _average([one.describe(side) for side in (0, 1)])
            for pair, one in compared.items()
        ],
        "histograms": {
            "bins": BINS,
            "seeds": {str(number): _count(found) for number, found in cosines.items()},
            "random": _count([one.spread(side) for one in random for side in (0, 1)]),
        },
        "seconds": time.perf_counter() - started,
        "run": describe_run(seed=seed, device=device),
        "sha256": {ATOMS_FILE: hash_file(seal.with_name(ATOMS_FILE))},
    }
    write_json(seal, content)
    return content


def _read_seeds(
    dictionaries: Mapping[int, Path], heldout: Rows, rows: int, device: torch.device | str
) -> tuple[dict[int, Seed], bool]:
    """Return the dictionary of each seed with its codes, and whether these have signs."""
    loaded = {number: load_dictionary(path, device) for number, path in dictionaries.items()}
    widths = sorted({dictionary.atoms.shape[1] for dictionary in loaded.values()})
    if len(widths) > 1:
        raise ValueError(f"dictionaries: expected one width, got {widths}")
    seeds = {number: _code(dictionary, heldout, rows) for number, dictionary in loaded.items()}
    return seeds, any(is_signed(dictionary) for dictionary in loaded.values())


def _score_seeds(
    compared: Mapping[tuple[int, int], Comparison], seeds: Sequence[int], random: Sequence[Matching]
) -> dict[str, dict[str, float | None]]:
    """Return the scores of each seed: means over the pairs with it, and what chance gives."""
    floor: dict[str, float | None] = {
        "random_pw_mcc": float(np.mean([one.similarity.mean(dtype=float) for one in random])),
        "random_mmcs": float(np.mean([near.mean() for one in random for near in one.nearest])),
    }
    found = {}
    for number in seeds:
        pairs = [(one, pair.index(number)) for pair, one in compared.items() if number in pair]
        found[str(number)] = _average([one.describe(side) for one, side in pairs]) | floor
    return found


@torch.no_grad()
def _code(dictionary: SparseDictionary, heldout: Rows, rows: int) -> Seed:
    """Return a dictionary with its codes of the first held-out rows."""
    stop, blocks = min(rows, len(heldout)), []
    for start in range(0, stop, BLOCK):
        x = heldout.read(start, min(start + BLOCK, stop))
        if not torch.isfinite(x).all():
            raise ValueError(f"activations: NaN or infinity in held-out rows from {start} on")
        blocks.append(dictionary.encode(x.to(dictionary.atoms)).to("cpu"))
    return Seed(dictionary.atoms.detach().cpu(), CodeColumns(concatenate_codes(blocks)))


def _list_cosines(compared: Mapping[tuple[int, int], Comparison], number: int) -> list[np.ndarray]:
    """Return the matched cosines (m,) of one seed's atoms, with each other seed."""
    return [
        one.by_atoms.spread(pair.index(number)) for pair, one in compared.items() if number in pair
    ]


def _average(scores: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each score over those that have it; None where none does."""
    found: dict[str, float | None] = {}
    for name in scores[0]:
        values = [value for one in scores if (value := one[name]) is not None]
        found[name] = float(np.mean(values)) if values else None
    return found


def _count(cosines: Sequence[np.ndarray]) -> list[int]:
    counts, _ = np.histogram(np.concatenate(cosines).clip(0, 1), bins=BINS, range=(0, 1))
    return [int(count) for count in counts]
