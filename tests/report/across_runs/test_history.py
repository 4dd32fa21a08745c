"""From past reports: the line of each case, since when a finding is there, and what came in then."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest
from made import FACTS, finding, measurement, report, result

from actconform.errors import UsageError
from actconform.report.across_runs.history import read_history, trends
from actconform.run.recorder import write_report
from actconform.types import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.types.report import Report

CASE = "relu/value/f32/torch"


def day(number: int, *results, torch: str = "2.12.0", ort: str = "1.30.0") -> Report:
    facts = msgspec.structs.replace(FACTS, backends={"torch": {"torch": torch}, "ort-cpu": {"onnxruntime": ort}})
    return report(*results, when=when(number), facts=facts)


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


@pytest.fixture
def past(tmp_path: Path) -> Path:
    """Three runs, in both layouts, with what else may lie there."""
    for number, place in ((2, "b"), (1, "c"), (3, "nightly/a")):
        (tmp_path / place).mkdir(parents=True)
        write_report(tmp_path / place, day(number, result()))
        (tmp_path / place / "accuracy.json").write_text("{}")
    shutil.move(tmp_path / "b" / "report.json", tmp_path / "2026-02-02.json")
    (tmp_path / "notes.txt").write_text("no report")
    (tmp_path / "accuracy.json").write_text("{}")
    return tmp_path


def test_a_folder_is_read_oldest_first_in_any_layout(past: Path) -> None:
    current = day(9, result())
    assert [one.when for one in read_history(past, current)] == [when(1), when(2), when(3)]
    assert [one.when for one in read_history(past, day(2, result("elu/value/f32/torch")))] == [when(1), when(2)]
    write_report(past, current)  # a copy of the current one is no past
    assert len(list(read_history(past, current))) == 3
    (past / "empty").mkdir()
    assert list(read_history(past / "empty", current)) == []


def test_a_report_without_a_date_has_that_of_its_file(past: Path) -> None:
    (past / "undated").mkdir()
    file = write_report(past / "undated", report(result(), when=""))
    os.utime(file, (0, 0))
    assert next(read_history(past, day(9, result()))).when == "1970-01-01T00:00:00Z"


def test_what_cannot_be_used_is_named(past: Path) -> None:
    current = day(9, result())
    with pytest.raises(UsageError, match="nowhere: there is no such folder"):
        list(read_history(past / "nowhere", current))
    (past / "again").mkdir()
    shutil.copy(past / "c" / "report.json", past / "again" / "report.json")
    with pytest.raises(UsageError, match=r"again/report\.json and .*c/report\.json are reports of one run"):
        list(read_history(past, current))
    (past / "again" / "report.json").write_text('{"results": ')
    with pytest.raises(UsageError, match=r"again/report\.json: is cut off"):
        list(read_history(past, current))
