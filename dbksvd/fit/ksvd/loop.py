"""The iterations of a DB-KSVD fit: grow, code, update, replace, log, keep."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from dbksvd.activations.source import fingerprint_source
from dbksvd.base.codes import SparseCodes
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.fit.ksvd import checkpoint as checkpoints
from dbksvd.fit.ksvd.batches import BatchReader
from dbksvd.fit.ksvd.calibration import Calibration
from dbksvd.fit.ksvd.checkpoint import FitState, check_same
from dbksvd.fit.ksvd.groups import encode_groups
from dbksvd.fit.ksvd.initialise import (
    derive_generator,
    draw_sample_atoms,
    find_new_atoms,
    make_first_atoms,
)
from dbksvd.fit.ksvd.replacement import replace_atoms_
from dbksvd.fit.ksvd.schedule import Step, choose_batch_size, plan_steps
from dbksvd.fit.measure import find_exponent, measure_explained, sum_squares
from dbksvd.fit.reading import (
    READ_ROWS,
    ActivationSource,
    find_mean,
    read_rows,
)
from dbksvd.ops.atom_update.update import update_atoms_

if TYPE_CHECKING:
    from dbksvd.fit.ksvd.dbksvd import DBKSVD


class FitLoop:
    """One run of :meth:`DBKSVD.fit`: what does not change in it, and its steps."""

    def __init__(
        self, model: DBKSVD, source: ActivationSource, heldout: ActivationSource | None
    ) -> None:
        self.model, self.source, self.heldout = model, source, heldout
        started = time.perf_counter()
        if heldout is not None and heldout.width != source.width:
            raise ValueError(f"heldout: expected width {source.width}, got {heldout.width}")
        self.mean = find_mean(source)
        self.steps = plan_steps(
            model.groups_,
            model.k,
            is_grown=isinstance(model.init, str) and model.init == "grown",
            growth_iterations=model.growth_iterations,
            growth_samples=model.growth_samples,
            max_iter=model.max_iter,
            polish_iter=model.polish_iter,
            batch_size=model.batch_size or choose_batch_size(model.n_atoms, model.k),
            n_samples=len(source),
            iterations_per_batch=model.iterations_per_batch,
        )
        self.ranks = model.ranks
        smallest = min(step.samples for step in self.steps)
        if smallest < self.ranks.size:
            raise ValueError(
                f"ranks: expected at most the {smallest} samples of a batch, got {self.ranks.size}"
            )
        first = read_rows(source, 0, min(len(source), READ_ROWS)) - self.mean
        self.exponent = find_exponent(first)
        self.calibration = (
            Calibration(first.to(model.device), model.implementation_) if model.is_mean else None
        )
        self.preparation_seconds = time.perf_counter() - started
        self.batches = BatchReader(
            *(source, self.mean, self.exponent, self.steps, model.device, self.ranks)
        )

    def run(self) -> None:
        """Do all steps, from the checkpoint on if there is one."""
        with closing(self.batches):
            self._run()

    def _run(self) -> None:
        model = self.model
        state = self.restore()
        saved = time.perf_counter()
        bar = tqdm(self.steps, initial=state.iteration, disable=not model.progress, desc="DB-KSVD")
        with bar:
            while not state.stop_reason:
                started = time.perf_counter()
                row = self.iterate(state)
                state.seconds += self.ranks.ask_first(time.perf_counter() - started)
                row |= {
                    "seconds": state.seconds,
                    "seconds_iteration": time.perf_counter() - started,
                }
                state.log.append(row)
                state.iteration += 1
                state.stop_reason = self.find_stop_reason(state)
                if self.heldout is not None and self.is_measured(state):
                    row["fve_heldout"] = measure_explained(
                        self.make_dictionary(state), self.heldout, model.device, self.ranks
                    )
                bar.update()
                if (model.checkpoint and self.ranks.is_first) and (
                    state.stop_reason or time.perf_counter() - saved >= model.checkpoint_seconds
                ):
                    checkpoints.save_state(model.checkpoint, state, self.identify())
                    saved = time.perf_counter()
        model.log_, model.stop_reason_ = state.log, state.stop_reason
        model.dictionary_ = self.make_dictionary(state)

    def restore(self) -> FitState:
        """Return the state to begin from."""
        model = self.model
        if model.checkpoint:
            state = checkpoints.load_state(model.checkpoint, self.identify(), model.device)
            check_same(state.iteration if state else 0, model.checkpoint, self.ranks)
            if state is not None:
                return state
        started = time.perf_counter()
        width, count = self.source.width, self.steps[0].n_atoms
        generator = derive_generator(model.seed, -1)
        if isinstance(model.init, str) and model.init == "samples":
            samples = self.steps[0].samples
            atoms = draw_sample_atoms(
                self.batches.read(0), count, generator, n_samples=samples, ranks=self.ranks
            )
        else:
            atoms = make_first_atoms(model.init, count, width, generator)
        seconds = self.preparation_seconds + time.perf_counter() - started
        seconds = self.ranks.ask_first(seconds)
        return FitState(atoms.to(model.device), seconds=seconds)

    def identify(self) -> dict[str, Any]:
        """Return what a checkpoint must agree on to be used."""
        model = self.model
        init = model.init if isinstance(model.init, str) else model.init.double().sum().item()
        return {
            "data": fingerprint_source(self.source),
            "settings": [asdict(model.settings), asdict(model.fit_settings)],
            "steps": [asdict(step) for step in self.steps],
            "update": [model.atom_batch, model.power_iterations],
            "hygiene": [model.min_usage, model.max_cosine],
            "stopping": [model.max_seconds, model.tol, model.heldout_every],
            "init": init,
            "seed": model.seed,
            "device": model.device.type,
            "implementation": model.implementation_,
        }

    def iterate(self, state: FitState) -> dict[str, Any]:
        """Do one iteration; return its row of the log."""
        model, step = self.model, self.steps[state.iteration]
        batch = self.batches.read(state.iteration)
        generator = derive_generator(model.seed, state.iteration)
        if len(state.atoms) < step.n_atoms:
            settings = self.choose_settings(state, step)
            state.atoms = self.grow(state.atoms, batch, step, settings, generator)
        settings = self.choose_settings(state, step)
        coded = 0.0

        def update(residual: Tensor, codes: SparseCodes, atoms: Tensor) -> None:
            nonlocal coded
            coded = sum_squares(residual)
            update_atoms_(
                batch,
                codes,
                atoms,
                atom_batch=model.atom_batch or max(1, len(atoms) // step.budget),
                power_iterations=model.power_iterations,
                nonnegative=model.settings.nonnegative,
                seed=int(torch.randint(1 << 31, (1,), generator=generator)),
                residual=residual,
                implementation=model.implementation_,
                ranks=self.ranks,
            )

        codes, residual = encode_groups(
            *(batch, state.atoms, step.groups, settings),
            implementation=model.implementation_,
            update=update,
        )
        usage = self.ranks.sum_(codes.count_usage())
        coded, updated, total, active = self.ranks.sum_numbers(
            coded, sum_squares(residual), sum_squares(batch), float(codes.l0.sum())
        )
        replaced = (0, 0)
        if state.iteration + 1 < len(self.steps):
            replaced = replace_atoms_(
                *(state.atoms, usage, residual),
                min_usage=min(model.min_usage, -(-step.samples * step.budget // step.n_atoms)),
                max_cosine=model.max_cosine,
                nonnegative=model.settings.nonnegative,
                ranks=self.ranks,
            )
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
            "threshold": math.ldexp(settings.threshold, self.exponent),
            "dead_atoms": int((usage == 0).sum()),
            "replaced_unused": replaced[0],
            "replaced_duplicate": replaced[1],
            "error_coded": coded * unit,
            "error_updated": updated * unit,
        }

    def choose_settings(self, state: FitState, step: Step) -> PursuitSettings:
        """Return the pursuit with which `state.atoms` code the next batch."""
        settings = self.model.fit_settings
        if self.calibration is None or not len(state.atoms):
            return settings
        settings = self.calibration.follow(state.log, state.atoms, step.budget, settings)
        return replace(settings, threshold=math.ldexp(settings.threshold, -self.exponent))

    def grow(
        self,
        atoms: Tensor,
        batch: Tensor,
        step: Step,
        settings: PursuitSettings,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the atoms with new ones, found on what they leave of a batch, behind them."""
        model = self.model
        residual = batch
        if len(atoms):
            before = self.steps[self.steps.index(step) - 1].groups
            residual = encode_groups(
                *(batch, atoms, before, settings), implementation=model.implementation_
            )[1]
        new = find_new_atoms(
            residual,
            step.n_atoms - len(atoms),
            nonnegative=settings.nonnegative,
            generator=generator,
            implementation=model.implementation_,
            n_samples=step.samples,
            ranks=self.ranks,
        )
        return torch.cat([atoms, new])

    def find_stop_reason(self, state: FitState) -> str:
        """Return why the fit ends after the iteration just done, or an empty text."""
        model = self.model
        if state.iteration == len(self.steps):
            return "max_iter"
        if self.steps[state.iteration - 1].n_atoms < model.n_atoms:
            return ""
        if model.max_seconds is not None and state.seconds >= model.max_seconds:
            return "max_seconds"
        if model.tol > 0 and len(state.log) > 1:
            before, now = state.log[-2], state.log[-1]
            is_comparable = before["n_atoms"] == now["n_atoms"]
            if is_comparable and now["fve_train"] - before["fve_train"] < model.tol:
                return "converged"
        return ""

    def is_measured(self, state: FitState) -> bool:
        """Return whether held-out samples are measured after the iteration just done."""
        every = self.model.heldout_every
        return bool(state.stop_reason) or (every > 0 and state.iteration % every == 0)

    def make_dictionary(self, state: FitState) -> Dictionary:
        """Return the dictionary of a state, on the CPU."""
        norms = torch.linalg.vector_norm(state.atoms, dim=1, keepdim=True)
        atoms = state.atoms / norms
        settings = self.model.settings
        settings = replace(settings, k=min(settings.k, len(atoms)))
        if self.calibration is not None:
            settings = self.calibration.set_threshold(atoms, self.model.k, settings)
        return Dictionary(atoms.cpu(), self.mean, settings)
