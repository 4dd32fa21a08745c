"""tests/report/made.py can be imported by the tests beside it; pages open in a real browser, Chromium of the distribution."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make install")
    path = shutil.which("chromium") or shutil.which("chromium-headless-shell") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs chromium: make browser")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium):
    """Return a function that opens a page of a file; in the end there was no error and no request to anywhere."""
    contexts, faults = [], []

    def browsing(address, width=1200, scheme="light", **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: faults.extend([request.url] if not request.url.startswith("file:") else []))
        page.goto(address)
        page.wait_for_selector("main h2")
        return page

    yield browsing
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def opened(browse, address):
    """Return a function that opens the page at `address`, which the file of the test makes, with a hash."""

    def opening(hash_="", **options):
        return browse(address + hash_, **options)

    return opening


@pytest.fixture
def serious_faults():
    """Return a function that has axe look at a page, which was opened with `bypass_csp`, for serious faults of accessibility."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")

    def looked(page):
        violations = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        grave = [violation for violation in violations if violation["impact"] in ("serious", "critical")]
        return [(violation["id"], violation["nodes"][0]["html"]) for violation in grave]

    return looked


TOO_SMALL = """() => {
  const small = [];
  for (const node of document.querySelectorAll("body *")) {
    if (!node.checkVisibility() || node.closest(".unseen")) continue;
    const texts = [...node.childNodes].filter((child) => child.nodeType === 3 && child.data.trim());
    const scale = node.getScreenCTM ? node.getScreenCTM().a : 1;
    if (texts.length && scale * parseFloat(getComputedStyle(node).fontSize) < 11.95) small.push("text: " + node.outerHTML.slice(0, 200));
    const box = (node.matches("label > input") ? node.parentNode : node).getBoundingClientRect();
    const hit = node.matches("a, button, input, select, summary") && !node.matches("p:not([class]) > a, li > a, dd a");
    if (hit && (box.width < 24 || box.height < 24)) small.push("target: " + node.outerHTML.slice(0, 200));
  }
  return small;
}"""


@pytest.fixture
def too_small():
    """Return a function that names text below 12 px, and what is to be hit, links within a sentence apart, below 24 px."""
    return lambda page: page.evaluate(TOO_SMALL)
