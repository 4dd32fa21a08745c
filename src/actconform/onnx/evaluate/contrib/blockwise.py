"""ONNX Runtime's operators on weights of few bits, of which each block has a scale: MatMulNBits, MatMulBnb4, GatherBlockQuantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.errors import Unsupported
from actconform.onnx.evaluate.contrib.registry import contrib

if TYPE_CHECKING:
    from actconform.onnx.evaluate.contrib.registry import Operators, Tensor
    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


@contrib("MatMulNBits", bits=4, accuracy_level=0)
def _matmul_n_bits(  # noqa: PLR0913, PLR0917  as the schema orders them
    node: OperatorNode,
    op: Operators,
    a: Tensor,
    packed: Tensor,
    scales: Tensor,
    zeros: Tensor | None = None,
    group_index: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Weights of few bits, of which each block along K has a scale and a zero point; 2^(bits - 1) where it is left out."""
    attributes = node.attributes
    if group_index is not None and op.array(group_index).size:
        raise Unsupported("MatMulNBits with the deprecated input g_idx")
    if attributes.get("weight_prepacked"):
        raise Unsupported("MatMulNBits with weights laid out for one execution provider (weight_prepacked)")
    n, k, bits, size = (int(attributes[name]) for name in ("N", "K", "bits", "block_size"))
    blocks = -(-k // size)
    levels = unpacked(op.array(packed).reshape(n * blocks, -1), bits, size).reshape(n, blocks, size)
    stated = None if zeros is None else op.array(zeros)
    if stated is None:
        centre: Tensor = np.array(2.0 ** (bits - 1))
    elif stated.dtype == np.uint8:
        centre = unpacked(stated.reshape(n, -1), bits, blocks).astype(np.float64)[..., None]
    else:
        centre = op.reshape(zeros, n, blocks, 1)
    weights = op.Mul(op.Sub(levels.astype(np.float64), centre), op.reshape(scales, n, blocks, 1))
    weights = op.Slice(op.reshape(weights, n, blocks * size), np.array([0]), np.array([k]), np.array([1]))
    y = op.MatMul(_lowered(op, a, int(attributes["accuracy_level"]), size), op.Transpose(weights, perm=[1, 0]))
    return y if bias is None else op.Add(y, bias)


def unpacked(packed: Array, bits: int, count: int) -> Array:
    """Return the first `count` numbers of each row of bytes, `bits` bits each, the lowest bits first."""
    stream = np.unpackbits(packed.astype(np.uint8), axis=-1, bitorder="little")[:, : count * bits]
    return stream.reshape(len(packed), count, bits).astype(np.int64) @ (1 << np.arange(bits))


def _lowered(op: Operators, a: Tensor, accuracy_level: int, size: int) -> Tensor:
    """Return `a` with the error that the attribute allows: rounded to float16, bfloat16, or to 8 bits in blocks of `size`."""
    values = np.abs(op.array(a))
    if accuracy_level in (0, 1):
        return a
    if accuracy_level in (2, 3):
        return op.within(a, values * (2.0**-11 if accuracy_level == 2 else 2.0**-8))
    k = values.shape[-1]
    blocks = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -k % size)]).reshape(*values.shape[:-1], -1, size)
    largest = np.repeat(blocks.max(axis=-1), size, axis=-1)[..., :k]
    return op.within(a, largest * (0.5 / 127 * (1 + 2.0**-10)))  # half a level, and the rounding of its size


# Dettmers et al. 2023, QLoRA: quantiles of the normal distribution (appendix E); and a float of one, two and one bits
_NORMAL_FLOAT = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_SMALL_FLOAT = (0.0, 0.0052083333, 0.6666666667, 1.0, 0.3333333333, 0.5, 0.1666666667, 0.25)


@contrib("MatMulBnb4", transB=1)
def _matmul_4_bits(node: OperatorNode, op: Operators, a: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
    """Weights (n, k) as one row of blocks, two numbers a byte, the first in the higher bits."""
    attributes = node.attributes
    n, k, size = (int(attributes[name]) for name in ("N", "K", "block_size"))
    numbers = np.array(_NORMAL_FLOAT if attributes["quant_type"] else (*_SMALL_FLOAT, *(-x for x in _SMALL_FLOAT)))
    pairs = op.array(packed).ravel()
    levels = np.stack([pairs >> 4, pairs & 15], axis=1).ravel()[: n * k]
    weights = op.Mul(numbers[levels], op.Gather(scales, np.arange(n * k) // size, axis=0))
    matrix = op.reshape(weights, n, k)
    return op.MatMul(a, op.Transpose(matrix, perm=[1, 0]) if attributes["transB"] else matrix)


@contrib("GatherBlockQuantized", types=(2,), bits=4, block_size=128, gather_axis=0, quantize_axis=1)
def _gather_block_quantized(
    node: OperatorNode, op: Operators, data: Tensor, indices: Tensor, scales: Tensor, zeros: Tensor | None = None
) -> Tensor:
    """Return slices of a table of few bits as numbers; zeros for a place outside the table."""
    attributes = node.attributes
    table, places = op.array(data), op.array(indices)
    centre: Tensor = np.array(0.0) if zeros is None else op.array(zeros)
    if table.dtype == np.uint8:
        bits = int(attributes["bits"])
        table = _rows_unpacked(table, bits, table.shape[-1] * 8 // bits)
        centre = np.array(2.0 ** (bits - 1)) if zeros is None else _rows_unpacked(centre, bits, op.shape(scales)[-1])
    rank = table.ndim
    along, across = attributes["gather_axis"] % rank, attributes["quantize_axis"] % rank
    rows = table.shape[along]
    inside = (places >= -rows) & (places < rows)
    flat = np.where(inside, places, 0).ravel() % rows
    shape = (*table.shape[:along], *places.shape, *table.shape[along + 1 :])
    if along != across:
        table = table.take(flat, along)
        scales, centre = (
            op.Gather(each, flat, axis=along) if op.array(each).ndim and op.shape(each)[along] > 1 else each
            for each in (scales, centre.astype(np.float64))
        )
    length = table.shape[across]
    blocks = np.arange(length) // (int(attributes["block_size"]) or length)
    scales, centre = (
        op.Gather(each, blocks, axis=across) if op.array(each).ndim and op.shape(each)[across] > 1 else each
        for each in (scales, op.array(centre).astype(np.float64))
    )
    y = op.Mul(op.Sub(table.astype(np.float64), centre), scales)
    y = op.Gather(y, flat, axis=along) if along == across else y
    shown = inside.reshape(*[1] * along, *places.shape, *[1] * (rank - along - 1))
    return op.Where(shown, op.reshape(y, *shape), 0.0)


def _rows_unpacked(packed: Array, bits: int, count: int) -> Array:
    return unpacked(packed.reshape(-1, packed.shape[-1]), bits, count).reshape(*packed.shape[:-1], count)
