"""What a config says of feature pages against what it says of fits."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from dbksvd.base.settings import SettingsError, suggest

if TYPE_CHECKING:
    from workflow.config import ExperimentConfig


def check_pages(config: ExperimentConfig, fits: Collection[str]) -> None:
    """Check that the dictionaries which shall have pages are fitted.

    Parameters
    ----------
    config : ExperimentConfig
        The config.
    fits : collection of str
        Names of all dictionaries, such as ``dbksvd/m512-k16-s0``.

    Raises
    ------
    SettingsError
        For the first that is not.
    """
    wanted = (config.pages and config.pages.dictionaries) or ()
    for place, name in enumerate(wanted):
        if name not in fits:
            raise SettingsError(
                f"pages.dictionaries[{place}]: expected a dictionary of `fits`"
                f"{suggest(name, fits)}, got {name!r}"
            )
