"""Which kernels a fit of DB-KSVD calls, for them to be compiled before its clock starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dbksvd.dictionaries.dictionary import PursuitSettings
from dbksvd.fit.ksvd.job import FitJob, make_pursuits
from dbksvd.fit.ksvd.schedule import Step
from dbksvd.fit.warm_up import KernelUse


def choose_atom_batch(job: FitJob, step: Step, n_atoms: int) -> int:
    """Return how many atoms of a group of `n_atoms` are updated together in a step."""
    return job.settings.atom_batch or max(1, n_atoms // step.budget)


def list_kernel_uses(job: FitJob, steps: Sequence[Step], width: int) -> Iterator[KernelUse]:
    """Yield what the steps of a fit call on samples of a width."""
    settings = job.settings
    _, pursuit = make_pursuits(settings, job.n_atoms, job.k)
    for step in steps:
        for size in step.groups:
            batch = choose_atom_batch(job, step, size)
            yield KernelUse(pursuit, size, width, batch, settings.power_iterations)
    if settings.init == "doubling" and job.atoms is None:
        one = PursuitSettings(1, nonnegative=settings.nonnegative, refit=False)
        for size in {step.n_atoms for step in steps}:
            yield KernelUse(one, size, width, size)
