"""What comparing the seeds of an experiment costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dbksvd.base.work import FLOAT, Work

if TYPE_CHECKING:
    from dbksvd.estimates.stages import SiteRows

# One matching on one CPU core, in proportion to m²: half a second for 2,048 atoms, and 16 seconds,
# the products beside it, for 16,384 (docs/stability.md).
MATCHING_SECONDS = 0.4 / 2048**2


def count_comparisons(config: Any, coding: Iterable[tuple[SiteRows, Any, Work]]) -> list[Work]:
    """Return the work of each job that compares seeds: one for each kind with two or more.

    Parameters
    ----------
    config : ExperimentConfig
        A checked config.
    coding : iterable of (SiteRows, fit, Work)
        Its dictionaries, and what coding one sample takes.
    """
    settings = config.evaluation.stability
    kinds: dict[tuple[Any, ...], list[tuple[SiteRows, Any, Work]]] = {}
    for rows, fit, one in coding if settings is not None else ():
        kind = (fit.site, fit.method, fit.n_atoms, fit.k)
        kinds.setdefault(kind, []).append((rows, fit, one))
    works = []
    for group in kinds.values():
        seeds, (rows, fit, one) = len(group), group[0]
        if seeds < 2:
            continue
        n, pairs = min(settings.rows, rows.n_heldout), seeds * (seeds - 1) // 2
        matchings = 2 * pairs + settings.draws
        products = 2.0 * fit.n_atoms**2 * rows.width * (pairs + settings.draws)
        works.append(
            one.times(seeds * n)
            + Work(
                products=products,
                host_seconds=matchings * MATCHING_SECONDS * fit.n_atoms**2,
                memory=seeds * (fit.n_atoms * rows.width + 6.0 * n * fit.k) * FLOAT,
                disk=seeds * fit.n_atoms * FLOAT,
            )
        )
    return works
