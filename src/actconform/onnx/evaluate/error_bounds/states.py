"""Error bounds of LinearAttention: running error of its recurrence, which multiplies errors where it does not forget."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import as_bounded, lost

if TYPE_CHECKING:
    from actconform.tolerance.running_error import Bounded


@error_bound("LinearAttention")
def _linear_attention(
    context: BoundContext,
    query: Approximation,
    key: Approximation,
    value: Approximation,
    past: Approximation | None = None,
    *gates: Approximation | None,
) -> tuple[Approximation, Approximation]:
    """Of q S at every step, S decaying by exp(g) and gaining k (v - k S) beta, or k v. Computation in chunks sums the same terms."""
    fmt, attributes = context.float_format, context.node.attributes
    heads, shared = attributes["q_num_heads"], attributes["kv_num_heads"]

    def by_step(x: Approximation, count: int) -> Bounded:
        """Return (batch, steps, heads width) as (steps, batch, heads, 1, width)."""
        return as_bounded(x, fmt).moved(
            lambda v: v.reshape(*v.shape[:2], count, -1).transpose(1, 0, 2, 3)[..., None, :]
        )

    queries, keys, gained = by_step(query, heads), by_step(key, shared), by_step(value, shared)
    decay, beta = [*gates, None, None][:2]
    decays = None if decay is None else by_step(decay, shared).exp().moved(lambda v: np.swapaxes(v, -1, -2))
    rates = None if beta is None else by_step(beta, shared)
    width = queries.value.shape[-1]
    shape = (query.value.shape[0], shared, width, gained.value.shape[-1])
    state = as_bounded(Approximation(np.zeros(shape)) if past is None else past, fmt)
    outputs = []
    for step in range(query.value.shape[1]):
        k, v = keys[step], gained[step]
        state = state if decays is None else state * decays[step]
        v = v if rates is None else rates[step] * (v - k @ state)
        state = state + k.moved(lambda row: np.swapaxes(row, -1, -2)) * v
        outputs.append(queries[step] @ state.moved(lambda each: np.repeat(each, heads // shared, 1)))
    scale = attributes["scale"] or 1.0 / math.sqrt(width)
    errors = np.array([(output * scale).error for output in outputs])  # (steps, batch, heads, 1, width)
    y, present = context.values((query, key, value, past, *gates))
    error = errors.reshape(len(errors), len(query.value), -1).transpose(1, 0, 2) + lost(fmt)
    return Approximation(y, error), Approximation(present, state.error)
