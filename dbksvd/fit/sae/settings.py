"""Settings of SAE training: all defaults in one table. Configs are checked with it: no torch."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from dbksvd.fit.ksvd.schedule import split_groups

# Chosen on 300,000 tokens of all-MiniLM-L6-v2's layer 4 (512 atoms, k = 16). The names besides lr
# and groups are SAELens's. A steered coefficient only starts from its value here. Much wider
# dictionaries train better at a lower lr (Gao et al. 2024: in proportion to 1/√n_atoms).
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "standard": {"lr": 8e-3, "l1_coefficient": 3.0},
    "gated": {"lr": 4e-3, "l1_coefficient": 4.0},
    "jumprelu": {
        "lr": 4e-3,
        "l0_coefficient": 1.0,
        "jumprelu_bandwidth": 0.5,
        "jumprelu_init_threshold": 1.0,
        "jumprelu_sparsity_loss_mode": "step",
        "jumprelu_ste_to_input": True,
        "decoder_init_norm": 1.0,
    },
    "topk": {"lr": 4e-3, "aux_loss_coefficient": 1.0},
    "batchtopk": {"lr": 4e-3, "aux_loss_coefficient": 1.0, "topk_threshold_lr": None},
    "matryoshka_batchtopk": {
        "lr": 4e-3,
        "aux_loss_coefficient": 1.0,
        "topk_threshold_lr": None,
        "groups": None,
    },
    "matching_pursuit": {"lr": 4e-3},
    "switch": {
        "lr": 4e-3,
        "n_experts": 8,
        # The paper's 3 let an expert die in 400 steps on the default data, for one seed of three.
        "load_balance_coefficient": 100.0,
        "aux_loss_coefficient": 1 / 32,
    },
    "kron": {
        "lr": 8e-3,
        "base": 2,
        "extension": 4,
        "combine": "mand",
        "aux_loss_coefficient": 1 / 32,
    },
}
COMMON: dict[str, Any] = {
    "batch_size": 1024,
    "lr_warm_up": 0.05,
    "lr_decay": 0.2,
    "lr_schedule": "constant",
    "autocast": True,
    "max_seconds": None,
    "tol": 0.0,
    "checkpoint_seconds": 60.0,
}
# Without k in the encoder, the sparsity coefficient of this name is steered to reach k.
STEERED = {"standard": "l1", "gated": "l1", "jumprelu": "l0"}
MEASUREMENTS = 12
# Shorter, and latents that are only rare keep the auxiliary loss busy.
DEAD_FRACTION = 5
LONGEST_DEAD_WINDOW = 10_000_000


def complete_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return `settings` with the defaults of their architecture filled in.

    Three defaults follow from ``training_samples``: ``measure_every`` is a twelfth, ``dead_window``
    a fifth of it (at most 10 million, the value of Gao et al. 2024), both in samples; and
    ``topk_threshold_lr`` is 10 / steps (from 0.01, SAELens's, to 0.5), so that the threshold that
    BatchTopK codes with afterwards has left its start at 0 behind in a short training too.

    Raises
    ------
    ValueError
        If the architecture is not one of the table.
    """
    architecture = settings.get("architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture: expected one of {', '.join(ARCHITECTURES)}, got {architecture!r}"
        )
    samples = settings["training_samples"]
    follow = {
        "measure_every": max(1, samples // MEASUREMENTS),
        "dead_window": max(1, min(samples // DEAD_FRACTION, LONGEST_DEAD_WINDOW)),
    }
    complete = {**COMMON, **follow, **ARCHITECTURES[architecture], **settings}
    if complete.get("topk_threshold_lr", 0) is None:
        steps = max(1, samples // complete["batch_size"])
        complete["topk_threshold_lr"] = min(0.5, max(0.01, 10 / steps))
    return complete


def configure_architecture(settings: dict[str, Any], n_atoms: int, k: int) -> dict[str, Any]:
    """Return what SAELens's config class of the architecture is given besides d_in and d_sae.

    Parameters
    ----------
    settings : dict
        Complete settings.
    n_atoms, k : int
        Atoms of the dictionary; non-zeros a sample.

    Raises
    ------
    ValueError
        If a size does not fit the number of atoms, or k does not fit an expert.
    """
    if settings["lr_warm_up"] + settings["lr_decay"] >= 1:
        raise ValueError(
            "lr_decay: expected lr_warm_up + lr_decay below 1, "
            f"got {settings['lr_warm_up']} + {settings['lr_decay']}"
        )
    architecture = settings["architecture"]
    own = {name: settings[name] for name in ARCHITECTURES[architecture] if name != "lr"}
    if architecture == "matryoshka_batchtopk":
        own["matryoshka_widths"] = find_widths(own.pop("groups"), n_atoms)
    if architecture == "matching_pursuit":
        # An atom that is picked again costs an iteration, so a sample has at most k atoms.
        own |= {"max_iterations": k, "stop_on_duplicate_support": False, "decoder_init_norm": 1.0}
    elif architecture not in STEERED:
        own["k"] = k
    if architecture == "switch":
        _check_experts(own["n_experts"], n_atoms, k)
    if architecture == "kron":
        own["n_heads"] = _count_heads(own["base"], own["extension"], n_atoms)
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
