"""From findings and what covers them to one verdict, and from all verdicts to whether a run conforms."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from actconform.text import number_of
from actconform.types import BAD, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from actconform.types import Case, Finding, Place, Result
    from actconform.verdict.causes.explain import Coverage


class Judgement(msgspec.Struct, frozen=True):
    """The verdict on one case, its findings with the cause that covers each, and why."""

    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...]


def judge(findings: Sequence[Finding], covers: Mapping[Place, Coverage], expected: Sequence[str] = ()) -> Judgement:
    """Return PASS, FAIL or XFAIL for a case that ran: XFAIL only where every finding is covered.

    `expected` are the causes that are registered for the case: a clean case passes, and its reason says what is gone.
    """
    judged = []
    for finding in findings:
        cover = covers.get(finding.place)
        if cover is None:
            judged.append(finding)
            continue
        evidence = "; ".join(filter(None, (finding.evidence, cover.evidence)))
        blame = cover.blame or finding.blame
        judged.append(
            msgspec.structs.replace(finding, deviation=cover.cause, blame=blame, evidence=evidence, used=cover.used)
        )
    new = [finding for finding in judged if finding.deviation is None]
    if new:
        reason = f"{len(new)} of {number_of(len(judged), 'finding')} not registered: {_kinds(new)}"
        return Judgement(Verdict.FAIL, reason, tuple(judged))
    if judged:
        causes = ", ".join(sorted({str(finding.deviation) for finding in judged}))
        return Judgement(Verdict.XFAIL, f"known: {causes}", tuple(judged))
    return Judgement(Verdict.PASS, f"gone here: {', '.join(expected)}" if expected else "", ())


def conforms(
    cases: Sequence[Case], results: Sequence[Result], require: Sequence[str] | None, optional: Collection[str] = ()
) -> list[str]:
    """Return why the run does not conform, as messages; empty when it does.

    By default every selected route is required but those to backends that are `optional`: each needs a case that was not
    UNAVAILABLE. A route required by name must be selected too.
    """
    reasons = []
    if bad := bad_counts(results):
        reasons.append(bad)
    if not cases:
        reasons.append("nothing was selected")
    if len(results) < len(cases):
        reasons.append(
            f"{number_of(len(cases) - len(results), 'selected case has', 'selected cases have')} no result: the run was ended early"
        )
    by_default = sorted({case.route for case in cases if case.worker not in optional})
    required = by_default if require is None else require
    present = {result.route for result in results if result.verdict is not Verdict.UNAVAILABLE}
    absent = {result.route: result.reason for result in results if result.route not in present}
    reasons += [_not_run(route, absent.get(route, "")) for route in required if route not in present]
    return reasons


def _not_run(route: str, reason: str) -> str:
    return f"required route {route} did not run" + (f": {reason}" if reason else "")


def bad_counts(results: Sequence[Result]) -> str:
    """Return how many results have each verdict that does not conform, as in "2 FAIL, 1 CRASH"; "" where none has."""
    bad = Counter(result.verdict for result in results if result.verdict in BAD)
    return ", ".join(f"{count} {verdict}" for verdict, count in bad.items())


def _kinds(findings: Sequence[Finding]) -> str:
    return ", ".join(sorted({finding.class_ for finding in findings}))
