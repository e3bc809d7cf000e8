"""How many examples a property test tries: the same few in CI, many random ones in `make fuzz`."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

FUZZ_FACTOR = 20


def try_examples(count: int, **options: Any) -> settings:
    """Return Hypothesis settings of `count` examples, `FUZZ_FACTOR` times as many in `make fuzz`."""
    is_fuzz = settings.get_current_profile_name() == "fuzz"
    return settings(max_examples=count * (FUZZ_FACTOR if is_fuzz else 1), deadline=None, **options)
