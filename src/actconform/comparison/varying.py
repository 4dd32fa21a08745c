"""Answers that differ from call to call: which numbers are wrong whatever the answer, and whether their difference alone breaks a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.comparison.comparator import comparison
from actconform.comparison.repeats import distance_from_truth
from actconform.types.finding import CLASSES, CRITICAL

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from actconform.comparison.comparator import Comparison
    from actconform.testdata.kernel_vectors import TestVector, TestVectors
    from actconform.types import Bundle
    from actconform.workers.protocol import JobResult


class VaryingAnswers(NamedTuple):
    """The answers to all calls of a case, each element as near to the truth, and as far from it, as any answer had it.

    Where nothing varies both are the same bundles. Calls without a truth have the first answer as the nearest, the other as the
    farthest.
    """

    nearest: list[Bundle]
    farthest: list[Bundle]

    @property
    def vary(self) -> bool:
        """Whether any answer varies."""
        return self.nearest is not self.farthest

    def without(self, calls: Container[int]) -> VaryingAnswers:
        """Return the answers to the other calls."""
        nearest = [bundle for call, bundle in enumerate(self.nearest) if call not in calls]
        if not self.vary:
            return VaryingAnswers(nearest, nearest)
        return VaryingAnswers(nearest, [bundle for call, bundle in enumerate(self.farthest) if call not in calls])

    def breaks_limits(self, test_vectors: TestVectors, compared: Comparison) -> bool:
        """Tell whether the farthest answers break a limit of numbers, or differ in shape, where the nearest, `compared`, do not."""
        shapes = [
            [{name: array.shape for name, array in bundle.items()} for bundle in bundles]
            for bundles in (self.nearest, self.farthest)
        ]
        if shapes[0] != shapes[1]:
            return True
        farthest = comparison(test_vectors, self.farthest[: len(test_vectors.vectors)])
        return bool(_wrong(farthest) - _wrong(compared))


def varying_answers(test_vectors: TestVectors, outcome: JobResult) -> VaryingAnswers:
    """Return the answers of a job whose calls were made more than once."""
    if not outcome.second:
        return VaryingAnswers(outcome.outputs, outcome.outputs)
    nearest, farthest = list(outcome.outputs), list(outcome.outputs)
    for index, second in outcome.second.items():
        vectors = test_vectors.vectors[index : index + 1]
        nearest[index], farthest[index] = _sorted(vectors, outcome.outputs[index], second)
    return VaryingAnswers(nearest, farthest)


def _sorted(vectors: Sequence[TestVector], first: Bundle, second: Bundle) -> tuple[Bundle, Bundle]:
    """Return two answers with each element exchanged so that those of the first bundle are nearer to the truth."""
    nearest, farthest = dict(first), dict(second)
    for name, truth in (vectors[0].truth if vectors else {}).items():
        answer, again = first.get(name), second.get(name)
        if answer is None or again is None or not answer.shape == again.shape == truth.shape:
            continue
        exchanged = distance_from_truth(again, truth) < distance_from_truth(answer, truth)
        nearest[name] = np.where(exchanged, again, answer)
        farthest[name] = np.where(exchanged, answer, again)
    return nearest, farthest


def _wrong(compared: Comparison) -> set[tuple[str, str, int]]:
    """Return the elements of findings that may be critical: regime, tensor, flat index."""
    return {
        (finding.regime, finding.tensor, element)
        for finding in compared.findings
        if finding.worst is not None and CLASSES[finding.class_].ordinary == CRITICAL
        for element in compared.elements.get(finding.place, np.empty(0, np.int64)).tolist()
    }
