"""Error bounds of normalizations: (x - mean) s + beta with s = gamma / sqrt(variance + epsilon), or folded, x s + (beta - mean s).

Running error of the first form, and beside it the roundings of the terms of the second, which may cancel. A variance may be
the mean of squared differences, or the mean square less the squared mean, and is taken to come out not negative, as
implementations see to it that it does or live on epsilon; one that is given is what it is. Means and variances are small arrays; the formulas for whole
tensors are written out, first-order, and enlarged by 8 u for what is of higher order.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.onnx.evaluate.error_bounds.blocks import in_blocks, in_rows
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import as_bounded, errors, lost, rounded
from actconform.tolerance.running_error import Bounded, sum_factor

if TYPE_CHECKING:
    from actconform.onnx.evaluate.computation import Array
    from actconform.oracle.rounding import F64
    from actconform.types.dtypes import FloatFormat


class _Moments(NamedTuple):
    """Of each row: where it is centred, 0 without centring, the error of that, and the variance about it."""

    mean: F64
    mean_error: F64
    variance: Bounded


def _moments(x: Approximation, axes: tuple[int, ...], fmt: FloatFormat, *, centring: bool = True) -> _Moments:
    """Return the moments along `axes`, kept at length 1, by whichever formula errs most."""
    row_axes = [axis for axis in range(x.value.ndim) if axis not in axes]
    shape = [1 if axis in axes else length for axis, length in enumerate(x.value.shape)]

    def rows(array: F64) -> F64:
        turned = array.transpose(*row_axes, *axes)
        return turned.reshape(int(np.prod(turned.shape[: len(row_axes)], dtype=int)), -1)

    matrix, x_error = rows(x.value), None if x.error is None else rows(errors(x))
    k, u, step = matrix.shape[1], fmt.unit_roundoff, lost(fmt)
    columns = in_rows(lambda v: _statistics(v, centring=centring), matrix, columns=3)
    mean, mean_size, variance = (column.reshape(shape) for column in columns.T)
    factor = sum_factor(k, fmt) + 3.0 * u
    mean_square = variance + np.square(mean)
    mean_error = factor * mean_size + 2.0 * step if centring else np.zeros_like(mean)
    passed_on = np.zeros_like(mean)
    if x_error is not None:
        centred = np.abs(matrix - mean.reshape(-1, 1))
        near = np.mean((2.0 * centred + x_error) * x_error, axis=1).reshape(shape)
        mean_passed_on = np.mean(x_error, axis=1).reshape(shape)
        mean_error += (1.0 + factor) * mean_passed_on if centring else 0.0
        passed_on = (1.0 + factor) * (near + 2.0 * np.abs(mean) * mean_passed_on)
    around = (factor + 3.0 * u) * variance + 2.0 * np.sqrt(variance) * mean_error
    by_squares = (factor + 2.0 * u) * mean_square + 2.0 * np.abs(mean) * mean_error
    error = np.maximum(around, by_squares) + np.square(mean_error) + passed_on + 3.0 * step
    return _Moments(mean, mean_error, Bounded(variance, error, fmt))


def _statistics(rows: F64, *, centring: bool) -> F64:
    """Return of each row the mean, or 0, the mean magnitude, and the mean square about the first."""
    mean = np.mean(rows, axis=1) if centring else np.zeros(len(rows))
    centred = rows - mean[:, None]
    return np.stack([mean, np.mean(np.abs(rows), axis=1), np.mean(np.square(centred), axis=1)], axis=1)


def _normalized_error(
    x: Approximation,
    moments: _Moments,
    inverse: Bounded,
    parameters: tuple[Approximation, Approximation | None],
    y: Array,
    fmt: FloatFormat,
) -> F64:
    """Return the error of (x - mean) inverse scale + bias, all of shapes that broadcast to that of x."""
    u, step, (scale, bias) = fmt.unit_roundoff, lost(fmt), parameters
    certain, largest = inverse.value, inverse.value + inverse.error
    of_centred, of_folded = inverse.error + 3.0 * u * certain, u * certain
    of_row = 2.0 * u * np.abs(moments.mean) * certain + largest * (moments.mean_error + step) + step
    scale_error, x_error = (np.zeros(()) if each.error is None else np.asarray(each.error) for each in (scale, x))
    of_bias = np.zeros(()) if bias is None else u * np.abs(bias.value) + errors(bias)

    def error_of(v: F64, y: F64, e: F64, mean: F64, *rest: F64) -> F64:
        of_centred, of_folded, of_row, largest, certain, size, scale_error, of_bias = rest
        centred = np.abs(v - mean)
        error = (centred * of_centred + np.abs(v) * of_folded + (of_row + largest * e)) * size
        error += centred * (certain * scale_error) + np.abs(y) * u + of_bias
        return error * (1.0 + 8.0 * u) + 2.0 * step

    by_row = (moments.mean, of_centred, of_folded, of_row, largest, certain)
    return in_blocks(error_of, x.value, y, x_error, *by_row, scale.size, scale_error, of_bias)


@error_bound("BatchNormalization")
def _batch_normalization(
    context: BoundContext, x: Approximation, *parameters: Approximation
) -> tuple[Approximation, ...]:
    """By channel; with the moments that are given, or in training with the batch's, where the running ones move towards them."""
    fmt, epsilon, momentum = (
        context.float_format,
        context.node.attributes["epsilon"],
        context.node.attributes["momentum"],
    )
    values = context.values((x, *parameters))
    scale, bias, *running = (_along(parameter, x) for parameter in parameters)
    if not context.node.attributes.get("training_mode"):
        mean, variance = running
        moments = _Moments(mean.value, errors(mean), as_bounded(variance, fmt))
        inverse = _inverse_root(moments, epsilon)
        may_be_negative = variance.value + epsilon <= errors(variance)
        inverse = Bounded(inverse.value, np.where(may_be_negative, np.inf, inverse.error), fmt)
        error = _normalized_error(x, moments, inverse, (scale, bias), values[0], fmt)
        return (Approximation(values[0], error),)
    moments = _moments(x, (0, *range(2, x.value.ndim)), fmt)
    error = _normalized_error(x, moments, _inverse_root(moments, epsilon), (scale, bias), values[0], fmt)
    batch = (Bounded(moments.mean, moments.mean_error, fmt), moments.variance)
    moved = [
        (as_bounded(old, fmt) * momentum + new * (1.0 - momentum)).error.reshape(value.shape)
        for old, new, value in zip(running, batch, values[1:], strict=True)
    ]
    return tuple(Approximation(*pair) for pair in zip(values, (error, *moved), strict=True))


@error_bound("InstanceNormalization", "GroupNormalization")
def _grouped(context: BoundContext, x: Approximation, *parameters: Approximation) -> Approximation:
    """Of each channel, or group of channels, of each sample."""
    (value,) = context.values((x, *parameters))
    fmt, shape = context.float_format, x.value.shape
    groups = int(context.node.attributes.get("num_groups") or shape[1])
    by_group = _moments(x.moved(lambda v: v.reshape(shape[0], groups, -1)), (2,), fmt)

    def by_channel(array: F64) -> F64:
        return np.repeat(array, shape[1] // groups, axis=1).reshape(*shape[:2], *[1] * (len(shape) - 2))

    moments = _Moments(by_channel(by_group.mean), by_channel(by_group.mean_error), by_group.variance.moved(by_channel))
    # scale and bias have one number for each group before opset 21
    scale, bias = (_along(parameter.moved(lambda v: np.repeat(v, shape[1] // len(v))), x) for parameter in parameters)
    inverse = _inverse_root(moments, context.node.attributes["epsilon"])
    return Approximation(value, _normalized_error(x, moments, inverse, (scale, bias), value, fmt))


@error_bound("LayerNormalization", "RMSNormalization")
def _layer_normalization(
    context: BoundContext, x: Approximation, scale: Approximation, bias: Approximation | None = None
) -> tuple[Approximation, ...]:
    """Along the axes from `axis` on; the moments that it returns too err as they do on the way."""
    centring = context.node.op_type == "LayerNormalization"
    values = context.values((x, scale, bias) if centring else (x, scale))
    fmt, axis = context.float_format, context.node.attributes["axis"] % x.value.ndim
    moments = _moments(x, tuple(range(axis, x.value.ndim)), fmt, centring=centring)
    inverse = _inverse_root(moments, context.node.attributes["epsilon"])
    error = _normalized_error(x, moments, inverse, (scale, bias), values[0], fmt)
    return tuple(Approximation(*pair) for pair in zip(values, (error, moments.mean_error, inverse.error), strict=False))


@error_bound("MeanVarianceNormalization")
def _mean_variance_normalization(context: BoundContext, x: Approximation) -> Approximation:
    """Of 1 / (sqrt(variance) + 1e-9): a root, a sum and a quotient, 5 u."""
    (value,) = context.values((x,))
    fmt = context.float_format
    moments = _moments(x, tuple(axis % x.value.ndim for axis in context.node.attributes["axes"]), fmt)
    variance = moments.variance
    certain = 1.0 / (np.sqrt(variance.value) + 1e-9)
    largest = 1.0 / (np.sqrt(np.maximum(variance.value - variance.error, 0.0)) + 1e-9)
    inverse = Bounded(certain, largest - certain + 5.0 * fmt.unit_roundoff * largest, fmt)
    scale = Approximation(np.ones(()))
    return Approximation(value, _normalized_error(x, moments, inverse, (scale, None), value, fmt))


@error_bound("LpNormalization")
def _lp_normalization(context: BoundContext, x: Approximation) -> Approximation:
    """Of x / |x|: the sum's error once, halved by a root, and three roundings; all zero without error where the norm is."""
    (value,) = context.values((x,))
    fmt, axis, p = context.float_format, context.node.attributes["axis"], context.node.attributes["p"]
    u, k = fmt.unit_roundoff, x.value.shape[axis]
    norm = np.sum(np.abs(x.value) ** p, axis=axis, keepdims=True) ** (1.0 / p)
    norm_error = norm * ((sum_factor(k, fmt) + 2.0 * u) / p + 2.0 * u) + (k * lost(fmt)) ** (1.0 / p)
    if x.error is not None:
        norm_error = norm_error + np.sum(errors(x) ** p, axis=axis, keepdims=True) ** (1.0 / p)
    certain = norm - norm_error
    error = np.where(certain > 0.0, (errors(x) + np.abs(value) * norm_error) / certain, np.inf)
    surely_zero = (norm == 0.0) & (np.sum(errors(x), axis=axis, keepdims=True) == 0.0)
    return Approximation(value, np.where(surely_zero, 0.0, rounded(value, fmt, 2.0, error)))


@error_bound("LRN")
def _local_response_normalization(context: BoundContext, x: Approximation) -> Approximation:
    """Of x t^-beta, t = bias + alpha / size times a sum of squares: beta times the relative error of t, that of a power, and a product's.

    The power may be exp(-beta log t), with a rounding of its argument. An error of x moves t by the errors of all squares.
    """
    (value,) = context.values((x,))
    fmt, attributes = context.float_format, context.node.attributes
    alpha, beta, bias, size = (attributes[name] for name in ("alpha", "beta", "bias", "size"))
    u, furthest = fmt.unit_roundoff, max(x.value.shape[1] - 1, 0)
    before, after = min((size - 1) // 2, furthest), min(size // 2, furthest)

    def around(terms: F64) -> F64:
        padded = np.pad(terms, [(0, 0), (before, after), *[(0, 0)] * (terms.ndim - 2)])
        return reduce(np.add, (padded[:, i : i + terms.shape[1]] for i in range(before + 1 + after)))

    terms = abs(alpha) / size * around(np.square(x.value))
    base = bias + alpha / size * around(np.square(x.value))
    off = terms * (sum_factor(before + 1 + after, fmt) + 5.0 * u) + 2.0 * u * (np.abs(base) + abs(bias))
    if x.error is not None:
        off += abs(alpha) / size * around(2.0 * np.abs(x.value) * errors(x) + np.square(errors(x)))
    share = np.where(off < np.abs(base), -np.log1p(-np.minimum(off / np.abs(base), 1.0)), np.inf)
    relative = np.expm1(abs(beta) * (share + u * np.abs(np.log(base))) + 9.0 * u)
    error = np.abs(value) * relative
    if x.error is not None:
        error += errors(x) * np.abs(base) ** -beta * (1.0 + relative)
    return Approximation(value, rounded(value, fmt, 1.0, error))


def _inverse_root(moments: _Moments, epsilon: float) -> Bounded:
    return (moments.variance + epsilon).inverse_root(least=epsilon)


def _along(parameter: Approximation, x: Approximation) -> Approximation:
    """Return one number for each channel so that it broadcasts over x."""
    shape = [1, -1, *[1] * (x.value.ndim - 2)]
    return parameter.moved(lambda v: v.reshape(shape))
