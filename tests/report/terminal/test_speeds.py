"""The screen of a measurement: what a person must be able to read off it, in one line each."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from actconform.bench.baseline import baseline_of, compare
from actconform.bench.intervals import ConfidenceInterval
from actconform.bench.results import NotTimed
from actconform.bench.workloads import Workload
from actconform.report.terminal import speeds

TRIAL = Workload("relu", "forward", 1024)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=105, highlight=False)


def said(console):
    return console.file.getvalue()


def test_a_row_has_time_interval_rate_bandwidth_share_and_mark(console, timed):
    made = timed(
        {"torch": 1e-3, "torch-torchscript@const+ort-cpu": 2e-3}, noise=0.0, copy=5e-4, copy_noise=0.0
    ).measured[0]
    wrong = msgspec.structs.replace(made.figures[1], mark="●", finding="position-dependent", verdict="FAIL")
    speeds.tables(console, [msgspec.structs.replace(made, figures=(made.figures[0], wrong))])
    title, names, first, second = [line.split() for line in said(console).splitlines() if line.strip()]
    assert title == ["relu", "forward"]
    assert {"size", "route", "GB/s"} <= set(names)
    assert first == ["1K", "torch", "1.00", "ms", "[1.00", "1.00]", "1.02", "M", "0.00819", "50", "%", "1", "pass"]
    assert second[:2] == ["torch-torchscript@const+ort-cpu", "2.00"]
    assert second[-4:] == ["25", "%", "2.00", "●position-dependent"]
    assert max(map(len, said(console).splitlines())) <= 105


def test_what_was_not_timed_is_said_once_a_reason(console):
    left = [
        NotTimed(Workload(name, "forward", 1), "ort-cuda", "UNAVAILABLE", "no driver: install it") for name in "abcdef"
    ]
    speeds.not_timed(console, [*left, NotTimed(TRIAL, "torch", "CRASH", "was killed")])
    first, second = said(console).splitlines()
    assert first == "not timed: ort-cuda: a, b, c, d and 2 more: UNAVAILABLE: no driver"
    assert second == "not timed: torch: relu: CRASH: was killed"


def test_a_regression_is_named_with_both_ratios(console, timed):
    old = baseline_of(timed({"torch": 1e-3, "keras": 3e-3}))
    speeds.compared(console, compare(old, timed({"torch": 1e-3, "keras": 6e-3}, seed=1)), "golden/throughput.json")
    assert "slower  relu forward 1K keras: 2.0" in said(console)
    assert "1 as in the baseline, 1 slower" in said(console)


def test_facts_that_differ_are_listed(console, timed):
    facts = {"calibration": {"numpy": "2.0"}, "torch": {"torch": "9"}}
    speeds.compared(console, compare(baseline_of(timed({"torch": 1e-3})), timed({"torch": 1e-3}, facts=facts)), "file")
    assert said(console).splitlines() == [
        "not compared with file: it is valid for other facts:",
        "  torch torch was 2.13, is 9",
    ]


def test_repeats_are_counted(console, timed):
    made = timed({"torch": 1e-3, "keras": 3e-3}, noise=0.0).measured[0]
    again = (ConfidenceInterval(1.02, 1.0, 2.0), ConfidenceInterval(0.9, 0.8, 1.0))
    figures = tuple(msgspec.structs.replace(one, again=other) for one, other in zip(made.figures, again, strict=True))
    speeds.repeated(console, [msgspec.structs.replace(made, figures=figures)])
    first, second, total = said(console).splitlines()
    assert first.split() == ["2.00", "%", "relu", "forward", "1K", "torch"]
    assert second.split() == ["10.00", "%", "relu", "forward", "1K", "keras"]
    assert "1 of 2 differ by under 5 % in median" in total


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(2.0, "2.00 s"), (0.0123, "12.3 ms"), (4.56e-6, "4.56 µs"), (789e-6, "789 µs"), (5e-9, "0.01 µs")],
)
def test_durations_have_their_unit(seconds, shown):
    assert speeds.duration(seconds) == shown
