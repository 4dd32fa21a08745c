"""GroupQueryAttention of ONNX Runtime: causal attention of few key heads for many query heads, with a cache of keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.errors import Unsupported
from actconform.onnx.evaluate.contrib.attention import joined_heads, refuse, rotate, scaled_scores, separate_heads
from actconform.onnx.evaluate.contrib.registry import contrib

if TYPE_CHECKING:
    from actconform.onnx.evaluate.contrib.registry import Operators, Tensor
    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


class _Lengths(NamedTuple):
    """How long each sequence is: `past` and `total` (b), `new` places for all."""

    past: Array
    total: Array
    new: int

    @property
    def places(self) -> Array:
        """The place (b, s) of each new one in its sequence."""
        places: Array = self.past[:, None] + np.arange(self.new)
        return places


@contrib("GroupQueryAttention", types=(0, 0, 0, 0), causal=1, local_window_size=-1, qk_norm_epsilon=1e-6)
def _group_query_attention(  # noqa: PLR0913, PLR0917  as the schema orders them
    node: OperatorNode,
    op: Operators,
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    last_places: Tensor,
    longest: Tensor,
    cosines: Tensor | None = None,
    sines: Tensor | None = None,
    positions: Tensor | None = None,
    attention_bias: Tensor | None = None,
    sink: Tensor | None = None,
    key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
    query_norm: Tensor | None = None,
    key_norm: Tensor | None = None,
) -> tuple[Tensor, ...]:
    refuse(node, "sliding_window_cache", "qk_output", k_scale=key_scale, v_scale=value_scale)
    attributes = node.attributes
    heads, groups = int(attributes["num_heads"]), int(attributes["kv_num_heads"])
    if key is None or value is None:
        width = op.shape(query)[-1] // (heads + 2 * groups)
        sizes = np.array([heads * width, groups * width, groups * width])
        query, key, value = op.Split(query, sizes, outputs=3, axis=-1)
    q, k, v = separate_heads(op, query, heads), separate_heads(op, key, groups), separate_heads(op, value, groups)
    if query_norm is not None and key_norm is not None:
        epsilon = attributes["qk_norm_epsilon"]
        q = op.RMSNormalization(q, query_norm, axis=-1, epsilon=epsilon)
        k = op.RMSNormalization(k, key_norm, axis=-1, epsilon=epsilon)
    lengths = _lengths(op, last_places, longest, op.shape(q)[2])
    if attributes.get("do_rotary"):
        places = lengths.places if positions is None else _stated_places(op.array(positions), lengths)
        turn = bool(attributes.get("rotary_interleaved"))
        q, k = (rotate(op, each, places, (cosines, sines), interleaved=turn) for each in (q, k))
    room = max(int(op.array(longest).reshape(())), 0 if past_key is None else op.shape(past_key)[2])
    k, v = _cached(op, past_key, k, lengths, room), _cached(op, past_value, v, lengths, room)
    scores = _grouped_scores(node, op, q, k, attention_bias)
    weights = _weights(node, op, scores, sink, _allowed(node, lengths, room))
    b, _, s, h = op.shape(q)
    y = joined_heads(op, op.reshape(op.MatMul(weights, op.Unsqueeze(v, np.array([2]))), b, heads, s, h))
    padded = (lengths.places >= lengths.total[:, None])[..., None]
    if not padded.any():
        return y, k, v
    behind = (np.arange(room) >= lengths.total[:, None])[:, None, :, None]
    return _free(op, y, padded), _free(op, k, behind), _free(op, v, behind)


def _free(op: Operators, x: Tensor, places: Array) -> Tensor:
    """Return the tensor with anything allowed in places of padding, of which the definition says nothing."""
    return op.within(x, np.where(np.broadcast_to(places, op.shape(x)), np.inf, 0.0))


def _lengths(op: Operators, last_places: Tensor, longest: Tensor, new: int) -> _Lengths:
    total = op.array(last_places).astype(np.int64).ravel() + 1
    first = new == int(op.array(longest).reshape(()))
    past = total - new if not first else np.zeros_like(total)
    if (past < 0).any() or (first and (total > new).any()):
        raise Unsupported(f"GroupQueryAttention of {new} new places for sequences of {total.tolist()}")
    return _Lengths(past, total, new)


def _stated_places(positions: Array, lengths: _Lengths) -> Array:
    """Return the places (b, s) that an input states; of the first prompt its first number alone counts."""
    if not lengths.past.any():
        return np.asarray(positions.ravel()[0] + np.broadcast_to(np.arange(lengths.new), positions.shape))
    return positions


def _cached(op: Operators, past: Tensor | None, new: Tensor, lengths: _Lengths, room: int) -> Tensor:
    """Return keys or values (b, n, room, h): of each sequence what is past, then the new ones, then zeros."""
    b, n, s, h = op.shape(new)
    rows = []
    for i in range(b):
        row, before = _row(op, new, i), int(lengths.past[i])
        before_new = [] if past is None or not before else [_first(op, _row(op, past, i), before)]
        behind = room - before - s
        rows.append(op.Concat(*before_new, row, *([np.zeros((1, n, behind, h))] if behind else []), axis=2))
    return op.Concat(*rows, axis=0)


def _row(op: Operators, x: Tensor, i: int) -> Tensor:
    return op.Slice(x, np.array([i]), np.array([i + 1]), np.array([0]))


def _first(op: Operators, x: Tensor, count: int) -> Tensor:
    return op.Slice(x, np.array([0]), np.array([count]), np.array([2]))


def _grouped_scores(node: OperatorNode, op: Operators, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Return the scaled products (b, groups, heads of a group, s, t), capped where the attribute says so, a bias added."""
    b, heads, s, h = op.shape(q)
    groups, t = op.shape(k)[1:3]
    scores = scaled_scores(op, node, op.reshape(q, b, groups, heads // groups, s, h), op.Unsqueeze(k, np.array([2])))
    if cap := node.attributes.get("softcap"):
        scores = op.Mul(op.Tanh(op.Div(scores, cap)), cap)
    if bias is None:
        return scores
    images, several, rows, length = op.shape(bias)
    if length < t:
        bias = op.Pad(bias, np.array([0, 0, 0, 0, 0, 0, 0, t - length]))
    split = (groups, heads // groups) if several > 1 else (1, 1)
    return op.Add(scores, op.reshape(bias, images, *split, rows, t))


def _allowed(node: OperatorNode, lengths: _Lengths, room: int) -> Array:
    """Return which keys (b, 1, 1, s, t) each query sees: none behind its sequence, none later, none before its window."""
    key, place = np.arange(room), lengths.places[..., None]
    allowed = key < lengths.total[:, None, None]
    if node.attributes["causal"]:
        allowed = allowed & (key <= place)
    window = node.attributes["local_window_size"]
    if window > 0:
        allowed = allowed & (key > place - window)
    return np.asarray(np.broadcast_to(allowed, (len(place), lengths.new, room))[:, None, None])


def _weights(node: OperatorNode, op: Operators, scores: Tensor, sink: Tensor | None, allowed: Array) -> Tensor:
    """Return the softmax of the allowed scores; a sink takes part in it with a score of its own for each head, or with 0."""
    scores = op.Where(allowed, scores, -np.inf)
    if sink is None and node.attributes.get("smooth_softmax") != 1:
        return op.Softmax(scores, axis=-1)
    b, groups, heads, s, t = op.shape(scores)
    level = np.zeros((1, groups, heads, 1, 1)) if sink is None else op.reshape(sink, 1, groups, heads, 1, 1)
    column = op.Expand(level, np.array([b, groups, heads, s, 1]))
    weights = op.Softmax(op.Concat(scores, column, axis=-1), axis=-1)
    return op.Slice(weights, np.array([0]), np.array([t]), np.array([4]))
