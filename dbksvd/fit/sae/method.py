"""Sparse autoencoders, trained with SAELens's own classes on the same shards as everyone else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbksvd.base.work import FLOAT, Work
from dbksvd.dictionaries.encoder_flops import count_encoder_flops
from dbksvd.fit.method import FitSizes, Method
from dbksvd.fit.sae.configure import complete_settings, configure_architecture
from dbksvd.fit.sae.settings import SAESettings, TrainingSettings

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask


def fit(task: FitTask) -> FitResult:
    """Train an SAE of any architecture of :data:`dbksvd.fit.sae.settings.SAESettings`.

    While training, the mean of the samples is subtracted from the input (``centre``), which is then
    scaled to unit expected norm per coordinate, as SAELens does; mean, scale and decoder norms are
    folded into the weights afterwards, so that the dictionary has unit atoms and speaks in units of
    the activations. The decoder bias starts at the data mean, or where the architecture itself puts
    it. Architectures without k reach an L0 of k by steering
    their sparsity coefficient (:class:`dbksvd.fit.sae.sparsity.SparsityController`).

    An unfinished training goes on from the checkpoint; on the CPU it ends with the same bytes as
    one that was not interrupted. The learning rate follows the samples, so a training that ends
    early by max_seconds or tol ends before its decay.

    Parameters
    ----------
    task : FitTask
        ``settings``: those of one architecture.

    Returns
    -------
    FitResult
        Held-out variance explained, L0 and the loss are logged while training, the first two for
        the inference form on the first 4,096 held-out samples, outside the seconds. The seal
        states the L0 reached, the coefficient it took, the precision and all settings.

    With ``decoder`` or ``encoder`` not free it is a control
    (:class:`dbksvd.fit.sae.restraint.Restraint`).

    Raises
    ------
    ValueError
        If a setting does not fit the sizes, or the loss is not finite.

    References
    ----------
    Gao et al. (2024), "Scaling and evaluating sparse autoencoders", for TopK; Zhu et al. (2026),
    "AbsTopK: rethinking sparse autoencoders for bidirectional features"; Rajamanoharan et al.
    (2024) for gated and JumpReLU; Bussmann et al. (2024, 2025) for BatchTopK and Matryoshka; Costa
    et al. (2025), "From flat to hierarchical", for matching pursuit; SAELens for the code.
    """
    from dbksvd.fit.sae.train import train

    return train(task)


def count_training(settings: TrainingSettings, sizes: FitSizes) -> Work:
    """Return the work of a training: a step is three times its forward pass.

    The gradients are twice a forward pass. Memory holds weights, gradients and Adam's two moments,
    and the latents of a batch with their gradients.
    """
    chosen = complete_settings(settings, sizes.n_atoms, sizes.k, sizes.n_train)
    samples, every = chosen.training_samples, chosen.measure_every
    assert samples is not None  # they are complete
    assert every is not None
    encoder = count_coding(settings, sizes).products
    read = sizes.k if chosen.architecture == "switch" else sizes.n_atoms
    decoder = 2.0 * sizes.width * read
    if chosen.architecture == "matryoshka_batchtopk":
        decoder *= 2  # nested: groups that double are read twice as often on average
    measured = sizes.n_heldout * (1 + samples // every)
    forward = encoder + decoder
    weights = 2.0 * sizes.n_atoms * sizes.width
    held = 4 * weights + 3.0 * chosen.batch_size * sizes.n_atoms
    return Work(
        products=(3 * samples + measured) * forward,
        memory=held * FLOAT,
        disk=weights * FLOAT,
    )


def count_coding(settings: TrainingSettings, sizes: FitSizes) -> Work:
    """Return the work of encoding one sample."""
    config: dict[str, Any] = {
        "architecture": settings.architecture,
        "d_in": sizes.width,
        "d_sae": sizes.n_atoms,
        **configure_architecture(settings, sizes.n_atoms, sizes.k),
    }
    return Work(products=count_encoder_flops(config))


def _check_sizes(settings: TrainingSettings, n_atoms: int, k: int) -> None:
    configure_architecture(settings, n_atoms, k)


def _list_sources(settings: TrainingSettings) -> tuple[str, ...]:
    return () if settings.source is None else (settings.source,)


def _label(settings: TrainingSettings) -> str:
    """Return the architecture's label, and what is kept from learning."""
    held = [
        f", {getattr(settings, side).replace('_', '-')} {side}"
        for side in ("decoder", "encoder")
        if getattr(settings, side) != "free"
    ]
    return settings.label + "".join(held)


def _find_unused(settings: Any) -> dict[str, str]:
    """Return the decay, where the learning rate falls all the way."""
    return {"lr_decay": "lr_schedule: constant"} if settings.lr_schedule == "cosine" else {}


METHOD = Method(
    settings=SAESettings,
    fit=fit,
    plan=count_training,
    coding=count_coding,
    label=_label,
    stage="train SAEs",
    is_control=lambda settings: settings.is_restrained,
    is_floor=True,
    is_data_parallel=True,
    check_sizes=_check_sizes,
    takes_pairs=lambda settings: settings.takes_pairs,
    list_sources=_list_sources,
    find_unused=_find_unused,
)
