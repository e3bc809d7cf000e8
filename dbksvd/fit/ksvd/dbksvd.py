"""DB-KSVD: dictionaries learned in batches of samples and batches of atoms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.fit.ksvd.calibration import MOST_TIMES_MEAN
from dbksvd.fit.ksvd.groups import encode_groups, encode_in_blocks
from dbksvd.fit.ksvd.loop import FitLoop
from dbksvd.fit.ksvd.schedule import split_groups
from dbksvd.fit.reading import READ_ROWS, as_source, read_rows
from dbksvd.ops.pursuit.encode import choose_pursuit
from dbksvd.ops.ranks import ALONE, Ranks
from dbksvd.ops.threads import hold_torch_to_one_thread


class DBKSVD:
    """DB-KSVD; K-SVD and approximate K-SVD are choices of its parameters.

    Each iteration codes a batch of samples by pursuit and then improves atoms and coefficients by
    rank-1 updates, in batches of atoms. Exact K-SVD is ``batch_size=n, polish_iter=0,
    atom_batch=1, power_iterations=10``; approximate K-SVD has ``power_iterations=1``.

    Parameters
    ----------
    n_atoms, k : int
        Atoms of the dictionary and non-zeros of a sample: see `sparsity`.
    max_iter : int
        Iterations with all atoms; the growth of ``init="grown"`` comes before and is not counted.
    polish_iter : int
        Iterations after those, each on twice the samples of the one before (at most all): small
        batches move the atoms far, large ones take the noise of small ones away.
    batch_size : int, optional
        Samples an iteration, consecutive rows, cycling through the data. Default as many as let
        each atom be used about 128 times, ``128 n_atoms / k``; any number ≥ n is all of them.
    iterations_per_batch : int
        Iterations on one batch before the next is read.
    atom_batch : int, optional
        Atoms updated from the same dictionary; see :func:`dbksvd.ops.atom_update.update_atoms_`.
        Default n_atoms / k: then a sample uses about one atom of a batch.
    power_iterations : int
        Power iterations an atom and update.
    method, nonnegative, refit, rtol, product_dtype
        The pursuit, while fitting and of the result; see :func:`dbksvd.sparse_encode`. In the
        time of "mp", "ols" learns a better dictionary (``dbksvd/ops/atom_update/README.md``); on
        CUDA, only "mp" and "omp" have kernels of their own.
    sparsity : {"exact", "mean"}
        Whether `k` is the most a sample may have, or the mean over samples: then one threshold,
        set to it in every iteration, says what is worth a pick, and a sample has at most 3 k. The
        dictionary holds the threshold and encodes new samples with it.
    fit_refit : bool
        Whether coefficients are refitted while fitting too. Better not: refitted coefficients
        of neighbouring atoms counteract each other, and non-negative ones lose half their gain.
    groups : None, int or sequence of int
        Matryoshka groups: sizes, or the size s of the first group (s, s, 2s, 4s, …). Each group
        has ``ceil(k / groups)`` non-zeros and codes what the earlier ones leave.
    init : {"samples", "grown", "random"} or tensor of shape (n_atoms, d)
        Random samples; doubling from few atoms, new ones from a short k-means on the residual;
        random directions; or a warm start.
    growth_iterations, growth_samples : int
        Iterations at each size below `n_atoms`, and samples an atom in them.
    min_usage, max_cosine : int, float
        Atoms used by fewer samples of a batch, or closer to a more used atom, are replaced.
    max_seconds : float, optional
        Fit time in seconds after which no iteration begins once all atoms are there.
    tol : float
        Ends the fit when an iteration lowers the batch's relative error by less than this.
    heldout_every : int
        Iterations between measurements on held-out samples; 0 measures at the end only.
    checkpoint : path, optional
        Folder for unfinished work; a fit of the same settings and data goes on from it. The
        caller removes it.
    checkpoint_seconds : float
        Least time between two checkpoints, in seconds.
    seed : int
        Of all randomness. On the CPU, same seed, same bytes, on any number of threads.
    device : str
        "auto" is CUDA where there is one.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    progress : bool
        Whether to show a progress bar.
    ranks : Ranks
        The processes that fit together, as :func:`dbksvd.ops.ranks.join_ranks` gives them, each
        with the same settings and data: each codes its share of every batch. The result is that
        of one process up to rounding.

    Attributes
    ----------
    dictionary_ : Dictionary
        Atoms, bias (the mean of the data) and the pursuit, without groups.
    log_ : list of dict
        One row an iteration; errors are sums of squares in the squared unit of the data.
    stop_reason_ : str
        "max_iter", "max_seconds" or "converged".
    implementation_ : str
        The implementation that ran.
    groups_ : tuple of int
        Sizes of the groups.

    Notes
    -----
    Valentin et al., "DB-KSVD" (arXiv 2505.18441). Defaults and what they were measured against:
    ``dbksvd/ops/atom_update/README.md``.
    """

    def __init__(
        self,
        n_atoms: int,
        k: int,
        *,
        max_iter: int = 60,
        polish_iter: int = 4,
        batch_size: int | None = None,
        iterations_per_batch: int = 1,
        atom_batch: int | None = None,
        power_iterations: int = 3,
        method: Literal["mp", "omp", "ols"] = "ols",
        nonnegative: bool = False,
        refit: bool = True,
        rtol: float = 0.0,
        product_dtype: Literal["bfloat16"] | None = None,
        sparsity: Literal["exact", "mean"] = "exact",
        fit_refit: bool = False,
        groups: int | Sequence[int] | None = None,
        init: str | Tensor = "samples",
        growth_iterations: int = 2,
        growth_samples: int = 32,
        min_usage: int = 3,
        max_cosine: float = 0.99,
        max_seconds: float | None = None,
        tol: float = 0.0,
        heldout_every: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 60.0,
        seed: int = 0,
        device: str | torch.device = "auto",
        implementation: str = "auto",
        progress: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        counts = {
            "n_atoms": n_atoms,
            "k": k,
            "max_iter": max_iter,
            "iterations_per_batch": iterations_per_batch,
            "atom_batch": 1 if atom_batch is None else atom_batch,
            "power_iterations": power_iterations,
            "growth_iterations": growth_iterations,
            "growth_samples": growth_samples,
            "batch_size": 1 if batch_size is None else batch_size,
        }
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value!r}")
        if k > n_atoms:
            raise ValueError(f"k: expected at most n_atoms={n_atoms}, got {k}")
        if isinstance(init, str) and init not in ("grown", "samples", "random"):
            raise ValueError(f"init: expected grown, samples, random or atoms, got {init!r}")
        self.groups_ = split_groups(n_atoms, groups)
        if sparsity not in ("exact", "mean"):
            raise ValueError(f"sparsity: expected 'exact' or 'mean', got {sparsity!r}")
        self.is_mean = sparsity == "mean"
        if self.is_mean and len(self.groups_) > 1:
            raise ValueError(f"sparsity: expected 'exact' with groups={groups}, got {sparsity!r}")
        most = min(MOST_TIMES_MEAN * k, n_atoms) if self.is_mean else k
        self.settings = PursuitSettings(most, method, nonnegative, refit, rtol, product_dtype)
        self.fit_settings = replace(
            self.settings, k=-(-most // len(self.groups_)), refit=refit and fit_refit
        )
        self.n_atoms, self.k, self.max_iter, self.batch_size = n_atoms, k, max_iter, batch_size
        self.iterations_per_batch, self.atom_batch = iterations_per_batch, atom_batch
        if not isinstance(polish_iter, int) or polish_iter < 0:
            raise ValueError(f"polish_iter: expected an integer ≥ 0, got {polish_iter!r}")
        self.polish_iter = polish_iter
        self.power_iterations, self.init, self.seed = power_iterations, init, seed
        self.growth_iterations, self.growth_samples = growth_iterations, growth_samples
        self.min_usage, self.max_cosine = min_usage, max_cosine
        self.max_seconds, self.tol, self.heldout_every = max_seconds, tol, heldout_every
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.checkpoint_seconds, self.progress = checkpoint_seconds, progress
        self.ranks = ranks
        self.implementation = implementation
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.implementation_ = choose_pursuit(implementation, self.device, product_dtype)
        self.dictionary_: Dictionary
        self.log_: list[dict[str, Any]] = []
        self.stop_reason_ = ""

    def fit(self, x: Any, heldout: Any = None) -> DBKSVD:
        """Learn a dictionary.

        Parameters
        ----------
        x : tensor or array of shape (n, d), or ActivationSource
            Samples in random order. Memory is bounded by the batch, never by n.
        heldout : the same, optional
            Samples to measure on; the time this takes is not counted.

        Returns
        -------
        DBKSVD
            Itself.

        Raises
        ------
        ValueError
            If the data are not as described; the message names the argument.
        """
        is_cpu = self.device.type == "cpu"
        with hold_torch_to_one_thread() if is_cpu else nullcontext():
            measured = None if heldout is None else as_source(heldout, "heldout")
            FitLoop(self, as_source(x), measured).run()
        return self

    def transform(self, x: Any, *, grouped: bool = False) -> SparseCodes:
        """Return codes of `x` on the CPU: flat as ``dictionary_.encode``, or group by group."""
        source = as_source(x)
        dictionary = self.dictionary_.to(self.device)
        budget = replace(dictionary.settings, k=-(-dictionary.settings.k // len(self.groups_)))

        def encode(rows: Tensor) -> SparseCodes:
            rows = rows.to(self.device)
            if not grouped:
                return dictionary.encode(rows, implementation=self.implementation)
            return encode_groups(
                *(rows - dictionary.bias, dictionary.atoms, self.groups_, budget),
                implementation=self.implementation,
            )[0]

        n = len(source)
        ranges = ((start, min(n, start + READ_ROWS)) for start in range(0, n, READ_ROWS))
        return encode_in_blocks((read_rows(source, *rows) for rows in ranges), encode)
