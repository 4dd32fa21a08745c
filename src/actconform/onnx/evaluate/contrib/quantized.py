"""ONNX Runtime's operators on integers of 8 bits with scales: numbers are (x - zero point) * scale, results rounded to the nearest level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from actconform.onnx.evaluate.contrib.products import channels_first, channels_last, window
from actconform.onnx.evaluate.contrib.registry import contrib

if TYPE_CHECKING:
    from actconform.onnx.evaluate.contrib.registry import Operators, Tensor
    from actconform.onnx.evaluate.elementwise import OperatorNode


def _scalar(op: Operators, x: Tensor | None) -> Tensor | None:
    """Return a list of one number as that number."""
    return x if x is None or not op.shape(x) else op.reshape(x)


def _dequantized(op: Operators, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    return op.DequantizeLinear(x, _scalar(op, scale), _scalar(op, zero))


def _quantized(op: Operators, y: Tensor, scale: Tensor, zero: Tensor | None, like: Tensor) -> Tensor:
    """Return the nearest levels of y; without a zero point in the element type of `like`, around 0."""
    zero = np.zeros((), op.array(like).dtype) if zero is None else _scalar(op, zero)
    return op.QuantizeLinear(y, _scalar(op, scale), zero)


def _parameters(node: OperatorNode, op: Operators, *parameters: Tensor | None) -> list[Tensor | None]:
    """Return scale and zero point: of each slice along the attribute's axis, and without that attribute of the whole tensor."""
    return [each if "axis" in node.attributes else _scalar(op, each) for each in parameters]


@contrib("QuantizeLinear", types=((2, "UINT8"),))
def _quantize_linear(node: OperatorNode, op: Operators, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    return op.QuantizeLinear(x, *_parameters(node, op, scale, zero), axis=node.attributes.get("axis", 1))


@contrib("DequantizeLinear", types=(1,))
def _dequantize_linear(
    node: OperatorNode, op: Operators, x: Tensor, scale: Tensor, zero: Tensor | None = None
) -> Tensor:
    return op.DequantizeLinear(x, *_parameters(node, op, scale, zero), axis=node.attributes.get("axis", 1))


@contrib("QLinearAdd", "QLinearMul")
def _quantized_arithmetic(  # noqa: PLR0913, PLR0917  as the schema orders them
    node: OperatorNode,
    op: Operators,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None,
    scale: Tensor,
    zero: Tensor | None = None,
) -> Tensor:
    operands = _dequantized(op, a, a_scale, a_zero), _dequantized(op, b, b_scale, b_zero)
    return _quantized(op, op.apply(node.op_type.removeprefix("QLinear"), operands, 1, {}), scale, zero, like=a)


@contrib("QLinearSigmoid", "QLinearLeakyRelu", alpha=0.01)
def _quantized_activation(
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    scale: Tensor,
    zero: Tensor | None = None,
) -> Tensor:
    values = _dequantized(op, x, x_scale, x_zero)
    leaky = node.op_type == "QLinearLeakyRelu"
    y = op.LeakyRelu(values, alpha=node.attributes["alpha"]) if leaky else op.Sigmoid(values)
    return _quantized(op, y, scale, zero, like=x)


@contrib("QLinearSoftmax", axis=-1)
def _quantized_softmax(
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    scale: Tensor,
    zero: Tensor | None = None,
) -> Tensor:
    """Before opset 13 softmax over all axes from `axis` on together."""
    shape, axis = op.shape(x), node.attributes["axis"]
    values = _dequantized(op, x, x_scale, x_zero)
    if node.attributes["opset"] < 13:
        values = op.reshape(values, *shape[: axis % len(shape)], -1)
        axis = -1
    return _quantized(op, op.reshape(op.Softmax(values, axis=axis), *shape), scale, zero, like=x)


@contrib("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", channels_last=0)
def _quantized_mean(
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    scale: Tensor,
    zero: Tensor | None = None,
) -> Tensor:
    last = node.attributes["channels_last"]
    values = _dequantized(op, x, x_scale, x_zero)
    values = channels_first(op, values) if last else values
    match node.op_type:
        case "QLinearAveragePool":
            y = op.AveragePool(values, **window(node, "ceil_mode", "count_include_pad"))
        case "QLinearGlobalAveragePool":
            y = op.GlobalAveragePool(values)
        case _:
            y = op.ReduceMean(values, np.array(node.attributes["axes"]), keepdims=node.attributes["keepdims"])
    return _quantized(op, channels_last(op, y) if last else y, scale, zero, like=x)


@contrib("QLinearConcat", types=(1,))
def _quantized_concat(node: OperatorNode, op: Operators, scale: Tensor, zero: Tensor, *inputs: Tensor) -> Tensor:
    """Inputs come in threes: a tensor, its scale, its zero point."""
    threes = zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)
    parts = [_quantized(op, _dequantized(op, *three), scale, zero, like=zero) for three in threes]
    return op.Concat(*parts, axis=node.attributes["axis"])


@contrib("QLinearWhere", types=(1,))
def _quantized_where(  # noqa: PLR0913, PLR0917  as the schema orders them
    _: OperatorNode,
    op: Operators,
    condition: Tensor,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    y: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    scale: Tensor,
    zero: Tensor,
) -> Tensor:
    chosen = op.Where(condition, _dequantized(op, x, x_scale, x_zero), _dequantized(op, y, y_scale, y_zero))
    return _quantized(op, chosen, scale, zero, like=x)


@contrib("QLinearConv", types=(7,), channels_last=0)
def _quantized_conv(node: OperatorNode, op: Operators, x: Tensor, *inputs: Tensor) -> Tensor:
    last = node.attributes["channels_last"]
    y = op.QLinearConv(channels_first(op, x) if last else x, *inputs, **window(node))
    return channels_last(op, y) if last else y


def _products(op: Operators, a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> Tensor:
    """Return the exact products of integers, 32 bits wide; a zero point may be one for each column of its tensor."""
    zeros = (_scalar(op, zero) if zero is not None and op.array(zero).size == 1 else zero for zero in (a_zero, b_zero))
    return op.MatMulInteger(a, b, *zeros)


@contrib("MatMulIntegerToFloat", types=((2, 3),))
def _matmul_integer_to_float(  # noqa: PLR0913, PLR0917  as the schema orders them
    _: OperatorNode,
    op: Operators,
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    y = op.Mul(op.real(_products(op, a, b, a_zero, b_zero)), op.Mul(a_scale, b_scale))
    return y if bias is None else op.Add(y, bias)


@contrib("DynamicQuantizeMatMul")
def _dynamic_quantize_matmul(
    node: OperatorNode,
    op: Operators,
    a: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    levels, a_scale, a_zero = op.DynamicQuantizeLinear(a, outputs=3)
    return _matmul_integer_to_float(node, op, levels, b, a_scale, b_scale, a_zero, b_zero, bias)


@contrib("QGemm", types=((8, "FLOAT"),), alpha=1.0, transA=0, transB=0)
def _quantized_gemm(  # noqa: PLR0913, PLR0917  as the schema orders them
    node: OperatorNode,
    op: Operators,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    c: Tensor | None = None,
    scale: Tensor | None = None,
    zero: Tensor | None = None,
) -> Tensor:
    """Return alpha * (a b + c) in the scale of the product, as floats, or quantized where the output has a scale."""
    a, b = (
        op.Transpose(each, perm=[1, 0]) if node.attributes[name] else each
        for each, name in ((a, "transA"), (b, "transB"))
    )
    total = _products(op, a, b, a_zero, b_zero)
    total = op.real(total if c is None else op.Add(total, c))
    y = op.Mul(total, op.Mul(op.Mul(a_scale, b_scale), node.attributes["alpha"]))
    return y if scale is None else _quantized(op, y, scale, zero, like=a)


@contrib("MulInteger", types=("INT32",))
def _integer_product(
    _: OperatorNode, op: Operators, a: Tensor, a_zero: Tensor | None, b: Tensor, b_zero: Tensor | None = None
) -> Tensor:
    factors = []
    for x, zero in ((a, a_zero), (b, b_zero)):
        wide = op.Cast(x, to=TensorProto.INT32)
        factors.append(wide if zero is None else op.Sub(wide, op.Cast(_scalar(op, zero), to=TensorProto.INT32)))
    return op.Mul(*factors)


@contrib("ReduceSumInteger", types=("INT32",))
def _integer_sum(node: OperatorNode, op: Operators, x: Tensor) -> Tensor:
    """The type of the sum, which the schema leaves open to the node's output, is taken as that of signed numbers."""
    axes = np.array(node.attributes["axes"])
    return op.ReduceSum(op.Cast(x, to=TensorProto.INT32), axes, keepdims=node.attributes["keepdims"])
