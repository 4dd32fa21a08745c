"""The verdict beside a figure: that of the cases on which it stands, forward the value's, backwards the graver of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.judge import gravity
from actconform.types import RAN, Case, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actconform.throughput.trials import Trial
    from actconform.types import Result

MARKS = {Verdict.PASS: "", Verdict.XFAIL: "▲", Verdict.XPASS: "●", Verdict.FAIL: "●"}


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A route's verdict in a trial: `mark` is "▲" where a known cause differs, "△" by convention only, "●" where it is new."""

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
    found = [results.get(case.id) for case in _cases(trial, route)]
    if None in found:
        return Judged(route=route, verdict=Verdict.ERROR, reason="its case was not run")
    gravest = max((one for one in found if one), key=_gravity)
    classes = [finding for finding in gravest.findings if finding.deviation is None] or list(gravest.findings)
    mark = MARKS.get(gravest.verdict, "")
    if mark == "▲" and all(finding.blame == "convention" for finding in gravest.findings):
        mark = "△"
    return Judged(
        route=route,
        verdict=gravest.verdict,
        mark=mark,
        finding=min((finding.class_ for finding in classes), key=gravity, default=""),
        reason=gravest.reason,
        placement=dict(gravest.placement),
    )


def _cases(trial: Trial, route: str) -> list[Case]:
    case = trial.case(route)
    return [case] if case.aspect == "value" else [msgspec.structs.replace(case, aspect="value"), case]


def _gravity(result: Result) -> int:
    order = (Verdict.PASS, Verdict.XFAIL, Verdict.XPASS, Verdict.FAIL)
    return order.index(result.verdict) if result.verdict in RAN else len(order)
