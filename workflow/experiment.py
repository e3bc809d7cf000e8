"""What the rules need to know of a config: checked settings, the list of fits, paths and params."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from dbksvd.activations.settings import choose_drawing, choose_extraction
from dbksvd.activations.site_settings import LayerSettings
from dbksvd.base.layout import name_fit
from dbksvd.base.registry import find_source
from dbksvd.base.settings import Settings, SettingsError, parse, suggest
from dbksvd.base.settings_errors import Problems
from dbksvd.base.site import PAIRS, RESIDUAL, Site
from dbksvd.evaluation.saebench.checks import list_datasets, scores_place
from dbksvd.evaluation.saebench.data.settings import reads_heldout
from dbksvd.evaluation.saebench.evals.core import wants_loss
from dbksvd.evaluation.saebench.registry import EVALS, find_eval
from dbksvd.fit.method import Method
from dbksvd.fit.registry import METHODS, find_method
from dbksvd.models.places import find_gguf
from dbksvd.models.settings import ModelSettings, RandomiseSettings
from dbksvd.models.sizes import ModelKind, find_kind
from dbksvd.report.figures.entry import Facts
from dbksvd.report.figures.registry import list_figures
from dbksvd.text.sources.registry import SOURCES
from workflow.checks import check_consistency
from workflow.config import ExperimentConfig, Grid
from workflow.external_access import list_external
from workflow.ground_truth_checks import check_seed
from workflow.labels import find_labels
from workflow.method_checks import check_sizes
from workflow.norm_limits import may_leave_out_rows
from workflow.page_checks import check_pages
from workflow.stability import SeedGroups, group_seeds

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

    @property
    def is_transcoder(self) -> bool:
        """Whether it reconstructs another place than it encodes."""
        return Site.parse(self.site).is_pair


class Experiment:
    """A checked config.

    Parameters
    ----------
    config : mapping
        Parsed config file.

    Raises
    ------
    SettingsError
        If the config does not follow its models or contradicts itself; with a line for each thing.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config: ExperimentConfig = parse(ExperimentConfig, config)
        self.folder = f"results/{self.config.experiment}"
        problems = Problems()
        problems.catch(check_consistency, self.config)
        # One dictionary for a fit that several grids name.
        self.fits = sorted(set(self._list_fits(problems)))
        problems.catch(self._check_places)
        paged = {fit.name for fit in self.fits if not fit.is_transcoder}
        problems.catch(check_pages, self.config, paged)
        problems.tell()
        for fit in self.made:  # only of a config without circles, in which this would not end
            problems.catch(self._check_made, fit)
        problems.tell()

    @property
    def sites(self) -> list[str]:
        """Where activations are taken, such as ``layer4``."""
        activations: Any = self.config.activations
        if not isinstance(activations, LayerSettings):
            sites = [activations.source]
        else:
            sites = [str(site) for site in activations.list_sites()]
            if self.config.randomised is not None:
                sites += [str(site) for site in activations.list_sites("random_layer")]
        return [*sites, SYNTHETIC] if self.config.ground_truth is not None else sites

    @property
    def model_sites(self) -> list[str]:
        """Those of the model as it was trained."""
        parsed = map(Site.parse, self.sites)
        return [str(site) for site in parsed if site.is_layer and not site.is_random]

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

    def extraction(self, site: str) -> Any:
        """Return what changes the activations of a site, as JSON can hold it."""
        if self.source == SYNTHETIC:
            return {"source": SYNTHETIC}  # it is drawn, not extracted
        return self.choose_extraction(Site.parse(site)).dump()

    def stream(self, site: str) -> str | None:
        """Return the param of fits whose training rows are streamed; None where all are stored."""
        settings, parsed = getattr(self.config.activations, "stream", None), Site.parse(site)
        if settings is None or not parsed.is_layer:
            return None
        return as_param(self.choose_extraction(parsed, streamed=True).dump())

    def choose_extraction(self, site: Site, *, streamed: bool = False) -> Any:
        """Return the settings of extracting a site of the model, images or files."""
        activations: Any = self.config.activations
        model = self.choose_model(is_random=site.is_random)
        return choose_extraction(
            activations, site.layer, model, place=site.place, streamed=streamed
        )

    def choose_model(self, *, is_random: bool) -> ModelSettings | None:
        """Return the model as later stages load it, as it was trained or with random weights."""
        drawn, model = self.config.randomised, self.loaded_model
        if not is_random or drawn is None or model is None:
            return model
        own = RandomiseSettings(seed=drawn.seed, embeddings=drawn.embeddings)
        return model.make_random(own)

    @property
    def loaded_model(self) -> ModelSettings | None:
        """The model as later stages load it: a converted model is a local folder."""
        model = self.config.model
        if model is None or self.gguf is None:
            return model
        return model.locate_converted(self.converted)

    @property
    def model(self) -> dict[str, Any] | None:
        """Section ``model`` as later stages load it, as JSON can hold it."""
        return None if self.loaded_model is None else self.loaded_model.dump()

    @cached_property
    def gguf(self) -> Path | None:
        """The GGUF file of the model; None for a model in another form."""
        return None if self.config.model is None else find_gguf(self.config.model)

    def _dump_model(self, site: str) -> dict[str, Any] | None:
        """Return the model of a site, as JSON can hold it."""
        model = self.choose_model(is_random=Site.parse(site).is_random)
        return None if model is None else model.dump()

    @property
    def converted(self) -> str:
        """Folder of the converted model, named after its file: so results call the model."""
        name = "none" if self.gguf is None else re.sub(r"[^A-Za-z0-9._-]+", "-", self.gguf.stem)
        return f"{self.folder}/model/{name}"

    @property
    def conversion(self) -> str | None:
        """The param of converting the model; None where it is loaded as it is."""
        if self.config.model is None or self.gguf is None:
            return None
        wanted = ("package", "gguf", "sha256", "dtype")
        settings = self.config.model.dump()
        return as_param({key: settings[key] for key in wanted})

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
        """Return the method whose fits a method begins from."""
        found = self.method(name).find_base(self.config.methods[name])
        return None if found is None else found.method

    def bases(self, fit: Fit) -> list[Fit]:
        """Return the fits that one begins from: of another method, of the same site and sizes."""
        found = self.method(fit.method).find_base(self.config.methods[fit.method])
        if found is None:
            return []
        return [replace(fit, method=found.method, seed=s) for s in found.list_seeds(fit.seed)]

    @cached_property
    def made(self) -> list[Fit]:
        """All fits that are made: those of the config, and those that they begin from."""
        found, waiting = set(self.fits), [*self.fits]
        while waiting:
            more = set(self.bases(waiting.pop())) - found
            found |= more
            waiting += more
        return sorted(found)

    @cached_property
    def labels(self) -> dict[str, str]:
        """How tables and figures call each method: the config's word, or else its entry's."""
        return find_labels(self.config)

    @cached_property
    def controls(self) -> list[str]:
        """Methods that are controls."""
        methods = self.config.methods.items()
        return [name for name, settings in methods if self.method(name).makes_control(settings)]

    @cached_property
    def floors(self) -> list[str]:
        """Controls that a score must beat to mean something."""
        return [name for name in self.controls if self.method(name).is_floor]

    @property
    def idle_methods(self) -> list[str]:
        """Methods that neither a fit nor a method of one names."""
        used = {fit.method for fit in self.fits}
        while more := {base for name in used if (base := self.base(name))} - used:
            used |= more
        return [name for name in self.config.methods if name not in used]

    @property
    def rivals(self) -> list[str]:
        """Methods that are compared with one another."""
        return [name for name in self.config.methods if name not in self.controls]

    def evals(self, site: str) -> dict[str, Settings]:
        """Return SAEBench's evals at a site with their settings: those that can score it."""
        parsed = Site.parse(site)
        if not parsed.is_layer or parsed.place in getattr(self.config.activations, "modules", {}):
            return {}
        return {
            name: settings
            for name, settings in self.config.evaluation.list_evals().items()
            if not find_eval(name).needs_truth and scores_place(name, parsed.place)
        }

    def eval_files(self, name: str) -> list[str]:
        """Return the local files that an eval reads."""
        settings = self.config.evaluation.list_evals().get(name)
        return [] if settings is None else find_eval(name).files(settings)

    def reads_heldout(self, name: str) -> bool:
        """Whether an eval reads the held-out documents of this experiment."""
        settings = self.config.evaluation.list_evals().get(name)
        return settings is not None and reads_heldout(settings)

    def needs_norm_limit(self, name: str) -> bool:
        """Return whether the preparation of an eval has to know which rows are left out."""
        return may_leave_out_rows(self.config) and find_eval(name).needs_norm_limit

    def preparation(self, name: str, site: str, layer: int | None) -> str:
        """Return the param that prepares one eval at a site."""
        seed, settings = self.config.evaluation.seed, self.evals(site)[name].dump()
        model, place = self._dump_model(site), Site.parse(site).place
        own = {} if place == RESIDUAL else {"place": place}
        return as_param({"model": model, "layer": layer, "seed": seed, "settings": settings, **own})

    def scoring(self, site: str) -> str:
        """Return the param that scores a dictionary at a site."""
        evals = {name: settings.dump() for name, settings in self.evals(site).items()}
        seed = self.config.evaluation.seed
        return as_param({"model": self._dump_model(site), "seed": seed, "evals": evals})

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
    def seed_groups(self) -> SeedGroups:
        """The fits of each kind of dictionary whose seeds are compared."""
        if self.config.evaluation.stability is None:
            return {}
        return group_seeds(fit for fit in self.fits if not fit.is_transcoder)

    def stability(self) -> str:
        """Return the param of comparing seeds."""
        settings = self.config.evaluation.stability
        return as_param(None if settings is None else settings.dump())

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
            rivals=self._count_rivals(),
            has_stability=bool(self.seed_groups),
            sparsities=max(Counter(size[:3] for size in set(sizes)).values()),
            has_encoders=self.config.encoders is not None,
            layers=len({Site.parse(site).layer for site in self.model_sites}),
        )

    def _count_rivals(self) -> int:
        """Return the most methods that share a size with the first one that is no control."""
        sizes: dict[tuple[str, int, int], set[str]] = {}
        for fit in self.fits:
            if fit.method in self.rivals:
                sizes.setdefault((fit.site, fit.n_atoms, fit.k), set()).add(fit.method)
        used = {fit.method for fit in self.fits}
        first = next((method for method in self.rivals if method in used), None)
        return max((len(found) for found in sizes.values() if first in found), default=0)

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
                "floors": self.floors,
                "model": None if model is None else model.name,
            }
        )

    def ground_truth_file(self, fit: Fit) -> str | None:
        """Path of a dictionary's scores against known features; None where they are not known."""
        if fit.site != SYNTHETIC:
            return None
        return f"{self.folder}/{fit.site}/ground_truth/{fit.name}/scores.json"

    def rows(self, failed: Sequence[Sequence[Any]] = (), *, stability: bool = False) -> str:
        """Return all fits, shortly; `dbksvd.base.layout.expand_rows` adds their folders.

        `failed` has the keys and the reason of each fit that could not be made or scored;
        `stability` says whether rows name what is known of several seeds.
        """
        return self.list_rows(self.fits, failed, stability=stability)

    def list_rows(
        self,
        fits: Sequence[Fit],
        failed: Sequence[Sequence[Any]] = (),
        *,
        stability: bool = False,
    ) -> str:
        """Return some fits, as `rows` does all."""
        rows: dict[str, Any] = {"folder": self.folder, "fits": [astuple(fit) for fit in fits]}
        if stability and self.seed_groups:
            rows["stability"] = True
        return as_param(rows | ({"failed": list(failed)} if failed else {}))

    def _list_fits(self, problems: Problems) -> Iterator[Fit]:
        parsed = {site: Site.parse(site) for site in self.sites}
        random = [site for site, found in parsed.items() if found.is_random]
        sites = [site for site in self.sites if site != SYNTHETIC and site not in random]
        yield from self._expand(self.config.fits, "fits", sites or self.sites, problems)
        if self.config.randomised is not None:
            own = self.config.randomised.fits
            yield from self._expand(own, "randomised.fits", random, problems)
        if self.config.ground_truth is not None:
            own = self.config.ground_truth.fits
            yield from self._expand(own, "ground_truth.fits", [SYNTHETIC], problems)

    def _expand(
        self, grids: Sequence[Grid], where: str, sites: list[str], problems: Problems
    ) -> Iterator[Fit]:
        """Yield the fits of a list of grids, which stands at `where` in the config."""
        for position, grid in enumerate(grids):
            for method, m, k in product(grid.methods, grid.n_atoms, grid.k):
                place = f"{where}[{position}]"
                problems.catch(self._check_fit, method, m, k, place)
                if method not in self.config.methods:
                    continue
                taken = self._list_taken(method, sites)
                problems.catch(self._check_taken, method, taken, place)
                yield from (Fit(*each) for each in product(taken, [method], [m], [k], grid.seeds))

    def _list_taken(self, method: str, sites: list[str]) -> list[str]:
        """Return the sites that a method fits: those of pairs, or all others."""
        settings = self.config.methods[method]
        takes_pairs = self.method(method).takes_pairs(settings)
        return [site for site in sites if Site.parse(site).is_pair == takes_pairs]

    def _check_taken(self, method: str, taken: list[str], place: str) -> None:
        """Refuse a method that fits none of the sites."""
        if taken:
            return
        pairs, settings = ", ".join(PAIRS), self.config.methods[method]
        takes_pairs = self.method(method).takes_pairs(settings)
        wanted = pairs if takes_pairs else f"another place than {pairs}"
        sites = getattr(self.config.activations, "sites", [])
        raise SettingsError(
            f"{place}.methods: expected {wanted} in activations.sites for {method}, which fits "
            f"{'pairs' if takes_pairs else 'no pairs'}, got "
            f"{sites or f'activations.source: {self.source}'}"
        )

    def _check_places(self) -> None:
        """Check that each place is read for a fit, where there are fits at all."""
        fitted = {Site.parse(fit.site).place for fit in self.fits}
        for number, place in enumerate(getattr(self.config.activations, "sites", [])):
            if fitted and place not in fitted:
                needed = "a transcoder" if place in PAIRS else "a method that is no transcoder"
                raise SettingsError(
                    f"activations.sites[{number}]: expected {needed} in fits, which {place} is "
                    f"read for, got {', '.join(sorted({fit.method for fit in self.fits}))}"
                )

    def _check_made(self, fit: Fit) -> None:
        """Check a fit that another begins from, which no grid needs to name."""
        if fit in self.fits:
            return
        where = f"methods.{fit.method}"
        check_sizes(self.config.methods[fit.method], fit.n_atoms, fit.k, where, where)
        check_seed(fit.seed, where, self.drawing if fit.site == SYNTHETIC else None)

    def _check_fit(self, method: str, n_atoms: int, k: int, place: str) -> None:
        methods = self.config.methods
        if method not in methods:
            raise SettingsError(
                f"{place}.methods: expected a name from methods{suggest(method, methods)}, "
                f"got {method!r}"
            )
        if k > n_atoms:
            raise SettingsError(f"{place}.k: expected at most n_atoms = {n_atoms}, got {k}")
        if self.method(method).needs_truth:
            self._check_truth(method, n_atoms, place)
        if self.method(method).needs_model and place.startswith("ground_truth"):
            raise SettingsError(f"{place}.methods: expected one that runs no model, got {method!r}")
        check_sizes(methods[method], n_atoms, k, f"methods.{method}", place)

    def _check_truth(self, method: str, n_atoms: int, place: str) -> None:
        """Refuse a control of known features where they are not known, or not so many."""
        if self.drawing is None or (
            not place.startswith("ground_truth") and self.source != SYNTHETIC
        ):
            raise SettingsError(
                f"{place}.methods: expected {method} in ground_truth.fits only, where features "
                f"are known, got activations.source: {self.source}"
            )
        features = self.drawing.synthetic.n_features
        if n_atoms > features:
            raise SettingsError(
                f"{place}.n_atoms: expected at most the {features} features for {method}, "
                f"got {n_atoms}"
            )


def as_param(content: Any) -> str:
    """Return `content` as compact JSON with sorted keys: equal content, equal string."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
