"""Gradients of operators that move, repeat, cut and join data: the same movement backwards, with sums where it repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.grad.rules.registry import Node, rule

if TYPE_CHECKING:
    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Cotangents

TO_THE_END = np.iinfo(np.int64).max


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    assert g[0]
    return [b.reshape_like(g[0], node.inputs[0])]


@rule("Transpose")
def _transpose(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    order = node.attributes.get("perm")
    if order is None:  # all axes reversed
        return [b.Transpose(g[0])]
    return [b.Transpose(g[0], perm=[int(axis) for axis in np.argsort(order)])]


@rule("Expand")
def _expand(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    assert g[0]
    return [b.sum_to(g[0], node.inputs[0], node.outputs[0])]


@rule("Concat")
def _concat(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    axis = node.attributes["axis"]
    if len(node.inputs) == 1:
        return [g[0]]
    sizes = [b.size_of(x, axis) for x in node.inputs]
    constant = [value for size in sizes if (value := b.value(size)) is not None]
    split = b.integers(np.concatenate(constant)) if len(constant) == len(sizes) else b.Concat(*sizes, axis=0)
    return b.outputs(len(node.inputs), "Split", g[0], split, axis=axis)


@rule("Split")
def _split(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    parts = [part or b.zeros_like(y) for part, y in zip(g, node.outputs, strict=True)]
    return [b.Concat(*parts, axis=node.attributes["axis"])]


@rule("Slice")
def _slice(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return the cotangent with zeros around it where a known range of every element was cut out; else scattered."""
    assert g[0]
    x = node.inputs[0]
    pads = _margins(b, node)
    if pads is not None:
        return [b.Pad(g[0], b.integers(pads))]
    return [b.scatter(x, b.Slice(b.iota(x), *node.inputs[1:]), g[0])]


def _margins(b: GraphBuilder, node: Node) -> list[int] | None:
    """Return what a Slice of step 1 cut away before each axis, then after each; None where only a run can tell."""
    shape = b.shape(node.inputs[0])
    starts, ends = b.value(node.input(1)), b.value(node.input(2))
    if shape is None or starts is None or ends is None:
        return None
    axes, steps = np.arange(len(starts)), np.ones(len(starts), np.int64)
    for number, default in ((3, axes), (4, steps)):
        if node.input(number):
            numbers = b.value(node.input(number))
            if numbers is None:
                return None
            default[:] = numbers
    before, after = [0] * len(shape), [0] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes % len(shape), steps, strict=True):
        length = shape[axis]
        if length is None or step != 1:
            return None
        first, last, _ = slice(int(start), int(end)).indices(length)
        if last < first:
            return None
        before[axis], after[axis] = first, length - last
    return before + after


@rule("Tile")
def _tile(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return the sum over the copies: the axes of the copies stand before those of the tile."""
    x, repeats = node.inputs
    rank, axis = b.rank(x), b.integers([1])
    pairs = b.Concat(b.Unsqueeze(repeats, axis), b.Unsqueeze(b.shape_of(x), axis), axis=1)
    apart = b.Reshape(g[0], b.Reshape(pairs, b.integers([-1])), allowzero=1)
    return [b.sum_over(apart, range(0, 2 * rank, 2), keepdims=False)]


@rule("Pad")
def _pad(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return what was not padded; in the modes that copy from within, each copy added to where it came from.

    A negative pad cuts, and has a positive one for gradient. The constant's cotangent is the sum over the padding.
    """
    assert g[0]
    x, pads, *rest = node.inputs
    axes = rest[1] if len(rest) > 1 else None
    if node.attributes["mode"] != "constant":
        index = b.Pad(b.iota(x), pads, *([None, axes] if axes else []), mode=node.attributes["mode"])
        return [b.scatter(x, index, g[0])]
    cotangents: list[str | None] = [_unpadded(b, g[0], pads, axes), None, None]
    if node.wants(2):
        edge = b.Pad(b.zeros_like(x), pads, 1.0, *([axes] if axes else []))
        cotangents[2] = b.reshape_like(b.ReduceSum(b.Mul(g[0], edge), keepdims=0), rest[0])
    return cotangents if node.wanted[0] else [None, *cotangents[1:]]


def _unpadded(b: GraphBuilder, g: str, pads: str, axes: str | None) -> str:
    numbers = b.value(pads)
    if numbers is None or (numbers < 0).any():
        return b.Pad(g, b.Neg(pads), *([None, axes] if axes else []))
    before, after = np.split(numbers, 2)
    ends = np.where(after == 0, TO_THE_END, -after)
    return b.Slice(g, b.integers(before), b.integers(ends), axes)


@rule("DepthToSpace")
def _depth_to_space(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return SpaceToDepth, which undoes mode DCR; CRD is undone by the transposition that the standard defines it by."""
    block = node.attributes["blocksize"]
    if node.attributes["mode"] == "DCR":
        return [b.SpaceToDepth(g[0], blocksize=block)]
    y = node.outputs[0]
    batch, channels, height, width = (b.size_of(y, axis) for axis in range(4))
    size = b.integers([block])
    shape = b.Concat(batch, channels, b.Div(height, size), size, b.Div(width, size), size, axis=0)
    blocks = b.Transpose(b.Reshape(g[0], shape), perm=[0, 1, 3, 5, 2, 4])
    return [b.reshape_like(blocks, node.inputs[0])]


@rule("SpaceToDepth")
def _space_to_depth(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    return [b.DepthToSpace(g[0], blocksize=node.attributes["blocksize"], mode="DCR")]


@rule("Trilu")
def _trilu(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    return [b.Trilu(g[0], *node.inputs[1:], upper=node.attributes["upper"])]


@rule("ReverseSequence")
def _reverse_sequence(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return the cotangent reversed in the same way, which undoes it."""
    return [b.ReverseSequence(g[0], node.inputs[1], **node.attributes)]
