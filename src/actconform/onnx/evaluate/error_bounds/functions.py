"""Error bounds of elementwise functions: 8 u max(|y|, s), as of the kernels; of exp and log in ULP; of softmax along rows.

s is 1, or |x| of functions of the form x g(x). Functions whose branch for positive numbers is a line are exact there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.catalog.kernels import KERNELS
from actconform.onnx.evaluate.error_bounds.blocks import in_blocks, in_rows
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import as_bounded, errors, lost, moved_by_ends, rounded
from actconform.tolerance.layer_bounds import softmax_of
from actconform.tolerance.limits import SCALED_LIMITS
from actconform.tolerance.row_bounds import EXP_ULP, row_bound
from actconform.tolerance.running_error import Bounded

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
    unit, step = LIMIT * fmt.unit_roundoff, lost(fmt)
    return in_blocks(lambda v: np.maximum(np.abs(v), scale) * unit + step, value)


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
    u, more = fmt.unit_roundoff, 2.0 * EXP_ULP[fmt.bits] + 2.0
    error = in_blocks(lambda v: np.cosh(v) * np.expm1(u * (more + np.abs(v))) + lost(fmt), x.value)
    return Approximation(value, _plus(error, _by_ends(context, x, value)))


@error_bound(*SLOPES)
def _gated(context: BoundContext, x: Approximation) -> Approximation:
    """Of x g(x), which is no larger than x."""
    (value,) = context.values((x,))
    fmt, op_type = context.float_format, context.node.op_type
    unit, step = LIMIT * fmt.unit_roundoff, lost(fmt)
    error = in_blocks(lambda v: np.abs(v) * unit + step, x.value)
    if op_type == "HardSwish":  # surely 0 from -3 down
        error[x.value + errors(x) < -3.0 * (1.0 + 4.0 * fmt.unit_roundoff)] = step
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
    u, more, step = fmt.unit_roundoff, 2.0 * EXP_ULP[fmt.bits], lost(fmt)

    def error_of(argument: F64, power: F64) -> F64:
        relative = (np.abs(argument) + more) * u
        # no less than expm1 of it, below 1.79
        return (relative + relative * relative) * power + step

    return Approximation(value, in_blocks(error_of, x.value, value))


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
    if x.error is None:
        error = in_rows(
            lambda scores, y: row_bound(KERNELS["softmax"], fmt, {"x": scores}, None, {"y": y})["y"],
            _rows(context, x.value),
            _rows(context, value),
        )
    else:
        error = in_rows(
            lambda scores, e: softmax_of(Bounded(scores, e, fmt)).error,
            _rows(context, x.value),
            _rows(context, errors(x)),
        )
    return Approximation(value, _from_rows(context, error, value.shape))


@error_bound("LogSoftmax")
def _log_softmax(context: BoundContext, x: Approximation) -> Approximation:
    (value,) = context.values((x,))
    parts = [x.value, value] if x.error is None else [x.value, value, errors(x)]
    error = in_rows(
        lambda scores, y, e=None: log_softmax_errors(Approximation(scores, e), y, context.float_format),
        *(_rows(context, part) for part in parts),
    )
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
    """Return the array as a matrix, with what Softmax adds up in a row."""
    axis = context.node.attributes["axis"] % max(array.ndim, 1)
    if context.node.opset >= FLATTENING:
        turned = np.moveaxis(array, axis, -1)
        return turned.reshape(-1, turned.shape[-1])
    return array.reshape(int(np.prod(array.shape[:axis], dtype=int)), -1)


def _from_rows(context: BoundContext, rows: F64, shape: Sequence[int]) -> F64:
    if context.node.opset >= FLATTENING:
        axis = context.node.attributes["axis"] % len(shape)
        turned = [*shape[:axis], *shape[axis + 1 :], shape[axis]]
        return np.moveaxis(rows.reshape(turned), -1, axis)
    return rows.reshape(shape)
