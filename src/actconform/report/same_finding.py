"""Whether two findings of one case, in two runs, are the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.types import Finding


def same(one: Finding, other: Finding) -> bool:
    """Tell whether class, tensor and regime are equal and the intervals of inputs overlap."""
    where = (one.class_, one.tensor, one.regime) == (other.class_, other.tensor, other.regime)
    return where and _overlap(one.interval, other.interval)


def without(findings: Iterable[Finding], others: Iterable[Finding]) -> list[Finding]:
    """Return the findings that are the same as none of the others."""
    there = list(others)
    return [finding for finding in findings if not any(same(finding, other) for other in there)]


def _overlap(one: tuple[str, str], other: tuple[str, str]) -> bool:
    ends = [_place(pattern) for pattern in (*one, *other)]
    if any(end is None for end in ends):
        return one == other  # nowhere, or no patterns
    low, high, other_low, other_high = (end or 0 for end in ends)
    return low <= other_high and other_low <= high


def _place(pattern: str) -> int | None:
    """Return where a bit pattern of a number stands among all of its format, in order of value, -0 where 0 is, NaN at both ends."""
    digits = pattern.removeprefix("0x")
    try:
        bits = int(digits, 16)
    except ValueError:
        return None
    sign = 1 << (4 * len(digits) - 1)
    return bits if bits < sign else sign - bits
