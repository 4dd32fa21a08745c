"""Of a case's test vectors the fewest inputs that still ask what a finding answers wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.part import Accepted
from actconform.report.html.reproduce import COPIES
from actconform.tolerance.ulp import ulp_of
from actconform.types.finding import CLASSES, FindingClass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.checking.flatten import Array
    from actconform.testdata.kernel_vectors import TestVector, TestVectors
    from actconform.types import Bundle, Finding, Result
    from actconform.workers.protocol import Job

FEW_ULP = 8.0  # that an answer may be off where a finding is not one of size, as NaN instead of a number


class Question(NamedTuple):
    """Inputs of a graph, and which answers in `tensor` are accepted: at the finding's element alone, others are not judged."""

    inputs: Bundle
    tensor: str
    accepted: Accepted
    zero_signs: bool

    @property
    def place(self) -> int:
        """The flat place of the first element that is judged."""
        return int(np.argmax(~(np.isneginf(self.accepted.lowest) & np.isposinf(self.accepted.highest))))

    def wrong(self, got: Array) -> bool:
        """Whether an answer shows the finding."""
        if got.shape != self.accepted.truth.shape:
            return True
        rejected = self.accepted.rejects(got)
        if self.zero_signs:
            value, truth = got.astype(np.float64), self.accepted.truth
            judged = ~(np.isneginf(self.accepted.lowest) & np.isposinf(self.accepted.highest))
            rejected |= judged & (value == 0) & (truth == 0) & (np.signbit(value) != np.signbit(truth))
        return bool(rejected.any())


def questions(result: Result, finding: Finding, vectors: TestVectors, job: Job) -> Iterator[Question]:
    """Yield questions that ask for the finding's worst element, from one element to its whole test vector; none where it has none."""
    located = _located(finding, vectors)
    if located is None:
        return
    number, flat = located
    truth = np.asarray(vectors.vectors[number].truth[finding.tensor], np.float64)
    inputs = job.calls[number].inputs
    allowed = _allowed(result, finding, vectors)
    signs = finding.class_ == FindingClass.ZERO_SIGN
    for index in _choices(truth, inputs, flat, unary=vectors.tolerance.unary):
        chosen = {name: array[index] if array.shape[:1] == truth.shape[:1] else array for name, array in inputs.items()}
        marks = np.zeros(truth.shape, bool)
        marks.flat[flat] = True
        yield Question(chosen, finding.tensor, _at_marks(truth[index], marks[index], allowed), signs)


def native_interval(result: Result, finding: Finding, vectors: TestVectors) -> tuple[float, float]:
    """Return between which numbers a framework's answer at the finding's worst element is accepted."""
    assert finding.worst is not None
    allowed = _allowed(result, finding, vectors)
    return finding.worst.truth - allowed, finding.worst.truth + allowed


def _located(finding: Finding, vectors: TestVectors) -> tuple[int, int] | None:
    """Return the number of the test vector of the finding's worst element, and its flat place there."""
    if finding.worst is None:
        return None
    place = finding.worst.index
    for number, vector in enumerate(vectors.vectors):
        size = _size(vector, finding)
        if place < size:
            return number, place
        place -= size
    return None


def _size(vector: TestVector, finding: Finding) -> int:
    if vector.regime != finding.regime or finding.tensor not in vector.truth:
        return 0
    return int(np.asarray(vector.truth[finding.tensor]).size)


def _choices(truth: Array, inputs: Bundle, flat: int, *, unary: bool) -> Iterator[Array]:
    """Yield rows of the first axis: the element alone, in vectorized loops by its copies, with its neighbours, and all."""
    rows = truth.shape[0] if truth.ndim else 0
    everything = np.arange(rows)
    if not rows or any(array.shape[:1] != truth.shape[:1] for array in inputs.values() if unary):
        yield everything if rows else np.array((), np.int64)
        return
    row = int(np.unravel_index(flat, truth.shape)[0])
    if any(array.shape[:1] == truth.shape[:1] for array in inputs.values()):
        yield np.array([row])
        if unary:
            yield np.full(COPIES, row)
            yield everything[max(row - COPIES, 0) : row + COPIES]
    yield everything


def _at_marks(truth: Array, marks: Array, allowed: float) -> Accepted:
    lowest = np.where(marks, truth - allowed, -np.inf)
    highest = np.where(marks, truth + allowed, np.inf)
    return Accepted(truth, lowest, highest)


def _allowed(result: Result, finding: Finding, vectors: TestVectors) -> float:
    """Return how far the finding's worst element may be off: its limit where it is one of size, else a few ULP."""
    worst, tolerance = finding.worst, vectors.tolerance
    assert worst is not None
    if not np.isfinite(worst.truth):
        return 0.0
    few = FEW_ULP * float(ulp_of(np.array([worst.truth]), tolerance.fmt)[0])
    error = abs(worst.got - worst.truth)
    if not np.isfinite(error) or finding.class_ in (FindingClass.SUBNORMAL_FLUSH, FindingClass.ZERO_SIGN):
        return min(few, abs(worst.truth) / 2)
    limits = {"ulp": tolerance.tail_limit, "scaled": tolerance.limit, "bound": 1.0}
    measured = next(
        (each.limit for each in result.measurements if (each.tensor, each.regime) == (finding.tensor, finding.regime)),
        None,
    )
    unit = CLASSES[finding.class_].unit
    limit = measured if unit == "scaled" and measured else limits.get(unit, 0.0)
    return error * limit / finding.magnitude if 0 < limit < finding.magnitude else min(few, error / 2)
