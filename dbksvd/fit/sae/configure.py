"""What an SAE is trained with at given sizes, from its settings. Needs no torch."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, TypeVar

from dbksvd.fit.ksvd.schedule import count_samples, split_groups
from dbksvd.fit.sae.settings import (
    KronSettings,
    LlamaScopeSettings,
    MatchingPursuitSettings,
    MatryoshkaSettings,
    SwitchSettings,
    TrainingSettings,
)

MEASUREMENTS = 12
# Shorter, and latents that are only rare keep the auxiliary loss busy.
DEAD_FRACTION = 5
LONGEST_DEAD_WINDOW = 10_000_000
# Rate of BatchTopK's threshold: this number over the steps, within bounds (`topk_threshold_lr`).
THRESHOLD_STEPS = 10
SMALLEST_THRESHOLD_LR, LARGEST_THRESHOLD_LR = 0.01, 0.5

Chosen = TypeVar("Chosen", bound=TrainingSettings)


def complete_settings(settings: Chosen, n_atoms: int, k: int, n_train: int) -> Chosen:
    """Return `settings` with every value that follows from others; descriptions say the rules.

    ``groups`` stays as it is: :func:`find_widths` reads it.

    Parameters
    ----------
    settings : TrainingSettings
        As in the config.
    n_atoms, k : int
        Atoms of the dictionary; non-zeros a sample.
    n_train : int
        Samples to learn from.
    """
    samples = settings.training_samples or count_samples(n_atoms, k, n_train)
    steps = max(1, samples // settings.batch_size)
    threshold_lr = max(SMALLEST_THRESHOLD_LR, THRESHOLD_STEPS / steps)
    follow = {
        "training_samples": samples,
        "measure_every": max(1, samples // MEASUREMENTS),
        "dead_window": max(1, min(samples // DEAD_FRACTION, LONGEST_DEAD_WINDOW)),
        "topk_threshold_lr": min(LARGEST_THRESHOLD_LR, threshold_lr),
    }
    told = settings.dump()
    open_ = {name: value for name, value in follow.items() if name in told and told[name] is None}
    return settings.model_copy(update=open_)


def describe_settings(settings: TrainingSettings) -> dict[str, Any]:
    """Return what a seal and a checkpoint say: all but the device, which they state themselves."""
    return {name: value for name, value in settings.dump().items() if name != "device"}


def configure_architecture(settings: TrainingSettings, n_atoms: int, k: int) -> dict[str, Any]:
    """Return what SAELens's config class of the architecture is given besides d_in and d_sae.

    Parameters
    ----------
    settings : TrainingSettings
        Complete settings; for the checks alone, any.
    n_atoms, k : int
        Atoms of the dictionary; non-zeros a sample.

    Raises
    ------
    ValueError
        If a size does not fit the number of atoms, or k does not fit an expert.
    """
    common = TrainingSettings.model_fields
    own = {name: value for name, value in settings.dump().items() if name not in common}
    if isinstance(settings, MatryoshkaSettings):
        own["matryoshka_widths"] = find_widths(settings.groups, n_atoms)
        del own["groups"]
    if isinstance(settings, MatchingPursuitSettings):
        # An atom that is picked again costs an iteration, so a sample has at most k atoms.
        own |= {"max_iterations": k, "stop_on_duplicate_support": False, "decoder_init_norm": 1.0}
    elif settings.steered is None:
        own["k"] = k
    if settings.decoder != "free":
        own.setdefault("decoder_init_norm", 1.0)  # a frozen norm is never learned
    if isinstance(settings, SwitchSettings):
        _check_experts(settings.n_experts, n_atoms, k)
    if isinstance(settings, LlamaScopeSettings):
        steps = max(1, (settings.training_samples or 0) // settings.batch_size)
        own |= {"k_anneal_steps": round(own.pop("k_anneal") * steps)}
        own["decoder_init_norm"] = settings.largest_norm
    if isinstance(settings, KronSettings):
        own["n_heads"] = _count_heads(settings.base, settings.extension, n_atoms)
    return own


def find_widths(groups: int | list[int] | None, n_atoms: int) -> list[int]:
    """Return the nested widths of a Matryoshka SAE: running sums of DB-KSVD's group sizes.

    The first group is an eighth of the atoms where `groups` is None.
    """
    sizes = split_groups(n_atoms, max(1, n_atoms // 8) if groups is None else groups)
    if len(sizes) < 2:
        raise ValueError(f"groups: expected at least two groups of {n_atoms} atoms, got one")
    return list(accumulate(sizes))


def _check_experts(n_experts: int, n_atoms: int, k: int) -> None:
    if n_atoms % n_experts:
        raise ValueError(f"n_experts: expected a divisor of n_atoms = {n_atoms}, got {n_experts}")
    if k > n_atoms // n_experts:
        raise ValueError(
            f"k: expected at most the {n_atoms // n_experts} atoms of an expert "
            f"(n_atoms = {n_atoms}, n_experts = {n_experts}), got {k}"
        )


def _count_heads(base: int, extension: int, n_atoms: int) -> int:
    if n_atoms % (base * extension):
        raise ValueError(
            f"base: expected base x extension to divide n_atoms = {n_atoms}, "
            f"got {base} x {extension}"
        )
    return n_atoms // (base * extension)
