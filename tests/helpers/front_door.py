"""Odd input at a front door: a result, or one line that says what was wrong; no hang."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

SECONDS = 60
LONGEST_MESSAGE = 700  # characters


def knock(function: Callable[[], Any], *names: str) -> tuple[Any, str | None]:
    """Call `function`; return its result and None, or None and the one line it was refused with.

    Anything but a ValueError or an OSError, which scripts turn into one line, goes through, and so
    fails the test. A call that takes longer than `SECONDS` is a hang.

    Parameters
    ----------
    function : callable
        The front door with its arguments.
    *names : str
        A refusal holds at least one of these: the file or the key.
    """

    def give_up(*_arguments: Any) -> None:
        raise AssertionError(f"no answer after {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    try:
        return function(), None
    except (ValueError, OSError) as error:
        message = str(error).strip()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    assert message
    assert "\n" not in message, message
    assert len(message) <= LONGEST_MESSAGE, message
    assert not names or any(name in message for name in names), message
    return None, message
