"""How many terms an operator adds up for one element of its output: what rounding grows with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.checking.flatten import Array
    from actconform.onnx.evaluate.elementwise import OperatorNode

    Shapes = Sequence[tuple[int, ...]]

ROWS = ("Hardmax", "LogSoftmax", "LpNormalization", "Softmax", "CumProd", "CumSum")
GROUPS = ("GroupNormalization", "InstanceNormalization")
LAYERS = ("LayerNormalization", "MeanVarianceNormalization", "RMSNormalization", "SkipLayerNormalization")
POOLS = ("AveragePool", "LpPool")


def sum_length(node: OperatorNode, inputs: Sequence[Array | None], output: Array) -> int:
    """Return the number of terms, at least 1: products of a row and a column, elements of a row, of a window, of a group."""
    shapes = [() if array is None else array.shape for array in inputs]
    if not shapes or not shapes[0]:
        return 1
    return max(_LENGTHS.get(node.op_type, _by_size)(node, shapes, output.size), 1)


def _by_size(node: OperatorNode, shapes: Shapes, outputs: int) -> int:
    """Of an operator with a smaller output than input, as many as each element stands for; of all else a term or a product."""
    first = math.prod(shapes[0])
    if node.op_type.startswith(("Reduce", "Global")):
        return first // max(outputs, 1)
    if node.domain and len(shapes) > 1 and len(shapes[1]) > 1:  # of com.microsoft: mostly fused products
        return shapes[0][-1]
    return 1


def _row(node: OperatorNode, shapes: Shapes, _: int) -> int:
    axis = int(node.attributes.get("axis", -1)) % len(shapes[0])
    flattened = node.op_type in ("LogSoftmax", "Softmax") and node.opset < 13
    return math.prod(shapes[0][axis:]) if flattened else shapes[0][axis]


def _recurrent(_: OperatorNode, shapes: Shapes, __: int) -> int:
    return shapes[1][-1] + shapes[2][-1]


def _einsum(node: OperatorNode, shapes: Shapes, _: int) -> int:
    """Return the product of the sizes of all letters that are not in the output."""
    left, arrow, right = str(node.attributes["equation"]).replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for letters, shape in zip(left.split(","), shapes, strict=True):
        head, ellipsis, tail = letters.partition("...")
        sizes.update(zip(head, shape, strict=False))
        if ellipsis:
            sizes.update(zip(reversed(tail), reversed(shape), strict=False))
    kept = right if arrow else [letter for letter in sizes if left.count(letter) == 1]
    return math.prod(size for letter, size in sizes.items() if letter not in kept)


_LENGTHS: dict[str, Callable[[OperatorNode, Shapes, int], int]] = {
    **dict.fromkeys(ROWS, _row),
    **dict.fromkeys(GROUPS, lambda _, shapes, __: math.prod(shapes[0][2:])),
    **dict.fromkeys(LAYERS, lambda node, shapes, _: math.prod(shapes[0][int(node.attributes.get("axis", -1)) :])),
    **dict.fromkeys(POOLS, lambda node, _, __: math.prod(node.attributes["kernel_shape"])),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
    **dict.fromkeys(("Conv", "FusedConv", "DeformConv"), lambda _, shapes, __: math.prod(shapes[1][1:])),
    "Attention": lambda _, shapes, __: shapes[0][-1] + shapes[1][-2] if len(shapes[1]) > 1 else 1,
    "BatchNormalization": lambda _, __, ___: 1,
    "ConvTranspose": lambda _, shapes, __: shapes[1][0] * math.prod(shapes[1][2:]),
    "Einsum": _einsum,
    "Gemm": lambda node, shapes, _: shapes[0][0 if node.attributes.get("transA") else -1],
    "MatMul": lambda _, shapes, __: shapes[0][-1],
}
