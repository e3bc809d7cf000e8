"""What the rules need to know of a config: checked settings, the list of fits, paths and params."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import product
from typing import Any

from dbksvd.activations.settings import choose_drawing, choose_extraction
from dbksvd.base.layout import name_fit
from dbksvd.base.registry import find_source
from dbksvd.base.settings import Settings, SettingsError, parse, suggest
from dbksvd.base.site import Site
from dbksvd.evaluation.saebench.checks import list_datasets
from dbksvd.evaluation.saebench.evals.core import wants_loss
from dbksvd.evaluation.saebench.registry import EVALS, find_eval
from dbksvd.fit.method import Method
from dbksvd.fit.registry import METHODS, find_method
from dbksvd.models.settings import ModelSettings
from dbksvd.models.sizes import ModelKind, find_kind
from dbksvd.report.figures.entry import Facts
from dbksvd.report.figures.registry import list_figures
from dbksvd.text.sources.registry import SOURCES
from workflow.checks import check_consistency, check_sizes
from workflow.config import ExperimentConfig, Grid
from workflow.external_access import list_external

SYNTHETIC = "synthetic"


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
    config : mapping
        Parsed config file.

    Raises
    ------
    SettingsError
        If the config does not follow its models or contradicts itself.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config: ExperimentConfig = parse(ExperimentConfig, config)
        check_consistency(self.config)
        self.folder = f"results/{self.config.experiment}"
        self.fits = sorted(set(self._list_fits()))
        self._check_pages()

    @property
    def sites(self) -> list[str]:
        """Where activations are taken, such as ``layer4``."""
        activations = self.config.activations
        layers = getattr(activations, "layers", None)
        sites: list[str] = (
            [activations.source]
            if layers is None
            else [str(Site("layer", layer)) for layer in layers]
        )
        return [*sites, SYNTHETIC] if self.config.ground_truth is not None else sites

    @property
    def source(self) -> str:
        """What activations come from: model, images, files or synthetic."""
        return self.config.activations.source

    def section(self, name: str) -> str:
        """Return one section of the config, with all defaults, as the param of a rule."""
        settings = getattr(self.config, name)
        return as_param({name: None if settings is None else settings.dump()})

    def text(self) -> str:
        """Return the param of preparing the text.

        Texts that the evals read are held out where the config does not say which are.
        """
        text = self.config.text
        if text is None:
            return as_param({"text": None})
        settings = text.dump()
        if text.held_out_datasets is None:
            settings["held_out_datasets"] = list_datasets(self.config.evaluation.list_evals())
        return as_param({"text": settings})

    def text_sources(self) -> list[str]:
        """Return the files of the text sources that are read."""
        text = self.config.text
        kinds = [] if text is None else sorted({source.kind for source in text.sources})
        return [find_source(SOURCES, kind) for kind in kinds]

    def extraction(self, layer: int | None) -> str:
        """Return the param of an extraction: what changes the activations, and the layer."""
        if self.source == SYNTHETIC:
            return as_param({"source": SYNTHETIC})  # it is drawn, not extracted
        return self._choose_extraction(layer)

    def stream(self, layer: int | None) -> str | None:
        """Return the param of fits whose training rows are streamed; None where all are stored."""
        settings = getattr(self.config.activations, "stream", None)
        if settings is None or layer is None:
            return None
        return self._choose_extraction(layer, streamed=True)

    def _choose_extraction(self, layer: int | None, *, streamed: bool = False) -> str:
        activations: Any = self.config.activations
        chosen = choose_extraction(activations, layer, self.loaded_model, streamed=streamed)
        return as_param(chosen.dump())

    @property
    def loaded_model(self) -> ModelSettings | None:
        """The model as later stages load it: a trained model is a local folder."""
        model = self.config.model
        return None if model is None else model.locate_trained(f"{self.folder}/language_model")

    @property
    def model(self) -> dict[str, Any] | None:
        """Section ``model`` as later stages load it, as JSON can hold it."""
        return None if self.loaded_model is None else self.loaded_model.dump()

    @property
    def model_training(self) -> dict[str, Any] | None:
        """Settings of the language model to train; None where a ready one is used."""
        model = self.config.model
        return None if model is None or model.train is None else model.train.dump()

    @cached_property
    def model_kind(self) -> ModelKind | None:
        """Kind of the model; None without one, or where only loading it can tell."""
        return None if self.config.model is None else find_kind(self.config.model)

    def access(self) -> str | None:
        """Return the param of asking for what is not on this machine; None where all is here."""
        wanted = list_external(self.config)
        return as_param(wanted) if any(wanted.values()) else None

    def method(self, name: str) -> Method:
        """Return the entry of a method of this experiment."""
        return find_method(self.config.methods[name].algorithm)

    def method_sources(self, name: str) -> list[str]:
        """Return the files that a method's fits begin at: an edit reruns the fits of it only."""
        settings = self.config.methods[name]
        own = find_source(METHODS, settings.algorithm)
        further = self.method(name).list_sources(settings)
        return [own, *(module.replace(".", "/") + ".py" for module in further)]

    def base(self, name: str) -> str | None:
        """Return the method whose fit of the same site, sizes and seed a method begins from."""
        found = self.method(name).find_base(self.config.methods[name])
        return None if found is None else found[1]

    @cached_property
    def labels(self) -> dict[str, str]:
        """How tables and figures call each method: the config's word, or else its entry's."""
        own = {name: self._find_label(name) for name in self.config.methods}
        repeated = {label for label in own.values() if list(own.values()).count(label) > 1}
        found = {
            name: f"{label} ({name})" if label in repeated else label for name, label in own.items()
        }
        return found | self.config.figures.labels

    def _find_label(self, name: str) -> str:
        label, base = self.method(name).label(self.config.methods[name]), self.base(name)
        if base is None or self.method(name).coding is not None:
            return label
        return f"{self._find_label(base)}, {label}"

    @cached_property
    def controls(self) -> list[str]:
        """Methods that are controls."""
        return [name for name in self.config.methods if self.method(name).is_control]

    @property
    def rivals(self) -> list[str]:
        """Methods that are compared with one another."""
        return [name for name in self.config.methods if name not in self.controls]

    def evals(self, site: str) -> dict[str, Settings]:
        """Return SAEBench's evals at a site with their settings: none without a model."""
        if not Site.parse(site).is_layer:
            return {}
        return {
            name: settings
            for name, settings in self.config.evaluation.list_evals().items()
            if not find_eval(name).needs_truth
        }

    def eval_files(self, name: str) -> list[str]:
        """Return the local files that an eval reads."""
        settings = self.config.evaluation.list_evals().get(name)
        return [] if settings is None else find_eval(name).files(settings)

    def preparation(self, name: str, site: str, layer: int | None) -> str:
        """Return the param that prepares one eval at a site."""
        seed, settings = self.config.evaluation.seed, self.evals(site)[name].dump()
        return as_param({"model": self.model, "layer": layer, "seed": seed, "settings": settings})

    def scoring(self, site: str) -> str:
        """Return the param that scores a dictionary at a site."""
        evals = {name: settings.dump() for name, settings in self.evals(site).items()}
        seed = self.config.evaluation.seed
        return as_param({"model": self.model, "seed": seed, "evals": evals})

    @property
    def drawing(self) -> Any:
        """What is drawn at the site ``synthetic``: its section of the config, or None."""
        if self.config.ground_truth is not None:
            return self.config.ground_truth
        return self.config.activations if self.source == SYNTHETIC else None

    @property
    def ground_truth(self) -> str | None:
        """Kind of the generative model whose features are known; None without one."""
        return None if self.drawing is None else self.drawing.synthetic.kind

    def count_slices(self, site: str) -> int:
        """Return the number of parts that the activations of a site are made in."""
        section = self.drawing if site == SYNTHETIC else self.config.activations
        return 0 if section is None else section.slices

    def synthetic_model(self) -> str:
        """Return the param that makes the generative model."""
        if self.drawing is None:
            return as_param({})
        return as_param(self.drawing.synthetic.describe_model())

    def synthetic_samples(self) -> str:
        """Return the param of drawing samples from the generative model."""
        return as_param({} if self.drawing is None else choose_drawing(self.drawing).dump())

    def ground_truth_scoring(self) -> str:
        """Return the param of scoring against the known features."""
        given = self.config.evaluation.list_evals().get("ground_truth")
        settings = given or find_eval("ground_truth").settings()
        return as_param({**settings.dump(), "seed": self.config.evaluation.seed})

    @cached_property
    def facts(self) -> Facts:
        """What figures ask to know whether there is something to draw."""
        evals = self.config.evaluation.list_evals()
        core: Any = evals.get("core")
        methods = {fit.method for fit in self.fits}
        sizes = [(fit.site, fit.method, fit.n_atoms, fit.k) for fit in self.fits]
        return Facts(
            evals=frozenset(evals) - {"ground_truth"},
            has_loss=core is not None and wants_loss(core, self.model_kind),
            ground_truth=self.ground_truth,
            architectures=frozenset(
                str(getattr(self.config.methods[name], "architecture", None)) for name in methods
            ),
            seeds=max(sizes.count(size) for size in set(sizes)),
        )

    @cached_property
    def figures(self) -> list[str]:
        """Names of the figures that this experiment has the data for."""
        return list_figures(self.facts)

    def headline_sources(self) -> list[str]:
        """Return the files of the evals whose headlines tables show."""
        names = [*self.config.evaluation.list_evals()]
        if self.ground_truth and "ground_truth" not in names:
            names.append("ground_truth")
        return [find_source(EVALS, name) for name in names]

    def drawing_settings(self) -> str:
        """Return the param of the figures."""
        model = self.config.model
        return as_param(
            {
                "figures": self.config.figures.dump(),
                "methods": list(self.config.methods),
                "labels": self.labels,
                "controls": self.controls,
                "model": None if model is None else model.name,
            }
        )

    def page_fits(self, site: str) -> list[Fit]:
        """Return the dictionaries of a site that have feature pages, in the order of methods."""
        if self.config.pages is None:
            return []
        here = [fit for fit in self.fits if fit.site == site]
        wanted = self.config.pages.dictionaries
        if wanted is not None:
            return [fit for fit in here if fit.name in wanted]
        of_methods = [
            [fit for fit in here if fit.method == method] for method in self.config.methods
        ]
        return [choose_typical(fits) for fits in of_methods if fits]

    def _check_pages(self) -> None:
        """Check that dictionaries which shall have pages are fitted."""
        known = {fit.name for fit in self.fits}
        wanted = (self.config.pages and self.config.pages.dictionaries) or ()
        for place, name in enumerate(wanted):
            if name not in known:
                raise SettingsError(
                    f"pages.dictionaries[{place}]: expected a dictionary of `fits`"
                    f"{suggest(name, known)}, got {name!r}"
                )

    def page_examples(self) -> str:
        """Return the param of collecting examples."""
        return self._dump_pages("examples")

    def page_extraction(self, site: str, layer: int | None) -> str:
        """Return the param that says how the activations of a site were extracted."""
        is_drawn = site == SYNTHETIC
        return as_param(None) if is_drawn else self._choose_extraction(layer)

    def page_settings(self) -> str:
        """Return the param of rendering pages."""
        return as_param({"experiment": self.config.experiment, "labels": self.labels})

    def _dump_pages(self, name: str) -> str:
        pages = self.config.pages
        return as_param(None if pages is None else pages.dump()[name])

    def ground_truth_file(self, fit: Fit) -> str | None:
        """Path of a dictionary's scores against known features; None where they are not known."""
        if fit.site != SYNTHETIC:
            return None
        return f"{self.folder}/{fit.site}/ground_truth/{fit.name}/scores.json"

    def rows(self) -> str:
        """Return all fits, shortly; `dbksvd.base.layout.expand_rows` adds their folders."""
        return as_param({"folder": self.folder, "fits": [astuple(fit) for fit in self.fits]})

    def _list_fits(self) -> Iterator[Fit]:
        sites = [site for site in self.sites if site != SYNTHETIC] or self.sites
        yield from self._expand(self.config.fits, "fits", sites)
        if self.config.ground_truth is not None:
            yield from self._expand(self.config.ground_truth.fits, "ground_truth.fits", [SYNTHETIC])

    def _expand(self, grids: Sequence[Grid], where: str, sites: list[str]) -> Iterator[Fit]:
        """Yield the fits of a list of grids, which stands at `where` in the config."""
        methods = self.config.methods
        for position, grid in enumerate(grids):
            for method, m, k, seed in product(grid.methods, grid.n_atoms, grid.k, grid.seeds):
                place = f"{where}[{position}]"
                if method not in methods:
                    raise SettingsError(
                        f"{place}.methods: expected a name from methods{suggest(method, methods)}, "
                        f"got {method!r}"
                    )
                if k > m:
                    raise SettingsError(f"{place}.k: expected at most n_atoms = {m}, got {k}")
                check_sizes(methods[method], m, k, f"methods.{method}", place)
                for site in sites:
                    yield Fit(site, method, m, k, seed)


def choose_typical(fits: Sequence[Fit]) -> Fit:
    """Return the fit of most atoms, the middle k and the first seed."""
    most = max(fit.n_atoms for fit in fits)
    largest = [fit for fit in fits if fit.n_atoms == most]
    sparsities = sorted({fit.k for fit in largest})
    middle = sparsities[(len(sparsities) - 1) // 2]
    return min((fit for fit in largest if fit.k == middle), key=lambda fit: fit.seed)


def as_param(content: Any) -> str:
    """Return `content` as compact JSON with sorted keys: equal content, equal string."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
