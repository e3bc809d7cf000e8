"""DB-KSVD: dictionaries learned in batches of samples and batches of atoms."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from dbksvd.codes import SparseCodes
from dbksvd.dictionary import Dictionary, PursuitSettings
from dbksvd.fit import checkpoint as checkpoints
from dbksvd.fit.checkpoint import FitState
from dbksvd.fit.groups import encode_groups, encode_in_blocks
from dbksvd.fit.hygiene import replace_atoms_
from dbksvd.fit.initialise import (
    check_warm_start,
    derive_generator,
    draw_random_atoms,
    draw_sample_atoms,
    find_new_atoms,
)
from dbksvd.fit.measure import find_exponent, measure_explained, sum_squares
from dbksvd.fit.schedule import Step, plan_steps, split_groups
from dbksvd.fit.sources import (
    READ_ROWS,
    ActivationSource,
    as_source,
    find_mean,
    fingerprint_source,
    read_cycle,
    read_rows,
)
from dbksvd.ops.atom_update import update_atoms_
from dbksvd.ops.implementation import choose_implementation
from dbksvd.ops.threads import hold_torch_to_one_thread


class DBKSVD:
    """DB-KSVD; K-SVD and approximate K-SVD are choices of its parameters.

    Each iteration codes a batch of samples by pursuit and then improves atoms and coefficients by
    rank-1 updates, in batches of atoms. Exact K-SVD is ``batch_size=None, atom_batch=1,
    power_iterations=10``; approximate K-SVD has ``power_iterations=1``.

    Parameters
    ----------
    n_atoms, k : int
        Atoms of the dictionary and most non-zeros of a sample.
    max_iter : int
        Iterations with all atoms; the growth of ``init="grown"`` comes before and is not counted.
    batch_size : int, optional
        Samples an iteration, consecutive rows, cycling through the data; default all.
    iterations_per_batch : int
        Iterations on one batch before the next is read.
    atom_batch : int
        Atoms updated from the same dictionary; see :func:`dbksvd.ops.atom_update.update_atoms_`.
    power_iterations : int
        Power iterations an atom and update.
    method, nonnegative, refit, rtol
        The pursuit, while fitting and of the result; see :func:`dbksvd.sparse_encode`.
    groups : None, int or sequence of int
        Matryoshka groups: sizes, or the size s of the first group (s, s, 2s, 4s, …). Each group
        has ``ceil(k / groups)`` non-zeros and codes what the earlier ones leave.
    init : {"grown", "samples", "random"} or tensor of shape (n_atoms, d)
        Doubling from few atoms, new ones from a short k-means on the residual; random samples;
        random directions; or a warm start.
    growth_iterations, growth_samples : int
        Iterations at each size below `n_atoms`, and samples an atom in them.
    min_usage, max_cosine : int, float
        Atoms used by fewer samples of a batch, or closer to a more used atom, are replaced.
    max_seconds : float, optional
        Fit time in seconds after which no iteration begins once all atoms are there.
    tol : float
        Ends the fit when an iteration lowers the batch's relative error by less than this.
    heldout_every : int
        Iterations between measurements on held-out samples; 0 measures at the end only.
    checkpoint : path, optional
        Folder for unfinished work; a fit of the same settings and data goes on from it. The
        caller removes it.
    checkpoint_seconds : float
        Least time between two checkpoints, in seconds.
    seed : int
        Of all randomness. On the CPU, same seed, same bytes, on any number of threads.
    device : str
        "auto" is CUDA where there is one.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    progress : bool
        Whether to show a progress bar.

    Attributes
    ----------
    dictionary_ : Dictionary
        Atoms, bias (the mean of the data) and the pursuit, without groups.
    log_ : list of dict
        One row an iteration; errors are sums of squares in the squared unit of the data.
    stop_reason_ : str
        "max_iter", "max_seconds" or "converged".
    implementation_ : str
        The implementation that ran.
    groups_ : tuple of int
        Sizes of the groups.

    Notes
    -----
    Valentin et al., "DB-KSVD" (arXiv 2505.18441). Defaults and what they were measured against:
    ``dbksvd/ops/atom_update/README.md``.
    """

    def __init__(
        self,
        n_atoms: int,
        k: int,
        *,
        max_iter: int = 6,
        batch_size: int | None = None,
        iterations_per_batch: int = 1,
        atom_batch: int = 64,
        power_iterations: int = 3,
        method: Literal["mp", "omp"] = "mp",
        nonnegative: bool = False,
        refit: bool = True,
        rtol: float = 0.0,
        groups: int | Sequence[int] | None = None,
        init: str | Tensor = "grown",
        growth_iterations: int = 2,
        growth_samples: int = 64,
        min_usage: int = 3,
        max_cosine: float = 0.99,
        max_seconds: float | None = None,
        tol: float = 0.0,
        heldout_every: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 60.0,
        seed: int = 0,
        device: str | torch.device = "auto",
        implementation: str = "auto",
        progress: bool = False,
    ) -> None:
        counts = {
            "n_atoms": n_atoms,
            "k": k,
            "max_iter": max_iter,
            "iterations_per_batch": iterations_per_batch,
            "atom_batch": atom_batch,
            "power_iterations": power_iterations,
            "growth_iterations": growth_iterations,
            "growth_samples": growth_samples,
            "batch_size": 1 if batch_size is None else batch_size,
        }
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value!r}")
        if k > n_atoms:
            raise ValueError(f"k: expected at most n_atoms={n_atoms}, got {k}")
        if isinstance(init, str) and init not in ("grown", "samples", "random"):
            raise ValueError(f"init: expected grown, samples, random or atoms, got {init!r}")
        self.groups_ = split_groups(n_atoms, groups)
        self.settings = PursuitSettings(k, method, nonnegative, refit, rtol)
        self.n_atoms, self.k, self.max_iter, self.batch_size = n_atoms, k, max_iter, batch_size
        self.iterations_per_batch, self.atom_batch = iterations_per_batch, atom_batch
        self.power_iterations, self.init, self.seed = power_iterations, init, seed
        self.growth_iterations, self.growth_samples = growth_iterations, growth_samples
        self.min_usage, self.max_cosine = min_usage, max_cosine
        self.max_seconds, self.tol, self.heldout_every = max_seconds, tol, heldout_every
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.checkpoint_seconds, self.progress = checkpoint_seconds, progress
        self.implementation = implementation
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.implementation_ = choose_implementation(
            "dbksvd.ops.pursuit", implementation, self.device
        )
        self.dictionary_: Dictionary
        self.log_: list[dict[str, Any]] = []
        self.stop_reason_ = ""

    def fit(self, x: Any, heldout: Any = None) -> DBKSVD:
        """Learn a dictionary.

        Parameters
        ----------
        x : tensor or array of shape (n, d), or ActivationSource
            Samples in random order. Memory is bounded by the batch, never by n.
        heldout : the same, optional
            Samples to measure on; the time this takes is not counted.

        Returns
        -------
        DBKSVD
            Itself.

        Raises
        ------
        ValueError
            If the data are not as described; the message names the argument.
        """
        is_cpu = self.device.type == "cpu"
        with hold_torch_to_one_thread() if is_cpu else nullcontext():
            _Fit(self, as_source(x), None if heldout is None else as_source(heldout, "heldout")).run()
        return self

    def transform(self, x: Any, *, grouped: bool = False) -> SparseCodes:
        """Return codes of `x` on the CPU: flat as ``dictionary_.encode``, or group by group."""
        source = as_source(x)
        dictionary = self.dictionary_.to(self.device)
        budget = replace(self.settings, k=-(-self.k // len(self.groups_)))

        def encode(rows: Tensor) -> SparseCodes:
            rows = rows.to(self.device)
            if not grouped:
                return dictionary.encode(rows, implementation=self.implementation)
            return encode_groups(
                *(rows - dictionary.bias, dictionary.atoms, self.groups_, budget),
                implementation=self.implementation,
            )[0]

        n = len(source)
        starts = range(0, n, READ_ROWS)
        return encode_in_blocks((read_rows(source, i, min(n, i + READ_ROWS)) for i in starts), encode)


class _Fit:
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
            batch_size=min(model.batch_size or len(source), len(source)),
            iterations_per_batch=model.iterations_per_batch,
        )
        first = read_rows(source, 0, min(len(source), READ_ROWS)) - self.mean
        self.exponent = find_exponent(first)
        self.preparation_seconds = time.perf_counter() - started
        self.cached: tuple[Step | None, Tensor] = (None, first)

    def run(self) -> None:
        """Do all steps, from the checkpoint on if there is one."""
        model = self.model
        state = self.restore()
        saved = time.perf_counter()
        bar = tqdm(
            self.steps, initial=state.iteration, disable=not model.progress, desc="DB-KSVD"
        )
        with bar:
            while not state.stop_reason:
                started = time.perf_counter()
                row = self.iterate(state)
                state.seconds += time.perf_counter() - started
                row |= {
                    "seconds": state.seconds,
                    "seconds_iteration": time.perf_counter() - started,
                }
                state.log.append(row)
                state.iteration += 1
                state.stop_reason = self.find_stop_reason(state)
                if self.is_measured(state):
                    row["fve_heldout"] = self.measure_heldout(state)
                bar.update()
                if model.checkpoint and (
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
            if state is not None:
                return state
        started = time.perf_counter()
        width, count = self.source.width, self.steps[0].n_atoms
        generator = derive_generator(model.seed, -1)
        if isinstance(model.init, Tensor):
            atoms = check_warm_start(model.init, count, width)
        elif model.init == "random":
            atoms = draw_random_atoms(count, width, generator)
        elif model.init == "samples":
            atoms = draw_sample_atoms(self.read(self.steps[0]), count, generator)
        else:
            atoms = torch.empty(0, width)
        seconds = self.preparation_seconds + time.perf_counter() - started
        return FitState(atoms.to(model.device), seconds=seconds)

    def identify(self) -> dict[str, Any]:
        """Return what a checkpoint must agree on to be used."""
        model = self.model
        init = model.init if isinstance(model.init, str) else model.init.double().sum().item()
        return {
            "data": fingerprint_source(self.source),
            "settings": asdict(model.settings),
            "steps": [asdict(step) for step in self.steps],
            "update": [model.atom_batch, model.power_iterations],
            "hygiene": [model.min_usage, model.max_cosine],
            "stopping": [model.max_seconds, model.tol, model.heldout_every],
            "init": init,
            "seed": model.seed,
            "device": model.device.type,
            "implementation": model.implementation_,
        }

    def read(self, step: Step) -> Tensor:
        """Return the batch of a step on the device: centred, and scaled by a power of two."""
        known, batch = self.cached
        if known is None or (known.position, known.samples) != (step.position, step.samples):
            rows = read_cycle(self.source, step.position, step.samples)
            batch = torch.ldexp(rows - self.mean, torch.tensor(-self.exponent))
            batch = batch.to(self.model.device)
            self.cached = (step, batch)
        return batch

    def iterate(self, state: FitState) -> dict[str, Any]:
        """Do one iteration; return its row of the log."""
        model, step = self.model, self.steps[state.iteration]
        batch = self.read(step)
        generator = derive_generator(model.seed, state.iteration)
        settings = replace(model.settings, k=step.budget)
        if len(state.atoms) < step.n_atoms:
            state.atoms = self.grow(state.atoms, batch, step, settings, generator)
        coded = 0.0

        def update(residual: Tensor, codes: SparseCodes, atoms: Tensor) -> None:
            nonlocal coded
            coded = sum_squares(residual)
            update_atoms_(
                batch,
                codes,
                atoms,
                atom_batch=model.atom_batch,
                power_iterations=model.power_iterations,
                nonnegative=model.settings.nonnegative,
                seed=int(torch.randint(1 << 31, (1,), generator=generator)),
                residual=residual,
                implementation=model.implementation_,
            )

        codes, residual = encode_groups(
            *(batch, state.atoms, step.groups, settings),
            implementation=model.implementation_,
            update=update,
        )
        usage = codes.count_usage()
        updated, total = sum_squares(residual), sum_squares(batch)
        replaced = (0, 0)
        if state.iteration + 1 < len(self.steps):
            replaced = replace_atoms_(
                *(state.atoms, usage, residual),
                min_usage=min(model.min_usage, -(-len(batch) * step.budget // step.n_atoms)),
                max_cosine=model.max_cosine,
                nonnegative=model.settings.nonnegative,
            )
        unit = 4.0**self.exponent
        seen = state.log[-1]["samples_seen"] if state.log else 0
        return {
            "iteration": state.iteration + 1,
            "stage": step.stage,
            "n_atoms": step.n_atoms,
            "samples_seen": seen + len(batch),
            "fve_train": 1 - updated / total if total else 1.0,
            "fve_heldout": None,
            "l0": float(codes.l0.double().mean()),
            "dead_atoms": int((usage == 0).sum()),
            "replaced_unused": replaced[0],
            "replaced_duplicate": replaced[1],
            "error_coded": coded * unit,
            "error_updated": updated * unit,
        }

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
        is_due = bool(every) and state.iteration % every == 0
        return self.heldout is not None and (is_due or bool(state.stop_reason))

    def measure_heldout(self, state: FitState) -> float:
        """Return the held-out fraction of variance explained, coded without groups."""
        assert self.heldout is not None
        dictionary = self.make_dictionary(state)
        return measure_explained(dictionary, self.heldout, self.model.device)

    def make_dictionary(self, state: FitState) -> Dictionary:
        """Return the dictionary of a state, on the CPU."""
        norms = torch.linalg.vector_norm(state.atoms, dim=1, keepdim=True)
        settings = replace(self.model.settings, k=min(self.model.k, len(state.atoms)))
        return Dictionary((state.atoms / norms).cpu(), self.mean, settings)
