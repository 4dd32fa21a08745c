"""The trend of each case over past reports: its errors over time, and since when it has each finding."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec

from actconform.errors import UsageError
from actconform.files import read_bytes
from actconform.report.across_runs.changed_facts import changed, of_route
from actconform.report.error_ratio import worst_error_ratio
from actconform.report.read import read_report
from actconform.run.recorder import REPORT
from actconform.types import BAD, RAN, Finding, Verdict
from actconform.types.report import Change, Point, Since, Trend

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from actconform.types import Result
    from actconform.types.report import Facts, Report

__all__ = ["Change", "Point", "Since", "Trend", "read_history", "trends"]

OTHER_FILES = ("accuracy.json", "facts.json", "throughput.json")  # further files of a run that may lie in the folder


class _Case(msgspec.Struct):
    case: str


class _Head(msgspec.Struct):
    results: tuple[_Case, ...]
    when: str = ""


class _LastRun(msgspec.Struct):
    """The last run of a case: its time, its facts, and its findings, each with the time since when the case has it."""

    when: str
    facts: Facts
    findings: list[tuple[Finding | Verdict, Since]]


def read_history(folder: Path, current: Report) -> Iterator[Report]:
    """Yield the reports below `folder` that are older than `current`, oldest first, one at a time.

    They are DIR/*.json and report.json at any depth; one without a date has that of its file. Raises UsageError where the folder
    is missing, one is not a report, or two are of one run (the same time, and a case in common).
    """
    if not folder.is_dir():
        raise UsageError(f"--history {folder}: there is no such folder; wanted one with the report.json of past runs")
    files = {path for path in folder.glob("*.json") if path.name not in OTHER_FILES} | set(folder.rglob(REPORT))
    dated: dict[str, list[tuple[Path, frozenset[str]]]] = {}
    cases = frozenset(result.case for result in current.results)
    for path in sorted(files):
        when, path_cases = _head(path)
        if when == current.when and path_cases == cases:
            continue
        for other_path, other_cases in dated.setdefault(when, []):
            if path_cases & other_cases or path_cases == other_cases:
                raise UsageError(f"--history: {other_path} and {path} are reports of one run ({when}); remove one")
        dated[when].append((path, path_cases))
    for when in sorted(dated):
        if not current.when or when <= current.when:
            yield from (msgspec.structs.replace(read_report(path), when=when) for path, _ in dated[when])


def _head(path: Path) -> tuple[str, frozenset[str]]:
    """Return the time of a report's run, and its cases, without reading all of it."""
    try:
        head = msgspec.json.decode(read_bytes(path), type=_Head)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        report = read_report(path)  # which says what is wrong
        head = _Head(tuple(_Case(result.case) for result in report.results), report.when)
    written = dt.datetime.fromtimestamp(path.stat().st_mtime, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return head.when or written, frozenset(result.case for result in head.results)


def trends(reports: Iterable[Report]) -> dict[str, Trend]:
    """Return the trend of every case of the last report, from reports in the order of time, which are read once.

    A report in which a case did not run says nothing of its findings. A case that crashed or failed to run, or that is clean
    though registered, has its verdict in place of a finding.
    """
    points: dict[str, list[Point]] = {}
    ran: dict[str, _LastRun] = {}
    newest: dict[str, Result] = {}
    for report in reports:
        newest = {result.case: result for result in report.results}
        changes: dict[int, tuple[Change, ...]] = {}
        for result in report.results:
            worst = worst_error_ratio(result)
            point = Point(report.when, worst.ratio if worst else None, result.verdict)
            points.setdefault(result.case, []).append(point)
            if result.verdict not in RAN and result.verdict not in BAD:
                continue
            last = ran.get(result.case)
            if last is not None and id(last.facts) not in changes:
                changes[id(last.facts)] = changed(last.facts, report.facts)
            among = of_route(changes[id(last.facts)], result.route) if last else ()
            findings = [
                (finding, _since(finding, report.when, last, among)) for finding in _findings_or_verdict(result)
            ]
            ran[result.case] = _LastRun(report.when, report.facts, findings)
    return {
        case: Trend(
            case=case,
            points=tuple(points[case]),
            since=tuple(since for _, since in ran[case].findings) if _findings_or_verdict(result) else (),
        )
        for case, result in newest.items()
    }


def _since(finding: Finding | Verdict, when: str, last: _LastRun | None, changes: tuple[Change, ...]) -> Since:
    for earlier_finding, since in last.findings if last else ():
        if _same(finding, earlier_finding):
            return since
    before = last.when if last else ""
    if isinstance(finding, Verdict):
        return Since(str(finding), "", "", when, before, changes)
    return Since(finding.class_, finding.tensor, finding.regime, when, before, changes)


def _same(finding: Finding | Verdict, earlier: Finding | Verdict) -> bool:
    if isinstance(finding, Verdict) or isinstance(earlier, Verdict):
        return finding is earlier
    return finding.same(earlier)


def _findings_or_verdict(result: Result) -> tuple[Finding | Verdict, ...]:
    """Return the findings of a case, or its verdict as one where it has none and does not conform."""
    if result.findings or result.verdict not in BAD:
        return result.findings
    return (Verdict(result.verdict),)
