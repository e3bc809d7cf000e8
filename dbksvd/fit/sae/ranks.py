"""SAELens's trainer on several ranks: each works on its share of every batch.

What SAELens computes over a batch is here computed over the batch of all ranks: the gradient and
its norm, which latents fired, the largest latents of a batch (BatchTopK) and the shares of the
experts (Switch). The result is that of one process up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE
from sae_lens.saes.sae import TrainingSAE, TrainStepInput, TrainStepOutput
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor, nn
from typing_extensions import override

from dbksvd.ops.ranks import Ranks

# The norm that SAELens clips gradients to; it is no setting there.
LARGEST_GRADIENT = 1.0
# Bits that each round of `find_kth_largest` settles.
DIGIT = 8


class RankTrainer(SAETrainer[Any, Any]):
    """As SAELens's trainer, with sums over ranks before statistics and weights change.

    Parameters
    ----------
    cfg : SAETrainerConfig
        Its batch size is that of all ranks together; each hands its own rows to :meth:`step`.
    sae : TrainingSAE
        The same weights on every rank.
    ranks : Ranks
        All that train together.
    """

    def __init__(self, cfg: SAETrainerConfig, sae: TrainingSAE[Any], ranks: Ranks) -> None:
        super().__init__(cfg=cfg, sae=sae, data_provider=iter(()))
        self.ranks = ranks
        if hasattr(sae, "ranks"):  # ours
            sae.ranks = ranks
        if isinstance(sae, BatchTopKTrainingSAE):
            sae.activation_fn = RankBatchTopK(sae.cfg.k, ranks)
            _watch_threshold(sae, ranks)

    @override
    def step(self, batch: Tensor) -> TrainStepOutput:
        output = super().step(batch)
        self.n_training_samples += self.cfg.train_batch_size_samples - len(batch)
        return output

    @override
    def _train_step(self, sae: TrainingSAE[Any], sae_in: Tensor) -> TrainStepOutput:
        sae.train()
        with self.autocast_if_enabled:
            output = sae.training_forward_pass(
                TrainStepInput(
                    sae_in=sae_in,
                    coefficients=self.get_coefficients(),
                    dead_neuron_mask=self.dead_neurons,
                    n_training_steps=self.n_training_steps,
                    is_logging_step=False,
                )
            )
        self._count_fired(output.feature_acts.detach())
        # losses are means over rows: each rank's weighs as much as it has rows
        (output.loss * (len(sae_in) / self.cfg.train_batch_size_samples)).backward()
        self._sum_gradients(sae)
        nn.utils.clip_grad_norm_(sae.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for scheduler in (self.lr_scheduler, *self.coefficient_schedulers.values()):
            scheduler.step()
        return output

    def _count_fired(self, latents: Tensor) -> None:
        fired = (latents.coalesce() if latents.is_sparse else latents).bool().float().sum(dim=0)
        fired = self.ranks.sum_(fired.to_dense() if fired.is_sparse else fired)
        self.n_forward_passes_since_fired += 1
        self.n_forward_passes_since_fired[fired > 0] = 0
        self.act_freq_scores += fired
        self.n_frac_active_samples += self.cfg.train_batch_size_samples

    def _sum_gradients(self, sae: TrainingSAE[Any]) -> None:
        weights = [weight for weight in sae.parameters() if weight.requires_grad]
        gradients = [
            torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights
        ]
        total = self.ranks.sum_(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = total.split([weight.numel() for weight in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.grad = part.view_as(weight)


class RankBatchTopK(nn.Module):
    """BatchTopK over the rows of all ranks: the k · n largest latents of n rows stay.

    Of several latents that are exactly the last one, all stay.
    """

    def __init__(self, k: float, ranks: Ranks) -> None:
        super().__init__()
        self.k, self.ranks = k, ranks

    def forward(self, x: Tensor) -> Tensor:
        """Return latents (…, m) at least 0, of which the largest are left."""
        latents = x.relu()
        (rows,) = self.ranks.sum_numbers(latents.shape[:-1].numel())
        limit = find_kth_largest(latents.detach(), int(self.k * rows), self.ranks)
        return torch.where(latents >= limit, latents, 0)


def find_kth_largest(x: Tensor, k: int, ranks: Ranks) -> float:
    """Return the k-th largest positive number of all ranks; 0 where there are fewer.

    Found from the leading bits on, eight at a time: the bit patterns of positive floats are in
    their order. Ranks sum four histograms of 256 counts, however many numbers there are.

    Parameters
    ----------
    x : tensor
        Numbers ≥ 0, float32 or narrower.
    k : int
        From 1.
    ranks : Ranks
        Who has the other numbers.
    """
    bits = x[x > 0].float().view(torch.int32)
    (count,) = ranks.sum_numbers(len(bits))
    if count < k:
        return 0.0
    found = 0
    for shift in range(32 - DIGIT, -1, -DIGIT):
        digits = (bits >> shift) & ((1 << DIGIT) - 1)
        histogram = ranks.sum_(torch.bincount(digits, minlength=1 << DIGIT))
        above = histogram.flip(0).cumsum(0).flip(0)  # numbers whose digit is at least this one
        digit = int((above >= k).sum()) - 1
        k -= int(above[digit] - histogram[digit])
        bits = bits[digits == digit]
        found = found << DIGIT | digit
    return float(torch.tensor(found, dtype=torch.int32).view(torch.float32))


def _watch_threshold(sae: BatchTopKTrainingSAE, ranks: Ranks) -> None:
    """Let the threshold of the inference form follow the smallest latent of all ranks."""
    update = sae.update_topk_threshold

    def update_over_ranks(latents: Tensor) -> None:
        positive = latents.detach()[latents > 0]
        own = float(positive.min()) if len(positive) else float("inf")
        smallest = -ranks.find_largest(-own)
        if smallest < float("inf"):
            update(latents.new_tensor([smallest]))

    sae.update_topk_threshold = update_over_ranks  # type: ignore[method-assign]
