"""A page about one text: which atoms fire on each of its tokens, method by method."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dbksvd.base.files import replace_file
from dbksvd.features.site import SiteFeatures
from dbksvd.report.pages.templating import FIRST_PAGE, open_templates

TOKENS_TOLD = 3
_MARKS = {"\n": "↵", "\r": "␍", "\t": "⇥"}
# Signs that do not show or that turn the order of what follows around them.
_HIDDEN = {*range(0x20), *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


@dataclass(frozen=True)
class ExplainedText:
    """A text at one site of the model.

    Parameters
    ----------
    site : str
        Such as ``layer4``.
    explained : mapping
        What :func:`dbksvd.features.explain.explain_text` returns of the text.
    labels : mapping of str to str
        How methods are called.
    fired : mapping of str to list
        For each dictionary the tokens that each atom fires on most, as text; may be empty.
    """

    site: str
    explained: Mapping[str, Any]
    labels: Mapping[str, str]
    fired: Mapping[str, Sequence[str]]


def list_fired(features: SiteFeatures, name: str) -> list[str]:
    """Return for each atom of a dictionary the tokens that it fires on most, as text.

    Parameters
    ----------
    features : SiteFeatures
        What was collected at the site.
    name : str
        The dictionary, such as ``dbksvd/m512-k16-s0``.
    """
    read = features.read(name)
    if "token_id" not in read.arrays:
        return [""] * read.n_atoms
    listed = [
        [show_token(features.tokens[token]) for token in row[:TOKENS_TOLD] if token >= 0]
        for row in read.arrays["token_id"].tolist()
    ]
    return [
        " ".join(dict.fromkeys(text for f in read.list_features(atom) for text in listed[f]))
        for atom in range(read.n_atoms)
    ]


def render_explanation(
    texts: Sequence[ExplainedText], experiment: str, site: str | Path, output: str | Path
) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    texts : sequence of ExplainedText
        The text at each site.
    experiment : str
        Its name.
    site : path
        Folder of the experiment's pages, whose style and pages of atoms are linked to.
    output : path
        The file.
    """
    folder = os.path.relpath(Path(site).resolve(), Path(output).resolve().parent)
    root = "" if folder == "." else quote(folder.replace(os.sep, "/")) + "/"
    page = (
        open_templates()
        .get_template("explain.html")
        .render(
            title=f"{experiment}: which atoms fire on a text",
            root=root,
            sites=[_describe_site(text, Path(site), root) for text in texts],
        )
    )
    with replace_file(output) as temporary:
        # surrogates, which UTF-8 has no bytes for, are named
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def show_token(text: str) -> str:
    """Return a token as it is shown alone, the same as site.js does: what does not show is named.

    Parameters
    ----------
    text : str
        Text of the token; a space before it means that a word begins.
    """
    shown = "".join(
        _MARKS.get(letter, f"\\u{ord(letter):04x}") if _is_hidden(letter) else letter
        for letter in text
    )
    if shown.startswith(" "):
        shown = "␣" + shown[1:]
    return shown or "␣"


def _is_hidden(letter: str) -> bool:
    return ord(letter) in _HIDDEN or letter == "\ufeff"


def _describe_site(text: ExplainedText, site: Path, root: str) -> dict[str, Any]:
    explained = text.explained
    tokens = [
        {"shown": show_token(token), "text": token, "coded": coded}
        for token, coded in zip(explained["tokens"], explained["coded"], strict=True)
    ]
    methods = []
    for name, active in explained["atoms"].items():
        method, sizes = name.split("/")
        slug = f"{text.site}/{method}-{sizes}"
        has_page = (site / slug / FIRST_PAGE).is_file()
        methods.append(
            {
                "label": text.labels.get(method, method),
                "sizes": sizes,
                "path": f"{root}{quote(slug)}/{FIRST_PAGE}" if has_page else None,
                "pieces": _shade(tokens, active),
                "cells": [_list_atoms(pairs, text.fired.get(name, ())) for pairs in active],
            }
        )
    return {"name": text.site, "tokens": tokens, "methods": methods}


def _shade(
    tokens: Sequence[Mapping[str, Any]], active: Sequence[Sequence[tuple[int, float]]]
) -> list[dict[str, Any]]:
    """Return the tokens with the strength of their largest coefficient, 1 at the text's largest."""
    most = max((abs(value) for pairs in active for _, value in pairs), default=0.0)
    pieces = []
    for token, pairs in zip(tokens, active, strict=True):
        piece: dict[str, Any] = {"text": token["text"], "tip": None}
        if pairs:
            atom, value = pairs[0]  # they come by falling magnitude
            more = f", {len(pairs) - 1} more" if len(pairs) > 1 else ""
            piece |= {
                "tip": f"{token['shown']}  atom {atom}: {_show_value(value)}{more}",
                "colour": "--minus" if value < 0 else "--plus",
                "strength": round(0.12 + 0.78 * abs(value) / most, 2),
            }
        pieces.append(piece)
    return pieces


def _list_atoms(
    pairs: Sequence[tuple[int, float]], fired: Sequence[str]
) -> list[dict[str, str | int]]:
    return [
        {
            "atom": atom,
            "tip": f"atom {atom}: {_show_value(value)}"
            + (f"; fires most on {fired[atom]}" if len(fired) > atom and fired[atom] else ""),
        }
        for atom, value in pairs
    ]


def _show_value(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"{value:.3g}"
