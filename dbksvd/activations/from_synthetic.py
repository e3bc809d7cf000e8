"""Samples of a generative model as parts, the same layout as extracted activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dbksvd.activations.hdf5 import SCHEMA_VERSION, create_file, record_dtype, write_rows
from dbksvd.activations.settings import DrawSettings
from dbksvd.activations.slices import check_slice
from dbksvd.base.files import hash_file, write_json
from dbksvd.base.saving import check_replaceable
from dbksvd.base.settings import parse
from dbksvd.base.splits import SPLITS, Split
from dbksvd.synthetic.base import GenerativeModel, mix_seed
from dbksvd.synthetic.models import MANIFEST_FILE, load_model
from dbksvd.synthetic.pairs import choose_pairs, draw_without, hold_pair
from dbksvd.synthetic.truth import Truth, join_truths, save_truth

# Rows that share a seed: whoever draws, in however many slices, draws whole blocks of this size.
BLOCK_ROWS = 1024


def iterate_draws(
    model: GenerativeModel,
    seed: int,
    split: Split,
    start: int,
    stop: int,
    apart: Tensor | None = None,
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Yield (first row, codes, component) over rows `start` to `stop` of a split.

    A row's value depends on model, seed, split, its number and the pairs alone: slices make the
    same whole.
    torch's global generator is left as it was.

    Parameters
    ----------
    model : GenerativeModel
        The model.
    seed : int
        Decides the samples.
    split : {"train", "heldout"}
        Decides them too: no sample is in both.
    start, stop : int
        Rows wanted.
    apart : int64 tensor of shape (pairs, 2), optional
        Pairs of features of which no row holds one; rows without a pair are as they are without
        this argument.
    """
    for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
        with torch.random.fork_rng():
            torch.manual_seed(mix_seed(seed, SPLITS.index(split), block))
            if apart is None:
                codes, component = model.draw_codes(BLOCK_ROWS)
            else:
                codes, component = draw_without(model, BLOCK_ROWS, apart)
        first = block * BLOCK_ROWS
        inside = slice(max(start - first, 0), min(stop - first, BLOCK_ROWS))
        yield (
            first + inside.start,
            codes[inside],
            None if component is None else component[inside],
        )


def draw_slice(
    model_folder: str | Path,
    settings: Mapping[str, Any] | DrawSettings,
    slice_index: int,
    part: str | Path,
    truth: str | Path,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Write one slice as a part (HDF5) with its seal, and the truth of its held-out samples.

    Parameters
    ----------
    model_folder : path
        See :func:`dbksvd.synthetic.models.save_model`.
    settings : DrawSettings, or a mapping of the same keys
        What is drawn.
    slice_index : int
        From 0.
    part, truth : path
        Outputs; each gets a seal beside it with the suffix ``.json``.
    device : torch.device or str
        Where to draw; CPU and CUDA draw different samples.

    Returns
    -------
    dict
        The part's seal.

    Raises
    ------
    ValueError
        If a setting cannot be used, or the model's features have no such pairs.
    """
    checked = parse(DrawSettings, settings, "activations")
    check_slice(checked, slice_index)
    model, part = load_model(model_folder, device), Path(part)
    for sealed in (part, Path(truth)):
        check_replaceable(sealed.with_suffix(".json"), ("sha256", "rows"))
    ranges = {split: checked.share(split, slice_index) for split in SPLITS}
    attributes = _describe(Path(model_folder), checked) | {"slice": slice_index}
    attributes |= {f"{split}_range": ranges[split] for split in SPLITS}
    rows: dict[str, int] = {split: stop - start for split, (start, stop) in ranges.items()}
    wanted, truths = checked.held_out_pairs, []
    pairs = None if wanted is None else choose_pairs(model, wanted)
    apart = None if wanted is None or wanted.in_training else pairs
    with create_file(
        part, rows, model.features.shape[1], checked.storage_dtype, attributes
    ) as file:
        for split, (start, stop) in ranges.items():
            without = apart if split == "train" else None
            draws = iterate_draws(model, checked.sample_seed, split, start, stop, without)
            with tqdm(total=stop - start, unit=" rows", unit_scale=True, desc=split) as bar:
                for first, codes, component in draws:
                    records = _make_records(model.embed(codes), first, checked.storage_dtype)
                    write_rows(file[split], first - start, records)
                    if split == "heldout":
                        truths.append(_keep_truth(codes, component, pairs))
                    bar.update(len(records))
    seal = {
        "schema_version": SCHEMA_VERSION,
        "file": part.name,
        "sha256": hash_file(part),
        "rows": rows,
    }
    write_json(part.with_suffix(".json"), seal)
    save_truth(join_truths(truths), truth)
    return seal


def _describe(folder: Path, settings: DrawSettings) -> dict[str, Any]:
    """Return the attributes that all parts of a draw share."""
    pairs = settings.held_out_pairs
    return {
        "model": "synthetic",
        "model_kind": "synthetic",
        "model_sha256": hash_file(folder / MANIFEST_FILE),
        "layer": -1,
        "dtype": settings.storage_dtype,
        "slices": settings.slices,
        "sample_seed": settings.sample_seed,
        **({} if pairs is None else {"held_out_pairs": pairs.model_dump_json()}),
    }


def _keep_truth(codes: Tensor, component: Tensor | None, pairs: Tensor | None) -> Truth:
    return Truth.from_dense(
        codes.cpu(),
        None if component is None else component.cpu(),
        None if pairs is None else hold_pair(codes, pairs).cpu(),
    )


def _make_records(activations: Tensor, first: int, dtype: str) -> np.ndarray:
    records = np.empty(len(activations), record_dtype(activations.shape[1], dtype))
    records["activations"] = activations.cpu().numpy()
    records["document"] = records["token"] = -1
    records["position"] = np.arange(first, first + len(records))
    return records
