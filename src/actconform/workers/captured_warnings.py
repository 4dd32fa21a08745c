"""Captures the warnings of libraries while a block runs: Python warnings, and warnings that they log."""

from __future__ import annotations

import logging
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# They announce changes in a library's next version and say nothing about the exported graph.
OF_TOMORROW = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
LONGEST_LINE = 300


@contextmanager
def capture_warnings() -> Iterator[list[str]]:
    """Return a list that fills, while the block runs, with the first line of each warning, once, in order.

    Logged ones come from every logger at its own level and still go where they went before; Python warnings go nowhere else.
    Deprecations are left out. One thread at a time: warnings and log records are the process's.
    """
    captured: list[str] = []
    make_record = logging.getLogRecordFactory()

    def note(text: str) -> None:
        line = first_line(text)
        if line and line not in captured:
            captured.append(line)

    def listening(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make_record(*arguments, **options)
        if record.levelno >= logging.WARNING:
            note(record.getMessage())
        return record

    with warnings.catch_warnings():
        # "always": a warning that came in an earlier block comes in this one too.
        warnings.simplefilter("always")
        for category in OF_TOMORROW:
            warnings.simplefilter("ignore", category)
        warnings.showwarning = lambda message, *_, **__: note(str(message))
        logging.setLogRecordFactory(listening)
        try:
            yield captured
        finally:
            logging.setLogRecordFactory(make_record)


def first_line(text: str) -> str:
    """Return the first line of `text` that is not blank, without colours, at most 300 characters; "" where there is none."""
    lines = (line.strip() for line in COLOURS.sub("", text).splitlines())
    return next((line[:LONGEST_LINE] for line in lines if line), "")
