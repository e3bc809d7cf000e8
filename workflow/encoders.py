"""Which dictionaries are coded by other encoders than their own, and the params of these jobs."""

from __future__ import annotations

from collections import Counter

from dbksvd.base.site import Site
from workflow.encoder_checks import PROBING
from workflow.experiment import Experiment, Fit, as_param


class Encoders:
    """The section ``encoders`` of an experiment.

    Parameters
    ----------
    experiment : Experiment
        The checked config.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.settings = experiment, experiment.config.encoders

    @property
    def fits(self) -> list[Fit]:
        """One dictionary of each method and site: of the usual k, nearest in width, first seed."""
        if self.settings is None:
            return []
        wanted = self.settings.methods or list(self.experiment.config.methods)
        found = []
        for site in self.experiment.sites:
            here = [fit for fit in self.experiment.fits if fit.site == site]
            if not here or Site.parse(site).is_pair:  # a transcoder has no other encoder
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
