"""The learners that are compared. Each yields points of its curve until its budget is spent.

All read the same rows from memory. Seconds are of learning alone: measuring on held-out samples,
imports and compilation are not in them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from benchmarks.problems import Point, Problem, centre_rows, score_atoms
from benchmarks.timing import find_version
from dbksvd.activations.shards import ActivationShards
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.task import FitTask
from dbksvd.ops.pursuit.encode import sparse_encode

CHUNKS = 10  # points of a curve, for peers that learn on in chunks of time
SAE_MEASUREMENTS = 24
CALIBRATION_STEPS = 40
SAE_BATCH = 1024
SKLEARN_BATCH = 256
KSVD_ROWS_PER_ATOM = 8
PEER_CODES = "omp of dbksvd"


@dataclass(frozen=True)
class Learner:
    """A contestant of the learning benchmark.

    Parameters
    ----------
    learn : callable
        Takes a :class:`Problem`, yields :class:`Point`; the last one names why it ended.
    scored_by : str
        Whose codes the held-out score is of.
    package : str, optional
        Distribution it needs; None for ours.
    """

    learn: Callable[[Problem], Iterator[Point]]
    scored_by: str
    package: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether it can run here."""
        return self.package is None or find_version(self.package) is not None


def learn_dbksvd(problem: Problem, *, nonnegative: bool) -> Iterator[Point]:
    """DB-KSVD with its default settings."""
    few = problem.data.train.rows[:64]
    DBKSVD(8, 2, nonnegative=nonnegative, max_iter=1, device="cpu").fit(few)  # compiles
    model = DBKSVD(
        problem.m,
        problem.k,
        nonnegative=nonnegative,
        seed=problem.seed,
        max_seconds=problem.budget,
        heldout_every=1,
        device="cpu",
    ).fit(problem.data.train, heldout=problem.data.heldout)
    for row in model.log_:
        stop = model.stop_reason_ if row is model.log_[-1] else ""
        yield Point(row["seconds"], row["fve_heldout"], row["samples_seen"], stop)


def learn_sae(problem: Problem, *, architecture: str) -> Iterator[Point]:
    """Train an SAE of SAELens by its own trainer, at the settings of ``fit/sae/settings.py``.

    Its learning rate needs to know the end, so the number of samples is what the budget allows at
    the speed of a short trial.
    """
    from dbksvd.fit.sae import method as sae

    def train(samples: int, measure_every: int) -> list[dict[str, Any]]:
        settings = {
            "architecture": architecture,
            "training_samples": samples,
            "batch_size": SAE_BATCH,
            "measure_every": measure_every,
        }
        with tempfile.TemporaryDirectory() as folder:
            task = FitTask(
                cast(ActivationShards, problem.data.train),
                cast(ActivationShards, problem.data.heldout),
                *(problem.m, problem.k, problem.seed),
                settings,
                torch.device("cpu"),
                Path(folder) / "checkpoint",
            )
            return sae.fit(task).log

    half = CALIBRATION_STEPS // 2 * SAE_BATCH
    first, last = train(2 * half, half)[:2]  # the first half warms up
    speed = half / (last["seconds"] - first["seconds"])
    steps = max(SAE_MEASUREMENTS, int(problem.budget * speed / SAE_BATCH))
    log = train(steps * SAE_BATCH, max(1, steps // SAE_MEASUREMENTS) * SAE_BATCH)
    for row in log:
        stop = "schedule ended" if row is log[-1] else ""
        yield Point(row["seconds"], row["fve_heldout"], row["samples_seen"], stop)


def learn_spams(problem: Problem) -> Iterator[Point]:
    """SPAMS ``trainDL``: online, with at most k non-zeros (mode 3), from samples as atoms."""
    import spams

    x, first = centre_rows(problem)
    columns, atoms = np.asfortranarray(x.numpy().T), np.asfortranarray(first.numpy().T)
    model, seconds, chunk = None, 0.0, max(1, round(problem.budget / CHUNKS))
    while seconds < problem.budget:
        started = time.perf_counter()
        atoms, model = spams.trainDL(
            columns,
            D=atoms,
            model=model,
            return_model=True,
            lambda1=float(problem.k),
            mode=3,
            iter=-chunk,  # seconds
            batchsize=512,
            numThreads=torch.get_num_threads(),
            verbose=False,
        )
        seconds += time.perf_counter() - started
        fve = score_atoms(problem, torch.from_numpy(np.ascontiguousarray(atoms.T)))
        yield Point(
            seconds, fve, 512 * model["iter"], "budget" if seconds >= problem.budget else ""
        )


def learn_sklearn(problem: Problem) -> Iterator[Point]:
    """scikit-learn ``MiniBatchDictionaryLearning.partial_fit`` (lasso by LARS), from samples.

    The weight of the ℓ1 norm is the median, over some samples, of the largest product that is
    left after k picks of orthogonal matching pursuit: lasso then ends with about k atoms.
    """
    from sklearn.decomposition import MiniBatchDictionaryLearning

    x, atoms = centre_rows(problem)
    some = x[-128:]
    left = some - sparse_encode(some, atoms, problem.k, method="omp").decode(atoms)
    model = MiniBatchDictionaryLearning(
        problem.m,
        alpha=float((left @ atoms.T).abs().amax(dim=1).median()),
        batch_size=SKLEARN_BATCH,
        dict_init=atoms.numpy(),
        fit_algorithm="lars",
        random_state=problem.seed,
    )
    seconds = measured = 0.0
    for step in range(1 << 30):
        start = step * SKLEARN_BATCH % (len(x) - SKLEARN_BATCH + 1)
        started = time.perf_counter()
        model.partial_fit(x[start : start + SKLEARN_BATCH].numpy())
        seconds += time.perf_counter() - started
        ends = seconds >= problem.budget
        if ends or seconds - measured >= problem.budget / CHUNKS:
            measured = seconds
            fve = score_atoms(problem, torch.from_numpy(model.components_).float())
            yield Point(seconds, fve, (step + 1) * SKLEARN_BATCH, "budget" if ends else "")
        if ends:
            return


def learn_ksvd(problem: Problem) -> Iterator[Point]:
    """PyPI ``ksvd``: approximate K-SVD on a few rows for each atom; it is in memory and slow."""
    from ksvd import ApproximateKSVD

    x = centre_rows(problem)[0]
    x = x[: KSVD_ROWS_PER_ATOM * problem.m]
    points: list[Point] = []

    class OutOfTimeError(Exception):
        pass

    class MeasuredKSVD(ApproximateKSVD):
        started = 0.0

        def _update_dict(self, X: Any, D: Any, gamma: Any) -> Any:
            result = super()._update_dict(X, D, gamma)
            seconds = time.perf_counter() - self.started
            ends = seconds >= problem.budget
            fve = score_atoms(problem, torch.from_numpy(result[0]).float())
            samples = len(X) * (len(points) + 1)
            points.append(Point(seconds, fve, samples, "budget" if ends else ""))
            if ends:
                raise OutOfTimeError
            self.started = time.perf_counter() - seconds  # measuring takes no time
            return result

    np.random.seed(problem.seed)  # noqa: NPY002 - the package draws from the global generator
    model = MeasuredKSVD(problem.m, max_iter=1 << 30, transform_n_nonzero_coefs=problem.k)
    model.started = time.perf_counter()
    with suppress(OutOfTimeError):
        model.fit(x.numpy())
    yield from points


SIGNED, NONNEGATIVE, TOPK = "DB-KSVD, signed", "DB-KSVD, non-negative", "SAELens TopK"


def _bind(learn: Callable[..., Iterator[Point]], **settings: Any) -> Callable[..., Iterator[Point]]:
    return lambda problem: learn(problem, **settings)


LEARNERS = {
    SIGNED: Learner(_bind(learn_dbksvd, nonnegative=False), "its own codes"),
    NONNEGATIVE: Learner(_bind(learn_dbksvd, nonnegative=True), "its own codes"),
    TOPK: Learner(_bind(learn_sae, architecture="topk"), "its own encoder", "sae-lens"),
    "SAELens matching pursuit": Learner(
        _bind(learn_sae, architecture="matching_pursuit"), "its own encoder", "sae-lens"
    ),
    "SPAMS trainDL": Learner(learn_spams, PEER_CODES, "spams-bin"),
    "scikit-learn MiniBatchDictionaryLearning": Learner(learn_sklearn, PEER_CODES, "scikit-learn"),
    "ksvd ApproximateKSVD": Learner(learn_ksvd, PEER_CODES, "ksvd"),
}
