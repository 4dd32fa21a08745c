"""The correctly rounded evaluator's operators that carry a state from step to step: LinearAttention and CausalConvWithState."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from actconform.onnx.evaluate.elementwise import operation
from actconform.onnx.evaluate.windows import convolved, per_channel

if TYPE_CHECKING:
    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


def _by_step(x: Array, heads: int) -> Array:
    """Return (batch, steps, heads width) as (steps, batch, heads, width)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 0, 2, 3)


@operation("LinearAttention")
def _linear_attention(
    node: OperatorNode,
    query: Array,
    key: Array,
    value: Array,
    past: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
) -> tuple[Array, Array]:
    """Return q S at every step, and the last state S, which decays and gains k (v - k S) beta, or k v, at each."""
    heads, shared = node.attributes["q_num_heads"], node.attributes["kv_num_heads"]
    queries, keys, values = (_by_step(x, n) for x, n in ((query, heads), (key, shared), (value, shared)))
    decays = None if decay is None else np.exp(_by_step(decay, shared))
    rates = None if beta is None else beta.transpose(1, 0, 2)[..., None]
    width = queries.shape[-1]
    state = np.zeros((len(query), shared, width, values.shape[-1])) if past is None else past
    outputs = []
    for step, (q, k, v) in enumerate(zip(queries, keys, values, strict=True)):
        if decays is not None:
            state = state * decays[step][..., None]
        gained = v if rates is None else rates[step] * (v - np.einsum("bhdm,bhd->bhm", state, k))
        state = state + k[..., None] * gained[..., None, :]
        outputs.append(np.einsum("bhd,bhdm->bhm", q, np.repeat(state, heads // shared, 1)))
    scale = node.attributes["scale"] or 1 / math.sqrt(width)
    y = scale * np.array(outputs).reshape(len(outputs), len(query), -1).transpose(1, 0, 2)
    return y, state


@operation("CausalConvWithState")
def _causal_conv(
    node: OperatorNode, x: Array, kernel: Array, bias: Array | None = None, past: Array | None = None
) -> tuple[Array, Array]:
    """Convolve each channel with what came before, and return the last steps, which the next call begins with."""
    before = np.zeros((*x.shape[:2], kernel.shape[2] - 1)) if past is None else past
    steps = np.concatenate([before, x], axis=2)
    y = convolved(node._replace(attributes={"group": x.shape[1]}), steps, kernel)
    y = y if bias is None else y + per_channel(bias, y)
    gated = y * expit(y) if node.attributes["activation"] in {"silu", "swish"} else y
    return gated, steps[:, :, steps.shape[2] - before.shape[2] :]
