"""The page in a browser: on a phone and a desk, light and dark, by keyboard alone. Skipped without Chromium."""

from pathlib import Path

import pytest

from tasks.evaluate import EvaluateConfig
from tasks.recommend import RecommendConfig
from tasks.report import ReportStage, report_path
from tasks.report.page import ReportConfig
from tasks.stage import run_stage

PHONE_PX, DESK_PX = 390, 1280

# Of every element with text of its own: contrast with the nearest painted background behind it, by WCAG 2:
# at least 4.5, or 3 for large text (24 px, or 18.66 px bold).
TOO_FAINT = """(() => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((byte) => byte / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const painted = (element) => {
    const colour = getComputedStyle(element).backgroundColor, parts = numbers(colour);
    if (parts.length === 3 || parts[3] === 1) return colour;
    return element.parentElement ? painted(element.parentElement) : "rgb(255, 255, 255)";
  };
  return [...document.body.querySelectorAll("*")]
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .filter((element) => element.checkVisibility() && !["STYLE", "METER"].includes(element.tagName))
    .map((element) => {
      const style = getComputedStyle(element), size = parseFloat(style.fontSize);
      const colour = element instanceof SVGElement ? style.fill : style.color;
      const [low, high] = [light(colour), light(painted(element))].sort((one, other) => one - other);
      const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
      return {ratio: (high + 0.05) / (low + 0.05), wanted, what: element.tagName + ": " + element.textContent.trim()};
    })
    .filter((found) => found.ratio < found.wanted)
    .map((found) => found.ratio.toFixed(2) + " " + found.what.slice(0, 60));
})()"""

# What a person must be able to reach: links, controls, and whatever scrolls on its own.
MARK_INTERACTIVE = """(() => {
  const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX)
    && element.scrollWidth > element.clientWidth;
  const all = [...document.querySelectorAll("body *")].filter((element) =>
    element.matches("a[href], summary, button, input, select, textarea, [tabindex]") || scrolls(element));
  const shown = all.filter((element) => element.checkVisibility());
  shown.forEach((element, place) => { element.dataset.place = place; });
  return shown.length;
})()"""
FOCUSED = """(() => {
  const element = document.activeElement, style = getComputedStyle(element);
  return [element.dataset.place ?? "", style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0];
})()"""
BROKEN_PICTURES = "[...document.images].filter((image) => !(image.complete && image.naturalWidth)).length"


@pytest.fixture
def page(reported_shop, small_models) -> Path:
    """The page of a shop with a title that has no space to break at."""
    reported_shop.put_item("i01", "A title without a space: " + "x" * 300, picture="p1")
    shop = reported_shop
    places = (small_models, shop.describe, shop.embed, shop.store, shop.work_folder)
    run_stage(ReportStage(ReportConfig(), EvaluateConfig(), RecommendConfig(k=5), *places), lambda progress: None)
    return report_path(shop.work_folder)


def test_the_page_in_a_browser(page: Path, tab) -> None:
    """One test, since a page and a browser take seconds to make."""
    for width in (PHONE_PX, DESK_PX):
        for scheme in ("light", "dark"):
            tab.open(page, width, scheme)
            assert tab.complaints == []
            assert [url for url in tab.requests if not url.startswith("data:")] == [page.as_uri()]
            assert tab.evaluate("document.images.length") > 0
            assert tab.evaluate(BROKEN_PICTURES) == 0
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is (scheme == "dark")
            assert tab.evaluate(TOO_FAINT) == []
    is_dark = "getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(is_dark)
    tab.open(page, PHONE_PX, "light")
    assert tab.evaluate(is_dark) != dark
    _check_keyboard(tab)
    tab.evaluate("document.querySelector('summary').focus()")
    tab.press("Enter")
    assert tab.evaluate("document.querySelector('details').open") is True
    assert tab.complaints == []


def _check_keyboard(tab) -> None:
    """Tab alone reaches whatever can be used, in the order of the page, each with a visible outline."""
    count = tab.evaluate(MARK_INTERACTIVE)
    reached = []
    for _ in range(count):
        tab.press("Tab")
        place, outlined = tab.evaluate(FOCUSED)
        assert outlined, f"no outline around element {place}"
        reached.append(place)
    assert reached == [str(place) for place in range(count)]
