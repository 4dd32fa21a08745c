"""Error bounds of elementwise arithmetic: sums, products, quotients, powers, and functions made of straight pieces.

Each operation is correctly rounded, u |y|, but a quotient, a root and a reciprocal, 2 u |y| (a product with the reciprocal),
and a power, 4 u |y|. What only chooses among its inputs is exact. Integers are exact, and wrap.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from actconform.onnx.evaluate.error_bounds.blocks import in_blocks
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, largest_error, lost, moved_by_ends, rounded
from actconform.oracle.rounding import F64, round_to
from actconform.tolerance.row_bounds import dot_factor

EXACT_INTEGERS = 2.0**53  # below it float64, in which powers of integers are computed, holds every integer


def _total(*parts: F64 | None) -> F64 | None:
    """Return the sum of errors; None where there is none."""
    present = [part for part in parts if part is not None]
    return reduce(np.add, present) if present else None


@error_bound("Add", "Sub")
def _add(context: BoundContext, a: Approximation, b: Approximation) -> Approximation:
    (value,) = context.values((a, b))
    passed_on = _total(a.error, b.error)
    if context.fmt is None:
        return Approximation(value, passed_on)
    return Approximation(value, rounded(value, context.fmt, passed_on=passed_on))


@error_bound("Sum", "Mean")
def _sum(context: BoundContext, *inputs: Approximation) -> Approximation:
    """Of n terms n - 1 additions in any order, each a rounding of their sizes; a mean divides too."""
    (value,) = context.values(inputs)
    fmt, n = context.float_format, len(inputs)
    mean = context.node.op_type == "Mean"
    passed_on = _total(*(each.error for each in inputs))
    if n <= 2:
        passed_on = passed_on / n if mean and passed_on is not None else passed_on
        return Approximation(value, rounded(value, fmt, n + 1.0 if mean else n - 1.0, passed_on))
    size = reduce(np.add, (each.size for each in inputs))
    error = dot_factor(n + 1 if mean else n - 1, fmt.unit_roundoff) * size + n * lost(fmt)
    error = error if passed_on is None else error + passed_on
    return Approximation(value, error / n if mean else error)


@error_bound("Mul")
def _multiply(context: BoundContext, a: Approximation, b: Approximation) -> Approximation:
    (value,) = context.values((a, b))
    passed_on = _total(
        None if a.error is None else a.error * b.size,
        None if b.error is None else np.abs(a.value) * b.error,
    )
    if context.fmt is None:
        return Approximation(value, passed_on)
    return Approximation(value, rounded(value, context.fmt, passed_on=passed_on))


@error_bound("Div")
def _divide(context: BoundContext, a: Approximation, b: Approximation) -> Approximation:
    """Infinite where the divisor may be zero; of integers also where they are in doubt at all."""
    (value,) = context.values((a, b))
    if context.fmt is None:
        doubtful = (errors(a) > 0) | (errors(b) > 0) | (b.value == 0)
        return Approximation(value, np.where(doubtful, np.inf, 0.0) if doubtful.any() else None)
    passed_on = None
    if a.error is not None or b.error is not None:
        certain = np.abs(b.value) - errors(b)
        passed_on = np.where(certain > 0.0, (errors(a) + np.abs(value) * errors(b)) / certain, np.inf)
        passed_on = np.where((errors(a) == 0.0) & (errors(b) == 0.0), 0.0, passed_on)  # x / 0 is certain too
    return Approximation(value, rounded(value, context.fmt, 2.0, passed_on))


@error_bound("Reciprocal")
def _reciprocal(context: BoundContext, x: Approximation) -> Approximation:
    (value,) = context.values((x,))
    passed_on = None
    if x.error is not None:
        certain = np.abs(x.value) - x.error
        passed_on = np.where(certain > 0.0, np.abs(value) * x.error / certain, np.where(x.error == 0.0, 0.0, np.inf))
    return Approximation(value, rounded(value, context.float_format, 2.0, passed_on))


@error_bound("Sqrt")
def _root(context: BoundContext, x: Approximation) -> Approximation:
    """Anything, as NaN, where the number may be negative."""
    (value,) = context.values((x,))
    return Approximation(value, rounded(value, context.float_format, 2.0, moved_by_ends(np.sqrt, x, value)))


@error_bound("Pow")
def _power(context: BoundContext, x: Approximation, exponent: Approximation) -> Approximation:
    """The base's error moves |x|^p the most at an end of where x may be, and so does the exponent's.

    At a pole, x about 0 and p < 0, anything; as where the sign of x is in doubt and x^p is not real. Integers are
    exact as far as float64, in which implementations compute them, tells them apart.
    """
    (value,) = context.values((x, exponent))
    if context.fmt is None:
        size = np.abs(np.power(np.asarray(x.value, np.float64), np.asarray(exponent.value, np.float64)))
        exact = (size < EXACT_INTEGERS) & (errors(x) == 0) & (errors(exponent) == 0)
        return Approximation(value, None if exact.all() else np.where(exact, 0.0, np.inf))
    passed_on = None
    if x.error is not None or exponent.error is not None:
        ends = [
            np.power(x.value + side * errors(x), exponent.value + other_side * errors(exponent))
            for side in (-1.0, 1.0)
            for other_side in (-1.0, 1.0)
        ]
        passed_on = reduce(np.maximum, (np.abs(end - value) for end in ends))
        about_zero = (np.abs(x.value) <= errors(x)) & (errors(x) > 0.0)
        passed_on = np.where(about_zero & (exponent.value - errors(exponent) < 0.0), np.inf, passed_on)
    return Approximation(value, rounded(value, context.fmt, 4.0, passed_on))


@error_bound("Neg", "Abs", arithmetic=False)
def _change_sign(context: BoundContext, x: Approximation) -> Approximation:
    return Approximation(context.values((x,))[0], x.error)


@error_bound("Floor", "Ceil", "Round", "Sign", arithmetic=False)
def _step(context: BoundContext, x: Approximation) -> Approximation:
    (value,) = context.values((x,))
    return Approximation(value, moved_by_ends(lambda end: context.compute([end])[0], x, value))


@error_bound("Max", "Min", arithmetic=False)
def _choose(context: BoundContext, *inputs: Approximation) -> Approximation:
    return Approximation(context.values(inputs)[0], largest_error(inputs))


@error_bound("Relu", arithmetic=False)
def _relu(context: BoundContext, x: Approximation) -> Approximation:
    (value,) = context.values((x,))
    return Approximation(value, moved_by_ends(lambda end: np.maximum(end, 0), x, value))


@error_bound("Clip", arithmetic=False)
def _clip(context: BoundContext, x: Approximation, *limits: Approximation | None) -> Approximation:
    """Exact, but for limits that 16 bits do not hold, which were attributes before opset 11."""
    (value,) = context.values((x, *limits))
    present = [limit for limit in limits if limit is not None]
    passed_on = moved_by_ends(
        lambda end: context.compute([end, *(each and each.value for each in limits)])[0], x, value
    )
    passed_on = _total(passed_on, largest_error(present))
    attributes = [context.node.attributes[name] for name in ("min", "max") if name in context.node.attributes]
    if context.fmt is not None and attributes and not present:
        off = [np.where(value == limit, _representation_error(limit, context), 0.0) for limit in attributes]
        passed_on = _total(passed_on, *(each for each in off if each.any()))
    return Approximation(value, passed_on)


def _representation_error(constant: float, context: BoundContext) -> float:
    """Return how far an attribute, a float32 number, may be from what the format holds of it."""
    fmt = context.float_format
    if fmt.bits >= 32 or abs(constant) >= fmt.overflow:
        return 0.0
    return float(abs(round_to(np.asarray(constant), fmt) - constant))


@error_bound("LeakyRelu", "PRelu")
def _leaky(context: BoundContext, x: Approximation, slope: Approximation | None = None) -> Approximation:
    """Exact from 0 up; below a product, whose attribute 16 bits round too."""
    value = context.values((x,) if slope is None else (x, slope))[0]
    if context.fmt is None:
        return Approximation(value, None if x.error is None else np.full(value.shape, np.inf))
    alpha = np.asarray(context.node.attributes["alpha"]) if slope is None else slope.value
    error = np.where(x.value >= 0.0, 0.0, rounded(value, context.fmt, 2.0))
    if x.error is not None:
        error = error + x.error * np.maximum(1.0, np.abs(alpha))
    if slope is not None and slope.error is not None:
        error = error + slope.error * np.maximum(errors(x) - x.value, 0.0)
    return Approximation(value, error)


@error_bound("ThresholdedRelu")
def _thresholded(context: BoundContext, x: Approximation) -> Approximation:
    """Exact, unless the number may lie on either side of the threshold."""
    (value,) = context.values((x,))
    alpha = context.node.attributes["alpha"]
    doubt = np.abs(x.value - alpha) <= errors(x) + _representation_error(alpha, context)
    doubt &= (errors(x) > 0.0) | (_representation_error(alpha, context) > 0.0)
    if not doubt.any():
        return Approximation(value, x.error if x.error is None else np.where(value == 0.0, 0.0, x.error))
    return Approximation(value, np.where(doubt, x.size, np.where(value == 0.0, 0.0, errors(x))))


@error_bound("Shrink")
def _shrink(context: BoundContext, x: Approximation) -> Approximation:
    """Exactly 0 between the thresholds; a sum beyond, whose attribute 16 bits round; either where it is in doubt."""
    (value,) = context.values((x,))
    if context.fmt is None:
        return Approximation(value, None if x.error is None else np.full(value.shape, np.inf))
    threshold, bias = context.node.attributes["lambd"], context.node.attributes["bias"]
    off = _representation_error(threshold, context)
    outside = np.abs(x.value) > threshold
    error = np.where(outside, rounded(value, context.fmt, 1.0, errors(x) + _representation_error(bias, context)), 0.0)
    doubt = np.abs(np.abs(x.value) - threshold) <= errors(x) + off
    doubt &= errors(x) + off > 0.0
    return Approximation(value, np.where(doubt, x.size + abs(bias) * (1.0 + context.fmt.unit_roundoff), error))


@error_bound("HardSigmoid")
def _hard_sigmoid(context: BoundContext, x: Approximation) -> Approximation:
    """Of alpha x + beta three roundings of its terms; exact where that lies beyond 0 or 1."""
    (value,) = context.values((x,))
    fmt, alpha, beta = context.float_format, context.node.attributes["alpha"], context.node.attributes["beta"]
    unit, step = 3.0 * fmt.unit_roundoff, lost(fmt)

    def error_of(v: F64, e: F64) -> F64:
        error = (np.abs(alpha * v) + abs(beta)) * unit + (step + (1.0 + unit) * abs(alpha) * e)
        line = alpha * v + beta
        return np.where((line > -error) & (line < 1.0 + error), error, 0.0)

    passed_on = np.zeros(()) if x.error is None else np.asarray(x.error)
    return Approximation(value, in_blocks(error_of, x.value, passed_on))


@error_bound("Mod", arithmetic=False)
def _modulo(context: BoundContext, x: Approximation, divisor: Approximation) -> Approximation:
    """Of integers exact. Of floats, with q = x / y truncated, x - q y, three roundings of q y, or exact as C's fmod is.

    Where q may be another integer anything up to y more; exactly x where q is surely 0.
    """
    (value,) = context.values((x, divisor))
    x_error, divisor_error = errors(x), errors(divisor)
    if context.fmt is None:
        doubtful = (x_error > 0.0) | (divisor_error > 0.0) | (divisor.value == 0)
        return Approximation(value, np.where(doubtful, np.inf, 0.0) if doubtful.any() else None)
    ratio = x.value / divisor.value
    certain = np.abs(divisor.value) - divisor_error
    unit = 3.0 * context.fmt.unit_roundoff
    off = (x_error + np.abs(ratio) * divisor_error) / certain + unit * np.abs(ratio)
    quotient = np.abs(np.trunc(ratio))
    sure = np.trunc(np.abs(ratio) + off) == np.trunc(np.abs(ratio) - off)
    passed_on = x_error + quotient * divisor_error
    error = passed_on + np.where(quotient > 0.0, unit * np.abs(quotient * divisor.value) + lost(context.fmt), 0.0)
    error = np.where(sure, error, error + np.abs(divisor.value) + divisor_error)
    surely_finite = (certain > 0.0) | ((x_error == 0.0) & (divisor_error == 0.0))
    return Approximation(value, np.where(surely_finite, error, np.inf))
