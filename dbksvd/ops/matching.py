"""Pairs the atoms of two dictionaries one to one: the Hungarian method, also for many atoms.

A similarity is read block by block, so that the whole matrix (m, m') is never held where it is
large: there only the most similar atoms of each atom are candidates for a pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor
from torch.nn.functional import normalize

# Up to so many atoms all pairs are weighed: half a second in scipy, and eight times that for twice
# as many.
EXACT_ATOMS = 2048
# With so many the mean similarity is within 2e-5 of the greatest one (docs/stability.md).
CANDIDATES = 64
ROWS = 1024  # of a similarity in memory at a time
# Keeps all weights above 0, which scipy's sparse matching takes for no edge; it changes no choice,
# since all matchings have as many pairs.
OFFSET = 2.0


class Similarity(Protocol):
    """Similarities of m first atoms with m' second ones, at most 1 and at least −1."""

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of atoms (m, m')."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Return similarities of first atoms start…stop, float32 of shape (stop − start, m')."""
        ...


class Cosines:
    """Cosines of the atoms of two dictionaries.

    Parameters
    ----------
    first, second : floating tensors of shape (m, d) and (m', d)
        Atoms, of any norm.
    signed : bool
        Whether an atom and its negative are the same, as they are where codes have signs: the
        similarity is then the absolute cosine.
    """

    def __init__(self, first: Tensor, second: Tensor, *, signed: bool) -> None:
        self.first, self.second = (
            normalize(atoms.detach().float().cpu(), dim=1) for atoms in (first, second)
        )
        self.signed = signed

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of atoms (m, m')."""
        return len(self.first), len(self.second)

    def read(self, start: int, stop: int) -> Tensor:
        """Return cosines of first atoms start…stop with all second ones."""
        cosines = self.first[start:stop] @ self.second.T
        return cosines.abs() if self.signed else cosines


@dataclass(frozen=True)
class Matching:
    """Atoms of two dictionaries, paired one to one with the greatest sum of similarities.

    Parameters
    ----------
    pairs : int64 array of shape (p, 2)
        First and second atom of each of the p = min(m, m') pairs.
    similarity : float32 array of shape (p,)
        Of each pair.
    nearest : tuple of float32 arrays of shapes (m,) and (m',)
        Greatest similarity of each first atom to any second one, and the other way round.
    """

    pairs: np.ndarray
    similarity: np.ndarray
    nearest: tuple[np.ndarray, np.ndarray]

    def spread(self, side: int) -> np.ndarray:
        """Return the similarity of each atom of one side (0 or 1) to its partner, 0 without one.

        Parameters
        ----------
        side : {0, 1}
            First or second atoms.

        Returns
        -------
        float32 array of shape (m,) or (m',)
        """
        found = np.zeros(len(self.nearest[side]), np.float32)
        found[self.pairs[:, side]] = self.similarity
        return found


def match(
    similarity: Similarity, *, exact_atoms: int = EXACT_ATOMS, candidates: int = CANDIDATES
) -> Matching:
    """Pair atoms one to one with the greatest sum of similarities.

    ``π = argmax_π Σᵢ C[i, π(i)]``, by the Hungarian method (Kuhn 1955) as scipy solves it. Above
    `exact_atoms` only the most similar second atoms of each first one, and the other way round, may
    become a pair (scipy's ``min_weight_full_bipartite_matching``, Jonker and Volgenant 1987). So
    that there is always a matching, atom i may take atom i too; atoms that had to are paired among
    themselves once more, all pairs weighed.

    Parameters
    ----------
    similarity : Similarity
        C, read by rows.
    exact_atoms : int
        Atoms of the larger dictionary up to which all pairs are weighed.
    candidates : int
        Most similar atoms of each atom that may become its partner, above that.

    Returns
    -------
    Matching
        Memory beyond a block of rows: m · m' floats up to `exact_atoms`, above that some
        2 · `candidates` numbers for each atom.

    Raises
    ------
    ValueError
        If one side has no atom, or a similarity is not finite.
    """
    m, n = similarity.shape
    if not m or not n:
        raise ValueError(f"similarity: expected at least one atom on each side, got {m} and {n}")
    if max(m, n) <= exact_atoms:
        matrix = torch.cat([block for _, block in _read_blocks(similarity)])
        nearest = matrix.amax(dim=1).numpy(), matrix.amax(dim=0).numpy()
        pairs = np.stack(linear_sum_assignment(matrix.numpy(), maximize=True), axis=1)
        return Matching(pairs, matrix.numpy()[pairs[:, 0], pairs[:, 1]], nearest)
    edges, weights, nearest = _list_candidates(similarity, candidates)
    spare = np.repeat(np.arange(min(m, n)), 2).reshape(-1, 2)
    pairs = _match_edges(edges, weights, spare, (m, n))
    is_known = np.isin(_number(pairs, n), _number(edges, n))
    loose = pairs[~is_known]
    if 1 < len(loose) <= exact_atoms:
        pairs = np.concatenate([pairs[is_known], _match_loose(similarity, loose)])
        pairs = pairs[np.argsort(pairs[:, 0])]
    return Matching(pairs, _look_up(similarity, pairs), nearest)


def match_exactly(first: Tensor, second: Tensor, *, signed: bool = False) -> np.ndarray:
    """Pair the rows of two matrices one to one with the greatest sum of cosines, all pairs weighed.

    Parameters
    ----------
    first, second : floating tensors of shape (m, d) and (m', d)
        Rows of any norm; no gradient flows through the choice.
    signed : bool
        As in :class:`Cosines`.

    Returns
    -------
    int64 array of shape (min(m, m'), 2)
        First and second row of each pair, in the order of the first rows.
    """
    cosines = Cosines(first, second, signed=signed)
    return match(cosines, exact_atoms=max(cosines.shape)).pairs


def _read_blocks(similarity: Similarity) -> Iterator[tuple[int, Tensor]]:
    rows = similarity.shape[0]
    for start in range(0, rows, ROWS):
        block = similarity.read(start, min(start + ROWS, rows))
        if not torch.isfinite(block).all():
            raise ValueError(f"similarity: NaN or infinity in rows from {start} on")
        yield start, block


def _list_candidates(
    similarity: Similarity, count: int
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return the pairs (first, second) worth weighing, their weights, and the nearest of all."""
    n = similarity.shape[1]
    found: list[tuple[Tensor, Tensor, Tensor]] = []  # first atoms, second atoms, weights
    best = torch.full((n, 0), -torch.inf)  # of each second atom, over the rows read so far
    owner = torch.zeros((n, 0), dtype=torch.int64)
    nearest = []
    for start, block in _read_blocks(similarity):
        values, columns = block.topk(min(count, n), dim=1)
        rows = torch.arange(start, start + len(block))[:, None].expand_as(columns)
        found.append((rows.flatten(), columns.flatten(), values.flatten()))
        nearest.append(values[:, 0])
        values, places = block.T.contiguous().topk(min(count, len(block)), dim=1)
        best, owner = torch.cat([best, values], 1), torch.cat([owner, places + start], 1)
        best, kept = best.topk(min(count, best.shape[1]), dim=1)
        owner = owner.gather(1, kept)
    columns = torch.arange(n)[:, None].expand_as(owner)
    found.append((owner.flatten(), columns.flatten(), best.flatten()))
    first, second, weights = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    edges = np.stack([first, second], axis=1)
    _, kept_edges = np.unique(_number(edges, n), return_index=True)
    both = torch.cat(nearest).numpy(), best[:, 0].numpy().copy()
    return edges[kept_edges], weights[kept_edges], both


def _number(pairs: np.ndarray, n: int) -> np.ndarray:
    return pairs[:, 0].astype(np.int64) * n + pairs[:, 1]


def _match_edges(
    edges: np.ndarray, weights: np.ndarray, spare: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Return the best full matching of the edges; spare ones weigh less than all others."""
    spare = spare[~np.isin(_number(spare, shape[1]), _number(edges, shape[1]))]
    joined = np.concatenate([edges, spare])
    known = np.concatenate([weights.astype(float) + OFFSET, np.full(len(spare), OFFSET / 4)])
    graph = csr_matrix((known, (joined[:, 0], joined[:, 1])), shape=shape)
    return np.stack(min_weight_full_bipartite_matching(graph, maximize=True), axis=1)


def _match_loose(similarity: Similarity, loose: np.ndarray) -> np.ndarray:
    """Return the best pairs among the atoms of some pairs, all of them weighed."""
    rows = np.sort(loose[:, 0])
    columns = torch.from_numpy(np.sort(loose[:, 1]))
    matrix = torch.cat([similarity.read(row, row + 1)[:, columns] for row in rows.tolist()])
    first, second = linear_sum_assignment(matrix.numpy(), maximize=True)
    return np.stack([rows[first], columns.numpy()[second]], axis=1)


def _look_up(similarity: Similarity, pairs: np.ndarray) -> np.ndarray:
    """Return the similarity of each pair; pairs rise by their first atom."""
    found = []
    for start, block in _read_blocks(similarity):
        inside = pairs[(pairs[:, 0] >= start) & (pairs[:, 0] < start + len(block))]
        found.append(block.numpy()[inside[:, 0] - start, inside[:, 1]])
    return np.concatenate(found).astype(np.float32)
