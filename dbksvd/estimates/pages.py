"""What the feature pages of an experiment cost: collecting examples, and rendering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dbksvd.base.work import FLOAT, Work

if TYPE_CHECKING:
    from dbksvd.estimates.stages import SiteRows

# Of an atom with 45 examples, on one CPU core: rough, from the default experiment.
RENDERING_SECONDS = 0.005
RENDERED_BYTES = 4e3
COLLECTED_BYTES = 5e3
HELD_BYTES = 2e4


def count_tokens(config: Any, rows: SiteRows) -> float:
    """Return the tokens that are read for the pages of a site, at most.

    Parameters
    ----------
    config : ExperimentConfig
        A checked config with pages.
    rows : SiteRows
        The site. Without text only the stored rows are known.
    """
    examples = config.pages.examples
    if config.text is not None and rows.site.is_layer:
        held = config.text.heldout_fraction
        share = held if examples.split == "heldout" else 1 - held
        tokens = share * config.text.max_documents * config.activations.context_length
    else:
        tokens = rows.n_heldout if examples.split == "heldout" else rows.n_train
    return float(min(tokens, examples.n_tokens or tokens))


def count_collection(
    config: Any, rows: SiteRows, coding: Sequence[tuple[Any, Work]], reading: Work
) -> Work:
    """Return the work of collecting the examples of a site.

    Parameters
    ----------
    config : ExperimentConfig
        A checked config with pages.
    rows : SiteRows
        The site.
    coding : sequence of (fit, Work)
        Its dictionaries with pages, and what coding one sample takes.
    reading : Work
        The work of one token in the model, and its memory.
    """
    tokens = count_tokens(config, rows)
    atoms = sum(fit.n_atoms for fit, _ in coding)
    work = reading.times(tokens)
    for _, one in coding:
        work += one.times(tokens)
    tables = config.pages.examples.table_megabytes * 2**20
    held = reading.memory + tables + atoms * (rows.width * FLOAT + HELD_BYTES)
    return work + Work(memory=held, disk=atoms * COLLECTED_BYTES)


def count_rendering(atoms: int) -> Work:
    """Return the work of rendering the pages of so many atoms."""
    return Work(
        host_seconds=atoms * RENDERING_SECONDS,
        memory=atoms * HELD_BYTES,
        disk=atoms * RENDERED_BYTES,
    )
