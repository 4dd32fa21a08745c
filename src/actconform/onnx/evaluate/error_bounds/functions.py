"""Error bounds of elementwise functions: 8 u max(|y|, s), as of the kernels; of exp and log in ULP; of softmax along rows.

s is 1, or |x| of functions of the form x g(x). Functions whose branch for positive numbers is a line are exact there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.catalog.kernels import KERNELS
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import as_bounded, errors, lost, moved_by_ends, rounded
from actconform.tolerance.layer_bounds import softmax_of
from actconform.tolerance.limits import SCALED_LIMITS
from actconform.tolerance.row_bounds import EXP_ULP, row_bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.evaluate.computation import Array
    from actconform.oracle.rounding import F64
    from actconform.types.dtypes import FloatFormat

LIMIT = SCALED_LIMITS["value", 32]

# the steepest slopes, of functions that are not monotone
SLOPES = {"Gelu": 1.13, "HardSwish": 1.5, "Mish": 1.09, "Swish": 1.1}


def _plus(error: F64, passed_on: F64 | None) -> F64:
    return error if passed_on is None else error + passed_on


def _by_ends(context: BoundContext, x: Approximation, value: Array) -> F64 | None:
    return moved_by_ends(lambda end: context.compute([end])[0], x, value)


@error_bound("Sigmoid", "Tanh", "Erf")
def _saturating(context: BoundContext, x: Approximation) -> Approximation:
    """At most 1 in size."""
    (value,) = context.values((x,))
    fmt = context.float_format
    return Approximation(value, _plus(np.asarray(LIMIT * fmt.unit_roundoff + lost(fmt)), _by_ends(context, x, value)))


@error_bound("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Softplus", "Softsign")
def _monotone(context: BoundContext, x: Approximation) -> Approximation:
    """Anything, as NaN, where the number may lie outside of the domain."""
    (value,) = context.values((x,))
    return Approximation(value, _plus(_of_scale(value, 1.0, context.float_format), _by_ends(context, x, value)))


def _of_scale(value: Array, scale: float, fmt: FloatFormat) -> F64:
    error: F64 = np.abs(value)
    np.maximum(error, scale, out=error)
    error *= LIMIT * fmt.unit_roundoff
    error += lost(fmt)
    return error


@error_bound("Cos", "Sin")
def _wave(context: BoundContext, x: Approximation) -> Approximation:
    """Of slope 1 at most; large arguments are taken to be reduced rightly."""
    (value,) = context.values((x,))
    fmt = context.float_format
    error = np.asarray(LIMIT * fmt.unit_roundoff + lost(fmt))
    return Approximation(value, _plus(error, None if x.error is None else np.minimum(x.error, 2.0)))


@error_bound("Tan")
def _tangent(context: BoundContext, x: Approximation) -> Approximation:
    """Anything where a pole is within the error of x."""
    (value,) = context.values((x,))
    passed_on = _by_ends(context, x, value)
    if passed_on is not None:
        low, high = (np.floor((x.value + side * errors(x)) / np.pi + 0.5) for side in (-1.0, 1.0))
        passed_on = np.where(low == high, passed_on, np.inf)
    return Approximation(value, _plus(_of_scale(value, 1.0, context.float_format), passed_on))


@error_bound("Cosh", "Sinh")
def _hyperbolic(context: BoundContext, x: Approximation) -> Approximation:
    """Half a sum of exp(x) and exp(-x), each off as `Exp` is, of size cosh(x); two roundings more."""
    (value,) = context.values((x,))
    fmt = context.float_format
    relative = fmt.unit_roundoff * (2.0 * EXP_ULP[fmt.bits] + 2.0 + np.abs(x.value))
    error = np.cosh(x.value) * np.expm1(relative) + lost(fmt)
    return Approximation(value, _plus(error, _by_ends(context, x, value)))


@error_bound(*SLOPES)
def _gated(context: BoundContext, x: Approximation) -> Approximation:
    """Of x g(x), which is no larger than x."""
    (value,) = context.values((x,))
    fmt, op_type = context.float_format, context.node.op_type
    error: F64 = np.abs(x.value)
    if op_type == "HardSwish":  # surely 0 from -3 down
        error = np.where(x.value + errors(x) > -3.0 * (1.0 + 4.0 * fmt.unit_roundoff), error, 0.0)
    error *= LIMIT * fmt.unit_roundoff
    error += lost(fmt)
    return Approximation(value, _plus(error, None if x.error is None else SLOPES[op_type] * x.error))


@error_bound("Celu", "Elu", "Selu")
def _exponential_unit(context: BoundContext, x: Approximation) -> Approximation:
    """Exact above 0, but for the factor of Selu; below of size alpha gamma, and 1 in exp(x) - 1."""
    (value,) = context.values((x,))
    fmt, attributes = context.float_format, context.node.attributes
    gamma = abs(attributes.get("gamma", 1.0))
    size = gamma * max(1.0, abs(attributes["alpha"]))
    below = LIMIT * fmt.unit_roundoff * size + lost(fmt)
    above = rounded(value, fmt, 3.0) if context.node.op_type == "Selu" else 0.0
    error = np.where(x.value > 0.0, above, below)
    slope = size if context.node.op_type != "Celu" else 1.0
    return Approximation(value, _plus(error, None if x.error is None else slope * x.error))


@error_bound("Exp")
def _exponential(context: BoundContext, x: Approximation) -> Approximation:
    """Off by EXP_ULP, and by a rounding of the argument in the reduction of its range, as `Bounded.exp` is."""
    (value,) = context.values((x,))
    fmt = context.float_format
    if x.error is not None:
        return Approximation(value, as_bounded(x, fmt).exp().error)
    relative = np.abs(x.value)
    relative += 2.0 * EXP_ULP[fmt.bits]
    relative *= fmt.unit_roundoff
    relative += relative * relative  # no less than expm1 of it, below 1.79
    relative *= value
    relative += lost(fmt)
    return Approximation(value, relative)


@error_bound("Log")
def _logarithm(context: BoundContext, x: Approximation) -> Approximation:
    """Anything where the number may be 0."""
    (value,) = context.values((x,))
    fmt = context.float_format
    if x.error is not None:
        return Approximation(value, as_bounded(x, fmt).log().error)
    return Approximation(value, rounded(value, fmt, 2.0 * EXP_ULP[fmt.bits]))


@error_bound("Softmax")
def _softmax(context: BoundContext, x: Approximation) -> Approximation:
    (value,) = context.values((x,))
    fmt = context.float_format
    scores, probabilities = (_rows(context, part) for part in (x.value, value))
    if x.error is None:
        error = row_bound(KERNELS["softmax"], fmt, {"x": scores}, None, {"y": probabilities})["y"]
    else:
        error = softmax_of(as_bounded(Approximation(scores, _rows(context, errors(x))), fmt)).error
    return Approximation(value, _from_rows(context, error, value.shape))


@error_bound("LogSoftmax")
def _log_softmax(context: BoundContext, x: Approximation) -> Approximation:
    (value,) = context.values((x,))
    rows = Approximation(_rows(context, x.value), None if x.error is None else _rows(context, errors(x)))
    error = log_softmax_errors(rows, _rows(context, value), context.float_format)
    return Approximation(value, _from_rows(context, error, value.shape))


def log_softmax_errors(x: Approximation, value: F64, fmt: FloatFormat) -> F64:
    """Return the errors of `value`, the log-probabilities along the last axis; errors e of x pass on as e_i + log sum p_j exp(e_j)."""
    error = row_bound(KERNELS["log-softmax"], fmt, {"x": x.value}, None, {"y": value})["y"]
    if x.error is None:
        return error
    passed_on: F64 = x.error + np.log(np.sum(np.exp(value + x.error), axis=-1, keepdims=True))
    return error + passed_on


FLATTENING = 13  # the first opset of which Softmax does not take all axes from `axis` on for one


def _rows(context: BoundContext, array: F64) -> F64:
    """Return the array with what Softmax adds up along the last axis."""
    axis = context.node.attributes["axis"] % array.ndim
    if context.node.opset >= FLATTENING:
        return np.moveaxis(array, axis, -1)
    return array.reshape(int(np.prod(array.shape[:axis], dtype=int)), -1)


def _from_rows(context: BoundContext, rows: F64, shape: Sequence[int]) -> F64:
    if context.node.opset >= FLATTENING:
        return np.moveaxis(rows, -1, context.node.attributes["axis"])
    return rows.reshape(shape)
