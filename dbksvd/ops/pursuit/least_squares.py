"""Small least-squares systems of many samples at once, in torch and float64.

Legend: `system` (n, k, k) are the Gram matrices G_S of the supports, `b` (n, k) the products of
the samples with their support, `used` and `passive` (n, k) masks of slots.
"""

from __future__ import annotations

import torch
from torch import Tensor


def grow_factor(
    factor: Tensor, row: Tensor, corner: Tensor, place: Tensor, dependent: float
) -> tuple[Tensor, Tensor]:
    """Grow Cholesky factors by one row each, at the slot that `place` (n, k) marks.

    Parameters
    ----------
    factor : float64 tensor of shape (n, k, k)
        Lower factors of the atoms so far, zero elsewhere.
    row : float64 tensor of shape (n, k)
        Gram entries of the new atom with the atoms so far, zero elsewhere.
    corner : float64 tensor of shape (n, 1)
        Squared norm of the new atom.
    place : bool tensor of shape (n, k)
        The slot of the new atom; nowhere for samples that get none.
    dependent : float
        Squared distance to the span up to which an atom is dependent.

    Returns
    -------
    tuple
        The new factors, and whether the atom was independent (n, 1); if not, nothing changed.
    """
    missing = (torch.diagonal(factor, dim1=1, dim2=2) == 0).double()
    whole = factor + torch.diag_embed(missing)
    w = torch.linalg.solve_triangular(whole, row.unsqueeze(2), upper=False).squeeze(2)
    pivot = corner - (w**2).sum(dim=1, keepdim=True)
    independent = pivot > dependent
    place = place & independent
    new = w + place * pivot.clamp(min=dependent).sqrt()
    return torch.where(place.unsqueeze(2), new.unsqueeze(1), factor), independent


def solve_support(system: Tensor, b: Tensor, passive: Tensor, dependent: float) -> Tensor:
    """Return the least-squares fit on the passive slots (n, k).

    An atom in the span of the atoms before it gets 0.

    Parameters
    ----------
    system : float64 tensor of shape (n, k, k)
        Gram matrices of the supports.
    b : float64 tensor of shape (n, k)
        Products of the samples with their supports.
    passive : bool tensor of shape (n, k)
        Slots that the fit may use; the others get 0.
    dependent : float
        Squared distance to the span up to which an atom is dependent.
    """
    held = passive.unsqueeze(2) & passive.unsqueeze(1)
    whole = torch.where(held, system, 0) + torch.diag_embed((~passive).double())
    factor, failed = torch.linalg.cholesky_ex(whole)
    # the squared distances to the spans of the atoms before, as long as all of these are kept
    pivots = torch.diagonal(factor, dim1=1, dim2=2) ** 2
    is_dependent = (failed != 0) | ~((pivots > dependent) | ~passive).all(dim=1)
    fit = torch.cholesky_solve((b * passive).unsqueeze(2), factor).squeeze(2) * passive
    if is_dependent.any():
        rows = is_dependent.nonzero().squeeze(1)
        fit[rows] = solve_in_order(system[rows], b[rows], passive[rows], dependent)
    return fit


def solve_in_order(system: Tensor, b: Tensor, passive: Tensor, dependent: float) -> Tensor:
    """Return what :func:`solve_support` does, slot by slot, so that dependent atoms are left out.

    Parameters
    ----------
    system, b, passive, dependent
        As of :func:`solve_support`.
    """
    factor = torch.zeros_like(system)
    kept = torch.zeros_like(passive)
    slots = torch.arange(system.shape[1], device=system.device)
    for slot in range(system.shape[1]):
        place = (slots == slot) & passive
        row = system[:, slot] * kept
        factor, independent = grow_factor(
            factor, row, system[:, slot, slot].unsqueeze(1), place, dependent
        )
        kept = kept | (place & independent)
    whole = factor + torch.diag_embed((~kept).double())
    return torch.cholesky_solve((b * kept).unsqueeze(2), whole).squeeze(2) * kept


def fit_nonnegative(
    system: Tensor, b: Tensor, z: Tensor, used: Tensor, dependent: float, zero: Tensor
) -> Tensor:
    """Return argmin over z ≥ 0 of ½ zᵀ G z − bᵀ z on the used slots.

    Lawson and Hanson's active set ("Solving least squares problems", 1974, chapter 23) from a
    feasible z, all samples in step; those that have ended are left out of the later steps.

    Parameters
    ----------
    system : float64 tensor of shape (n, k, k)
        Gram matrices of the supports.
    b : float64 tensor of shape (n, k)
        Products of the samples with their supports.
    z : float64 tensor of shape (n, k)
        Coefficients to start from, at least 0.
    used : bool tensor of shape (n, k)
        Slots that hold an atom.
    dependent : float
        Squared distance to the span up to which an atom is dependent.
    zero : float64 tensor of shape (n, 1)
        Slope up to which a slot has nothing to gain.
    """
    z = z.clone()
    # slots of value 0 may still have a positive slope: they come in one at a time, below
    passive, barred = used & (z > 0), ~used
    newest = torch.zeros_like(used)
    rows = torch.arange(len(z), device=z.device)
    for _ in range(10 * z.shape[1] + 10):
        part = z[rows]
        s = solve_support(system[rows], b[rows], passive[rows], dependent)
        blocked = passive[rows] & (s <= 0)
        ratio = torch.where(part > 0, part / (part - s), 0.0)
        step = torch.where(blocked, ratio, 1.0).amin(dim=1, keepdim=True)
        leaving = blocked & (ratio <= step)
        part = torch.where(passive[rows], part + step * (s - part), part).masked_fill(leaving, 0)
        z[rows] = part
        passive[rows] = passive[rows] & ~leaving
        # an atom that leaves as it comes would come again for ever
        barred[rows] = barred[rows] | (leaving & newest[rows])
        slope = b[rows] - (system[rows] @ part.unsqueeze(2)).squeeze(2)
        slope = slope.masked_fill(passive[rows] | barred[rows], -torch.inf)
        top = slope.amax(dim=1, keepdim=True)
        settled = ~blocked.any(dim=1, keepdim=True)
        arriving = (slope == top) & (top > zero[rows]) & settled
        arriving &= arriving.cumsum(dim=1) == 1
        newest[rows] = arriving
        passive[rows] = passive[rows] | arriving
        rows = rows[~settled.squeeze(1) | arriving.any(dim=1)]
        if len(rows) == 0:
            break
    return z


def fit_block(
    b: Tensor,
    gram: Tensor,
    support: Tensor,
    used: Tensor,
    z: Tensor,
    nonnegative: bool,
    dependent: float,
    norm: Tensor,
) -> Tensor:
    """Return the (non-negative) least-squares fit on the used slots (n, k).

    Parameters
    ----------
    b : tensor of shape (n, k)
        Products D_S x of the samples with their supports.
    gram : tensor of shape (m, m)
        Products of the atoms.
    support : int64 tensor of shape (n, k)
        Atoms of the slots.
    used : bool tensor of shape (n, k)
        Slots that hold an atom.
    z : float64 tensor of shape (n, k)
        Coefficients that the non-negative fit starts from, at least 0.
    nonnegative : bool
        Whether coefficients must be at least 0.
    dependent : float
        Squared distance to the span up to which an atom is dependent.
    norm : float64 tensor of shape (n, 1)
        Norms of the samples.
    """
    system = gram[support.unsqueeze(2), support.unsqueeze(1)].double()
    if nonnegative:
        return fit_nonnegative(system, b.double(), z, used, dependent, 1e-12 * norm)
    return solve_support(system, b.double(), used, dependent)
