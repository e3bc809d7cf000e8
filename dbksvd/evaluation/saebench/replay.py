"""Recorded activations, replayed to SAEBench in the place of the model and its activation store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dbksvd.evaluation.saebench.losses import RecordedLosses, list_hooks, record_losses
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.shims.norm_limit import find_over
from dbksvd.models.loading import LoadedModel

RECORD_FILE = "record.safetensors"


def write_record(
    model: SAEBenchModel, tokens: Tensor, site: EvalSite, folder: Path, *, losses: bool = False
) -> None:
    """Write tokens, their activations (b, t, d) and which positions are text.

    Parameters
    ----------
    model : SAEBenchModel
        What computes the activations.
    tokens : integer tensor of shape (b, t)
        Rows of tokens.
    site : EvalSite
        Where in the model.
    folder : path
        Where `RECORD_FILE` goes.
    losses : bool
        Whether the losses of the model as it is and with the site zeroed are written too, and what
        the logits are made of (:mod:`dbksvd.evaluation.saebench.losses`).
    """
    names = list_hooks(model, site) if losses else [site.hook]
    _, cache = model.run_with_cache(tokens, names_filter=names)
    record = {
        "ids": tokens.cpu(),
        "text": model.mask_text(tokens).cpu(),
        "activations": cache[site.hook].cpu(),
    }
    if losses:
        record |= record_losses(model, site, tokens, cache)
    save_file(record, folder / RECORD_FILE)


def read_record(
    folder: Path, device: str = "cpu", norm_limit: float | None = None
) -> dict[str, Tensor]:
    """Return what :func:`write_record` wrote: ids, text (bool) and activations.

    Positions over the norm limit are no text: like special tokens, they are scored by no eval.
    """
    record = load_file(folder / RECORD_FILE, device=device)
    record["text"] &= ~find_over(record["activations"], norm_limit)
    return record


class ReplayModel:
    """Replays recorded activations as the model and the activation store of SAEBench's core.

    Parameters
    ----------
    record : dict of tensors
        From :func:`read_record`.
    model : SAEBenchModel, optional
        The causal model itself, for CE loss and KL with the dictionary inside.
    site : EvalSite, optional
        What was recorded; for the same.
    """

    IGNORED = -1

    def __init__(
        self,
        record: dict[str, Tensor],
        model: SAEBenchModel | None = None,
        site: EvalSite | None = None,
    ) -> None:
        self.ids, self.activations = record["ids"], record["activations"]
        self._losses = None
        if model is not None and site is not None:
            self._losses = RecordedLosses(model, site, record)
        # bos, eos, pad and sinks are hidden behind one id, which SAEBench is told to ignore.
        self.tokens = self.ids.masked_fill(~record["text"], self.IGNORED)
        self.context_size = self.tokens.shape[1]
        self._rows = slice(0, 0)
        self.is_replaying = False  # whether the last batch was asked for by run_with_cache

    def get_batch_tokens(self, batch_size: int) -> Tensor:
        """Return the next `batch_size` prompts' tokens."""
        self._rows = slice(self._rows.stop, self._rows.stop + batch_size)
        self.is_replaying = False
        return self.tokens[self._rows]

    def reset_input_dataset(self) -> None:
        """Go back to the first prompt."""
        self._rows = slice(0, 0)

    def run_with_cache(
        self, _tokens: Tensor, *, names_filter: Sequence[str], **_kwargs: Any
    ) -> tuple[None, dict[str, Tensor]]:
        """Return the activations (batch, t, d) of the last batch of tokens."""
        self.is_replaying = True
        return None, dict.fromkeys(names_filter, self.activations[self._rows])

    def read_scored(self) -> tuple[Tensor, Tensor]:
        """Return the last batch's activations (b, t, d) and which positions are scored (b, t)."""
        return self.activations[self._rows], self.tokens[self._rows] != self.IGNORED

    def measure_losses(self, sae: Any) -> dict[str, Tensor]:
        """Return the losses of the last batch with a dictionary inside, and the recorded ones.

        As SAEBench's ``get_recons_loss``: CE losses (b, t - 1) and KL (b, t) by metric. Positions
        that are not scored keep their activations.

        Raises
        ------
        ValueError
            If there is no causal model, or no losses were recorded.
        """
        if self._losses is None:
            raise ValueError("model: CE loss needs a causal model, only activations are recorded")
        activations, scored = self.read_scored()
        decoded = sae.decode(sae.encode(activations)).to(activations.dtype)
        spliced = torch.where(scored[..., None], decoded, activations)
        return self._losses.measure(self._rows, spliced)


class ReplayTextModel(SAEBenchModel):
    """The model, with the activations of recorded rows of tokens replayed instead of computed.

    Parameters
    ----------
    loaded : LoadedModel
        The model itself.
    name : str
        Name that SAEBench files results under.
    record : dict of tensors
        From :func:`read_record`.
    """

    def __init__(self, loaded: LoadedModel, name: str, record: dict[str, Tensor]) -> None:
        super().__init__(loaded, name)
        self._activations = record["activations"]
        self._places = {tuple(row): place for place, row in enumerate(record["ids"].tolist())}

    def run_with_cache(
        self, tokens: Tensor | Sequence[str], *, names_filter: str | Sequence[str], **_kwargs: Any
    ) -> tuple[None, dict[str, Tensor]]:
        """Return the recorded activations (b, t, d) of recorded rows."""
        if not isinstance(tokens, Tensor):
            raise ValueError("tokens: expected recorded rows of token ids, got text")
        places = [self._places[tuple(row)] for row in tokens.tolist()]
        names = [names_filter] if isinstance(names_filter, str) else names_filter
        return None, dict.fromkeys(names, self._activations[places])


class ReplayStore:
    """Replays recorded activations as SAELens's activation store: text tokens only, in order.

    Parameters
    ----------
    record : dict of tensors
        From :func:`read_record`.
    batch_size : int
        Tokens of a batch; the record is started anew where it ends.
    """

    def __init__(self, record: dict[str, Tensor], batch_size: int) -> None:
        self.rows = record["activations"][record["text"]]
        self.batch_size = batch_size
        self._start = 0

    def get_filtered_llm_batch(self) -> Tensor:
        """Return the next batch of activations (batch_size, d)."""
        places = torch.arange(self._start, self._start + self.batch_size) % len(self.rows)
        self._start += self.batch_size
        return self.rows[places.to(self.rows.device)]
