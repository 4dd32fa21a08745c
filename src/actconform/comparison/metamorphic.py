"""Metamorphic relations of a subject: the calls that they need beside its test vectors, and the findings where they do not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.comparison.comparator import structural
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
    """The metamorphic relations of one subject in one aspect."""

    def __init__(self, subject: str, aspect: Aspect, test_vectors: TestVectors) -> None:
        self._relations = relations(subject, aspect)
        self._fmt: FloatFormat = test_vectors.tolerance.fmt
        vector = test_vectors.vectors[0]
        self._inputs = vector.inputs
        self._tensor = "y" if aspect == "value" else "d_x"

    def calls(self) -> Iterator[tuple[str, Bundle, Bundle | None]]:
        """Yield (regime, inputs, cotangents) of each further call, in order, in the case's dtype."""
        for relation in self._relations:
            storage = self._inputs["x"].dtype
            for number, x in enumerate(relation.inputs):
                cotangents = (
                    {"y": relation.cotangents[number].astype(storage)} if relation.cotangents is not None else None
                )
                yield REGIME, {**self._inputs, "x": x.astype(storage)}, cotangents

    def violations(self, outputs: Sequence[Bundle]) -> list[Finding]:
        """Return a `property` finding for each relation that the outputs of `calls` break; missing outputs break it too."""
        findings, remaining = [], list(outputs)
        for relation in self._relations:
            outputs_of_relation, remaining = remaining[: len(relation.inputs)], remaining[len(relation.inputs) :]
            reason = self._violation(relation, outputs_of_relation)
            if reason:
                broken = f"{relation.subject} {relation.relation}"
                findings.append(
                    structural(FindingClass.PROPERTY, REGIME, self._tensor, f"{broken}: {reason}", relation=broken)
                )
        return findings

    def _violation(self, relation: MetamorphicRelation, outputs: Sequence[Bundle]) -> str:
        tensors: list[NDArray[Any]] = []
        for bundle, x in zip(outputs, relation.inputs, strict=False):  # where outputs are missing, the relation says so
            array = bundle.get(self._tensor)
            if array is None or array.dtype.kind in "cSUmM":
                return f"no {self._tensor} of numbers"
            if array.shape[:1] != x.shape[:1] or not array.size:
                return f"{self._tensor} has the shape {list(array.shape)} where x has {list(x.shape)}"
            tensors.append(array.astype(np.float64))
        try:
            with np.errstate(all="ignore"):
                return relation.violation(tensors, self._fmt)
        except (ValueError, IndexError) as error:
            return f"outputs of shapes {[list(array.shape) for array in tensors]}: {error}"
