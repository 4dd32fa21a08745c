"""Compares two reports: new, gone and changed findings, changed errors and verdicts, and changed facts."""

from __future__ import annotations

import math
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import msgspec

from actconform.bench.baseline import BaselineComparison
from actconform.report.across_runs.changed_facts import changed
from actconform.report.error_ratio import ErrorRatio, worst_error_ratio
from actconform.text import number_of
from actconform.types import BAD, RAN, Finding, Verdict
from actconform.types.report import Change  # noqa: TC001  msgspec reads annotations
from actconform.verdict.severity import gravest, severity_order, tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from actconform.types import Result
    from actconform.types.report import Report
    from actconform.verdict.severity import SeverityOrder

MOVED = 2.0  # an error moved that changed by more than this factor
LEAST_RATIO = 0.1  # and is above this part of its limit in one of the two


class FindingChange(msgspec.Struct, frozen=True):
    """A finding of a case that one of the two reports has."""

    case: str
    finding: Finding


class BlameChange(msgspec.Struct, frozen=True):
    """A finding that both reports have, as in the newer one, and the blame that it had before."""

    case: str
    before: str
    finding: Finding


Kind = TypeVar("Kind", FindingChange, BlameChange)


class VerdictChange(msgspec.Struct, frozen=True):
    """A case whose verdict changed, and the reason of the new one."""

    case: str
    before: Verdict
    after: Verdict
    reason: str


class ErrorChange(msgspec.Struct, frozen=True):
    """A case whose worst error against its limit changed by more than a factor of 2."""

    case: str
    before: ErrorRatio
    after: ErrorRatio

    @property
    def factor(self) -> float:
        """How many times larger the error is now; below 1 where it is smaller."""
        return self.after.ratio / self.before.ratio if self.before.ratio else math.inf


class WorseKind(Enum):
    """In what a run can be worse than another, in the words for one of a kind and for several."""

    FINDING = "new finding", "new findings"
    ERROR = "larger error", "larger errors"
    VERDICT = "verdict that does not conform", "verdicts that do not conform"
    NOT_RUN = "case that ran before and did not run", "cases that ran before and did not run"
    MISSING = "case that ran before and is missing", "cases that ran before and are missing"
    SLOWER = "slower benchmark result", "slower benchmark results"


class Worsening(msgspec.Struct, frozen=True):
    """Something that got worse, in words, and its case, or the route of a benchmark."""

    kind: WorseKind
    case: str
    words: str


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The differences of two reports, findings gravest first. `worse` lists in words what got worse, empty where nothing did.

    `problems` are why the new one does not conform, where the old one did. Findings and errors are compared for cases that ran in
    both; a finding that lost the deviation that covered it is a new one. `appeared` and `disappeared` are cases that only one has. `speeds`
    is empty where not both have a throughput.json.
    """

    before: str
    after: str
    changed: tuple[Change, ...]
    problems: tuple[str, ...]
    new: tuple[FindingChange, ...]
    gone: tuple[FindingChange, ...]
    blamed: tuple[BlameChange, ...]
    verdicts: tuple[VerdictChange, ...]
    moved: tuple[ErrorChange, ...]
    appeared: tuple[str, ...]
    disappeared: tuple[str, ...]
    speeds: BaselineComparison
    worse: tuple[str, ...]


def compare_reports(before: Report, after: Report, speeds: BaselineComparison | None = None) -> Difference:
    """Return the differences of two reports.

    Worse is: a run that no longer conforms; a new finding that no registered deviation covers; an error that moved away from the truth in a case that is not
    known to deviate; a verdict that does not conform where the old one did; a case that ran, and now does not or is missing; a route
    that is slower beyond the noise.
    """
    old = {result.case: result for result in before.results}
    new = {result.case: result for result in after.results}
    both = [(old[case], result) for case, result in new.items() if case in old]
    ran = [
        (old_result, new_result)
        for old_result, new_result in both
        if old_result.verdict in RAN and new_result.verdict in RAN
    ]
    difference = Difference(
        before=before.when,
        after=after.when,
        changed=changed(before.facts, after.facts),
        problems=after.problems if before.conforms and not after.conforms else (),
        new=_gravest_first(FindingChange(b.case, finding) for a, b in ran for finding in _new(a.findings, b.findings)),
        gone=_gravest_first(
            FindingChange(b.case, finding) for a, b in ran for finding in _absent_from(a.findings, b.findings)
        ),
        blamed=_gravest_first(blamed for a, b in ran for blamed in _blamed(a, b)),
        verdicts=tuple(
            VerdictChange(b.case, a.verdict, b.verdict, b.reason)
            for a, b in sorted(both, key=_bad_first)
            if a.verdict != b.verdict
        ),
        moved=tuple(sorted(_moved(ran), key=lambda change: change.factor, reverse=True)),
        appeared=tuple(case for case in new if case not in old),
        disappeared=tuple(case for case in old if case not in new),
        speeds=speeds or BaselineComparison(),
        worse=(),
    )
    return msgspec.structs.replace(difference, worse=tuple(_worse(difference, before, after)))


def _gravest_first(differences: Iterable[Kind]) -> tuple[Kind, ...]:
    return tuple(sorted(differences, key=lambda difference: severity_order(difference.finding)))


def _bad_first(pair: tuple[Result, Result]) -> tuple[bool, list[SeverityOrder]]:
    finding = gravest(pair[1].findings)
    return pair[1].verdict not in BAD, [severity_order(finding)] if finding else []


def _new(before: Sequence[Finding], after: Sequence[Finding]) -> list[Finding]:
    covered = [finding for finding in before if finding.deviation is not None]
    bare = [finding for finding in before if finding.deviation is None]
    return [
        finding
        for finding in _absent_from(after, bare)
        if finding.deviation is None or not any(finding.same(covered_finding) for covered_finding in covered)
    ]


def _blamed(before: Result, after: Result) -> Iterator[BlameChange]:
    for finding in after.findings:
        old_blames = dict.fromkeys(old_finding.blame for old_finding in before.findings if finding.same(old_finding))
        if old_blames and finding.blame not in old_blames:
            yield BlameChange(after.case, ", ".join(old_blames), finding)


def _moved(ran: list[tuple[Result, Result]]) -> Iterator[ErrorChange]:
    for old, new in ran:
        before, after = worst_error_ratio(old), worst_error_ratio(new)
        if before is None or after is None:
            continue
        if is_other_error(before.ratio, after.ratio):
            yield ErrorChange(new.case, before, after)


def is_other_error(before: float, after: float) -> bool:
    """Tell whether an error, as a share of its limit, counts as another one."""
    low, high = sorted((before, after))
    return high > LEAST_RATIO and high > MOVED * low


def worsenings(difference: Difference, before: Report, after: Report) -> Iterator[Worsening]:
    """Yield everything by which the later of two reports is worse, as `compare_reports` counts: the gravest findings first."""
    old = {result.case: result for result in before.results}
    new = {result.case: result for result in after.results}
    for change in difference.new:
        if change.finding.deviation is None:
            yield Worsening(WorseKind.FINDING, change.case, finding_words(change.finding))
    yield from _larger_errors(difference, new)
    yield from _worse_verdicts(difference, new)
    for case in difference.disappeared:
        if old[case].verdict in RAN:
            yield Worsening(WorseKind.MISSING, case, f"{old[case].verdict} before, and missing now")
    for slower in difference.speeds.slower:
        yield Worsening(WorseKind.SLOWER, slower.route, slower.words)


def _larger_errors(difference: Difference, new: Mapping[str, Result]) -> Iterator[Worsening]:
    for change in difference.moved:
        if change.factor > 1 and new[change.case].verdict is not Verdict.XFAIL:
            words = f"{100 * change.before.ratio:.3g} % of its limit before, {100 * change.after.ratio:.3g} % now"
            yield Worsening(WorseKind.ERROR, change.case, words)


def _worse_verdicts(difference: Difference, new: Mapping[str, Result]) -> Iterator[Worsening]:
    for turned in difference.verdicts:
        words = f"{turned.before} -> {turned.after}: {turned.reason}"
        if turned.after in BAD and turned.before not in BAD:
            yield Worsening(WorseKind.VERDICT, turned.case, words)
        if turned.before in RAN and turned.after not in RAN:
            yield Worsening(WorseKind.NOT_RUN, turned.case, words)
    for case in difference.appeared:
        if new[case].verdict in BAD:
            yield Worsening(WorseKind.VERDICT, case, f"{new[case].verdict}: {new[case].reason}")


def _worse(difference: Difference, before: Report, after: Report) -> Iterator[str]:
    if difference.problems:
        yield "the run no longer conforms"
    counts = Counter(worsening.kind for worsening in worsenings(difference, before, after))
    for kind in WorseKind:
        if kind is WorseKind.FINDING and counts[kind]:
            new = [change.finding for change in difference.new if change.finding.deviation is None]
            yield f"{number_of(counts[kind], *kind.value)} ({tally(new)})"
        elif counts[kind]:
            yield number_of(counts[kind], *kind.value)


def finding_words(finding: Finding) -> str:
    """Return a finding in words, without its worst input: "critical tail in y, ordinary: 7 elements; blame: runtime"."""
    count = number_of(finding.count, "element")
    words = (
        f"{finding.severity} {finding.class_} in {finding.tensor}, {finding.regime}: {count}; blame: {finding.blame}"
    )
    return words.lstrip()


def _absent_from(findings: Iterable[Finding], reference_findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that have no equal among the reference findings."""
    references = list(reference_findings)
    return [finding for finding in findings if not any(finding.same(reference) for reference in references)]
