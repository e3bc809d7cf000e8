"""Revisions on the hub: a commit stays what it is, a branch or a tag may move."""

from __future__ import annotations

import re

_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str | None) -> bool:
    """Return whether a revision is a whole commit hash.

    Examples
    --------
    >>> is_commit("main"), is_commit("0" * 40)
    (False, True)
    """
    return revision is not None and _COMMIT.fullmatch(revision) is not None
