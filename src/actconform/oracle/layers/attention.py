"""Float64 truth of attention: values and vector-Jacobian products, without overflow in the softmax of the scores.

Rows of scores are shifted by their maximum, and cotangents count from their value at the largest weight, so that a saturated
row loses no digits. NaN in a query spreads over its row, in a key or value over all rows of its example.
"""

from __future__ import annotations

import math

import numpy as np

from actconform.oracle.float64.rows import first_maximum, probabilities
from actconform.oracle.layers.registry import F64, LayerGradients, Reading, layer_formula


def centred(p: F64, g: F64) -> F64:
    """Return g less its mean under the weights `p` of the last axis, relative to g's value at the largest weight."""
    peak = first_maximum(p.real, -1)
    d = g - np.take_along_axis(g, peak, -1)
    less: F64 = d - np.sum(p * d, axis=-1, keepdims=True)
    return less


def _turned(x: F64) -> F64:
    return np.swapaxes(x, -1, -2)


def masked(scores: F64, mask: F64) -> F64:
    """Return the scores where the mask is 1, and -inf, which no softmax chooses, elsewhere."""
    return np.where(mask.real > 0.5, scores, -np.inf)


def _weights(q: F64, k: F64, mask: F64 | None = None) -> F64:
    scores = q @ _turned(k) / math.sqrt(q.shape[-1])
    return probabilities(scores if mask is None else masked(scores, mask[:, None]), -1)


def _attend_vjp(q: F64, k: F64, v: F64, g: F64, mask: F64 | None = None) -> tuple[F64, F64, F64]:
    """With p the weights and d_s their scores' cotangent: d_q = d_s k / sqrt(d), d_k = d_s^T q / sqrt(d), d_v = p^T g."""
    p = _weights(q, k, mask)
    d_scores = p * centred(p, g @ _turned(v)) / math.sqrt(q.shape[-1])
    return d_scores @ k, _turned(d_scores) @ q, _turned(p) @ g


def _attention_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    q, k, v, *mask = reading.inputs
    return LayerGradients([*_attend_vjp(q, k, v, g, *mask), *(None for _ in mask)])


@layer_formula("attention", vjp=_attention_vjp)
def _attention(reading: Reading) -> F64:
    q, k, v, *mask = reading.inputs
    return _weights(q, k, *mask) @ v


def _masked_softmax_vjp(_: Reading, p: F64, g: F64) -> LayerGradients:
    return LayerGradients([p * centred(p, g), None])


@layer_formula("masked-softmax", vjp=_masked_softmax_vjp)
def _masked_softmax(reading: Reading) -> F64:
    return probabilities(masked(*reading.inputs), -1)


def _heads(reading: Reading, x: F64) -> F64:
    """Return (b, t, d) as (b, heads, t, d / heads)."""
    return x.reshape(*x.shape[:2], int(reading.layer.settings["heads"]), -1).swapaxes(1, 2)  # type: ignore[arg-type]


def _joined(x: F64) -> F64:
    """Undo `_heads`."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _projected(reading: Reading) -> list[F64]:
    """Return queries, keys and values, split into heads."""
    x, parameters = reading.inputs[0], reading.parameters
    return [
        _heads(reading, x @ parameters[f"{projection}-kernel"] + parameters[f"{projection}-bias"])
        for projection in "qkv"
    ]


def _multi_head_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """Back through the output's projection, each head's attention, and the three projections of x.

    A key's bias adds one number to all scores of a row, which softmax takes away: its cotangent is exactly zero.
    """
    x, parameters = reading.inputs[0], reading.parameters
    q, k, v = _projected(reading)
    d_joined = g @ parameters["o-kernel"].T
    back = [_joined(part) for part in _attend_vjp(q, k, v, _heads(reading, d_joined))]
    d_parameters = {"o-kernel": _outer(_joined(_weights(q, k) @ v), g), "o-bias": g.sum(axis=(0, 1))}
    for projection, part in zip("qkv", back, strict=True):
        d_parameters |= {f"{projection}-kernel": _outer(x, part), f"{projection}-bias": part.sum(axis=(0, 1))}
    d_parameters["k-bias"] = np.zeros_like(d_parameters["k-bias"])
    d_x = sum(
        (part @ parameters[f"{projection}-kernel"].T for projection, part in zip("qkv", back, strict=True)),
        np.zeros(()),
    )
    return LayerGradients([d_x], d_parameters)


def _outer(a: F64, b: F64) -> F64:
    """Return the sum of a^T b over examples and positions."""
    return np.tensordot(a, b, axes=((0, 1), (0, 1)))


@layer_formula("multi-head-attention", vjp=_multi_head_vjp)
def _multi_head(reading: Reading) -> F64:
    q, k, v = _projected(reading)
    parameters = reading.parameters
    return _joined(_weights(q, k) @ v) @ parameters["o-kernel"] + parameters["o-bias"]
