"""Feature pages: what their files hold equals what was collected; text stays text."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_chunks import (
    read_atoms,
    read_chunk,
    read_contexts,
    read_info,
    read_words,
    unfold,
)
from page_site import HOSTILE, LABELS, make_features, render

from dbksvd.base.files import hash_files, read_json, write_json
from dbksvd.features.site_files import read_arrays
from dbksvd.report.pages.chunks import write_chunk
from dbksvd.report.pages.columns import fold
from dbksvd.report.pages.search_index import (
    Words,
    cut_into_buckets,
    cut_into_files,
    describe_word,
    index_words,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def features(base, make_sentences) -> Path:
    return make_features(base, make_sentences(20, seed=3))


@pytest.fixture(scope="module")
def site(base, features) -> Path:
    render(base, features, base / "site")
    return base / "site"


class Checker(HTMLParser):
    """Collects tags and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href") and value]


def list_pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_address_is_a_file_beside_the_page(site):
    pages = list_pages(site)
    assert len(pages) == 4
    for page in pages:
        checker = Checker()
        checker.feed(page.read_text())
        for address in checker.addresses:
            if address.startswith(("#", "data:,")):
                continue
            assert not re.match(r"[a-z]+:|//|/", address), address
            assert (page.parent / address.split("#")[0]).is_file(), address
    script = (site / "static" / "site.js").read_text()
    assert not re.search(r"fetch\(|XMLHttpRequest|import\s*\(|eval\(|innerHTML|https?:", script)
    assert "http" not in (site / "static" / "site.css").read_text()


def test_hostile_text_and_labels_stay_text(site):
    for page in list_pages(site):
        checker = Checker()
        checker.feed(page.read_text())
        assert checker.tags.count("script") == (2 if page.parent != site else 1)
        assert checker.tags.count("img") == (1 if page.parent == site else 0)
        assert checker.tags.count("i") == (0 if page.parent == site else 40)  # bars of a histogram
        assert LABELS["dbksvd"] not in page.read_text()
    contexts = read_contexts(site / "layer2" / "dbksvd-m50-k6-s0")
    shown = {"".join(pieces) for pieces in contexts["texts"]}
    assert sum(any(text[:20] in one for one in shown) for text in HOSTILE) >= 3
    for script in site.rglob("*.js"):
        assert "<script" not in script.read_text() or script.parent.name == "static"


@pytest.mark.parametrize("name", ["dbksvd", "signed", "topk"])
def test_atoms_show_what_was_collected(site, features, name):
    arrays = read_arrays(features / "atoms" / name / "m50-k6-s0.h5")
    texts = {int(key): text for key, text in read_json(features / "tokens.json").items()}
    contexts = read_arrays(features / "contexts.h5")
    place = {document: i for i, document in enumerate(contexts["document"].tolist())}
    page = site / "layer2" / f"{name}-m50-k6-s0"
    shared, after = read_contexts(page), read_info(page)["window"][1]
    assert shared["documents"] == contexts["document"].tolist()
    assert shared["sources"] == contexts["source"].tolist()
    n = len(arrays["nearest_atom"])
    for number, atom in enumerate(read_atoms(page)):
        assert len(atom["sides"]) == len(arrays["count"]) // n
        for side, shown in enumerate(atom["sides"]):
            feature = number + side * n
            assert shown["count"] == arrays["count"][feature]
            if not shown["count"]:
                continue
            assert shown["histogram"] == arrays["histogram_count"][feature].tolist()
            low, high = arrays["example_start"][feature : feature + 2]
            assert len(shown["examples"]) == high - low
            for e, example in zip(range(low, high), shown["examples"], strict=True):
                document = int(arrays["example_document"][e])
                start = contexts["start"][place[document]] + arrays["example_first"][e]
                ids = contexts["token"][start : start + arrays["example_length"][e]]
                assert shared["documents"][example["c"]] == document
                text = shared["texts"][example["c"]]
                pieces = text[example["f"] : example["p"] + after + 1]
                assert pieces == [texts[int(i)] for i in ids]
                assert example["p"] == arrays["example_position"][e]
                first, last = arrays["value_start"][e : e + 2]
                wanted = dict(
                    zip(
                        arrays["value_position"][first:last].tolist(),
                        arrays["value"][first:last].tolist(),
                        strict=True,
                    )
                )
                assert example["values"].keys() == wanted.keys()
                for position, value in wanted.items():
                    assert example["values"][position] == pytest.approx(value, rel=0.5e-2)
                peak = example["values"][example["p"]]
                assert peak == pytest.approx(arrays["example_peak"][e], rel=0.5e-2)
            for feature_of, row in zip(
                arrays["coactive_feature"][feature], shown["coactive"], strict=False
            ):
                assert row[0] == feature_of
                share = row[2] / shown["base"]
                wanted_share = arrays["coactive_conditional"][feature][shown["coactive"].index(row)]
                assert share == pytest.approx(wanted_share, rel=1e-5)
        near = [[int(i), float(c)] for i, c in zip(arrays["nearest_atom"][number][0], arrays["nearest_cosine"][number][0], strict=True) if i >= 0]  # fmt: skip
        assert [pair[0] for pair in atom["nearest"][0][1]] == [pair[0] for pair in near]


def test_search_finds_the_atoms_that_show_a_word(site, features):
    arrays = read_arrays(features / "atoms" / "dbksvd" / "m50-k6-s0.h5")
    texts = {int(key): text for key, text in read_json(features / "tokens.json").items()}
    contexts = read_arrays(features / "contexts.h5")
    place = {document: i for i, document in enumerate(contexts["document"].tolist())}
    page = site / "layer2" / "dbksvd-m50-k6-s0"
    index = read_words(page)
    for word in ("cat", "river", "house"):
        wanted = set()
        for e in range(len(arrays["example_document"])):
            start = contexts["start"][place[int(arrays["example_document"][e])]]
            first = start + arrays["example_first"][e]
            ids = contexts["token"][first : first + arrays["example_length"][e]].tolist()
            if word in re.findall(r"\w+", "".join(texts[i] for i in ids).lower()):
                feature = int(np.searchsorted(arrays["example_start"], e, side="right")) - 1
                wanted.add(feature % 50)
        fires, shows = index[word]
        assert set(shows) == wanted
        assert shows == sorted(shows)
        fired = {
            feature
            for feature in range(50)
            for identity in arrays["token_id"][feature]
            if identity >= 0 and texts[int(identity)].strip() == word
        }
        assert set(fires) == fired
        assert fired or wanted


def test_same_input_gives_the_same_bytes_and_small_files(site, base, features, tmp_path):
    render(base, features, tmp_path / "again")
    assert hash_files(tmp_path / "again") == hash_files(site)
    sizes = [path.stat().st_size for path in site.rglob("*.js")]
    assert max(sizes) < 300_000


def test_a_folder_of_someone_else_is_not_replaced(base, features, tmp_path):
    (tmp_path / "index.html").write_text("<p>mine")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"expected a new folder, .* got thesis\.txt$"):
        render(base, features, tmp_path)
    assert (tmp_path / "index.html").read_text() == "<p>mine"
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_labels_of_probes_are_text(base, features, tmp_path):
    """Pages are given names, where the manifest has a data set and a class."""
    copy = shutil.copytree(features, tmp_path / "features")
    manifest = read_json(copy / "manifest.json")
    manifest["probes"] = [
        {"dataset": "96_spam_is", "positive": "1"},
        {"dataset": "161_agnews_0", "positive": "World"},
    ]
    write_json(copy / "manifest.json", manifest)
    render(base, copy, tmp_path / "site")
    page = (tmp_path / "site/layer2/dbksvd-m50-k6-s0/index.html").read_text()
    assert '"probes": ["96_spam_is", "161_agnews_0: World"]' in page


def test_a_chunk_keeps_odd_text(tmp_path):
    odd = ["\u2028", "\udc80", "\x00", "</script>", "👩‍👩‍👧", "ﷺ", '"\\']
    write_chunk(tmp_path, "data/odd", {"t": odd})
    assert read_chunk(tmp_path, "data/odd") == {"t": odd}
    content = (tmp_path / "data" / "odd.js").read_bytes()
    assert content.isascii()
    assert b"</script" not in content


def test_words_of_tokens_and_their_buckets():
    texts = {0: " un", 1: "believ", 2: "able", 3: " cat", 4: ",", 5: " Cat"}
    words = Words(np.array([0, 4, 6]), np.array([0, 1, 2, 4, 3, 5]), texts)
    assert words.names == ["unbelievable", "cat"]
    assert words.of_token.tolist() == [0, 0, 0, -1, 1, 1]
    found, owner = words.find_in(np.array([1, 3]), np.array([2, 2]))
    assert found.tolist() == [0, 0, 1]
    assert owner.tolist() == [0, 0, 1]
    index = index_words(words.names, (found, owner), [(7, " cats"), (7, " cats")], 10)
    assert index == {"unbelievable": [[], [0]], "cat": [[], [1]], "cats": [[7], []]}
    many = {f"{a}{b}": [[], list(range(20_000))] for a in "ab" for b in "cd"} | {"a": [[1], []]}
    buckets = dict(cut_into_buckets(many))
    assert sorted(word for words in buckets.values() for word in words) == sorted(many)
    assert buckets["a"] == {"a": [[1], []]}
    assert all(word.startswith(prefix) for prefix, words in buckets.items() for word in words)
    small = {f"{a}{b}": [[1], list(range(4000))] for a in "ab" for b in "cdefg"}
    files = list(cut_into_files(small))
    assert [sorted(bucket) for bucket in files] == [["a"], ["b"]]
    assert list(cut_into_files({"x": [[], [3]], "y": [[2], []]})) == [
        {"": {"x": [[], [3]], "y": [[2], []]}}
    ]
    assert describe_word("cat", [[3], [1, 4, 9]]) == ["cat", [3], [1, 3, 5]]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [5, 5, 5],
        [0, 63, 64, -4096, 2**40],
        [0, 2**60],
        [1.5, 2, -0.003, 0, 1e300, 5e-324, 123456789012345.0],
        [0.1 + 0.2, 1 / 3],
        ["a", "a", "b", "a", "\ud800"],
        ["a", "b"],
        [True, False],
        [None, 1, "x"],
        [[], []],
        [[1, "a"], [2, "b"], [2, "a"]],
        [[1.5], [], [2.0, 3.25]],
        [{"a": 1, "b": [1, 2]}, {"a": 4, "b": []}],
        [{"a": 1}, {"b": 1}],
        [{}, {}],
        [[["x", [1, 2]], ["y", [3, 4]]], []],
    ],
)
def test_columns_hold_all_that_was_folded(values):
    column = fold(values)
    assert unfold(json.loads(json.dumps(column))) == values


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "n": st.integers(-(2**53), 2**53),
                "x": st.floats(allow_nan=False, allow_infinity=False),
                "t": st.text(max_size=3),
                "l": st.lists(st.integers(0, 500) | st.floats(-9, 9), max_size=9),
            }
        ),
        max_size=9,
    )
)
def test_columns_hold_any_records(values):
    assert unfold(json.loads(json.dumps(fold(values)))) == values


def test_columns_of_records_take_less_room():
    draw = np.random.default_rng(0)
    records = [
        {"d": int(d), "v": [float(f"{v:.3g}") for v in draw.lognormal(0, 1, 6)]}
        for d in draw.integers(0, 1500, 2000)
    ]
    plain, folded = (
        len(gzip.compress(json.dumps(content, separators=(",", ":")).encode()))
        for content in (records, fold(records))
    )
    assert folded < 0.8 * plain
