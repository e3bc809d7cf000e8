"""The page about one text: its atoms are those of the codes, and any text stays text."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from features_helpers import SIGNED
from page_site import HOSTILE, LABELS, make_features, render

from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.features.explain import explain_text
from dbksvd.features.site import SiteFeatures
from dbksvd.models.loading import load_model
from dbksvd.report.pages.explain import (
    ExplainedText,
    list_fired,
    render_explanation,
    show_token,
)

ROOT = Path(__file__).parents[2]
TEXT = "the small cat sleeps"


@pytest.fixture(scope="module")
def base(tmp_path_factory, make_sentences) -> Path:
    base = tmp_path_factory.mktemp("explain pages")
    render(base, make_features(base, make_sentences(20, seed=3)), base / "site")
    return base


@pytest.fixture(scope="module")
def loaded(base):
    return load_model({"name": str(base / "model")}, gpus=0)


def write_page(base: Path, loaded, text: str, output: Path, names=tuple(SIGNED)) -> str:
    features = SiteFeatures.open(base / "features")
    (explained,) = explain_text(
        [text], {name: base / name for name in names}, loaded, layer=2, context_length=60
    )
    fired = {name: list_fired(features, name) for name in names if name in features.names}
    one = ExplainedText("layer2", explained, LABELS, fired)
    render_explanation([one], "experiment <i>", base / "site", output)
    return output.read_text()


class Reader(HTMLParser):
    """Collects the shaded texts and the rows of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.shades: list[list[tuple[str, str, str]]] = []  # tip, style, text
        self.rows: list[tuple[str, list[list[tuple[str | None, str]]]]] = []  # token, cells
        self.addresses: list[str] = []
        self._into: str | None = None

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href") and value]
        if given.get("class") == "text":
            self.texts.append("")
            self.shades.append([])
            self._into = "text"
        elif self._into == "text" and tag == "span":
            self.shades[-1].append((given["data-tip"], given["style"], ""))
        elif tag == "th" and given.get("scope") == "row":
            self.rows.append(("", []))
            self._into = "token"
        elif tag == "td":
            self.rows[-1][1].append([])
            self._into = "cell"
        elif self._into == "cell" and "data-tip" in given:
            self.rows[-1][1][-1].append((given.get("href"), given["data-tip"]))

    def handle_endtag(self, tag):
        if tag in ("div", "th", "td"):
            self._into = None

    def handle_data(self, data):
        if self._into == "text":
            self.texts[-1] += data
        elif self._into == "token":
            self.rows[-1] = (self.rows[-1][0] + data, self.rows[-1][1])


def read_page(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def code_by_hand(base: Path, loaded, text: str, name: str) -> tuple[list[int], torch.Tensor]:
    ids = loaded.tokenizer(text)["input_ids"][:60]
    with torch.no_grad():
        out = loaded.model(torch.tensor([ids]), output_hidden_states=True)
    x = out.hidden_states[2][0].float()
    return ids, load_dictionary(base / name).encode(x).to_dense()


def format_value(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"{value:.3g}"


def test_page_shows_the_codes_of_the_text(base, loaded, tmp_path):
    output = base / "site" / "explain.html"
    found = read_page(write_page(base, loaded, TEXT, output))
    assert found.texts == [TEXT] * 3
    features = SiteFeatures.open(base / "features")
    for place, name in enumerate(SIGNED):
        ids, codes = code_by_hand(base, loaded, TEXT, name)
        assert len(found.rows) == len(ids) == len(TEXT)
        most = float(codes.abs().max())
        arrays = features.read(name)
        shades = iter(found.shades[place])
        for letter, (token, cells), row in zip(TEXT, found.rows, codes, strict=True):
            assert token == letter.replace(" ", "␣")
            active = row.nonzero()[:, 0].tolist()
            active.sort(key=lambda atom: (-abs(float(row[atom])), atom))
            assert len(cells[place]) == len(active)
            for atom, (address, tip) in zip(active, cells[place], strict=True):
                assert address == f"layer2/{name.replace('/', '-')}/index.html#{atom}"
                assert (output.parent / address.split("#")[0]).is_file()
                value, _, tokens = tip.removeprefix(f"atom {atom}: ").partition("; fires most on ")
                assert value == format_value(float(row[atom]))
                top = arrays.arrays["token_id"][atom][0]
                assert tokens.startswith(show_token(features.tokens[top]) if top >= 0 else "")
            if active:
                largest = float(row[active[0]])
                tip, style, _ = next(shades)
                assert f"atom {active[0]}: {format_value(largest)}" in tip
                strength = round(0.12 + 0.78 * abs(largest) / most, 2)
                colour = "--minus" if largest < 0 else "--plus"
                assert style == f"background: rgba(var({colour}), {strength})"
        assert next(shades, None) is None
    signed = [tip for _, cells in found.rows for _, tip in cells[1]]
    assert any(": \N{MINUS SIGN}" in tip for tip in signed)


@pytest.mark.parametrize("text", [*HOSTILE, "\t\n\r", "{% raw %}", "a\x00b", "\ufeffx\u2028y"])
def test_hostile_text_stays_text(base, loaded, text, tmp_path):
    if not text.strip():
        text = f"{text}."
    page = write_page(base, loaded, text, base / "site" / "explain.html")
    found = read_page(page)
    assert found.tags.count("script") == 1  # site.js
    assert "img" not in found.tags
    assert "b" not in found.tags
    assert LABELS["dbksvd"] not in page
    ids = loaded.tokenizer(text)["input_ids"][:60]
    assert len(found.rows) == len(ids)
    if text.isascii() and text.isprintable():
        assert found.texts[0] == text[:60]


def test_addresses_hold_from_any_folder(base, loaded, tmp_path):
    output = tmp_path / "elsewhere #1" / "page.html"
    output.parent.mkdir()
    found = read_page(write_page(base, loaded, TEXT, output))
    for address in found.addresses:
        if address != "data:,":
            assert (output.parent / unquote(address.split("#")[0])).is_file(), address


def test_dictionary_without_pages_has_no_links(base, loaded, tmp_path):
    features = SiteFeatures.open(base / "features")
    (explained,) = explain_text(
        [TEXT], {"other/m50-k6-s1": base / "dbksvd/m50-k6-s0"}, loaded, layer=2
    )
    assert "other/m50-k6-s1" not in features.names
    output = base / "site" / "other.html"
    render_explanation([ExplainedText("layer2", explained, {}, {})], "e", base / "site", output)
    found = read_page(output.read_text())
    cells = [cell for _, row in found.rows for cell in row[0]]
    assert cells
    assert all(address is None for address, _ in cells)


def test_tokens_are_named_as_the_script_of_the_pages_does():
    script = (ROOT / "dbksvd/report/pages/static/site.js").read_text()
    (pattern,) = re.findall(r"text\.replace\(/\[(.*)\]/g,\n", script)
    hidden = {chr(code) for code in range(0x10000) if re.fullmatch(f"[{pattern}]", chr(code))}
    for code in range(0xD800):
        changed = show_token(f"x{chr(code)}") != f"x{chr(code)}"
        assert changed == (chr(code) in hidden), hex(code)
    assert show_token(" cat") == "␣cat"
    assert show_token("") == "␣"
    assert show_token("\n\t\x00\u202e") == "↵⇥\\u0000\\u202e"


def run_script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dbksvd.command.main", "explain", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        ("experiments/tiny.yaml", "  ", "error: text: expected a text, got nothing"),
        ("experiments/tiny.yaml", "\udc80", "error: text: expected UTF-8, got other bytes"),
        ("tests/workflow/small.yaml", "a cat", "error: activations.source: expected model"),
        ("experiments/tiny.yaml", "a cat", "results/tiny/site/index.html: expected the pages of"),
        ("none.yaml", "a cat", "none.yaml: expected a config file"),
    ],
)
def test_script_says_in_one_line_what_is_wrong(config, text, expected, tmp_path):
    done = run_script(tmp_path, "--config", str(ROOT / config), "--", text)
    assert done.returncode == 1
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_make_hands_the_text_over_as_it_was_typed(tmp_path):
    """`make explain` with a stand-in for Python that says what it was given."""
    stand_in = tmp_path / "bin" / "python"
    stand_in.parent.mkdir()
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    stand_in.chmod(0o755)
    for text in ("a 'quoted' \"text\" with $HOME and `date`", "--output x", "1 # 2 \\ $(CONFIG)"):
        done = subprocess.run(
            ["make", "-s", "-o", "env", "explain", f"TEXT={text}", "CONFIG=mine.yaml",
             f"VENV={os.path.relpath(tmp_path, ROOT)}"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        given = json.loads(done.stdout)
        assert given[:2] == ["-m", "dbksvd.command.main"]
        assert given[2:] == ["explain", "--config", "mine.yaml", "--", text]
