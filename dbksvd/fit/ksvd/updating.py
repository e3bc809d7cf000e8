"""The heart of an iteration: code a batch, improve the atoms, group by group."""

from __future__ import annotations

import torch

from dbksvd.base.codes import SparseCodes
from dbksvd.base.shapes import Activations, Atoms
from dbksvd.dictionaries.dictionary import PursuitSettings
from dbksvd.fit.ksvd.groups import encode_group, join_groups, slice_groups
from dbksvd.fit.ksvd.job import FitJob
from dbksvd.fit.ksvd.kernel_uses import choose_atom_batch
from dbksvd.fit.ksvd.schedule import Step
from dbksvd.fit.measure import sum_squares
from dbksvd.ops.atom_update.update import update_atoms_


def code_and_update_(
    job: FitJob,
    step: Step,
    batch: Activations,
    atoms: Atoms,
    *,
    pursuit: PursuitSettings,
    generator: torch.Generator,
) -> tuple[SparseCodes, Activations, float]:
    """Code a batch and improve the atoms in place; a group is improved before the next is coded.

    Parameters
    ----------
    job : FitJob
        Says how atoms are updated, and by whom.
    step : Step
        The iteration: sizes of the groups and non-zeros of each.
    batch : tensor of shape (n, d)
        Centred samples, or this rank's share of them.
    atoms : tensor of shape (m, d)
        Unit atoms of all groups, one after another.
    pursuit : PursuitSettings
        How a group is coded.
    generator : torch.Generator
        Draws the order in which the atoms of each group are updated.

    Returns
    -------
    tuple
        Codes and residual after all updates, and the squared error of the last group before its
        own update.
    """
    settings = job.settings
    parts, residual, error = [], batch, 0.0
    for rows in slice_groups(step.groups):
        group = atoms[rows]
        codes, residual = encode_group(residual, group, pursuit, implementation=job.implementation)
        error = sum_squares(residual)
        update_atoms_(
            *(batch, codes, group),
            atom_batch=choose_atom_batch(job, step, len(group)),
            power_iterations=settings.power_iterations,
            nonnegative=settings.nonnegative,
            seed=int(torch.randint(1 << 31, (1,), generator=generator)),
            residual=residual,
            implementation=job.implementation,
            ranks=job.ranks,
        )
        parts.append(codes)
    return join_groups(parts), residual, error
