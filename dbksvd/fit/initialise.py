"""New atoms: drawn, or found by a short k-means on what the dictionary leaves unexplained."""

from __future__ import annotations

import torch
from torch import Tensor

from dbksvd.ops.atom_update import update_atoms_
from dbksvd.ops.pursuit import sparse_encode
from dbksvd.shapes import Activations, Atoms

KMEANS_ITERATIONS = 3
KMEANS_SAMPLES_PER_ATOM = 32


def derive_generator(seed: int, iteration: int) -> torch.Generator:
    """Return a generator for one iteration: a resumed fit draws what an unbroken one draws."""
    return torch.Generator().manual_seed((seed * 1_000_003 + iteration) % (1 << 63))


def draw_random_atoms(count: int, width: int, generator: torch.Generator) -> Atoms:
    """Return isotropic unit vectors, float32 of shape (count, width)."""
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator), dim=1)


def draw_sample_atoms(x: Activations, count: int, generator: torch.Generator) -> Atoms:
    """Return distinct random samples as unit atoms; random vectors where those run out or are 0."""
    atoms = draw_random_atoms(count, x.shape[1], generator).to(x)
    chosen = x[torch.randperm(len(x), generator=generator)[:count].to(x.device)]
    norms = torch.linalg.vector_norm(chosen, dim=1, keepdim=True)
    usable = norms > 0
    head = torch.where(usable, chosen / norms.masked_fill(~usable, 1), atoms[: len(chosen)])
    atoms[: len(chosen)] = head / torch.linalg.vector_norm(head, dim=1, keepdim=True)
    return atoms


def find_new_atoms(
    residual: Activations,
    count: int,
    *,
    nonnegative: bool,
    generator: torch.Generator,
    implementation: str,
) -> Atoms:
    """Return `count` unit atoms for a residual by a short k-means on lines (rays).

    A k-means on lines is K-SVD with one non-zero a sample: supports of different atoms are then
    disjoint, so that all atoms may be updated at once.

    Parameters
    ----------
    residual : tensor of shape (n, d)
        Shuffled rows, of which the first `KMEANS_SAMPLES_PER_ATOM` an atom are used.
    count : int
        Atoms to find.
    nonnegative : bool
        Rays instead of lines.
    generator : torch.Generator
        Draws the rows that the k-means starts from.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    """
    rows = residual[: KMEANS_SAMPLES_PER_ATOM * count]
    atoms = draw_sample_atoms(rows, count, generator)
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
        )
    return atoms


def make_first_atoms(
    init: str | Tensor, count: int, width: int, generator: torch.Generator
) -> Atoms:
    """Return the atoms that a fit begins with: given ones, random ones, or none to grow from."""
    if isinstance(init, Tensor):
        return check_warm_start(init, count, width)
    return draw_random_atoms(count if init == "random" else 0, width, generator)


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
