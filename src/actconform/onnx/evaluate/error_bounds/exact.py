"""Error bounds of operators that compute nothing: they move, compare, choose or count, and must be exact.

Of inputs in doubt moved elements keep their errors; what a comparison decides is in doubt, with infinite error, where the
errors let it fall either way.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, largest_error, lost, rounded
from actconform.oracle.rounding import F64, round_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from actconform.onnx.evaluate.computation import Array

Several: TypeAlias = tuple[Approximation, ...]

# what they move is the first input; of Pad the value of the padding too, two of TensorScatter, all of Concat
MOVES = frozenset(
    """
    CenterCropPad Compress Concat DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND Identity MaxUnpool
    Pad Reshape ReverseSequence Slice SpaceToDepth Split Squeeze TensorScatter Tile Transpose Trilu Unsqueeze
    """.split()  # noqa: SIM905  a list to read
)
MOVED = {"Concat": slice(None), "Pad": slice(0, 3, 2), "TensorScatter": slice(2)}


def _undecided(values: Sequence[Array]) -> Several:
    return tuple(Approximation(value, np.full(np.shape(value), np.inf)) for value in values)


def _in_doubt(x: Approximation | None) -> bool:
    return x is not None and x.error is not None and bool(np.any(x.error))


@error_bound(*MOVES, arithmetic=False)
def _move(context: BoundContext, *inputs: Approximation | None) -> Several:
    """The errors move as the elements do; with places or shapes in doubt anything is possible, where places are those of what is gathered, there."""
    values = context.values(inputs)
    moved = range(len(inputs))[MOVED.get(context.node.op_type, slice(1))]
    if not any(_in_doubt(x) for x in inputs):
        return tuple(Approximation(value) for value in values)
    doubtful = [x for i, x in enumerate(inputs) if i not in moved and x is not None and _in_doubt(x)]
    if doubtful and not context.node.op_type.startswith("Gather"):
        return _undecided(values)
    parts = [None if x is None else np.array(errors(x)) if i in moved else x.value for i, x in enumerate(inputs)]
    moved_errors = context.compute(parts)
    if context.node.attributes.get("value"):  # of Pad before opset 11: what it pads with is exact
        parts[0] = np.zeros_like(parts[0])
        moved_errors = [moved_errors[0] - context.compute(parts)[0]]
    if doubtful:
        place_in_doubt = _gathered_in_doubt(context, errors(doubtful[0]) > 0.0, inputs[0], np.ndim(values[0]))
        moved_errors = [np.where(place_in_doubt, np.inf, moved_errors[0])]
    if context.node.op_type == "Dropout":
        return Approximation(values[0], moved_errors[0]), *(Approximation(mask) for mask in values[1:])
    return tuple(Approximation(value, error) for value, error in zip(values, moved_errors, strict=True))


def _gathered_in_doubt(
    context: BoundContext, places: NDArray[np.bool_], data: Approximation | None, rank: int
) -> NDArray[np.bool_]:
    """Return which elements of what is gathered, of that rank, have a place in doubt; it broadcasts."""
    if context.node.op_type == "GatherElements":
        return places
    if context.node.op_type == "GatherND":
        places = np.asarray(places.any(axis=-1))
        before = 0
    else:
        before = int(context.node.attributes.get("axis", 0)) % max(np.ndim(data.value) if data else 1, 1)
    return places.reshape((1,) * before + places.shape + (1,) * (rank - before - places.ndim))


@error_bound("Shape", "Size", "Constant", "ConstantOfShape", "EyeLike", arithmetic=False)
def _certain(context: BoundContext, *inputs: Approximation) -> Approximation:
    """Of the shape alone, which is certain unless it is a number in doubt."""
    (value,) = context.values(inputs)
    doubtful = context.node.op_type == "ConstantOfShape" and any(_in_doubt(x) for x in inputs)
    return Approximation(value, np.full(np.shape(value), np.inf) if doubtful else None)


@error_bound("Where", arithmetic=False)
def _where(context: BoundContext, condition: Approximation, a: Approximation, b: Approximation) -> Approximation:
    """Either input where the condition is in doubt."""
    (value,) = context.values((condition, a, b))
    if condition.error is None and a.error is None and b.error is None:
        return Approximation(value)
    error = np.where(condition.value, errors(a), errors(b))
    if not _in_doubt(condition):
        return Approximation(value, error)
    apart = np.abs(np.asarray(a.value, np.float64) - np.asarray(b.value, np.float64)) + np.maximum(errors(a), errors(b))
    return Approximation(value, np.where(errors(condition) > 0.0, apart, error))


@error_bound("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", arithmetic=False)
def _compare(context: BoundContext, a: Approximation, b: Approximation) -> Approximation:
    (value,) = context.values((a, b))
    if a.error is None and b.error is None:
        return Approximation(value)
    error = errors(a) + errors(b)
    apart = np.abs(np.asarray(a.value, np.float64) - np.asarray(b.value, np.float64))
    return Approximation(value, np.where((error > 0.0) & ~(apart > error), np.inf, 0.0))


@error_bound(
    *("And", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BitCast", "Not", "Or", "Xor"),
    arithmetic=False,
)
def _elementwise(context: BoundContext, *inputs: Approximation) -> Approximation:
    """Anything where an operand is in doubt."""
    (value,) = context.values(inputs)
    if not any(_in_doubt(x) for x in inputs):
        return Approximation(value)
    return Approximation(value, np.where(reduce(np.logical_or, (errors(x) > 0.0 for x in inputs)), np.inf, 0.0))


@error_bound("IsInf", "IsNaN", arithmetic=False)
def _classify(context: BoundContext, x: Approximation) -> Approximation:
    """In doubt where a finite number may be anything; whether rounding overflows is not in the account."""
    (value,) = context.values((x,))
    if x.error is None:
        return Approximation(value)
    return Approximation(value, np.where(np.isfinite(x.value) & np.isinf(errors(x)), np.inf, 0.0))


@error_bound("ArgMax", "ArgMin", arithmetic=False)
def _place_of_extreme(context: BoundContext, x: Approximation) -> Approximation:
    """Exact, ties among exact numbers too; in doubt where a second number may be the extreme, or one is NaN."""
    (value,) = context.values((x,))
    attributes = context.node.attributes
    sign = 1.0 if context.node.op_type == "ArgMax" else -1.0
    doubt = _several_may_be_largest(x._replace(value=sign * x.value), attributes["axis"])
    doubt = doubt.reshape(value.shape)
    return Approximation(value, np.where(doubt, np.inf, 0.0) if doubt.any() else None)


def _several_may_be_largest(x: Approximation, axes: int | tuple[int, ...]) -> NDArray[np.bool_]:
    """Tell of each row whether its largest element is in doubt, the axes kept."""
    largest = np.max(x.value, axis=axes, keepdims=True)
    not_a_number: NDArray[np.bool_] = np.isnan(largest)
    if x.error is None:
        return not_a_number
    surely = np.max(x.value - x.error, axis=axes, keepdims=True)
    may_be = x.value + errors(x) >= surely
    several: NDArray[np.bool_] = np.count_nonzero(may_be, axis=axes, keepdims=True) > 1
    # equal numbers without doubt are in the order that the standard gives them
    several &= np.any(may_be & (errors(x) > 0.0), axis=axes, keepdims=True)
    return several | not_a_number


@error_bound("Hardmax", arithmetic=False)
def _hardmax(context: BoundContext, x: Approximation) -> Approximation:
    (value,) = context.values((x,))
    axis = context.node.attributes["axis"]
    axes = axis if context.node.opset >= 13 else tuple(range(axis % x.value.ndim, x.value.ndim))
    doubt = np.broadcast_to(_several_may_be_largest(x, axes), value.shape)
    return Approximation(value, np.where(doubt, 1.0, 0.0) if doubt.any() else None)


@error_bound("TopK", arithmetic=False)
def _largest(context: BoundContext, x: Approximation, k: Approximation | None = None) -> Several:
    """The k-th largest moves by no more than the largest error; its place is in doubt where its neighbours may pass it.

    Unsorted, which older opsets cannot ask for, they are in any order.
    """
    values, places = context.values((x, k) if k else (x,))
    if _in_doubt(k):
        return _undecided([values, places])
    axis = context.node.attributes["axis"]
    top = np.asarray(values, np.float64)
    unsorted = not context.node.attributes.get("sorted", 1) or np.isnan(x.value).any()
    if unsorted and top.size:
        spread = np.max(top, axis=axis, keepdims=True) - np.min(top, axis=axis, keepdims=True)
        error = np.broadcast_to(spread + (0.0 if x.error is None else np.max(errors(x))), top.shape)
        return Approximation(values, error), Approximation(places, np.full(places.shape, np.inf))
    if not _in_doubt(x):
        return Approximation(values), Approximation(places)
    largest = np.broadcast_to(np.max(errors(x), axis=axis, keepdims=True), top.shape)
    in_order = np.flip(np.sort(x.value, axis=axis), axis)
    gaps = np.abs(np.diff(in_order, axis=axis)) > 2.0 * np.max(errors(x), axis=axis, keepdims=True)
    edge = np.ones_like(np.take(in_order, [0], axis), dtype=bool)
    clear = np.concatenate([edge, gaps], axis) & np.concatenate([gaps, edge], axis)
    if not context.node.attributes.get("largest", 1):
        clear = np.flip(clear, axis)
    clear = np.take(clear, range(top.shape[axis]), axis)
    return Approximation(values, largest), Approximation(places, np.where(clear, 0.0, np.inf))


@error_bound("NonZero", "Unique", arithmetic=False)
def _collect(context: BoundContext, x: Approximation) -> Several:
    """Anything, their number too, where an element may be another or zero."""
    values = context.values((x,))
    doubt = _in_doubt(x)
    if context.node.op_type == "NonZero" and doubt:
        doubt = bool(np.any((np.abs(x.value) <= errors(x)) & (errors(x) > 0.0)))
    return _undecided(values) if doubt else tuple(Approximation(value) for value in values)


@error_bound("OneHot", arithmetic=False)
def _one_hot(
    context: BoundContext, places: Approximation, depth: Approximation, levels: Approximation
) -> Approximation:
    (value,) = context.values((places, depth, levels))
    if _in_doubt(places) or _in_doubt(depth):
        return _undecided([value])[0]
    return Approximation(value, largest_error([levels]) if levels.error is None else np.asarray(np.max(levels.error)))


@error_bound("TfIdfVectorizer", arithmetic=False)
def _count_ngrams(context: BoundContext, x: Approximation) -> Approximation:
    """Counts, exact below 2 / u, and their products with weights, each rounded once."""
    (value,) = context.values((x,))
    if _in_doubt(x):
        return _undecided([value])[0]
    return Approximation(value, rounded(value, context.float_format) * (context.node.attributes["mode"] != "TF"))


@error_bound("Range", arithmetic=False)
def _range(context: BoundContext, start: Approximation, limit: Approximation, delta: Approximation) -> Approximation:
    """Exact where the format holds every number of it; else a sum of i steps, each rounded."""
    (value,) = context.values((start, limit, delta))
    if any(_in_doubt(x) for x in (start, limit, delta)):
        return _undecided([value])[0]
    if context.fmt is None or context.fmt.bits == 64 or np.array_equal(round_to(value, context.fmt), value):
        return Approximation(value)
    error = np.arange(2.0, value.size + 2.0) * (
        context.fmt.unit_roundoff * np.maximum(np.abs(value), np.abs(start.value))
    )
    return Approximation(value, error)


@error_bound("ScatterElements", "ScatterND", "Scatter", arithmetic=False)
def _scatter(context: BoundContext, x: Approximation, places: Approximation, updates: Approximation) -> Approximation:
    """Moves where nothing is combined; extremes are exact, sums and products are of as many terms as fall on a place."""
    (value,) = context.values((x, places, updates))
    if _in_doubt(places):
        return _undecided([value])[0]
    reduction = context.node.attributes.get("reduction", "none")
    doubtful = _in_doubt(x) or _in_doubt(updates)
    passed_on = None
    if doubtful and reduction in {"none", "add"}:
        passed_on = context.compute([np.array(errors(x)), places.value, np.array(errors(updates))])[0]
    elif doubtful and reduction in {"max", "min"}:
        passed_on = np.asarray(max(np.max(errors(x), initial=0.0), np.max(errors(updates), initial=0.0)))
    elif doubtful:
        passed_on = np.full(value.shape, np.inf)
    if context.fmt is None or reduction not in {"add", "mul"}:
        return Approximation(value, passed_on)
    error = _errors_of_combining(context, x, places, updates)
    return Approximation(value, error if passed_on is None else error + passed_on)


def _errors_of_combining(context: BoundContext, x: Approximation, places: Approximation, updates: Approximation) -> F64:
    """A rounding for each update that falls on a place, of the sum of sizes, or of the product."""
    fmt = context.float_format
    product = context.node.attributes["reduction"] == "mul"
    first, each = (1.0, 2.0) if product else (0.0, 1.0)
    (counts,) = context.compute([np.full(x.value.shape, first), places.value, np.full(updates.value.shape, each)])
    counts = np.log2(counts) if product else counts
    (reach,) = context.compute([x.size, places.value, updates.size])
    error: F64 = counts * (reach * fmt.unit_roundoff * (1.0 + counts * fmt.unit_roundoff) + lost(fmt))
    return error
