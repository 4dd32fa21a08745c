"""The trend of each case over past runs: its errors over time, and since when it has each finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.report.across_runs.changed_facts import changed, of_route
from actconform.types import BAD, RAN, Verdict
from actconform.types.report import Change, Point, Since, Trend

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actconform.report.across_runs.history_store import PastFinding, PastResult, PastRun
    from actconform.types.report import Facts


class _LastRun(msgspec.Struct):
    """The last run of a case: its time, its facts, its result, and since when the case has each of its findings, in their order."""

    when: str
    facts: Facts
    result: PastResult
    since: tuple[Since, ...]


def trends(runs: Iterable[PastRun]) -> dict[str, Trend]:
    """Return the trend of every case of the last run, from runs in the order of time, which are read once.

    A run in which a case did not run says nothing of its findings. A case that crashed or failed to run, or that is clean
    though registered, has its verdict in place of a finding.
    """
    points: dict[str, list[Point]] = {}
    ran: dict[str, _LastRun] = {}
    newest: Mapping[str, PastResult] = {}
    for run in runs:
        newest = run.results
        changes: dict[int, tuple[Change, ...]] = {}
        for case, result in run.results.items():
            points.setdefault(case, []).append(Point(run.when, result.share, result.verdict))
            if result.verdict not in RAN and result.verdict not in BAD:
                continue
            last = ran.get(case)
            if last is not None and last.result is result:
                ran[case] = _LastRun(run.when, run.facts, result, last.since)
                continue
            if last is not None and id(last.facts) not in changes:
                changes[id(last.facts)] = changed(last.facts, run.facts)
            among = of_route(changes[id(last.facts)], result.route) if last else ()
            since = tuple(_since(finding, run.when, last, among) for finding in _findings_or_verdict(result))
            ran[case] = _LastRun(run.when, run.facts, result, since)
    return {
        case: Trend(
            case=case, points=tuple(points[case]), since=ran[case].since if _findings_or_verdict(result) else ()
        )
        for case, result in newest.items()
    }


def _since(finding: PastFinding | Verdict, when: str, last: _LastRun | None, changes: tuple[Change, ...]) -> Since:
    earlier = zip(_findings_or_verdict(last.result), last.since, strict=True) if last else ()
    for earlier_finding, since in earlier:
        if _same(finding, earlier_finding):
            return since
    before = last.when if last else ""
    if isinstance(finding, Verdict):
        return Since(str(finding), "", "", when, before, changes)
    return Since(finding.class_, finding.tensor, finding.regime, when, before, changes)


def _same(finding: PastFinding | Verdict, earlier: PastFinding | Verdict) -> bool:
    if isinstance(finding, Verdict) or isinstance(earlier, Verdict):
        return finding is earlier
    return finding.same(earlier)


def _findings_or_verdict(result: PastResult) -> tuple[PastFinding | Verdict, ...]:
    """Return the findings of a case, or its verdict as one where it has none and does not conform."""
    if result.findings or result.verdict not in BAD:
        return result.findings
    return (Verdict(result.verdict),)
