"""ONNX Runtime's matrix products and convolutions with what it fuses to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.errors import Unsupported
from actconform.onnx.evaluate.contrib.activations import fast_gelu
from actconform.onnx.evaluate.contrib.registry import contrib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.evaluate.contrib.registry import Operators, Tensor
    from actconform.onnx.evaluate.elementwise import OperatorNode

# What may follow a product, and the names that its parameters have in the standard, in order.
ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Clip": (),
    "Elu": ("alpha",),
    "HardSwish": (),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}


def _activated(op: Operators, name: str | None, parameters: Sequence[float], y: Tensor) -> Tensor:
    """Return the activation of y; parameters that are not stated have the standard's defaults."""
    if not name:
        return y
    if name not in ACTIVATIONS:
        raise Unsupported(f"a product with the fused activation {name}; known are {', '.join(ACTIVATIONS)}")
    if name == "Clip":
        return op.Clip(y, *(np.asarray(bound) for bound in parameters[:2]))
    return op.apply(name, [y], 1, dict(zip(ACTIVATIONS[name], parameters, strict=False)))


@contrib("FusedMatMul", "TransposeMatMul", "FusedMatMulActivation", alpha=1.0)
def _fused_matmul(node: OperatorNode, op: Operators, a: Tensor, b: Tensor) -> Tensor:
    attributes = node.attributes
    product = op.MatMul(*(_turned(op, attributes, side, each) for side, each in (("A", a), ("B", b))))
    scaled = product if attributes["alpha"] == 1.0 else op.Mul(product, attributes["alpha"])
    if attributes.get("activation") == "Softmax":
        return op.Softmax(scaled, axis=attributes.get("activation_axis", -1))
    return _activated(op, attributes.get("activation"), _gemm_parameters(attributes), scaled)


def _turned(op: Operators, attributes: dict[str, Any], side: str, x: Tensor) -> Tensor:
    """Return one factor with its axes as the product reads them; a vector has none to exchange."""
    rank = len(op.shape(x))
    axes = list(range(rank))
    if rank < 2:
        return x
    if attributes.get(f"transBatch{side}"):
        axes = [*axes[1:-1], axes[0], axes[-1]]
    if attributes.get(f"trans{side}"):
        axes[-2:] = axes[:-3:-1]
    return x if axes == sorted(axes) else op.Transpose(x, perm=axes)


def _gemm_parameters(attributes: dict[str, Any]) -> list[float]:
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    return [attributes[name] for name in names if name in attributes]


@contrib("FusedGemm", alpha=1.0, beta=1.0, transA=0, transB=0)
def _fused_gemm(node: OperatorNode, op: Operators, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    settings = {name: node.attributes[name] for name in ("alpha", "beta", "transA", "transB")}
    y = op.Gemm(a, b, c, **settings)
    return _activated(op, node.attributes.get("activation"), _gemm_parameters(node.attributes), y)


@contrib("GemmFastGelu")
def _gemm_fast_gelu(node: OperatorNode, op: Operators, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    return fast_gelu(node, op, op.MatMul(x, w), bias)


WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def window(node: OperatorNode, *names: str) -> dict[str, Any]:
    """Return those attributes of a convolution or pooling that the standard's operator has too."""
    return {name: node.attributes[name] for name in (*WINDOW, *names) if name in node.attributes}


def channels_first(op: Operators, x: Tensor) -> Tensor:
    """Return (n, ..., c) as (n, c, ...)."""
    rank = len(op.shape(x))
    return op.Transpose(x, perm=[0, rank - 1, *range(1, rank - 1)])


def channels_last(op: Operators, x: Tensor) -> Tensor:
    """Return (n, c, ...) as (n, ..., c)."""
    rank = len(op.shape(x))
    return op.Transpose(x, perm=[0, *range(2, rank), 1])


@contrib("FusedConv")
def _fused_conv(
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    y = op.Conv(x, w, bias, **window(node))
    y = y if residual is None else op.Add(y, residual)
    return _activated(op, node.attributes.get("activation"), node.attributes.get("activation_params", ()), y)


@contrib("NhwcConv", "NhwcFusedConv")
def _nhwc_conv(
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    residual = None if residual is None else channels_first(op, residual)
    return channels_last(op, _fused_conv(node, op, channels_first(op, x), w, bias, residual))


@contrib("NhwcMaxPool")
def _nhwc_max_pool(node: OperatorNode, op: Operators, x: Tensor) -> Tensor:
    return channels_last(op, op.MaxPool(channels_first(op, x), **window(node, "ceil_mode")))


@contrib("ConvTransposeWithDynamicPads")
def _conv_transpose_with_dynamic_pads(
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    w: Tensor,
    pads: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    placed = window(node, "output_padding")
    if pads is not None:
        placed["pads"] = op.array(pads).tolist()
    return op.ConvTranspose(x, w, bias, **placed)
