"""Counted operations: by hand, and against the matrix products that run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens.registry import get_sae_class
from torch.utils.flop_counter import FlopCounterMode

import dbksvd.dictionaries.registration
from dbksvd.dictionaries.encoder_flops import count_encoder_flops

ROOT = Path(__file__).parents[2]
BASE = {"d_in": 384, "d_sae": 16384}
DENSE = 2 * 384 * 16384
PURSUIT = {"architecture": "dbksvd", "k": 20, "method": "mp", "refit": True, **BASE}
REFIT = 20**3 / 3 + 2 * 20**2


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architecture": "topk", "k": 32}, DENSE),
        ({"architecture": "abstopk", "k": 32}, DENSE),
        ({"architecture": "batchtopk"}, DENSE),
        ({"architecture": "matryoshka_batchtopk"}, DENSE),
        ({"architecture": "jumprelu"}, DENSE),
        ({"architecture": "standard"}, DENSE),
        ({"architecture": "gated"}, DENSE + 2 * 16384),
        ({"architecture": "matching_pursuit", "max_iterations": 20}, 20 * (DENSE + 4 * 384)),
        ({"architecture": "matching_pursuit", "max_iterations": None}, 384 * (DENSE + 4 * 384)),
        ({"architecture": "switch", "n_experts": 8}, DENSE / 8 + 2 * 384 * 8),
        ({"architecture": "switch", "n_experts": 1}, DENSE + 2 * 384),
        (
            {"architecture": "kron", "n_heads": 2048, "base": 2, "extension": 4},
            2 * (384 * 2048 * 6 + 2048 * 8),
        ),
        (PURSUIT, DENSE + 19 * 2 * 16384 + REFIT),
        (PURSUIT | {"refit": False}, DENSE + 19 * 2 * 16384),
        (PURSUIT | {"sign_split": True}, DENSE / 2 + 19 * 16384 + REFIT),
        (
            PURSUIT | {"method": "omp"},
            DENSE + sum(2 * 16384 * i for i in range(20)) + sum(3 * i * i for i in range(1, 21)),
        ),
        (
            PURSUIT | {"method": "ols"},
            # rows, then scale, p and e for each update, then a square and a ratio for each pick
            DENSE + sum(2 * 16384 * i for i in range(19)) + 16384 * (19 * 5 + 20 * 2) + REFIT,
        ),
    ],
)
def test_counts_by_hand(config: dict[str, Any], expected: float):
    assert count_encoder_flops(BASE | config) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("architecture", "settings", "combining"),
    [
        ("topk", {"k": 4}, 0),
        ("abstopk", {"k": 4}, 0),
        ("switch", {"k": 4, "n_experts": 4}, 0),
        ("kron", {"k": 4, "n_heads": 16, "base": 2, "extension": 4}, 2 * 128),
    ],
)
def test_counts_are_the_matrix_products_that_run(architecture, settings, combining):
    dbksvd.dictionaries.registration.register()
    sae_class, config_class = get_sae_class(architecture)
    sae = sae_class(config_class(d_in=16, d_sae=128, **settings))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        sae.encode(torch.randn(64, 16))
    counted = count_encoder_flops(sae.cfg.to_dict())
    assert counter.get_total_flops() == 64 * (counted - combining)


def test_unknown_and_incomplete_configs_are_named():
    with pytest.raises(
        ValueError, match=r"architecture: expected one of dbksvd, topk, .*got 'new'"
    ):
        count_encoder_flops({"architecture": "new", **BASE})
    with pytest.raises(ValueError, match="got None"):
        count_encoder_flops(BASE)
    with pytest.raises(ValueError, match=r"n_experts: expected in the config of .*'switch'"):
        count_encoder_flops({"architecture": "switch", **BASE})


def test_counting_needs_no_torch():
    code = (
        "import sys; from dbksvd.dictionaries.encoder_flops import count_encoder_flops as f; "
        "assert f({'architecture': 'topk', 'd_in': 1, 'd_sae': 3}) == 6; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
