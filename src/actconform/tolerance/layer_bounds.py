"""What rounding may do to a layer of a model: the absolute error allowed for each element, from what the layer read alone.

A kind's bound is its definition (catalog/models/layer_kinds.py) written once more in running-error arithmetic; where
implementations are written in several ways, the bound reaches the widest. It holds for products and sums in any order, the
bias among them: direct and im2col convolutions. It does not cover Winograd's and Fourier's, whose error in one element grows
with its neighbours: F(2x2, 3x3) was seen to stay within, F(4x4, 3x3) to break it with few channels or one bright pixel.
Kernels have the limits that they are judged by on their own, without the tail's; what registered deviations of a runtime
excuse is not in the bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from actconform.catalog.kernels import KERNELS
from actconform.catalog.kernels.rows import ROWS
from actconform.catalog.models.layer_kinds import CLIP, kernel_of
from actconform.oracle import truth
from actconform.oracle.float64.rows import log_probabilities, probabilities
from actconform.oracle.layers.attention import masked
from actconform.tolerance.limits import unary_tolerance
from actconform.tolerance.recurrent_bounds import gru_bound, lstm_bound
from actconform.tolerance.row_bounds import flushes, row_bound
from actconform.tolerance.running_error import Axes, Bounded, bounded_inputs, exact_inputs, projected, widest
from actconform.tolerance.ulp import ulp_of
from actconform.tolerance.window_bounds import WINDOW_BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actconform.oracle.layers.registry import Reading
    from actconform.tolerance.running_error import F64
    from actconform.types import Kernel
    from actconform.types.dtypes import FloatFormat

    Bound: TypeAlias = Callable[[Reading, FloatFormat], Bounded]


SOFTMAX = next(kernel for kernel in ROWS if kernel.name == "softmax")


def _turned(x: Bounded) -> Bounded:
    return x.moved(lambda v: np.swapaxes(v, -1, -2))


def _column(x: Bounded) -> Bounded:
    return x[..., None]


def _row(x: Bounded) -> Bounded:
    return x[..., None, :]


def _by_head(x: Bounded) -> Bounded:
    """Return (b, n) as (b, 1, n), and (b, r, n) as it is."""
    return x.moved(lambda v: v.reshape(len(v), -1, v.shape[-1]))


def softmax_of(x: Bounded) -> Bounded:
    """Errors e of the scores pass on as a factor of at most exp(e_i) sum_j p_j exp(e_j), up to a probability of 1.

    In logarithms, so that a score far below all others, as masks make it, stays at probability 0 whatever its own rounding is.
    """
    p = probabilities(x.value, -1)
    rounding = row_bound(SOFTMAX, x.fmt, {"x": x.value}, None, {"y": p})["y"]
    shifted = x.value - np.max(x.value, axis=-1, keepdims=True)
    log_p = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    factor = x.error + np.log(np.sum(np.exp(log_p + x.error), axis=-1, keepdims=True))
    largest = np.exp(log_p + factor)
    passed_on = np.maximum(largest - p, p * np.expm1(np.minimum(factor, 1.0)))
    rounding = np.where(p > 0.0, rounding * (largest / p), rounding + largest)
    return Bounded(p, np.minimum(rounding + passed_on, 1.0 + 4.0 * x.fmt.unit_roundoff), x.fmt)


def _attend(q: Bounded, k: Bounded, v: Bounded, mask: F64 | None = None) -> Bounded:
    """softmax(q k^T / sqrt(d)) v; both factors may be divided by the root of sqrt(d) before they meet."""
    root = float(q.value.shape[-1]) ** 0.25
    scores = (q / root) @ _turned(k / root)
    return softmax_of(scores if mask is None else _masked(scores, mask[:, None])) @ v


def _masked(scores: Bounded, mask: F64) -> Bounded:
    return Bounded(masked(scores.value, mask), np.where(mask > 0.5, scores.error, 0.0), scores.fmt)


def _attention(reading: Reading, fmt: FloatFormat) -> Bounded:
    q, k, v, *_ = bounded_inputs(reading, fmt)
    return _attend(q, k, v, *reading.inputs[3:])


def _masked_softmax(reading: Reading, fmt: FloatFormat) -> Bounded:
    scores, _ = bounded_inputs(reading, fmt)
    return softmax_of(_masked(scores, reading.inputs[1]))


def _recurrent(bound: Callable[[Bounded, Mapping[str, Bounded]], Bounded]) -> Bound:
    def states(reading: Reading, fmt: FloatFormat) -> Bounded:
        (x,) = bounded_inputs(reading, fmt)
        return bound(x, {name: exact_inputs(array, fmt) for name, array in reading.parameters.items()})

    return states


def _multi_head(reading: Reading, fmt: FloatFormat) -> Bounded:
    (x,) = bounded_inputs(reading, fmt)
    heads = int(reading.layer.settings["heads"])  # type: ignore[arg-type]
    parameters = {name: exact_inputs(array, fmt) for name, array in reading.parameters.items()}

    def split(v: F64) -> F64:
        return v.reshape(*v.shape[:2], heads, -1).swapaxes(1, 2)

    def joined(v: F64) -> F64:
        return v.swapaxes(1, 2).reshape(v.shape[0], v.shape[2], -1)

    q, k, v = (
        projected(x, parameters[f"{projection}-kernel"], parameters[f"{projection}-bias"]).moved(split)
        for projection in "qkv"
    )
    return projected(_attend(q, k, v).moved(joined), parameters["o-kernel"], parameters["o-bias"])


def _cosine(reading: Reading, fmt: FloatFormat) -> Bounded:
    """Both directions first, then their product: the other order errs by no more."""
    memory, key = bounded_inputs(reading, fmt)
    slots, keys = (x * (x * x).sum(-1).inverse_root() for x in (memory, _by_head(key)))
    return keys @ _turned(slots)


def _interpolate(reading: Reading, fmt: FloatFormat) -> Bounded:
    gate, a, b = bounded_inputs(reading, fmt)
    return widest(gate * a + (1.0 - gate) * b, b + gate * (a - b))


def _shift(reading: Reading, fmt: FloatFormat) -> Bounded:
    w, s = bounded_inputs(reading, fmt)
    n, k = w.value.shape[-1], s.value.shape[-1]
    places = (np.arange(n)[:, None] - np.arange(k) + (k - 1) // 2) % n
    return w[:, places] @ _column(s)


def _sharpen(reading: Reading, fmt: FloatFormat) -> Bounded:
    """Of w or of w / max w, the power as exp(gamma log w): 0 without error at w = 0, at most lost where w may be flushed."""
    w, gamma = bounded_inputs(reading, fmt)
    top = w.moved(lambda v: np.max(v, axis=-1, keepdims=True))
    exponents = widest(gamma * w.log(), gamma * (w / top).log())
    powers = exponents.exp()
    lost = np.where(w.error > 0.0, powers.value, powers.error)
    powers = Bounded(powers.value, np.where(w.value == 0.0, 0.0, lost), fmt)
    return powers / powers.sum(-1)


def _read(reading: Reading, fmt: FloatFormat) -> Bounded:
    w, memory = bounded_inputs(reading, fmt)
    return _by_head(w) @ memory


def _write(reading: Reading, fmt: FloatFormat) -> Bounded:
    memory, w, erase, add = bounded_inputs(reading, fmt)
    erased, added = _column(w) * _row(erase), _column(w) * _row(add)
    return widest(memory * (1.0 - erased), memory - memory * erased) + added


def _retention(reading: Reading, fmt: FloatFormat) -> Bounded:
    free, w = bounded_inputs(reading, fmt)
    factors = 1.0 - _column(free) * w
    product = factors[:, 0]
    for head in range(1, factors.value.shape[1]):
        product = product * factors[:, head]
    return product


def _usage(reading: Reading, fmt: FloatFormat) -> Bounded:
    u, w, retention = bounded_inputs(reading, fmt)
    return widest(u + w - u * w, u + (1.0 - u) * w, w + (1.0 - w) * u) * retention


def _allocation(reading: Reading, fmt: FloatFormat) -> Bounded:
    """The running product takes in at most one factor, and one rounding, for each slot before."""
    (u,) = bounded_inputs(reading, fmt)
    order = np.argsort(u.value, axis=-1, kind="stable")
    places = np.argsort(order, axis=-1)
    ascending = u.moved(lambda v: np.take_along_axis(v, order, -1))
    before = exact_inputs(np.ones(len(order)), fmt)
    allocations = []
    for slot in range(order.shape[-1]):
        allocations.append((1.0 - ascending[:, slot]) * before)
        before = before * ascending[:, slot]
    value, error = (
        np.stack([allocation.value for allocation in allocations], -1),
        np.stack([allocation.error for allocation in allocations], -1),
    )
    return Bounded(value, error, fmt).moved(lambda v: np.take_along_axis(v, places, -1))


def _link(reading: Reading, fmt: FloatFormat) -> Bounded:
    links, w, p = bounded_inputs(reading, fmt)
    decay = widest(1.0 - _column(w) - _row(w), 1.0 - (_column(w) + _row(w)))
    diagonal = np.eye(w.value.shape[-1], dtype=bool)
    return (decay * links + _column(w) * _row(p)).moved(lambda v: np.where(diagonal, 0.0, v))


def _precedence(reading: Reading, fmt: FloatFormat) -> Bounded:
    p, w = bounded_inputs(reading, fmt)
    return (1.0 - w.sum(-1)) * p + w


def _directional(reading: Reading, fmt: FloatFormat) -> Bounded:
    links, w = bounded_inputs(reading, fmt)
    return w @ (links if reading.layer.settings["transposed"] else _turned(links))


def _mix(reading: Reading, fmt: FloatFormat) -> Bounded:
    modes, *ways = reading.inputs
    weighted = _row(exact_inputs(modes, fmt)) @ exact_inputs(np.stack(ways, axis=-2), fmt)
    return weighted[..., 0, :]


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


def _moments(x: Bounded, axes: Axes) -> tuple[Bounded, Bounded]:
    """Return mean and biased variance, which may be the mean square less the square of the mean: off by kappa^2 as much."""
    mean = x.mean(axes)
    centred = x - mean
    return mean, widest((centred * centred).mean(axes), (x * x).mean(axes) - mean * mean)


def _moments_of_groups(x: Bounded, reading: Reading) -> tuple[Bounded, Bounded]:
    """Return them for each channel of an image, whose group has them: (b, 1, 1, c)."""
    batch, *_, channels = x.value.shape
    groups = int(reading.layer.settings.get("groups", channels))  # type: ignore[arg-type]
    mean, variance = _moments(x.moved(lambda v: v.reshape(batch, -1, groups, channels // groups)), (1, 3))

    def by_channel(v: F64) -> F64:
        return np.repeat(v.reshape(batch, 1, 1, groups), channels // groups, axis=-1)

    return mean.moved(by_channel), variance.moved(by_channel)


def _norm(reading: Reading, fmt: FloatFormat) -> Bounded:
    """With s = gamma / sqrt(variance + epsilon), (x - mean) s + beta, or folded, x s + (beta - mean s), of terms that may cancel.

    Variance is taken to come out not negative, as implementations see to it that it does or live on epsilon.
    """
    (x,) = bounded_inputs(reading, fmt)
    gamma, beta = (_parameter(reading, name, fmt) for name in ("gamma", "beta"))
    epsilon = _number(reading, "epsilon")
    if reading.layer.kind in ("group-norm", "instance-norm"):
        mean, variance = _moments_of_groups(x, reading)
    elif reading.layer.kind == "layer-norm":
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


def _rms(reading: Reading, fmt: FloatFormat) -> Bounded:
    (x,) = bounded_inputs(reading, fmt)
    epsilon = _number(reading, "epsilon")
    scale = ((x * x).mean(-1) + epsilon).inverse_root(least=epsilon)
    return x * scale * _parameter(reading, "gamma", fmt)


def _l2(reading: Reading, fmt: FloatFormat) -> Bounded:
    """As x / |x|, or x times 1 / |x|; where epsilon stands for |x| by a constant."""
    (x,) = bounded_inputs(reading, fmt)
    squares, epsilon = (x * x).sum(-1), _number(reading, "epsilon")
    by_length = x * squares.inverse_root(least=epsilon**2)
    by_epsilon = x / epsilon
    long = squares.value >= epsilon**2
    value, error = (
        np.where(long, *parts) for parts in ((by_length.value, by_epsilon.value), (by_length.error, by_epsilon.error))
    )
    return Bounded(value, error, fmt)


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


MOVING = ("flatten", "reshape", "max-pool", "up-sampling", "embedding")  # kinds that move numbers and compute none


BOUNDS: Mapping[str, Bound] = {
    "dense": _dense,
    **WINDOW_BOUNDS,
    "batch-norm": _norm,
    "layer-norm": _norm,
    "group-norm": _norm,
    "instance-norm": _norm,
    "rms-norm": _rms,
    "l2-normalize": _l2,
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
    "lstm": _recurrent(lstm_bound),
    "gru": _recurrent(gru_bound),
    "masked-softmax": _masked_softmax,
    "attention": _attention,
    "multi-head-attention": _multi_head,
    "cosine-similarity": _cosine,
    "interpolate": _interpolate,
    "circular-shift": _shift,
    "sharpen": _sharpen,
    "read": _read,
    "write": _write,
    "retention": _retention,
    "usage": _usage,
    "allocation": _allocation,
    "link": _link,
    "precedence": _precedence,
    "directional": _directional,
    "mix": _mix,
}
