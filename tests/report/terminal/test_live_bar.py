"""A bar on a terminal, which is gone at the end; a plain line now and then in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from actconform.report.suite.suite_progress import SuiteProgress
from actconform.report.terminal import live_bar
from actconform.report.terminal.train_progress import TrainScreen


@pytest.fixture
def clock(monkeypatch):
    """Set the time by hand, in seconds."""
    seconds = [100.0]
    monkeypatch.setattr(live_bar.time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_log_has_a_line_each_fifteen_seconds(clock):
    console = Console(file=io.StringIO(), width=80)
    with SuiteProgress(10, console) as progress:
        for _ in range(4):
            clock[0] += 8.0
            progress.step()
    assert console.file.getvalue().splitlines() == ["2 of 10 cases, 64 s left", "4 of 10 cases, 48 s left"]


def test_the_first_and_the_last_epoch_have_a_line_whenever_they_end(clock):
    import numpy as np

    console = Console(file=io.StringIO(), width=80)
    with TrainScreen(console, epochs=9) as progress:
        for number in range(1, 10):
            progress.epoch(number, np.ones(3, np.float32), None, 0.0)
            clock[0] += 0.3
    assert [line.split(":")[0] for line in console.file.getvalue().splitlines()] == [
        "epoch 1 of 9", "epoch 5 of 9", "epoch 9 of 9"
    ]  # fmt: skip


def test_a_terminal_has_a_bar_and_no_lines():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, _environ={"TERM": "xterm"})
    with SuiteProgress(2, console) as progress:
        progress.step()
    text = console.file.getvalue()
    assert "\x1b[?25l" in text, "it begins to redraw"
    assert text.count("\x1b[?25h") == 1, "and ends"
    assert "left" not in text
