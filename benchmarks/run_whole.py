"""Time whole stages on one device: a DB-KSVD fit, a TopK SAE, an extraction, a fit on two ranks.

Each part is a process of its own (``--part``) and writes its table as soon as it is measured.
``seconds`` are those of the clock, with the kernels' compilation; ``fit_s`` are a fit's own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from benchmarks.data import MemoryActivations, draw_data, make_sampler
from benchmarks.timing import describe_machine, print_table, synchronise, write_table
from dbksvd.base.settings import parse
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FitTask
from dbksvd.ops.ranks import ALONE, Ranks

ROOT = Path(__file__).parents[1]
COLUMNS = ("part", "n", "d", "m", "k", "seconds", "fit_s", "per_s", "fve", "peak_gib", "difference")
HELDOUT = 4096
ITERATIONS = 1
RANKS = 2
LEFT_OUT = 77  # the status of a part whose package is missing here
# Llama's shape at 135 million weights: layers, width, heads, MLP, vocabulary.
MODEL = (30, 576, 9, 1536, 49152)


@dataclass(frozen=True)
class Size:
    """Samples or tokens n, width d, atoms m, non-zeros k."""

    n: int
    d: int
    m: int
    k: int


WHOLE, QUICK = Size(1 << 20, 2304, 16384, 40), Size(512, 16, 32, 3)
SMALL = Size(1 << 15, 384, 2048, 16)
TOKENS = 1 << 20


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--part", choices=list(PARTS), required=True)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    row = PARTS[options.part](device, options.quick)
    if row is None:  # a rank that is not the first
        return
    if device.type == "cuda":
        row["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    path = options.output / f"whole-{options.part}-{device.type}.csv"
    machine = describe_machine(device, torch.get_num_threads())
    print_table(write_table([{"part": options.part} | row], path, machine), COLUMNS, path)


def draw_rows(size: Size, device: torch.device) -> tuple[MemoryActivations, MemoryActivations]:
    """Return rows to learn from and held-out ones, in host memory."""
    draw = make_sampler(size.d, device)
    rows = torch.empty(size.n, size.d)
    for part in rows.split(1 << 16):
        part.copy_(draw(len(part)))
    mean = rows.mean(dim=0)
    heldout = draw(min(size.n, HELDOUT)).cpu()
    return MemoryActivations(rows, mean), MemoryActivations(heldout, mean)


def time_dbksvd(device: torch.device, quick: bool) -> dict[str, Any]:
    """Fit by the default pursuit, non-negative ols; every iteration sees all samples."""
    size = QUICK if quick else WHOLE
    train, _ = draw_rows(size, device)
    model = DBKSVD(
        *(size.m, size.k),
        nonnegative=True,
        max_iter=ITERATIONS,
        polish_iter=0,
        batch_size=size.n,
        init="random",
        device=str(device),
    )
    started = time.perf_counter()
    model.fit(train)
    synchronise(device)
    row = {**vars(size), "seconds": time.perf_counter() - started}
    last = model.log_[-1]
    row |= {"fit_s": last["seconds"], "per_s": ITERATIONS * size.n / last["seconds"]}
    return row | {"fve": last["fve_train"]}


def time_topk(device: torch.device, quick: bool) -> dict[str, Any]:
    """Train a TopK SAE on all samples once."""
    try:  # before the clock starts: it takes seconds
        import_module("dbksvd.fit.sae.train")
    except ImportError as error:
        print(f"topk: left out: {error}")
        raise SystemExit(LEFT_OUT) from None
    size = QUICK if quick else WHOLE
    train, heldout = draw_rows(size, device)
    method = find_method("sae")
    told = {"algorithm": "sae", "architecture": "topk", "training_samples": size.n}
    told |= {"batch_size": 64 if quick else 4096}
    with tempfile.TemporaryDirectory() as folder:
        task = FitTask(
            *(train, heldout, size.m, size.k, 0, parse(method.settings, told)),  # type: ignore[arg-type]
            *(device, Path(folder)),
            metadata={"model_name": "random", "hook_name": "rows"},
        )
        started = time.perf_counter()
        result = method.fit(task)
        synchronise(device)
        row = {**vars(size), "seconds": time.perf_counter() - started}
    last = result.log[-1]
    row |= {"fit_s": last["seconds"], "per_s": size.n / last["seconds"]}
    return row | {"fve": last["fve_heldout"]}


def time_extraction(device: torch.device, quick: bool) -> dict[str, Any]:
    """Read the middle layer of a model of random weights, documents of 128 tokens, float16."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        print(f"extraction: left out: {error}")
        raise SystemExit(LEFT_OUT) from None
    from dbksvd.activations.rows import extract_rows
    from dbksvd.models.hooks import find_hook
    from dbksvd.models.loading import LoadedModel
    from dbksvd.text.tokens import TokenizedDocument

    layers, width, heads, inner, words = (2, 16, 2, 32, 100) if quick else MODEL
    tokens = 1 << 10 if quick else TOKENS
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 3),
        intermediate_size=inner,
        max_position_embeddings=256,
    )
    model = LlamaForCausalLM(config).eval().to(device, torch.float32)
    loaded = LoadedModel(
        *(model, None, "random", "causal", layers, width, 256, device, None, None),
        embeddings=words,
    )
    draws = np.random.default_rng(0).integers(0, words, (tokens // 128, 128))
    documents = [TokenizedDocument(number, ids, np.arange(128)) for number, ids in enumerate(draws)]
    hook = find_hook(loaded, layers // 2)
    started = time.perf_counter()
    count = sum(len(rows) for rows in extract_rows(loaded, hook, documents, 64, "float16"))
    seconds = time.perf_counter() - started
    return {"n": count, "d": width, "seconds": seconds, "per_s": count / seconds}


def time_ranks(device: torch.device, quick: bool) -> dict[str, Any] | None:
    """Fit on two ranks that share the device, sums by gloo; compare with one process."""
    if not distributed.is_torchelastic_launched():
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
        arguments = [sys.argv[0], *sys.argv[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, *launch, *arguments], env=environment, check=False)
        if done.returncode:
            raise SystemExit(f"error: ranks: expected exit status 0, got {done.returncode}")
        return None
    size = QUICK if quick else SMALL
    distributed.init_process_group("gloo")
    ranks = Ranks(distributed.get_rank(), RANKS)
    x, _ = draw_data(size.n, size.d, 1)

    def fit(who: Ranks) -> torch.Tensor:
        settings = {"max_iter": 2, "polish_iter": 0, "batch_size": size.n, "init": "random"}
        model = DBKSVD(*(size.m, size.k), method="mp", device=str(device), ranks=who, **settings)
        return model.fit(x).dictionary_.atoms.cpu()

    started = time.perf_counter()
    atoms = fit(ranks)
    seconds = time.perf_counter() - started
    difference = float((atoms - fit(ALONE)).abs().max()) if ranks.is_first else None
    distributed.destroy_process_group()
    row = {**vars(size), "seconds": seconds, "per_s": 2 * size.n / seconds}
    return row | {"difference": difference} if ranks.is_first else None


PARTS: dict[str, Callable[[torch.device, bool], dict[str, Any] | None]] = {
    "dbksvd": time_dbksvd,
    "topk": time_topk,
    "extraction": time_extraction,
    "ranks": time_ranks,
}


if __name__ == "__main__":
    main()
