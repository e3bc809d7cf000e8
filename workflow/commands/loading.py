"""A config as every command of the workflow reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workflow.experiment import Experiment
from workflow.layers import read_layers

ROOT = Path(__file__).resolve().parents[2]
SNAKEFILE = ROOT / "workflow" / "Snakefile"


def load_experiment(configs: Sequence[Path]) -> Experiment:
    """Return the experiment that config files make together; a later one lies over the earlier.

    Raises
    ------
    SettingsError
        With a line for each thing that is wrong.
    """
    return Experiment(read_layers(configs, {}))
