"""Two simulated CUDA devices: tensors that say ``cuda:0``, hold CPU data and refuse what CUDA does.

Inside :func:`simulate_cuda` a tensor moved or made on ``cuda`` is a :class:`SimulatedTensor`. As on
a device, these raise: operations on tensors of two devices (0-dimensional CPU tensors, CPU indices
and copies are allowed), NumPy on a device tensor, a CPU generator for device tensors, and CPU
tensors as arguments of a Triton kernel. Kernels run in Triton's interpreter, and autograd as on
the CPU. A stream is known by name, and its work is done at once. Not simulated: autocast, rounding,
speed, memory.

:func:`use_cuda` is the real device where there is one, so that the same tests run on both.

The wrapper is a CPU tensor to torch's C++ code, which has no CUDA in it; only Python sees ``cuda``.
So device arguments are caught in Python, before torch's parser sees them.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from dbksvd.ops import implementation

DEVICES = 2
UNTOUCHED = ("cpu", "meta")
IS_REAL = torch.cuda.is_available()
# Of tests that run on the real device where there is one (`make gpu` picks them by the mark), on a
# simulated one elsewhere.
MARKS = [
    *([pytest.mark.cuda] if IS_REAL else []),
    # of Triton's interpreter
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]
COPIES = {"aten::copy_", "aten::_to_copy"}
INDEXING = {"aten::index", "aten::_unsafe_index", "aten::index_put", "aten::index_put_"}
ASKING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::_unique2"}

_current = threading.local()
# How often the host waited for the device, by operation.
questions: Counter[str] = Counter()


class SimulatedTensor(Tensor):
    """A tensor on a simulated device; ``held`` is its data."""

    held: Tensor
    index: int

    @staticmethod
    def __new__(cls, held: Tensor, index: int) -> SimulatedTensor:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made: SimulatedTensor = Tensor._make_wrapper_subclass(
            cls, held.size(), dtype=held.dtype, layout=held.layout, **layout
        )
        made.held, made.index = held, index
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.index)

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        assert isinstance(value, SimulatedTensor)
        assert (value.shape, value.dtype) == (self.shape, self.dtype)
        self.held, self.index = value.held, value.index

    def get_device(self) -> int:
        return self.index

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        questions["tolist"] += 1
        return self.held.detach().tolist()

    def pin_memory(self, *_: Any) -> Tensor:
        raise RuntimeError(
            "cannot pin 'torch.cuda.FloatTensor': only dense CPU tensors can be pinned"
        )

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def __repr__(self, **kwargs: Any) -> str:
        return f"{self.held!r} on {self.device}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self.held.detach(), self.index)

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function._schema.name
        index = _check_devices(name, args, kwargs)
        if name in ASKING:
            questions[name] += 1
        wrappers = {id(t.held): t for t in tree_leaves((args, kwargs)) if _is_simulated(t)}
        found = function(*tree_map(_unwrap, args), **tree_map(_unwrap, kwargs))

        def wrap(part: Any) -> Any:
            if not isinstance(part, Tensor):
                return part
            same = wrappers.get(id(part))  # what works in place returns its argument
            if same is None:
                return SimulatedTensor(part, index)
            if same.shape != part.shape:
                raise NotImplementedError(f"{name} changes a shape in place")
            return same

        return tree_map(wrap, found)


def _rebuild(held: Tensor, index: int) -> SimulatedTensor:
    return SimulatedTensor(held, index)


def _is_simulated(value: Any) -> bool:
    return isinstance(value, SimulatedTensor)


def _unwrap(value: Any) -> Any:
    return value.held if _is_simulated(value) else value


def _check_devices(name: str, args: Any, kwargs: Any) -> int:
    """Return the device of the result; raise where CUDA would."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    simulated = [tensor for tensor in tensors if _is_simulated(tensor)]
    _check_generator(kwargs)
    if name in COPIES:
        return args[0].index if _is_simulated(args[0]) else _find_current()
    if name in INDEXING and _is_simulated(args[0]):
        # indices may be on the CPU, values may not
        tensors = [args[0], *(part for part in args[2:] if isinstance(part, Tensor))]
    devices = {str(tensor.device) for tensor in tensors if _is_simulated(tensor) or tensor.ndim}
    if len(devices) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {sorted(devices)} in {name}"
        )
    return simulated[0].index


def _check_generator(kwargs: dict[str, Any]) -> None:
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != "cuda":
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")


def _find_current() -> int:
    return getattr(_current, "index", 0)


def _read_device(value: Any) -> torch.device | None:
    """Return the device that an argument names, with the index of the current one."""
    if isinstance(value, int):
        value = torch.device("cuda", value)
    device = torch.device(value)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", _find_current())
    return device


class _Move(torch.autograd.Function):
    """A copy to another device, and of its gradient back."""

    @staticmethod
    def forward(context: Any, x: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        context.before = x.device, x.dtype
        return _move(x, device, dtype)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        return _move(gradients[0], *context.before), None, None


def _move(x: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    held = _unwrap(x).detach().to(dtype or x.dtype, copy=True)
    return SimulatedTensor(held, device.index) if device.type == "cuda" else held


def move(x: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a copy of a tensor on another device."""
    if torch.is_grad_enabled() and x.requires_grad:
        moved: Tensor = _Move.apply(x, device, dtype)
        return moved
    return _move(x, device, dtype)


def _leave_out_pinning(kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Return keyword arguments without ``pin_memory``: torch without CUDA refuses it."""
    return {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}


def _copy_deeply(x: SimulatedTensor, memo: dict[int, Any]) -> SimulatedTensor:
    """Return a copy with data of its own, its gradient too; a parameter stays one."""
    if id(x) in memo:
        found: SimulatedTensor = memo[id(x)]
        return found
    made = SimulatedTensor(x.held.detach().clone(), x.index)
    made.requires_grad_(x.requires_grad)
    if isinstance(x, torch.nn.Parameter):
        made = torch.nn.Parameter(made, x.requires_grad)  # type: ignore[assignment]
    if x.grad is not None:
        made.grad = x.grad.clone()
    memo[id(x)] = made
    return made


class _Caught(TorchFunctionMode):
    """Catches whatever names a device."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = _leave_out_pinning(kwargs)
        name = getattr(function, "__name__", "")
        first = args[0] if args else None
        if name == "__deepcopy__" and _is_simulated(first):
            return _copy_deeply(*args)
        if isinstance(first, Tensor) and name in ("to", "cpu", "cuda", "type_as"):
            return self.convert(name, args, kwargs)
        if name == "pin_memory" and isinstance(first, Tensor) and not _is_simulated(first):
            return first
        if name == "quantile" and _is_simulated(first):  # it makes tensors where C++ sees its data
            moved = [_unwrap(value).detach() if _is_simulated(value) else value for value in args]
            return SimulatedTensor(function(*moved, **kwargs), first.index)
        if name in ("matmul", "__matmul__") and [part.ndim for part in args] == [1, 2]:
            # torch squeezes in place, and C++ alone would see the new shape
            return function(args[0].unsqueeze(0), args[1]).squeeze(0)
        if name == "new_tensor" and _is_simulated(first):
            made = torch.tensor(args[1], dtype=kwargs.get("dtype") or first.dtype)
            return SimulatedTensor(made, first.index)
        if kwargs.get("device") is None or name in ("get_device", "load", "_parse_to"):
            return function(*args, **kwargs)
        device = _read_device(kwargs.pop("device"))
        assert device is not None
        if device.type == "meta":
            return function(*args, **kwargs, device=device)
        if device.type == "cuda":
            _check_generator(kwargs)
        needs_gradient = kwargs.pop("requires_grad", False)
        found = function(*args, **kwargs, device=torch.device("cpu"))
        if isinstance(found, Tensor) and found.device != device:
            found = _move(found, device, found.dtype)
        return found.requires_grad_() if needs_gradient else found

    def convert(self, name: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
        x: Tensor = args[0]
        device, dtype = x.device, x.dtype
        if name in ("cpu", "cuda"):
            given = args[1] if len(args) > 1 else kwargs.get("device")
            device = _read_device(name if given is None else given) or device
        else:
            for value in (
                *args[1:],
                kwargs.get("device"),
                kwargs.get("dtype"),
                kwargs.get("other"),
            ):
                if isinstance(value, Tensor):
                    device, dtype = value.device, value.dtype
                elif isinstance(value, torch.dtype):
                    dtype = value
                elif isinstance(value, (torch.device, str)) or type(value) is int:
                    device = _read_device(value) or device
        if device.type == "meta":
            return torch.empty_like(x, dtype=dtype, device=device)
        if device != x.device:
            return move(x, device, dtype)
        copy = {"copy": True} if kwargs.get("copy") else {}
        with torch._C.DisableTorchFunction() if not _is_simulated(x) else nullcontext():
            return Tensor.to(x, dtype, **copy) if dtype != x.dtype or copy else x


class _Made(TorchDispatchMode):
    """Catches what is made on a device inside functions of torch that :class:`_Caught` has let in."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = _leave_out_pinning(kwargs)
        given = kwargs.get("device")
        if given is None or torch.device(given).type in UNTOUCHED:
            return function(*args, **kwargs)
        device = _read_device(given)
        assert device is not None
        _check_generator(kwargs)
        kwargs["device"] = torch.device("cpu")
        return _move(function(*tree_map(_unwrap, args), **kwargs), device, None)


def _launch(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kernel launcher of the interpreter that takes tensors of the device only."""

    def launch(self: Any, *args: Any, **kwargs: Any) -> None:
        for place, value in enumerate(args):
            if isinstance(value, Tensor) and not _is_simulated(value):
                raise ValueError(
                    f"Pointer argument (at {place}) cannot be accessed from Triton (cpu tensor?)"
                )
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            run(self, *map(_unwrap, args), **kwargs)

    return launch


def _set_current(device: Any) -> None:
    _current.index = (_read_device(device) or torch.device("cpu")).index


@contextmanager
def _stand_on(device: Any) -> Iterator[None]:
    before = _find_current()
    _set_current(device.device if isinstance(device, Tensor) else device)
    yield
    _current.index = before


class SimulatedStream:
    """A stream by its device; work on it is done at once."""

    def __init__(self, device: Any = None) -> None:
        self.device = _read_device("cuda" if device is None else device)

    def wait_stream(self, other: Any) -> None:
        """Do nothing: what the other was given is done."""


@contextmanager
def _work_on(stream: Any) -> Iterator[None]:
    before = getattr(_current, "stream", None)
    _current.stream = stream
    yield
    _current.stream = before


def _load(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_to(*args: Any, map_location: Any = None, **kwargs: Any) -> Any:
        found = load(*args, **kwargs)
        if map_location is None:
            return found
        device = _read_device(map_location)
        assert device is not None
        return tree_map(lambda t: t.to(device) if isinstance(t, Tensor) else t, found)

    return load_to


class _SafeOpen:
    """A safetensors file whose tensors go to the simulated device: the library's own code is Rust."""

    def __init__(self, filename: Any, framework: str, device: Any = "cpu", **options: Any) -> None:
        self.file = safetensors.safe_open(filename, framework, **options)
        self.device = _read_device(device)

    def __enter__(self) -> _SafeOpen:
        self.file.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.file.__exit__(*raised)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def get_tensor(self, name: str) -> Tensor:
        return self.file.get_tensor(name).to(self.device)

    def get_tensors(self) -> dict[str, Tensor]:
        return {name: self.get_tensor(name) for name in self.file.keys()}  # noqa: SIM118


@contextmanager
def _open_safetensors() -> Iterator[None]:
    """Put the stand-in where modules have the library's function by name."""
    with ExitStack() as stack:
        for module in list(sys.modules.values()):
            if module is not safetensors and vars(module).get("safe_open") is safetensors.safe_open:
                stack.enter_context(patch.object(module, "safe_open", _SafeOpen))
        yield


def _list_stand_ins() -> dict[str, Any]:
    """Return what takes the place of functions of ``torch.cuda``."""
    answers: dict[str, Any] = {
        "is_available": True,
        "is_initialized": True,
        "is_bf16_supported": True,
        "device_count": DEVICES,
        "get_device_name": "simulated",
        "get_device_properties": SimpleNamespace(shared_memory_per_block_optin=227 << 10),
        "mem_get_info": (80 << 30, 80 << 30),
        "max_memory_allocated": 0,
        **dict.fromkeys(("synchronize", "empty_cache", "reset_peak_memory_stats", "_lazy_init")),
        **dict.fromkeys(("manual_seed", "manual_seed_all", "set_rng_state")),
    }
    functions = {
        "current_device": _find_current,
        "set_device": _set_current,
        "device": _stand_on,
        "device_of": _stand_on,
        "get_rng_state": lambda _device=None: torch.get_rng_state(),
        "Event": Mock,
        "Stream": SimulatedStream,
        "stream": _work_on,
        "current_stream": lambda _device=None: getattr(_current, "stream", None),
    }
    return {name: Mock(return_value=answer) for name, answer in answers.items()} | functions


@contextmanager
def _leave_out_inference_mode() -> Iterator[None]:
    """Let inference mode be no_grad: views of a wrapper made before it would be refused."""

    def enter(mode: Any) -> None:
        mode.stand_in = torch.no_grad() if mode.mode else nullcontext()
        mode.stand_in.__enter__()

    def leave(mode: Any, *raised: Any) -> None:
        mode.stand_in.__exit__(*raised)

    with patch.multiple(torch.inference_mode, __enter__=enter, __exit__=leave):
        yield


@contextmanager
def _replace_parameters() -> Iterator[None]:
    """Let modules that move make new parameters: torch sees no other device than the CPU."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(before)


@contextmanager
def simulate_cuda() -> Iterator[None]:
    """Simulate `DEVICES` CUDA devices in this thread; other threads see them without the checks."""
    assert not torch.cuda.is_available()
    with ExitStack() as stack:
        for name, stand_in in _list_stand_ins().items():
            stack.enter_context(patch.object(torch.cuda, name, stand_in))
        stack.enter_context(patch.object(torch, "load", _load(torch.load)))
        # threads have no modes
        stack.enter_context(patch.object(Tensor, "pin_memory", lambda tensor, *_: tensor))
        stack.enter_context(torch.serialization.safe_globals([_rebuild]))
        try:
            from triton.runtime.interpreter import GridExecutor
        except ImportError:
            pass
        else:
            call = _launch(GridExecutor.__call__)
            stack.enter_context(patch.object(GridExecutor, "__call__", call))
        questions.clear()
        stack.enter_context(_open_safetensors())
        stack.enter_context(_leave_out_inference_mode())
        stack.enter_context(_replace_parameters())
        stack.enter_context(_Made())
        stack.enter_context(_Caught())
        yield


@contextmanager
def use_cuda() -> Iterator[torch.device]:
    """Yield the CUDA device of this machine; a simulated one where there is none."""
    with nullcontext() if IS_REAL else simulate_cuda():
        yield torch.device("cuda", 0)


@contextmanager
def leave_out_kernels() -> Iterator[None]:
    """Compute by batched torch where the device is simulated: Triton's interpreter takes minutes.

    The CPU does so too, so that both round alike.
    """

    def is_available(_package: str, name: str, _device: str) -> bool:
        return name in ("reference", "batched")

    with ExitStack() as stack:
        if not IS_REAL:
            stack.enter_context(patch.object(implementation, "_is_available", is_available))
            stack.enter_context(patch.object(implementation, "_has_kernel", lambda _package: False))
        yield
