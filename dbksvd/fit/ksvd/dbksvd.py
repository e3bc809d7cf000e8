"""DB-KSVD: dictionaries learned in batches of samples and batches of atoms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.dictionaries.dictionary import Dictionary
from dbksvd.fit.ksvd.arguments import SETTING_NAMES, fill_settings
from dbksvd.fit.ksvd.estimator import (
    OUTPUTS,
    SklearnEstimator,
    check_labels,
    remember_arguments,
    write_codes,
)
from dbksvd.fit.ksvd.groups import encode_groups, encode_in_blocks
from dbksvd.fit.ksvd.job import FitJob, make_pursuits
from dbksvd.fit.ksvd.loop import FitLoop
from dbksvd.fit.ksvd.schedule import check_sizes, split_groups
from dbksvd.fit.ksvd.settings import DBKSVDSettings
from dbksvd.fit.reading import READ_ROWS, as_source, read_rows
from dbksvd.ops.defaults import with_usual_defaults
from dbksvd.ops.inputs import as_count, as_tensor, check_width, pick_device
from dbksvd.ops.pursuit.encode import choose_pursuit
from dbksvd.ops.ranks import ALONE, Ranks
from dbksvd.ops.threads import hold_torch_to_one_thread

DEFAULTS = DBKSVDSettings()


class DBKSVD(SklearnEstimator):
    """DB-KSVD; K-SVD and approximate K-SVD are choices of its parameters.

    Each iteration codes a batch of samples by pursuit and then improves atoms and coefficients by
    rank-1 updates, in batches of atoms. Exact K-SVD is ``batch_size=n, polish_iter=0,
    atom_batch=1, power_iterations=10``; approximate K-SVD has ``power_iterations=1``.

    Parameters
    ----------
    n_atoms, k : int
        Atoms of the dictionary and non-zeros of a sample: see `sparsity`.
    max_iter : int
        Iterations with all atoms; those at smaller sizes (``init="doubling"``) are not counted.
    polish_iter : int
        Iterations after those, each on twice the samples of the one before, at most all. Small
        batches move the atoms far; large ones average the noise of the small ones out.
    batch_size : int, optional
        Samples an iteration: consecutive rows, again from the first one after the last. By
        default ``128 n_atoms / k``, so that each atom is used about 128 times. Any number from n
        on takes all samples.
    iterations_per_batch : int
        Iterations on one batch before the next is read.
    atom_batch : int, optional
        Atoms updated from the same dictionary; see :func:`dbksvd.ops.atom_update.update_atoms_`.
        By default n_atoms / k, so that a sample uses about one atom of a batch.
    power_iterations : int
        Power iterations an atom and update.
    method, nonnegative, refit, rtol, product_dtype
        How samples are coded, by the fit and by the dictionary; see
        :func:`dbksvd.sparse_encode`. In the time of "mp", "ols" learns a better dictionary
        (``dbksvd/ops/atom_update/README.md``). On CUDA, only "mp" and "omp" have kernels of
        their own.
    sparsity : {"exact", "mean"}
        Whether `k` is the most non-zeros a sample may have, or their mean over samples. For the
        mean, every iteration sets one threshold for all samples: an atom is picked where its
        product with the residual is larger. A sample then has at most 3 k non-zeros. The
        dictionary keeps the threshold and encodes new samples with it.
    fit_refit : bool
        Whether coefficients are refitted while fitting too. Better not: refitted coefficients
        of neighbouring atoms counteract each other, and non-negative ones lose half their gain.
    groups : None, int or sequence of int
        Matryoshka groups: their sizes, or the size s of the first group (s, s, 2s, 4s, …). Each
        group has ``ceil(k / groups)`` non-zeros and codes the residual of the earlier ones.
    init : {"samples", "doubling", "random"}, or tensor or array of shape (n_atoms, d)
        First atoms: random samples; few atoms that double, with new ones from a short k-means on
        the residual; random directions; or the given ones.
    doubling_iterations, doubling_samples : int
        Iterations at each size below `n_atoms`, and samples an atom in them.
    min_usage : int
        Atoms that fewer samples of a batch use are replaced.
    max_cosine : float
        Of two atoms with a larger cosine, the one that is used less is replaced.
    max_seconds : float, optional
        Fit time in seconds (on a CPU those of processor time) after which no iteration begins,
        once all atoms are there.
    tol : float
        Ends the fit when an iteration lowers the relative error of the batch by less than this.
    heldout_every : int
        Iterations between measurements on held-out samples; 0 measures at the end only.
    checkpoint : path, optional
        Folder for unfinished work. A fit of the same settings and data goes on from there. The
        caller removes the folder.
    checkpoint_seconds : float
        Least time between two checkpoints, in seconds.
    seed : int
        Seed of all randomness. On the CPU, a seed gives the same bytes on any number of threads.
    device : str
        Where to compute; "auto" is CUDA where there is one.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    progress : bool
        Whether to show a progress bar.
    output : {"codes", "dense", "csr"}
        What :meth:`transform` returns: :class:`dbksvd.SparseCodes`, a float32 numpy array of shape
        (n, n_atoms), as scikit-learn's pipelines need it, or scipy's sparse array of that shape.
    ranks : Ranks
        The processes that fit together, as :func:`dbksvd.ops.ranks.join_ranks` gives them. All
        have the same settings and data, and each codes its share of every batch. The result is
        that of one process up to rounding.

    Attributes
    ----------
    dictionary_ : Dictionary
        Atoms, bias (the mean of the data) and the pursuit, without groups.
    log_ : list of dict
        One row an iteration; errors are sums of squares in the squared unit of the data.
    stop_reason_ : str
        "max_iter", "max_seconds" or "converged".
    n_iter_ : int
        Iterations that ran.
    n_features_in_ : int
        Width d of the samples.
    implementation_ : str
        The implementation that ran.
    groups_ : tuple of int
        Sizes of the groups.
    settings : DBKSVDSettings
        The arguments that are settings; each is also an attribute of its own name.

    Notes
    -----
    Valentin et al., "DB-KSVD" (arXiv 2505.18441). Defaults and what they were measured against:
    ``dbksvd/ops/atom_update/README.md``.
    """

    @remember_arguments
    def __init__(
        self,
        n_atoms: int,
        k: int,
        *,
        max_iter: int = DEFAULTS.max_iter,
        polish_iter: int = DEFAULTS.polish_iter,
        batch_size: int | None = DEFAULTS.batch_size,
        iterations_per_batch: int = DEFAULTS.iterations_per_batch,
        atom_batch: int | None = DEFAULTS.atom_batch,
        power_iterations: int = DEFAULTS.power_iterations,
        method: Literal["mp", "omp", "ols"] = DEFAULTS.pursuit,
        nonnegative: bool = DEFAULTS.nonnegative,
        refit: bool = DEFAULTS.refit,
        rtol: float = DEFAULTS.rtol,
        product_dtype: Literal["bfloat16"] | None = DEFAULTS.product_dtype,
        sparsity: Literal["exact", "mean"] = DEFAULTS.sparsity,
        fit_refit: bool = DEFAULTS.fit_refit,
        groups: int | Sequence[int] | None = DEFAULTS.groups,
        init: str | Tensor | np.ndarray[Any, Any] = DEFAULTS.init,
        doubling_iterations: int = DEFAULTS.doubling_iterations,
        doubling_samples: int = DEFAULTS.doubling_samples,
        min_usage: int = DEFAULTS.min_usage,
        max_cosine: float = DEFAULTS.max_cosine,
        max_seconds: float | None = DEFAULTS.max_seconds,
        tol: float = DEFAULTS.tol,
        heldout_every: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = DEFAULTS.checkpoint_seconds,
        seed: int = 0,
        device: str | torch.device = "auto",
        implementation: str = DEFAULTS.implementation,
        progress: bool = False,
        output: Literal["codes", "dense", "csr"] = "codes",
        ranks: Ranks = ALONE,
    ) -> None:
        n_atoms, k = as_count(n_atoms, "n_atoms"), as_count(k, "k")
        self.device = pick_device(device)
        self.implementation_ = choose_pursuit(implementation, self.device, product_dtype)
        self.n_atoms, self.k, self.init = n_atoms, k, self._read_init(init)
        self.seed = as_count(seed, "seed", least=0)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.progress, self.ranks = progress, ranks
        if output not in OUTPUTS:
            raise ValueError(f"output: expected {', '.join(OUTPUTS)}, got {output!r}")
        self.output = output
        arguments = {
            "max_iter": max_iter,
            "polish_iter": polish_iter,
            "batch_size": batch_size,
            "iterations_per_batch": iterations_per_batch,
            "atom_batch": atom_batch,
            "power_iterations": power_iterations,
            "method": method,
            "nonnegative": nonnegative,
            "refit": refit,
            "rtol": rtol,
            "product_dtype": product_dtype,
            "sparsity": sparsity,
            "fit_refit": fit_refit,
            "groups": groups,
            "init": init,
            "doubling_iterations": doubling_iterations,
            "doubling_samples": doubling_samples,
            "min_usage": min_usage,
            "max_cosine": max_cosine,
            "max_seconds": max_seconds,
            "tol": tol,
            "heldout_every": heldout_every,
            "checkpoint_seconds": checkpoint_seconds,
            "implementation": implementation,
        }
        self.settings = fill_settings(arguments)
        check_sizes(self.settings, n_atoms, k)
        self.groups_ = split_groups(n_atoms, self.settings.groups)
        self.is_mean = self.settings.sparsity == "mean"
        self.pursuit, self.fit_pursuit = make_pursuits(self.settings, n_atoms, k)
        self.dictionary_: Dictionary
        self.log_: list[dict[str, Any]] = []
        self.stop_reason_ = ""

    def __getattr__(self, name: str) -> Any:
        """Return a setting under the name of its argument, such as ``model.max_iter``."""
        if name == "dictionary_":
            raise AttributeError("dictionary_: expected a model after fit(), got one before it")
        if name not in SETTING_NAMES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.settings, "pursuit" if name == "method" else name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute that is no setting: those never change."""
        if name in SETTING_NAMES and "settings" in self.__dict__:
            raise AttributeError(f"{name}: expected in the constructor, got it afterwards")
        super().__setattr__(name, value)

    @with_usual_defaults
    def fit(self, x: Any, y: Any = None, *, heldout: Any = None) -> Self:
        """Learn a dictionary.

        Parameters
        ----------
        x : tensor or array of shape (n, d), or ActivationSource
            Samples in random order. Memory is bounded by the batch, never by n.
        y : None or array of labels
            Not used: pipelines hand it to every step.
        heldout : the same, optional
            Samples to measure on; the time this takes is not counted.

        Returns
        -------
        DBKSVD or KSVD
            Itself.

        Raises
        ------
        ValueError
            If the data are not as described; the message names the argument.
        """
        is_cpu = self.device.type == "cpu"
        with hold_torch_to_one_thread() if is_cpu else nullcontext():
            measured = None if heldout is None else as_source(heldout, "heldout")
            source = as_source(x)
            check_labels(y, source.width)
            outcome = FitLoop(self._make_job(), source, measured).run()
        self.n_features_in_, self.n_iter_ = source.width, len(outcome.log)
        self.dictionary_, self.log_ = outcome.dictionary, outcome.log
        self.stop_reason_ = outcome.stop_reason
        return self

    @staticmethod
    def _read_init(init: Any) -> Any:
        """Return atoms that are an array as a tensor, anything else as it is."""
        return as_tensor(init, "init") if isinstance(init, Tensor | np.ndarray) else init

    def _make_job(self) -> FitJob:
        return FitJob(
            settings=self.settings,
            n_atoms=self.n_atoms,
            k=self.k,
            seed=self.seed,
            device=self.device,
            implementation=self.implementation_,
            atoms=self.init if isinstance(self.init, Tensor) else None,
            checkpoint=self.checkpoint,
            progress=self.progress,
            ranks=self.ranks,
        )

    @with_usual_defaults
    def transform(self, x: Any, *, grouped: bool = False) -> Any:
        """Return codes of `x` on the CPU: flat as ``dictionary_.encode``, or group by group.

        They are :class:`dbksvd.SparseCodes`, or as `output` says.
        """
        source = as_source(x, may_be_empty=True)
        check_width(source.width, self.dictionary_.atoms.shape[1])
        dictionary = self.dictionary_.to(self.device)
        budget = replace(dictionary.settings, k=-(-dictionary.settings.k // len(self.groups_)))

        def encode(rows: Tensor) -> SparseCodes:
            rows = rows.to(self.device)
            if not grouped:
                return dictionary.encode(rows, implementation=self.settings.implementation)
            return encode_groups(
                *(rows - dictionary.bias, dictionary.atoms, self.groups_, budget),
                implementation=self.settings.implementation,
            )[0]

        n = len(source)
        # one block of no rows where there are none
        starts = range(0, max(n, 1), READ_ROWS)
        ranges = ((start, min(n, start + READ_ROWS)) for start in starts)
        codes = encode_in_blocks((read_rows(source, *rows) for rows in ranges), encode)
        return write_codes(codes, self.output)
