"""The graphs of layers: dense and convolutional ones, normalization, activations, and losses.

Each is the standard's own operator where there is one. Images come with their channels last and leave so; between the two
Transposes they are as ONNX has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.catalog.models.layer_kinds import CLIP, kernel_of, same_pads
from actconform.onnx.nodes import graph_of, layer_graph

if TYPE_CHECKING:
    from actconform.onnx.nodes import Nodes, Wiring, WriteLayer

# Row kernels whose graphs work on the last axis of any rank; a graph is tested at (b, n) alone.
OF_ANY_RANK = frozenset({"softmax", "log-softmax", "softmin", "glu", "reglu", "swiglu", "geglu"})


@layer_graph("dense")
def _dense(g: Nodes, at: Wiring) -> str:
    return g.Add(g.MatMul(at.inputs[0], at.parameter("kernel")), at.parameter("bias"))


def _channels_first(g: Nodes, x: str, rank: int) -> str:
    """Turn (b, ..., c) to (b, c, ...); of rank 2 both are one."""
    return x if rank == 2 else g.Transpose(x, perm=[0, rank - 1, *range(1, rank - 1)])


def _channels_last(g: Nodes, x: str, rank: int) -> str:
    return x if rank == 2 else g.Transpose(x, perm=[0, *range(2, rank), 1])


def _pads(at: Wiring) -> list[int]:
    """Return the padding of rows and columns, first all before, then all after them."""
    if at.layer.settings["padding"] == "valid":
        return [0, 0, 0, 0]
    inner = zip(at.shapes[0][:2], at.integers("size"), at.integers("strides"), strict=True)
    (top, bottom), (left, right) = (same_pads(length, window, stride) for length, window, stride in inner)
    return [top, left, bottom, right]


@layer_graph("conv2d")
def _conv2d(g: Nodes, at: Wiring) -> str:
    x = _channels_first(g, at.inputs[0], 4)
    kernel = g.Transpose(at.parameter("kernel"), perm=[3, 2, 0, 1])
    window = {"kernel_shape": at.integers("size"), "strides": at.integers("strides"), "pads": _pads(at)}
    return _channels_last(g, g.Conv(x, kernel, at.parameter("bias"), **window), 4)


@layer_graph("max-pool")
def _max_pool(g: Nodes, at: Wiring) -> str:
    x = _channels_first(g, at.inputs[0], 4)
    window = {"kernel_shape": at.integers("size"), "strides": at.integers("strides"), "pads": _pads(at)}
    return _channels_last(g, g.MaxPool(x, **window), 4)


@layer_graph("up-sampling")
def _up_sampling(g: Nodes, at: Wiring) -> str:
    scales = g.constant(np.array([1, 1, *at.integers("size")], np.float32))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return _channels_last(g, g.Resize(_channels_first(g, at.inputs[0], 4), "", scales, **nearest), 4)


@layer_graph("batch-norm")
def _batch_norm(g: Nodes, at: Wiring) -> str:
    """In training the second and third output, the running statistics, are unused: a model's parameters stay."""
    rank = len(at.shapes[0]) + 1
    tensors = [
        _channels_first(g, at.inputs[0], rank),
        *(at.parameter(name) for name in ("gamma", "beta", "mean", "variance")),
    ]
    mode = {"training_mode": 1, "momentum": at.number("momentum")} if at.training else {}
    y, *_ = g.outputs(3 if at.training else 1, "BatchNormalization", *tensors, epsilon=at.number("epsilon"), **mode)
    return _channels_last(g, y, rank)


@layer_graph("layer-norm")
def _layer_norm(g: Nodes, at: Wiring) -> str:
    x, gamma, beta = at.inputs[0], at.parameter("gamma"), at.parameter("beta")
    return g.LayerNormalization(x, gamma, beta, axis=-1, epsilon=at.number("epsilon"))


@layer_graph("dropout")
def _dropout(g: Nodes, at: Wiring) -> str:
    """The operator of the standard draws its own mask in training; with a mask as input it is a product."""
    if not at.training:
        return g.Dropout(at.inputs[0], g.scalar(at.number("rate")))
    return g.Div(g.Mul(*at.inputs), g.scalar(1.0 - at.number("rate")))


@layer_graph("flatten")
def _flatten(g: Nodes, at: Wiring) -> str:
    return g.Flatten(at.inputs[0], axis=1)


@layer_graph("reshape")
def _reshape(g: Nodes, at: Wiring) -> str:
    return g.Reshape(at.inputs[0], g.integers(-1, *at.integers("shape")))


@layer_graph("activation")
def _activation(g: Nodes, at: Wiring) -> str:
    """The kernel's own graph, which reads "x"."""
    kernel, x, shape = kernel_of(at.layer), at.inputs[0], at.shapes[0]
    write = graph_of(kernel)
    if kernel.form == "unary" or kernel.name in OF_ANY_RANK or len(shape) == 1:
        return write(g.within(at.layer.name, x=x), kernel)
    rows = g.Reshape(x, g.integers(-1, shape[-1]))
    y = write(g.within(at.layer.name, x=rows), kernel)
    return g.Reshape(y, g.integers(-1, *shape[:-1], shape[-1] // 2 if kernel.output_width == "half" else shape[-1]))


@layer_graph("add")
def _add(g: Nodes, at: Wiring) -> str:
    return g.Add(*at.inputs)


@layer_graph("multiply")
def _multiply(g: Nodes, at: Wiring) -> str:
    return g.Mul(*at.inputs)


@layer_graph("affine")
def _affine(g: Nodes, at: Wiring) -> str:
    scale, shift = at.number("scale"), at.number("shift")
    y = g.Identity(at.inputs[0]) if scale == 1 else g.Mul(at.inputs[0], g.scalar(scale))
    return y if shift == 0 else g.Add(y, g.scalar(shift))


def _mean(g: Nodes, x: str) -> str:
    return g.ReduceMean(x, keepdims=0)


def _mean_of_rows(g: Nodes, terms: str) -> str:
    return g.Neg(_mean(g, g.ReduceSum(terms, g.integers(-1), keepdims=0)))


def _in_float32(write: WriteLayer) -> WriteLayer:
    """Write a layer of a 16-bit model in float32, between casts: float16 cannot hold the bounds of a clipped probability."""

    def written(g: Nodes, at: Wiring) -> str:
        if g.dtype == "f32":
            return write(g, at)
        wide = g.in_float32()
        inputs = [wide.Cast(x, to=wide.element_type) for x in at.inputs]
        return g.Cast(write(wide, at._replace(inputs=inputs)), to=g.element_type)

    return written


def _clipped(g: Nodes, p: str) -> str:
    return g.Clip(p, *(g.scalar(bound) for bound in CLIP))


@layer_graph("mean-squared-error")
def _mean_squared_error(g: Nodes, at: Wiring) -> str:
    error = g.Sub(*at.inputs)
    return _mean(g, g.Mul(error, error))


@layer_graph("mean-absolute-error")
def _mean_absolute_error(g: Nodes, at: Wiring) -> str:
    return _mean(g, g.Abs(g.Sub(*at.inputs)))


@layer_graph("binary-cross-entropy")
@_in_float32
def _binary_cross_entropy(g: Nodes, at: Wiring) -> str:
    p, target, one = _clipped(g, at.inputs[0]), at.inputs[1], g.scalar(1.0)
    complement = g.Mul(g.Sub(one, target), g.Log(g.Sub(one, p)))
    return g.Neg(_mean(g, g.Add(g.Mul(target, g.Log(p)), complement)))


@layer_graph("binary-cross-entropy-from-logits")
def _binary_from_logits(g: Nodes, at: Wiring) -> str:
    """max(z, 0) - z t + softplus(-|z|): nothing overflows."""
    z, target = at.inputs
    return _mean(g, g.Add(g.Sub(g.Relu(z), g.Mul(z, target)), g.Softplus(g.Neg(g.Abs(z)))))


@layer_graph("categorical-cross-entropy")
@_in_float32
def _categorical_cross_entropy(g: Nodes, at: Wiring) -> str:
    p, target = at.inputs
    share = _clipped(g, g.Div(p, g.ReduceSum(p, g.integers(-1), keepdims=1)))
    return _mean_of_rows(g, g.Mul(target, g.Log(share)))


@layer_graph("categorical-cross-entropy-from-logits")
def _categorical_from_logits(g: Nodes, at: Wiring) -> str:
    return _mean_of_rows(g, g.Mul(at.inputs[1], g.LogSoftmax(at.inputs[0], axis=-1)))
