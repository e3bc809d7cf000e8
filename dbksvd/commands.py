"""How every script ends: results in place, or one line that says what was wrong."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn expected errors into one line on stderr; use it as ``@report_errors()`` on ``main``.

    - ``ValueError`` (JSON errors among them) and ``OSError`` (missing file, full disk):
      ``error: ...``, exit status 1;
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
    except (ValueError, OSError) as error:
        _leave(f"error: {' '.join(str(error).split()) or type(error).__name__}", 1)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, previous)


def _interrupt(_signal: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _leave(line: str, status: int) -> NoReturn:
    sys.stderr.write(f"{line}\n")
    sys.exit(status)
