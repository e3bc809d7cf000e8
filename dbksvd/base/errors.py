"""How every script ends: results in place, or one line that says what was wrong."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from dbksvd.base.files import DAMAGED, DamagedFileError


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn expected errors into one line on stderr; use it as ``@report_errors()`` on ``main``.

    - ``ValueError`` (JSON errors among them) and ``OSError`` (missing file, full disk):
      ``error: ...``, exit status 1;
    - a damaged file of the results: the same, and its seal is renamed to ``….damaged``, so that
      the next run of the workflow makes the file anew;
    - Ctrl-C, and SIGTERM as a scheduler sends it: ``interrupted``, exit status 130. Both unwind
      the stack, so temporary files are removed;
    - anything else is a bug and keeps its traceback.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, _interrupt) if in_main_thread else None
    try:
        yield
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    except DamagedFileError as error:
        _leave(f"error: {_set_aside(error)}", 1)
    except (ValueError, OSError) as error:
        _leave(f"error: {_flatten(error)}", 1)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, previous)


def _interrupt(_signal: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _set_aside(error: DamagedFileError) -> str:
    """Rename the seal of a damaged file; return what to tell."""
    try:
        error.seal.replace(f"{error.seal}{DAMAGED}")
    except OSError:  # read-only, or another job was faster
        return _flatten(error)
    reason = " ".join(error.reason.split())
    name = error.seal.name
    return f"{reason}; run again to make it anew ({name} is now {name}{DAMAGED})"


def _flatten(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _leave(line: str, status: int) -> NoReturn:
    sys.stderr.write(f"{line}\n")
    sys.exit(status)
