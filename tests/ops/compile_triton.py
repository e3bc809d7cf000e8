"""Compile every Triton kernel as the host code would launch it; needs no device.

The host functions are called with their kernels replaced by :class:`Compiled`, which compiles for
the arguments it gets and runs nothing. Writes a JSON list, a row for each kernel and set of arguments,
to the file that the command line names, after the capability to compile for: 80 or 90.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas

from dbksvd.ops.atom_update import cuda as update
from dbksvd.ops.pursuit import cuda as pursuit

TYPES = {torch.float32: "fp32", torch.float64: "fp64", torch.int32: "i32", torch.int64: "i64"}
OPTIONS = ("num_warps", "maxnreg")
CAPABILITY = int(sys.argv[1])

rows: list[dict[str, Any]] = []


class Compiled:
    """A kernel that is compiled where it would be launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Compiled:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        given = dict(zip(self.kernel.arg_names, args, strict=False)) | kwargs
        assert set(given) == set(self.kernel.arg_names), (given, self.kernel.arg_names)
        signature, constants, attributes = {}, {}, {}
        for place, parameter in enumerate(self.kernel.params):
            name, value = parameter.name, given[parameter.name]
            if isinstance(value, torch.Tensor):
                signature[name] = "*" + TYPES[value.dtype]
            elif parameter.is_constexpr or (value == 1 and not parameter.do_not_specialize):
                signature[name] = "constexpr"
                constants[(place,)] = value
            else:
                signature[name] = "i32" if isinstance(value, int) else "fp32"
            aligned = isinstance(value, int) and value % 16 == 0
            if signature[name][0] == "*" or (
                aligned and signature[name] == "i32" and not parameter.do_not_specialize
            ):
                attributes[(place,)] = [["tt.divisibility", 16]]
        source = triton.compiler.ASTSource(self.kernel, signature, constants, attributes)
        found = triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options=options)
        rows.append(
            {
                "kernel": self.kernel.__name__,
                "constants": {self.kernel.arg_names[place]: v for (place,), v in constants.items()},
                "num_warps": options.get("num_warps", 4),
                "shared": found.metadata.shared,
                "ptx": f".target sm_{CAPABILITY}" in found.asm["ptx"],
                "cubin": len(found.asm["cubin"]),
                **measure_registers(found.asm["ptx"]),
            }
        )


def measure_registers(ptx: str) -> dict[str, int]:
    """Return registers a thread and bytes of spills, as ptxas reports them."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        name = f"--gpu-name=sm_{CAPABILITY}{'a' if CAPABILITY >= 90 else ''}"
        command = [get_ptxas(CAPABILITY).path, "-v", name, "-o", "/dev/null", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spills = re.search(r"(\d+) bytes spill stores", report)
    registers = re.search(r"Used (\d+) registers", report)
    assert spills, report
    assert registers, report
    return {"registers": int(registers[1]), "spills": int(spills[1])}


def replace_kernels() -> None:
    for module in (
        pursuit.triton_kernels,
        pursuit.triton_least_squares,
        pursuit.triton_orthogonal,
        update.triton_kernels,
    ):
        for name in (
            "match",
            "match_orthogonally",
            "fit_codes",
            "sum_runs",
            "turn_atoms",
            "add_runs",
            "finish_samples",
            "subtract_codes",
        ):
            if hasattr(module, name):
                setattr(module, name, Compiled(getattr(module, name)))


def compile_pursuit(m: int, k: int, dtype: torch.dtype, nonnegative: bool) -> None:
    products = torch.zeros(1, m, dtype=dtype)
    # never read, so it needs no memory
    gram = torch.empty(m, m, dtype=dtype, device="meta")
    norm, floors = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    support, z = pursuit.match(products, gram, norm, floors, k, nonnegative, 0.0)
    penalties = torch.zeros(m, dtype=torch.float64)
    pursuit.match(products, gram, norm, floors, k, nonnegative, 0.0, penalties)
    pursuit.match_orthogonally(products, gram, norm, floors, k, nonnegative, 0.0)
    pursuit.match_optimally(products, gram, norm, floors, k, nonnegative, 0.0)
    pursuit.fit_codes(support, z, z.to(dtype), gram, norm, True, nonnegative)


def compile_update(n: int, d: int, k: int, dtype: torch.dtype, nonnegative: bool) -> None:
    x, atoms = torch.zeros(n, d, dtype=dtype), torch.zeros(3, d, dtype=dtype)
    indices, values = torch.zeros(n, k, dtype=torch.int64), torch.zeros(n, k, dtype=dtype)
    update.compute_residual(x, indices, values, atoms)
    update.update_(x, indices, values, atoms, torch.arange(3), 3, 2, nonnegative)


if __name__ == "__main__":
    replace_kernels()
    single, double = torch.float32, torch.float64
    compile_pursuit(2048, 20, single, False)
    compile_pursuit(16384, 40, single, True)
    compile_update(500, 2304, 2, single, False)
    if CAPABILITY == 90:
        compile_pursuit(1, 1, single, True)
        compile_pursuit(1000, 20, double, False)
        compile_pursuit(32768, 40, single, False)
        compile_pursuit(4096, 80, single, True)
        compile_pursuit(65536, 128, single, False)
        compile_update(4, 1, 1, single, False)
        compile_update(500, 384, 2, double, True)
        compile_update(4, 16384, 2, single, True)
    Path(sys.argv[2]).write_text(json.dumps(rows))
