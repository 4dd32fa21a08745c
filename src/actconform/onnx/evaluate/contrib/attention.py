"""ONNX Runtime's attention: Attention, MultiHeadAttention, GroupQueryAttention, QAttention, RotaryEmbedding.

Shapes: b images, n heads, s places of the query, l new places of keys, t places of keys with the past, h numbers a head.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.errors import Unsupported
from actconform.onnx.evaluate.contrib.registry import contrib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.evaluate.contrib.registry import Operators, Tensor
    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


def refuse(node: OperatorNode, *attributes: str, **inputs: Tensor | None) -> None:
    """Raise Unsupported where one of these attributes is not 0, or one of these inputs is given."""
    stated = [f"{name} = {node.attributes[name]}" for name in attributes if node.attributes.get(name)]
    stated += [f"the input {name}" for name, tensor in inputs.items() if tensor is not None]
    if stated:
        raise Unsupported(f"{node.op_type} with {' and '.join(stated)}")


class Heads(NamedTuple):
    """Query (b, n, s, h), key (b, n, t, h) and value (b, n, t, h) of an attention."""

    query: Tensor
    key: Tensor
    value: Tensor


def separate_heads(op: Operators, x: Tensor, count: int) -> Tensor:
    """Return (b, s, n h) as (b, n, s, h)."""
    return op.Transpose(op.reshape(x, 0, 0, count, op.shape(x)[-1] // count), perm=[0, 2, 1, 3])


def joined_heads(op: Operators, x: Tensor) -> Tensor:
    """Return (b, n, s, h) as (b, s, n h)."""
    _, n, _, h = op.shape(x)
    return op.reshape(op.Transpose(x, perm=[0, 2, 1, 3]), 0, 0, n * h)


def scaled_scores(op: Operators, node: OperatorNode, query: Tensor, key: Tensor, *biases: Tensor | None) -> Tensor:
    """Return the scaled products of queries and keys (b, n, s, t), biases added."""
    scale = node.attributes.get("scale") or 1 / math.sqrt(op.shape(query)[-1])
    rank = len(op.shape(key))
    turned = op.Transpose(key, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = op.Mul(op.MatMul(query, turned), scale)
    for bias in biases:
        scores = scores if bias is None else op.Add(scores, bias)
    return scores


def _attended(op: Operators, scores: Tensor, value: Tensor, allowed: Array | None = None) -> Tensor:
    """Return the mean of the values, weighted by the softmax of the scores, where they are allowed."""
    if allowed is not None:
        scores = op.Where(allowed, scores, -np.inf)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _causal(node: OperatorNode, s: int, t: int, past: int) -> Array | None:
    """Return which keys (s, t) a query sees where none sees a later one; None where all see all, as one query alone does."""
    if not node.attributes.get("unidirectional") or s == 1:
        return None
    if past + s != t:
        raise Unsupported(
            f"{node.op_type} of {s} queries that see no later key, with {t - past} new keys that are others"
        )
    return np.arange(t) <= np.arange(s)[:, None] + past


def _mask(node: OperatorNode, op: Operators, mask: Tensor | None, b: int, t: int) -> Array | None:
    """Return what a mask adds to the scores: `mask_filter_value` where it hides a key, in a shape that broadcasts to (b, n, s, t).

    A mask of integers is (b, t) or (b, s, t), 0 where a key is hidden; or (b): the end of each sequence; or (2 b): ends and
    beginnings. One of a single column is a placeholder that hides nothing.
    """
    if mask is None:
        return None
    values = op.array(mask)
    places = np.arange(t)
    if values.ndim == 1 and len(values) in (b, 2 * b):
        shown = places < values[:b, None]
        if len(values) == 2 * b:
            shown &= places >= values[b:, None]
    elif values.ndim == 2 and values.shape[1] == 1 != t:
        return None
    elif values.ndim in (2, 3) and values.shape[-1] == t:
        shown = values > 0
    else:
        raise Unsupported(f"{node.op_type} with a mask of shape {values.shape} for {b} sequences of {t} places")
    shown = shown[:, None, None] if shown.ndim == 2 else shown[:, None]
    return np.where(shown, 0.0, node.attributes["mask_filter_value"])


def _with_past(op: Operators, past: Tensor | None, new: Tensor) -> Tensor:
    return new if past is None else op.Concat(past, new, axis=2)


def _self_attention(
    node: OperatorNode,
    op: Operators,
    projected: Tensor,
    sizes: Sequence[int],
    mask: Tensor | None,
    past: Tensor | None,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the attention of queries, keys and values side by side (b, s, sum of sizes), and keys and values with the past."""
    parts = op.Split(projected, np.array(sizes), outputs=3, axis=-1)
    query, key, value = (separate_heads(op, part, node.attributes["num_heads"]) for part in parts)
    if past is not None:
        key_past, value_past = (op.Squeeze(each, np.array([0])) for each in op.Split(past, outputs=2, num_outputs=2))
        key, value = _with_past(op, key_past, key), _with_past(op, value_past, value)
    b, _, s, _ = op.shape(query)
    t = op.shape(key)[2]
    scores = scaled_scores(op, node, query, key, _mask(node, op, mask, b, t), bias)
    y = joined_heads(op, _attended(op, scores, value, _causal(node, s, t, t - s)))
    if op.shape(key) != op.shape(value):
        return y, np.empty(0)
    return y, op.Concat(*(op.Unsqueeze(each, np.array([0])) for each in (key, value)), axis=0)


@contrib("Attention", types=(0, 0), mask_filter_value=-10000.0)
def _attention(  # noqa: PLR0913, PLR0917  as the schema orders them
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_length: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    refuse(node, "do_rotary", "past_present_share_buffer", past_sequence_length=past_length)
    projected = op.MatMul(x, weights)
    projected = projected if bias is None else op.Add(projected, bias)
    sizes = node.attributes.get("qkv_hidden_sizes") or [op.shape(weights)[1] // 3] * 3
    return _self_attention(node, op, projected, sizes, mask, past, attention_bias)


@contrib("QAttention", types=(3, 3), mask_filter_value=-10000.0)
def _quantized_attention(  # noqa: PLR0913, PLR0917  as the schema orders them
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    weights: Tensor,
    bias: Tensor,
    x_scale: Tensor,
    weight_scale: Tensor,
    mask: Tensor | None = None,
    x_zero: Tensor | None = None,
    weight_zero: Tensor | None = None,
    past: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    refuse(node, "do_rotary", "past_present_share_buffer")
    products = op.real(op.MatMulInteger(x, weights, x_zero, weight_zero))
    projected = op.Add(op.Mul(products, op.Mul(x_scale, weight_scale)), bias)
    return _self_attention(node, op, projected, [op.shape(weights)[1] // 3] * 3, mask, past, None)


@contrib("MultiHeadAttention", types=(0, 0, 0, 0), mask_filter_value=-10000.0)
def _multi_head_attention(  # noqa: PLR0913, PLR0917  as the schema orders them
    node: OperatorNode,
    op: Operators,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    past_length: Tensor | None = None,
    cache_indirection: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return the attention, keys and values with the past, and the scores before the softmax where all of them count."""
    refuse(node, past_sequence_length=past_length, cache_indirection=cache_indirection)
    heads = _three_heads(node, op, query, key, value, bias)
    k, v = _with_past(op, past_key, heads.key), _with_past(op, past_value, heads.value)
    b, _, s, _ = op.shape(heads.query)
    t = op.shape(k)[2]
    scores = scaled_scores(op, node, heads.query, k, _mask(node, op, mask, b, t), attention_bias)
    causal = _causal(node, s, t, t - op.shape(heads.key)[2])
    y = joined_heads(op, _attended(op, scores, v, causal)), k, v
    return y if causal is not None else (*y, scores)


def _three_heads(
    node: OperatorNode, op: Operators, query: Tensor, key: Tensor | None, value: Tensor | None, bias: Tensor | None
) -> Heads:
    """Return the heads of three tensors, of a packed query (b, s, n, 3, h), or of a query and a packed key (b, l, n, 2, h)."""
    count = node.attributes["num_heads"]
    tensors = [query, key, value]
    if len(op.shape(query)) == 5:
        tensors = _unpacked(op, query)
    elif key is not None and len(op.shape(key)) == 5:
        tensors = [query, *_unpacked(op, key)]
    if any(tensor is None for tensor in tensors):
        raise Unsupported("MultiHeadAttention without a key or a value, where no other input has them packed")
    if bias is not None:
        sizes = np.array([op.shape(tensor)[-1] for tensor in tensors])
        if any(len(op.shape(tensor)) == 4 for tensor in tensors):
            raise Unsupported("MultiHeadAttention with a bias to keys that come as (b, n, l, h)")
        biases = op.Split(bias, sizes, outputs=3, axis=0)
        tensors = [op.Add(tensor, part) for tensor, part in zip(tensors, biases, strict=True)]
    return Heads(*(each if len(op.shape(each)) == 4 else separate_heads(op, each, count) for each in tensors))


def _unpacked(op: Operators, packed: Tensor) -> list[Tensor]:
    """Return the parts of (b, s, n, parts, h), each (b, s, n h)."""
    b, s, n, parts, h = op.shape(packed)
    split = op.Split(packed, outputs=parts, axis=3, num_outputs=parts)
    return [op.reshape(part, b, s, n * h) for part in split]


@contrib("RotaryEmbedding")
def _rotary_embedding(
    node: OperatorNode, op: Operators, x: Tensor, positions: Tensor, cosines: Tensor, sines: Tensor
) -> Tensor:
    """Rotate the first numbers of each head, as many as the caches have angles, by the angles of its place."""
    refuse(node, "is_packed_batching")
    attributes = node.attributes
    if attributes.get("scale", 1.0) != 1.0:
        raise Unsupported(f"RotaryEmbedding with scale = {attributes['scale']}, which its definition does not explain")
    shape = op.shape(x)
    rotated = 2 * op.shape(cosines)[1]
    count = attributes["num_heads"] if attributes.get("rotary_embedding_dim") else shape[-1] // rotated
    heads = x if len(shape) == 4 else separate_heads(op, x, count)
    places = op.array(positions)
    if places.size == 1:
        places = places.reshape(1, 1) + np.arange(op.shape(heads)[2])
    y = rotate(op, heads, places, (cosines, sines), interleaved=bool(attributes.get("interleaved")))
    return y if len(shape) == 4 else joined_heads(op, y)


def rotate(op: Operators, x: Tensor, places: Array, caches: tuple[Tensor, Tensor], *, interleaved: bool) -> Tensor:
    """Return heads (b, n, s, h) with their first numbers rotated by the angles in the caches at places (b, s).

    A pair is two neighbours if interleaved, and one number of the first and of the second half otherwise.
    """
    cosine, sine = (op.Unsqueeze(op.Gather(cache, places, axis=0), np.array([1])) for cache in caches)
    half, h = op.shape(cosine)[-1], op.shape(x)[-1]
    turned, rest = op.Split(x, np.array([2 * half, h - 2 * half]), outputs=2, axis=-1)
    if interleaved:
        pairs = op.Split(op.reshape(turned, 0, 0, 0, half, 2), outputs=2, axis=-1, num_outputs=2)
        first, second = (op.Squeeze(each, np.array([-1])) for each in pairs)
    else:
        first, second = op.Split(turned, outputs=2, axis=-1, num_outputs=2)
    real = op.Sub(op.Mul(first, cosine), op.Mul(second, sine))
    imaginary = op.Add(op.Mul(first, sine), op.Mul(second, cosine))
    if interleaved:
        pairs = [op.Unsqueeze(each, np.array([-1])) for each in (real, imaginary)]
        y = op.reshape(op.Concat(*pairs, axis=-1), 0, 0, 0, 2 * half)
    else:
        y = op.Concat(real, imaginary, axis=-1)
    return op.Concat(y, rest, axis=-1) if h > 2 * half else y
