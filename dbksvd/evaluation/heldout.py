"""Reconstruction and sparsity of a dictionary on held-out activations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dbksvd.base.files import read_json
from dbksvd.base.layout import CONFIG_FILE
from dbksvd.base.variance import ExplainedVariance
from dbksvd.dictionaries.dictionary import SparseDictionary
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.evaluation.expert_duplicates import measure_expert_duplicates
from dbksvd.evaluation.heldout_groups import GroupedVariance, group_heldout
from dbksvd.evaluation.sparsity import SparsitySample
from dbksvd.ops.inputs import as_tensor


class Rows(Protocol):
    """Activations read by row range, such as ``ActivationShards``."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start…stop, float32 of shape (stop - start, d)."""
        ...


@torch.no_grad()
def measure_dictionary(
    dictionary: SparseDictionary,
    activations: Tensor | np.ndarray[Any, Any] | Rows,
    block: int = 4096,
) -> dict[str, Any]:
    """Measure how well, and with how much, a dictionary reconstructs activations.

    Variance explained is ``1 - Σ‖x - x̂‖² / Σ‖x - x̄‖²``, as in the logs of fits
    (:class:`dbksvd.base.variance.ExplainedVariance`); x̂ is decoded in float64. Of a transcoder x
    is the target.

    Parameters
    ----------
    dictionary : SparseDictionary
        What is measured.
    activations : tensor or array of shape (n, d), or ActivationShards
        Held-out samples.
    block : int
        Samples coded at a time.

    Returns
    -------
    dict
        JSON-able: ``explained_variance``; ``mse`` (mean over samples and coordinates);
        ``cosine_similarity`` (mean over samples); ``l0`` and ``l0_std`` (non-zero codes per
        sample); ``n_atoms``; ``dead_atoms`` (used by no sample) and ``dead_fraction``;
        ``nearest_atom_cosine`` (median over atoms of the largest |cos| to another; None for a
        single atom); those of :meth:`dbksvd.evaluation.sparsity.SparsitySample.measure`;
        ``samples``; ``usage`` (samples that use each atom, list of length m); for shards ``parts``:
        ``explained_variance`` by group of documents (:mod:`dbksvd.evaluation.heldout_groups`).

    Raises
    ------
    ValueError
        If no two samples differ, the width is not the dictionary's, or a value is not finite.
    """
    variance = ExplainedVariance(dictionary.atoms.shape[1], dictionary.atoms.device)
    groups = group_heldout(activations)
    grouped = None if groups is None else GroupedVariance(groups, *variance.mean.shape)
    # the rows of a transcoder are inputs and targets side by side
    split = getattr(dictionary, "split_rows", lambda rows: (rows, rows))
    width = dictionary.atoms.shape[1] + getattr(dictionary, "input_width", 0)
    cosine_sum = 0.0
    l0: list[Tensor] = []
    usage = torch.zeros(len(dictionary.atoms), dtype=torch.int64)
    sample = SparsitySample()
    for rows in _read_blocks(activations, block, width):
        inputs, x = split(rows)
        codes = dictionary.encode(inputs.to(dictionary.atoms))
        reconstruction = dictionary.decode(codes, torch.float64)
        if not torch.isfinite(reconstruction).all():
            raise ValueError("dictionary: its reconstruction holds NaN or infinity")
        variance.add(x, reconstruction)
        if grouped is not None:
            grouped.add(x.cpu(), reconstruction.cpu())
        cosine_sum += float(torch.cosine_similarity(x.to(reconstruction), reconstruction).sum())
        l0.append(codes.l0.cpu())
        usage += codes.count_usage().cpu()
        sample.add(x, codes)
    counts = torch.cat(l0).double()
    n, dead = len(counts), int((usage == 0).sum())
    parts = {} if grouped is None else {"parts": {"explained_variance": _name(grouped.compute())}}
    return {
        "explained_variance": variance.compute(),
        "mse": variance.error / (n * len(variance.mean)),
        "cosine_similarity": cosine_sum / n,
        "l0": float(counts.mean()),
        "l0_std": float(counts.std(correction=0)),
        "n_atoms": len(usage),
        "dead_atoms": dead,
        "dead_fraction": dead / len(usage),
        "nearest_atom_cosine": measure_nearest_atom_cosine(dictionary.atoms),
        **sample.measure(dictionary),
        "samples": n,
        "usage": usage.tolist(),
        **parts,
    }


def _name(parts: list[float]) -> dict[str, float]:
    return {f"documents-{group:02d}": part for group, part in enumerate(parts)}


def measure_folder(
    folder: str | Path, activations: Tensor | Rows, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Measure a saved dictionary of any architecture on held-out samples, on a device.

    Returns
    -------
    dict
        As :func:`measure_dictionary`; and ``expert_duplicates`` where the dictionary has experts
        (:func:`dbksvd.evaluation.expert_duplicates.measure_expert_duplicates`).
    """
    dictionary = load_dictionary(folder, device, transcoders=True)
    metrics = measure_dictionary(dictionary, activations)
    experts = read_json(Path(folder) / CONFIG_FILE).get("n_experts")
    if experts:
        metrics["expert_duplicates"] = measure_expert_duplicates(dictionary.atoms, experts)
    return metrics


def measure_nearest_atom_cosine(atoms: Tensor, block: int = 1024) -> float | None:
    """Return the median over atoms of ``max_{j≠i} |cos(D_i, D_j)|``; None for a single atom."""
    if len(atoms) < 2:
        return None
    directions = torch.nn.functional.normalize(atoms.float(), dim=1)
    nearest = []
    for start in range(0, len(directions), block):
        rows = directions[start : start + block]
        cosines = (rows @ directions.T).abs()
        cosines[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = -1.0
        nearest.append(cosines.max(dim=1).values)
    return float(torch.cat(nearest).median())


def _read_blocks(
    activations: Tensor | np.ndarray[Any, Any] | Rows, block: int, width: int
) -> Iterator[Tensor]:
    if isinstance(activations, np.ndarray):
        activations = as_tensor(activations, "activations")
    n = len(activations)
    if n == 0:
        raise ValueError("activations: expected at least one sample, got none")
    for start in tqdm(range(0, n, block), desc="measure", unit="block"):
        stop = min(start + block, n)
        if isinstance(activations, Tensor):
            x = activations[start:stop]
        else:
            x = activations.read(start, stop)
        if x.ndim != 2 or x.shape[1] != width:
            raise ValueError(
                f"activations: expected width {width}, the dictionary's, got {tuple(x.shape)}"
            )
        if not torch.isfinite(x).all():
            raise ValueError(f"activations: NaN or infinity in rows {start} to {stop}")
        yield x
