"""The codes that made the held-out samples, kept sparse for scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dbksvd.base.files import check_hash, hash_file, read_seal, replace_file, write_json


@dataclass(frozen=True)
class Truth:
    """Codes of n samples over known features, as compressed rows.

    Parameters
    ----------
    starts : int64 tensor of shape (n + 1,)
        Row i holds the entries ``starts[i] … starts[i + 1] − 1``.
    indices : int32 tensor of shape (entries,)
        Feature of each entry.
    values : float32 tensor of shape (entries,)
        Its activation, > 0.
    component : int64 tensor of shape (n,), or None
        Part of the mixture that made each sample.
    """

    starts: Tensor
    indices: Tensor
    values: Tensor
    component: Tensor | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def from_dense(cls, codes: Tensor, component: Tensor | None = None) -> Truth:
        """Return the truth of dense codes (n, n_features)."""
        rows, columns = codes.nonzero(as_tuple=True)
        counts = torch.bincount(rows, minlength=len(codes))
        starts = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        return cls(starts, columns.int(), codes[rows, columns], component)

    def read_dense(self, start: int, stop: int, n_features: int) -> Tensor:
        """Return the codes of rows `start` to `stop` as float32 (stop − start, n_features)."""
        starts = self.starts[start : stop + 1]
        low, high = int(starts[0]), int(starts[-1])
        rows = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())
        codes = torch.zeros(len(starts) - 1, n_features)
        codes[rows, self.indices[low:high].long()] = self.values[low:high]
        return codes


def join_truths(truths: Sequence[Truth]) -> Truth:
    """Return the truth of all samples, one slice after the other."""
    counts = torch.cat([truth.starts.diff() for truth in truths])
    components = [truth.component for truth in truths if truth.component is not None]
    return Truth(
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        torch.cat([truth.indices for truth in truths]),
        torch.cat([truth.values for truth in truths]),
        torch.cat(components) if components else None,
    )


def save_truth(truth: Truth, path: str | Path) -> None:
    """Write a truth as safetensors, with a seal (JSON beside it) that holds its hash."""
    path = Path(path)
    tensors = {"starts": truth.starts, "indices": truth.indices, "values": truth.values}
    if truth.component is not None:
        tensors["component"] = truth.component
    with replace_file(path) as temporary:
        save_file(tensors, temporary)
    seal = {"file": path.name, "sha256": hash_file(path), "rows": len(truth)}
    write_json(path.with_suffix(".json"), seal)


def load_truth(paths: Sequence[str | Path]) -> Truth:
    """Read the truth of all slices, given in their order.

    Raises
    ------
    FileNotFoundError
        If there is no seal.
    DamagedFileError
        If a file is missing or not what its seal says.
    """
    truths = []
    for path in map(Path, paths):
        seal = path.with_suffix(".json")
        check_hash(path, read_seal(seal).get("sha256"), seal)
        try:
            truths.append(Truth(**load_file(path)))
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"{path}: expected the truth of a draw, got {error}") from error
    return join_truths(truths)
