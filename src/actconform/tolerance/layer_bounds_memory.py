"""What rounding may do to attention and to layers with an external memory, in running-error arithmetic; see layer_bounds.

Letters as in catalog/models/layer_kinds.py, after the batch b: n slots, m or w numbers a slot, r read heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from actconform.catalog.kernels.rows import ROWS
from actconform.oracle.float64.rows import probabilities
from actconform.tolerance.row_bounds import row_bound
from actconform.tolerance.running_error import Bounded, exact_inputs, projected, widest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actconform.oracle.layers.registry import Reading
    from actconform.tolerance.running_error import F64
    from actconform.types.dtypes import FloatFormat

    Bound: TypeAlias = Callable[[Reading, FloatFormat], Bounded]

SOFTMAX = next(kernel for kernel in ROWS if kernel.name == "softmax")


def bounded_inputs(reading: Reading, fmt: FloatFormat) -> list[Bounded]:
    """Return a layer's inputs, each with the error that its reading knows of."""
    exact = [exact_inputs(array, fmt) for array in reading.inputs]
    if not reading.errors:
        return exact
    return [Bounded(x.value, x.error + error, fmt) for x, error in zip(exact, reading.errors, strict=True)]


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
    """Errors e of the scores pass on as a factor of at most exp(e_i) sum_j p_j exp(e_j)."""
    p = probabilities(x.value, -1)
    rounding = row_bound(SOFTMAX, x.fmt, {"x": x.value}, None, {"y": p})["y"]
    factor = x.error + np.log(np.sum(p * np.exp(x.error), axis=-1, keepdims=True))
    return Bounded(p, rounding * np.exp(factor) + p * np.expm1(factor), x.fmt)


def _attend(q: Bounded, k: Bounded, v: Bounded) -> Bounded:
    """softmax(q k^T / sqrt(d)) v; both factors may be divided by the root of sqrt(d) before they meet."""
    root = float(q.value.shape[-1]) ** 0.25
    return softmax_of((q / root) @ _turned(k / root)) @ v


def _attention(reading: Reading, fmt: FloatFormat) -> Bounded:
    q, k, v = bounded_inputs(reading, fmt)
    return _attend(q, k, v)


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


MEMORY_BOUNDS: Mapping[str, Bound] = {
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
