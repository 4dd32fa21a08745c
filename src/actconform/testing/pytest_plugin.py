"""The pytest plugin: `--actconform-report DIR` keeps a page of every model that a test asserts to conform; `-m actconform` selects such tests."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPTION = "--actconform-report"
MARKER = "actconform"
FIXTURE = "assert_conforms"
LONGEST_NAME = 100  # letters of a folder
PAGES = pytest.StashKey[list[tuple[str, Path]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--actconform-report`, and `actconform_report` to the ini file."""
    words = "Folder for the page, inputs and results of every model that a test asserts to conform."
    parser.getgroup("actconform").addoption(OPTION, metavar="DIR", help=words)
    parser.addini("actconform_report", words)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers", f"{MARKER}: checks that a model conforms; tests with the fixture {FIXTURE} bear it by themselves"
    )
    config.stash[PAGES] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that take the fixture."""
    for item in items:
        if FIXTURE in getattr(item, "fixturenames", ()):
            item.add_marker(MARKER)


@pytest.fixture(name=FIXTURE)
def conforming() -> Callable[..., Any]:
    """`actconform.testing.assert_conforms`, which writes to a folder of this test where `--actconform-report` names one."""
    from actconform.testing.conforming_model import assert_conforms

    return assert_conforms


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Have what the test asserts write to a folder of its own."""
    folder = item.config.getoption(OPTION) or item.config.getini("actconform_report")
    if not folder:
        return (yield)
    from actconform.testing.conforming_model import written_to

    with written_to(Path(folder) / _folder_name(item.nodeid)) as pages:
        try:
            return (yield)
        finally:
            item.config.stash[PAGES] += [(item.nodeid, page) for page in pages]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """List the pages that were written."""
    pages = config.stash[PAGES]
    if pages:
        terminalreporter.section("actconform")
        for test, page in pages:
            terminalreporter.write_line(f"{test}: {page}")


def _folder_name(test: str) -> str:
    """Return a name that any file system takes, one for each test."""
    name = re.sub(r"[^\w.-]+", "-", test).strip("-.")
    if name != test or len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{hashlib.sha256(test.encode()).hexdigest()[:8]}"
    return name
