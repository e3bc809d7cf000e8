"""What an atom is without any text: its neighbours, its neurons, its place among the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.ops.matching import match_exactly

BLOCK = 1024
NEURONS = 10
# t-SNE of 512 points takes a second, of 4,096 half a minute; more get two principal components.
TSNE_ATOMS = 4096
TSNE_STEPS = 500


def find_nearest(
    atoms: Tensor, others: Tensor, n: int, *, signed: bool, same: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the atoms of another dictionary that are nearest to each atom.

    Parameters
    ----------
    atoms, others : tensors of shape (m, d) and (m', d)
        Atoms.
    n : int
        How many.
    signed : bool
        Whether direction does not count: by largest absolute cosine; else by largest cosine.
    same : bool
        Whether `others` are the same atoms, of which each is not its own neighbour.

    Returns
    -------
    indices : int32 array of shape (m, n)
        By falling similarity, ties by index; −1 where there are fewer.
    cosines : float32 array of shape (m, n)
        With sign; 0 where there is none.
    """
    unit, reference = normalize(atoms.float(), dim=1), normalize(others.float(), dim=1)
    indices = np.full((len(atoms), n), -1, np.int32)
    cosines = np.zeros((len(atoms), n), np.float32)
    for start in range(0, len(atoms), BLOCK):
        found = unit[start : start + BLOCK] @ reference.T
        score = found.abs() if signed else found.clone()
        if same:
            rows = torch.arange(len(found))
            score[rows, start + rows] = -torch.inf
        # a stable sort of the few that topk finds, since topk leaves the order of ties open
        size = min(n + 1, len(others))
        chosen = score.topk(size, dim=1).indices.sort(dim=1).values
        order = score.gather(1, chosen).argsort(dim=1, descending=True, stable=True)
        chosen = chosen.gather(1, order)[:, : min(n, len(others) - same)]
        stop = start + len(found)
        indices[start:stop, : chosen.shape[1]] = chosen.numpy()
        cosines[start:stop, : chosen.shape[1]] = found.gather(1, chosen).numpy()
    return indices, cosines


def list_neighbours(
    name: str, dictionaries: Mapping[str, tuple[Tensor, bool]], n: int
) -> dict[str, np.ndarray]:
    """Return the nearest atoms in every dictionary of a site.

    Parameters
    ----------
    name : str
        The dictionary.
    dictionaries : mapping of str to (atoms, signed)
        All of the site, in the manifest's order.
    n : int
        Atoms of each.
    """
    atoms, signed = dictionaries[name]
    pairs = [
        find_nearest(atoms, others, n, signed=signed or their_signed, same=other == name)
        for other, (others, their_signed) in dictionaries.items()
    ]
    return {
        "nearest_atom": np.stack([indices for indices, _ in pairs], axis=1),
        "nearest_cosine": np.stack([cosines for _, cosines in pairs], axis=1),
    }


def list_neurons(atoms: Tensor, n: int = NEURONS) -> dict[str, np.ndarray]:
    """Return the largest entries of each atom by magnitude, ties by index."""
    n = min(n, atoms.shape[1])
    order = atoms.float().abs().argsort(dim=1, descending=True, stable=True)[:, :n]
    return {
        "neuron_index": order.numpy().astype(np.int32),
        "neuron_value": atoms.float().gather(1, order).numpy(),
    }


def draw_map(atoms: Tensor, *, signed: bool, seed: int = 0) -> np.ndarray:
    """Return a place for each atom in two dimensions, float32 of shape (m, 2), within ±1.

    t-SNE by cosine distance up to `TSNE_ATOMS` atoms, else the two principal components; the same
    input gives the same map. Atoms of signed codes are turned so that their largest entry is
    positive, since their direction has no meaning.
    """
    unit = normalize(atoms.double(), dim=1)
    if signed:
        largest = unit.gather(1, unit.abs().argmax(dim=1, keepdim=True))
        unit = unit * torch.where(largest < 0, -1.0, 1.0)
    centred = (unit - unit.mean(dim=0)).numpy()
    places = _project(centred)
    if 4 < len(atoms) <= TSNE_ATOMS and np.ptp(places) > 0:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(atoms) - 1) / 3)
        start = (1e-4 * places / places[:, 0].std()).astype(np.float32)
        tsne = TSNE(
            init=start,
            metric="cosine",
            perplexity=perplexity,
            max_iter=TSNE_STEPS,
            random_state=seed,
            n_jobs=1,
        )
        places = tsne.fit_transform(unit.numpy().astype(np.float32)).astype(np.float64)
    places = places - places.mean(axis=0)
    return (places / max(np.abs(places).max(), 1e-12)).astype(np.float32)


def _project(centred: np.ndarray) -> np.ndarray:
    """Return the first two principal components; the sign makes the largest loading positive."""
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    places = centred @ axes
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))


def match_truth(atoms: Tensor, features: Tensor, n: int, *, signed: bool) -> dict[str, np.ndarray]:
    """Return which true features of a generative model each atom matches and mixes.

    Parameters
    ----------
    atoms, features : tensors of shape (m, d) and (n_features, d)
        Atoms and true directions.
    n : int
        Nearest features listed.
    signed : bool
        Whether an atom also stands for its opposite.
    """
    indices, cosines = find_nearest(atoms, features, n, signed=signed)
    pairs = match_exactly(atoms, features, signed=signed)
    match = np.full(len(atoms), -1, np.int32)
    match[pairs[:, 0]] = pairs[:, 1]
    return {"truth_feature": indices, "truth_cosine": cosines, "truth_match": match}
