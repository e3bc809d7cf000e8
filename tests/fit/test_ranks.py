"""One fit on several ranks is the fit of one process."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rank_work import (
    FITS,
    compare_atoms,
    fit_all,
    meet_trouble,
    resume_training,
    run_on_ranks,
    train_all,
    update_all,
)
from shard_files import make_shards
from test_sae import LEARNED

from dbksvd.fit.ksvd.checkpoint import CHECKPOINT_FILE
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.ksvd.replacement import gather_worst
from dbksvd.fit.sae.ranks import find_kth_largest
from dbksvd.ops.ranks import ALONE, Ranks, choose_gpu

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/fit_dictionary.py"
SIZES = (2, 4)
# of Triton's interpreter
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")


def work_all(ranks: Ranks) -> tuple[Any, ...]:
    return update_all(ranks), fit_all(ranks), train_all(ranks), measure_traffic(ranks)


def measure_traffic(ranks: Ranks) -> list[int]:
    """Return the bytes that fits sum in one iteration on 512, on 1,024 and on 2,048 samples."""
    x = torch.randn(2048, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for samples in (512, 1024, 2048):
        before = ranks.summed_bytes
        model = DBKSVD(
            *(32, 4), max_iter=1, polish_iter=0, batch_size=samples, init="random", ranks=ranks
        )
        model.fit(x)
        found.append(ranks.summed_bytes - before)
    return found


@pytest.fixture(scope="module")
def alone() -> tuple[Any, ...]:
    return work_all(ALONE)


@pytest.fixture(scope="module", params=SIZES)
def several(request: pytest.FixtureRequest) -> list[tuple[Any, ...]]:
    return run_on_ranks(request.param, work_all)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return ‖found − expected‖ / ‖expected‖."""
    scale = np.linalg.norm(expected)
    return float(np.linalg.norm(found - expected) / (scale or 1))


def assert_logs_agree(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        assert row.keys() == wanted.keys()
        for name, value in wanted.items():
            # decisions are the same ones; sums may differ in their last digits
            is_sum = isinstance(value, float)
            assert row[name] == (pytest.approx(value, rel=1e-5) if is_sum else value), name


def test_every_implementation_updates_as_one_process_does(alone, several):
    for name, expected in alone[0].items():
        found = [answer[0][name] for answer in several]
        for rank in found[1:]:
            assert np.array_equal(rank[2], found[0][2]), name
        rows = [np.concatenate([rank[part] for rank in found]) for part in (0, 1)]
        for got, wanted in zip((*rows, found[0][2]), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", FITS)
def test_fit_is_that_of_one_process(alone, several, name):
    atoms, log, reason, sent = alone[1][name]
    assert sent == 0
    for answer in several:
        found = answer[1][name]
        assert difference(found[0], atoms) < 1e-6
        assert found[2] == reason
        assert_logs_agree(found[1], log)
        assert np.array_equal(found[0], several[0][1][name][0])  # to the last bit
        assert found[1] == several[0][1][name][1]
    if name == "unused":
        assert log[0]["replaced_unused"] > 0
        assert log[0]["replaced_duplicate"] > 0


@pytest.mark.parametrize("architecture", LEARNED)
def test_training_is_that_of_one_process(alone, several, architecture):
    weights, log, reason, _ = alone[2][architecture]
    for rank, answer in enumerate(several):
        found = answer[2][architecture]
        assert found[0].keys() == weights.keys()
        for name, expected in weights.items():
            assert difference(found[0][name], expected) < 1e-5, name
            assert np.array_equal(found[0][name], several[0][2][architecture][0][name]), name
        assert found[2] == reason
        assert_logs_agree(found[1], log)
        assert found[1] == several[0][2][architecture][1]
        assert found[3] == (rank == 0)  # who wrote a checkpoint


def test_a_training_that_broke_off_goes_on_to_the_same_weights(tmp_path: Path):
    for answer in run_on_ranks(2, partial(resume_training, folder=str(tmp_path))):
        weights, reads = answer["whole"]
        resumed, fewer = answer["cut"]
        assert fewer < reads  # it did not begin again
        assert resumed.keys() == weights.keys()
        for name, expected in weights.items():
            assert np.array_equal(resumed[name], expected), name


def test_ranks_that_cannot_go_on_say_why():
    (first, ended), (second, _) = run_on_ranks(2, meet_trouble)
    expected = (
        r"^work: expected a folder that all ranks see, got {} done for rank {} and 0 for rank 0$"
    )
    assert re.match(expected.format(0, 0), first)
    assert re.match(expected.format(3, 1), second)
    assert ended.startswith("rank 0 of 2: another rank has ended or does not answer: ")


def test_ranks_whose_atoms_differ_in_a_bit_are_told():
    expected = r"ranks: expected the same atoms on all of 2 ranks, got others: .* model of GPU"
    for same, differ, swapped in run_on_ranks(2, compare_atoms):
        assert same == ""
        assert re.match(expected, differ)
        assert swapped == differ
    assert compare_atoms(ALONE) == [""] * 3


def test_each_rank_of_a_machine_has_its_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_gpu() == 0
    for name, value in (("TORCHELASTIC_RUN_ID", "a"), ("LOCAL_WORLD_SIZE", "3")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_gpu() == 1
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"at most one for each of 2 GPUs .* got 3"):
        choose_gpu()


def test_traffic_does_not_grow_with_the_samples(several):
    m, d, power_iterations = 32, 16, 3
    for answer in several:
        # the sums of the atoms in float32; counts of use, a handful of numbers, the mean's check
        sums = power_iterations * m * (d + 1) * 4
        assert len(set(answer[3])) == 1
        assert sums <= answer[3][0] < sums + 8 * m + 200


def test_kth_largest_agrees_with_a_sort():
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(40, 30, generator=generator) * 10.0 ** torch.arange(-15, 15)).relu()
    positive = x[x > 0].sort(descending=True).values
    for k in (1, 2, 77, len(positive)):
        assert find_kth_largest(x, k, ALONE) == positive[k - 1]
    assert find_kth_largest(x, len(positive) + 1, ALONE) == 0
    assert find_kth_largest(torch.ones(3, 2), 4, ALONE) == 1


def test_worst_rows_come_first_and_zeros_never():
    rows = torch.diag(torch.tensor([1.0, 0.0, 3.0, 2.0]))
    assert gather_worst(rows, 3).sum(dim=1).tolist() == [3, 2, 1]
    assert gather_worst(rows, 9).sum(dim=1).tolist() == [3, 2, 1]


def test_one_process_sends_nothing_and_shares_cover_all():
    x = torch.ones(3)
    assert ALONE.sum_(x) is x
    assert ALONE.sum_numbers(1.5, 2) == [1.5, 2]
    assert ALONE.find_largest(3.5) == ALONE.ask_first(3.5) == 3.5
    assert (ALONE.sums, ALONE.summed_bytes) == (0, 0)
    for size in (1, 2, 3, 7):
        for n in (0, 1, 5, 7, 100):
            shares = [Ranks(rank, size).find_share(n) for rank in range(size)]
            assert [row for share in shares for row in range(*share)] == list(range(n))
    with pytest.raises(ValueError, match="rank: expected 0 to 1, got 2"):
        Ranks(2, 2)


def test_more_ranks_than_samples_are_refused():
    model = DBKSVD(2, 1, batch_size=3)
    model.ranks = Ranks(0, 4)
    with pytest.raises(ValueError, match="ranks: expected at most the 3 samples of a batch, got 4"):
        model.fit(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))


def start(folder: Path, output: str, size: int = 2, **changes: Any) -> subprocess.Popen[str]:
    settings = {
        **{"algorithm": "dbksvd", "nonnegative": True, "max_iter": 60, "polish_iter": 0},
        **{"heldout_every": 20, "checkpoint_seconds": 0},
        **changes,
    }
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    arguments = {
        **{"settings": json.dumps(settings), "n-atoms": 32, "k": 4, "seed": 0},
        **{"shards": folder / "shards", "checkpoint": folder / f"{output}-work"},
        **{"output": folder / output, "threads": 2},
    }
    command = [sys.executable, *launch, str(SCRIPT)]
    command += [str(text) for name, value in arguments.items() for text in (f"--{name}", value)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def find_rank(agent: int, rank: int) -> int:
    """Return the process id of a rank that the agent of torchrun started."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    wanted = f"RANK={rank}".encode()
    return next(
        int(child)
        for child in children
        if wanted in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
    )


@pytest.mark.slow
def test_a_job_whose_rank_is_killed_ends_and_goes_on_to_the_same_bytes(tmp_path: Path):
    make_shards(tmp_path / "shards", n=4000, d=16)
    whole = start(tmp_path, "whole")
    cut = start(tmp_path, "cut")
    work = tmp_path / "cut-work" / CHECKPOINT_FILE
    deadline = time.monotonic() + 120
    while not work.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(find_rank(cut.pid, 1), signal.SIGKILL)
    message = cut.communicate(timeout=60)[1]
    assert cut.returncode == 1
    assert "SIGKILL" in message
    assert not (tmp_path / "cut").exists()
    assert work.exists()
    again = start(tmp_path, "cut")
    assert "going on after iteration" in again.communicate(timeout=120)[1]
    assert whole.communicate(timeout=120) is not None
    assert (whole.returncode, again.returncode) == (0, 0)
    names = ("cfg.json", "sae_weights.safetensors")
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    seal = json.loads((tmp_path / "whole/fit.json").read_text())
    assert (seal["ranks"], seal["iterations"]) == (2, 60)
    assert not (tmp_path / "whole-work").exists()


def test_a_control_is_fitted_by_the_first_rank_alone(tmp_path: Path, monkeypatch):
    script = runpy.run_path(str(SCRIPT))
    asked: list[Ranks] = []
    names = script["main"].__wrapped__.__globals__
    monkeypatch.setitem(names, "fit", lambda *given: asked.append(given[-1]))
    for rank, algorithm in ((0, "pca"), (1, "pca"), (1, "sae")):
        monkeypatch.setitem(names, "join_ranks", lambda rank=rank: nullcontext(Ranks(rank, 2)))
        architecture = {"architecture": "topk"} if algorithm == "sae" else {}
        settings = json.dumps({"algorithm": algorithm, **architecture})
        sizes = ["--n-atoms", "2", "--k", "1", "--seed", "0"]
        paths = [text for name in ("shards", "checkpoint", "output") for text in (f"--{name}", "x")]
        monkeypatch.setattr(sys, "argv", ["fit", "--settings", settings, *sizes, *paths])
        script["main"]()
    assert [(ranks.rank, ranks.size) for ranks in asked] == [(0, 1), (1, 2)]
