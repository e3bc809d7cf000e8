"""What the rules need to know of a config: checked settings, the list of fits, paths and params."""

from __future__ import annotations

import difflib
import json
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
    schema = yaml.safe_load(SCHEMA.read_text())
    error = best_match(Draft202012Validator(schema).iter_errors(config))
    if error is not None:
        raise ConfigError(_explain(error))


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
    return key if where == "config" else f"{where}.{key}"


def _suggest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
