"""A training that goes on from a checkpoint ends like one that was never interrupted."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rows import Rows
from safetensors import safe_open
from test_sae import LEARNED, make_planted, make_task

from dbksvd.fit.sae.checkpoint import CHECKPOINT_FILE
from dbksvd.fit.sae.method import fit

ROOT = Path(__file__).parents[2]
SHORT = {"training_samples": 6000, "measure_every": 2000, "dead_window": 300}


class CutOff(Rows):
    """Breaks off at the read with number `fail_at`."""

    reads, fail_at = 0, 10**9

    def read(self, start, stop):
        self.reads += 1
        if self.reads == self.fail_at:
            raise OSError("cable pulled")
        return super().read(start, stop)


def save_result(result, folder: Path) -> dict[str, bytes]:
    result.save(folder)
    return {name: (folder / name).read_bytes() for name in ("sae_weights.safetensors", "cfg.json")}


def drop_seconds(log):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in log]


@pytest.mark.parametrize("architecture", LEARNED)
def test_resumed_training_ends_with_the_same_bytes(architecture, tmp_path, caplog):
    x = make_planted()
    changes = {**LEARNED[architecture][1], **SHORT, "architecture": architecture}
    changes["checkpoint_seconds"] = 0
    whole = fit(make_task(x, tmp_path / "whole", **changes))
    task = make_task(x, tmp_path / "cut", **changes)
    task.train = CutOff(x[:3500])
    # Two reads are for the identity, up to four for the scale and the first weights; the others are
    # blocks of 16 batches, so this one is in the middle of the steps.
    task.train.fail_at = 8
    with pytest.raises(OSError, match="cable pulled"):
        fit(task)
    with safe_open(tmp_path / "cut" / CHECKPOINT_FILE, framework="pt") as file:
        assert "random.cpu" in file.keys()  # noqa: SIM118
    task.train.fail_at = 0
    with caplog.at_level(logging.INFO):
        resumed = fit(task)
    assert "going on after" in caplog.text
    assert drop_seconds(resumed.log) == drop_seconds(whole.log)
    assert save_result(resumed, tmp_path / "a") == save_result(whole, tmp_path / "b")


def test_checkpoint_of_something_else_or_damaged_is_not_used(tmp_path, caplog):
    x = make_planted()
    changes = {**SHORT, "training_samples": 1000}
    first = fit(make_task(x, tmp_path / "work", **changes))
    path = tmp_path / "work" / CHECKPOINT_FILE
    whole = path.read_bytes()
    others = (
        ({"lr": 0.001}, "settings"),
        ({"centre": False}, "settings"),
        ({"seed": 1}, "seed"),
        ({}, "data"),
    )
    for change, name in others:
        path.write_bytes(whole)
        settings = {key: value for key, value in change.items() if key != "seed"}
        data = x if name != "data" else x + 1
        task = make_task(data, tmp_path / "work", **{**changes, **settings})
        task.seed = change.get("seed", 0)
        caplog.clear()
        fit(task)
        assert f"it is of another {name}" in caplog.text
    path.write_bytes(whole[:1000])
    caplog.clear()
    again = fit(make_task(x, tmp_path / "work", **changes))
    assert "it cannot be read" in caplog.text
    assert again.log[-1]["loss"] == first.log[-1]["loss"]


def test_finished_training_is_not_done_again(tmp_path):
    x = make_planted()
    first = fit(make_task(x, tmp_path / "work", **SHORT))
    task = make_task(x, tmp_path / "work", **SHORT)
    task.train = CutOff(x[:3500])
    task.train.fail_at = 3  # two reads are for the identity
    again = fit(task)
    assert again.log == first.log
    assert save_result(again, tmp_path / "a") == save_result(first, tmp_path / "b")


TRAINED = """
import logging
import sys
from pathlib import Path
sys.path.insert(0, "tests/fit")
import torch
torch.set_num_threads(1)
logging.basicConfig(level=logging.INFO)
from test_sae import make_planted, make_task
from dbksvd.fit.sae.method import fit
work, result = Path({work!r}), {result!r}
task = make_task(make_planted(), work, architecture="gated", training_samples=10_000,
                 checkpoint_seconds=0)
fit(task).save(result)
"""


def start_fit(folder: Path, name: str) -> subprocess.Popen[bytes]:
    code = TRAINED.format(work=str(folder / f"{name}-work"), result=str(folder / name))
    environment = os.environ | {"PYTHONPATH": "."}
    with (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=log)


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(tmp_path: Path):
    unbroken = start_fit(tmp_path, "unbroken")
    assert unbroken.wait(timeout=180) == 0, (tmp_path / "unbroken.log").read_text()
    file = tmp_path / "killed-work" / CHECKPOINT_FILE
    killed = start_fit(tmp_path, "killed")
    deadline = time.monotonic() + 180
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    resumed = start_fit(tmp_path, "killed")
    log = tmp_path / "killed.log"
    assert resumed.wait(timeout=180) == 0, log.read_text()
    assert re.search(r"going on after [1-9]\d* samples", log.read_text()), log.read_text()
    for name in ("sae_weights.safetensors", "cfg.json"):
        expected = (tmp_path / "unbroken" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == expected
