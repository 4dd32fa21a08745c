"""The verdict beside a figure: that of the cases on which it stands, forward the value's, backwards the graver of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.types import RAN, Case, Verdict
from actconform.verdict.severity import NEW_MARK, gravest, gravity, mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actconform.bench.workloads import Trial
    from actconform.types import Result
    from actconform.verdict.severity import Gravity


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A route's verdict in a trial: `mark` is "●" where it is new, else that of the severity of what is known."""

    route: str
    verdict: Verdict
    mark: str = ""
    finding: str = ""
    reason: str = ""
    placement: dict[str, tuple[str, ...]] = {}


def cases(wanted: Iterable[tuple[Trial, Sequence[str]]]) -> list[Case]:
    """Return the cases on which all figures stand, each once."""
    found = [case for trial, routes in wanted for route in routes for case in _cases(trial, route)]
    return list(dict.fromkeys(found))


def judged(trial: Trial, route: str, results: Mapping[str, Result]) -> Judged:
    """Return the verdict of a route, by what came of its cases; ERROR where one has no result."""
    there = [results[case.id] for case in _cases(trial, route) if case.id in results]
    if len(there) < len(_cases(trial, route)):
        return Judged(route=route, verdict=Verdict.ERROR, reason="its case was not run")
    worst = min(there, key=_gravest_first)
    finding = gravest(worst.findings)
    return Judged(
        route=route,
        verdict=worst.verdict,
        mark=mark(finding) if finding else NEW_MARK if worst.verdict is Verdict.XPASS else "",
        finding=finding.class_ if finding else "",
        reason=worst.reason,
        placement=dict(worst.placement),
    )


def _cases(trial: Trial, route: str) -> list[Case]:
    case = trial.case(route)
    return [case] if case.aspect == "value" else [msgspec.structs.replace(case, aspect="value"), case]


def _gravest_first(result: Result) -> tuple[int, list[Gravity]]:
    order = (Verdict.FAIL, Verdict.XPASS, Verdict.XFAIL, Verdict.PASS)
    finding = gravest(result.findings)
    return (order.index(result.verdict) if result.verdict in RAN else -1), [gravity(finding)] if finding else []
