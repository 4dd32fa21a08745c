"""The claims about a subject: the calls that they need beside its questions, and the findings where they do not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.compare.comparator import structural
from actconform.testdata.metamorphic import REGIME, relations
from actconform.types import FindingClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.testdata.metamorphic import MetamorphicRelation
    from actconform.types import Aspect, Bundle, Finding
    from actconform.types.dtypes import FloatFormat


class RelationChecks:
    """What is claimed of one subject in one aspect."""

    def __init__(self, subject: str, aspect: Aspect, test_vectors: TestVectors) -> None:
        self._relations = relations(subject, aspect)
        self._fmt: FloatFormat = test_vectors.tolerance.fmt
        vector = test_vectors.vectors[0]
        self._inputs = vector.inputs
        self._tensor = "y" if aspect == "value" else "d_x"

    def calls(self) -> Iterator[tuple[str, Bundle, Bundle | None]]:
        """Yield (regime, inputs, cotangents) of each further call, in order, in the case's dtype."""
        storage = self._inputs["x"].dtype
        for relation in self._relations:
            for number, x in enumerate(relation.inputs):
                cotangents = (
                    {"y": relation.cotangents[number].astype(storage)} if relation.cotangents is not None else None
                )
                yield REGIME, {**self._inputs, "x": x.astype(storage)}, cotangents

    def violations(self, answers: Sequence[Bundle]) -> list[Finding]:
        """Return a `property` finding for each claim that the answers to `calls` break; lacking answers break it too."""
        found, left = [], list(answers)
        for relation in self._relations:
            mine, left = left[: len(relation.inputs)], left[len(relation.inputs) :]
            why = self._why(relation, mine)
            if why:
                broken = f"{relation.subject} {relation.relation}"
                found.append(
                    structural(FindingClass.PROPERTY, REGIME, self._tensor, f"{broken}: {why}", relation=broken)
                )
        return found

    def _why(self, relation: MetamorphicRelation, answers: Sequence[Bundle]) -> str:
        tensors: list[NDArray[Any]] = []
        for answer, x in zip(answers, relation.inputs, strict=False):  # what was not answered, `violations` misses
            array = answer.get(self._tensor)
            if array is None or array.dtype.kind in "cSUmM":
                return f"no {self._tensor} of numbers"
            if array.shape[:1] != x.shape[:1] or not array.size:
                return f"{self._tensor} has the shape {list(array.shape)} where x has {list(x.shape)}"
            tensors.append(array.astype(np.float64))
        try:
            with np.errstate(all="ignore"):
                return relation.violation(tensors, self._fmt)
        except (ValueError, IndexError) as error:
            return f"answers of shapes {[list(array.shape) for array in tensors]}: {error}"
