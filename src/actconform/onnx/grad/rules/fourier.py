"""The discrete Fourier transform, linear in numbers and their imaginary parts: its transpose is the transform back, unscaled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from actconform.onnx.grad.rules.registry import rule

if TYPE_CHECKING:
    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Cotangents, Node

_AXIS_AS_INPUT = 20  # since when DFT takes its axis as an input


@rule("DFT")
def fourier(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """DFT of n numbers: dx = n times the inverse DFT of g, and of an inverse DFT the DFT of g, divided by n.

    What the transform padded is cut away, and what it cut is 0; what a one-sided one left out is 0 in g, and a real input
    takes the real part.
    """
    x, (cotangent,) = node.inputs[0], g
    assert cotangent
    inverse, onesided = bool(node.attributes["inverse"]), bool(node.attributes["onesided"])
    if inverse and onesided:
        raise node.refuse("a one-sided inverse transform has no rule: give both sides")
    axis, rank = _axis(b, node), b.rank(x)
    size, zero = b.size_of(x, axis), b.integers([0])
    number = size
    if node.input(1):  # of int32 or int64
        number = b.Cast(b.Reshape(node.inputs[1], b.integers([1])), to=TensorProto.INT64)
    if onesided:
        cotangent = _lengthened(b, cotangent, axis, rank, number)
    if b.opset >= _AXIS_AS_INPUT:
        back = b.DFT(cotangent, None, b.constant(np.array(axis)), inverse=int(not inverse))
    else:
        back = b.DFT(cotangent, axis=axis, inverse=int(not inverse))
    count = b.Cast(number, to=b.element_type)
    back = b.Div(back, count) if inverse else b.Mul(back, count)
    if node.input(1):
        back = _lengthened(b, b.Slice(back, zero, size, b.integers([axis])), axis, rank, size)
    real = (b.shape(x) or (None,))[-1]
    if real is None:
        raise node.refuse(f"whether {x} is real or complex, 1 or 2 numbers along its last axis, must be known")
    return [b.Slice(back, zero, b.integers([1]), b.integers([-1])) if real == 1 else back]


def _axis(b: GraphBuilder, node: Node) -> int:
    """Return the axis that is transformed, counted from the front."""
    if node.opset < _AXIS_AS_INPUT:
        return b.axis(node.attributes["axis"], node.inputs[0])
    if not node.input(2):
        return b.axis(-2, node.inputs[0])
    value = b.value(node.input(2))
    if value is None:
        raise node.refuse("its axis must be constant")
    return b.axis(int(value.reshape(-1)[0]), node.inputs[0])


def _lengthened(b: GraphBuilder, x: str, axis: int, rank: int, length: str) -> str:
    """Return `x` with zeros behind it along an axis, to a length of 1-d int64."""
    missing = b.Sub(length, b.Shape(x, start=axis, end=axis + 1))
    before, after = b.integers([0] * (rank + axis)), b.integers([0] * (rank - axis - 1))
    return b.Pad(x, b.Concat(before, missing, after, axis=0))
