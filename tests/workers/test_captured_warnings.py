"""What libraries warn of is heard once each, whoever says it and however often it was said before."""

from __future__ import annotations

import logging
import warnings

import pytest

from actconform.workers.captured_warnings import capture_warnings, first_line


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    warnings.warn(text, category, stacklevel=1)


def test_warnings_of_both_kinds_are_heard_in_order_and_once() -> None:
    logger = logging.getLogger("tests.heard")
    for _ in range(2):
        with capture_warnings() as heard:
            warn("first\nsecond line")
            logger.warning("operator %s", "Erfc")
            warn("first\nanother second line")
            logger.info("all is well")
        assert heard == ["first", "operator Erfc"]


def test_deprecations_are_not() -> None:
    with capture_warnings() as heard:
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warn("use the other one", category)
    assert heard == []


def test_a_logger_is_heard_that_passes_nothing_on_but_not_below_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("tests.alone")
    monkeypatch.setattr(logger, "propagate", False)
    with capture_warnings() as heard:
        logger.error("heard")
        logger.setLevel(logging.CRITICAL)
        logger.error("silenced")
    assert heard == ["heard"]


def test_afterwards_all_is_as_before_even_where_the_block_raised() -> None:
    before = logging.getLogRecordFactory(), warnings.showwarning, list(warnings.filters)

    def fail() -> None:
        with capture_warnings():
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        fail()
    assert (logging.getLogRecordFactory(), warnings.showwarning, list(warnings.filters)) == before


@pytest.mark.parametrize(
    ("text", "line"),
    [("", ""), ("\n \n", ""), ("\x1b[93m\n  said \x1b[0m\nmore", "said"), ("x" * 999, "x" * 300)],
)
def test_the_first_line_that_says_something(text: str, line: str) -> None:
    assert first_line(text) == line
