"""A case's test vectors, each with its truth: stored goldens in f32, all patterns of a 16-bit format, rounded tensors for rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import ml_dtypes
import msgspec
import numpy as np

from actconform.oracle import truth
from actconform.oracle.rounding import all_patterns, round_to
from actconform.testdata.regimes import (
    COTANGENT_ROW_LENGTHS,
    HUGE_ROW_LENGTHS,
    LONG,
    NAN_PATTERNS,
    SMOOTH,
    SPECIAL_ROW_LENGTHS,
    SPECIALS,
    cotangent_rows,
    huge_rows,
    long_row,
    long_special_rows,
    mixed_cotangents,
    row_cotangents,
    signed_powers,
    special_placements,
)
from actconform.tolerance.limits import Tolerance, row_tolerance, unary_tolerance
from actconform.tolerance.row_bounds import row_bound
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from actconform.testdata.golden.store import Golden
    from actconform.types import Aspect, Bundle, Kernel
    from actconform.types.dtypes import FloatFormat

    F64 = NDArray[np.float64]

STORAGE: dict[str, Any] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}


ORDINARY = 8.0  # |x| of ordinary points
COTANGENT_POINTS = 1024  # at which cotangents of all kinds are asked
KINK_RADIUS = 2.0**-6  # around a kink, where they are not
STEEP = 1 / 16  # of a derivative, from which on it is multiplied by infinity and NaN
STEEP_POINTS = 48


class TestVector(msgspec.Struct, frozen=True, kw_only=True):
    """One call and the truth of its outputs; `layout` and `first_plain` are those of `Call`."""

    __test__: ClassVar[bool] = False  # pytest: no class of tests
    regime: str
    inputs: Bundle
    cotangents: Bundle | None
    truth: dict[str, F64]
    input_at: dict[str, F64]
    dtypes: dict[str, Any]
    bounds: dict[str, F64] = {}
    layout: str = ""
    first_plain: bool = False
    rows: int = 0
    """Where it is not 0, the length to which the first axis of x and of the cotangents is repeated for the call; the truth is of one period."""
    each_shape: bool = False
    """Whether it is left out for a backend that compiles each shape."""
    may_refuse: bool = False
    """Whether an error is no fault: it is asked beyond what kernels declare."""

    @property
    def rank(self) -> int:
        """The number of axes of its first input."""
        return next(iter(self.inputs.values())).ndim

    def asked(self) -> tuple[Bundle, Bundle | None]:
        """Return the inputs and cotangents of the call."""
        if not self.rows:
            return self.inputs, self.cotangents
        cotangents = self.cotangents
        if cotangents is not None:
            cotangents = {name: self._repeated(array) for name, array in cotangents.items()}
        return {**self.inputs, "x": self._repeated(self.inputs["x"])}, cotangents

    def _repeated(self, array: NDArray[Any]) -> NDArray[Any]:
        return np.resize(array, self.shape_of(array))

    def shape_of(self, array: NDArray[Any]) -> tuple[int, ...]:
        """Return the shape of what is `array` in one period."""
        return (self.rows, *array.shape[1:]) if self.rows else array.shape


class TestVectors(msgspec.Struct, frozen=True):
    """All test vectors of a subject in one aspect and dtype, and the tolerance by which outputs are judged."""

    __test__: ClassVar[bool] = False
    tolerance: Tolerance
    vectors: list[TestVector]
    sizes: list[TestVector] = []
    """Those of other lengths and shapes, which not every route is asked: see `testdata.sizes`."""

    def asked(self, *, few: bool, graph: bool, layouts: bool = True) -> TestVectors:
        """Return what a route is asked: of `sizes` perhaps few, of a graph none of other ranks than it takes, perhaps no layouts."""
        left_out = self.of_other_ranks(compiles_per_shape=False) if graph else {}
        chosen = [vector for vector in self.sizes if not (few and vector.each_shape) and vector.rank not in left_out]
        vectors = [vector for vector in self.vectors if layouts or not vector.layout]
        return TestVectors(self.tolerance, [*vectors, *chosen])

    def of_other_ranks(self, *, compiles_per_shape: bool) -> dict[int, list[TestVector]]:
        """Return the test vectors of other ranks than kernels declare, by rank; few where each shape is compiled."""
        by_rank: dict[int, list[TestVector]] = {}
        for vector in self.sizes:
            if vector.rank != self.vectors[0].rank and not (compiles_per_shape and vector.each_shape):
                by_rank.setdefault(vector.rank, []).append(vector)
        return by_rank

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays, each array once."""
        arrays = (
            array
            for vector in (*self.vectors, *self.sizes)
            for bundle in (vector.inputs, vector.cotangents or {}, vector.truth, vector.input_at, vector.bounds)
            for array in bundle.values()
        )
        return sum({id(array): array.nbytes for array in arrays}.values())


def generate(kernel: Kernel, aspect: Aspect, dtype: str, golden: Golden) -> TestVectors:
    """Return the test vectors of a case, the same for every route. Raises Unsupported without a formula.

    The first one is the largest: it is computed twice, and parallel loops and sums differ on large arrays if at all.
    """
    fmt = DTYPES[dtype]
    if kernel.form == "row":
        return TestVectors(row_tolerance(kernel, aspect, fmt), _largest_first(_rows(kernel, aspect, fmt, golden)))
    tolerance = unary_tolerance(
        kernel, aspect, fmt, float(truth_of(kernel, np.zeros(1), gradient=aspect == "gradient")[0])
    )
    return unary_vectors(kernel, tolerance, aspect, *_unary(kernel, aspect, fmt, golden))


def truth_of(kernel: Kernel, x: F64, *, gradient: bool) -> F64:
    """Return the value of a unary kernel at each `x`, or its derivative, in float64."""
    return next(iter(truth(kernel, {"x": x}, {"y": np.ones(x.size)} if gradient else None).values()))


def _largest_first(vectors: Iterable[TestVector]) -> list[TestVector]:
    ordered = list(vectors)
    largest = max(range(len(ordered)), key=lambda number: next(iter(ordered[number].inputs.values())).size)
    return [ordered.pop(largest), *ordered]


class UnaryPoints(NamedTuple):
    """The inputs of a unary kernel: all points in float64, those of each regime, and where the special points begin."""

    x: F64
    regimes: dict[str, slice]
    special: int


def unary_points(draws: Mapping[str, NDArray[Any]], fmt: FloatFormat) -> UnaryPoints:
    """Return the points by regime as a format has them: those of float32 as drawn; in 16 bits all patterns, then the special ones."""
    if fmt.bits == 16:
        draws = {"exhaustive": all_patterns(fmt), "special": round_to(draws["special"].astype(np.float64), fmt)}
    regimes: dict[str, slice] = {}
    start = 0
    for regime, x in draws.items():
        regimes[regime] = slice(start, start + x.size)
        start = regimes[regime].stop
    special = regimes.pop("special").start
    return UnaryPoints(np.concatenate(list(draws.values())).astype(np.float64), regimes, special)


def unary_vectors(
    kernel: Kernel, tolerance: Tolerance, aspect: Aspect, points: UnaryPoints, result: F64
) -> TestVectors:
    """Return the test vectors of a unary kernel whose value, or derivative, at each of `points` is `result`. The first is the largest."""
    return TestVectors(tolerance, _largest_first(_calls(kernel, tolerance.fmt, aspect, points, result)))


def _unary(kernel: Kernel, aspect: Aspect, fmt: FloatFormat, golden: Golden) -> tuple[UnaryPoints, F64]:
    """Return the points of a kernel with the truth there: stored in f32, by the formula of float64 in 16 bits."""
    points = unary_points({regime: tensors["x"] for regime, tensors in golden.split()}, fmt)
    if fmt.bits == 32:
        return points, golden.tensors["y" if aspect == "value" else "d_x"]
    return points, truth_of(kernel, points.x, gradient=aspect == "gradient")


def _calls(kernel: Kernel, fmt: FloatFormat, aspect: Aspect, points: UnaryPoints, result: F64) -> Iterator[TestVector]:
    x = points.x
    with np.errstate(over="ignore"):
        inputs = x.astype(STORAGE[fmt.name])
    if fmt.bits == 16:
        inputs[: 1 << 16] = np.arange(1 << 16, dtype=np.uint16).view(inputs.dtype)  # every NaN with its own payload
    calls: list[tuple[str, slice | NDArray[np.int64]]] = list(points.regimes.items())
    kinks = _kinks(kernel, x[: points.special])
    calls += [("special", placement) for placement in special_placements(points.special, kinks)]
    for regime, index in calls:
        elements = inputs[index], x[index], result[index]
        if aspect == "value":
            yield unary_vector(regime, *elements, None)
            continue
        yield unary_vector(regime, *elements, np.ones(elements[0].size))
        if regime != "special":
            powers = signed_powers(f"{kernel.name}/powers/{regime}", elements[0].size).astype(np.float64)
            yield unary_vector(regime, *elements, powers)
    if fmt.bits == 32:
        for index in special_placements(points.special):
            if points.special in index:  # the first special point is NaN
                for pattern in NAN_PATTERNS:
                    of_pattern = _with_nan(inputs[index], pattern)
                    yield unary_vector("special", of_pattern, x[index], result[index], _ones_of(aspect, index.size))
    if aspect == "gradient":
        yield from _further_cotangents(kernel, inputs, x, result, points)


def _with_nan(elements: NDArray[Any], pattern: np.uint32) -> NDArray[Any]:
    """Return float32 elements with every NaN of that bit pattern."""
    bits = elements.view(np.uint32).copy()
    bits[np.isnan(elements)] = pattern
    return bits.view(np.float32)


def _ones_of(aspect: Aspect, size: int) -> F64 | None:
    return np.ones(size) if aspect == "gradient" else None


def _further_cotangents(
    kernel: Kernel, inputs: NDArray[Any], x: F64, result: F64, points: UnaryPoints
) -> Iterator[TestVector]:
    """Yield the calls with cotangents that round, vanish, or are no numbers, at ordinary points away from kinks.

    Infinity and NaN only where the derivative is far from 0: an implementation may select 0 instead of multiplying by it.
    """
    chosen = np.flatnonzero((np.abs(x[: points.special]) <= ORDINARY) & (x[: points.special] != 0))
    for kink in kernel.kinks:
        chosen = chosen[np.abs(x[chosen] - kink.x) > KINK_RADIUS]
    chosen = chosen[np.linspace(0, chosen.size - 1, COTANGENT_POINTS).astype(np.int64)]
    fmt = _format_of(inputs)
    mixed = round_to(mixed_cotangents(f"{kernel.name}/cotangents", chosen.size, fmt).astype(np.float64), fmt)
    yield unary_vector("cotangent", inputs[chosen], x[chosen], result[chosen], mixed)
    steep = chosen[np.abs(result[chosen]) >= STEEP]
    steep = steep[:: max(steep.size // STEEP_POINTS, 1)]
    if steep.size:
        special = np.resize([np.inf, -np.inf, np.nan], steep.size)
        yield unary_vector("cotangent", inputs[steep], x[steep], result[steep], special)


def _format_of(inputs: NDArray[Any]) -> FloatFormat:
    return next(DTYPES[name] for name, storage in STORAGE.items() if storage == inputs.dtype)


def _kinks(kernel: Kernel, x: F64) -> list[int]:
    """Return where in `x` the number next to each of the kernel's kinks stands; the special points hold 0 and 1 themselves."""
    return [int(np.nanargmin(np.abs(x - kink.x))) for kink in kernel.kinks if kink.x not in SPECIALS]


def unary_vector(regime: str, inputs: NDArray[Any], x: F64, result: F64, cotangent: F64 | None) -> TestVector:
    """Return a call of a unary kernel: its `inputs`, which are the numbers `x`, and the values or derivatives there."""
    if cotangent is None:
        return TestVector(
            regime=regime,
            inputs={"x": inputs},
            cotangents=None,
            truth={"y": result},
            input_at={"y": x},
            dtypes={"y": inputs.dtype},
        )
    with np.errstate(invalid="ignore"):
        d_x = result * cotangent
    return TestVector(
        regime=regime,
        inputs={"x": inputs},
        cotangents={"y": cotangent.astype(inputs.dtype)},
        truth={"d_x": d_x},
        input_at={"d_x": x},
        dtypes={"d_x": inputs.dtype},
    )


def _rows(kernel: Kernel, aspect: Aspect, fmt: FloatFormat, golden: Golden) -> Iterator[TestVector]:
    for regime, tensors in golden.split():
        wide = {
            name: round_to(tensors[name].astype(np.float64), fmt) for name in (*kernel.inputs, "g") if name in tensors
        }
        g = wide.pop("g", None)
        cotangents = {"y": g} if aspect == "gradient" and g is not None else None
        if fmt.bits == 32:
            outputs = {
                name: array for name, array in tensors.items() if name.startswith("y" if cotangents is None else "d_")
            }
        else:
            outputs = truth(kernel, wide, cotangents)
        yield _row_vector(kernel, fmt, regime, wide, cotangents, outputs)
    ones = np.ones if aspect == "gradient" else None
    for n in SPECIAL_ROW_LENGTHS:
        yield unstored_vector(kernel, fmt, "special", long_special_rows(kernel, n), ones)
    for n in HUGE_ROW_LENGTHS:
        yield unstored_vector(kernel, fmt, "huge", huge_rows(kernel, n), ones)
    if aspect == "gradient":
        for n in COTANGENT_ROW_LENGTHS:
            drawn = partial(_cotangents_of_rows, kernel, fmt)
            yield unstored_vector(kernel, fmt, "cotangent", cotangent_rows(kernel, n), drawn)
    row = long_row(kernel) if fmt.largest < LONG else None
    if row is not None:
        yield unstored_vector(kernel, fmt, "long", row, ones)


def _cotangents_of_rows(kernel: Kernel, fmt: FloatFormat, shape: tuple[int, ...]) -> F64:
    """Return cotangents of a format; where every slope reads its whole row, one of the last row is NaN."""
    drawn = round_to(row_cotangents(f"{kernel.name}/cotangents", shape, fmt).astype(np.float64), fmt)
    if kernel.name in SMOOTH:
        drawn[-1].flat[0] = np.nan
    return drawn


def unstored_vector(
    kernel: Kernel,
    fmt: FloatFormat,
    regime: str,
    inputs: dict[str, Any],
    cotangents_of: Callable[[tuple[int, ...]], F64] | None,
    **flags: bool,
) -> TestVector:
    """Return a call of a row kernel whose truth is computed here, of the gradient where there is what gives the cotangents of a shape."""
    wide = {name: round_to(array.astype(np.float64), fmt) for name, array in inputs.items()}
    outputs = truth(kernel, wide, None)
    cotangents = None
    if cotangents_of is not None:
        cotangents = {name: cotangents_of(array.shape) for name, array in outputs.items()}
        outputs = truth(kernel, wide, cotangents)
    vector = _row_vector(kernel, fmt, regime, wide, cotangents, outputs)
    return msgspec.structs.replace(vector, **flags) if flags else vector


def _row_vector(
    kernel: Kernel,
    fmt: FloatFormat,
    regime: str,
    wide: dict[str, F64],
    cotangents: dict[str, F64] | None,
    outputs: Mapping[str, NDArray[Any]],
) -> TestVector:
    storage = STORAGE[fmt.name]
    with np.errstate(all="ignore"):
        bounds = row_bound(kernel, fmt, wide, None if cotangents is None else cotangents["y"], outputs)
        inputs = {name: array.astype(storage) for name, array in wide.items()}
    return TestVector(
        regime=regime,
        inputs=inputs,
        cotangents=None if cotangents is None else {name: g.astype(storage) for name, g in cotangents.items()},
        truth={name: np.asarray(array, np.float64) for name, array in outputs.items()},
        input_at={name: _input_at(name, wide, array) for name, array in outputs.items()},
        dtypes=dict.fromkeys(outputs, np.dtype(np.int64) if kernel.output_dtype == "int64" else storage),
        bounds=bounds,
    )


def _input_at(output: str, inputs: dict[str, F64], array: NDArray[Any]) -> F64:
    """Return an input number for each output element: its own, the gate's, or the largest of its row."""
    x = inputs[output[2:]] if output.startswith("d_") else inputs["x"]
    if x.ndim == array.ndim and x.shape[:-1] == array.shape[:-1]:
        return x[..., : array.shape[-1]]
    return np.asarray(x.max(axis=-1))
