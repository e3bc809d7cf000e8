"""Time the encoder of Switch SAEs against dense TopK encoders of the same width.

Correctness first: the codes of every Switch SAE must be those of the dense product of all experts,
masked to the chosen one. Writes CSV with median, 20th and 80th percentile, counted operations per
token, shapes, dtype, device and versions.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

from dbksvd.base.files import replace_file
from dbksvd.dictionaries.encoder_flops import count_encoder_flops
from dbksvd.dictionaries.switch import SwitchSAE, SwitchSAEConfig

EXPERTS = (2, 8, 32)


def make_switch(d: int, m: int, k: int, n_experts: int, device: torch.device) -> SwitchSAE:
    """Return a random Switch SAE whose router spreads the samples."""
    sae = SwitchSAE(SwitchSAEConfig(d_in=d, d_sae=m, k=k, n_experts=n_experts, device=str(device)))
    return sae.requires_grad_(False)


def check_switch(sae: SwitchSAE, x: torch.Tensor) -> None:
    """Compare codes with the masked dense computation in float64, or stop."""
    codes = sae.encode_sparse(x).to_dense().double()
    wide = x.double() - sae.b_dec.double()
    logits = (x.double() - sae.b_router.double()) @ sae.W_router.double()
    probability, expert = logits.softmax(dim=1).max(dim=1)
    latents = (wide @ sae.W_enc.double()).relu()
    owner = torch.arange(sae.cfg.d_sae, device=x.device) // sae.expert_width
    latents = latents * (owner == expert.unsqueeze(1))
    top = latents.topk(sae.cfg.k, dim=1)
    expected = torch.zeros_like(latents).scatter_(1, top.indices, top.values)
    expected *= probability.unsqueeze(1)
    error = ((codes - expected).norm() / expected.norm()).item()
    # A tie in float32 may change one pick of a sample; the whole must agree.
    if error > 1e-3:
        raise SystemExit(f"error: switch differs from the masked dense product by {error:.3g}")


def list_runs(
    x: torch.Tensor, m: int, k: int
) -> Iterator[tuple[str, dict[str, Any], Callable[[], Any]]]:
    """Yield (encoder, its config, run), checked first."""
    d = x.shape[1]
    topk = TopKSAE(TopKSAEConfig(d_in=d, d_sae=m, k=k, device=str(x.device))).requires_grad_(False)
    yield (
        "topk, product and top k alone",
        topk.cfg.to_dict(),
        lambda: ((x - topk.b_dec) @ topk.W_enc).topk(k, dim=1),
    )
    yield "topk, SAELens", topk.cfg.to_dict(), lambda: topk.encode(x)
    for n_experts in EXPERTS:
        sae = make_switch(d, m, k, n_experts, x.device)
        check_switch(sae, x[:256])
        yield (
            f"switch, {n_experts} experts",
            sae.cfg.to_dict(),
            lambda sae=sae: sae.encode_sparse(x),
        )


def measure_in_turn(
    runs: list[Callable[[], Any]], device: torch.device, repeats: int
) -> np.ndarray:
    """Return seconds (runs, repeats); runs take turns, so that they share a busy machine's load."""
    seconds = np.empty((repeats + 1, len(runs)))  # the first turn warms up
    for turn in seconds:
        for place, run in enumerate(runs):
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            turn[place] = time.perf_counter() - started
    return seconds[1:].T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--d", type=int, default=384)
    parser.add_argument("--m", type=int, default=16384)
    parser.add_argument("--k", type=int, default=32)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    x = torch.randn(arguments.samples, arguments.d, device=device)
    names, configs, runs = zip(*list_runs(x, arguments.m, arguments.k), strict=True)
    rows = []
    timed = measure_in_turn(list(runs), device, arguments.repeats)
    for name, config, seconds in zip(names, configs, timed, strict=True):
        low, median, high = np.percentile(seconds, (20, 50, 80))
        flops = count_encoder_flops(config)
        rows.append(
            {"encoder": name, "n": len(x), "d": arguments.d, "m": arguments.m, "k": arguments.k}
            | {"flops_per_token": flops, "median_s": median, "p20_s": low, "p80_s": high}
        )
    table = pd.DataFrame(rows)
    table.insert(6, "flops_ratio", table["flops_per_token"] / table["flops_per_token"][0])
    table.insert(8, "time_ratio", table["median_s"] / table["median_s"][0])
    table = table.assign(
        dtype="float32",
        device=torch.cuda.get_device_name()
        if device.type == "cuda"
        else platform.processor() or "cpu",
        threads=arguments.threads,
        torch=torch.__version__,
        python=platform.python_version(),
    )
    path = arguments.output / f"switch-{arguments.device}.csv"
    with replace_file(path) as temporary:
        table.to_csv(temporary, index=False)
    print(table.iloc[:, :11].to_string(index=False, float_format="{:.4g}".format))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
