"""Float64 truth of layers with an external memory: values and vector-Jacobian products, no product's through a division.

Letters as in catalog/models/layer_kinds.py, after the batch b: n slots, m or w numbers a slot, r read heads. Every input has a
cotangent, which is worked out of the inputs alone. NaN spreads through what it enters. Sums of squares do not overflow for
numbers of float32's range.
"""

from __future__ import annotations

import numpy as np

from actconform.oracle.layers.attention import centred
from actconform.oracle.layers.registry import F64, LayerGradients, Reading, layer_formula


def _by_head(x: F64) -> F64:
    """Return (b, n) as (b, 1, n), and (b, r, n) as it is."""
    return x.reshape(len(x), -1, x.shape[-1])


def _turned(x: F64) -> F64:
    return np.swapaxes(x, -1, -2)


def _length(x: F64) -> F64:
    # no absolute values: complex steps must pass
    length: F64 = np.sqrt(np.sum(x * x, axis=-1, keepdims=True))
    return length


def _cosine_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """With a, c the unit vectors of a slot and a key, y = a . c: d_slot = sum_r g (c - y a) / |slot|, d_key likewise."""
    memory, key = reading.inputs
    keys, g = _by_head(key), _by_head(g)
    slot_length, key_length = _length(memory), _length(keys)
    a, c = memory / slot_length, keys / key_length
    gy = g * (c @ _turned(a))
    d_memory = (_turned(g) @ c - np.sum(gy, axis=1)[..., None] * a) / slot_length
    d_key = (g @ a - np.sum(gy, axis=2)[..., None] * c) / key_length
    return LayerGradients([d_memory, d_key.reshape(key.shape)])


@layer_formula("cosine-similarity", vjp=_cosine_vjp)
def _cosine(reading: Reading) -> F64:
    """NaN for a slot or key of length 0, which has no direction: there is no epsilon here."""
    memory, key = reading.inputs
    keys = _by_head(key)
    y: F64 = (keys / _length(keys)) @ _turned(memory / _length(memory))
    return y.reshape(*key.shape[:-1], memory.shape[1])


def _interpolate_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    gate, a, b = reading.inputs
    d_gate = g * (a - b)
    if gate.shape[-1] == 1:
        d_gate = d_gate.sum(axis=-1, keepdims=True)
    return LayerGradients([d_gate, gate * g, (1.0 - gate) * g])


@layer_formula("interpolate", vjp=_interpolate_vjp)
def _interpolate(reading: Reading) -> F64:
    gate, a, b = reading.inputs
    return gate * a + (1.0 - gate) * b


def _offsets(s: F64) -> range:
    """Return by how many places each element of s moves w forward: the middle one by none."""
    half = (s.shape[-1] - 1) // 2
    return range(-half, half + 1)


def _shift_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """Each shift's cotangent is what g finds in w moved so; w's is g moved back."""
    w, s = reading.inputs
    d_s = np.stack([np.sum(g * np.roll(w, places, axis=-1), axis=-1) for places in _offsets(s)], axis=-1)
    d_w = np.zeros_like(g)
    for j, places in enumerate(_offsets(s)):
        d_w = d_w + s[:, j, None] * np.roll(g, -places, axis=-1)
    return LayerGradients([d_w, d_s])


@layer_formula("circular-shift", vjp=_shift_vjp)
def _shift(reading: Reading) -> F64:
    w, s = reading.inputs
    y = np.zeros_like(w)
    for j, places in enumerate(_offsets(s)):
        y = y + s[:, j, None] * np.roll(w, places, axis=-1)
    return y


def _sharpen_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """With y = w^gamma / sum, c the cotangent centred under y: d_w = gamma w^(gamma - 1) c / sum, d_gamma = sum y c log w.

    At w = 0, d_w is 0 for gamma > 1, the derivative from the right for gamma = 1, not finite below; y log w is 0, its limit.
    """
    w, gamma = reading.inputs
    top = np.max(w, axis=-1, keepdims=True)
    ratio = w / top
    y, total = _powers(ratio, gamma)
    c = centred(y, g)
    log_ratio = np.log(np.where(ratio == 0.0, 1.0, ratio))  # log w but for log top, of which the centred c sees nothing
    d_w = gamma * ratio ** (gamma - 1.0) / (total * top) * c
    return LayerGradients([d_w, np.sum(y * c * log_ratio, axis=-1, keepdims=True)])


def _powers(ratio: F64, gamma: F64) -> tuple[F64, F64]:
    """Return the powers of w / max w divided by their sum, and that sum."""
    powers = ratio**gamma
    total = np.sum(powers, axis=-1, keepdims=True)
    return powers / total, total


@layer_formula("sharpen", vjp=_sharpen_vjp)
def _sharpen(reading: Reading) -> F64:
    """Of w >= 0; powers of w / max w neither overflow nor all vanish. 0 where w = 0 and gamma > 0; NaN where all w are 0."""
    w, gamma = reading.inputs
    return _powers(w / np.max(w, axis=-1, keepdims=True), gamma)[0]


def _read_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    w, memory = reading.inputs
    d_w = _by_head(g) @ _turned(memory)
    return LayerGradients([d_w.reshape(w.shape), _turned(_by_head(w)) @ _by_head(g)])


@layer_formula("read", vjp=_read_vjp)
def _read(reading: Reading) -> F64:
    w, memory = reading.inputs
    y: F64 = _by_head(w) @ memory
    return y.reshape(*w.shape[:-1], memory.shape[-1])


def _write_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    memory, w, erase, add = reading.inputs
    d_memory = g * (1.0 - w[:, :, None] * erase[:, None, :])
    d_w = np.sum(g * (add[:, None, :] - memory * erase[:, None, :]), axis=2)
    d_erase = -np.sum(g * memory * w[:, :, None], axis=1)
    return LayerGradients([d_memory, d_w, d_erase, np.sum(g * w[:, :, None], axis=1)])


@layer_formula("write", vjp=_write_vjp)
def _write(reading: Reading) -> F64:
    memory, w, erase, add = reading.inputs
    return memory * (1.0 - w[:, :, None] * erase[:, None, :]) + w[:, :, None] * add[:, None, :]


def _retention_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """A factor's cotangent is g times the product of the others: those before it times those after it."""
    free, w = reading.inputs
    factors = 1.0 - free[:, :, None] * w
    ones = np.ones_like(factors[:, :1])
    before = np.cumprod(np.concatenate([ones, factors[:, :-1]], axis=1), axis=1)
    after = np.cumprod(np.concatenate([ones, factors[:, :0:-1]], axis=1), axis=1)[:, ::-1]
    d_factors = g[:, None, :] * before * after
    return LayerGradients([-np.sum(d_factors * w, axis=2), -d_factors * free[:, :, None]])


@layer_formula("retention", vjp=_retention_vjp)
def _retention(reading: Reading) -> F64:
    free, w = reading.inputs
    retention: F64 = np.prod(1.0 - free[:, :, None] * w, axis=1)
    return retention


def _usage_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    u, w, retention = reading.inputs
    return LayerGradients([g * retention * (1.0 - w), g * retention * (1.0 - u), g * (u + w - u * w)])


@layer_formula("usage", vjp=_usage_vjp)
def _usage(reading: Reading) -> F64:
    u, w, retention = reading.inputs
    return (u + w - u * w) * retention


def _freest_first(u: F64) -> F64:
    """Return the usage of all slots but the fullest, ascending, after a 1: its running product is that of the slots before."""
    return np.concatenate([np.ones_like(u[:, :1]), u[:, :-1]], axis=1)


def _allocation_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """In ascending order, with P_j = prod_(i < j) u_i: d_u_j = P_j (R_j - g_j), R_(j-1) = g_j (1 - u_j) + u_j R_j from the end.

    The order is taken as fixed: where two usages are equal, this is the derivative on the side that keeps them so ordered.
    """
    u = reading.inputs[0]
    order = np.argsort(u.real, axis=-1, kind="stable")
    ascending, h = np.take_along_axis(u, order, -1), np.take_along_axis(g, order, -1)
    product = np.cumprod(_freest_first(ascending), axis=-1)
    rest = np.zeros_like(ascending)
    for j in range(u.shape[-1] - 1, 0, -1):
        rest[:, j - 1] = h[:, j] * (1.0 - ascending[:, j]) + ascending[:, j] * rest[:, j]
    d_u = np.empty_like(ascending)
    np.put_along_axis(d_u, order, product * (rest - h), -1)
    return LayerGradients([d_u])


@layer_formula("allocation", vjp=_allocation_vjp)
def _allocation(reading: Reading) -> F64:
    u = reading.inputs[0]
    order = np.argsort(u.real, axis=-1, kind="stable")
    ascending = np.take_along_axis(u, order, -1)
    y = np.empty_like(u)
    np.put_along_axis(y, order, (1.0 - ascending) * np.cumprod(_freest_first(ascending), axis=-1), -1)
    return y


def _off_diagonal(x: F64) -> F64:
    return np.where(np.eye(x.shape[-1], dtype=bool), 0.0, x)


def _link_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """Off the diagonal w_i enters row i as p_j - l_ij and column i as -l_ji; on it nothing enters."""
    links, w, p = reading.inputs
    g = _off_diagonal(g)
    lost = _off_diagonal(g * links)
    d_w = np.sum(g * p[:, None, :], axis=2) - np.sum(lost, axis=2) - np.sum(lost, axis=1)
    return LayerGradients([g * _link_decay(w), d_w, np.sum(g * w[:, :, None], axis=1)])


def _link_decay(w: F64) -> F64:
    return 1.0 - w[:, :, None] - w[:, None, :]


@layer_formula("link", vjp=_link_vjp)
def _link(reading: Reading) -> F64:
    links, w, p = reading.inputs
    return _off_diagonal(_link_decay(w) * links + w[:, :, None] * p[:, None, :])


def _precedence_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    p, w = reading.inputs
    return LayerGradients([(1.0 - np.sum(w, axis=-1, keepdims=True)) * g, g - np.sum(g * p, axis=-1, keepdims=True)])


@layer_formula("precedence", vjp=_precedence_vjp)
def _precedence(reading: Reading) -> F64:
    p, w = reading.inputs
    y: F64 = (1.0 - np.sum(w, axis=-1, keepdims=True)) * p + w
    return y


def _directional_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    links, w = reading.inputs
    if reading.layer.settings["transposed"]:
        return LayerGradients([_turned(w) @ g, g @ _turned(links)])
    return LayerGradients([_turned(g) @ w, g @ links])


@layer_formula("directional", vjp=_directional_vjp)
def _directional(reading: Reading) -> F64:
    links, w = reading.inputs
    return w @ (links if reading.layer.settings["transposed"] else _turned(links))


def _mix_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    modes, *ways = reading.inputs
    d_modes = np.stack([np.sum(g * way, axis=-1) for way in ways], axis=-1)
    return LayerGradients([d_modes, *(modes[..., number, None] * g for number in range(3))])


@layer_formula("mix", vjp=_mix_vjp)
def _mix(reading: Reading) -> F64:
    modes, a, b, c = reading.inputs
    return modes[..., 0, None] * a + modes[..., 1, None] * b + modes[..., 2, None] * c
