"""Texts in the forms that SAEBench's evals ask for: those that sae-probes carries, or the hub's."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice, zip_longest
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dbksvd.evaluation.saebench.data.heldout import read_heldout
from dbksvd.evaluation.saebench.data.hub_data import stream_texts
from dbksvd.evaluation.saebench.data.names import AG_NEWS_SOURCES, CROSSED_SOURCES, HELDOUT, HUB
from dbksvd.evaluation.saebench.data.settings import TextSettings

TEST_SHARE = 0.2
END: Any = object()  # no text is this


def read_bundled(name: str) -> pd.DataFrame:
    """Return a data set bundled with sae-probes, with columns prompt and target.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    from sae_probes.constants import DATA_PATH

    path = DATA_PATH / "cleaned_data" / f"{name}.csv.zst"
    if not path.is_file():
        raise ValueError(f"datasets: sae-probes carries no data set {name!r}")
    return pd.read_csv(path)


def open_texts(settings: TextSettings) -> list[Iterable[str]]:
    """Return the texts of each data set in `settings`: bundled, the hub's, or held-out documents.

    Raises
    ------
    ValueError
        If a bundled data set does not exist; the hub is asked when the texts are read.
    """
    if settings.data == HELDOUT:
        return [read_heldout()]
    if settings.data == HUB:
        return [stream_texts(name) for name in settings.datasets]
    return [read_bundled(name)["prompt"].astype(str).tolist() for name in settings.datasets]


def read_texts(settings: TextSettings, n_texts: int) -> list[str]:
    """Return `n_texts` texts, about as many of each data set, in their order.

    Raises
    ------
    ValueError
        If there are fewer held-out documents.
    """
    columns = open_texts(settings)
    share = -(-n_texts // len(columns))
    texts = [text for column in columns for text in islice(column, share)][:n_texts]
    if settings.data == HELDOUT and len(texts) < n_texts:
        raise ValueError(
            f"texts: expected at most {len(texts)}, the held-out documents of the run, got "
            f"{n_texts}"
        )
    return texts


def pack_tokens(settings: TextSettings, tokenizer: Any, rows: int, context_length: int) -> Tensor:
    """Return texts end to end, eos between them, as int64 tokens of shape (rows, context_length).

    As SAEBench packs its own text, so that no row ends in padding. Every row starts and ends with
    the tokens that the tokenizer puts around a text.

    Parameters
    ----------
    settings : TextSettings
        Which data sets; one text of each in turn.
    tokenizer : transformers tokenizer
        The model's.
    rows, context_length : int
        Shape of the result: rows, and tokens of a row.

    Raises
    ------
    ValueError
        If the data sets have too little text.
    """
    around = tokenizer("a", return_special_tokens_mask=True)
    middle = around["special_tokens_mask"].index(0)
    before, after = around["input_ids"][:middle], around["input_ids"][middle:][1:]
    length = context_length - len(before) - len(after)
    in_turn = chain.from_iterable(zip_longest(*open_texts(settings)))  # one text of each
    ids: list[int] = []
    while len(ids) < rows * length:
        text = next(in_turn, END)
        if text is END:
            raise ValueError(
                f"datasets: expected {rows * length} tokens, got {len(ids)} from "
                f"{settings.datasets}"
            )
        if text is not None:
            ids += tokenizer(text, add_special_tokens=False)["input_ids"]
            ids.append(tokenizer.eos_token_id)
    starts = range(0, rows * length, length)
    return torch.tensor([[*before, *ids[start : start + length], *after] for start in starts])


def read_ag_news() -> dict[str, pd.DataFrame]:
    """Return AG News classes 0 to 2 as "train" and "test", with columns text and label."""
    frames = _split({str(label): _take(name, 1) for label, name in enumerate(AG_NEWS_SOURCES)})
    return {split: frame.astype({"label": int}) for split, frame in frames.items()}


def read_crossed() -> dict[str, pd.DataFrame]:
    """Return reviews with two labels that cross, as "train" and "test".

    Columns text, label (0 negative, 1 positive) and kind (0 film, 1 product).
    """
    films, products = CROSSED_SOURCES
    quadrants = {
        f"{label}/{kind}": _take(name, label)
        for kind, name in enumerate((films, products))
        for label in (0, 1)
    }
    frames = _split(quadrants)
    for frame in frames.values():
        pairs = frame.pop("label").str.split("/", expand=True).astype(int)
        frame["label"], frame["kind"] = pairs[0], pairs[1]
    return frames


def _take(name: str, target: Any) -> pd.Series:
    table = read_bundled(name)
    return table.loc[table["target"] == target, "prompt"].drop_duplicates()


def _split(texts: dict[str, pd.Series]) -> dict[str, pd.DataFrame]:
    frames: dict[str, list[pd.DataFrame]] = {"train": [], "test": []}
    for label, column in texts.items():
        table = pd.DataFrame({"text": column, "label": label})
        n_test = int(TEST_SHARE * len(table))
        frames["train"].append(table[n_test:])
        frames["test"].append(table[:n_test])
    return {split: pd.concat(parts, ignore_index=True) for split, parts in frames.items()}
