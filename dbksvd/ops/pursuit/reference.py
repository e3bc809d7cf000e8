"""The definition of the pursuits: one sample at a time, in float64, to be read.

Legend: x (d,) sample, D (m, d) atoms, G = D Dᵀ, p = D r products of the atoms with the residual
r = x − Dᵀz, S the support (atoms picked so far, in that order), z its coefficients.

What counts as zero, and what is not picked: :mod:`dbksvd.ops.pursuit.tolerances`.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from dbksvd.ops.pursuit.checks import pack_codes, scale_rows, shift_exponents
from dbksvd.ops.pursuit.tolerances import STEPS_PER_ATOM, find_floors, find_tolerances


def encode(
    x: Tensor,
    atoms: Tensor,
    k: int,
    *,
    method: str,
    nonnegative: bool,
    refit: bool,
    rtol: float,
    threshold: float = 0.0,
    penalties: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return indices and values (n, k); see :func:`dbksvd.sparse_encode`."""
    _, dependent = find_tolerances(x.dtype)
    scaled, exponents = scale_rows(x.double())
    norms = torch.linalg.vector_norm(scaled, dim=1)
    floors = find_floors(norms, x.dtype, threshold, exponents).tolist()
    costs = np.zeros(len(atoms)) if penalties is None else penalties.cpu().numpy()
    D = atoms.double().cpu().numpy()
    G = D @ D.T
    indices = np.zeros((len(x), k), np.int64)
    values = np.zeros((len(x), k))
    for row, sample in enumerate(scaled.cpu().numpy()):
        if method == "mp":
            support, z = match(sample, D, G, k, nonnegative, rtol, floors[row], costs)
            if refit and support:
                z = fit_support(sample, D, G, support, nonnegative, dependent)
        else:
            pursue = match_orthogonally if method == "omp" else match_optimally
            support, z = pursue(sample, D, G, k, nonnegative, rtol, floors[row], dependent)
        used = np.flatnonzero(z)
        indices[row, : len(used)] = np.array(support, np.int64)[used]
        values[row, : len(used)] = z[used]
    result = torch.from_numpy(values)
    if exponents is not None:
        result = shift_exponents(result, exponents.cpu())
    # a coefficient that is zero in the dtype of the samples leaves its slot unused
    return pack_codes(torch.from_numpy(indices).to(x.device), result.to(x))


def match(
    x: np.ndarray,
    D: np.ndarray,
    G: np.ndarray,
    k: int,
    nonnegative: bool,
    rtol: float,
    floor: float,
    costs: np.ndarray,
) -> tuple[list[int], np.ndarray]:
    """Return the support and its coefficients of one sample, by matching pursuit.

    p ← D x. Then, at most 4k times:

    1. j ← argmax p_j² − c_j ‖x‖² over the atoms with |p_j| > φ (p_j > φ where non-negative), the
       lowest index of equals; end if there is none, or none with p_j² > c_j ‖x‖². The costs c are
       0 unless ``penalties`` are given: then j is the argmax of |p_j|;
    2. z_j ← z_j + p_j, a new atom of the support if it is not in it yet;
    3. end if the support has k atoms, or rtol > 0 and ‖r‖ ≤ rtol ‖x‖,
       where ‖r‖² falls by p_j² in each step;
    4. p ← p − p_j G_j.

    So a step that would bring a (k+1)-th atom never happens, and the pick that brings the k-th is
    the last.

    Parameters
    ----------
    x : float64 array of shape (d,)
        Sample.
    D, G : float64 arrays of shapes (m, d) and (m, m)
        Atoms and their Gram matrix D Dᵀ.
    k, nonnegative, rtol
        As of :func:`dbksvd.sparse_encode`.
    floor : float
        φ, the largest product that is not picked.
    costs : float64 array of shape (m,)
        Penalties c.
    """
    p = D @ x
    norm = float(np.linalg.norm(x))
    energy = norm**2
    support: list[int] = []
    z = np.zeros(k)
    for _ in range(STEPS_PER_ATOM * k):
        eligible = (p if nonnegative else np.abs(p)) > floor
        gain = np.where(eligible, p**2 - norm**2 * costs, 0)
        j = int(np.argmax(gain))
        if gain[j] <= 0:
            break
        v = p[j]
        if j not in support:
            support.append(j)
        z[support.index(j)] += v
        energy -= v**2
        if len(support) == k or (rtol > 0 and energy <= (rtol * norm) ** 2):
            break
        p = p - v * G[j]
    return support, z[: len(support)]


def match_orthogonally(
    x: np.ndarray,
    D: np.ndarray,
    G: np.ndarray,
    k: int,
    nonnegative: bool,
    rtol: float,
    floor: float,
    dependent: float,
) -> tuple[list[int], np.ndarray]:
    """Code one sample by orthogonal matching pursuit.

    As :func:`match`, but no atom is picked twice, and after every pick all coefficients become
    the (non-negative) least-squares fit z = argmin ‖x − D_Sᵀ z‖ and p = D x − G_S z. A picked
    atom stays in S, also where non-negative least squares gives it zero. An atom that lies
    numerically in the span of S is set aside for good: it counts as a step, not as an atom.

    Parameters
    ----------
    x, D, G, k, nonnegative, rtol, floor
        As of :func:`match`.
    dependent : float
        Squared distance to the span up to which an atom lies numerically in the span.
    """
    p = D @ x
    norm = float(np.linalg.norm(x))
    eligible = np.ones(len(D), bool)
    support: list[int] = []
    z = np.zeros(0)
    for _ in range(STEPS_PER_ATOM * k):
        score = np.where(eligible, p if nonnegative else np.abs(p), -1)
        j = int(np.argmax(score))
        if score[j] <= floor:
            break
        eligible[j] = False
        if not keep_independent(G, [*support, j], dependent)[-1]:
            continue
        support.append(j)
        z = fit_support(x, D, G, support, nonnegative, dependent)
        r = x - z @ D[support]
        p = D @ r
        if len(support) == k or (rtol > 0 and np.linalg.norm(r) <= rtol * norm):
            break
    return support, z


def match_optimally(
    x: np.ndarray,
    D: np.ndarray,
    G: np.ndarray,
    k: int,
    nonnegative: bool,
    rtol: float,
    floor: float,
    dependent: float,
) -> tuple[list[int], np.ndarray]:
    """Code one sample by orthogonal least squares (order-recursive, optimised matching pursuit).

    As :func:`match_orthogonally`, but an atom is judged by how much it lowers the least-squares
    error. With Q the orthonormal basis of the span of S that Gram and Schmidt make of the atoms in
    their order, and e_j = ‖d_j‖² − Σ_i (q_i·d_j)² the squared distance of atom j to that span:

    1. j ← argmax p_j² / e_j, over atoms with |p_j| > φ (p_j > φ where non-negative) and
       e_j > the numerically zero distance; end if there is none;
    2. q ← (d_j − Σ_i (q_i·d_j) q_i) / √e_j,  u ← D q,  e ← e − u²;
    3. z ← the (non-negative) least-squares fit on S ∪ {j},  p ← D (x − D_Sᵀ z), which is
       p − (q·x) u where coefficients may have any sign.

    Adding atom j to S lowers ‖r‖² by p_j² / e_j. Where non-negative least squares gives atoms of S
    zero, they still count in e, which then is a lower bound of the distance that matters.

    Parameters
    ----------
    x, D, G, k, nonnegative, rtol, floor, dependent
        As of :func:`match_orthogonally`.
    """
    p = D @ x
    norm = float(np.linalg.norm(x))
    e = G.diagonal().copy()
    Q = np.zeros((0, len(x)))
    support: list[int] = []
    z = np.zeros(0)
    for _ in range(k):
        eligible = ((p if nonnegative else np.abs(p)) > floor) & (e > dependent)
        if not eligible.any():
            break
        j = int(np.argmax(np.where(eligible, p**2 / np.maximum(e, dependent), -1)))
        q = D[j] - (Q @ D[j]) @ Q
        Q = np.vstack([Q, q / np.linalg.norm(q)])
        e -= (D @ Q[-1]) ** 2
        support.append(j)
        z = fit_support(x, D, G, support, nonnegative, dependent)
        r = x - z @ D[support]
        p = D @ r
        if rtol > 0 and np.linalg.norm(r) <= rtol * norm:
            break
    return support, z


def fit_support(
    x: np.ndarray,
    D: np.ndarray,
    G: np.ndarray,
    support: list[int],
    nonnegative: bool,
    dependent: float,
) -> np.ndarray:
    """Fit a support by least squares: z = argmin ‖x − D_Sᵀ z‖, subject to z ≥ 0 where non-negative.

    An atom that lies numerically in the span of the atoms before it gets 0: it adds nothing.
    Where non-negative it may add something (−d is in the span of d), so it is left to the
    non-negative least squares; the other implementations then use no two dependent atoms at once,
    which bounds the coefficients and changes the reconstruction by rounding only.

    Parameters
    ----------
    x, D, G, nonnegative, dependent
        As of :func:`match_orthogonally`.
    support : list of int
        Atoms S, in the order of picking.
    """
    if nonnegative:
        return nnls(D[support].T, x)[0]
    kept = keep_independent(G, support, dependent)
    z = np.zeros(len(support))
    z[kept] = np.linalg.lstsq(D[support][kept].T, x, rcond=None)[0]
    return z


def keep_independent(G: np.ndarray, support: list[int], dependent: float) -> np.ndarray:
    """Return which atoms of a support are not numerically in the span of those before them.

    A Cholesky factor L Lᵀ = G_S is grown row by row; the squared pivot is the squared distance
    of the atom to the span of the kept ones.
    """
    L = np.zeros((len(support), len(support)))
    rows: list[int] = []
    kept = np.zeros(len(support), bool)
    for place, j in enumerate(support):
        size = len(rows)
        w = np.linalg.solve(L[:size, :size], G[j, rows]) if size else np.zeros(0)
        pivot = G[j, j] - w @ w
        if pivot > dependent:
            L[size, :size], L[size, size] = w, pivot**0.5
            rows.append(j)
            kept[place] = True
    return kept
