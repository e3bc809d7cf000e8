"""The geometric median of samples: a centre that outliers hardly move."""

from __future__ import annotations

import torch

from dbksvd.base.shapes import Activations, Bias


def find_geometric_median(
    x: Activations, *, tolerance: float = 1e-6, most_steps: int = 1000
) -> Bias:
    """Return the point with the least sum of distances to the rows of `x`, by Weiszfeld's steps.

    Each step is ``y ← (Σ x_i / ‖x_i − y‖) / (Σ 1 / ‖x_i − y‖)``. The first starts at the mean; the
    last one is shorter than `tolerance` times the mean distance.

    Parameters
    ----------
    x : floating tensor of shape (n, d), n ≥ 1
        Samples.
    tolerance : float
        Length of the last step, as a fraction of the mean distance.
    most_steps : int
        Most steps that are taken.

    Returns
    -------
    tensor of shape (d,)
        In the dtype of `x`.

    Raises
    ------
    ValueError
        If `x` has no rows or is not finite.

    References
    ----------
    Weiszfeld (1937), "Sur le point pour lequel la somme des distances de n points donnés est
    minimum".
    """
    if len(x) == 0 or not torch.isfinite(x).all():
        raise ValueError(f"x: expected finite rows, got {len(x)} rows, NaN or infinity")
    points = x.double()
    median = points.mean(dim=0)
    for _ in range(most_steps):
        distances = torch.linalg.vector_norm(points - median, dim=1)
        # a sample on the median itself would weigh infinitely
        weights = 1 / distances.clamp(min=max(float(distances.mean()) * 1e-9, 1e-300))
        moved = weights @ points / weights.sum()
        step = torch.linalg.vector_norm(moved - median)
        median = moved
        if step <= tolerance * distances.mean():
            break
    return median.to(x.dtype)
