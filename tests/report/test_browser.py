"""The report's pages in headless Chromium: no error, marks that agree with the figures, phone width, dark and print."""

import json
import shutil

import pytest

from cbalign.__main__ import main
from tests.report.pages import STABILITY

pytestmark = pytest.mark.slow

# No heading of a table has more lines than words.
WORDS_ARE_WHOLE = r"""[...document.querySelectorAll('th')].every(cell => {
  const words = cell.textContent.trim().split(/\s+/), range = document.createRange();
  range.selectNodeContents(cell);
  return new Set([...range.getClientRects()].map(line => line.top)).size <= words.length; })"""


@pytest.fixture(scope="module")
def reported(tiny_run, tmp_path_factory):
    """A run, evaluated and reported by the commands."""
    folder = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("search", "report*", "metrics"))
    assert main(["evaluate", f"--workdir={folder}", "--split=test"]) == 0
    (folder / "metrics" / "stability.json").write_text(json.dumps(STABILITY))  # as a suite leaves it
    assert main(["report", f"--workdir={folder}"]) == 0
    other = folder.parent / "other"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("checkpoints"))
    assert main(["report", "--compare", str(folder), str(other)]) == 0
    return folder


def opened(browser, path, **options):
    """(the page, what went wrong while it was loaded)."""
    page, wrong = browser.new_page(**options), []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.resolve().as_uri())
    return page, wrong


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_nothing_goes_wrong_and_a_phone_needs_no_sideways_scroll(browser, reported, name):
    path = reported / name
    assert path.stat().st_size < 10_000_000
    for width, scheme in ((360, "light"), (390, "dark"), (1366, "light")):
        page, wrong = opened(browser, path, viewport={"width": width, "height": 800}, color_scheme=scheme)
        assert not wrong
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(WORDS_ARE_WHOLE)  # and a table of few columns needs no scrolling
        gap = "#space .wide, #confusion .wide"
        assert page.locator(gap).evaluate_all("all => all.every(x => x.scrollWidth <= x.clientWidth)")
        assert page.locator("#stability svg.plot").count() == (3 if name == "report.html" else 6)
        # Every image is decoded, every plot is drawn and described.
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
        assert page.evaluate("[...document.querySelectorAll('svg[role=img]')].every(s => s.getAttribute('aria-label'))")
        assert page.evaluate(
            "[...document.querySelectorAll('svg.plot')].every(s => s.getBoundingClientRect().height > 90)"
        )
        page.close()


def test_a_sheet_of_paper_holds_tables_and_columns(browser, reported):
    page, _ = opened(browser, reported / "report.html", viewport={"width": 703, "height": 1000})  # A4 less 12 mm a side
    page.emulate_media(media="print")
    assert page.evaluate("[...document.querySelectorAll('.wide')].every(x => x.scrollWidth <= x.clientWidth)")
    assert page.evaluate(WORDS_ARE_WHOLE)
    hits, misses = (page.locator(f"[data-direction=ir] .{kind}").bounding_box() for kind in ("hits", "misses"))
    assert hits["y"] == misses["y"] and hits["x"] < misses["x"]
    page.close()


def test_marked_answers_agree_with_the_metrics_file(browser, reported):
    (file,) = (reported / "metrics").glob("retrieval*.json")
    figures = json.loads(file.read_text())
    page, _ = opened(browser, reported / "report.html", viewport={"width": 1200, "height": 800})
    for direction in ("tr", "ir"):
        column = page.locator(f"[data-direction={direction}]")
        share = float(column.locator(".share").inner_text().removesuffix("%"))
        assert share == pytest.approx(figures["contrastive"][f"{direction}@1"], abs=0.06)
        for group, hit in (("hits", True), ("misses", False)):
            rows = column.locator(f".{group} [data-way=contrastive]").all()
            assert rows or figures["contrastive"][f"{direction}@1"] in (0, 100)
            for row in rows:
                marks = row.locator(".tile, li").evaluate_all("all => all.map(x => x.classList.contains('correct'))")
                assert marks[0] == hit
                rank = int(row.get_attribute("data-rank"))
                assert marks.index(True) + 1 == rank if any(marks) else rank > len(marks)
    page.close()


def test_contrast_of_text_in_light_dark_and_print(browser, reported):
    """Text and marks have the contrast that WCAG 2 asks for: 4.5 to 1 for text, 3 to 1 for graphics."""
    page, _ = opened(browser, reported / "report.html")
    for options in ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"media": "print", "color_scheme": "dark"}):
        page.emulate_media(**options)
        style = "getComputedStyle(document.documentElement)"
        names = ("paper", "shade", "ink", "soft", "right", "wrong", *(f"c{number}" for number in range(1, 7)))
        colours = {name: page.evaluate(f"{style}.getPropertyValue('--{name}').trim()") for name in names}
        for name in names[2:]:
            for ground in ("paper", "shade"):
                needed = 3 if name.startswith("c") else 4.5
                assert contrast(colours[name], colours[ground]) >= needed, (options, name, ground)
    page.close()


def contrast(first, second):
    """The contrast ratio of two colours "#rgb" or "#rrggbb", as WCAG 2 defines it."""

    def luminance(colour):
        digits = colour.removeprefix("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)
