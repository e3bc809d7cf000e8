"""sparse_probing: SAEBench's own k-sparse probes, on bundled AG News or on its own eight sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from dbksvd.base.settings import Count
from dbksvd.evaluation.saebench.data.names import AG_NEWS_SOURCES, BUNDLED, HUB, HUB_LABELLED
from dbksvd.evaluation.saebench.data.settings import ContextLength, LabelledSettings, list_hub_data
from dbksvd.evaluation.saebench.entry import Eval, EvalTexts, make_probe_headlines

if TYPE_CHECKING:
    from pathlib import Path

    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel
    from dbksvd.models.sizes import ModelKind

# The data sets on the hub have this many classes together, and the largest of them so many.
HUB_CLASSES, LARGEST_CLASSES = 36, 5


class SparseProbingSettings(LabelledSettings):
    """SAEBench's own k-sparse probes: which of three topics of AG News, or its own eight sets."""

    hub_default = HUB_LABELLED

    train_size: Count = 1600
    """Texts that a probe is trained on, half of them of its class."""
    test_size: Count = 400
    """Texts that a probe is tested on, half of them of its class."""
    context_length: ContextLength = 64
    """Tokens of a text that are read."""
    k_values: list[Count] = Field([1, 2, 5], min_length=1)
    """Numbers of latents that a probe sees; tables show 1 and 5."""


def list_bundled(settings: SparseProbingSettings) -> list[str]:
    """Return the data sets of sae-probes that are read."""
    return list(AG_NEWS_SOURCES) if settings.data == BUNDLED else []


def cost(settings: SparseProbingSettings, _kind: ModelKind) -> EvalTexts:
    """Count the texts of all classes, each read and coded once."""
    classes, largest, share = 3.0, 3, 1.0
    if settings.data == HUB:
        share = min(1.0, len(list_hub_data(settings)) / len(HUB_LABELLED))
        classes, largest = HUB_CLASSES, LARGEST_CLASSES
    texts = (settings.train_size + settings.test_size) / 2 * settings.context_length
    seconds = 0.5 * classes * share
    tokens = classes * share * texts
    return EvalTexts(tokens, tokens, largest * texts, tokens, 0, seconds, seconds)


def prepare(loaded: LoadedModel, site: EvalSite, settings: SparseProbingSettings, to: Path) -> None:
    """Write activations and raw probes.

    SAEBench computes both on the way to the first SAE's scores: it is run once on a random
    dictionary, and what it leaves behind for the next SAE is kept: two thirds of the time of a
    dictionary.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : SparseProbingSettings
        Which texts, how many and how long.
    to : path
        An empty folder.
    """
    from sae_bench.evals.sparse_probing import main as eval_module

    from dbksvd.evaluation.saebench.data.labelled import serve_topics
    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.random_dictionary import make_random_dictionary
    from dbksvd.evaluation.saebench.shims import common
    from dbksvd.evaluation.saebench.shims.norm_limit import zero_over

    device = str(loaded.device)
    sae = make_random_dictionary(loaded.width, max(settings.k_values), site, device)
    model = SAEBenchModel(loaded, site.model_name)
    texts = serve_topics(settings, is_prepared=False)
    with (
        texts,
        common.use_model(eval_module, model),
        common.read_in_order_of_length(model),
        common.quiet_probes(),
        zero_over(site.norm_limit),
    ):
        eval_module.run_eval(
            _configure(site, settings),
            [("random", sae)],
            device,
            "random",
            artifacts_path=str(to),
        )


def run(task: EvalTask) -> None:
    """SAEBench's sparse_probing over the prepared activations."""
    from sae_bench.evals.sparse_probing import main as eval_module

    from dbksvd.evaluation.saebench.data.labelled import serve_topics
    from dbksvd.evaluation.saebench.shims import common

    texts = serve_topics(task.settings, is_prepared=True)
    with texts, common.use_model(eval_module, None), common.quiet_probes():
        eval_module.run_eval(
            _configure(task.site, task.settings),
            [(task.name, task.sae)],
            task.device,
            str(task.output),
            artifacts_path=str(task.prepared),
        )


def _configure(site: EvalSite, settings: SparseProbingSettings) -> Any:
    from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig

    from dbksvd.evaluation.saebench.shims import common

    is_bundled = settings.data == BUNDLED
    return SparseProbingEvalConfig(
        random_seed=site.seed,
        dataset_names=[common.AG_NEWS] if is_bundled else list_hub_data(settings),
        probe_train_set_size=settings.train_size,
        probe_test_set_size=settings.test_size,
        context_length=settings.context_length,
        llm_batch_size=32,
        llm_dtype="float32",
        model_name=site.model_name,
        k_values=list(settings.k_values),
    )


EVAL = Eval(
    settings=SparseProbingSettings,
    prepare=prepare,
    run=run,
    headlines=make_probe_headlines("sparse_probing", "AG News"),
    cost=cost,
    datasets=list_bundled,
    hub=list_hub_data,
    needs_norm_limit=True,
)
