"""ONNX Runtime's normalizations, with the sums, embeddings and activations that it fuses to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.errors import Unsupported
from actconform.onnx.evaluate.contrib.activations import silu
from actconform.onnx.evaluate.contrib.products import channels_first, channels_last
from actconform.onnx.evaluate.contrib.registry import contrib

if TYPE_CHECKING:
    from actconform.onnx.evaluate.contrib.registry import Operators, Tensor
    from actconform.onnx.evaluate.elementwise import OperatorNode


@contrib("SimplifiedLayerNormalization", domain="", types=(1, "FLOAT"), axis=-1, epsilon=1e-5)
def _simplified_layer_normalization(
    node: OperatorNode, op: Operators, x: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Return x over its root mean square, times the scale; and 1 over the root mean square."""
    axis, epsilon = node.attributes["axis"], node.attributes["epsilon"]
    rank = len(op.shape(x))
    axes = np.arange(axis % rank, rank)
    mean_square = op.ReduceMean(op.Mul(x, x), axes, keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(op.Add(mean_square, epsilon)))
    return op.RMSNormalization(x, scale, axis=axis, epsilon=epsilon), inverse


@contrib("SkipLayerNormalization", types=(0, "FLOAT", "FLOAT", 0), epsilon=1e-12)
def _skip_layer_normalization(
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, ...]:
    total = _skip_sum(op, x, skip, bias)
    y, mean, inverse = op.LayerNormalization(total, scale, shift, outputs=3, epsilon=node.attributes["epsilon"])
    return y, mean, inverse, total


@contrib("SkipSimplifiedLayerNormalization", types=(0, "FLOAT", "FLOAT", 0), epsilon=1e-12)
def _skip_simplified_layer_normalization(
    node: OperatorNode, op: Operators, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Return the normalized sum, nothing defined in place of the mean, 1 over the root mean square, and the sum."""
    total = _skip_sum(op, x, skip, bias)
    attributes = {"axis": -1, **node.attributes}
    y, inverse = _simplified_layer_normalization(node._replace(attributes=attributes), op, total, scale)
    return y, op.within(np.zeros(op.shape(inverse)), np.array(np.inf)), inverse, total


def _skip_sum(op: Operators, x: Tensor, skip: Tensor, bias: Tensor | None) -> Tensor:
    total = op.Add(x, skip)
    return total if bias is None else op.Add(total, bias)


@contrib("EmbedLayerNormalization", types=(2, "INT32", 2), epsilon=1e-12)
def _embed_layer_normalization(  # noqa: PLR0913, PLR0917  as the schema orders them
    node: OperatorNode,
    op: Operators,
    words: Tensor,
    segments: Tensor | None,
    word_embedding: Tensor,
    position_embedding: Tensor,
    segment_embedding: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return the normalized sum of embeddings, the number of words that the mask keeps (0 without a mask), and the sum."""
    batch, length = op.shape(words)
    positions = np.arange(length)[None] if positions is None else positions
    total = op.Add(op.Gather(word_embedding, words, axis=0), op.Gather(position_embedding, positions, axis=0))
    if segments is not None and segment_embedding is not None:
        total = op.Add(total, op.Gather(segment_embedding, segments, axis=0))
    y = op.LayerNormalization(total, scale, shift, epsilon=node.attributes["epsilon"])
    words_kept = np.zeros(batch) if mask is None else (op.array(mask) == 1).sum(axis=1)
    return y, words_kept.astype(np.int32), total


@contrib("QEmbedLayerNormalization", types=("FLOAT", "INT32"), epsilon=1e-12)
def _quantized_embed_layer_normalization(
    node: OperatorNode, op: Operators, words: Tensor, segments: Tensor | None, *inputs: Tensor | None
) -> tuple[Tensor, ...]:
    """The same of tables in 8 bits: word, position, segment, scale, shift, then mask, then their scales and zero points."""
    tables, mask, scales, zeros = inputs[:5], inputs[5], inputs[6:11], inputs[11:16]
    word, position, segment, scale, shift = (
        None if table is None else op.DequantizeLinear(table, *(op.reshape(each, *()) for each in (step, zero)))
        for table, step, zero in zip(tables, scales, zeros, strict=True)
    )
    return _embed_layer_normalization(node, op, words, segments, word, position, segment, scale, shift, mask)[:2]


@contrib("GroupNorm", epsilon=1e-5, channels_last=1)
def _group_norm(node: OperatorNode, op: Operators, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    last, activation = node.attributes["channels_last"], node.attributes["activation"]
    if activation not in (0, 1):
        raise Unsupported(f"{node.op_type} with activation = {activation}; known are 0 (none) and 1 (SiLU)")
    settings = {"num_groups": node.attributes["groups"], "epsilon": node.attributes["epsilon"]}
    y = op.GroupNormalization(channels_first(op, x) if last else x, scale, shift, **settings)
    y = silu(op, y) if activation else y
    return channels_last(op, y) if last else y


@contrib("SkipGroupNorm", types=(0, 0), epsilon=1e-5, channels_last=1)
def _skip_group_norm(
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    skip: Tensor,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`skip` may have one number for each image and channel alone, as (n, c) too."""
    last = node.attributes["channels_last"]
    if len(op.shape(skip)) == 2:
        n, c = op.shape(skip)
        skip = op.reshape(skip, *((n, 1, 1, c) if last else (n, c, 1, 1)))
    if bias is not None and not last:
        bias = op.reshape(bias, -1, 1, 1)
    total = _skip_sum(op, x, skip, bias)
    return _group_norm(node, op, total, scale, shift), total
