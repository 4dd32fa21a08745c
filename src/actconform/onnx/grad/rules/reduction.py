"""Gradients of sums, means, norms, extrema and products over axes, of CumSum and of TopK's values.

Kinks: equal extrema of Max and Min share the cotangent evenly; a norm has gradient 0 at 0, |x| at 0 likewise. A product has
the gradient of its other factors even where one is 0. Infinite elements give the limit; several that are so share it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from actconform.onnx.grad.rules.registry import Node, rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Cotangents


class Reduced(NamedTuple):
    """A reduction as its rule sees it: `y` and its cotangent `g` with the reduced axes kept, of length 1."""

    x: str
    y: str
    g: str
    axes: list[int]


ReductionVjp: TypeAlias = Callable[["GraphBuilder", Reduced], str]

# With no axes to reduce, these return x; what the others return then the standard's versions tell differently.
SAME_WITHOUT_AXES = ("ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")


def reduction(*op_types: str) -> Callable[[ReductionVjp], ReductionVjp]:
    """Register a function of a `Reduced` that returns the cotangent of x, or what broadcasts to it, as rule of reductions."""

    def register(vjp: ReductionVjp) -> ReductionVjp:
        def reduction_rule(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
            x, y = node.inputs[0], node.outputs[0]
            assert g[0]
            axes = _axes(b, node)
            if not axes:
                return [g[0]]
            if not node.attributes["keepdims"]:
                again = b.integers(axes)
                return [vjp(b, Reduced(x, b.Unsqueeze(y, again), b.Unsqueeze(g[0], again), axes))]
            return [vjp(b, Reduced(x, y, g[0], axes))]

        rule(*op_types, widen=True)(reduction_rule)
        return vjp

    return register


def _axes(b: GraphBuilder, node: Node) -> list[int]:
    """Return the axes that a node reduces, counted from the front: all where none are given, unless that means none."""
    rank = b.rank(node.inputs[0])
    axes = node.attributes.get("axes")
    if axes is None and node.input(1):
        value = b.value(node.input(1))
        if value is None:
            raise node.refuse(f"its axes, {node.input(1)}, are known only at run time: make them a constant")
        axes = value.tolist()
    if axes:
        return sorted(axis % rank for axis in axes)
    if not node.attributes.get("noop_with_empty_axes"):
        return list(range(rank))
    if node.op_type not in SAME_WITHOUT_AXES:
        raise node.refuse(
            "it has no axes to reduce and noop_with_empty_axes is set, of which runtimes differ in what it means"
        )
    return []


@reduction("ReduceSum")
def _sum(b: GraphBuilder, r: Reduced) -> str:
    return b.expand_like(r.g, r.x)


@reduction("ReduceMean")
def _mean(b: GraphBuilder, r: Reduced) -> str:
    return b.expand_like(b.Div(r.g, _count(b, r)), r.x)


def _count(b: GraphBuilder, r: Reduced) -> str:
    """Return how many elements each sum has, as a float."""
    shape = b.shape(r.x) or ()
    lengths = [shape[axis] for axis in r.axes]
    if None not in lengths:
        return b.constant(float(np.prod(np.array(lengths, dtype=np.float64))))
    total = b.reduce("ReduceProd", b.Gather(b.Shape(r.x), b.integers(r.axes), axis=0), [0], keepdims=False)
    return b.Cast(total, to=b.element_type)


@reduction("ReduceSumSquare")
def _sum_square(b: GraphBuilder, r: Reduced) -> str:
    return b.Mul(b.Mul(r.g, 2.0), r.x)


@reduction("ReduceL1")
def _l1(b: GraphBuilder, r: Reduced) -> str:
    return b.Mul(r.g, b.Sign(r.x))


@reduction("ReduceL2")
def _l2(b: GraphBuilder, r: Reduced) -> str:
    """Return g x / y; where y is 0 or infinite, as squares may be that are not, with x by the largest of its row.

    Where x is infinite that is its sign, shared by all that are so, and 0 elsewhere.
    """
    top = b.reduce("ReduceMax", b.Abs(r.x), r.axes)
    by_largest = b.Div(r.x, b.Where(b.Equal(top, 0.0), 1.0, top))
    direction = b.Where(b.IsInf(top), b.Where(b.IsInf(r.x), b.Sign(r.x), 0.0), by_largest)
    length = b.Sqrt(b.sum_over(b.Mul(direction, direction), r.axes))
    far = b.Mul(direction, b.Div(r.g, b.Where(b.Equal(length, 0.0), 1.0, length)))
    beyond = b.Or(b.IsInf(r.y), b.Equal(r.y, 0.0))
    return b.Where(beyond, far, b.Mul(r.x, b.Div(r.g, r.y)))


@reduction("ReduceLogSum")
def _log_sum(b: GraphBuilder, r: Reduced) -> str:
    return b.expand_like(b.Div(r.g, b.sum_over(r.x, r.axes)), r.x)


@reduction("ReduceLogSumExp")
def _log_sum_exp(b: GraphBuilder, r: Reduced) -> str:
    """Return g exp(x - y): softmax times g; where all are -inf, 0; shared by all that are inf where there is one."""
    infinity = float("inf")
    won = b.Where(b.Equal(r.x, infinity), 1.0, 0.0)
    share = b.Div(won, b.Max(b.sum_over(won, r.axes), 1.0))
    finite = b.Where(b.Equal(r.y, -infinity), 0.0, r.y)
    return b.Mul(r.g, b.Where(b.Equal(r.y, infinity), share, b.Exp(b.Sub(r.x, finite))))


@reduction("ReduceMax", "ReduceMin")
def _extremum(b: GraphBuilder, r: Reduced) -> str:
    """Return the share of each winner; of a row with NaN, where nothing equals the extremum, 0 / 0: NaN too."""
    won = b.Where(b.Equal(r.x, r.y), 1.0, 0.0)
    return b.times(won, b.Div(r.g, b.sum_over(won, r.axes)))


@reduction("ReduceProd")
def _prod(b: GraphBuilder, r: Reduced) -> str:
    """Return g times the product of the others: that of all that are neither 0 nor infinite over x, if x is such a one.

    It is 0 if one of the others is 0, infinite if one is infinite, NaN if one is either.
    """
    zero, infinite = b.Equal(r.x, 0.0), b.IsInf(r.x)
    plain = b.Where(b.Or(zero, infinite), 1.0, r.x)
    sign = b.Where(infinite, b.Sign(r.x), 1.0)
    rest = b.Div(b.reduce("ReduceProd", plain, r.axes), plain)
    rest = b.Mul(rest, b.Mul(b.reduce("ReduceProd", sign, r.axes), sign))
    zeros, infinities = (_among_others(b, special, r.axes) for special in (zero, infinite))
    endless = b.Where(infinities, b.Mul(rest, float("inf")), rest)
    return b.Mul(r.g, b.Where(zeros, b.Where(infinities, float("nan"), 0.0), endless))


def _among_others(b: GraphBuilder, special: str, axes: Sequence[int]) -> str:
    """Say of each element whether one of the others that are reduced with it is special."""
    marked = b.Where(special, 1.0, 0.0)
    return b.Greater(b.Sub(b.sum_over(marked, axes), marked), 0.0)


@rule("CumSum")
def _cumulative_sum(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    back = {"exclusive": node.attributes["exclusive"], "reverse": 1 - node.attributes["reverse"]}
    return [b.CumSum(g[0], node.inputs[1], **back)]


@rule("TopK")
def _top(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return the cotangents of the values where these were found; no index comes twice."""
    x = node.inputs[0]
    if g[0] is None:
        return [None]
    return [b.ScatterElements(b.zeros_like(x), node.outputs[1], g[0], axis=node.attributes["axis"])]
