"""A site of feature pages: HTML, one style sheet, one script, and data files that it loads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment
from safetensors.numpy import load_file
from tqdm import tqdm

from dbksvd.base.files import check_folder
from dbksvd.base.layout import name_kind
from dbksvd.base.saving import Folder
from dbksvd.features.site import SiteFeatures
from dbksvd.report.pages.chunks import write_chunk
from dbksvd.report.pages.contexts import read_contexts
from dbksvd.report.pages.dictionary_data import write_dictionary_data
from dbksvd.report.pages.images import open_tiles, refuse_tiles
from dbksvd.report.pages.overview import (
    KINDS,
    SPLIT_NAMES,
    copy_figures,
    describe_experiment,
    list_scores,
    make_table,
    name_label,
)
from dbksvd.report.pages.templating import FIRST_PAGE, open_templates

STATIC = Path(__file__).parent / "static"
PAGES_FOLDER = Folder(
    (FIRST_PAGE, "explain.html", "static", "figures", "layer*", "files", "synthetic")
)
DENSITY_BINS = 40


@dataclass(frozen=True)
class PageInputs:
    """What the pages of an experiment are made of.

    Parameters
    ----------
    experiment : str
        Its name.
    labels : mapping of str to str
        How methods are called, the same as in the figures.
    features : mapping of str to path
        Folder of the collected examples of each site.
    table, scores : path
        ``table.csv`` and ``scores.csv``.
    figures : sequence of paths
        Image files for the overview.
    stability : mapping of (site, kind) to path
        Where seeds were compared: the seals, such as that of ``("layer4", "dbksvd/m512-k16")``.
    """

    experiment: str
    labels: Mapping[str, str]
    features: Mapping[str, Path]
    table: Path
    scores: Path
    figures: Sequence[Path]
    stability: Mapping[tuple[str, str], Path] = field(default_factory=dict)


def render_pages(inputs: PageInputs, output: str | Path) -> None:
    """Write the site of an experiment, whole or not at all.

    Parameters
    ----------
    inputs : PageInputs
        What it shows.
    output : path
        Folder; ``index.html`` is its first page.

    Raises
    ------
    FileNotFoundError, DamagedFileError
        If what was collected is not there, or not as it was written.
    ValueError
        If the folder holds what is not a site's: nothing of others is removed.
    """
    table = pd.read_csv(inputs.table, dtype=str, keep_default_na=False)
    scores = pd.read_csv(inputs.scores)
    templates = open_templates()
    with PAGES_FOLDER.replace(output) as folder:
        shutil.copytree(STATIC, folder / "static")
        paths: dict[tuple[Any, ...], str] = {}
        sites, manifests = [], []
        for name, features in inputs.features.items():
            site = SiteFeatures.open(features)
            manifests.append(site.manifest)
            pages = _Pages(name, site, inputs, scores, templates)
            shown = pages.write(folder)
            sites.append({"name": name, "dictionaries": shown})
            paths |= {item["key"]: item["path"] for item in shown}
        page = templates.get_template("overview.html").render(
            title=f"{inputs.experiment}: sparse dictionaries",
            root="",
            summary=describe_experiment(inputs.experiment, manifests, table),
            notes=[],
            sites=sites,
            table=make_table(table, inputs.labels, paths),
            figures=copy_figures(inputs.figures, folder),
            facts=_list_facts(inputs.features, manifests),
        )
        (folder / FIRST_PAGE).write_text(page, encoding="utf-8")


class _Pages:
    """The pages of all dictionaries of a site."""

    def __init__(
        self,
        site: str,
        features: SiteFeatures,
        inputs: PageInputs,
        scores: pd.DataFrame,
        templates: Environment,
    ) -> None:
        self.site, self.features, self.manifest = site, features, features.manifest
        self.labels, self.scores, self.templates = inputs.labels, scores, templates
        self.stability = inputs.stability
        self.contexts = read_contexts(features)
        self.tiles = open_tiles(features.tiles) if features.tiles else refuse_tiles
        self.dictionaries = [self._describe(item) for item in self.manifest["dictionaries"]]

    def _describe(self, item: Mapping[str, Any]) -> dict[str, Any]:
        method, sizes = item["name"].split("/")
        numbers = [int(part[1:]) for part in sizes.split("-")]
        key = {"site": self.site, "method": method}
        key |= dict(zip(("n_atoms", "k", "seed"), numbers, strict=True))
        label = self.labels.get(method, method)
        sizes_shown = f"{item['n_atoms']} atoms, k = {key['k']}, seed {key['seed']}"
        slug = f"{method}-{sizes}"
        return {**item, "key": key, "label": label, "sizes": sizes_shown, "slug": slug}

    def write(self, folder: Path) -> list[dict[str, Any]]:
        """Write all pages below ``folder/<site>``; return the cards of the overview."""
        cards = []
        if self.contexts.are_shared:
            write_chunk(folder / self.site / "any", "../contexts", self.contexts.describe())
        for own, item in enumerate(tqdm(self.dictionaries, desc=f"pages {self.site}", unit="page")):
            place = folder / self.site / item["slug"]
            place.mkdir(parents=True)
            scores = list_scores(self.scores, item["key"])
            self._write_page(place, own, item, scores)
            key = item["key"]
            cards.append(
                {
                    "key": (key["site"], key["method"], key["n_atoms"], key["k"]),
                    "path": f"{self.site}/{item['slug']}/index.html",
                    "label": item["label"],
                    "n_atoms": item["n_atoms"],
                    "k": key["k"],
                    "seed": key["seed"],
                    "score": f"{scores[0][0]} {scores[0][1].split(' ')[0]}" if scores else "",
                }
            )
        return cards

    def _read_stability(self, key: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the stability of each atom, where the seeds of its dictionary were compared."""
        kind = name_kind(key["method"], key["n_atoms"], key["k"])
        seal = self.stability.get((self.site, kind))
        if seal is None:
            return {}
        (file,) = check_folder(seal)["sha256"]
        return {"stability": load_file(seal.with_name(file))[f"seed{key['seed']}"]}

    def _write_page(
        self, place: Path, own: int, item: Mapping[str, Any], scores: list[tuple[str, str]]
    ) -> None:
        arrays = self.features.read(item["name"]).arrays
        arrays["own_dictionary"] = np.array(own)
        arrays |= self._read_stability(item["key"])
        known = write_dictionary_data(place, arrays, self.contexts, self.tiles)
        manifest, kind = self.manifest, self.manifest["kind"]
        info = known | {
            "label": f"{item['label']} ({item['sizes']})",
            "n_atoms": item["n_atoms"],
            "signed": item["signed"],
            "tokens": max(1, manifest["data"]["tokens"]),
            "groups": manifest["settings"]["groups"],
            "window": [manifest["settings"][f"tokens_{side}"] for side in ("before", "after")],
            "context_word": {"text": "document", "images": "tile"}.get(kind, "row"),
            "sources": manifest["sources"] if kind == "text" else [],
            "probes": [name_label(**label) for label in manifest.get("probes", [])],
            "shares_contexts": self.contexts.are_shared,
            "has_stability": "stability" in arrays,
            "dictionaries": [
                {
                    "label": f"{other['label']}, {other['sizes']}",
                    "slug": other["slug"],
                    "is_this": number == own,
                }
                for number, other in enumerate(self.dictionaries)
            ],
        }
        page = self.templates.get_template("dictionary.html").render(
            title=info["label"],
            root="../../",
            info=info,
            summary=_summarise(item, manifest),
            scores=scores,
            density=describe_density(arrays["count"], manifest["data"]["tokens"]),
            map_note=manifest.get("map", "Atoms near each other point in similar directions."),
        )
        (place / "index.html").write_text(page, encoding="utf-8")


def _summarise(item: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    data = manifest["data"]
    sides = (
        " Its codes are signed: each atom has a positive and a negative direction."
        if item["signed"]
        else ""
    )
    return (
        f"{item['n_atoms']:,} atoms of width {item['width']}, read on {data['tokens']:,} "
        f"{SPLIT_NAMES[data['split']]} {KINDS[manifest['kind']]}.{sides}"
    )


def describe_density(count: np.ndarray, tokens: int) -> dict[str, Any]:
    """Return a histogram of the share of tokens that features fire on, for the template.

    Parameters
    ----------
    count : int array of shape (F,)
        Tokens that each feature fires on.
    tokens : int
        Tokens that were read.
    """
    firing = count[count > 0]
    shares = np.log10(firing / max(1, tokens))
    low = float(np.floor(shares.min())) if len(shares) else -1.0
    heights, edges = np.histogram(shares, bins=DENSITY_BINS, range=(low, 0.0))
    most = max(1, int(heights.max()))
    bars = [
        {
            "height": round(100 * int(height) / most, 1),
            "tip": f"{height} between {100 * 10**start:.2g} % and {100 * 10**stop:.2g} %",
        }
        for height, start, stop in zip(heights, edges[:-1], edges[1:], strict=True)
    ]
    median = f"{100 * float(np.median(firing)) / max(1, tokens):.2g} %" if len(firing) else "none"
    silent = len(count) - len(firing)
    note = f"{silent} of {len(count)} never fire here; median of the others {median}."
    return {"bars": bars, "low": f"{100 * 10**low:g} %", "high": "100 %", "note": note}


def _list_facts(
    features: Mapping[str, Path], manifests: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for site, manifest in zip(features, manifests, strict=True):
        for name, value in manifest["model"].items():
            if value not in (None, ""):
                facts.append((f"{site}: {name.replace('_', ' ')}", str(value)))
        facts.append((f"{site}: sha256 of the data", str(manifest["data"]["sha256"])))
        facts += [
            (f"{site}: sha256 of {item['name']}", str(item["weights_sha256"]))
            for item in manifest["dictionaries"]
        ]
    versions = manifests[0]["run"].get("versions", {}) if manifests else {}
    return facts + [(f"version of {name}", str(value)) for name, value in versions.items()]
