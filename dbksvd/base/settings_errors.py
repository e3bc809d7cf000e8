"""The error that tells what is wrong with settings, and the words of its messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, TypeVar

LONGEST = 200  # characters of a value in a message
MOST_PROBLEMS = 50  # that are told

Found = TypeVar("Found")


class SettingsError(ValueError):
    """Settings that cannot be used.

    Parameters
    ----------
    *problems : str
        A line for each thing that is wrong, which names the key, what was expected and what came.
        The message is the first one, with the number of the others.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        others = len(problems) - 1
        super().__init__(problems[0] + (f" (and {others} more)" if others else ""))

    def tell(self, start: str) -> str:
        """Return a line for each problem, each after `start`, and how many there are if several."""
        shown = [f"{start}: {problem}" for problem in self.problems[:MOST_PROBLEMS]]
        if len(self.problems) > 1:
            hidden = len(self.problems) - len(shown)
            count = f"{start}: {len(self.problems)} problems"
            shown.append(f"{count}, of which {hidden} are not shown" if hidden else count)
        return "\n".join(shown)


class Problems:
    """What several checks find wrong, so that all of it can be told at once."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def catch(self, check: Callable[..., Found], *arguments: Any) -> Found | None:
        """Return what a check returns; keep its SettingsError, and return None."""
        try:
            return check(*arguments)
        except SettingsError as error:
            self._found += [problem for problem in error.problems if problem not in self._found]
        return None

    def tell(self) -> None:
        """Raise one SettingsError with all that was found, if anything was."""
        if self._found:
            raise SettingsError(*self._found)


def join(where: str, key: str) -> str:
    """Return the name of a key below `where`; odd names, such as an empty one, are quoted."""
    shown = key if re.fullmatch(r"[\w-]+", key) else show(key)
    return f"{where}.{shown}" if where else shown


def extend(where: str, name: str) -> str:
    """Return what :func:`join` does, or `where` itself if there is no name."""
    return join(where, name) if name else where


def show(value: Any) -> str:
    """Return a value as a message shows it: quoted, not too long."""
    if isinstance(value, int) and value.bit_length() > LONGEST:  # Python refuses to print more
        return f"an integer of {value.bit_length()} bits"
    text = str(value) if isinstance(value, date) else repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean …?" with the known word nearest to `word`, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
