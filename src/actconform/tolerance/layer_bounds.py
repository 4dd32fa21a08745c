"""What rounding may do to a layer of a model: the absolute error allowed for each element, from what the layer read alone.

A kind's bound is its definition (catalog/models/layer_kinds.py) written once more in running-error arithmetic; where
implementations are written in several ways, the bound reaches the widest. It holds for products and sums in any order, the
bias among them: direct and im2col convolutions. It does not cover Winograd's and Fourier's, whose error in one element grows
with its neighbours: F(2x2, 3x3) was seen to stay within, F(4x4, 3x3) to break it with few channels or one bright pixel.
Kernels have the limits that they are judged by on their own, without the tail's; what registered deviations of a runtime
excuse is not in the bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from actconform.catalog.kernels import KERNELS
from actconform.catalog.models.layer_kinds import CLIP, kernel_of, same_pads
from actconform.oracle import truth
from actconform.oracle.float64.rows import log_probabilities
from actconform.tolerance.layer_bounds_memory import MEMORY_BOUNDS, bounded_inputs, softmax_of
from actconform.tolerance.limits import unary_tolerance
from actconform.tolerance.row_bounds import flushes, row_bound
from actconform.tolerance.running_error import Axes, Bounded, exact_inputs, projected, widest
from actconform.tolerance.ulp import ulp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actconform.oracle.layers.registry import Reading
    from actconform.tolerance.running_error import F64
    from actconform.types import Kernel
    from actconform.types.dtypes import FloatFormat

    Bound: TypeAlias = Callable[[Reading, FloatFormat], Bounded]


def layer_bound(reading: Reading, value: F64, fmt: FloatFormat) -> F64:
    """Return the absolute error allowed for each element of a layer's value, computed in `fmt` from what `reading` holds.

    `value` is the float64 truth; the bound has its shape, is finite and not negative. 0 where nothing is computed (shapes,
    maxima, dropout at inference) and where the truth is not finite; the largest number of `fmt` where rounding may do
    anything, as in a division by what cancels. Raises LookupError for a kind or kernel without a bound, `Unsupported` for the name
    of no kernel.
    """
    kind = reading.layer.kind
    if kind in MOVING or (kind == "dropout" and not reading.training):
        moved = max((float(error.max(initial=0.0)) for error in reading.errors), default=0.0)
        return np.where(np.isfinite(value), min(moved, fmt.largest), 0.0)
    with np.errstate(all="ignore"):
        if kind == "activation":
            error = _activation(reading, value, fmt)
        else:
            bound = BOUNDS.get(kind)
            if bound is None:
                raise LookupError(
                    f"layers of kind {kind} have no error bound: add one to actconform.tolerance.layer_bounds.BOUNDS"
                )
            error = bound(reading, fmt).error.reshape(value.shape)
        error = np.minimum(np.nan_to_num(error, nan=np.inf), fmt.largest)
    return np.where(np.isfinite(value), error, 0.0)


def _activation(reading: Reading, y: F64, fmt: FloatFormat) -> F64:
    """The kernel's own limit, and all of a y that the hardware may flush."""
    kernel, x = kernel_of(reading.layer), reading.inputs[0]
    if kernel.name == "softmax":
        return softmax_of(bounded_inputs(reading, fmt)[0]).error
    if kernel.form == "row":
        return row_bound(kernel, fmt, {"x": x}, None, {"y": y})["y"]
    tolerance = unary_tolerance(kernel, "value", fmt, at_zero=0.0)
    if tolerance.exact:
        unit = ulp_of(y, fmt)
    else:
        unit = fmt.unit_roundoff * np.maximum(np.maximum(np.abs(y), tolerance.scales(x)), fmt.smallest_normal)
    flushed = flushes(fmt) & (np.abs(y) < fmt.smallest_normal)
    return tolerance.limit * unit + np.where(flushed, np.abs(y), 0.0) + _moved(kernel, x, y, reading)


def _moved(kernel: Kernel, x: F64, y: F64, reading: Reading) -> F64:
    """Return how far a unary kernel moves over the error of its input, taken at both ends of it."""
    if not reading.errors:
        return np.zeros(y.shape)
    ends = [truth(kernel, {"x": x + sign * reading.errors[0]})["y"] for sign in (-1.0, 1.0)]
    furthest: F64 = np.maximum(np.abs(ends[0] - y), np.abs(ends[1] - y))
    return furthest


def _number(reading: Reading, setting: str) -> float:
    return float(reading.layer.settings[setting])  # type: ignore[arg-type]  # the kinds of these settings are numbers


def _parameter(reading: Reading, name: str, fmt: FloatFormat) -> Bounded:
    return exact_inputs(reading.parameters[name], fmt)


def _dense(reading: Reading, fmt: FloatFormat) -> Bounded:
    (x,) = bounded_inputs(reading, fmt)
    return projected(x, _parameter(reading, "kernel", fmt), _parameter(reading, "bias", fmt))


def _conv2d(reading: Reading, fmt: FloatFormat) -> Bounded:
    """A dense layer of all windows; zeros of the padding count as terms."""
    layer, shape = reading.layer, reading.inputs[0].shape
    size, strides = (cast("tuple[int, int]", layer.settings[name]) for name in ("size", "strides"))
    pads = [(0, 0)] * 4
    if layer.settings["padding"] == "same":
        pads[1:3] = [same_pads(*axis) for axis in zip(shape[1:3], size, strides, strict=True)]

    def windows(x: F64) -> F64:
        view = np.lib.stride_tricks.sliding_window_view(np.pad(x, pads), size, axis=(1, 2))
        view = np.moveaxis(view[:, :: strides[0], :: strides[1]], 3, -1)
        return view.reshape(*view.shape[:3], -1)

    (x,) = bounded_inputs(reading, fmt)
    kernel = _parameter(reading, "kernel", fmt).moved(lambda w: w.reshape(-1, w.shape[-1]))
    return projected(x.moved(windows), kernel, _parameter(reading, "bias", fmt))


def _moments(x: Bounded, axes: Axes) -> tuple[Bounded, Bounded]:
    """Return mean and biased variance, which may be the mean square less the square of the mean: off by kappa^2 as much."""
    mean = x.mean(axes)
    centred = x - mean
    return mean, widest((centred * centred).mean(axes), (x * x).mean(axes) - mean * mean)


def _norm(reading: Reading, fmt: FloatFormat) -> Bounded:
    """With s = gamma / sqrt(variance + epsilon), (x - mean) s + beta, or folded, x s + (beta - mean s), of terms that may cancel.

    Variance is taken to come out not negative, as implementations see to it that it does or live on epsilon.
    """
    (x,) = bounded_inputs(reading, fmt)
    gamma, beta = (_parameter(reading, name, fmt) for name in ("gamma", "beta"))
    epsilon = _number(reading, "epsilon")
    if reading.layer.kind == "layer-norm":
        mean, variance = _moments(x, -1)
    elif reading.training:
        mean, variance = _moments(x, tuple(range(x.value.ndim - 1)))
    else:
        mean, variance = (_parameter(reading, name, fmt) for name in ("mean", "variance"))
    scale = gamma * (variance + epsilon).inverse_root(least=epsilon)
    y = (x - mean) * scale + beta
    # the errors of scale and mean are in y; a folded form adds the roundings of its own terms
    terms = x.reach * scale.reach + 2.0 * mean.reach * scale.reach + beta.reach
    return Bounded(y.value, y.error + fmt.unit_roundoff * terms, fmt)


def _dropout(reading: Reading, fmt: FloatFormat) -> Bounded:
    x, mask = bounded_inputs(reading, fmt)
    return x * mask / (exact_inputs(np.ones(()), fmt) - _number(reading, "rate"))


def _add(reading: Reading, fmt: FloatFormat) -> Bounded:
    a, b = bounded_inputs(reading, fmt)
    return a + b


def _multiply(reading: Reading, fmt: FloatFormat) -> Bounded:
    a, b = bounded_inputs(reading, fmt)
    return a * b


def _affine(reading: Reading, fmt: FloatFormat) -> Bounded:
    (x,) = bounded_inputs(reading, fmt)
    return x * _number(reading, "scale") + _number(reading, "shift")


def _all(x: Bounded) -> Axes:
    return tuple(range(x.value.ndim))


def _mean_of_rows(terms: Bounded) -> Bounded:
    return terms.sum(-1).mean(_all(terms))


def _squared(reading: Reading, fmt: FloatFormat) -> Bounded:
    p, t = bounded_inputs(reading, fmt)
    return ((p - t) * (p - t)).mean(_all(p))


def _absolute(reading: Reading, fmt: FloatFormat) -> Bounded:
    p, t = bounded_inputs(reading, fmt)
    return abs(p - t).mean(_all(p))


def _probabilities(reading: Reading, fmt: FloatFormat) -> tuple[Bounded, Bounded]:
    """Return prediction and target; a loss fused with the activation before it sees the prediction before it was rounded."""
    p, t = bounded_inputs(reading, fmt)
    return Bounded(p.value, p.error + fmt.unit_roundoff * np.abs(p.value), fmt), t


def _binary(reading: Reading, fmt: FloatFormat) -> Bounded:
    """Near 1, where 1 - p cancels, a rounding of p is u / (1 - p) in the logarithm."""
    p, t = _probabilities(reading, fmt)
    q = p.clip(*CLIP)
    return (t * q.log() + (1.0 - t) * (1.0 - q).log()).mean(_all(p))


def _binary_from_logits(reading: Reading, fmt: FloatFormat) -> Bounded:
    """max(z, 0) - z t + log(1 + exp(-|z|)), or (1 - t) z + max(-z, 0) + the same, which cancels where z is far below 0."""
    z, t = bounded_inputs(reading, fmt)
    positive, negative = (side.moved(lambda v: np.maximum(v, 0.0)) for side in (z, -z))
    soft = ((-abs(z)).exp() + 1.0).log()
    return widest(positive - z * t + soft, (1.0 - t) * z + (negative + soft)).mean(_all(z))


def _categorical(reading: Reading, fmt: FloatFormat) -> Bounded:
    p, t = _probabilities(reading, fmt)
    return _mean_of_rows(t * (p / p.sum(-1)).clip(*CLIP).log())


def _categorical_from_logits(reading: Reading, fmt: FloatFormat) -> Bounded:
    z, t = reading.inputs
    y = log_probabilities(z, -1)
    error = row_bound(KERNELS["log-softmax"], fmt, {"x": z}, None, {"y": y})["y"]
    return _mean_of_rows(exact_inputs(t, fmt) * Bounded(y, error, fmt))


MOVING = ("flatten", "reshape", "max-pool", "up-sampling")  # kinds that move numbers and compute none

BOUNDS: Mapping[str, Bound] = {
    "dense": _dense,
    "conv2d": _conv2d,
    "batch-norm": _norm,
    "layer-norm": _norm,
    "dropout": _dropout,
    "add": _add,
    "multiply": _multiply,
    "affine": _affine,
    "mean-squared-error": _squared,
    "mean-absolute-error": _absolute,
    "binary-cross-entropy": _binary,
    "binary-cross-entropy-from-logits": _binary_from_logits,
    "categorical-cross-entropy": _categorical,
    "categorical-cross-entropy-from-logits": _categorical_from_logits,
    **MEMORY_BOUNDS,
}
