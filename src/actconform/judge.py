"""From measurements and findings to one verdict: what is not registered, or registered and gone, does not conform."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from actconform.deviations import concerns, covers, holds
from actconform.types import BAD, RAN, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from actconform.types import Case, Deviation, Finding, Result


class Judgement(msgspec.Struct, frozen=True):
    """The verdict on one case, its findings with the deviation that covers each, and why."""

    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...]


def judge(
    case: Case, findings: Sequence[Finding], register: Iterable[Deviation], facts: Mapping[str, str]
) -> Judgement:
    """Return PASS, FAIL, XFAIL or XPASS for a case that ran.

    XFAIL only where every finding is covered by a deviation whose `when` holds here; XPASS where such a deviation is
    registered for the case and nothing was found.
    """
    active = [deviation for deviation in register if concerns(deviation, case) and holds(deviation, facts)]
    covered = []
    for finding in findings:
        by = next((deviation for deviation in active if covers(deviation, finding, case.dtype)), None)
        covered.append(
            msgspec.structs.replace(finding, deviation=by.id, blame=by.blame or finding.blame) if by else finding
        )
    new = [finding for finding in covered if finding.deviation is None]
    if new:
        reason = f"{len(new)} of {len(covered)} findings not registered: {_kinds(new)}"
        return Judgement(Verdict.FAIL, reason, tuple(covered))
    if covered:
        known = ", ".join(sorted({str(finding.deviation) for finding in covered}))
        return Judgement(Verdict.XFAIL, f"known: {known}", tuple(covered))
    if active:
        gone = ", ".join(deviation.id for deviation in active)
        reason = f"clean, though registered as deviating: {gone}; narrow or remove the deviation"
        return Judgement(Verdict.XPASS, reason, ())
    return Judgement(Verdict.PASS, "", ())


def unmatched(
    cases: Sequence[Case],
    results: Sequence[Result],
    register: Iterable[Deviation],
    facts: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """Return, as messages, the deviations that hold and whose selected cases all ran, and that covered nothing."""
    by_case = {result.case: result for result in results}
    used = {finding.deviation for result in results for finding in result.findings}
    messages = []
    for deviation in register:
        mine = [
            case
            for case in cases
            if concerns(deviation, case) and holds(deviation, facts.get(case.backend) or facts.get(case.worker, {}))
        ]
        ran = [case for case in mine if case.id in by_case and by_case[case.id].verdict in RAN]
        if mine and len(ran) == len(mine) and deviation.id not in used:
            messages.append(
                f"deviation {deviation.id!r} covered nothing in the {len(mine)} cases that it is registered for"
            )
    return messages


def conforms(
    cases: Sequence[Case], results: Sequence[Result], require: Sequence[str] | None, optional: Collection[str] = ()
) -> list[str]:
    """Return why the run does not conform, as messages; empty when it does.

    By default every selected route is required but those to backends that are `optional`: each needs a case that was not
    UNAVAILABLE. A route required by name must be selected too.
    """
    why = []
    bad = Counter(result.verdict for result in results if result.verdict in BAD)
    if bad:
        why.append(", ".join(f"{count} {verdict}" for verdict, count in bad.items()))
    if not cases:
        why.append("nothing was selected")
    if len(results) < len(cases):
        why.append(f"{len(cases) - len(results)} selected cases have no result: the run was ended early")
    by_default = sorted({case.route for case in cases if case.worker not in optional})
    required = by_default if require is None else require
    present = {result.route for result in results if result.verdict is not Verdict.UNAVAILABLE}
    why += [f"required route {route} did not run" for route in required if route not in present]
    return why


def _kinds(findings: Sequence[Finding]) -> str:
    return ", ".join(sorted({finding.class_ for finding in findings}))
