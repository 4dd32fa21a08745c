"""The graphs of attention and of layers with an external memory, composed of operators as their definitions read.

Letters as in catalog/models/layer_kinds.py, after the batch b: n slots, m or w numbers a slot, r read heads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.nodes import layer_graph

if TYPE_CHECKING:
    from actconform.onnx.nodes import Nodes, Wiring


@layer_graph("attention")
def _attention(g: Nodes, at: Wiring) -> str:
    q, k, v = at.inputs
    return _attended(g, q, g.Transpose(k, perm=[0, 2, 1]), v, at.shapes[0][-1])


def _attended(g: Nodes, q: str, turned_k: str, v: str, width: int) -> str:
    scores = g.Div(g.MatMul(q, turned_k), g.scalar(math.sqrt(width)))
    return g.MatMul(g.Softmax(scores, axis=-1), v)


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
