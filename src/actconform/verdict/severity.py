"""How grave a finding is: one table over classes and inputs, lowered by size, and the one order that everything shows them in."""

from __future__ import annotations

import math
import struct
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actconform.tolerance.limits import BIAS_LIMIT, TAIL_LIMIT
from actconform.types import Blame, FindingClass
from actconform.types.dtypes import DTYPES
from actconform.types.finding import (
    CLASSES,
    CONVENTION,
    CRITICAL,
    FIXED_SHAPE,
    MAJOR,
    MINOR,
    WITHIN_LIMITS,
    Severity,
    Where,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actconform.types import Finding, Interval, Measurement, Result
    from actconform.types.dtypes import FloatFormat

SeverityOrder: TypeAlias = tuple[bool, int, int, str, float]

# Inputs up to here are ordinary: what logits and pre-activations of trained networks reach. sigmoid(20) is 1 - 2e-9.
ORDINARY_UP_TO = 20.0
MAJOR_FROM = 2.0  # times the limit
CRITICAL_FROM = 10.0


NEW_MARK = "●"
MARKS: dict[str, str] = {CRITICAL: "▲", MAJOR: "△", MINOR: "◦", CONVENTION: "◦"}  # of what is known


BY_NAME = {"special": Where.SPECIAL, "subnormal": Where.SUBNORMAL, "huge": Where.LARGE}  # regimes
OF_ALL_SIZES = ("tail", "edge", "hard", "exhaustive", "kink")  # regimes whose intervals tell more than their names
_ORDER = {name: number for number, name in enumerate(CLASSES)}


def severity_of(finding: Finding, dtype: str, measurements: Iterable[Measurement] = ()) -> Severity:
    """Return how grave a finding is: `convention` where that is its blame, else the lesser of what its place and its size allow.

    Size is the magnitude as a multiple of the limit in the case's `measurements`; an exact limit below one ULP counts as one,
    `range` is held against 8 ULP, `bias` against 1, `formula` against its own bound of 1. From 10 times the limit on it is as
    grave as its place allows: limits lie at 8 roundings, healthy kernels show 6, and a decimal digit more is no rounding in any
    format. Below 2 times it is minor: another order of the same operations does as much. Between the two it is major at most.

    A finding is at ordinary inputs where its interval reaches into |x| <= 20, subnormal inputs and what is below the smallest
    normal number both in truth and answer apart. Regimes of rows and models, whose interval says nothing, go by their name.
    """
    if finding.blame == Blame.CONVENTION:
        return CONVENTION
    row = CLASSES[_row_name(finding)]
    by_place = row.at(place_of(finding, DTYPES.get(dtype)))
    return max(by_place, _by_size(finding, measurements), key=_rank) if row.sized else by_place


def place_of(finding: Finding, fmt: FloatFormat | None) -> Where:
    """Return at which inputs of the format `fmt` a finding is; None, a format that is not known, goes by the regime alone."""
    worst = finding.worst
    if fmt and worst and abs(worst.truth) < fmt.smallest_normal and abs(worst.got) < fmt.smallest_normal:
        return Where.SUBNORMAL
    if fmt and worst and finding.regime in OF_ALL_SIZES:
        return _by_interval(finding.interval, fmt)
    return BY_NAME.get(finding.regime, Where.ORDINARY)


def _by_interval(interval: Interval, fmt: FloatFormat) -> Where:
    try:
        low, high = interval.ends(fmt)
    except (ValueError, struct.error):  # of a report that something else wrote
        return Where.ORDINARY
    nearest, farthest = sorted((abs(low), abs(high)))
    if not (math.isfinite(low) and math.isfinite(high)):
        return Where.SPECIAL
    if 0.0 < farthest < fmt.smallest_normal:
        return Where.SUBNORMAL
    return Where.LARGE if nearest > ORDINARY_UP_TO and low * high > 0.0 else Where.ORDINARY


def graded(result: Result) -> Result:
    """Return a result with the severity of every finding, gravest first, and blamed as the gravest is.

    A severity that a report has already is kept.
    """
    if not result.findings:
        return result
    findings = [
        finding
        if finding.severity in _ORDER_OF_SEVERITY
        else msgspec.structs.replace(finding, severity=str(severity_of(finding, result.dtype, result.measurements)))
        for finding in result.findings
    ]
    findings.sort(key=severity_order)
    return msgspec.structs.replace(result, findings=tuple(findings), blame=findings[0].blame)


def severity_order(finding: Finding) -> SeverityOrder:
    """Return a key that sorts findings, gravest first: new before known, then severity, class, and size."""
    size = math.inf if math.isnan(finding.magnitude) else finding.magnitude
    class_ = _row_name(finding)
    rank = _ORDER_OF_SEVERITY.get(finding.severity, len(Severity))
    return finding.deviation is not None, rank, _ORDER[class_], class_, -size


def gravest(findings: Iterable[Finding]) -> Finding | None:
    """Return the finding that decides: the gravest new one, else the gravest; None where there is none."""
    return min(findings, key=severity_order, default=None)


def mark(finding: Finding) -> str:
    """Return the sign before a finding in tables."""
    if finding.deviation is None:
        return NEW_MARK
    return MARKS.get(finding.severity, MARKS[MAJOR])


def tally(findings: Iterable[Finding | None]) -> str:
    """Return how many findings there are of each severity, gravest first: "3 critical, 120 major"."""
    counts = Counter(finding.severity for finding in findings if finding is not None)
    return ", ".join(f"{counts[severity]:,} {severity}" for severity in Severity if counts[severity])


def counted(results: Sequence[Result], word: str) -> str:
    """Return how many results there are, and of which severity their gravest findings: "123 known (3 critical, 120 major)"."""
    severities = tally(gravest(result.findings) for result in results)
    return f"{len(results):,} {word}" + (f" ({severities})" if severities else "")


def _row_name(finding: Finding) -> str:
    if finding.class_ == FindingClass.SHAPE and not finding.regime:
        return FIXED_SHAPE
    if finding.class_ == FindingClass.NONDETERMINISTIC and not finding.magnitude:
        return WITHIN_LIMITS
    return str(finding.class_)


def _by_size(finding: Finding, measurements: Iterable[Measurement]) -> Severity:
    limits = {FindingClass.RANGE: TAIL_LIMIT, FindingClass.BIAS: BIAS_LIMIT, FindingClass.FORMULA: 1.0}
    of = (m.limit for m in measurements if (m.tensor, m.regime) == (finding.tensor, finding.regime))
    limit = limits.get(finding.class_) or max(1.0, next(of, 1.0))
    times = finding.magnitude / limit
    return MINOR if times < MAJOR_FROM else MAJOR if times < CRITICAL_FROM else CRITICAL  # NaN is critical


def _rank(severity: Severity) -> int:
    return severity.rank


_ORDER_OF_SEVERITY = {str(severity): severity.rank for severity in Severity}
