"""The end of a fit: polishing and cleaning, both with penalties, and the finished dictionary."""

from __future__ import annotations

import torch

from dbksvd.base.shapes import Activations
from dbksvd.dictionaries.dictionary import Dictionary, encode_with
from dbksvd.fit.grown.cleaning import clean_atoms_
from dbksvd.fit.grown.coactive import share_atoms_
from dbksvd.fit.grown.iteration import iterate_
from dbksvd.fit.grown.penalties import find_usage, set_penalties
from dbksvd.fit.grown.plan import (
    CONFIRMATIONS,
    FEWEST_ROWS,
    MOST_ROWS,
    count_cleaning_rows,
    count_polish_rows,
)
from dbksvd.fit.grown.settings import GrownSettings
from dbksvd.fit.grown.state import (
    GrowthState,
    encode,
    make_plain_pursuit,
    move_bias_,
    read_samples_,
)
from dbksvd.fit.task import FitTask
from dbksvd.ops.atom_update.update import compute_residual


def polish_(state: GrowthState, task: FitTask, settings: GrownSettings) -> None:
    """Iterate on many samples that are coded with penalties."""
    for _ in range(settings.polish_iter):
        x = read_samples_(state, task, count_polish_rows(len(state.atoms)))
        penalise_(state, x, task.k)
        state.usage = find_usage(iterate_(state, x, task.seed))


def clean_(state: GrowthState, task: FitTask, settings: GrownSettings) -> None:
    """Set co-active atoms again from the fraction ``settings.cleaning`` of their samples."""
    x = read_samples_(state, task, count_cleaning_rows(len(state.atoms)))
    penalise_(state, x, task.k)
    codes = encode(state, x)
    move_bias_(state, compute_residual(x, codes, state.atoms))
    clean_atoms_(x, codes, state.atoms, settings.cleaning, state.is_coactive)


def finish_(state: GrowthState, task: FitTask, settings: GrownSettings) -> None:
    """Give each atom a share of its co-active atoms; set penalties and bias for the last time."""
    x = read_samples_(state, task, MOST_ROWS)
    if settings.coactive_share:
        codes = encode_with(x, state.atoms, make_plain_pursuit(state))
        share_atoms_(state.atoms, codes, settings.coactive_share)
    penalise_(state, x, task.k)
    move_bias_(state, compute_residual(x, encode(state, x), state.atoms))


def make_dictionary(state: GrowthState, task: FitTask) -> Dictionary:
    """Return the dictionary of a finished state, on the CPU; the log ends with its time."""
    state.log[-1]["seconds"] = state.seconds
    atoms = state.atoms / torch.linalg.vector_norm(state.atoms, dim=1, keepdim=True)
    return Dictionary(atoms.cpu(), state.bias.cpu(), state.pursuit, dict(task.metadata))


def penalise_(state: GrowthState, x: Activations, k: int) -> None:
    """Set the penalties of the pursuit so that centred samples have k non-zeros on average.

    Usage is that of the last iteration, or that of a pursuit without penalties before there is
    one. Penalties change which atoms are used, so that both are computed in turn.
    """
    usage = state.usage
    if usage is None:
        state.pursuit = make_plain_pursuit(state)
        usage = find_usage(encode(state, x[:FEWEST_ROWS]))
    for _ in range(CONFIRMATIONS):
        state.pursuit = set_penalties(x, state.atoms, usage, k, state.pursuit)
        usage = find_usage(encode(state, x[:FEWEST_ROWS]))
    state.pursuit = set_penalties(x, state.atoms, usage, k, state.pursuit)
