"""The device of a job."""

import logging

import pytest
import torch

from dbksvd.base.provenance import choose_device


@pytest.fixture
def has_cuda(monkeypatch):
    """Stand in for a second GPU that is this thread's current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


@pytest.fixture
def has_no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_granted_gpu_that_cannot_be_used_is_not_silent(has_no_cuda, caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_device(gpus=1) == torch.device("cpu")
    assert "1 GPU given to this job, which torch" in caplog.text


@pytest.mark.parametrize("gpus", [0, None])
def test_no_gpu_is_no_warning(has_no_cuda, caplog, gpus):
    assert choose_device(gpus=gpus) == torch.device("cpu")
    assert not caplog.records


@pytest.mark.parametrize("name", ["auto", "cuda"])
@pytest.mark.parametrize("gpus", [1, None])
def test_a_device_has_its_number(has_cuda, name, gpus):
    assert choose_device(name, gpus=gpus) == torch.device("cuda", 1)
    assert choose_device("cuda:0", gpus=gpus) == torch.device("cuda", 0)


def test_a_gpu_that_was_not_given_is_not_taken(has_cuda):
    assert choose_device(gpus=0) == torch.device("cpu")
    with pytest.raises(ValueError, match="GPUs given to this job: 0"):
        choose_device("cuda", gpus=0)
