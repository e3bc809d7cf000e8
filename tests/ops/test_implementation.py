"""Which implementation runs where."""

import logging
import sysconfig

import pytest
import torch

from dbksvd.ops import implementation
from dbksvd.ops.implementation import choose_implementation, find_missing_tool

PURSUIT = "dbksvd.ops.pursuit"
CUDA = torch.device("cuda")

needs_triton = pytest.mark.skipif(
    implementation.find_spec("triton") is None, reason="needs the package triton"
)


def forget():
    implementation._warn_of_missing_tool.cache_clear()
    find_missing_tool.cache_clear()


@pytest.fixture(autouse=True)
def forget_around():
    forget()
    yield
    forget()


@pytest.fixture
def without_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)


@needs_triton
def test_without_a_compiler_batched_runs_and_a_warning_says_why(without_compiler, caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_implementation(PURSUIT, "auto", CUDA) == "batched"
        assert choose_implementation(PURSUIT, "auto", CUDA) == "batched"
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.endswith("need a C compiler: gcc, clang, or the one that CC names")
    with pytest.raises(ValueError, match=r"got 'cuda'; Triton needs a C compiler"):
        choose_implementation(PURSUIT, "cuda", CUDA)


@needs_triton
def test_headers_of_python_are_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "/a/compiler")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert str(tmp_path / "Python.h") in str(find_missing_tool())
    assert choose_implementation(PURSUIT, "auto", CUDA) == "batched"
    (tmp_path / "Python.h").touch()
    forget()
    assert find_missing_tool() is None
    assert choose_implementation(PURSUIT, "auto", CUDA) == "cuda"


def test_nothing_is_compiled_for_the_cpu(without_compiler, caplog):
    assert choose_implementation(PURSUIT, "auto", torch.device("cpu")) == "cpu"
    assert not caplog.records
