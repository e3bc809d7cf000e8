"""Transcoders as dictionaries: atoms of a target, chosen by an input at another place."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from dbksvd.base.codes import SparseCodes
from dbksvd.dictionaries.sae_dictionary import SAEDictionary

# Architectures of SAELens. Those with a skip add a linear map of the input, which are no atoms.
TRANSCODERS = ("transcoder", "jumprelu_transcoder")


class Transcoder(SAEDictionary):
    """A SAELens transcoder: ``encode`` takes inputs (n, d_in), ``decode`` gives targets (n, d_out).

    Atoms and bias are those of the target.
    """

    @property
    def input_width(self) -> int:
        """Width d_in of what is encoded."""
        return int(self.sae.W_enc.shape[0])

    @override
    @torch.no_grad()
    def encode(self, x: Tensor | np.ndarray[Any, Any]) -> SparseCodes:
        """Return the codes of inputs (n, d_in).

        Raises
        ------
        ValueError
            If `x` is no floating matrix of that width.
        """
        return self.encode_as(x, self.sae.W_enc.T)

    def split_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs (n, d_in) and targets (n, d_out) of rows that hold both side by side."""
        return rows[:, : self.input_width], rows[:, self.input_width :]
