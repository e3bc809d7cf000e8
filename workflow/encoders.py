"""Which dictionaries are coded by other encoders than their own, and the params of these jobs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dbksvd.base.settings import SettingsError, suggest
from dbksvd.base.site import Site
from workflow.experiment import Experiment, Fit, as_param

if TYPE_CHECKING:
    from workflow.config import ExperimentConfig

PROBING = "sparse_probing_sae_probes"


class Encoders:
    """The section ``encoders`` of an experiment.

    Parameters
    ----------
    experiment : Experiment
        The checked config.

    Raises
    ------
    SettingsError
        If the section names a method that there is not, or probes that are not prepared.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.settings = experiment, experiment.config.encoders
        if self.settings is not None:
            check_encoders(experiment.config)

    @property
    def fits(self) -> list[Fit]:
        """One dictionary of each method and site: of the usual k, nearest in width, first seed."""
        if self.settings is None:
            return []
        wanted = self.settings.methods or list(self.experiment.config.methods)
        found = []
        for site in self.experiment.sites:
            here = [fit for fit in self.experiment.fits if fit.site == site]
            if not here:
                continue
            (n_atoms, k), _ = Counter((fit.n_atoms, fit.k) for fit in here).most_common(1)[0]
            for method in wanted:
                mine = [fit for fit in here if fit.method == method and fit.k == k]
                found += sorted(mine, key=lambda fit: (abs(fit.n_atoms - n_atoms), fit.seed))[:1]
        return found

    def scoring(self, method: str, site: str) -> str:
        """Return the param that scores a dictionary with each encoder."""
        assert self.settings is not None
        config = self.experiment.config
        evals = self.experiment.evals(site)
        probed = method in self.settings.probing and PROBING in evals
        return as_param(
            {
                "encoders": self.settings.encoders,
                "rows": self.settings.rows,
                "probing": evals[PROBING].dump() if probed else None,
                "seed": config.evaluation.seed,
            }
        )

    def probes(self, method: str, site: str) -> bool:
        """Return whether the encoders of a dictionary are probed."""
        return (
            self.settings is not None
            and method in self.settings.probing
            and Site.parse(site).is_layer
            and PROBING in self.experiment.evals(site)
        )


def check_encoders(config: ExperimentConfig) -> None:
    """Check the methods that the section names, and that what is probed can be.

    Raises
    ------
    SettingsError
        For the first that is wrong, in one line.
    """
    settings = config.encoders
    if settings is None:
        return
    for key in ("methods", "probing"):
        for name in getattr(settings, key) or ():
            if name not in config.methods:
                raise SettingsError(
                    f"encoders.{key}: expected names from methods"
                    f"{suggest(name, config.methods)}, got {name!r}"
                )
    if settings.probing and PROBING not in config.evaluation.list_evals():
        raise SettingsError(
            f"encoders.probing: expected [] without evaluation.evals.{PROBING}, whose texts the "
            f"probes read, got {settings.probing}"
        )
