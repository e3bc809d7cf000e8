"""Scores of samples with pairs of features never seen together, beside those of the others."""

from __future__ import annotations

from sae_lens.synthetic.evals import ClassificationMetricsCalculator
from torch import Tensor

from dbksvd.base.variance import ExplainedVariance
from dbksvd.synthetic.truth import Truth

# What is told of each kind of samples.
_SCORES = ("explained_variance", "f1", "l0", "true_l0")
UNSEEN = ("unseen_rows", *(f"{rows}_{name}" for rows in ("seen", "unseen") for name in _SCORES))
LEAST_ROWS = 50


class UnseenScores:
    """Variance explained and F1, once over samples with an unseen pair and once over the others.

    Variance is around the mean of the samples of each kind. F1 is SAELens's, of latents as
    detectors of the feature that their decoder row is nearest to, averaged over those latents whose
    feature fires on samples of both kinds: another one's F1 would be 0 of one kind for want of
    anything to find.

    Parameters
    ----------
    decoder : tensor of shape (m, d)
        Decoder rows of the latents.
    features : tensor of shape (n_features, d)
        The true features.
    truth : Truth
        Codes of the samples; its ``unseen`` is not None.

    Raises
    ------
    ValueError
        If there are fewer than `LEAST_ROWS` samples of a kind.
    """

    def __init__(self, decoder: Tensor, features: Tensor, truth: Truth) -> None:
        assert truth.unseen is not None
        self._truth, self._unseen, self._n_features = truth, truth.unseen, len(features)
        self._row = 0
        self.rows = {"seen": int((~truth.unseen).sum()), "unseen": int(truth.unseen.sum())}
        if min(self.rows.values()) < LEAST_ROWS:
            raise ValueError(
                f"held_out_pairs: expected at least {LEAST_ROWS} held-out samples with a pair and "
                f"without, got {self.rows['unseen']} and {self.rows['seen']}"
            )
        decoder = decoder.detach()
        width, device = decoder.shape[1], decoder.device
        self._variance = {kind: ExplainedVariance(width, device) for kind in self.rows}
        self._found = {
            kind: ClassificationMetricsCalculator(decoder, features) for kind in self.rows
        }
        self._used = dict.fromkeys(self.rows, 0)
        self._fired = dict.fromkeys(self.rows, 0)

    def add(self, x: Tensor, latents: Tensor, reconstruction: Tensor) -> None:
        """Take in the next samples (b, d), their latents (b, m) and reconstructions (b, d)."""
        stop = self._row + len(x)
        codes = self._truth.read_dense(self._row, stop, self._n_features).to(x.device)
        unseen = self._unseen[self._row : stop].to(x.device)
        self._row = stop
        for kind, chosen in (("seen", ~unseen), ("unseen", unseen)):
            self._variance[kind].add(x[chosen], reconstruction[chosen])
            self._found[kind].add_batch(latents[chosen], codes[chosen])
            self._used[kind] += int((latents[chosen] != 0).sum())
            self._fired[kind] += int((codes[chosen] > 0).sum())

    def compute(self) -> dict[str, float]:
        """Return the entries of `UNSEEN`: ``l0`` is of the latents, ``true_l0`` of the features."""
        scores: dict[str, float] = {"unseen_rows": self.rows["unseen"]}
        fires = [found.tp + found.fn > 0 for found in self._found.values()]
        shared = fires[0] & fires[1]
        for kind, rows in self.rows.items():
            scores |= {
                f"{kind}_explained_variance": self._variance[kind].compute(),
                f"{kind}_f1": _average_f1(self._found[kind], shared),
                f"{kind}_l0": self._used[kind] / rows,
                f"{kind}_true_l0": self._fired[kind] / rows,
            }
        return scores


def _average_f1(found: ClassificationMetricsCalculator, latents: Tensor) -> float:
    """Return the mean F1 of the chosen latents; 0 where none is chosen."""
    wrong = found.fp + found.fn
    f1 = 2 * found.tp / (2 * found.tp + wrong).clamp(min=1)
    return float(f1[latents].double().mean()) if bool(latents.any()) else 0.0
