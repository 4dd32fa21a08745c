"""From past reports: the line of each case, since when a finding is there, and what came in then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from made import FACTS, finding, measurement, report, result

from actconform.report.across_runs import history
from actconform.report.across_runs.history_store import past_run
from actconform.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.types.report import Report, Trend

CASE = "relu/value/f32/torch"


def day(number: int, *results, torch: str = "2.12.0", ort: str = "1.30.0") -> Report:
    facts = msgspec.structs.replace(FACTS, backends={"torch": {"torch": torch}, "ort-cpu": {"onnxruntime": ort}})
    return report(*results, when=when(number), facts=facts)


def trends(reports: Iterable[Report]) -> dict[str, Trend]:
    return history.trends(map(past_run, reports))


def when(number: int) -> str:
    return f"2026-02-{number:02d}T00:00:00Z"


def changes(since) -> list[tuple[str, ...]]:
    return [msgspec.structs.astuple(change) for change in since.changed]


def test_the_line_of_a_case_has_a_point_for_each_run_that_has_it() -> None:
    small, large = (result(measurements=(measurement(error),)) for error in (1.0, 4.0))
    gone = result(verdict=Verdict.UNAVAILABLE, measurements=())
    other = result("elu/value/f32/torch")
    lines = trends([day(1, small, other), day(2, gone), day(3, other), day(4, large)])
    assert set(lines) == {CASE}
    assert [(point.when, point.share, point.verdict) for point in lines[CASE].points] == [
        (when(1), 0.125, Verdict.PASS),
        (when(2), None, Verdict.UNAVAILABLE),
        (when(4), 0.5, Verdict.PASS),
    ]


def test_since_when_and_what_came_in_then() -> None:
    old, new = finding("inf"), finding("tail")
    lines = trends(
        [
            day(1, result(findings=(old,))),
            day(2, result(findings=(old,))),
            day(3, result(findings=(old, new)), torch="2.13.0", ort="1.31.0"),
            day(4, result(findings=(new, old)), torch="2.13.0", ort="1.32.0"),
        ]
    )
    inf, tail = lines[CASE].since
    assert (tail.class_, tail.tensor, tail.regime, tail.when, tail.before) == ("tail", "y", "tail", when(3), when(2))
    assert changes(tail) == [("torch", "torch", "2.12.0", "2.13.0")]  # onnxruntime computes nothing on this route
    assert (inf.class_, inf.when, inf.before, inf.changed) == ("inf", when(1), "", ())


def test_a_finding_that_was_away_is_there_since_it_came_back() -> None:
    runs = [day(1, result(findings=(finding(),))), day(2, result()), day(3, result(findings=(finding(),)))]
    (since,) = trends(runs)[CASE].since
    assert (since.when, since.before, since.changed) == (when(3), when(2), ())


def test_a_run_that_did_not_run_the_case_tells_nothing_of_its_findings() -> None:
    away = result(verdict=Verdict.UNAVAILABLE, measurements=())
    there = result(findings=(finding(),))
    (since,) = trends([day(1, there), day(2, away), day(3), day(4, there)])[CASE].since
    assert since.when == when(1)
    (since,) = trends([day(1, result()), day(2, away, torch="2.13.0"), day(3, there, torch="2.14.0")])[CASE].since
    assert (since.when, since.before) == (when(3), when(1))
    assert changes(since) == [("torch", "torch", "2.12.0", "2.14.0")]
    assert trends([day(1, there), day(2, away)])[CASE].since == ()


def test_the_same_class_at_other_inputs_is_another_finding() -> None:
    moved = finding(low="0xc0000000", high="0xbf800000")
    (since,) = trends([day(1, result(findings=(finding(),))), day(2, result(findings=(moved,)))])[CASE].since
    assert since.when == when(2)


def test_a_crash_is_there_since_it_began() -> None:
    crash = result(verdict=Verdict.CRASH, measurements=())
    (since,) = trends([day(1, result()), day(2, crash, torch="2.13.0"), day(3, crash, torch="2.13.0")])[CASE].since
    assert (since.class_, since.when, since.before) == ("CRASH", when(2), when(1))
    assert changes(since) == [("torch", "torch", "2.12.0", "2.13.0")]


def test_an_exported_route_may_show_what_came_in_with_any_framework() -> None:
    for route, there in (("torch-dynamo+ort-cpu", 2), ("authored+ort-cpu", 1)):
        case = f"relu/value/f32/{route}"
        runs = [day(1, result(case)), day(2, result(case, findings=(finding(),)), torch="2.13.0", ort="1.31.0")]
        assert len(trends(runs)[case].since[0].changed) == there
