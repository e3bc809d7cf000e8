"""Feature pages in a real browser, opened from disk: search, sort, click, hover, themes, no error."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from features_helpers import SIGNED
from page_site import LABELS, make_features, render

from dbksvd.features.explain import explain_text
from dbksvd.models.loading import load_model
from dbksvd.report.pages.columns import fold
from dbksvd.report.pages.explain import ExplainedText, render_explanation

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="no chromium and chromedriver on PATH"
)
SECONDS = 20


@pytest.fixture(scope="module")
def site(tmp_path_factory, make_sentences) -> Path:
    base = tmp_path_factory.mktemp("browser pages")  # a path with a space
    render(base, make_features(base, make_sentences(20, seed=3)), base / "site")
    return base / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # nothing is downloaded and nobody is told: browser and driver are those on PATH
    os.environ |= {"SE_OFFLINE": "true", "SE_AVOID_STATS": "true"}
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--window-size=1300,1000",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, site) -> Iterator[Any]:
    browser.get((site / "layer2" / "signed-m50-k6-s0" / "index.html").as_uri())
    wait(lambda: find(browser, "#atoms tbody tr"))
    yield browser
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    assert find(browser, "#problem")[0].is_displayed() is False
    assert "owned" not in browser.title


def find(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def wait(condition: Callable[[], Any]) -> Any:
    """Return what `condition` gives as soon as it is true."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("the page did not come to what was awaited")


def open_atom(browser: Any, number: int) -> None:
    browser.execute_script(f"location.hash = {number}")
    wait(lambda: [e for e in find(browser, "#atom-title") if e.text == f"Atom {number}"])


def keep_picture(browser: Any, name: str) -> None:
    """Keep a picture where the caller wants them."""
    folder = os.environ.get("PAGE_PICTURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_overview_leads_to_a_dictionary(browser, site):
    browser.get((site / "index.html").as_uri())
    heads = find(browser, "#scores thead button")
    score = next(head for head in heads if head.text.startswith("variance explained"))

    def read() -> list[str]:
        place = heads.index(score)
        return [row.text for row in find(browser, f"#scores tbody td:nth-child({place + 1})")]

    score.click()
    assert read() == sorted(read(), reverse=True)
    score.click()
    assert read() == sorted(read())
    keep_picture(browser, "overview")
    find(browser, "a.card")[0].click()
    wait(lambda: find(browser, "#atoms tbody tr"))
    assert find(browser, "header h1")[0].text.startswith("<img src=x onerror=alert(1)>")
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def test_page_of_a_text_shows_values_and_leads_to_atoms(browser, site):
    loaded = load_model({"name": str(site.parent / "model")}, gpus=0)
    names = {name: site.parent / name for name in SIGNED}
    (explained,) = explain_text(["</script> a cat"], names, loaded, layer=2, context_length=60)
    output = site / "explain.html"
    render_explanation([ExplainedText("layer2", explained, LABELS, {})], "e", site, output)
    browser.get(output.as_uri())
    assert find(browser, ".example .text")[0].text == "</script> a cat"
    token = find(browser, ".text span.on")[0]
    colour = "return getComputedStyle(arguments[0]).backgroundColor"
    seen = set()
    for theme in range(2):
        assert browser.execute_script(colour, token).startswith("rgba(")
        seen.add(browser.execute_script(colour, token))
        keep_picture(browser, f"explain-{theme}")
        find(browser, "#theme")[0].click()
    assert len(seen) == 2
    webdriver.ActionChains(browser).move_to_element(token).perform()
    shown = wait(lambda: [e for e in find(browser, "#tip") if e.is_displayed()])[0].text
    assert shown == token.get_attribute("data-tip")
    link = find(browser, ".explained td a")[0]
    number = link.text
    link.click()
    wait(lambda: [e for e in find(browser, "#atom-title") if e.text == f"Atom {number}"])
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def test_list_is_sorted_and_searched(page):
    def read(column: int) -> list[str]:
        return [cell.text for cell in find(page, f"#atoms tbody td:nth-child({column})")]

    assert len(read(1)) == 50
    next(b for b in find(page, "#atoms thead button") if b.text == "atom").click()
    assert read(1) == [str(number) for number in range(50)]
    next(b for b in find(page, "#atoms thead button") if b.text == "largest coefficient").click()
    values = [float(text) for text in read(4)]
    assert values == sorted(values, reverse=True)
    field = find(page, "#search")[0]
    start = time.monotonic()
    field.send_keys("hou")
    wait(lambda: "found" in find(page, "#shown")[0].text)
    assert time.monotonic() - start < 3
    assert read(1)
    assert set(read(6)) <= {"fires on it", "in its examples"}
    keep_picture(page, "search")
    field.send_keys("xyzzy")
    wait(lambda: find(page, "#shown")[0].text.startswith("0 of 0"))
    for _ in "houxyzzy":
        field.send_keys("\ue003")
    wait(lambda: len(read(1)) == 50)


def test_an_atom_is_shown_with_values_on_hover(page):
    find(page, "#atoms tbody tr")[0].click()
    wait(lambda: find(page, ".text span.on"))
    assert len(find(page, ".sides > section")) == 2  # both directions side by side
    token = find(page, ".text span.peak-token")[0]
    webdriver.ActionChains(page).move_to_element(token).perform()
    shown = wait(lambda: [e for e in find(page, "#tip") if e.is_displayed()])[0].text
    peak = find(page, ".example .peak")[0].text
    assert shown.endswith(peak)
    sizes = [bar.size["height"] for bar in find(page, "#atom-view .spark")]
    assert sizes
    assert min(sizes) > 20
    keep_picture(page, "atom")


def test_keys_lead_from_atom_to_atom_and_back(page):
    body = find(page, "body")[0]
    open_atom(page, 3)
    for key, number in (("j", None), ("k", 3)):
        before = find(page, "#atom-title")[0].text
        body.send_keys(key)
        wait(lambda before=before: find(page, "#atom-title")[0].text != before)
        assert number is None or find(page, "#atom-title")[0].text == f"Atom {number}"
    body.send_keys("\ue00c")  # Esc
    wait(lambda: find(page, "#list-view")[0].is_displayed())
    body.send_keys("/")
    wait(lambda: page.switch_to.active_element.get_attribute("id") == "search")


def test_nearest_atoms_of_other_dictionaries_open(page, site):
    open_atom(page, 5)
    link = next(
        a for a in find(page, "#atom-view a") if "topk-m50" in (a.get_attribute("href") or "")
    )
    number = link.text
    link.click()
    wait(lambda: [e for e in find(page, "#atom-title") if e.text == f"Atom {number}"])
    assert "topk-m50-k6-s0" in page.current_url


def test_the_page_reads_columns_as_they_were_written(page):
    values = [
        {"n": n, "x": x, "t": f"{n % 2}", "l": [n, n + 64], "p": [[1, "a"], [0.5, "b"]][: n % 3]}
        for n, x in enumerate([0, -0.003, 1e300, 5e-324, 12.25, 2, 123456789012345, 1 / 3])
    ]
    columns = [fold(values), fold([-4096, 2**40, 0]), fold([0.1, 0.25]), fold([7, 7]), fold([])]
    found = page.execute_script("return arguments[0].map(unfold)", columns)
    assert found == [values, [-4096, 2**40, 0], [0.1, 0.25], [7, 7], []]


def test_map_is_drawn_and_clicked(page):
    canvas = find(page, "#map")[0]
    count = "return new Set(document.getElementById('map').getContext('2d').getImageData(0, 0, document.getElementById('map').width, document.getElementById('map').height).data).size"
    wait(lambda: page.execute_script(count) > 10)
    place = page.execute_script(
        "const c = document.getElementById('map'); c.scrollIntoView({block: 'center'});"
        "const box = c.getBoundingClientRect();"
        "for (let x = 8; x < box.width; x += 4) for (let y = 8; y < box.height; y += 4) {"
        " const atom = c.nearestAtom({clientX: box.left + x, clientY: box.top + y});"
        " if (atom !== null) return [x - box.width / 2, y - box.height / 2, atom]; } return null;"
    )
    webdriver.ActionChains(page).move_to_element_with_offset(
        canvas, int(place[0]), int(place[1])
    ).click().perform()
    wait(lambda: [e for e in find(page, "#atom-title") if e.text == f"Atom {place[2]}"])


@pytest.mark.parametrize("width", [400, 1600])
def test_both_themes_and_widths_are_readable(page, width):
    page.set_window_size(width, 900)
    open_atom(page, 0)
    style = "return getComputedStyle(document.body)"
    seen = set()
    for _ in range(2):
        find(page, "#theme")[0].click()
        colours = (
            page.execute_script(f"{style}.color"),
            page.execute_script(f"{style}.backgroundColor"),
        )
        assert measure_contrast(*colours) > 7
        seen.add(colours)
        keep_picture(page, f"atom-{width}-{len(seen)}")
    assert len(seen) == 2
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.execute_script(overflow) <= 1
    page.set_window_size(1300, 1000)


def measure_contrast(*colours: str) -> float:
    """Return the contrast of two CSS colours, as WCAG defines it."""
    lights = []
    for colour in colours:
        parts = [float(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)
