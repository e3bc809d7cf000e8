"""New atoms: drawn at random, or found by a short k-means on the residual."""

from __future__ import annotations

import torch
from torch import Tensor

from dbksvd.base.shapes import Activations, Atoms
from dbksvd.ops.atom_update.update import update_atoms_
from dbksvd.ops.pursuit.encode import sparse_encode
from dbksvd.ops.ranks import ALONE, Ranks

KMEANS_ITERATIONS = 3
KMEANS_SAMPLES_PER_ATOM = 32


def derive_generator(seed: int, iteration: int) -> torch.Generator:
    """Return a generator for one iteration: a resumed fit draws what an unbroken one draws."""
    return torch.Generator().manual_seed((seed * 1_000_003 + iteration) % (1 << 63))


def draw_random_atoms(count: int, width: int, generator: torch.Generator) -> Atoms:
    """Return isotropic unit vectors, float32 of shape (count, width)."""
    drawn = torch.randn(count, width, generator=generator, dtype=torch.float32)
    return torch.nn.functional.normalize(drawn, dim=1)


def draw_sample_atoms(
    x: Activations,
    count: int,
    generator: torch.Generator,
    *,
    n_samples: int,
    among: int | None = None,
    ranks: Ranks = ALONE,
) -> Atoms:
    """Return distinct random samples as unit atoms, and random vectors where samples are too few.

    A sample that is zero becomes a random vector too.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Samples, or this rank's share of them.
    count : int
        Atoms wanted.
    generator : torch.Generator
        In the same state on all ranks.
    n_samples : int
        Samples of all ranks together.
    among : int, optional
        Only the first so many samples are drawn from; all by default.
    ranks : Ranks
        The processes that have the other samples.
    """
    atoms = draw_random_atoms(count, x.shape[1], generator).to(x)
    places = torch.randperm(among or n_samples, generator=generator)[:count]
    chosen = take_rows(x, places.to(x.device), n_samples, ranks)
    norms = torch.linalg.vector_norm(chosen, dim=1, keepdim=True)
    usable = norms > 0
    head = torch.where(usable, chosen / norms.masked_fill(~usable, 1), atoms[: len(chosen)])
    atoms[: len(chosen)] = head / torch.linalg.vector_norm(head, dim=1, keepdim=True)
    return atoms


def take_rows(x: Activations, places: Tensor, n_samples: int, ranks: Ranks) -> Atoms:
    """Return rows of all samples, on every rank.

    Parameters
    ----------
    x : tensor of shape (n, d)
        This rank's share of the samples.
    places : int64 tensor
        Rows that are wanted, counted over all samples.
    n_samples : int
        Samples of all ranks together.
    ranks : Ranks
        The processes that have the other samples.
    """
    if ranks.size == 1:
        return x[places]
    start, stop = ranks.find_share(n_samples)
    mine = (places >= start) & (places < stop)
    rows = x.new_zeros(len(places), x.shape[1])
    rows[mine] = x[places[mine] - start]
    return ranks.sum_(rows)


def find_new_atoms(
    residual: Activations,
    count: int,
    *,
    nonnegative: bool,
    generator: torch.Generator,
    implementation: str,
    n_samples: int,
    ranks: Ranks = ALONE,
) -> Atoms:
    """Return `count` unit atoms for a residual by a short k-means on lines, or on rays.

    A k-means on lines is K-SVD with one non-zero a sample. No two atoms then share a sample, so
    that all atoms can be updated at once.

    Parameters
    ----------
    residual : tensor of shape (n, d)
        Shuffled rows, or this rank's share of them. Only the first `KMEANS_SAMPLES_PER_ATOM` rows
        an atom are used.
    count : int
        Atoms to find.
    nonnegative : bool
        Rays instead of lines.
    generator : torch.Generator
        Draws the rows from which the k-means starts.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    n_samples : int
        Rows of all ranks together.
    ranks : Ranks
        The processes that have the other rows.
    """
    used = min(KMEANS_SAMPLES_PER_ATOM * count, n_samples)
    atoms = draw_sample_atoms(
        residual, count, generator, n_samples=n_samples, among=used, ranks=ranks
    )
    rows = residual[: max(0, used - ranks.find_share(n_samples)[0])]
    if len(rows) == 0:
        # a rank without such rows takes part with a sample that uses no atom
        rows = torch.zeros_like(residual[:1])
    for _ in range(KMEANS_ITERATIONS):
        codes = sparse_encode(
            rows, atoms, 1, nonnegative=nonnegative, refit=False, implementation=implementation
        )
        update_atoms_(
            rows,
            codes,
            atoms,
            atom_batch=count,
            power_iterations=1,
            nonnegative=nonnegative,
            implementation=implementation,
            ranks=ranks,
        )
    return atoms


def check_warm_start(atoms: Tensor, n_atoms: int, width: int) -> Atoms:
    """Return given atoms as float32 of unit norm, or raise a ValueError."""
    norms = torch.linalg.vector_norm(atoms.double(), dim=-1, keepdim=True)
    if tuple(atoms.shape) != (n_atoms, width):
        raise ValueError(
            f"init: expected atoms of shape {(n_atoms, width)}, got {tuple(atoms.shape)}"
        )
    if not (torch.isfinite(norms).all() and (norms > 0).all()):
        raise ValueError("init: expected finite atoms that are not zero, got others")
    return (atoms.detach().double() / norms).float().cpu().contiguous()
