"""Which dictionaries have feature pages, and the params of the jobs that make them."""

from __future__ import annotations

from collections.abc import Sequence

from dbksvd.base.site import Site
from workflow.experiment import SYNTHETIC, Experiment, Fit, as_param
from workflow.source_hash import PACKAGE

# What pages are made of beside modules: nothing imports it, so the rule names it.
STATIC = ("dbksvd/report/pages/templates", "dbksvd/report/pages/static")


def list_static_files() -> list[str]:
    """Return the templates and static files of the pages, relative to the project."""
    files = [path for folder in STATIC for path in (PACKAGE.parent / folder).iterdir()]
    return sorted(path.relative_to(PACKAGE.parent).as_posix() for path in files)


class Pages:
    """The feature pages of an experiment.

    Parameters
    ----------
    experiment : Experiment
        The checked config.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.settings = experiment, experiment.config.pages

    @property
    def sites(self) -> list[str]:
        """Sites with a dictionary that has pages: none of random weights, none of transcoders."""
        return [site for site in self.experiment.sites if self.list_fits(site)]

    def list_fits(self, site: str) -> list[Fit]:
        """Return the dictionaries of a site that have pages, in the order of methods."""
        parsed = Site.parse(site)
        if self.settings is None or parsed.is_random or parsed.is_pair:
            return []
        here = [fit for fit in self.experiment.fits if fit.site == site]
        wanted = self.settings.dictionaries
        if wanted is not None:
            return [fit for fit in here if fit.name in wanted]
        methods = self.experiment.config.methods
        groups = [[fit for fit in here if fit.method == method] for method in methods]
        return [choose_typical(fits) for fits in groups if fits]

    def examples(self) -> str:
        """Return the param of collecting examples."""
        return as_param(None if self.settings is None else self.settings.examples.dump())

    def extraction(self, site: str) -> str:
        """Return the param that says how the activations of a site were extracted."""
        return as_param(None if site == SYNTHETIC else self.experiment.extraction(site))

    def rendering(self) -> str:
        """Return the param of rendering pages."""
        config = self.experiment.config
        return as_param({"experiment": config.experiment, "labels": self.experiment.labels})


def choose_typical(fits: Sequence[Fit]) -> Fit:
    """Return the fit of most atoms, the middle k and the first seed."""
    most = max(fit.n_atoms for fit in fits)
    largest = [fit for fit in fits if fit.n_atoms == most]
    sparsities = sorted({fit.k for fit in largest})
    middle = sparsities[(len(sparsities) - 1) // 2]
    return min((fit for fit in largest if fit.k == middle), key=lambda fit: fit.seed)
