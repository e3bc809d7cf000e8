"""What sae-bench 0.6.0 and sae-probes 0.4.2 get wrong or cannot be told, handled in one place.

The packages are never edited: a shim is a context manager that puts a name back as it was, or a
function over what SAEBench returns. Each says in one line why it exists.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor

from dbksvd.evaluation.saebench.data.names import AG_NEWS_SOURCES
from dbksvd.evaluation.saebench.shims.imports import RowCounts

AG_NEWS = "fancyzhx/ag_news"
# SAEBench routes a set of two crossing labels by a part of its name.
CROSSED = "sae_probes/reviews_by_sentiment_and_kind_laid_out_as_bias_in_bios"
SENTIMENTS = ("negative", "positive")


@contextmanager
def use_model(module: ModuleType, model: Any) -> Iterator[None]:
    """Let an eval module use `model`: ``run_eval`` knows only TransformerLens names."""

    class Loader:
        @staticmethod
        def from_pretrained_no_processing(*_args: Any, **_kwargs: Any) -> Any:
            return model

    with patch.object(module, "HookedTransformer", Loader):
        yield


@contextmanager
def read_on(device: str) -> Iterator[None]:
    """Read tensors to `device`: SAEBench reads what was recorded to the device that recorded it."""
    with patch.object(torch, "load", partial(torch.load, map_location=device)):
        yield


@contextmanager
def quiet_probes() -> Iterator[None]:
    """Drop scikit-learn's two warnings about ``penalty``: sae-probes names it thousands of times.

    Only the warnings: scikit-learn 1.8 and 1.9 still do what ``penalty`` says.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'penalty' was deprecated")
        warnings.filterwarnings("ignore", message="Inconsistent values: penalty=")
        yield


@contextmanager
def limit_rows(rows: int | None) -> Iterator[None]:
    """Keep the first `rows` of each sae-probes data set: it has no setting for their number.

    Classes stay balanced (sae-probes draws as many of each), in the order of the file.
    """
    # By their full names: the package has a function of the name of one of its modules.
    generate_model_activations, generate_sae_activations, baselines, sae_evals, utils_data = (
        import_module(f"sae_probes.{name}")
        for name in (
            "generate_model_activations",
            "generate_sae_activations",
            "run_baselines",
            "run_sae_evals",
            "utils_data",
        )
    )
    if rows is None:
        yield
        return
    limit = rows - rows % 2

    class LimitedPandas:
        DataFrame = pd.DataFrame

        @staticmethod
        def read_csv(*args: Any, **kwargs: Any) -> pd.DataFrame:
            table = pd.read_csv(*args, **kwargs)
            if "target" not in table or len(table) <= limit:
                return table
            rank = table.groupby("target").cumcount()
            return table[rank < limit // table["target"].nunique()].reset_index(drop=True)

    utils_data.read_dataset_df.cache_clear()
    with ExitStack() as stack:
        stack.callback(utils_data.read_dataset_df.cache_clear)
        for module in (generate_model_activations, utils_data):
            stack.enter_context(patch.object(module, "pd", LimitedPandas))
        # Sizes that were counted before are those of whole data sets.
        for module in (generate_sae_activations, baselines, sae_evals):
            stack.enter_context(patch.object(module, "DATASET_SIZES", RowCounts()))
        stack.enter_context(patch.object(utils_data, "get_dataset_sizes", RowCounts))
        yield


@contextmanager
def serve_ag_news(frames: Mapping[str, pd.DataFrame] | None) -> Iterator[None]:
    """Give SAEBench local AG News texts of classes 0 to 2: it asks the hub, and wants class 3 too.

    Parameters
    ----------
    frames : mapping of str to DataFrame, or None
        "train" and "test", columns text and label; None where recorded activations are used.
    """
    from sae_bench.evals.scr_and_tpp import main as scr_and_tpp
    from sae_bench.sae_bench_utils import dataset_info, dataset_utils

    def load_dataset(name: str, **_kwargs: Any) -> Mapping[str, pd.DataFrame]:
        if frames is None or name != AG_NEWS:
            raise ValueError(f"sparse_probing: data set {name!r} was not prepared")
        return frames

    classes = {AG_NEWS: [str(label) for label in range(len(AG_NEWS_SOURCES))]}
    with (
        patch.object(dataset_utils, "load_dataset", load_dataset),
        patch.dict(dataset_info.chosen_classes_per_dataset, classes),
        patch.dict(scr_and_tpp.COLUMN2_VALS_LOOKUP, {AG_NEWS: None}),
    ):
        yield


@contextmanager
def serve_hub(load: Callable[..., Any] | None) -> Iterator[None]:
    """Let SAEBench read its own data sets by `load`: it would run code that the hub gives out.

    Parameters
    ----------
    load : callable or None
        Takes what ``datasets.load_dataset`` takes; None where recorded activations are used.
    """
    from sae_bench.evals.scr_and_tpp import dataset_creation
    from sae_bench.sae_bench_utils import dataset_utils

    def refuse(name: str, *_args: Any, **_kwargs: Any) -> Any:
        raise ValueError(f"data set {name!r} was not prepared")

    with (
        patch.object(dataset_utils, "load_dataset", load or refuse),
        patch.object(dataset_creation, "load_dataset", load or refuse),
    ):
        yield


@contextmanager
def serve_crossed(frames: Mapping[str, pd.DataFrame] | None) -> Iterator[None]:
    """Give SAEBench's scr a local set of two crossing labels: it knows two sets of the hub only.

    Parameters
    ----------
    frames : mapping of str to DataFrame, or None
        "train" and "test", columns text, label and kind; None where recorded activations are
        used.
    """
    from sae_bench.evals.scr_and_tpp import dataset_creation
    from sae_bench.evals.scr_and_tpp import main as scr_and_tpp
    from sae_bench.sae_bench_utils import dataset_info

    def load_dataset(name: str, **_kwargs: Any) -> Mapping[str, pd.DataFrame]:
        if frames is None or name != CROSSED:
            raise ValueError(f"scr: data set {name!r} was not prepared")
        return frames

    metadata = {
        "text_column_name": "text",
        "column1_name": "label",
        "column2_name": "kind",
        "column1_mapping": {name: label for label, name in enumerate(SENTIMENTS)},
        "column2_mapping": {0: 0, 1: 1},
    }
    with (
        patch.object(dataset_creation, "load_dataset", load_dataset),
        patch.dict(dataset_info.dataset_metadata, {CROSSED: metadata}),
        patch.dict(scr_and_tpp.COLUMN2_VALS_LOOKUP, {CROSSED: (0, 1)}),
    ):
        yield


def fill_missing_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add CE loss and KL as NaN, which SAEBench writes as -1: its schema has no "not computed"."""
    from sae_bench.evals.core import eval_output

    behaviour = eval_output.ModelBehaviorPreservationMetrics
    performance = eval_output.ModelPerformancePreservationMetrics
    filled = {group: dict(values) for group, values in metrics.items()}
    for group, fields in [
        ("model_behavior_preservation", behaviour.__dataclass_fields__),
        ("model_performance_preservation", performance.__dataclass_fields__),
    ]:
        filled.setdefault(group, dict.fromkeys(fields, math.nan))
    return filled


@contextmanager
def observe_decode(sae: Any, observe: Callable[[Tensor], None]) -> Iterator[None]:
    """Show latents that are decoded to `observe`: core's own explained_variance is a wrong formula.

    It subtracts a mean of squared means, so that it depends on the scale of the data.
    """
    decode = sae.decode

    def decode_observed(latents: Tensor) -> Tensor:
        observe(latents)
        return decode(latents)

    sae.decode = decode_observed  # shadows the method; functions are not nn.Module state
    try:
        yield
    finally:
        del sae.decode


@contextmanager
def use_losses(module: ModuleType, measure: Callable[[Any], dict[str, Tensor]]) -> Iterator[None]:
    """Let core take the losses of a batch from `measure`: it runs the whole model three times."""

    def get_recons_loss(sae: Any, *_args: Any, **_kwargs: Any) -> dict[str, Tensor]:
        return measure(sae)

    with patch.object(module, "get_recons_loss", get_recons_loss):
        yield


@contextmanager
def read_in_order_of_length(model: Any) -> Iterator[None]:
    """Let pooled evals read texts in order of length: SAEBench pads all texts to the longest.

    Parameters
    ----------
    model : SAEBenchModel
        What computes the activations; those at padding are zero, as SAEBench makes them.
    """
    from sae_bench.sae_bench_utils import activation_collection

    collect = activation_collection.get_llm_activations

    def collect_in_order(
        tokens: Tensor, _model: Any, batch_size: int, *args: Any, **kwargs: Any
    ) -> Tensor:
        lengths = model.measure_lengths(tokens)
        activations = torch.zeros(*tokens.shape, model.cfg.d_model, device=model.device)
        for rows in lengths.argsort(stable=True).split(batch_size):
            longest = int(lengths[rows].max())
            found = collect(tokens[rows, :longest], model, batch_size, *args, **kwargs)
            activations[rows, :longest] = found.to(activations.dtype)
        return activations

    with patch.object(activation_collection, "get_llm_activations", collect_in_order):
        yield
