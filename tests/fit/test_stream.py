"""Rows extracted where they are read, against the same rows stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from simulated_cuda import use_cuda
from test_sae import make_task

from dbksvd.activations import rows
from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.hdf5 import open_file
from dbksvd.activations.sharding import write_shards
from dbksvd.activations.shards import ActivationShards
from dbksvd.activations.source import fingerprint_source
from dbksvd.activations.stream import ActivationStream
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.reading import TensorSource
from dbksvd.fit.sae.method import fit as train_sae
from dbksvd.ops.ranks import Ranks

TOKENS = 601
EXTRACTION = {"layer": 2, "context_length": 16, "batch_size": 4}


class Stored(TensorSource):
    """Rows in memory with the mean of the stored sample."""

    def __init__(self, x: torch.Tensor, mean: torch.Tensor) -> None:
        super().__init__(x)
        self.mean = mean


@pytest.fixture(scope="module")
def settings(tiny_encoder: Path) -> dict[str, Any]:
    return {"model": {"name": str(tiny_encoder), "device": "cpu"}, **EXTRACTION}


@pytest.fixture(scope="module")
def sample(settings, text_folder, tmp_path_factory) -> ActivationShards:
    folder = tmp_path_factory.mktemp("sample")
    few = {**settings, "n_train_tokens": 120, "n_heldout_tokens": 50}
    extract_slice(few, 0, folder / "part.h5", text=text_folder)
    write_shards([folder / "part.h5"], {"rows_per_shard": 100}, folder / "shards")
    return ActivationShards.open(folder / "shards")


@pytest.fixture
def open_stream(settings, sample, text_folder):
    def open_one(**changes: Any) -> ActivationStream:
        stream = {"n_tokens": TOKENS, "block_rows": 100, **changes}
        whole = {**settings, "n_train_tokens": 120, "n_heldout_tokens": 50, "stream": stream}
        return ActivationStream(whole, text_folder, sample)

    return open_one


def count_extractions(stream: ActivationStream) -> list[int]:
    """Return the list that from now on holds the numbers of the blocks that are extracted."""
    numbers: list[int] = []
    extract = stream._extract_block

    def watched(number: int) -> torch.Tensor:
        numbers.append(number)
        return extract(number)

    stream._extract_block = watched
    return numbers


def read_stored(settings, text_folder, tmp_path) -> np.ndarray:
    """Return the rows that a stored extraction of the same tokens gives, in its order."""
    whole = {**settings, "n_train_tokens": TOKENS, "n_heldout_tokens": 50}
    extract_slice(whole, 0, tmp_path / "part.h5", text=text_folder)
    with open_file(tmp_path / "part.h5") as file:
        return file["train/activations"][:]


def test_one_block_has_the_bytes_of_stored_rows(settings, text_folder, open_stream, tmp_path):
    rows = open_stream(block_rows=10_000, seed=7).read(0, TOKENS).numpy()
    stored = read_stored(settings, text_folder, tmp_path)
    order = np.random.default_rng([7, 0]).permutation(TOKENS)
    assert np.array_equal(rows, stored[order])


def test_blocks_have_all_rows_in_an_order_of_their_own(
    settings, text_folder, open_stream, tmp_path
):
    stream = open_stream()
    rows = stream.read(0, TOKENS).numpy()
    stored = read_stored(settings, text_folder, tmp_path)
    for number, start in enumerate(range(0, TOKENS, 100)):
        block = stored[start : start + 100]
        order = np.random.default_rng([0, number]).permutation(len(block))
        # other documents are padded together than in the stored extraction
        np.testing.assert_allclose(rows[start : start + 100], block[order], atol=1e-5)
        assert len(block) == 1 or not np.array_equal(order, np.arange(len(block)))


def test_rows_over_the_norm_limit_give_their_place_to_others(tiny_causal, text_folder, tmp_path):
    few = {"model": {"name": str(tiny_causal), "device": "cpu"}, **EXTRACTION}
    few |= {"n_train_tokens": 120, "n_heldout_tokens": 50}
    extract_slice(few, 0, tmp_path / "sample.h5", text=text_folder)
    with open_file(tmp_path / "sample.h5") as file:
        norms = np.linalg.norm(file["train/activations"][:].astype(np.float64), axis=1)
    # so near the median that this model has rows over it
    multiple = float(np.quantile(norms, 0.9) / np.median(norms))
    streams = []
    for name, setting in (("limited", multiple), ("whole", None)):
        write_shards([tmp_path / "sample.h5"], {"outlier_norm_multiple": setting}, tmp_path / name)
        whole = {**few, "stream": {"n_tokens": TOKENS, "block_rows": 100}}
        sample = ActivationShards.open(tmp_path / name)
        streams.append(ActivationStream(whole, text_folder, sample))
    limited, unlimited = streams
    rows, every = limited.read(0, TOKENS), unlimited.read(0, TOKENS)
    assert limited.norm_limit is not None
    over = torch.linalg.vector_norm(every.double(), dim=1).float() > limited.norm_limit
    assert 20 < over.sum() < 200
    assert torch.equal(rows[~over], every[~over])
    for row in over.nonzero()[:, 0].tolist():
        first = row // 100 * 100
        block = every[first : first + 100][~over[first : first + 100]]
        assert (block == rows[row]).all(1).any()
    assert torch.equal(limited.read(150, 250), rows[150:250])
    assert limited.fingerprint != unlimited.fingerprint


def test_any_row_can_be_read_at_any_time(open_stream):
    whole = open_stream().read(0, TOKENS)
    stream = open_stream()
    numbers = count_extractions(stream)
    for start, stop in ((550, 601), (90, 110), (0, 1), (150, 150), (95, 480)):
        assert torch.equal(stream.read(start, stop), whole[start:stop])
    assert numbers[:3] == [5, 6, 0]
    assert len(stream._held) == 2  # memory is bounded
    with pytest.raises(ValueError, match="rows: expected a range inside 0 to 601, got 600:602"):
        stream.read(600, 602)


def test_a_fit_of_a_stream_has_the_bytes_of_a_fit_of_its_rows(open_stream, sample, tmp_path):
    settings = {"max_iter": 5, "polish_iter": 1, "batch_size": 200, "heldout_every": 2}
    streamed = DBKSVD(24, 3, **settings).fit(open_stream())
    stored = DBKSVD(24, 3, **settings).fit(Stored(open_stream().read(0, TOKENS), sample.mean))
    assert torch.equal(streamed.dictionary_.atoms, stored.dictionary_.atoms)
    assert streamed.log_[-1]["samples_seen"] == 5 * 200 + 400

    stream = open_stream()
    read, stream.read = stream.read, lambda *rows: fail() if rows == (200, 400) else read(*rows)
    folder = {"checkpoint": tmp_path / "work", "checkpoint_seconds": 0}
    with pytest.raises(OSError, match="cable pulled"):
        DBKSVD(24, 3, **settings, **folder).fit(stream)
    stream = open_stream()
    whole = count_extractions(stream)
    DBKSVD(24, 3, **settings).fit(stream)
    stream = open_stream()
    numbers = count_extractions(stream)
    resumed = DBKSVD(24, 3, **settings, **folder).fit(stream)
    assert torch.equal(resumed.dictionary_.atoms, stored.dictionary_.atoms)
    assert numbers[:2] == [0, 1]  # for the scale, all of it being few rows
    assert len(numbers) < len(whole)  # the first iteration was not done again
    assert resumed.log_[0] == resumed.log_[0] | {"iteration": 1}


def test_on_a_device_the_model_has_a_queue_of_its_own(
    settings, sample, text_folder, open_stream, monkeypatch
):
    expected = open_stream().read(0, 100)
    queues = []
    run = rows._run

    def watch(*args: Any) -> Any:
        queues.append(torch.cuda.current_stream())
        return run(*args)

    monkeypatch.setattr(rows, "_run", watch)
    with use_cuda():
        there = {**settings, "model": {**settings["model"], "device": "cuda"}}
        there |= {"n_train_tokens": 120, "n_heldout_tokens": 50}
        there["stream"] = {"n_tokens": TOKENS, "block_rows": 100}
        usual = torch.cuda.current_stream()
        found = ActivationStream(there, text_folder, sample, gpus=1).read(0, 100)
        assert torch.cuda.current_stream() == usual
    assert queues
    assert all(queue == queues[0] for queue in queues)
    assert queues[0] != usual
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)


def fail() -> None:
    raise OSError("cable pulled")


def test_an_sae_of_a_stream_reads_whole_blocks(open_stream, sample, tmp_path):
    changes = {"training_samples": 1000, "batch_size": 50, "measure_every": 500}
    task = make_task(torch.zeros(3600, 16), tmp_path / "work", **changes)
    task.train, task.heldout = open_stream(n_tokens=600), sample
    numbers = count_extractions(task.train)
    streamed = train_sae(task)
    # 20 batches of half a block for the scale, and the same ones again for the training
    assert len(numbers) <= 2 * 20 // 2
    task = make_task(torch.zeros(3600, 16), tmp_path / "again", **changes)
    rows = open_stream(n_tokens=600).read(0, 600)
    task.train, task.heldout = Stored(rows, sample.mean), sample
    task.train.block_rows = 100
    stored = train_sae(task).dictionary.sae.state_dict()
    for name, weight in streamed.dictionary.sae.state_dict().items():
        assert torch.equal(weight, stored[name]), name


def test_ranks_extract_the_blocks_of_their_own_share(open_stream):
    found = []
    for rank in range(3):
        stream = open_stream(n_tokens=600)
        numbers = count_extractions(stream)
        found.append(stream.read(*Ranks(rank, 3).find_share(600)))
        assert numbers == [2 * rank, 2 * rank + 1]
    assert torch.equal(torch.cat(found), open_stream(n_tokens=600).read(0, 600))


def test_a_checkpoint_knows_a_stream_without_reading_it(open_stream):
    stream = open_stream()
    numbers = count_extractions(stream)
    assert fingerprint_source(stream) == fingerprint_source(open_stream())
    assert fingerprint_source(stream) != fingerprint_source(open_stream(seed=1))
    assert numbers == []


def test_tokens_per_document_and_half_precision(
    settings, sample, text_folder, open_stream, monkeypatch, tmp_path
):
    with pytest.raises(
        ValueError, match=r"dtype: expected 'float16' as in the stream, got 'float3"
    ):
        ActivationStream(
            {
                **settings,
                **{"n_train_tokens": 120, "n_heldout_tokens": 50, "storage_dtype": "float16"},
                "stream": {"n_tokens": 50, "block_rows": 10},
            },
            text_folder,
            sample,
        )
    few = {**settings, "n_train_tokens": 90, "n_heldout_tokens": 30, "tokens_per_document": 2}
    extract_slice(few, 0, tmp_path / "part.h5", text=text_folder)
    write_shards([tmp_path / "part.h5"], {"rows_per_shard": 100}, tmp_path / "shards")
    shards = ActivationShards.open(tmp_path / "shards")
    stream = ActivationStream(
        {**few, "stream": {"n_tokens": 90, "block_rows": 1000}}, text_folder, shards
    )
    stored = shards.read(0, 90)
    rows = stream.read(0, 90)
    assert torch.equal(rows.sort(dim=0, stable=True).values, stored.sort(dim=0, stable=True).values)


def test_too_little_text_is_found_at_once(open_stream):
    message = r"^activations\.stream\.n_tokens: expected at most \d+, the tokens of \d+ training"
    with pytest.raises(ValueError, match=message):
        open_stream(n_tokens=10**6)
    with pytest.raises(ValueError, match=r"activations\.stream\.block_rows: expected at least 1"):
        open_stream(block_rows=0)
