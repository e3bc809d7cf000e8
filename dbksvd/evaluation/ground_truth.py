"""How much of a generative model a dictionary has found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from sae_lens.synthetic import FeatureDictionary, eval_sae_on_synthetic_data
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from torch import Tensor

from dbksvd.base.variance import ExplainedVariance
from dbksvd.dictionaries.decoding import decode_in
from dbksvd.evaluation.ground_truth_entry import GroundTruthSettings
from dbksvd.evaluation.unseen import UnseenScores
from dbksvd.ops.matching import match_exactly
from dbksvd.synthetic.base import GenerativeModel
from dbksvd.synthetic.truth import Truth

if TYPE_CHECKING:
    from sae_lens import SAE

BATCH_ROWS = GroundTruthSettings().batch_rows


@runtime_checkable
class Router(Protocol):
    """A dictionary that sends each sample to the likeliest of its experts."""

    def process_sae_in(self, x: Tensor) -> Tensor:
        """Return what the router sees of `x` (n, d)."""
        ...

    def route(self, inputs: Tensor) -> Tensor:
        """Return the probability (n, experts) of each expert."""
        ...


def score_dictionary(
    sae: SAE[Any], model: GenerativeModel, truth: Truth, batch_rows: int = BATCH_ROWS
) -> dict[str, Any]:
    """Score a dictionary against the features and codes that made the held-out samples.

    Parameters
    ----------
    sae : sae_lens.SAE
        Latents ≥ 0 and unit decoder rows, as `dbksvd.dictionaries.loading.load_sae` gives: a
        signed dictionary of m atoms comes with its 2m sign-split latents.
    model : GenerativeModel
        What made the samples.
    truth : Truth
        Codes of the held-out samples.
    batch_rows : int
        Samples coded at a time.

    Returns
    -------
    dict
        JSON-able. From SAELens: ``mcc``, ``uniqueness``, ``precision``, ``recall``, ``f1``,
        ``accuracy``, ``dead_latents``, ``shrinkage``, ``l0``, ``true_l0``. From here:
        ``explained_variance`` (:class:`dbksvd.base.variance.ExplainedVariance`), ``latents`` (the
        width they were scored at), ``n_features``, ``samples``. Beside them
        :func:`score_correlation` for a model with a covariance and :func:`score_router` for a
        mixture and a dictionary with a router, and :class:`dbksvd.evaluation.unseen.UnseenScores`
        where some samples hold pairs of features that are kept apart in training.

    References
    ----------
    Chanin et al. (2026), arXiv:2602.14687, for the metrics.
    """
    unseen = None if truth.unseen is None else UnseenScores(sae.W_dec, model.features, truth)
    watched = _Watched(sae, unseen)
    result = eval_sae_on_synthetic_data(
        watched,  # type: ignore[arg-type]
        _copy_features(model),
        _Replay(truth, len(model.features)),  # type: ignore[arg-type]
        num_samples=len(truth),
        batch_size=batch_rows,
    )
    scores: dict[str, Any] = {
        "explained_variance": watched.variance.compute(),
        "mcc": result.mcc,
        "uniqueness": result.uniqueness,
        "precision": result.classification.precision,
        "recall": result.classification.recall,
        "f1": result.classification.f1_score,
        "accuracy": result.classification.accuracy,
        "dead_latents": result.dead_latents,
        "shrinkage": result.shrinkage,
        "l0": result.sae_l0,
        "true_l0": result.true_l0,
        "latents": len(sae.W_dec),
        "n_features": len(model.features),
        "samples": len(truth),
    }
    if unseen is not None:
        scores |= unseen.compute()
    if model.covariance is not None:
        scores |= score_correlation(sae, model, truth, batch_rows)
    if truth.component is not None and isinstance(sae, Router):
        scores |= score_router(sae, model, truth, batch_rows)
    return scores


class _Watched:
    """An SAE that measures the variance it explains: SAELens sums squares in float32."""

    def __init__(self, sae: SAE[Any], unseen: UnseenScores | None) -> None:
        self._sae, self._x, self.W_dec, self._unseen = sae, torch.empty(0), sae.W_dec, unseen
        self.variance = ExplainedVariance(sae.cfg.d_in, sae.device)

    def eval(self) -> None:
        self._sae.eval()

    def encode(self, x: Tensor) -> Tensor:
        self._x = x
        return self._sae.encode(x)

    def decode(self, latents: Tensor) -> Tensor:
        reconstruction = decode_in(torch.float64, self._sae, latents)
        self.variance.add(self._x, reconstruction)
        if self._unseen is not None:
            self._unseen.add(self._x, latents, reconstruction)
        return self._sae.decode(latents)


class _Replay:
    """Gives SAELens's evaluation the kept codes where it would draw new ones."""

    def __init__(self, truth: Truth, n_features: int) -> None:
        self._truth, self._n_features, self._row = truth, n_features, 0

    def sample(self, batch_size: int) -> Tensor:
        start, self._row = self._row, self._row + batch_size
        return self._truth.read_dense(start, self._row, self._n_features)


def _copy_features(model: GenerativeModel) -> FeatureDictionary:
    features = FeatureDictionary(*model.features.shape, initializer=None)
    features.feature_vectors.data = model.features
    features.bias.data = model.bias
    return features


def match_features(atoms: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Pair atoms and features one to one with the largest sum of cosines (Hungarian method).

    Returns
    -------
    atom, feature : int64 tensors of shape (min(m, n_features),)
        The pairs.
    """
    atom, feature = torch.from_numpy(match_exactly(atoms, features)).unbind(dim=1)
    return atom, feature


def measure_rv(first: Tensor, second: Tensor) -> float:
    """Return the RV coefficient ``tr(A B) / √(tr(A A) tr(B B))`` of symmetric matrices.

    Zero where a matrix is zero.

    References
    ----------
    Robert and Escoufier (1976), "A unifying tool for linear multivariate statistical methods".
    """
    norm = (first.norm() * second.norm()).item()
    return (first * second).sum().item() / norm if norm > 0 else 0.0


@torch.no_grad()
def score_correlation(
    sae: SAE[Any], model: GenerativeModel, truth: Truth, batch_rows: int = BATCH_ROWS
) -> dict[str, float]:
    """Score how well the correlations among codes are those among the true codes.

    Latents are matched to features by :func:`match_features`; a feature without a latent, or with
    one that never varies, correlates with nothing.

    Parameters
    ----------
    sae : sae_lens.SAE
        Latents ≥ 0 and unit decoder rows.
    model : GenerativeModel
        What made the samples; it has a covariance.
    truth : Truth
        Codes of the held-out samples.
    batch_rows : int
        Samples coded at a time.

    Returns
    -------
    dict
        ``rv``: RV coefficient of the correlation matrices of recovered and true codes over the
        held-out samples. ``rv_modified``: the same without the diagonals, which are 1 whatever was
        found (Smilde et al. 2009, "Matrix correlations for high-dimensional data: the modified
        RV-coefficient"). ``rv_covariance``: without diagonals, against the covariance of the
        latent Gaussian; the true codes themselves score less than 1 here.
    """
    covariance, n_features = model.covariance, len(model.features)
    assert covariance is not None
    atom, feature = match_features(sae.W_dec.detach(), model.features)
    found, true = _Correlation(n_features), _Correlation(n_features)
    for start in range(0, len(truth), batch_rows):
        codes = truth.read_dense(start, min(start + batch_rows, len(truth)), n_features)
        latents = sae.encode(model.embed(codes))
        matched = torch.zeros_like(codes)
        matched[:, feature] = latents[:, atom].to(codes)
        found.add(matched)
        true.add(codes)
    recovered, expected = found.compute(), true.compute()
    off = _drop_diagonal(recovered)
    return {
        "rv": measure_rv(recovered, expected),
        "rv_modified": measure_rv(off, _drop_diagonal(expected)),
        "rv_covariance": measure_rv(off, _drop_diagonal(covariance.double())),
    }


class _Correlation:
    """Running correlation matrix of the columns of blocks of rows, in float64."""

    def __init__(self, width: int) -> None:
        self._rows = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, block: Tensor) -> None:
        block = block.double()
        self._rows += len(block)
        self._sum += block.sum(dim=0)
        self._products += block.T @ block

    def compute(self) -> Tensor:
        """Return the matrix; a column that never varies has zeros, on the diagonal too."""
        mean = self._sum / self._rows
        covariance = self._products / self._rows - mean[:, None] * mean
        variance = covariance.diagonal()
        # A constant column keeps a rounding error of its mean square.
        varies = variance > 1e-12 * self._products.diagonal() / self._rows
        scale = torch.where(varies, variance.clamp(min=1e-300).rsqrt(), 0.0)
        return covariance * scale[:, None] * scale


def _drop_diagonal(matrix: Tensor) -> Tensor:
    return matrix - torch.diag(matrix.diagonal())


@torch.no_grad()
def score_router(
    sae: Router, model: GenerativeModel, truth: Truth, batch_rows: int = BATCH_ROWS
) -> dict[str, Any]:
    """Score how well the router's choice of expert tells the component that made a sample.

    Parameters
    ----------
    sae : Router
        A dictionary whose router chooses one expert for each sample.
    model : GenerativeModel
        What made the samples.
    truth : Truth
        Codes and components of the held-out samples.
    batch_rows : int
        Samples routed at a time.

    Returns
    -------
    dict
        ``router_ami`` and ``router_nmi``: adjusted and normalised mutual information of expert and
        component (scikit-learn; 1 for a perfect match up to names); ``experts_used``;
        ``routing``: samples of each component (row) sent to each expert (column).
    """
    assert truth.component is not None
    chosen = []
    for start in range(0, len(truth), batch_rows):
        stop = min(start + batch_rows, len(truth))
        x = model.embed(truth.read_dense(start, stop, len(model.features)))
        probabilities = sae.route(sae.process_sae_in(x))
        chosen.append(probabilities.argmax(dim=1))
    expert, n_experts = torch.cat(chosen), probabilities.shape[1]
    n_components = int(truth.component.max()) + 1
    pairs = truth.component * n_experts + expert
    table = torch.bincount(pairs, minlength=n_components * n_experts)
    labels = truth.component.numpy(), expert.numpy()
    return {
        "router_ami": float(adjusted_mutual_info_score(*labels)),
        "router_nmi": float(normalized_mutual_info_score(*labels)),
        "experts_used": len(expert.unique()),
        "routing": table.reshape(n_components, n_experts).tolist(),
    }
