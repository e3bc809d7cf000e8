"""Matching pursuit of a block of samples; see :mod:`dbksvd.ops.pursuit.batched`."""

from __future__ import annotations

import torch
from torch import Tensor

from dbksvd.ops.pursuit.tolerances import STEPS_PER_ATOM

STEPS_BETWEEN_QUESTIONS = 4


def match(
    start: Tensor,
    gram: Tensor,
    norm: Tensor,
    floor: Tensor,
    k: int,
    nonnegative: bool,
    rtol: float,
    costs: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pursue a block of samples by matching pursuit.

    Parameters
    ----------
    start : tensor of shape (n, m)
        Products of the samples with the atoms.
    gram : tensor of shape (m, m)
        Products of the atoms.
    norm : float64 tensor of shape (n, 1)
        Norms of the samples.
    floor : float64 tensor of shape (n, 1)
        Products up to this are not picked.
    k : int
        Most atoms of a support.
    nonnegative : bool
        Whether only positive products are picked.
    rtol : float
        Norm of the residual, relative to that of the sample, at which a sample ends; 0 for none.
    costs : float64 tensor of shape (m,), optional
        Penalties of the atoms.

    Returns
    -------
    tuple
        Support, whether a slot of it is used, and float64 coefficients, all (n, k).
    """
    p = start.clone()
    energy = norm**2
    support = torch.full((len(p), k), -1, device=p.device)
    z = torch.zeros(len(p), k, dtype=torch.float64, device=p.device)
    size = torch.zeros(len(p), 1, dtype=torch.int64, device=p.device)
    running = torch.ones_like(size, dtype=torch.bool)
    slots = slot_range(k, p)
    prices = None if costs is None else norm**2 * costs
    for step in range(STEPS_PER_ATOM * k):
        if prices is None:
            top, j = find_largest(p, nonnegative)
            running &= top > floor
        else:
            j, is_worthy = find_worthiest(p, prices, floor, nonnegative)
            running &= is_worthy
        v = p.gather(1, j).masked_fill(~running, 0)
        slot, is_new = find_slot(support, j, size)
        is_new &= running
        support = torch.where(is_new & (slots == slot), j, support)
        z.scatter_add_(1, slot, v.double())
        size += is_new
        energy -= v.double() ** 2
        running &= size < k
        if rtol > 0:
            running &= energy > (rtol * norm) ** 2
        asked = step + 1 >= k and (step + 1 - k) % STEPS_BETWEEN_QUESTIONS == 0
        if asked and not running.any():
            break
        p.addcmul_(v, gram[j.squeeze(1)], value=-1)
    used = slots < size
    return support.masked_fill(~used, 0), used, z


def find_slot(support: Tensor, j: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slot that atom j has or would get, and whether it is new to the support."""
    same = support == j
    is_new = ~same.any(dim=1, keepdim=True)
    slot = torch.where(is_new, size, same.to(torch.int8).argmax(dim=1, keepdim=True))
    return slot.clamp_(max=support.shape[1] - 1), is_new


def find_worthiest(
    p: Tensor, costs: Tensor, floor: Tensor, nonnegative: bool
) -> tuple[Tensor, Tensor]:
    """Return the lowest index of the largest p² − costs, and whether it is positive, (n, 1).

    Parameters
    ----------
    p : tensor of shape (n, m)
        Products of the residuals with the atoms.
    costs : float64 tensor of shape (n, m)
        Penalties times the squared norms of the samples.
    floor : float64 tensor of shape (n, 1)
        Products up to this are not eligible.
    nonnegative : bool
        Whether only positive products are eligible.
    """
    eligible = (p if nonnegative else p.abs()) > floor
    gain, j = torch.where(eligible, p.double() ** 2 - costs, 0).max(dim=1, keepdim=True)
    return j, gain > 0


def find_largest(p: Tensor, nonnegative: bool) -> tuple[Tensor, Tensor]:
    """Return the largest |p| (p) of each row and the lowest index that has it, shapes (n, 1)."""
    # torch.max promises the first index among equals
    return (p if nonnegative else p.abs()).max(dim=1, keepdim=True)


def slot_range(k: int, p: Tensor) -> Tensor:
    """Return the slots 0 … k−1 on the device of `p`, shape (1, k)."""
    return torch.arange(k, device=p.device).unsqueeze(0)
