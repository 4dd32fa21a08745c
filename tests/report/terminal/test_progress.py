"""Progress: bars on a terminal, plain lines in a log; a backend that did not start is told at once."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from actconform.report.terminal import progress as module
from actconform.report.terminal.progress import progress_for
from actconform.types import Case, Result, Verdict
from actconform.workers.protocol import Handshake

CASES = [
    Case("relu", "value", "f32", "torch"),
    Case("tanh", "value", "f32", "torch"),
    Case("relu", "value", "f32", "authored+ort-cpu"),
]


def hello(backend: str, unavailable: str = "") -> Handshake:
    return Handshake(actconform="0", plugins={}, backend=backend, unavailable=unavailable)


def result(case: Case, verdict: Verdict = Verdict.PASS) -> Result:
    return Result(
        case=case.id, subject=case.subject, aspect=case.aspect, dtype=case.dtype, route=case.route, verdict=verdict
    )


def log() -> Console:
    return Console(file=io.StringIO(), width=40)


def terminal(width: int = 80) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=20, color_system=None, legacy_windows=False
    )


def test_a_log_says_who_started_and_who_did_not() -> None:
    console = log()
    with progress_for(CASES, console) as progress:
        progress.started("torch", hello("torch"))
        progress.started(
            "ort-cpu", hello("ort-cpu", "no [red]x[/] here: libx.so missing: install x, and more; y missing")
        )
        progress.started("keras", "the keras worker was killed by SIGABRT while it started; its last words:\n  bye")
    assert console.file.getvalue().splitlines() == [
        "torch: started",
        "ort-cpu: not started: no [red]x[/] here: libx.so missing",
        "keras: not started: the keras worker was killed by SIGABRT while it started",
    ]


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    console = log()
    with progress_for(CASES, console) as progress:
        now += 1
        progress.advance(result(CASES[0], Verdict.FAIL))
        assert console.file.getvalue() == ""
        now += module.PLAIN_SECONDS
        progress.advance(result(CASES[1]))
        now += 1
        progress.advance(result(CASES[2]))
    assert console.file.getvalue() == "torch 2/2, ort-cpu 0/1; 1 not conforming so far\n"


def shown(console: Console) -> str:
    return console.file.getvalue()


def test_a_terminal_has_a_bar_a_backend_with_its_kernel_and_rate() -> None:
    console = terminal()
    with progress_for(CASES, console) as progress:
        assert "starting" in shown(console)
        assert "0/2" in shown(console)
        progress.started("torch", hello("torch"))
        progress.started("ort-cpu", hello("ort-cpu", "libx.so missing"))
        progress.advance(result(CASES[0]))
        progress.advance(result(CASES[1]))
        progress.advance(result(CASES[2], Verdict.UNAVAILABLE))
    rows = [line for line in shown(console).splitlines() if "/2" in line or "/1" in line]
    assert any("torch" in row and "2/2" in row and "tanh" in row and "/s" in row for row in rows)
    told = [row for row in rows if "ort-cpu" in row and "1/1" in row]
    assert told
    assert all("not started" in row and "/s" not in row for row in told)
    assert "━" in shown(console)


def test_names_that_look_like_markup_break_no_bar() -> None:
    odd = Case("[/]", "value", "f32", "[red]x[/]")
    console = terminal()
    with progress_for([odd], console) as progress:
        progress.started("[red]x[/]", hello("x"))
        progress.advance(result(odd))
    assert "[red]x[/]" in shown(console)
    assert " [/]" in shown(console)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_bars_keep_to_one_line_each(width: int) -> None:
    long = Case("a-kernel-with-a-very-long-name-indeed", "value", "f32", "a-backend-with-a-long-name")
    console = terminal(width)
    with progress_for([long], console) as progress:
        progress.started(long.backend, hello("x"))
        progress.advance(result(long))
    lines = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\r", "\n", shown(console)).splitlines()
    assert max(map(len, lines)) <= width


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = terminal()
    with progress_for(CASES, console) as progress:
        progress.started("torch", hello("torch"))
    assert shown(console) == "torch: started\n"
