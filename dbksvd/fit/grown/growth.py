"""A dictionary that grows: rounds in which atoms join, settling, polishing, sharing."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from dbksvd.base.codes import SparseCodes
from dbksvd.base.layout import WEIGHTS_FILE
from dbksvd.base.shapes import Activations, Bias
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings, encode_with, read_weights
from dbksvd.fit.grown.candidates import find_general_atoms
from dbksvd.fit.grown.checkpoint import identify_growth, restore_growth_, save_growth
from dbksvd.fit.grown.cleaning import clean_atoms_
from dbksvd.fit.grown.penalties import find_usage, set_penalties
from dbksvd.fit.grown.plan import (
    FEWEST_ROWS,
    MOST_ROWS,
    count_cleaning_rows,
    count_polish_rows,
    count_round_rows,
    plan_settling,
)
from dbksvd.fit.grown.sharing import find_tied, share_atoms_
from dbksvd.fit.ksvd.calibration import MOST_TIMES_MEAN, Calibration
from dbksvd.fit.ksvd.initialise import check_warm_start, derive_generator
from dbksvd.fit.task import FitTask
from dbksvd.ops.atom_update.update import compute_residual, update_atoms_

if TYPE_CHECKING:
    from dbksvd.fit.grown.method import GrownSettings

POWER_ITERATIONS = 2
# Threshold of a pursuit that is to find most of what is there, in that of the growth.
PLAIN = 0.8
# Least threshold of settling, in that of the growth, where samples have fewer atoms than k.
SETTLING = 0.5
# Times that usage and penalties are found from one another.
CONFIRMATIONS = 2


class Growth:
    """A dictionary on its way: atoms, bias, the place in the data, the log."""

    def __init__(self, task: FitTask, settings: GrownSettings) -> None:
        self.started = time.perf_counter()
        self.task, self.settings = task, settings
        self.position = self.seen = 0
        self.atoms = torch.empty(0, task.train.width, device=task.device)
        mean = task.train.mean.to(task.device)
        self.bias: Bias = torch.zeros_like(mean) if settings.bias == "zero" else mean.clone()
        rows = task.train.read(0, min(FEWEST_ROWS, len(task.train))).to(task.device) - mean
        self.threshold = settings.threshold * float(rows.double().square().mean().sqrt())
        self.pursuit = PursuitSettings(
            min(MOST_TIMES_MEAN * task.k, task.n_atoms),
            nonnegative=True,
            threshold=self.threshold,
        )
        # atoms that go with another; all until that is known
        self.is_tied = torch.ones(task.n_atoms, dtype=torch.bool, device=task.device)
        self.log: list[dict[str, Any]] = []

    def start_from(self, base: Path) -> None:
        """Take atoms and bias from another dictionary."""
        loaded = read_weights(base / WEIGHTS_FILE, ("W_dec", "b_dec"))
        atoms = check_warm_start(loaded["W_dec"], self.task.n_atoms, self.task.train.width)
        self.atoms, self.bias = atoms.to(self.task.device), loaded["b_dec"].to(self.bias)

    def read(self, count: int) -> Activations:
        """Return the next `count` centred samples (fewer if there are), from the start again."""
        n = len(self.task.train)
        count = min(count, n)
        if self.position + count > n:
            self.position = 0
        rows = self.task.train.read(self.position, self.position + count)
        self.position += count
        self.seen += count
        return rows.to(self.task.device) - self.bias

    def read_round(self) -> Activations:
        """Return the samples of a round."""
        return self.read(count_round_rows(len(self.atoms), self.settings.samples_per_atom))

    def grow(self) -> None:
        """Let atoms join until there are enough."""
        n_atoms = self.task.n_atoms
        identity = identify_growth(self)
        restore_growth_(self, identity)
        saved = time.perf_counter()
        bar = tqdm(total=n_atoms, initial=len(self.atoms), desc="growth", unit="atom")
        while len(self.atoms) < n_atoms:
            held = len(self.atoms)
            self.join(derive_generator(self.task.seed, len(self.log)))
            for _ in range(self.settings.round_iterations):
                self.iterate_held(self.read_round(), slice(held))
            bar.update(len(self.atoms) - held)
            if time.perf_counter() - saved >= self.settings.checkpoint_seconds:
                save_growth(self, identity)
                saved = time.perf_counter()
        bar.close()

    def join(self, generator: torch.Generator) -> None:
        """Find new atoms in what the dictionary leaves."""
        x = self.read_round()
        residual = x if not len(self.atoms) else compute_residual(x, self.encode(x), self.atoms)
        residual = residual - self.follow(residual)
        most = max(2, int(self.settings.growth * len(self.atoms)))
        new = find_general_atoms(
            residual,
            min(self.task.n_atoms - len(self.atoms), most),
            self.threshold,
            self.settings.starts,
            generator,
        )
        if not len(new):
            raise ValueError(
                f"n_atoms: expected at most {len(self.atoms)}, which explain all samples of a "
                f"round, got {self.task.n_atoms}"
            )
        self.atoms = torch.cat([self.atoms, new])

    def settle(self) -> None:
        """Iterate with atoms free that go with no other; those that do follow by the damping.

        An atom takes on part of those that come with it, and only these: where none does, a free
        atom gives nothing away, and the dictionary comes to reconstruct as DB-KSVD's does. Samples
        are coded as there with ``sparsity: mean``: k atoms on average.
        """
        task = self.task
        x = task.train.read(0, min(MOST_ROWS, len(task.train))).to(task.device) - self.bias
        self.is_tied = find_tied(encode_with(x, self.atoms, self.find_plain_pursuit()))
        # a few free atoms among many tied ones are not worth a single iteration
        count = int(self.settings.settle_iter * float((~self.is_tied).double().mean()))
        growing = self.pursuit
        settling = replace(growing, method="ols")
        calibration = Calibration(x)
        for size in plan_settling(task.n_atoms, task.k, count):
            found = calibration.follow(self.log, self.atoms, task.k, settling)
            floor = SETTLING * self.threshold
            self.pursuit = replace(found, threshold=max(found.threshold, floor))
            self.iterate_held(self.read(size), self.is_tied)
        self.pursuit = growing

    def iterate_held(self, x: Activations, held: slice | Tensor) -> None:
        """Do one iteration that the atoms `held` follow by the damping only."""
        before = self.atoms[held].clone()
        self.iterate(x)
        step = self.settings.damping * (self.atoms[held] - before)
        self.atoms[held] = normalize(before + step, dim=1)

    def encode(self, x: Activations) -> SparseCodes:
        """Return the codes of centred samples as the pursuit stands."""
        return encode_with(x, self.atoms, self.pursuit)

    def follow(self, residual: Activations) -> Bias:
        """Move the bias by the mean of the residual; return the step."""
        step = residual.mean(dim=0)
        self.bias = self.bias + step
        return step

    def iterate(self, x: Activations) -> SparseCodes:
        """Do one iteration of DB-KSVD; return the codes."""
        codes = self.encode(x)
        l0 = float(codes.l0.double().mean())
        residual = compute_residual(x, codes, self.atoms)
        update_atoms_(
            *(x, codes, self.atoms),
            atom_batch=max(1, int(len(self.atoms) / max(1.0, l0))),
            power_iterations=POWER_ITERATIONS,
            nonnegative=True,
            seed=self.task.seed + len(self.log),
            residual=residual,
        )
        left, total = (float(part.double().square().sum()) for part in (residual, x))
        self.follow(residual)
        self.log.append(
            {
                "iteration": len(self.log) + 1,
                "n_atoms": len(self.atoms),
                "samples_seen": self.seen,
                "l0": l0,
                "threshold": self.pursuit.threshold,
                "fve_train": 1 - left / total if total else 1.0,
                "fve_heldout": None,
                "seconds": time.perf_counter() - self.started,
            }
        )
        return codes

    def polish(self) -> Dictionary:
        """Iterate on many samples with penalties, clean, share, and return the dictionary."""
        usage = None
        for _ in range(self.settings.polish_iter):
            x = self.read(count_polish_rows(len(self.atoms)))
            self.penalise(x, usage)
            usage = find_usage(self.iterate(x))
        if self.settings.cleaning:
            x = self.read(count_cleaning_rows(len(self.atoms)))
            self.penalise(x, usage)
            codes = self.encode(x)
            self.follow(compute_residual(x, codes, self.atoms))
            clean_atoms_(x, codes, self.atoms, self.settings.cleaning, self.is_tied)
        x = self.read(MOST_ROWS)
        if self.settings.sharing:
            codes = encode_with(x, self.atoms, self.find_plain_pursuit())
            share_atoms_(self.atoms, codes, self.settings.sharing)
        self.penalise(x, usage)
        self.follow(compute_residual(x, self.encode(x), self.atoms))
        task = self.task
        self.log[-1]["seconds"] = time.perf_counter() - self.started
        atoms = self.atoms / torch.linalg.vector_norm(self.atoms, dim=1, keepdim=True)
        return Dictionary(atoms.cpu(), self.bias.cpu(), self.pursuit, dict(task.metadata))

    def find_plain_pursuit(self) -> PursuitSettings:
        """Return a pursuit that finds who is there before penalties are known."""
        return replace(self.pursuit, threshold=PLAIN * self.threshold, penalties=None)

    def penalise(self, x: Activations, usage: Tensor | None) -> None:
        """Set the penalties from usage, found by the growth's pursuit if there is none yet."""
        if usage is None:
            self.pursuit = self.find_plain_pursuit()
            usage = find_usage(self.encode(x[:FEWEST_ROWS]))
        for _ in range(CONFIRMATIONS):
            self.pursuit = set_penalties(x, self.atoms, usage, self.task.k, self.pursuit)
            usage = find_usage(self.encode(x[:FEWEST_ROWS]))
        self.pursuit = set_penalties(x, self.atoms, usage, self.task.k, self.pursuit)
