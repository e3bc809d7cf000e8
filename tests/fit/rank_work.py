"""Fits on several ranks, as processes forked from a server that has imported everything once."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rows import Rows
from test_sae import LEARNED, make_planted, make_task
from torch import distributed
from torch.nn.functional import normalize

from dbksvd.fit.ksvd.checkpoint import check_same
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.ksvd.ksvd import KSVD
from dbksvd.fit.sae.method import fit as train
from dbksvd.ops.atom_update import reference
from dbksvd.ops.pursuit.encode import sparse_encode
from dbksvd.ops.ranks import ALONE, Ranks

Work = Callable[[Ranks], Any]


def run_on_ranks(size: int, work: Work, timeout: float = 600) -> list[Any]:
    """Return ``work(ranks)`` of each of `size` ranks; `work` is importable, its result picklable.

    Raises
    ------
    AssertionError
        With the tracebacks, if any rank failed.
    """
    if size == 1:
        return [work(ALONE)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["rank_work", "dbksvd.fit.sae.train", "dbksvd.dictionaries.registration"]
    )
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_run, args=(work, rank, size, folder, pipes[rank][1]))
            for rank in range(size)
        ]
        # the server is started with the first process, and looks for modules there
        with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            for process in processes:
                process.start()
        answers = [pipe[0].recv() if pipe[0].poll(timeout) else "no answer" for pipe in pipes]
        for process in processes:
            process.join(10)
            process.kill()
    failed = [answer for answer in answers if isinstance(answer, str)]
    assert not failed, "\n".join(failed)
    return [answer[0] for answer in answers]


def _run(work: Work, rank: int, size: int, folder: str, answer: Any) -> None:
    found: tuple[Any] | None = None
    try:
        torch.set_num_threads(1)
        store = f"file://{Path(folder).resolve()}/store"
        distributed.init_process_group(
            "gloo", store, timeout=timedelta(minutes=5), rank=rank, world_size=size
        )
        found = (work(Ranks(rank, size)),)
        distributed.destroy_process_group()
    finally:
        answer.send(found or f"rank {rank}: {traceback.format_exc()}")


def make_samples(n: int = 3001, d: int = 24, m: int = 48, seed: int = 0) -> torch.Tensor:
    """Return samples of four random atoms each, with some noise and a mean."""
    generator = torch.Generator().manual_seed(seed)
    atoms = normalize(torch.randn(m, d, generator=generator), dim=1)
    places = torch.rand(n, m, generator=generator).topk(4, dim=1).indices
    codes = torch.zeros(n, m).scatter_(1, places, torch.rand(n, 4, generator=generator) + 0.5)
    return codes @ atoms + 0.02 * torch.randn(n, d, generator=generator) + 0.3


# Batches of 1,001 samples divide by neither 2 nor 4 ranks.
SMALL = {"max_iter": 2, "polish_iter": 1, "batch_size": 1001, "heldout_every": 1}
FITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "signed": (DBKSVD, {}),
    "mp": (DBKSVD, {"method": "mp"}),
    "unused": (DBKSVD, {"method": "omp", "min_usage": 90, "max_cosine": 0.6}),
    "non-negative": (DBKSVD, {"nonnegative": True}),
    "Matryoshka": (DBKSVD, {"groups": 16, "nonnegative": True}),
    "doubling": (DBKSVD, {"init": "doubling", "doubling_samples": 12, "doubling_iterations": 1}),
    "random": (DBKSVD, {"init": "random", "max_iter": 9, "tol": 0.5}),
    "batched": (DBKSVD, {"implementation": "batched", "max_iter": 1}),
    "exact": (KSVD, {"max_iter": 2, "power_iterations": 2}),
}


def fit_all(ranks: Ranks) -> dict[str, Any]:
    """Return atoms, log and bytes summed of every fit of `FITS`."""
    x = make_samples()
    found = {}
    for name, (learner, changes) in FITS.items():
        settings = SMALL if learner is DBKSVD else {"heldout_every": 1}
        before = ranks.summed_bytes
        model = learner(64, 4, **{**settings, **changes}, ranks=ranks)
        model.fit(x[:2500], heldout=x[2500:])
        log = [{k: v for k, v in row.items() if "seconds" not in k} for row in model.log_]
        sent = ranks.summed_bytes - before
        found[name] = (model.dictionary_.atoms.numpy(), log, model.stop_reason_, sent)
    return found


# With latents that die early, so that the losses that revive them are at work.
SHORT = {"training_samples": 1500, "batch_size": 101, "dead_window": 303, "measure_every": 700}


def train_all(ranks: Ranks) -> dict[str, Any]:
    """Return weights, log and checkpoint folder of a training of every architecture."""
    found = {}
    for architecture in LEARNED:
        changes = {**LEARNED[architecture][1], **SHORT, "architecture": architecture}
        with tempfile.TemporaryDirectory() as folder:
            task = make_task(make_planted(), Path(folder) / "work", **changes)
            task.ranks = ranks
            result = train(task)
            wrote = (Path(folder) / "work").exists()
        weights = {name: w.numpy() for name, w in result.dictionary.sae.state_dict().items()}
        log = [{k: v for k, v in row.items() if k != "seconds"} for row in result.log]
        found[architecture] = (weights, log, result.stop_reason, wrote)
    return found


class Watched(Rows):
    """Rows that are counted as they are read, up to `most` reads."""

    reads, most = 0, 10**9

    def read(self, start: int, stop: int) -> torch.Tensor:
        self.reads += 1
        if self.reads > self.most:
            raise OSError("cable pulled")
        return super().read(start, stop)


def resume_training(ranks: Ranks, folder: str) -> dict[str, Any]:
    """Return the weights of a training, and of one that broke off and went on, and their reads."""
    x = make_planted()
    changes = {**LEARNED["batchtopk"][1], **SHORT, "architecture": "batchtopk"}
    changes |= {"training_samples": 6000, "measure_every": 2000, "checkpoint_seconds": 0}
    found = {}
    for name, most in (("whole", 10**9), ("cut", 8), ("cut", 10**9)):
        task = make_task(x, Path(folder) / name, **changes)
        task.ranks = ranks
        task.train = rows = Watched(x[:3500])
        rows.most = most
        try:
            weights = train(task).dictionary.sae.state_dict()
        except OSError:
            weights = {}
        ranks.sum_numbers(0)  # no rank begins again before the others have ended
        found[name] = ({name: w.numpy() for name, w in weights.items()}, rows.reads)
    return found


def compare_atoms(ranks: Ranks) -> list[str]:
    """Return what is said of the same atoms on all ranks, of one that differs, of a swap."""
    atoms = torch.randn(70, 5, generator=torch.Generator().manual_seed(0))
    other, swapped = atoms.clone(), atoms.flip(0)
    other[-1, -1] = torch.nextafter(other[-1, -1], torch.tensor(9.0))
    found = []
    for different in (atoms, other, swapped):
        try:
            ranks.check_alike(different if ranks.rank == 1 else atoms, "atoms")
            found.append("")
        except ValueError as error:
            found.append(str(error))
    return found


def meet_trouble(ranks: Ranks) -> tuple[str, str]:
    """Return what is said where ranks find other checkpoints, and where one has ended."""
    try:
        check_same(3 * ranks.rank, Path("work"), ranks)
        differs = ""
    except ValueError as error:
        differs = str(error)
    if not ranks.is_first:
        return differs, ""
    try:
        ranks.sum_(torch.ones(3))
        ended = ""
    except ConnectionError as error:
        ended = str(error)
    return differs, ended


def update_all(ranks: Ranks) -> dict[str, Any]:
    """Return residual, values and atoms after an update of each implementation, in float64."""
    found = {}
    for name in ("reference", "batched", "cpu", "cuda"):
        module = import_module(f"dbksvd.ops.atom_update.{name}")
        for nonnegative in (False, True):
            generator = torch.Generator().manual_seed(1)
            atoms = normalize(torch.randn(11, 6, generator=generator).double(), dim=1)
            x = torch.randn(63, 6, generator=generator).double()
            codes = sparse_encode(x, atoms, 3, nonnegative=nonnegative, refit=False)
            indices, values = codes.indices, codes.values
            values[40:] = 0  # the last of four ranks uses no atom, and only the first one atom 5
            values[5:][indices[5:] == 5] = 0
            residual = reference.compute_residual(x, indices, values, atoms)
            rows = slice(*ranks.find_share(63))
            order = torch.randperm(11, generator=generator)
            parts = [part[rows].clone() for part in (residual, indices, values)]
            module.update_(*parts, atoms, order, 4, 3, nonnegative, ranks)
            key = f"{name}, {'non-negative' if nonnegative else 'signed'}"
            found[key] = (parts[0].numpy(), parts[2].numpy(), atoms.numpy())
    return found
