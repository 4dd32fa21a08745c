"""Error bounds of reductions and running sums: sums in any order, `sum_factor` of the sum of sizes, and what is done to them.

One running sum in 16 bits breaks the bound, as it should; of running products and of `CumSum` every step may be rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, lost, rounded
from actconform.tolerance.row_bounds import EXP_ULP, dot_factor
from actconform.tolerance.running_error import Bounded, sum_factor

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.onnx.evaluate.computation import Array
    from actconform.oracle.rounding import F64
    from actconform.types.dtypes import FloatFormat

# three roundings more: of squares and sizes before a sum, of a division or a product with the reciprocal after it
MORE = 3


class _Rows:
    """The axes that a reduction reduces, and sums along them in the shape of its output."""

    def __init__(self, context: BoundContext, x: Approximation, axes: Approximation | None, value: Array) -> None:
        stated = context.node.attributes.get("axes") if axes is None else axes.value
        chosen = [] if stated is None else [int(axis) % x.value.ndim for axis in stated]
        nothing = not chosen and bool(context.node.attributes.get("noop_with_empty_axes"))
        self.axes = tuple(chosen) if chosen or nothing else tuple(range(x.value.ndim))
        self.count = int(np.prod([x.value.shape[axis] for axis in self.axes], dtype=int))
        self._shape = value.shape

    def total(self, terms: F64) -> F64:
        return self._along(np.sum, terms)

    def largest(self, terms: F64) -> F64:
        """Return the largest of terms that are not negative, 0 of none."""
        return self._along(lambda array, axis: np.max(array, axis=axis, initial=0.0), terms)

    def _along(self, function: Callable[..., F64], terms: F64) -> F64:
        return np.asarray(function(terms, axis=self.axes)).reshape(self._shape)

    def spread_out(self, reduced: F64, like: Array) -> F64:
        """Return a reduced array so that it broadcasts over what it was reduced from."""
        shape = [1 if axis in self.axes else length for axis, length in enumerate(like.shape)]
        return reduced.reshape(shape)


@error_bound("ReduceMax", "ReduceMin", arithmetic=False)
def _extreme(context: BoundContext, x: Approximation, axes: Approximation | None = None) -> Approximation:
    (value,) = context.values((x, axes))
    if x.error is None:
        return Approximation(value)
    return Approximation(value, _Rows(context, x, axes, value).largest(errors(x)))


@error_bound("ReduceL1", "ReduceMean", "ReduceSum")
def _sum(context: BoundContext, x: Approximation, axes: Approximation | None = None) -> Approximation:
    (value,) = context.values((x, axes))
    rows = _Rows(context, x, axes, value)
    divisor = max(rows.count, 1) if context.node.op_type == "ReduceMean" else 1
    passed_on = None if x.error is None else rows.total(errors(x))
    if context.fmt is None:
        return Approximation(value, None if passed_on is None else np.ceil(passed_on / divisor))
    fmt = context.fmt
    error = rows.total(x.size) * sum_factor(rows.count + MORE, fmt)
    error += rows.count * lost(fmt)
    error = error if passed_on is None else error + passed_on
    return Approximation(value, error / divisor + lost(fmt))


@error_bound("ReduceSumSquare", "ReduceL2")
def _sum_of_squares(context: BoundContext, x: Approximation, axes: Approximation | None = None) -> Approximation:
    """Of a root the error of what it is taken of, and two roundings."""
    (value,) = context.values((x, axes))
    rows = _Rows(context, x, axes, value)
    if context.fmt is None:
        return Approximation(value, None if x.error is None else np.full(value.shape, np.inf))
    fmt = context.fmt
    total = rows.total(np.square(x.value))
    error = rows.total(np.square(x.size)) * sum_factor(rows.count + MORE, fmt) + 2.0 * rows.count * lost(fmt)
    if x.error is not None:
        error = error + rows.total((2.0 * np.abs(x.value) + errors(x)) * errors(x))
    if context.node.op_type == "ReduceSumSquare":
        return Approximation(value, error)
    # upwards it moves further only where it may be 0
    moved = np.maximum(value - np.sqrt(np.maximum(total - error, 0.0)), np.sqrt(total + error) - value)
    return Approximation(value, rounded(value, fmt, 2.0, moved))


@error_bound("ReduceProd")
def _product(context: BoundContext, x: Approximation, axes: Approximation | None = None) -> Approximation:
    """A rounding for each factor; anything where products on the way, in some order, leave the format's range."""
    (value,) = context.values((x, axes))
    rows = _Rows(context, x, axes, value)
    if context.fmt is None:
        return Approximation(value, None if x.error is None else np.full(value.shape, np.inf))
    logarithms = np.log2(x.size)
    return Approximation(value, _products(x, value, rows.total, rows.count, logarithms, context.fmt))


def _products(
    x: Approximation, value: F64, total: Callable[[F64], F64], factors: int, logarithms: F64, fmt: FloatFormat
) -> F64:
    """Return the error of products of all elements that `total` adds up, each of relative error e / |x|; of a certain 0 none."""
    high = total(np.maximum(logarithms, 0.0))
    low = total(np.where(np.isfinite(logarithms), np.minimum(logarithms, 0.0), 0.0))
    relative = np.full(np.shape(value), dot_factor(max(factors, 1), fmt.unit_roundoff))
    if x.error is not None:
        share = errors(x) / np.abs(x.value)
        relative = np.expm1(total(np.log1p(np.where(errors(x) == 0.0, 0.0, share))) + relative)
    error = rounded(value, fmt, 1.0, np.abs(value) * relative)
    # what has underflowed is made as much larger as the factors above 1 are
    error += np.where(low <= fmt.emin, np.abs(value) + lost(fmt) * np.exp2(high), 0.0)
    zero = x.value == 0.0
    error = np.where((high >= fmt.emax) | (total(1.0 * (zero & (errors(x) > 0.0))) > 0.0), np.inf, error)
    certainly_zero = total(1.0 * (zero & (errors(x) == 0.0))) > 0.0
    return np.where(certainly_zero & (high < fmt.emax), 0.0, error)


@error_bound("ReduceLogSum")
def _log_of_sum(context: BoundContext, x: Approximation, axes: Approximation | None = None) -> Approximation:
    (value,) = context.values((x, axes))
    rows, fmt = _Rows(context, x, axes, value), context.float_format
    error = rows.total(x.size) * sum_factor(rows.count, fmt) + rows.count * lost(fmt)
    error = error if x.error is None else error + rows.total(errors(x))
    return Approximation(value, Bounded(rows.total(x.value), error, fmt).log().error)


@error_bound("ReduceLogSumExp")
def _log_of_sum_of_exponentials(
    context: BoundContext, x: Approximation, axes: Approximation | None = None
) -> Approximation:
    """Of m + log sum exp(x - m), or without m. With weights p = exp(x - y) the sum is off by the mean of what its terms are.

    That is u (2 E + 2 |x - m| or |x|), and S u of the sum itself; the logarithm adds 2 E u of its size, y - m or y, and
    the last sum a rounding. An error of x moves y by no more than the largest.
    """
    (value,) = context.values((x, axes))
    rows, fmt = _Rows(context, x, axes, value), context.float_format
    if not rows.axes:
        return Approximation(value, rounded(value, fmt, 2.0 + 4.0 * EXP_ULP[fmt.bits], x.error))
    top = np.max(x.value, axis=rows.axes, keepdims=True, initial=-np.inf)
    weights = np.exp(x.value - rows.spread_out(value, x.value))
    unlikely = np.where(weights > 0.0, weights * (2.0 * np.abs(x.value - top) + np.abs(x.value)), 0.0)
    size = np.abs(value) + np.abs(top).reshape(value.shape)
    ulp = 2.0 * EXP_ULP[fmt.bits]
    error = sum_factor(rows.count, fmt) + fmt.unit_roundoff * (ulp + rows.total(unlikely) + (ulp + 1.0) * size)
    error = np.expm1(error) + lost(fmt)
    return Approximation(value, error if x.error is None else error + rows.largest(errors(x)))


@error_bound("CumSum")
def _running_sum(context: BoundContext, x: Approximation, axis: Approximation) -> Approximation:
    """At each place the sum of as many terms as the axis is long at most."""
    (value,) = context.values((x, axis))
    passed_on = None if x.error is None else context.compute([np.array(errors(x)), axis.value])[0]
    if context.fmt is None:
        return Approximation(value, passed_on)
    length = x.value.shape[int(np.asarray(axis.value).reshape(()))]
    (reach,) = context.compute([x.size, axis.value])
    error = reach * dot_factor(max(length, 1), context.fmt.unit_roundoff) + np.where(reach > 0.0, length, 0) * lost(
        context.fmt
    )
    return Approximation(value, error if passed_on is None else error + passed_on)


@error_bound("CumProd")
def _running_product(context: BoundContext, x: Approximation, axis: Approximation) -> Approximation:
    """At each place the product of as many factors as the axis is long at most."""
    (value,) = context.values((x, axis))
    if context.fmt is None:
        return Approximation(value, None if x.error is None else np.full(value.shape, np.inf))
    place, attributes = int(np.asarray(axis.value).reshape(())), context.node.attributes

    def total(terms: F64) -> F64:
        turned = np.flip(terms, place) if attributes["reverse"] else terms
        sums = np.cumsum(turned, axis=place)
        sums = sums - turned if attributes["exclusive"] else sums
        return np.flip(sums, place) if attributes["reverse"] else sums

    logarithms = np.log2(x.size)
    logarithms = np.where(np.isfinite(logarithms), logarithms, 0.0)
    return Approximation(value, _products(x, value, total, x.value.shape[place], logarithms, context.fmt))
