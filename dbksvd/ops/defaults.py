"""What a program may set for all of torch, held at its usual value while we compute.

A fit has the same bytes whatever the default dtype and the default device are, whether or not
gradients are recorded around it, and inside of ``torch.autocast`` too. Products of float32 are not
rounded where a program lets torch round them (TF32): `product_dtype` says what may be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
Result = TypeVar("Result")


@contextmanager
def hold_usual_defaults() -> Iterator[None]:
    """Make float32 and the CPU torch's defaults inside, without autocast or TF32, until the end."""
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        for backend in (torch.backends.cuda, torch.backends.mkldnn):
            products: Any = backend.matmul  # type: ignore[attr-defined]
            rounding = products.fp32_precision
            if rounding not in ("none", "ieee"):
                stack.callback(setattr, products, "fp32_precision", rounding)
                products.fp32_precision = "ieee"
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield


def with_usual_defaults(function: Callable[P, Result]) -> Callable[P, Result]:
    """Return a function that runs under :func:`hold_usual_defaults`."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        with hold_usual_defaults():
            return function(*args, **kwargs)

    return run
