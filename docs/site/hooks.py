"""What MkDocs asks before it builds the site: pages from elsewhere in the repository, equations."""

from __future__ import annotations

import base64
import posixpath
import re
from html import escape, unescape
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]  # of the repository
# Pages that lie beside what they describe: place in the repository, place in the site.
ELSEWHERE = {
    "dbksvd/ops/pursuit/README.md": "code/pursuit.md",
    "dbksvd/ops/atom_update/README.md": "code/atom_update.md",
    "dbksvd/dictionaries/README.md": "code/dictionaries.md",
    "benchmarks/NOTES.md": "code/benchmarks.md",
    "results/reference/README.md": "code/published.md",
    "CONTRIBUTING.md": "code/contributing.md",
    "CHANGELOG.md": "code/changelog.md",
    "SECURITY.md": "code/security.md",
    "README.md": "index.md",
}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(?=[)#])")
ITEM = re.compile(r"\s*(?:[-*]|\d+\.) ")
FENCE = re.compile(r"\s*(```|~~~)")
# DEFAULTS.max_iter: in the list of parameters, and as a signature highlights it.
DEFAULT = re.compile(
    r'<autoref [^>]*DEFAULTS\.(?P<listed>\w+)"[^>]*>.*?</autoref>|<span class="n">DEFAULTS</span>'
    r'<span class="o">\.</span><span class="n">(?P<shown>\w+)</span>'
)
# What Sphinx writes before the name of a function.
ROLE = re.compile(r":(?:func|class|meth|mod):(?=<)")
EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_files(files: Any, *, config: Any) -> Any:
    """Add notebooks, the pages from elsewhere, and the files that any page links to."""
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        for name, content in write_pages(path).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for place, page in ELSEWHERE.items():
        if page not in files.src_uris and (ROOT / place).is_file():
            files.append(File.generated(config, page, abs_src_path=str(ROOT / place)))
    for file in [file for file in files if file.src_uri.endswith(".md")]:
        for target in LINK.findall(file.content_string):
            place = resolve(file.src_uri, target)
            if place.startswith("docs/") or place in ELSEWHERE or not (ROOT / place).is_file():
                continue
            if place_in_site(place) not in files.src_uris:
                files.append(
                    File.generated(config, place_in_site(place), abs_src_path=str(ROOT / place))
                )
    return files


def on_page_markdown(markdown: str, *, page: Any, **_others: Any) -> str:
    """Turn links into the repository into links inside the site, and part lists from paragraphs."""
    here = page.file.src_uri

    def relate(match: re.Match[str]) -> str:
        place = resolve(here, match[0])
        return posixpath.relpath(place_in_site(place), posixpath.dirname(here) or ".")

    return part_lists(LINK.sub(relate, markdown))


def on_page_content(html: str, **_others: Any) -> str:
    """Write equations as MathML, which browsers draw by themselves, and defaults as they are."""

    def draw(match: re.Match[str]) -> str:
        display = "block" if match["tag"] == "div" else "inline"
        return convert(unescape(match["latex"]).strip(), display=display)

    return DEFAULT.sub(tell_default, ROLE.sub("", EQUATION.sub(draw, html)))


def tell_default(match: re.Match[str]) -> str:
    """Return a default of DB-KSVD, which its signature takes from the settings."""
    from dbksvd.fit.ksvd.settings import DBKSVDSettings

    return escape(repr(getattr(DBKSVDSettings(), match["listed"] or match["shown"])))


def write_pages(path: Path) -> dict[str, str | bytes]:
    """Return a notebook as a page of Markdown, and its pictures, by their names."""
    stem, pictures, parts = path.stem, {}, []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{stem}-{len(pictures)}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![Output]({name})")
            elif text := output.get("text") or data.get("text/plain"):
                parts.append(f"```text\n{text.rstrip()}\n```")
    parts.append(f'<a href="{path.name}" download>This notebook</a>, to be run and changed.')
    return {f"{stem}.md": "\n\n".join(parts) + "\n", **pictures}


def resolve(page: str, target: str) -> str:
    """Return the place in the repository that a page of the site means by a relative link."""
    origins = {site: place for place, site in ELSEWHERE.items() if site != "index.md"}
    folder = posixpath.dirname(origins.get(page, f"docs/{page}"))
    return posixpath.normpath(posixpath.join(folder, target))


def place_in_site(place: str) -> str:
    """Return where the site has a file of the repository, or the page that shows it."""
    if place.startswith("docs/notebooks/"):
        place = place.replace(".ipynb", ".md")
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    return ELSEWHERE.get(place, f"files/{place}")


def part_lists(markdown: str) -> str:
    """Put an empty line before each list, as Python-Markdown wants and the forge does not."""
    lines: list[str] = []
    in_fence = in_list = False
    for line in markdown.splitlines():
        if FENCE.match(line):
            in_fence = not in_fence
        is_item = not in_fence and ITEM.match(line) is not None
        if is_item and not in_list and lines and lines[-1].strip():
            lines.append("")
        if is_item:
            in_list = True
        elif not line.strip() or line.startswith("#"):
            in_list = False
        lines.append(line)
    return "\n".join(lines) + "\n"
