"""The iterations of a DB-KSVD fit: add atoms, code, update, replace, log, keep."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import torch
from tqdm import tqdm

from dbksvd.activations.source import ActivationSource, fingerprint_source
from dbksvd.base.clock import read_clock
from dbksvd.base.shapes import Activations, Atoms
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.fit.ksvd import checkpoint as checkpoints
from dbksvd.fit.ksvd.batches import BatchReader
from dbksvd.fit.ksvd.calibration import Calibration
from dbksvd.fit.ksvd.checkpoint import FitState, check_same
from dbksvd.fit.ksvd.groups import encode_groups
from dbksvd.fit.ksvd.initialise import (
    check_warm_start,
    derive_generator,
    draw_random_atoms,
    draw_sample_atoms,
    find_new_atoms,
)
from dbksvd.fit.ksvd.job import FitJob, FitOutcome, make_pursuits
from dbksvd.fit.ksvd.kernel_uses import list_kernel_uses
from dbksvd.fit.ksvd.replacement import replace_atoms_
from dbksvd.fit.ksvd.schedule import Step, plan_steps
from dbksvd.fit.ksvd.updating import code_and_update_
from dbksvd.fit.measure import find_exponent, measure_explained, sum_squares
from dbksvd.fit.reading import READ_ROWS, check_differ, find_mean, read_rows
from dbksvd.fit.warm_up import warm_up


class FitLoop:
    """One fit: what does not change in it, and its steps.

    Parameters
    ----------
    job : FitJob
        What to do.
    source : ActivationSource
        Samples to learn from.
    heldout : ActivationSource, optional
        Samples to measure on.
    """

    def __init__(
        self, job: FitJob, source: ActivationSource, heldout: ActivationSource | None
    ) -> None:
        self.job, self.source, self.heldout = job, source, heldout
        if heldout is not None and heldout.width != source.width:
            raise ValueError(f"heldout: expected width {source.width}, got {heldout.width}")
        if heldout is not None:
            check_differ(heldout, "heldout")
        self.pursuit, self.fit_pursuit = make_pursuits(job.settings, job.n_atoms, job.k)
        self.steps = plan_steps(job.settings, job.n_atoms, job.k, len(source))
        smallest = min(step.samples for step in self.steps)
        if smallest < job.ranks.size:
            raise ValueError(
                f"ranks: expected at most the {smallest} samples of a batch, got {job.ranks.size}"
            )
        uses = list_kernel_uses(job, self.steps, source.width)
        warm_up(uses, job.device, implementation=job.implementation, ranks=job.ranks)
        started = read_clock(job.device)
        self.mean = find_mean(source)
        first = read_rows(source, 0, min(len(source), READ_ROWS)) - self.mean
        self.exponent = find_exponent(first)
        is_mean = job.settings.sparsity == "mean"
        self.calibration = (
            Calibration(first.to(job.device), job.implementation) if is_mean else None
        )
        self.preparation_seconds = read_clock(job.device) - started
        self.batches = BatchReader(
            *(source, self.mean, self.exponent, self.steps, job.device, job.ranks)
        )

    def run(self) -> FitOutcome:
        """Do all steps, from the checkpoint on if there is one."""
        with closing(self.batches):
            state = self.restore()
            self.finish(state)
        return FitOutcome(self.make_dictionary(state), state.log, state.stop_reason)

    def finish(self, state: FitState) -> None:
        """Do the steps that a state has before it."""
        job, settings = self.job, self.job.settings
        saved = time.perf_counter()
        bar = tqdm(self.steps, initial=state.iteration, disable=not job.progress, desc="DB-KSVD")
        with bar:
            while not state.stop_reason:
                started = read_clock(job.device)
                row = self.iterate(state)
                seconds = job.ranks.ask_first(read_clock(job.device) - started)
                state.seconds += seconds
                row |= {"seconds": state.seconds, "seconds_iteration": seconds}
                state.log.append(row)
                state.iteration += 1
                state.stop_reason = self.find_stop_reason(state)
                if self.heldout is not None and self.is_measured(state):
                    row["fve_heldout"] = measure_explained(
                        self.make_dictionary(state), self.heldout, job.device, job.ranks
                    )
                bar.update()
                if (job.checkpoint and job.ranks.is_first) and (
                    state.stop_reason or time.perf_counter() - saved >= settings.checkpoint_seconds
                ):
                    checkpoints.save_state(job.checkpoint, state, self.identify())
                    saved = time.perf_counter()

    def restore(self) -> FitState:
        """Return the state to begin from."""
        job = self.job
        if job.checkpoint:
            state = checkpoints.load_state(job.checkpoint, self.identify(), job.device)
            check_same(state.iteration if state else 0, job.checkpoint, job.ranks)
            if state is not None:
                return state
        started = read_clock(job.device)
        atoms = self.make_first_atoms()
        seconds = self.preparation_seconds + read_clock(job.device) - started
        return FitState(atoms.to(job.device), seconds=job.ranks.ask_first(seconds))

    def make_first_atoms(self) -> Atoms:
        """Return the atoms that the fit begins with; none where they double from few."""
        job, first = self.job, self.steps[0]
        generator = derive_generator(job.seed, -1)
        if job.atoms is not None:
            return check_warm_start(job.atoms, first.n_atoms, self.source.width)
        if job.settings.init == "samples":
            return draw_sample_atoms(
                *(self.batches.read(0), first.n_atoms, generator),
                n_samples=first.samples,
                ranks=job.ranks,
            )
        count = first.n_atoms if job.settings.init == "random" else 0
        return draw_random_atoms(count, self.source.width, generator)

    def identify(self) -> dict[str, Any]:
        """Return what a checkpoint must agree on to be used."""
        return {
            "data": fingerprint_source(self.source),
            "steps": [asdict(step) for step in self.steps],
            **self.job.identify(),
        }

    def iterate(self, state: FitState) -> dict[str, Any]:
        """Do one iteration; return its row of the log."""
        job, step = self.job, self.steps[state.iteration]
        settings = job.settings
        batch = self.batches.read(state.iteration)
        generator = derive_generator(job.seed, state.iteration)
        if len(state.atoms) < step.n_atoms:
            state.atoms = self.add_atoms(state, batch, generator)
        pursuit = self.choose_pursuit(state, step)
        codes, residual, coded = code_and_update_(
            job, step, batch, state.atoms, pursuit=pursuit, generator=generator
        )
        usage = job.ranks.sum_(codes.count_usage())
        coded, updated, total, active = job.ranks.sum_numbers(
            coded, sum_squares(residual), sum_squares(batch), float(codes.l0.sum())
        )
        replaced = (0, 0)
        if state.iteration + 1 < len(self.steps):
            replaced = replace_atoms_(
                *(state.atoms, usage, residual),
                min_usage=min(settings.min_usage, -(-step.samples * step.budget // step.n_atoms)),
                max_cosine=settings.max_cosine,
                nonnegative=settings.nonnegative,
                ranks=job.ranks,
            )
        job.ranks.check_alike(state.atoms, "atoms")
        unit = 4.0**self.exponent
        seen = state.log[-1]["samples_seen"] if state.log else 0
        return {
            "iteration": state.iteration + 1,
            "stage": step.stage,
            "n_atoms": step.n_atoms,
            "samples_seen": seen + step.samples,
            "fve_train": 1 - updated / total if total else 1.0,
            "fve_heldout": None,
            "l0": active / step.samples,
            "threshold": math.ldexp(pursuit.threshold, self.exponent),
            "dead_atoms": int((usage == 0).sum()),
            "replaced_unused": replaced[0],
            "replaced_duplicate": replaced[1],
            "error_coded": coded * unit,
            "error_updated": updated * unit,
        }

    def choose_pursuit(self, state: FitState, step: Step) -> PursuitSettings:
        """Return the pursuit with which `state.atoms` code a group of the next batch."""
        if self.calibration is None or not len(state.atoms):
            return self.fit_pursuit
        pursuit = self.calibration.follow(state.log, state.atoms, step.budget, self.fit_pursuit)
        return replace(pursuit, threshold=math.ldexp(pursuit.threshold, -self.exponent))

    def add_atoms(self, state: FitState, batch: Activations, generator: torch.Generator) -> Atoms:
        """Return the atoms, and behind them new ones found on what they leave of a batch."""
        job, step, atoms = self.job, self.steps[state.iteration], state.atoms
        residual = batch
        if len(atoms):
            before = self.steps[state.iteration - 1].groups
            residual = encode_groups(
                *(batch, atoms, before, self.choose_pursuit(state, step)),
                implementation=job.implementation,
            )[1]
        new = find_new_atoms(
            residual,
            step.n_atoms - len(atoms),
            nonnegative=job.settings.nonnegative,
            generator=generator,
            implementation=job.implementation,
            n_samples=step.samples,
            ranks=job.ranks,
        )
        return torch.cat([atoms, new])

    def find_stop_reason(self, state: FitState) -> str:
        """Return why the fit ends after the iteration just done, or an empty text."""
        settings = self.job.settings
        if state.iteration == len(self.steps):
            return "max_iter"
        if self.steps[state.iteration - 1].n_atoms < self.job.n_atoms:
            return ""
        if settings.max_seconds is not None and state.seconds >= settings.max_seconds:
            return "max_seconds"
        if settings.tol > 0 and len(state.log) > 1:
            before, now = state.log[-2], state.log[-1]
            is_comparable = before["n_atoms"] == now["n_atoms"]
            if is_comparable and now["fve_train"] - before["fve_train"] < settings.tol:
                return "converged"
        return ""

    def is_measured(self, state: FitState) -> bool:
        """Return whether held-out samples are measured after the iteration just done."""
        every = self.job.settings.heldout_every
        return bool(state.stop_reason) or (every > 0 and state.iteration % every == 0)

    def make_dictionary(self, state: FitState) -> Dictionary:
        """Return the dictionary of a state, on the CPU."""
        norms = torch.linalg.vector_norm(state.atoms, dim=1, keepdim=True)
        atoms = state.atoms / norms
        pursuit = replace(self.pursuit, k=min(self.pursuit.k, len(atoms)))
        if self.calibration is not None:
            pursuit = self.calibration.set_threshold(atoms, self.job.k, pursuit)
        return Dictionary(atoms.cpu(), self.mean, pursuit)
