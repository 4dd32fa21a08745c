"""The registered causes of critical findings: what is known, and to be looked at first."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from actconform.types.finding import CRITICAL
from actconform.verdict.severity import gravest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.types import Finding, Result


class CriticalCause(NamedTuple):
    """A cause with the cases in which it covers a critical finding, and the class and blame of the gravest one."""

    id: str
    cases: frozenset[str]
    class_: str
    blame: str


def critical_causes(results: Iterable[Result]) -> list[CriticalCause]:
    """Return each cause of a critical finding, that of most cases first."""
    covered: dict[str, list[tuple[str, Finding]]] = defaultdict(list)
    for result in results:
        for finding in result.findings:
            if finding.deviation is not None and finding.severity == CRITICAL:
                covered[finding.deviation].append((result.case, finding))
    causes = []
    for id_, pairs in covered.items():
        worst = gravest(finding for _, finding in pairs)
        assert worst is not None
        causes.append(CriticalCause(id_, frozenset(case for case, _ in pairs), str(worst.class_), worst.blame))
    return sorted(causes, key=lambda cause: (-len(cause.cases), cause.id))
