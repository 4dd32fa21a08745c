"""GridSample: an image read at places that are computed. Linear in the image; along the grid the slope between pixels."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from onnx import TensorProto

from actconform.onnx.grad.rules.graph_builder import HALVES
from actconform.onnx.grad.rules.registry import rule

if TYPE_CHECKING:
    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Cotangents, Node

_CUBIC = -0.75  # the free coefficient of the standard's cubic interpolation


class _Tap(NamedTuple):
    """One pixel along an axis for every place of the output, flat (batch, places): where it is, its weight, the weight's slope.

    The slope is with respect to the place in the image; it and the weight are 0 for a pixel outside that counts as zero.
    """

    pixel: str
    weight: str | None  # None: 1
    slope: str | None  # None: 0


@rule("GridSample")
def grid_sample(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """GridSample: dx adds g times its weight to every pixel read; dgrid is g times the slope of what was read, over channels.

    At a pixel of linear interpolation, and where border or reflection clip, the slope is one of the two. 16-bit is done in
    float32.
    """
    (x, grid), (cotangent,) = node.inputs, g
    assert cotangent
    element_type, half = b.element_type, b.element_type in HALVES
    if half:
        b.element_type = TensorProto.FLOAT
    axes = b.rank(x) - 2
    channel_axis = b.integers([1])
    batch, channels = b.size_of(x, 0), b.size_of(x, 1)
    sizes = [b.size_of(x, 2 + axis) for axis in range(axes)]
    pixels = b.Reshape(_wide(b, x), b.Concat(batch, channels, b.integers([-1]), axis=0))
    per_place = b.Reshape(_wide(b, cotangent), b.Concat(batch, channels, b.integers([-1]), axis=0))
    coordinates = b.Reshape(_wide(b, grid), b.Concat(batch, b.integers([-1, axes]), axis=0))

    taps, scales = [], []
    for axis, size in enumerate(sizes):  # the grid names the last axis first
        coordinate = b.Gather(coordinates, b.constant(np.array(axes - 1 - axis)), axis=2)
        of_axis, scale = _taps(b, node, coordinate, size)
        taps.append(of_axis)
        scales.append(scale)
    dx = None
    slopes: list[list[str]] = [[] for _ in sizes]
    for corner in itertools.product(*taps):
        index = corner[0].pixel
        for tap, size in zip(corner[1:], sizes[1:], strict=True):
            index = b.Add(b.Mul(index, size), tap.pixel)
        index = b.Expand(b.Unsqueeze(index, channel_axis), b.Shape(per_place))
        if node.wants(0):
            weight = _product(b, [tap.weight for tap in corner])
            share = b.Mul(per_place, b.Unsqueeze(weight, channel_axis)) if weight else per_place
            dx = _added(b, dx, pixels, index, share)
        if node.wants(1) and any(tap.slope for tap in corner):
            along_g = b.sum_over(b.Mul(per_place, b.GatherElements(pixels, index, axis=2)), [1], keepdims=False)
            for axis, tap in enumerate(corner):
                weights = [each.weight for i, each in enumerate(corner) if i != axis]
                slope = _product(b, [tap.slope, *weights])
                assert slope
                slopes[axis].append(b.Mul(along_g, slope))
    b.element_type = element_type
    dx = None if dx is None else b.reshape_like(_narrow(b, dx, x), x)
    return [dx, _along_grid(b, grid, slopes, scales) if node.wants(1) else None]


def _along_grid(b: GraphBuilder, grid: str, slopes: list[list[str]], scales: list[str]) -> str:
    """Return dgrid of the slopes of all pixels along each axis, in the grid's order of axes."""
    if not slopes[0]:
        return b.zeros_like(grid)
    each = [b.Mul(b.Sum(*terms), scale) for terms, scale in zip(slopes, scales, strict=True)]
    joined = b.Concat(*(b.Unsqueeze(part, b.integers([2])) for part in reversed(each)), axis=2)
    return b.reshape_like(_narrow(b, joined, grid), grid)


def _wide(b: GraphBuilder, x: str) -> str:
    return x if b.element_type_of(x) == b.element_type else b.Cast(x, to=b.element_type)


def _narrow(b: GraphBuilder, g: str, like: str) -> str:
    return g if b.element_type_of(g) == b.element_type_of(like) else b.Cast(g, to=b.element_type_of(like))


def _product(b: GraphBuilder, factors: list[str | None]) -> str | None:
    """Return the product of factors, of which None is 1."""
    result = None
    for factor in factors:
        if factor is not None:
            result = factor if result is None else b.Mul(result, factor)
    return result


def _added(b: GraphBuilder, total: str | None, pixels: str, index: str, share: str) -> str:
    """Add each share to the pixel of its image and channel at `index`."""
    rows = b.Slice(b.iota(pixels), b.integers([0]), b.integers([1]), b.integers([2]))  # where each channel begins
    place = b.Add(rows, index)
    part = b.scatter(pixels, place, share)
    return part if total is None else b.Add(total, part)


def _taps(b: GraphBuilder, node: Node, coordinate: str, size: str) -> tuple[list[_Tap], str]:
    """Return the pixels that are read along an axis of `size`, and how far one unit of the grid reaches in the image.

    `coordinate` is that of the grid, -1 to 1 from the first pixel to the last, or from their outer edges.
    """
    length = b.Cast(size, to=b.element_type)
    corners = bool(node.attributes["align_corners"])
    scale = b.Mul(b.Sub(length, 1.0) if corners else length, 0.5)
    first, last = (0.0, b.Sub(length, 1.0)) if corners else (-0.5, b.Sub(length, 0.5))
    place = b.Add(b.Mul(b.Add(coordinate, 1.0), scale), first)
    mode, padding = node.attributes["mode"].removeprefix("bi"), node.attributes["padding_mode"]
    if mode != "cubic":
        place, sign = _inside(b, padding, place, (first, last), b.Sub(length, 1.0))
        scale = scale if sign is None else b.Mul(sign, scale)
    if mode == "nearest":
        return [_tap(b, padding, b.Round(place), None, None, size)], scale
    floor = b.Floor(place)
    beyond = b.Sub(place, floor)
    if mode == "linear":
        minus, plus = b.constant(-1.0), b.constant(1.0)
        near = _tap(b, padding, floor, b.Sub(1.0, beyond), minus, size)
        return [near, _tap(b, padding, b.Add(floor, 1.0), beyond, plus, size)], scale
    taps = []
    for step in (-1.0, 0.0, 1.0, 2.0):
        pixel = b.Add(floor, step)
        if padding == "reflection":
            pixel, _ = _reflected(b, pixel, first, last)
        weight, slope = _cubic(b, b.Sub(beyond, step), inner=step in {0.0, 1.0})
        taps.append(_tap(b, padding, pixel, weight, slope, size))
    return taps, scale


def _cubic(b: GraphBuilder, distance: str, *, inner: bool) -> tuple[str, str]:
    """Return the weight of a pixel at a signed distance, at most 1 if `inner` and else from 1 to 2, and its slope."""
    s = b.Abs(distance)
    a = _CUBIC
    cubic = (a + 2, -(a + 3), 0.0, 1.0) if inner else (a, -5 * a, 8 * a, -4 * a)
    weight = b.Add(b.Mul(b.Add(b.Mul(b.Add(b.Mul(s, cubic[0]), cubic[1]), s), cubic[2]), s), cubic[3])
    slope = b.Add(b.Mul(b.Add(b.Mul(s, 3 * cubic[0]), 2 * cubic[1]), s), cubic[2])
    return weight, b.Mul(slope, b.Sign(distance))


def _inside(
    b: GraphBuilder, padding: str, place: str, edges: tuple[float | str, str], last: str
) -> tuple[str, str | None]:
    """Return the place moved into the image as the padding says, and the slope of that: 1, 0 or -1; None where it stays."""
    sign = None
    if padding == "zeros":
        return place, None
    if padding == "reflection":
        place, sign = _reflected(b, place, *edges)
    clipped = b.Max(b.Min(place, last), 0.0)
    within = b.Where(b.Equal(clipped, place), 1.0, 0.0)
    return clipped, within if sign is None else b.Mul(sign, within)


def _reflected(b: GraphBuilder, place: str, first: float | str, last: str) -> tuple[str, str]:
    """Return the place reflected at both edges as often as it takes, and 1 or -1: what the reflections make of a step."""
    span = b.Sub(last, first)
    wide = b.Max(span, 1e-6)  # an image of one pixel and aligned corners has no span
    behind = b.Sub(place, first)
    distance = b.Abs(behind)
    turns = b.Floor(b.Div(distance, wide))
    rest = b.Sub(distance, b.Mul(turns, span))
    odd = b.Equal(b.Sub(turns, b.Mul(b.Floor(b.Mul(turns, 0.5)), 2.0)), 1.0)
    reflected = b.Add(b.Where(odd, b.Sub(span, rest), rest), first)
    sign = b.Where(b.Less(behind, 0.0), -1.0, 1.0)
    return reflected, b.Where(odd, b.Neg(sign), sign)


def _tap(b: GraphBuilder, padding: str, pixel: str, weight: str | None, slope: str | None, size: str) -> _Tap:
    """Return the tap at a pixel, a float that is an integer; of one outside of the image, the nearest there is."""
    number = b.Cast(pixel, to=TensorProto.INT64)
    zero, one = b.constant(np.array(0)), b.constant(np.array(1))
    inside = b.Max(b.Min(number, b.Sub(size, one)), zero)
    if padding == "zeros":
        within = b.Where(b.Equal(inside, number), 1.0, 0.0)
        weight = within if weight is None else b.Mul(weight, within)
        slope = None if slope is None else b.Mul(slope, within)
    return _Tap(inside, weight, slope)
