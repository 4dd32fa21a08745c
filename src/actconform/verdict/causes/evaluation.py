"""The formulas of one case, evaluated at the elements of interest: by text, or the case's own graph."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.comparison.comparator import join
from actconform.elements.elementwise import Sample, units
from actconform.errors import FormulaError, Unsupported
from actconform.onnx.gradient_artifact import COTANGENT, with_cotangents
from actconform.oracle import truth
from actconform.testdata.regimes import HALVED
from actconform.tolerance.row_bounds import row_bound
from actconform.tolerance.ulp import ulp_of
from actconform.types.dtypes import DTYPES
from actconform.verdict.causes.arithmetic import EXACT, Arithmetic, Number, as_read
from actconform.verdict.causes.formula import Formula, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.testdata.kernel_vectors import TestVector, TestVectors
    from actconform.types import Case, Kernel
    from actconform.types.cause import LibraryAccuracy
    from actconform.verdict.causes.graph import GraphFormula

MATRIX = 2
STEPS = {"wide": DTYPES["f32"], "double": EXACT}
WITHOUT_VALUE = (FormulaError, Unsupported, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError)


class Piece(NamedTuple):
    """Elements of one tensor in one regime: flat indices into the joined sample."""

    regime: str
    sample: Sample
    elements: NDArray[np.int64]


class Part(NamedTuple):
    """The elements of one tensor that formulas are evaluated at, over all regimes, and these elements as one sample."""

    tensor: str
    pieces: tuple[Piece, ...]
    sample: Sample

    @classmethod
    def of(cls, tensor: str, pieces: Sequence[Piece]) -> Part:
        """Return the part of these pieces, in their order."""
        return cls(tensor, tuple(pieces), join([piece.sample.part(piece.elements) for piece in pieces]))

    def positions(self, regime: str, elements: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where elements of a regime stand in `sample`; they are among its elements."""
        start = 0
        for piece in self.pieces:
            if piece.regime == regime:
                return start + np.searchsorted(piece.elements, elements)
            start += piece.elements.size
        raise KeyError(regime)


@cache
def parse_formula(text: str) -> Formula:
    """Return the formula of a text, parsed once."""
    return Formula(text)


class Evaluation:
    """Evaluates formulas for the test vectors of a case. Row kernels are evaluated whole, unary ones at the elements alone."""

    def __init__(self, case: Case, kernel: Kernel, test_vectors: TestVectors, facts: Mapping[str, str]) -> None:
        self.case, self.kernel, self.test_vectors, self.facts = case, kernel, test_vectors, facts
        self._fmt = test_vectors.tolerance.fmt
        self._vectors: dict[str, list[TestVector]] = defaultdict(list)
        for vector in test_vectors.vectors:
            self._vectors[vector.regime].append(vector)

    def by_text(self, text: str, library: LibraryAccuracy, part: Part) -> Number:
        """Return what the formula gives at the part's elements. Raises one of WITHOUT_VALUE where it gives nothing."""
        ends = Arithmetic.of(library, self._fmt, self.facts)
        steps = ends.to(STEPS.get(library.steps.get(self._fmt.name, "each"), self._fmt))
        zero = Number(np.zeros(()), np.zeros(()), steps)
        fixed = {name: zero.operand(value) for name, value in self.kernel.parameters.items()}
        with np.errstate(all="ignore"):
            if self.test_vectors.tolerance.unary:
                names = {"x": self._read(part.sample.x, ends, steps)}
                if part.sample.cotangent is not None:
                    names["g"] = self._read(part.sample.cotangent, ends, steps)
                return _spread(parse_formula(text).evaluate(Scope(names | fixed, steps, ends)), part.sample.x.shape)

            def value(vectors: Sequence[TestVector]) -> list[Number]:
                names = self._tensors(vectors, ends, steps) | fixed
                number = parse_formula(text).evaluate(Scope(names, steps, ends, self.kernel.axis))
                if len(vectors) == 1:
                    return [number]
                rows = [next(iter(vector.inputs.values())).shape[0] for vector in vectors]
                of_rows = _spread(number, (sum(rows), *vectors[0].truth[part.tensor].shape[1:]))
                ends_of = np.cumsum(rows)
                return [_rows(of_rows, end - count, end) for count, end in zip(rows, ends_of.tolist(), strict=True)]

            return self._of_vectors(value, part, alike=self._shape_of_rows)

    def _of_vectors(
        self,
        value: Callable[[Sequence[TestVector]], list[Number]],
        part: Part,
        alike: Callable[[TestVector], object] = id,
    ) -> Number:
        """Return the numbers of the test vectors that hold the part's elements, at these; `value` takes those that are `alike` in one call."""
        vectors_of_part, places = [], []
        for piece in part.pieces:
            vectors = self._vectors[piece.regime]
            ends = np.cumsum([vector.truth[part.tensor].size for vector in vectors])
            if ends[-1] != piece.sample.got.size:
                raise ValueError("outputs of other shapes than the truth's: no element can be told from another")
            holder = np.searchsorted(ends, piece.elements, side="right")
            for number in np.unique(holder):
                vectors_of_part.append(vectors[number])
                start = ends[number] - vectors[number].truth[part.tensor].size
                places.append(piece.elements[holder == number] - start)
        groups: dict[object, list[int]] = defaultdict(list)
        for number, vector in enumerate(vectors_of_part):
            groups[alike(vector)].append(number)
        numbers: dict[int, Number] = {}
        for group in groups.values():
            numbers |= zip(group, value([vectors_of_part[number] for number in group]), strict=True)
        return _concatenated(
            [
                _at(_spread(numbers[number], vector.truth[part.tensor].shape), places[number])
                for number, vector in enumerate(vectors_of_part)
            ]
        )

    def _shape_of_rows(self, vector: TestVector) -> object:
        """Return what rows have in common that one evaluation can take together; its own key where an input is no row."""
        arrays = [*vector.inputs.values(), *(vector.cotangents or {}).values()]
        rows = {array.shape[0] for array in arrays}
        if len(rows) > 1 or any(array.ndim < MATRIX for array in arrays):
            return id(vector)
        return tuple(array.shape[1:] for array in arrays)

    def _tensors(self, vectors: Sequence[TestVector], ends: Arithmetic, steps: Arithmetic) -> dict[str, Number]:
        """Return the tensors of the test vectors, their rows one after another."""
        arrays = {
            name: np.concatenate([vector.inputs[name].astype(np.float64) for vector in vectors])
            for name in vectors[0].inputs
        }
        if vectors[0].cotangents is not None:
            arrays["g"] = np.concatenate(
                [vector.cotangents["y"].astype(np.float64) for vector in vectors if vector.cotangents is not None]
            )
        if self.kernel.name in HALVED:
            half = arrays["x"].shape[-1] // 2
            arrays |= {"a": arrays["x"][..., :half], "b": arrays["x"][..., half:]}
        return {name: self._read(array, ends, steps) for name, array in arrays.items()}

    def _read(self, array: NDArray[np.float64], ends: Arithmetic, steps: Arithmetic) -> Number:
        number = as_read(array, ends)
        return Number(number.value, number.error, steps)

    def by_graph(self, graph: GraphFormula, arithmetic: Arithmetic, part: Part, *, wide: bool = False) -> Number:
        """Return what the graph gives at the part's elements; `arithmetic` of EXACT is the graph in float64, not rounded."""
        with np.errstate(all="ignore"):
            if self.test_vectors.tolerance.unary:
                vector = self.test_vectors.vectors[0]
                tensors: dict[str, NDArray[Any]] = {"x": part.sample.x.astype(vector.inputs["x"].dtype)}
                if part.sample.cotangent is not None and vector.cotangents is not None:
                    tensors[COTANGENT + "y"] = part.sample.cotangent.astype(vector.cotangents["y"].dtype)
                return _spread(graph.evaluate(tensors, arithmetic, wide=wide)[part.tensor], part.sample.x.shape)

            def value(vectors: Sequence[TestVector]) -> list[Number]:
                (vector,) = vectors  # a graph may mix rows
                tensors = with_cotangents(vector.inputs, vector.cotangents)
                return [graph.evaluate(tensors, arithmetic, wide=wide)[part.tensor]]

            return self._of_vectors(value, part)

    def flushed(self, part: Part) -> Number:
        """Return what the definition gives where subnormal inputs and results are taken for zero, within the tolerance's limit.

        At a kink at zero the slope may be that of either side.
        """
        tolerance, least = self.test_vectors.tolerance, self._fmt.smallest_normal

        def flush(array: NDArray[Any]) -> NDArray[np.float64]:
            wide = array.astype(np.float64)
            return np.where(np.abs(wide) < least, np.copysign(0.0, wide), wide)

        def lost(value: NDArray[np.float64], error: NDArray[np.float64]) -> Number:
            gone = np.abs(value) < least * (1.0 + 2.0 * self._fmt.unit_roundoff)
            error = np.where(np.isfinite(value), error, 0.0)  # no limit is one of an infinity or NaN
            return Number(value, np.where(gone, np.maximum(error, np.abs(value)), error), Arithmetic(self._fmt))

        def value(vectors: Sequence[TestVector]) -> list[Number]:
            (vector,) = vectors
            inputs = {name: flush(array) for name, array in vector.inputs.items()}
            g = flush(vector.cotangents["y"]) if vector.cotangents else None
            truths = truth(self.kernel, inputs, None if g is None else {"y": g})
            bounds = row_bound(self.kernel, self._fmt, inputs, g, truths)
            return [lost(truths[part.tensor].astype(np.float64), bounds[part.tensor])]

        with np.errstate(all="ignore"):
            if not tolerance.unary:
                return self._of_vectors(value, part)
            x = flush(part.sample.x)
            g = None if part.sample.cotangent is None else flush(part.sample.cotangent)
            (slope,) = truth(self.kernel, {"x": x}, None if g is None else {"y": np.ones(x.size)}).values()
            slopes = np.zeros(x.shape)
            for kink in (kink for kink in tolerance.kinks if kink.x == 0.0):
                slope = np.where(x == 0.0, (kink.left + kink.right) / 2, slope)
                slopes = np.where(x == 0.0, abs(kink.left - kink.right) / 2, slopes)
            result, between = (slope, slopes) if g is None else (slope * g, slopes * np.abs(g))
            sample = Sample(got=part.sample.got, truth=result, x=x, cotangent=g)
            unit, _ = units(sample, tolerance, ulp_of(np.ascontiguousarray(result), self._fmt))
            return lost(result, between + tolerance.limit * unit)


def exactly(arithmetic: Arithmetic) -> Arithmetic:
    """Return the arithmetic that rounds nothing that matters: float64, every subnormal kept."""
    return Arithmetic(EXACT, "kept", 1, arithmetic.accuracy)


def _spread(number: Number, shape: tuple[int, ...]) -> Number:
    """Return it in the shape of the tensor: constants repeated, and what keeps a reduced axis without it."""
    if number.value.ndim > len(shape) and number.value.size == np.prod(shape, dtype=int):
        return number.moved(lambda array: array.reshape(shape))
    return number.moved(lambda array: np.broadcast_to(array, shape))


def _rows(number: Number, first: int, end: int) -> Number:
    return number.moved(lambda array: array[first:end])


def _at(number: Number, elements: NDArray[np.int64]) -> Number:
    return number.moved(lambda array: array.ravel()[elements])


def _concatenated(numbers: Sequence[Number]) -> Number:
    value, error = (np.concatenate([getattr(number, key) for number in numbers]) for key in ("value", "error"))
    return Number(value, error, numbers[0].arithmetic)
