"""Verdicts of a suite in words, the same on the screen and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actconform.suite.suite_result import BoundVerdict, FarthestElement, RuntimeVerdict, SuiteRecord


def element_words(worst: FarthestElement) -> str:
    """Return where and by how much an element is off: "y[0, 3]: 1.25 where 1.5 must be, 8.2 times its bound"."""
    place = f"[{', '.join(map(str, worst.place))}]" if worst.place else ""
    where = f"{worst.output}{place}" + (f" of data set {worst.data_set}" if worst.data_set else "")
    if worst.words:
        return f"{where}: {worst.words}"
    numbers = f"{worst.got:.9g} where {worst.wanted:.9g} must be"
    if worst.difference == "zero sign":
        return f"{where}: {worst.got!r} where {worst.wanted!r} must be"
    if worst.bound == 0.0 or worst.ratio == float("inf"):
        return f"{where}: {numbers}" + (", exactly" if worst.bound == 0.0 else "")
    return f"{where}: {numbers}, {worst.ratio:.3g} times its bound"


def bound_words(verdict: BoundVerdict) -> str:
    """Return what stands behind a verdict by the truth, "" where all is within."""
    if verdict.state == "outside" and verdict.worst is not None:
        return element_words(verdict.worst)
    return verdict.reason


def blame_words(verdict: RuntimeVerdict) -> str:
    """Return whose fault an answer outside its bounds is."""
    if verdict.cause:
        return verdict.cause
    return (
        "undetermined: the data that the case ships are outside too"
        if verdict.blame == "undetermined"
        else verdict.blame
    )


def data_findings(records: list[SuiteRecord]) -> list[SuiteRecord]:
    """Return the cases whose shipped outputs are outside, the farthest first."""
    outside = [record for record in records if record.data.state == "outside"]
    return sorted(outside, key=lambda record: -(record.data.worst.ratio if record.data.worst else 0.0))
