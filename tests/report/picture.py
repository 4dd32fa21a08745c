"""Makes the picture of a report in the documents: python tests/report/picture.py conform-out/index.html docs/report.png."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def picture(page: Path, target: Path) -> None:
    """Write the first screen of a report, in the light theme, 1280 by 900 px."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        shown.goto(page.resolve().as_uri())
        shown.wait_for_selector("table.map")
        shown.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    picture(*map(Path, sys.argv[1:]))
