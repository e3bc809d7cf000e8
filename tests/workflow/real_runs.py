"""Which tests run real jobs of Snakemake, found in what they and their fixtures call."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest
import running

from benchmarks import kills

TESTS = str(Path(__file__).parents[1])
# All real runs of the tests go through these.
RUNNERS = (running.run_snakemake, kills.Experiment)


def finds_real_run(item: pytest.Function) -> bool:
    """Return whether a test, or a fixture that it is given, may call one of RUNNERS."""
    fixtures = item._fixtureinfo.name2fixturedefs
    functions = [item.function, *(each.func for found in fixtures.values() for each in found)]
    return any(map(calls_runner, functions))


@cache
def calls_runner(function: Callable[..., object]) -> bool:
    waiting, seen = [function], set()
    while waiting:
        one = waiting.pop()
        if one in RUNNERS:
            return True
        if isinstance(one, FunctionType) and one not in seen and is_of_tests(one):
            seen.add(one)
            waiting += list_used(one)
    return False


def is_of_tests(function: FunctionType) -> bool:
    return function.__code__.co_filename.startswith(TESTS)


def list_used(function: FunctionType) -> Iterator[Callable[..., object]]:
    """Yield the global functions and classes that a function names."""
    for name in list_names(function.__code__):
        value = function.__globals__.get(name)
        if callable(value) and not isinstance(value, ModuleType):
            yield value


def list_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # of a function inside
            yield from list_names(constant)
