"""How tables and figures call each method."""

from __future__ import annotations

from dbksvd.fit.registry import find_method
from workflow.config import ExperimentConfig


def find_labels(config: ExperimentConfig) -> dict[str, str]:
    """Return the label of each method: the config's word, or else its entry's.

    Entries of one kind have one label; the name is added where that happens.
    """
    own = {name: _find_label(config, name) for name in config.methods}
    repeated = {label for label in own.values() if list(own.values()).count(label) > 1}
    found = {
        name: f"{label} ({name})" if label in repeated else label for name, label in own.items()
    }
    return found | config.figures.labels


def _find_label(config: ExperimentConfig, name: str) -> str:
    settings = config.methods[name]
    method = find_method(settings.algorithm)
    label, base = method.label(settings), method.find_base(settings)
    if method.coding is not None or base is None or base.method not in config.methods:
        return label
    of = config.methods[base.method]
    return f"{find_method(of.algorithm).label(of)}, {label}"
