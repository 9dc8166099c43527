"""Report pages in a real browser: no network, no errors, no overflow, all reachable by keyboard, readable colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.report import main
from tests.eval.browser import TAB, Browser, needs_browser
from tests.eval.runs import make_run

pytestmark = needs_browser

SIZES = [(360, 740), (768, 1024), (1440, 900)]
LONG = "faces_small_svsoftmax_with_a_very_long_name_without_any_space_in_it"

CONTRAST = """
const parse = (text) => { const p = text.match(/[\\d.]+/g).map(Number); return p.length < 4 ? [...p, 1] : p; };
const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255;
  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const paper = (node) => { for (; node; node = node.parentElement) {
  const c = parse(getComputedStyle(node).backgroundColor); if (c[3] === 1) return c; } return [0, 0, 0, 1]; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
const found = [];
for (const details of document.querySelectorAll("details")) details.open = true;
for (const node of document.querySelectorAll("body *")) {
  const style = getComputedStyle(node);
  const isText = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  const where = node.tagName + "." + (node.className.baseVal ?? node.className);
  if (isText && !["SCRIPT", "STYLE", "title"].includes(node.tagName)) {
    const ink = node instanceof SVGElement ? style.fill : style.color;
    found.push(["text", ratio(parse(ink), paper(node)), where]);
  } else if (node.tagName === "polyline") found.push(["line", ratio(parse(style.stroke), paper(node)), where]);
  else if (node.matches && node.matches(".mark")) found.push(["line", ratio(parse(style.fill), paper(node)), where]);
}
return found;
"""
OVERLAPS = """
const found = [];
for (const chart of document.querySelectorAll("svg[role=img]")) {
  const box = chart.getBoundingClientRect();
  const texts = [...chart.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
  texts.forEach(([words, a], i) => {
    if (a.left < box.left - 0.5 || a.right > box.right + 0.5 || a.bottom > box.bottom + 0.5) found.push([words, ""]);
    for (const [other, b] of texts.slice(i + 1))
      if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) found.push([words, other]);
  });
}
return found;
"""
TOO_WIDE = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll("body *")].filter((node) => !node.closest(".scroll > *, .skip, #status, svg")
  && node.getBoundingClientRect().right > width + 0.5).map((node) => node.tagName + "." + node.className);
"""
REACHABLE = """
return [...document.querySelectorAll("a[href], button, summary, [tabindex='0']")]
  .filter((node) => node.checkVisibility()).length;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run, of a run that has only begun, and of three runs, one of them with a name of 60 letters."""
    place = tmp_path_factory.mktemp("pages")
    runs = [make_run(place / "a", "first", noise=1.6), make_run(place / "b", LONG, noise=1.2, num_lines=900, lr=0.25)]
    runs.append(make_run(place / "c", "third", noise=1.0, rec="data/" + "deep/" * 40))
    (place / "begun").mkdir()
    (place / "begun" / "config.json").write_text('{"name": "begun"}')
    assert main([*map(str, runs), "-o", str(place / "three.html")]) == 0
    assert main([str(place / "begun")]) == 0
    return {
        "one": runs[0] / "report.html", "begun": place / "begun" / "report.html", "three": place / "three.html",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["one", "begun", "three"])
def test_no_network_no_errors_no_overflow(browser: Browser, pages: dict[str, Path], name: str) -> None:
    for scheme in ("light", "dark"):
        for width, height in SIZES:
            browser.open(pages[name], width=width, height=height, scheme=scheme)
            asked = [url for url in browser.requested() if not url.startswith("data:")]
            assert asked == [pages[name].resolve().as_uri()]
            assert browser.log("browser") == []
            browser.script("for (const part of document.querySelectorAll('details')) part.open = true;")
            assert browser.script("return document.documentElement.scrollWidth") <= width
            assert browser.script(TOO_WIDE) == []
            assert browser.script(OVERLAPS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one", "three"])
def test_text_and_lines_stand_out(browser: Browser, pages: dict[str, Path], name: str, scheme: str) -> None:
    """WCAG 2.2: 4.5 : 1 for text (1.4.3), 3 : 1 for lines and marks (1.4.11), of the styles as the browser has them."""
    browser.open(pages[name], scheme=scheme)
    found = browser.script(CONTRAST)
    assert {kind for kind, *_ in found} == {"text", "line"}
    assert len(found) > 200
    least = {"text": 4.5, "line": 3.0}
    assert [entry for entry in found if entry[1] < least[entry[0]]] == []
    paper = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]


@pytest.mark.parametrize("name", ["one", "three"])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    browser.open(pages[name], width=360, height=740)
    wanted = browser.script(REACHABLE)
    reached = []
    for _ in range(wanted + 3):
        browser.press(TAB)
        place = browser.script("""
            const node = document.activeElement, style = getComputedStyle(node), box = node.getBoundingClientRect();
            const all = [...document.querySelectorAll("*")];
            return [all.indexOf(node), node.tagName, style.outlineStyle, parseFloat(style.outlineWidth),
                    box.top >= -1 && box.top < innerHeight];""")
        if place[1] == "BODY":
            break
        reached.append(place)
    assert len({index for index, *_ in reached}) == wanted
    assert [index for index, *_ in reached] == sorted(index for index, *_ in reached), "tab order is reading order"
    assert all(style == "solid" and width >= 2 for _, _, style, width, _ in reached), "focus is visible"
    assert all(is_seen for *_, is_seen in reached), "what has the focus is scrolled into view"


def test_the_skip_link_and_anchors_are_not_hidden_below_the_bar(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["three"])
    browser.press(TAB)
    assert browser.script("return document.activeElement.className") == "skip"
    assert browser.script("return document.activeElement.getBoundingClientRect().top") >= 0
    for link in browser.script("return [...document.querySelectorAll('nav a')].map((a) => a.getAttribute('href'))"):
        browser.script("document.documentElement.style.scrollBehavior = 'auto'; location.hash = arguments[0]", link)
        top, bar = browser.script(
            "return [document.querySelector(arguments[0]).getBoundingClientRect().top,"
            " document.querySelector('.bar').getBoundingClientRect().bottom]", link,
        )  # fmt: skip
        assert top >= bar - 1 or browser.script("return scrollY + innerHeight >= document.body.scrollHeight"), link


def test_switches_hide_a_run_in_every_figure_and_bring_it_back(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["three"])
    shown = """return ["0", "1", "2"].map((run) => [...document.querySelectorAll(`main [data-run="${run}"]`)]
        .filter((part) => getComputedStyle(part).display !== "none").length);"""
    before = browser.script(shown)
    assert min(before) > 10
    browser.script("document.querySelectorAll('.switches button')[1].focus()")
    browser.press(" ")
    assert browser.script(shown) == [before[0], 0, before[2]]
    button = "return document.querySelectorAll('.switches button')[1].getAttribute('aria-pressed')"
    assert browser.script(button) == "false"
    browser.press(" ")
    assert browser.script(shown) == before
    assert browser.script(button) == "true"
    assert browser.log("browser") == []


def test_copy_buttons_copy_the_command_as_it_stands(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["one"])
    browser.tools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.script("document.querySelector('.command button').focus()")
    browser.press(" ")
    copied = browser.script("""
        const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
        return (async () => { await pause(100); return [document.querySelector(".command button").textContent,
          await navigator.clipboard.readText(), document.getElementById("status").textContent]; })();""")
    assert copied == ["Copied", "python train.py configs/first", "Copied"]


def test_without_its_script_the_page_shows_everything(browser: Browser, pages: dict[str, Path]) -> None:
    browser.tools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages["three"])
        browser.tools("Emulation.setScriptExecutionDisabled", value=False)
        assert browser.script("return document.querySelectorAll('button').length") == 0
        legend = browser.script("return document.querySelector('.switches').innerText").split("\n")
        assert [line.strip() for line in legend if line.strip()] == ["first", LONG, "third"]
        hidden = browser.script("""return [...document.querySelectorAll("main figure, main table, main section")]
            .filter((node) => !node.closest("details") && !node.checkVisibility()).length""")
        assert hidden == 0
    finally:
        browser.tools("Emulation.setScriptExecutionDisabled", value=False)


def test_reduced_motion_is_kept(browser: Browser, pages: dict[str, Path]) -> None:
    for wish, wanted in (("reduce", "auto"), ("no-preference", "smooth")):
        browser.open(pages["one"])
        browser.tools("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": wish}])
        assert browser.script("return getComputedStyle(document.documentElement).scrollBehavior") == wanted
