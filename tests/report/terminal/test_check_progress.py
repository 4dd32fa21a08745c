"""Progress of a check: a bar on a terminal, with what is known already; the names of stages in a log."""

from __future__ import annotations

import io

import made_check
import pytest
from rich.console import Console

from actconform.checking.spread import LIMIT
from actconform.report.terminal.check_progress import CheckProgress


def checked(console):
    with CheckProgress(console) as progress:
        progress.stage("truth of sample 1 of 1", 9)
        progress.step()
        progress.step(8)
        progress.outputs("ort-cpu", [made_check.output(), made_check.output("boxes", 380.0)])
        progress.stage("ort-cpu: outputs")
        progress.stage(f"ort-cpu: nodes at level {made_check.HOSTILE}", 200)
        progress.step(50)
    return console.file.getvalue()


def test_a_log_gets_the_names_of_the_stages_and_nothing_else():
    lines = checked(Console(file=io.StringIO(), width=40)).splitlines()
    assert lines[:2] == ["truth of sample 1 of 1", "ort-cpu: outputs"]
    assert len(lines) == 3
    assert lines[2].startswith("ort-cpu: nodes at level <script>")
    assert "\x1b" not in lines[2]


def test_a_terminal_shows_steps_of_all_time_left_and_the_first_outputs_and_is_clean_in_the_end():
    console = Console(
        file=io.StringIO(), force_terminal=True, width=120, height=20, color_system=None, legacy_windows=False
    )
    shown = checked(console)
    assert "9/9" in shown
    assert "50/200" in shown
    assert "0:00:0" in shown
    assert f"ort-cpu: boxes 380 spreads (limit {LIMIT:g}): NOT explained by rounding; logits 3.2 spreads" in shown
    assert shown.endswith("\x1b[2K")


def interrupted(console):
    with CheckProgress(console) as progress:
        progress.stage("truth", 3)
        raise ValueError("truth")


def test_an_error_ends_the_bar():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None, legacy_windows=False)
    with pytest.raises(ValueError, match="truth"):
        interrupted(console)
    assert "\x1b[?25h" in console.file.getvalue()  # the cursor is back
