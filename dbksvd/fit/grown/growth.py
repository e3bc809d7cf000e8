"""Growth: rounds in which atoms join, until there are enough."""

from __future__ import annotations

import time

import torch
from tqdm import tqdm

from dbksvd.base.shapes import Activations
from dbksvd.fit.grown.candidates import find_general_atoms
from dbksvd.fit.grown.checkpoint import identify_growth, restore_growth_, save_growth
from dbksvd.fit.grown.iteration import iterate_held_
from dbksvd.fit.grown.plan import count_joining, count_round_rows
from dbksvd.fit.grown.settings import GrownSettings
from dbksvd.fit.grown.state import GrowthState, encode, move_bias_, read_samples_
from dbksvd.fit.ksvd.initialise import derive_generator
from dbksvd.fit.task import FitTask
from dbksvd.ops.atom_update.update import compute_residual


def grow_(state: GrowthState, task: FitTask, settings: GrownSettings) -> None:
    """Let atoms join until there are ``task.n_atoms``, going on from a checkpoint if there is one.

    Raises
    ------
    ValueError
        If samples are explained by fewer atoms.
    """
    identity = identify_growth(task, settings)
    restore_growth_(state, task.checkpoint, identity)
    saved = time.perf_counter()
    bar = tqdm(total=task.n_atoms, initial=len(state.atoms), desc="growth", unit="atom")
    while len(state.atoms) < task.n_atoms:
        held = len(state.atoms)
        join_(state, task, settings)
        for _ in range(settings.round_iterations):
            x = read_round_(state, task, settings)
            iterate_held_(state, x, task.seed, held=slice(held), damping=settings.damping)
        bar.update(len(state.atoms) - held)
        if time.perf_counter() - saved >= settings.checkpoint_seconds:
            save_growth(state, task.checkpoint, identity)
            saved = time.perf_counter()
    bar.close()


def join_(state: GrowthState, task: FitTask, settings: GrownSettings) -> None:
    """Let new atoms join, found in the residual of a round's samples."""
    generator = derive_generator(task.seed, len(state.log))
    x = read_round_(state, task, settings)
    is_first = not len(state.atoms)
    residual = x if is_first else compute_residual(x, encode(state, x), state.atoms)
    residual = residual - move_bias_(state, residual)
    most = count_joining(len(state.atoms), task.n_atoms, settings.growth)
    new = find_general_atoms(residual, most, state.threshold, settings.starts, generator)
    if not len(new):
        raise ValueError(
            f"n_atoms: expected at most {len(state.atoms)}, which explain all samples of a "
            f"round, got {task.n_atoms}"
        )
    state.atoms = torch.cat([state.atoms, new])


def read_round_(state: GrowthState, task: FitTask, settings: GrownSettings) -> Activations:
    """Return the centred samples of one step of a round."""
    return read_samples_(state, task, count_round_rows(len(state.atoms), settings.samples_per_atom))
