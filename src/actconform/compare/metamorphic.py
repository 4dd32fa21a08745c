"""The claims about a subject: the calls that they need beside its questions, and the findings where they do not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.compare.comparator import structural
from actconform.testdata.metamorphic import REGIME, properties
from actconform.types import FindingClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from actconform.testdata.kernel_vectors import Exam
    from actconform.testdata.metamorphic import Property
    from actconform.types import Aspect, Bundle, Finding
    from actconform.types.dtypes import FloatFormat


class Claims:
    """What is claimed of one subject in one aspect."""

    def __init__(self, subject: str, aspect: Aspect, exam: Exam) -> None:
        self._claims = properties(subject, aspect)
        self._fmt: FloatFormat = exam.rule.fmt
        question = exam.questions[0]
        self._inputs = question.inputs
        self._tensor = "y" if aspect == "value" else "d_x"

    def calls(self) -> Iterator[tuple[str, Bundle, Bundle | None]]:
        """Yield (regime, inputs, cotangents) of each further call, in order, in the case's dtype."""
        storage = self._inputs["x"].dtype
        for claim in self._claims:
            for number, x in enumerate(claim.inputs):
                cotangents = {"y": claim.cotangents[number].astype(storage)} if claim.cotangents is not None else None
                yield REGIME, {**self._inputs, "x": x.astype(storage)}, cotangents

    def broken(self, answers: Sequence[Bundle]) -> list[Finding]:
        """Return a `property` finding for each claim that the answers to `calls` break; lacking answers break it too."""
        found, left = [], list(answers)
        for claim in self._claims:
            mine, left = left[: len(claim.inputs)], left[len(claim.inputs) :]
            why = self._why(claim, mine)
            if why:
                relation = f"{claim.subject} {claim.claim}"
                found.append(
                    structural(FindingClass.PROPERTY, REGIME, self._tensor, f"{relation}: {why}", relation=relation)
                )
        return found

    def _why(self, claim: Property, answers: Sequence[Bundle]) -> str:
        tensors: list[NDArray[Any]] = []
        for answer, x in zip(answers, claim.inputs, strict=False):  # what was not answered, `broken` misses
            array = answer.get(self._tensor)
            if array is None or array.dtype.kind in "cSUmM":
                return f"no {self._tensor} of numbers"
            if array.shape[:1] != x.shape[:1] or not array.size:
                return f"{self._tensor} has the shape {list(array.shape)} where x has {list(x.shape)}"
            tensors.append(array.astype(np.float64))
        try:
            with np.errstate(all="ignore"):
                return claim.broken(tensors, self._fmt)
        except (ValueError, IndexError) as error:
            return f"answers of shapes {[list(array.shape) for array in tensors]}: {error}"
