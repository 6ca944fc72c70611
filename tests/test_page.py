"""The report in a browser: it is quiet, asks nobody for anything, and fits the window."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from matplotlib.image import imread

from commanded import SUITE, hptransfer
from engines import needs_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.engines
WIDTHS = (1280, 380)  # pixels: a desk, a telephone
Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a suite of seconds."""
    folder = tmp_path_factory.mktemp("page")
    text = folder / "text.txt"
    text.write_bytes(bytes(i * i % 251 for i in range(60_000)))
    (folder / "tiny.toml").write_text(SUITE.replace("TEXT", str(text)))
    done = hptransfer("run", "tiny.toml", "--quiet", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "results" / "tiny" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    path = needs_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Heard:
    """What a page says and asks for while it is open."""

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def opened(
    browser: "Browser", report: Path, width: int, scheme: Scheme = "light"
) -> "tuple[Page, Heard]":
    heard = Heard()
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: heard.messages.append(message.text))
    page.on("pageerror", lambda error: heard.messages.append(str(error)))
    page.on("request", lambda request: heard.requests.append(request.url))
    page.goto(report.as_uri(), wait_until="networkidle")
    return page, heard


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_quiet_asks_for_nothing_and_fits(
    width: int, scheme: Scheme, browser: "Browser", report: Path, tmp_path: Path
) -> None:
    page, heard = opened(browser, report, width, scheme)
    assert heard.messages == []
    assert heard.requests == [report.as_uri()]
    inner = page.evaluate("document.documentElement.scrollWidth")
    assert inner <= width, "wide tables and figures scroll in their own boxes"
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    page.close()
    pixels = imread(tmp_path / "page.png")[..., :3]
    assert pixels.shape[1] == width
    assert pixels.shape[0] > 2000
    paper = pixels[-1, 0]
    assert (paper.mean() > 0.5) == (scheme == "light")
    inked = (abs(pixels - paper).max(axis=2) > 0.2).mean()
    assert 0.005 < inked < 0.5, "neither a blank page nor a black one"


@pytest.mark.parametrize(
    ("width", "shown", "hidden"), [(1280, "wide", "narrow"), (380, "narrow", "wide")]
)
def test_one_of_the_two_alignment_figures_is_shown(
    width: int, shown: str, hidden: str, browser: "Browser", report: Path
) -> None:
    page, _ = opened(browser, report, width)
    assert page.locator(f".{shown} svg").first.is_visible()
    assert not page.locator(f".{hidden} svg").first.is_visible()
    page.close()


def test_a_click_on_a_column_sorts_its_table_up_and_then_down(
    browser: "Browser", report: Path
) -> None:
    page, heard = opened(browser, report, 1280)
    page.locator("details summary").last.click()
    table = page.locator("details table").last
    button = table.locator("thead button", has_text="loss").first
    column = button.evaluate("b => b.parentElement.cellIndex")

    def values() -> list[float]:
        rows = "(t, i) => [...t.tBodies[0].rows].map(r => Number(r.cells[i].dataset.sort))"
        return table.evaluate(rows, column)

    before = values()
    assert len(before) > 4
    button.click()
    assert values() == sorted(before)
    button.click()
    assert values() == sorted(before, reverse=True)
    assert heard.messages == []
    page.close()
