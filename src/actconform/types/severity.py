"""How grave a finding is: one table over classes and inputs, lowered by size, and the one order that everything shows them in."""

from __future__ import annotations

import math
import struct
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from actconform.tolerance.limits import BIAS_LIMIT, TAIL_LIMIT
from actconform.tolerance.ulp import from_hex
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actconform.types import Finding, Measurement, Result
    from actconform.types.dtypes import FloatFormat

Gravity: TypeAlias = tuple[bool, int, int, str, float]

# Inputs up to here are ordinary: what logits and pre-activations of trained networks reach. sigmoid(20) is 1 - 2e-9.
ORDINARY_UP_TO = 20.0
MAJOR_FROM = 2.0  # times the limit
CRITICAL_FROM = 10.0


class Severity(StrEnum):
    """What a finding means to somebody who uses the model, gravest first."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    CONVENTION = "convention"

    @property
    def rank(self) -> int:
        """Its place in the order: 0 is the gravest."""
        return list(Severity).index(self)


CRITICAL, MAJOR, MINOR, CONVENTION = Severity
NEW_MARK = "●"
MARKS: dict[str, str] = {CRITICAL: "▲", MAJOR: "△", MINOR: "◦", CONVENTION: "◦"}  # of what is known


class Place(StrEnum):
    """Which inputs a finding is about."""

    ORDINARY = "ordinary"  # or every input, as of what is wrong with a graph or a call
    LARGE = "large"
    SPECIAL = "special"
    SUBNORMAL = "subnormal"


BY_NAME = {"special": Place.SPECIAL, "subnormal": Place.SUBNORMAL, "huge": Place.LARGE}  # regimes
OF_ALL_SIZES = ("tail", "edge", "hard", "exhaustive", "kink")  # regimes whose intervals tell more than their names


class Row(NamedTuple):
    """How grave a class of findings can be at each place, whether its size may lower that, and why."""

    ordinary: Severity
    large: Severity
    special: Severity
    subnormal: Severity
    sized: bool
    why: str

    def at(self, place: Place) -> Severity:
        """Return how grave it can be at one place."""
        return Severity(getattr(self, place.value))


def _everywhere(severity: Severity, why: str) -> Row:
    return Row(severity, severity, severity, severity, sized=False, why=why)


FIXED_SHAPE = "shape, of a graph"  # what the gates say of an exported graph's inputs, not of an answer

# The gravest class first: the order among findings of equal severity. Every class stands here.
TABLE = {
    "invalid-model": _everywhere(CRITICAL, "no runtime has to load the graph, and nothing was raised at its export"),
    "names": _everywhere(CRITICAL, "inputs or outputs are missing, or are others"),
    "shape": _everywhere(CRITICAL, "an answer of another shape"),
    "nan-lost": Row(CRITICAL, MAJOR, MAJOR, MAJOR, sized=False, why="a fault upstream is hidden by a number"),
    "nan-made": Row(CRITICAL, MAJOR, MAJOR, MAJOR, sized=False, why="NaN spreads to all that reads it"),
    "inf": Row(CRITICAL, MAJOR, MAJOR, MAJOR, sized=False, why="an infinity is wrong or missing, and becomes NaN"),
    "scaled-error": Row(CRITICAL, MAJOR, MAJOR, MINOR, sized=True, why="a wrong number"),
    "kink": Row(CRITICAL, MAJOR, MAJOR, MINOR, sized=True, why="a slope that neither side has"),
    "range": Row(
        CRITICAL, MAJOR, MAJOR, MINOR, sized=True, why="outside of what the function can be: a logarithm fails"
    ),
    "dtype": _everywhere(CRITICAL, "a graph or an answer of another element type"),
    "property": _everywhere(CRITICAL, "what the function is used for does not hold at ordinary inputs"),
    "mutates-input": _everywhere(CRITICAL, "the caller's data are overwritten without a word"),
    "nondeterministic": _everywhere(MAJOR, "a run cannot be repeated; a wrong number is a finding of its own"),
    "position-dependent": Row(
        CRITICAL, MAJOR, MAJOR, MAJOR, sized=False, why="the length of an array changes the answer"
    ),
    "memory-growth": _everywhere(MAJOR, "a long run ends without memory; no number is wrong"),
    FIXED_SHAPE: _everywhere(MAJOR, "valid, and refuses every other size at the first call"),
    "placement": _everywhere(MAJOR, "another device computed than was asked for"),
    "bias": Row(MAJOR, MINOR, MINOR, MINOR, sized=True, why="each number is within its limit, their sum drifts"),
    "formula": Row(CRITICAL, MINOR, MINOR, MINOR, sized=True, why="another error than its known formula explains"),
    "tail": _everywhere(MINOR, "relative accuracy is lost where the function is small"),
    "subnormal-flush": _everywhere(MINOR, "numbers below the smallest normal one are taken or given as 0"),
    "zero-sign": _everywhere(CONVENTION, "the sign of a zero"),
}
UNKNOWN = _everywhere(MAJOR, "a class that only a plugin knows")
_ORDER = {class_: number for number, class_ in enumerate(TABLE)}


def severity_of(finding: Finding, dtype: str, measurements: Iterable[Measurement] = ()) -> Severity:
    """Return how grave a finding is: `convention` where that is its blame, else the lesser of what its place and its size allow.

    Size is the magnitude as a multiple of the limit in the case's `measurements`; an exact limit below one ULP counts as one,
    `range` is held against 8 ULP, `bias` against 1, `formula` against its own bound of 1. From 10 times the limit on it is as
    grave as its place allows: limits lie at 8 roundings, healthy kernels show 6, and a decimal digit more is no rounding in any
    format. Below 2 times it is minor: another order of the same operations does as much. Between the two it is major at most.

    A finding is at ordinary inputs where its interval reaches into |x| <= 20, subnormal inputs and what is below the smallest
    normal number both in truth and answer apart. Regimes of rows and models, whose interval says nothing, go by their name.
    """
    if finding.blame == CONVENTION:
        return CONVENTION
    row = TABLE.get(_row_name(finding), UNKNOWN)
    by_place = row.at(place_of(finding, DTYPES.get(dtype)))
    return max(by_place, _by_size(finding, measurements), key=_rank) if row.sized else by_place


def place_of(finding: Finding, fmt: FloatFormat | None) -> Place:
    """Return at which inputs of the format `fmt` a finding is; None, a format that is not known, goes by the regime alone."""
    worst = finding.worst
    if fmt and worst and abs(worst.truth) < fmt.smallest_normal and abs(worst.got) < fmt.smallest_normal:
        return Place.SUBNORMAL
    if fmt and worst and finding.regime in OF_ALL_SIZES:
        return _by_interval(finding.interval, fmt)
    return BY_NAME.get(finding.regime, Place.ORDINARY)


def _by_interval(interval: tuple[str, str], fmt: FloatFormat) -> Place:
    try:
        low, high = (from_hex(end, fmt) for end in interval)
    except (ValueError, struct.error):  # of a report that something else wrote
        return Place.ORDINARY
    nearest, farthest = sorted((abs(low), abs(high)))
    if not (math.isfinite(low) and math.isfinite(high)):
        return Place.SPECIAL
    if 0.0 < farthest < fmt.smallest_normal:
        return Place.SUBNORMAL
    return Place.LARGE if nearest > ORDINARY_UP_TO and low * high > 0.0 else Place.ORDINARY


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
    findings.sort(key=gravity)
    return msgspec.structs.replace(result, findings=tuple(findings), blame=findings[0].blame)


def gravity(finding: Finding) -> Gravity:
    """Return a key that sorts findings, gravest first: new before known, then severity, class, and size."""
    size = math.inf if math.isnan(finding.magnitude) else finding.magnitude
    class_ = _row_name(finding)
    rank = _ORDER_OF_SEVERITY.get(finding.severity, len(Severity))
    return finding.deviation is not None, rank, _ORDER.get(class_, len(_ORDER)), class_, -size


def gravest(findings: Iterable[Finding]) -> Finding | None:
    """Return the finding that decides: the gravest new one, else the gravest; None where there is none."""
    return min(findings, key=gravity, default=None)


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
    return FIXED_SHAPE if finding.class_ == "shape" and not finding.regime else finding.class_


def _by_size(finding: Finding, measurements: Iterable[Measurement]) -> Severity:
    limits = {"range": TAIL_LIMIT, "bias": BIAS_LIMIT, "formula": 1.0}
    of = (m.limit for m in measurements if (m.tensor, m.regime) == (finding.tensor, finding.regime))
    limit = limits.get(finding.class_) or max(1.0, next(of, 1.0))
    times = finding.magnitude / limit
    return MINOR if times < MAJOR_FROM else MAJOR if times < CRITICAL_FROM else CRITICAL  # NaN is critical


def _rank(severity: Severity) -> int:
    return severity.rank


_ORDER_OF_SEVERITY = {str(severity): severity.rank for severity in Severity}
