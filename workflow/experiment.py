"""What the rules need to know of a config: checked settings, the list of fits, paths and params."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import product
from typing import Any

from dbksvd.base.layout import name_fit
from workflow.checks import check_consistency, check_sizes
from workflow.external_access import list_outside
from workflow.schema import ConfigError, check_schema, suggest


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
        return name_fit(self.method, self.n_atoms, self.k, self.seed)


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
        if activations["source"] in ("model", "images"):
            sites = [f"layer{layer}" for layer in activations["layers"]]
        else:
            sites = [activations["source"]]
        return [*sites, "synthetic"] if "ground_truth" in self.config else sites

    @property
    def needs_text(self) -> bool:
        """Whether activations are extracted from text rather than read from files."""
        return self.config["activations"]["source"] == "model"

    @property
    def needs_images(self) -> bool:
        """Whether activations are extracted from images."""
        return self.config["activations"]["source"] == "images"

    def section(self, *names: str, **extra: Any) -> str:
        """Return sections of the config as JSON with sorted keys, the exact param of a rule."""
        return as_param({**{name: self.config.get(name) for name in names}, **extra})

    def extraction(self, layer: int | None) -> str:
        """Return the param of an extraction: what changes the activations, and the layer."""
        return as_param(self._describe_extraction(layer))

    def stream(self, layer: int | None) -> str | None:
        """Return the param of fits whose training rows are streamed; None where all are stored."""
        settings = self.config["activations"].get("stream")
        if settings is None or layer is None:
            return None
        return as_param({**self._describe_extraction(layer), "stream": settings})

    def _describe_extraction(self, layer: int | None) -> dict[str, Any]:
        settings = {**self.config["activations"], "layer": layer, "model": self.model}
        return {key: settings[key] for key in settings if key not in ("layers", "stream")}

    @property
    def model(self) -> dict[str, Any] | None:
        """Section ``model`` as later stages need it: a trained model is a local folder."""
        model: dict[str, Any] | None = self.config.get("model")
        if model is not None and "train" in model:
            others = {key: value for key, value in model.items() if key != "train"}
            return {**others, "name": f"{self.folder}/language_model"}
        return model

    @property
    def model_training(self) -> dict[str, Any] | None:
        """Settings of the language model to train; None where a ready one is used."""
        return (self.config.get("model") or {}).get("train")

    def access(self) -> str | None:
        """Return the param of asking for what is not on this machine; None where all is here."""
        wanted = list_outside(self.config)
        return as_param(wanted) if any(wanted.values()) else None

    def evals(self, site: str) -> dict[str, dict[str, Any]]:
        """Return SAEBench's evals at a site with their settings: none without a model."""
        if not site.startswith("layer"):
            return {}
        return {
            name: settings
            for name, settings in self.config["evaluation"]["evals"].items()
            if name != "ground_truth"
        }

    def preparation(self, name: str, site: str, layer: int | None) -> str:
        """Return the param that prepares one eval at a site."""
        seed, settings = self.config["evaluation"]["seed"], self.evals(site)[name]
        return as_param({"model": self.model, "layer": layer, "seed": seed, "settings": settings})

    def scoring(self, site: str) -> str:
        """Return the param that scores a dictionary at a site."""
        seed, evals = self.config["evaluation"]["seed"], self.evals(site)
        return as_param({"model": self.model, "seed": seed, "evals": evals})

    @property
    def drawing(self) -> dict[str, Any]:
        """What is drawn at the site ``synthetic``: its section of the config, or nothing."""
        section: dict[str, Any] = self.config.get("ground_truth") or self.config["activations"]
        return section if "synthetic" in section else {}

    @property
    def ground_truth(self) -> str | None:
        """Kind of the generative model whose features are known; None without one."""
        return self.drawing.get("synthetic", {}).get("kind")

    def count_slices(self, site: str) -> int:
        """Return the number of parts that the activations of a site are made in."""
        section = self.drawing if site == "synthetic" else self.config["activations"]
        return int(section.get("slices", 0))

    def synthetic_model(self) -> str:
        """Return the param that makes the generative model."""
        settings = dict(self.drawing.get("synthetic", {}))
        settings.pop("sample_seed", None)
        return as_param(settings)

    def synthetic_samples(self) -> str:
        """Return the param of drawing samples from the generative model."""
        names = ("n_train_tokens", "n_heldout_tokens", "slices", "storage_dtype")
        settings = {name: self.drawing[name] for name in names if name in self.drawing}
        settings["sample_seed"] = self.drawing.get("synthetic", {}).get("sample_seed", 0)
        return as_param(settings)

    def ground_truth_scoring(self) -> str:
        """Return the param of scoring against the known features."""
        evaluation = self.config["evaluation"]
        settings = evaluation["evals"].get("ground_truth", {})
        return as_param({"batch_rows": 1024, **settings, "seed": evaluation["seed"]})

    @property
    def figures(self) -> list[str]:
        """Names of the figures that this experiment has the data for."""
        names = ["variance_explained", "cost", "convergence", "atom_usage"]
        evals = set(self.config["evaluation"]["evals"]) - {"ground_truth"}
        if evals:
            names.append("evals")
        if self.config["evaluation"]["evals"].get("core", {}).get("ce_loss"):
            names.append("loss_recovered")
        if "sparse_probing_sae_probes" in evals:
            names.append("probing")
        if self.ground_truth:
            names.append("identification")
        if self.ground_truth == "block_correlated":
            names.append("correlation_recovery")
        routed = any(
            self.config["methods"][fit.method].get("architecture") == "switch" for fit in self.fits
        )
        if self.ground_truth == "expert_mixture" and routed:
            names.append("routing")
        return names

    def ground_truth_file(self, fit: Fit) -> str | None:
        """Path of a dictionary's scores against known features; None where they are not known."""
        if fit.site != "synthetic":
            return None
        return f"{self.folder}/{fit.site}/ground_truth/{fit.name}/scores.json"

    def rows(self) -> str:
        """Return all fits, shortly; `dbksvd.base.layout.expand_rows` adds their folders."""
        return as_param({"folder": self.folder, "fits": [astuple(fit) for fit in self.fits]})

    def _list_fits(self) -> Iterator[Fit]:
        sites = [site for site in self.sites if site != "synthetic"] or self.sites
        yield from self._expand(self.config["fits"], "fits", sites)
        if "ground_truth" in self.config:
            grids = self.config["ground_truth"]["fits"]
            yield from self._expand(grids, "ground_truth.fits", ["synthetic"])

    def _expand(self, grids: list[dict[str, Any]], where: str, sites: list[str]) -> Iterator[Fit]:
        """Yield the fits of a list of grids, which stands at `where` in the config."""
        for position, grid in enumerate(grids):
            for method, m, k, seed in product(
                grid["methods"], grid["n_atoms"], grid["k"], grid["seeds"]
            ):
                place = f"{where}[{position}]"
                if method not in self.config["methods"]:
                    raise ConfigError(
                        f"{place}.methods: expected a name from methods"
                        f"{suggest(method, self.config['methods'])}, got {method!r}"
                    )
                if k > m:
                    raise ConfigError(f"{place}.k: expected at most n_atoms = {m}, got {k}")
                check_sizes(self.config["methods"][method], m, k, f"methods.{method}", place)
                for site in sites:
                    yield Fit(site, method, m, k, seed)


def as_param(content: Any) -> str:
    """Return `content` as compact JSON with sorted keys: equal content, equal string."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
