"""The table of sweeps on a terminal: no number is cut, and of a part nothing is called new."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import TYPE_CHECKING

from made_sweep import sweep
from rich.console import Console

from actconform.report.sweep import sweep_screen
from actconform.report.sweep.sweep_screen import SweepProgress, sweep_table

if TYPE_CHECKING:
    import pytest


def test_no_number_is_cut_on_a_narrow_terminal_and_of_a_part_no_finding_is_new() -> None:
    console = Console(file=io.StringIO(), width=40)
    sweep_table(console, [sweep("torch", error=1.5e7), sweep("authored+ort-cpu", chunks=5)])
    head, whole, part = console.file.getvalue().splitlines()
    assert head.split()[-1] == "findings"
    assert whole.split()[:5] == ["tanh", "value", "torch", "2,560", "1.5e+07"]
    assert whole.split()[-1] == "1/1"
    assert part.split()[2:5] == ["authored+ort-cpu", "50", "(5/256)"]
    assert part.split()[-1] == "?/1"


def test_the_rate_and_the_time_left_are_those_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 100.0, 104.0, 500.0, 506.0])
    monkeypatch.setattr(sweep_screen, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    console = Console(file=io.StringIO(), width=200)
    progress = SweepProgress(console)
    words: list[str] = []
    monkeypatch.setattr(progress, "_line", words.append)
    progress.begin(8_000_000)  # at 0 s
    progress.begin(8_000_000)  # at 100 s: a framework was started
    progress.advance(2_000_000, "tanh")
    progress.begin(6_000_000)  # at 500 s
    progress.advance(3_000_000, "silu")
    assert words == ["25 %, 0.5 M/s, 12 s left: tanh", "62 %, 0.5 M/s, 6 s left: silu"]
