"""Which kernels a growth calls, for them to be compiled before its clock starts."""

from __future__ import annotations

from collections.abc import Iterator

from dbksvd.dictionaries.dictionary import PursuitSettings
from dbksvd.fit.grown.plan import POWER_ITERATIONS
from dbksvd.fit.ksvd.calibration import MOST_TIMES_MEAN
from dbksvd.fit.task import FitTask
from dbksvd.fit.warm_up import KernelUse


def list_kernel_uses(task: FitTask) -> Iterator[KernelUse]:
    """Yield what a fit calls: mp in growth, ols in settling, and mp with penalties afterwards.

    CUDA has kernels for each power of two of atoms, and others for multiples of 16.
    """
    width, most = task.train.width, min(MOST_TIMES_MEAN * task.k, task.n_atoms)
    powers = [2**power for power in range(2, task.n_atoms.bit_length())]
    sizes = {size for power in powers for size in (power - 1, power)} | {task.n_atoms}
    growing = PursuitSettings(most, nonnegative=True)
    for size in sorted(sizes):
        yield KernelUse(growing, size, width, max(1, size // task.k), POWER_ITERATIONS)
    penalised = PursuitSettings(most, nonnegative=True, penalties=(0.0,) * task.n_atoms)
    settling = PursuitSettings(most, method="ols", nonnegative=True)
    for pursuit in (settling, penalised):
        batch = max(1, task.n_atoms // task.k)
        yield KernelUse(pursuit, task.n_atoms, width, batch, POWER_ITERATIONS)
