"""The verdict beside a benchmark result: forward that of the value case, backwards the graver of value and gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.types import RAN, Case, Verdict
from actconform.verdict.severity import NEW_MARK, gravest, mark, severity_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actconform.bench.workloads import Workload
    from actconform.types import Result
    from actconform.verdict.severity import SeverityOrder


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A route's verdict for a workload: `mark` is "●" where it is new, else that of the severity of the known deviation."""

    route: str
    verdict: Verdict
    mark: str = ""
    finding: str = ""
    reason: str = ""
    placement: dict[str, tuple[str, ...]] = {}


def cases(wanted: Iterable[tuple[Workload, Sequence[str]]]) -> list[Case]:
    """Return the cases that all benchmark results depend on, each once."""
    selected = [case for workload, routes in wanted for route in routes for case in _cases(workload, route)]
    return list(dict.fromkeys(selected))


def judged(workload: Workload, route: str, results: Mapping[str, Result]) -> Judged:
    """Return the verdict of a route from the results of its cases; ERROR where one has no result."""
    case_results = [results[case.id] for case in _cases(workload, route) if case.id in results]
    if len(case_results) < len(_cases(workload, route)):
        return Judged(route=route, verdict=Verdict.ERROR, reason="its case was not run")
    worst = min(case_results, key=_gravest_first)
    finding = gravest(worst.findings)
    return Judged(
        route=route,
        verdict=worst.verdict,
        mark=mark(finding) if finding else NEW_MARK if worst.verdict is Verdict.XPASS else "",
        finding=finding.class_ if finding else "",
        reason=worst.reason,
        placement=dict(worst.placement),
    )


def _cases(workload: Workload, route: str) -> list[Case]:
    case = workload.case(route)
    return [case] if case.aspect == "value" else [msgspec.structs.replace(case, aspect="value"), case]


def _gravest_first(result: Result) -> tuple[int, list[SeverityOrder]]:
    order = (Verdict.FAIL, Verdict.XPASS, Verdict.XFAIL, Verdict.PASS)
    finding = gravest(result.findings)
    return (order.index(result.verdict) if result.verdict in RAN else -1), [severity_order(finding)] if finding else []
