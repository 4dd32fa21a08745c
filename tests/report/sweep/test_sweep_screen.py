"""The table of sweeps on a terminal: no number is cut, and of a part nothing is called new."""

from __future__ import annotations

import io

from made_sweep import sweep
from rich.console import Console

from actconform.report.sweep.sweep_screen import sweep_table


def test_no_number_is_cut_on_a_narrow_terminal_and_of_a_part_no_finding_is_new() -> None:
    console = Console(file=io.StringIO(), width=40)
    sweep_table(console, [sweep("torch", error=1.5e7), sweep("authored+ort-cpu", chunks=5)])
    head, whole, part = console.file.getvalue().splitlines()
    assert head.split()[-1] == "findings"
    assert whole.split()[:5] == ["tanh", "value", "torch", "2,560", "1.5e+07"]
    assert whole.split()[-1] == "1/1"
    assert part.split()[2:5] == ["authored+ort-cpu", "50", "(5/256)"]
    assert part.split()[-1] == "?/1"
