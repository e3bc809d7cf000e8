"""What the rules need to know of a config: checked settings, the list of fits, paths and params."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

SCHEMA = Path(__file__).parent / "schemas" / "config.schema.yaml"


class ConfigError(Exception):
    """A setting that cannot be used; the message names the key, what was expected and what came."""


@dataclass(frozen=True, order=True)
class Fit:
    """One dictionary of the experiment."""

    site: str
    method: str
    n_atoms: int
    k: int
    seed: int

    @property
    def name(self) -> str:
        """Folder of the dictionary below ``dictionaries/``."""
        return f"{self.method}/m{self.n_atoms}-k{self.k}-s{self.seed}"


class Experiment:
    """A checked config.

    Parameters
    ----------
    config : dict
        Parsed config file.

    Raises
    ------
    ConfigError
        If the config does not follow the schema or contradicts itself.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        check_schema(config)
        check_consistency(config)
        self.config = config
        self.folder = f"results/{config['experiment']}"
        self.fits = sorted(set(self._list_fits()))

    @property
    def sites(self) -> list[str]:
        """Places in the model that activations are taken from, such as ``layer4``."""
        activations = self.config["activations"]
        if activations["source"] == "files":
            return ["files"]
        return [f"layer{layer}" for layer in activations["layers"]]

    @property
    def needs_text(self) -> bool:
        """Whether activations are extracted from text rather than read from files."""
        return self.config["activations"]["source"] == "model"

    def section(self, *names: str, **extra: Any) -> str:
        """Return sections of the config as JSON with sorted keys, the exact param of a rule."""
        return as_param({**{name: self.config.get(name) for name in names}, **extra})

    def extraction(self, layer: int | None) -> str:
        """Return the param of an extraction: what changes the activations, and the layer."""
        settings = {**self.config["activations"], "layer": layer, "model": self.config.get("model")}
        settings.pop("layers", None)
        return as_param(settings)

    def rows(self) -> str:
        """Return all fits with the folders of their dictionary and scores."""
        return as_param(
            [
                {
                    **asdict(fit),
                    "dictionary": f"{self.folder}/{fit.site}/dictionaries/{fit.name}",
                    "evaluation": f"{self.folder}/{fit.site}/evaluations/{fit.name}",
                }
                for fit in self.fits
            ]
        )

    def _list_fits(self) -> Iterator[Fit]:
        for position, grid in enumerate(self.config["fits"]):
            for method, m, k, seed in product(
                grid["methods"], grid["n_atoms"], grid["k"], grid["seeds"]
            ):
                if method not in self.config["methods"]:
                    raise ConfigError(
                        f"fits[{position}].methods: expected a name from methods"
                        f"{_suggest(method, self.config['methods'])}, got {method!r}"
                    )
                if k > m:
                    raise ConfigError(
                        f"fits[{position}].k: expected at most n_atoms = {m}, got {k}"
                    )
                for site in self.sites:
                    yield Fit(site, method, m, k, seed)


def as_param(content: Any) -> str:
    """Return `content` as compact JSON with sorted keys: equal content, equal string."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def check_schema(config: dict[str, Any]) -> None:
    """Check a config against the schema.

    Raises
    ------
    ConfigError
        For the first thing that is wrong, in one line.
    """
    _check_values(config, "")
    schema = yaml.safe_load(SCHEMA.read_text())
    error = best_match(Draft202012Validator(schema).iter_errors(config))
    if error is not None:
        raise ConfigError(_explain(error))


def check_consistency(config: dict[str, Any]) -> None:
    """Check what one key says against what another says.

    Raises
    ------
    ConfigError
        For the first contradiction, in one line.
    """
    evals = config["evaluation"]["evals"]
    if config["activations"]["source"] == "model":
        for key in ("text", "model"):
            if key not in config:
                raise ConfigError(f"{key}: missing key, needed for activations.source: model")
    elif evals:
        raise ConfigError(
            "evaluation.evals: expected {} for activations.source: files, since SAEBench runs the "
            f"model, got {', '.join(evals)}"
        )
    for split in ("train", "heldout"):
        _check_at_least_slices(config["activations"], f"n_{split}_tokens")
    held_out = set(config.get("text", {}).get("held_out_datasets", ()))
    for name, settings in evals.items():
        fitted = [data for data in settings.get("datasets", ()) if data not in held_out]
        if fitted:
            raise ConfigError(
                f"evaluation.evals.{name}.datasets: expected names from text.held_out_datasets, "
                f"so that no scored text is fitted, got {fitted[0]!r}"
            )
    for key in ("labels", "controls"):
        for method in config["figures"][key]:
            if method not in config["methods"]:
                raise ConfigError(
                    f"figures.{key}: expected names from methods"
                    f"{_suggest(method, config['methods'])}, got {method!r}"
                )


def _check_at_least_slices(activations: dict[str, Any], key: str) -> None:
    if activations[key] < activations["slices"]:
        raise ConfigError(
            f"activations.{key}: expected at least slices = {activations['slices']}, "
            f"got {activations[key]}"
        )


def _check_values(value: Any, where: str) -> None:
    """Refuse what YAML can say but JSON, and so a param, cannot: odd keys, NaN and infinity."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{_join(where, str(key))}: expected a text key, got {key!r}")
            _check_values(item, _join(where, key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _check_values(item, f"{where}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: expected a finite number, got {value}")


def _explain(error: ValidationError) -> str:
    where = _format_path(error.absolute_path)
    value, rule = error.instance, error.validator_value
    match error.validator:
        case "additionalProperties":
            known = error.schema.get("properties", {})
            key = next(key for key in value if key not in known)
            hint = _suggest(key, known) or f", expected one of {', '.join(sorted(known))}"
            return f"{_join(where, key)}: unknown key{hint}"
        case "required":
            key = next(key for key in rule if key not in value)
            return f"{_join(where, key)}: missing key"
        case "type":
            kind = " or ".join(rule) if isinstance(rule, list) else rule
            return f"{where}: expected {kind}, got {value!r}"
        case "enum":
            return f"{where}: expected one of {', '.join(map(repr, rule))}, got {value!r}"
        case "minimum":
            return f"{where}: expected at least {rule}, got {value!r}"
        case "maximum":
            return f"{where}: expected at most {rule}, got {value!r}"
        case "exclusiveMinimum":
            return f"{where}: expected more than {rule}, got {value!r}"
        case "exclusiveMaximum":
            return f"{where}: expected less than {rule}, got {value!r}"
        case "pattern":
            return f"{where}: expected text matching {rule}, got {value!r}"
        case "oneOf" if "required" not in rule[0]:
            return f"{where}: expected a positive whole number or a list of them, got {value!r}"
        case "oneOf":
            names = " or ".join(option["required"][0] for option in rule)
            return f"{where}: expected exactly one of the keys {names}, got {sorted(value)}"
        case "uniqueItems":
            return f"{where}: expected no repeats, got {value!r}"
        case "minProperties":
            return f"{where}: expected at least {rule} entry, got none"
        case "minItems":
            return f"{where}: expected at least {rule} item, got {value!r}"
        case _:
            return f"{where}: {error.message}"


def _format_path(path: Any) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "config"


def _join(where: str, key: str) -> str:
    return key if where in ("", "config") else f"{where}.{key}"


def _suggest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
