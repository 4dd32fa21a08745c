"""ONNX Runtime's elementwise operators: activations with their biases, sums that it fuses, dropout as in inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.errors import Unsupported
from actconform.onnx.evaluate.contrib.registry import contrib

if TYPE_CHECKING:
    from actconform.onnx.evaluate.contrib.registry import Operators, Tensor
    from actconform.onnx.evaluate.elementwise import OperatorNode


@contrib("BiasGelu", "Gelu")
def _gelu(_: OperatorNode, op: Operators, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return op.Gelu(x if bias is None else op.Add(x, bias))


@contrib("FastGelu")
def fast_gelu(_: OperatorNode, op: Operators, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the approximation of Gelu by tanh."""
    return op.Gelu(x if bias is None else op.Add(x, bias), approximate="tanh")


@contrib("QuickGelu", alpha=1.702)
def _quick_gelu(node: OperatorNode, op: Operators, x: Tensor) -> Tensor:
    return op.Mul(x, op.Sigmoid(op.Mul(x, node.attributes["alpha"])))


@contrib("ScaledSiLU", alpha=1.0)
def _scaled_silu(node: OperatorNode, op: Operators, x: Tensor, scale: Tensor | None = None) -> Tensor:
    return silu(op, op.Mul(x, node.attributes["alpha"] if scale is None else scale))


def silu(op: Operators, x: Tensor) -> Tensor:
    """Return x * sigmoid(x)."""
    return op.Mul(x, op.Sigmoid(x))


@contrib("BiasSplitGelu")
def _bias_split_gelu(_: OperatorNode, op: Operators, x: Tensor, bias: Tensor) -> Tensor:
    left, right = op.Split(op.Add(x, bias), outputs=2, axis=-1, num_outputs=2)
    return op.Mul(left, op.Gelu(right))


@contrib("BiasAdd")
def _bias_add(_: OperatorNode, op: Operators, x: Tensor, bias: Tensor, skip: Tensor) -> Tensor:
    return op.Add(op.Add(x, bias), skip)


@contrib("GatedAdd")
def _gated_add(_: OperatorNode, op: Operators, x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    return op.Add(x, op.Mul(y, gate))


@contrib("BiasSoftmax", axis=1)
def _bias_softmax(node: OperatorNode, op: Operators, x: Tensor, bias: Tensor) -> Tensor:
    """Softmax over all axes from `axis` on together. Both ways of `is_inner_broadcast` are the broadcasting of Add."""
    total = op.Add(x, bias)
    shape = op.shape(total)
    rows = op.reshape(total, *shape[: node.attributes["axis"] % len(shape)], -1)
    return op.reshape(op.Softmax(rows, axis=-1), *shape)


@contrib("BiasDropout", types=(0, "BOOL"))
def _bias_dropout(
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    ratio: Tensor | None = None,
    training: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    y, mask = _dropout(node, op, op.Add(x, bias), ratio, training)
    return (y if residual is None else op.Add(y, residual)), mask


def _dropout(
    node: OperatorNode, op: Operators, x: Tensor, ratio: Tensor | None, training: Tensor | None
) -> tuple[Tensor, Any]:
    if training is not None and bool(op.array(training)) and (ratio is None or float(op.array(ratio)) > 0):
        raise Unsupported(f"{node.op_type} in training draws random numbers")
    return x, np.ones(op.shape(x), np.bool_)


@contrib("BitmaskDropout", "BitmaskBiasDropout", types=(0, "UINT32"))
def _bitmask_dropout(node: OperatorNode, op: Operators, x: Tensor, *inputs: Tensor | None) -> tuple[Tensor, Any]:
    """Inference: the mask keeps every element, 32 of them a number; bits behind the last element are 0."""
    bias, residual, *optional = [None, None, *inputs] if node.op_type == "BitmaskDropout" else [*inputs, None]
    ratio, training = [*optional, None, None][:2]
    y, mask = _dropout(node, op, x if bias is None else op.Add(x, bias), ratio, training)
    bits = np.packbits(np.pad(mask.ravel(), (0, -mask.size % 32)), bitorder="little")
    return (y if residual is None else op.Add(y, residual)), bits.view("<u4").astype(np.uint32)


@contrib("ComplexMul", "ComplexMulConj")
def _complex_product(node: OperatorNode, op: Operators, a: Tensor, b: Tensor) -> Tensor:
    """Return a b, or a times the conjugate of b; the last axis has real and imaginary part."""
    (a_real, a_imaginary), (b_real, b_imaginary) = (
        op.Split(each, outputs=2, axis=-1, num_outputs=2) for each in (a, b)
    )
    if node.op_type == "ComplexMulConj":
        b_imaginary = op.Neg(b_imaginary)
    real = op.Sub(op.Mul(a_real, b_real), op.Mul(a_imaginary, b_imaginary))
    imaginary = op.Add(op.Mul(a_real, b_imaginary), op.Mul(a_imaginary, b_real))
    return op.Concat(real, imaginary, axis=-1)
