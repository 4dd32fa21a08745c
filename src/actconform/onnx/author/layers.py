"""The graphs of layers: dense ones, normalization, activations, losses, and addressing of memory.

Each is the standard's own operator where there is one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from actconform.catalog.models.layer_kinds import CLIP, kernel_of
from actconform.onnx.author.windows import to_channels_first, to_channels_last
from actconform.onnx.nodes import BATCH, graph_of, layer_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.nodes import Nodes, Wiring, WriteLayer


# Row kernels whose graphs work on the last axis of any rank; a graph is tested at (b, n) alone.
OF_ANY_RANK = frozenset({"softmax", "log-softmax", "softmin", "glu", "reglu", "swiglu", "geglu"})


@layer_graph("dense")
def _dense(g: Nodes, at: Wiring) -> str:
    return g.Add(g.MatMul(at.inputs[0], at.parameter("kernel")), at.parameter("bias"))


@layer_graph("batch-norm")
def _batch_norm(g: Nodes, at: Wiring) -> str:
    """In training the second and third output, the running statistics, are unused: a model's parameters stay."""
    rank = len(at.shapes[0]) + 1
    tensors = [
        to_channels_first(g, at.inputs[0], rank),
        *(at.parameter(name) for name in ("gamma", "beta", "mean", "variance")),
    ]
    mode = {"training_mode": 1, "momentum": at.number("momentum")} if at.training else {}
    y, *_ = g.outputs(3 if at.training else 1, "BatchNormalization", *tensors, epsilon=at.number("epsilon"), **mode)
    return to_channels_last(g, y, rank)


@layer_graph("layer-norm")
def _layer_norm(g: Nodes, at: Wiring) -> str:
    x, gamma, beta = at.inputs[0], at.parameter("gamma"), at.parameter("beta")
    return g.LayerNormalization(x, gamma, beta, axis=-1, epsilon=at.number("epsilon"))


@layer_graph("group-norm", "instance-norm")
def _image_norm(g: Nodes, at: Wiring) -> str:
    x, gamma, beta = to_channels_first(g, at.inputs[0], 4), at.parameter("gamma"), at.parameter("beta")
    epsilon = at.number("epsilon")
    if at.layer.kind == "instance-norm":
        return to_channels_last(g, g.InstanceNormalization(x, gamma, beta, epsilon=epsilon), 4)
    y = g.GroupNormalization(x, gamma, beta, num_groups=int(at.number("groups")), epsilon=epsilon)
    height, width, channels = at.shapes[0]
    return to_channels_last(g, g.typed(y, (BATCH, channels, height, width)), 4)


@layer_graph("rms-norm")
def _rms_norm(g: Nodes, at: Wiring) -> str:
    return g.RMSNormalization(at.inputs[0], at.parameter("gamma"), axis=-1, epsilon=at.number("epsilon"))


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
    """Write a layer of a 16-bit model in float32, between casts: float16 cannot hold its constants, as those of a clip."""

    def written(g: Nodes, at: Wiring) -> str:
        if g.dtype == "f32":
            return write(g, at)
        wide = g.in_float32()
        inputs = [wide.Cast(x, to=wide.element_type) for x in at.inputs]
        return g.Cast(write(wide, at._replace(inputs=inputs)), to=g.element_type)

    return written


@layer_graph("l2-normalize")
@_in_float32
def _l2_normalize(g: Nodes, at: Wiring) -> str:
    """LpNormalization has no epsilon, and float16 no number as small."""
    length = g.ReduceL2(at.inputs[0], g.integers(-1), keepdims=1)
    return g.Div(at.inputs[0], g.Max(length, g.scalar(at.number("epsilon"))))


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


@layer_graph("embedding")
def _embedding(g: Nodes, at: Wiring) -> str:
    return g.Gather(at.parameter("table"), g.Cast(at.inputs[0], to=TensorProto.INT64), axis=0)


def _gates(g: Nodes, at: Wiring, name: str, order: Sequence[int]) -> str:
    """Return a parameter's gates in the order of ONNX's operator, one below the other, for one direction."""
    parts = g.outputs(len(order), "Split", at.parameter(name), axis=-1, num_outputs=len(order))
    ordered = g.Concat(*(parts[gate] for gate in order), axis=-1)
    return g.Unsqueeze(ordered if name == "bias" else g.Transpose(ordered, perm=[1, 0]), g.integers(0))


def _states(g: Nodes, y: str) -> str:
    """Return the states of all steps, which the operators give as (t, 1, b, u), with the batch first."""
    return g.Transpose(g.Squeeze(y, g.integers(1)), perm=[1, 0, 2])


@layer_graph("lstm")
def _lstm(g: Nodes, at: Wiring) -> str:
    """Its gates are input, output, forget and cell."""
    kernel, recurrent, bias = (_gates(g, at, name, (0, 3, 1, 2)) for name in ("kernel", "recurrent", "bias"))
    units = int(at.number("units"))
    both = g.Concat(bias, g.Expand(g.scalar(0.0), g.integers(1, 4 * units)), axis=-1)
    return _states(g, g.LSTM(g.Transpose(at.inputs[0], perm=[1, 0, 2]), kernel, recurrent, both, hidden_size=units))


@layer_graph("gru")
def _gru(g: Nodes, at: Wiring) -> str:
    kernel, recurrent = (_gates(g, at, name, (0, 1, 2)) for name in ("kernel", "recurrent"))
    bias, units = g.Reshape(at.parameter("bias"), g.integers(1, -1)), int(at.number("units"))
    x = g.Transpose(at.inputs[0], perm=[1, 0, 2])
    return _states(g, g.GRU(x, kernel, recurrent, bias, hidden_size=units, linear_before_reset=1))


def _masked(g: Nodes, scores: str, mask: str) -> str:
    """Return the scores, and -inf where the mask is 0."""
    return g.Where(g.Cast(mask, to=TensorProto.BOOL), scores, g.scalar(-math.inf))


@layer_graph("masked-softmax")
def _masked_softmax(g: Nodes, at: Wiring) -> str:
    return g.Softmax(_masked(g, *at.inputs), axis=-1)


@layer_graph("attention")
def _attention(g: Nodes, at: Wiring) -> str:
    q, k, v, *mask = at.inputs
    rows = _row(g, mask[0]) if mask else ""
    return _attended(g, q, g.Transpose(k, perm=[0, 2, 1]), v, at.shapes[0][-1], rows)


def _attended(g: Nodes, q: str, turned_k: str, v: str, width: int, mask: str = "") -> str:
    scores = g.Div(g.MatMul(q, turned_k), g.scalar(math.sqrt(width)))
    return g.MatMul(g.Softmax(_masked(g, scores, mask) if mask else scores, axis=-1), v)


@layer_graph("multi-head-attention")
def _multi_head_attention(g: Nodes, at: Wiring) -> str:
    time, width = at.shapes[0]
    heads = int(at.number("heads"))

    def projected(x: str, projection: str) -> str:
        return g.Add(g.MatMul(x, at.parameter(f"{projection}-kernel")), at.parameter(f"{projection}-bias"))

    split = g.integers(-1, time, heads, width // heads)
    q, k, v = (g.Reshape(projected(at.inputs[0], projection), split) for projection in "qkv")
    q, turned_k, v = (
        g.Transpose(x, perm=perm) for x, perm in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3]))
    )
    attended = g.Transpose(_attended(g, q, turned_k, v, width // heads), perm=[0, 2, 1, 3])
    return projected(g.Reshape(attended, g.integers(-1, time, width)), "o")


def _column(g: Nodes, x: str) -> str:
    """Turn (b, n) to (b, n, 1)."""
    return g.Unsqueeze(x, g.integers(2))


def _row(g: Nodes, x: str) -> str:
    """Turn (b, n) to (b, 1, n)."""
    return g.Unsqueeze(x, g.integers(1))


def _by_head(g: Nodes, at: Wiring, number: int) -> str:
    """Return an input (b, n) as one head, (b, 1, n), and (b, r, n) as it is."""
    return _row(g, at.inputs[number]) if len(at.shapes[number]) == 1 else at.inputs[number]


def _without_head(g: Nodes, at: Wiring, number: int, y: str) -> str:
    """Undo `_by_head`."""
    return g.Squeeze(y, g.integers(1)) if len(at.shapes[number]) == 1 else y


@layer_graph("cosine-similarity")
def _cosine_similarity(g: Nodes, at: Wiring) -> str:
    memory, keys = at.inputs[0], _by_head(g, at, 1)
    products = g.MatMul(keys, g.Transpose(memory, perm=[0, 2, 1]))
    lengths = _row(g, g.ReduceL2(memory, g.integers(-1), keepdims=0))
    return _without_head(g, at, 1, g.Div(products, g.Mul(g.ReduceL2(keys, g.integers(-1), keepdims=1), lengths)))


@layer_graph("interpolate")
def _interpolate(g: Nodes, at: Wiring) -> str:
    gate, a, b = at.inputs
    return g.Add(g.Mul(gate, a), g.Mul(g.Sub(g.scalar(1.0), gate), b))


@layer_graph("circular-shift")
def _circular_shift(g: Nodes, at: Wiring) -> str:
    """Each y_i is a product of s with the w that it takes in: those are gathered first, (b, n, k)."""
    w, s = at.inputs
    (slots,), (count,) = at.shapes
    indices = (np.arange(slots)[:, None] - np.arange(count) + (count - 1) // 2) % slots
    return g.Squeeze(g.MatMul(g.Gather(w, g.constant(indices), axis=1), _column(g, s)), g.integers(2))


@layer_graph("sharpen")
def _sharpen(g: Nodes, at: Wiring) -> str:
    powers = g.Pow(*at.inputs)
    return g.Div(powers, g.ReduceSum(powers, g.integers(-1), keepdims=1))


@layer_graph("read")
def _read(g: Nodes, at: Wiring) -> str:
    return _without_head(g, at, 0, g.MatMul(_by_head(g, at, 0), at.inputs[1]))


@layer_graph("write")
def _write(g: Nodes, at: Wiring) -> str:
    memory, w, erase, add = at.inputs
    w = _column(g, w)
    retained = g.Mul(memory, g.Sub(g.scalar(1.0), g.Mul(w, _row(g, erase))))
    return g.Add(retained, g.Mul(w, _row(g, add)))


@layer_graph("retention")
def _retention(g: Nodes, at: Wiring) -> str:
    free, w = at.inputs
    return g.ReduceProd(g.Sub(g.scalar(1.0), g.Mul(_column(g, free), w)), g.integers(1), keepdims=0)


@layer_graph("usage")
def _usage(g: Nodes, at: Wiring) -> str:
    u, w, retention = at.inputs
    return g.Mul(g.Sub(g.Add(u, w), g.Mul(u, w)), retention)


@layer_graph("allocation")
def _allocation(g: Nodes, at: Wiring) -> str:
    """TopK is stable. The running product is that of each row of u, ones in place of what does not come before.

    Not the exponential of a sum of logarithms, which is off near 1 and NaN where usages below are 0.
    """
    u, (slots,) = at.inputs[0], at.shapes[0]
    ascending, order = g.outputs(2, "TopK", u, g.integers(slots), axis=-1, largest=0, sorted=1)
    before = g.constant(np.tri(slots, k=-1, dtype=np.bool_))
    products = g.ReduceProd(g.Where(before, _row(g, ascending), g.scalar(1.0)), g.integers(-1), keepdims=0)
    sorted_ = g.Mul(g.Sub(g.scalar(1.0), ascending), products)
    return g.ScatterElements(u, order, sorted_, axis=1)


@layer_graph("link")
def _link(g: Nodes, at: Wiring) -> str:
    links, w, p = at.inputs
    column = _column(g, w)
    retained = g.Mul(g.Sub(g.Sub(g.scalar(1.0), column), _row(g, w)), links)
    diagonal = g.constant(np.eye(*at.shapes[0], dtype=np.bool_))
    return g.Where(diagonal, g.scalar(0.0), g.Add(retained, g.Mul(column, _row(g, p))))


@layer_graph("precedence")
def _precedence(g: Nodes, at: Wiring) -> str:
    p, w = at.inputs
    return g.Add(g.Mul(g.Sub(g.scalar(1.0), g.ReduceSum(w, g.integers(-1), keepdims=1)), p), w)


@layer_graph("directional")
def _directional(g: Nodes, at: Wiring) -> str:
    links, w = at.inputs
    return g.MatMul(w, links if at.number("transposed") else g.Transpose(links, perm=[0, 2, 1]))


@layer_graph("mix")
def _mix(g: Nodes, at: Wiring) -> str:
    modes, *ways = at.inputs
    parts = zip(g.outputs(3, "Split", modes, axis=-1, num_outputs=3), ways, strict=True)
    a, b, c = (g.Mul(mode, way) for mode, way in parts)
    return g.Add(g.Add(a, b), c)
