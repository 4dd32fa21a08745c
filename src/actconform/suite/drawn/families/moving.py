"""Operators that move elements, change shapes, cut and join."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from actconform.suite.drawn.drawer import EVERYTHING, SMALL_DIMS, Drawer
from actconform.suite.drawn.registry import drawn_operator

if TYPE_CHECKING:
    from actconform.suite.drawn.node import Array, DrawnNode


def _numbers(values: list[int]) -> Array:
    return np.array(values, np.int64)


@drawn_operator("Identity", "Shape", "Size")
def _same(d: Drawer) -> DrawnNode:
    attributes = {}
    shape = d.shape()
    if d.op_type == "Shape" and d.opset >= 15:
        rank = len(shape)
        attributes = {
            "start": d.choice((None, *range(-rank - 1, rank + 2))),
            "end": d.choice((None, *range(-rank - 1, rank + 2))),
        }
        if attributes["start"] is not None and attributes["end"] is not None:  # an end before the start is left open
            clamped = [min(max(place + rank if place < 0 else place, 0), rank) for place in attributes.values()]
            attributes["end"] = attributes["end"] if clamped[1] >= clamped[0] else None
    return d.node([d.array(shape, d.dtype(EVERYTHING))], attributes)


@drawn_operator("Transpose")
def _transpose(d: Drawer) -> DrawnNode:
    shape = d.shape()
    order = d.permutation(len(shape)) if shape and d.flag() else None
    return d.node([d.array(shape, d.dtype(EVERYTHING))], {"perm": order})


@drawn_operator("Reshape", since=14)
def _reshape(d: Drawer) -> DrawnNode:
    shape = d.shape()
    target = [shape[place] for place in d.permutation(len(shape))]
    if len(target) > 1 and d.flag():
        target = [target[0] * target[1], *target[2:]]
    if d.flag():
        target.insert(d.integer(0, len(target)), 1)
    empty = 0 in target
    if target and d.flag() and not empty:
        target[d.integer(0, len(target) - 1)] = -1
    copied = [place for place, dim in enumerate(target) if place < len(shape) and dim == shape[place] and not empty]
    if copied and d.flag():
        target[copied[0]] = 0
    return d.node(
        [d.array(shape, d.dtype(EVERYTHING)), _numbers(target)], {"allowzero": 1 if empty else d.choice((None, 0))}
    )


@drawn_operator("Flatten")
def _flatten(d: Drawer) -> DrawnNode:
    shape = d.shape()
    return d.node(
        [d.array(shape, d.dtype(EVERYTHING))],
        {"axis": d.integer(-len(shape), len(shape)) if d.flag() else (None if shape else 0)},
    )


@drawn_operator("Squeeze")
def _squeeze(d: Drawer) -> DrawnNode:
    shape = list(d.shape(low=1))
    ones = d.axes(len(shape))
    for axis in ones:
        shape[axis] = 1
    axes = _numbers(ones) if ones and d.flag() else None
    return d.node([d.array(shape, d.dtype(EVERYTHING)), axes])


@drawn_operator("Unsqueeze")
def _unsqueeze(d: Drawer) -> DrawnNode:
    shape = d.shape(high=3)
    count = d.choice((1, 2))
    axes = d.axes(len(shape) + count, least=count)[:count]
    return d.node([d.array(shape, d.dtype(EVERYTHING)), _numbers(axes)])


@drawn_operator("Expand")
def _expand(d: Drawer) -> DrawnNode:
    shape = d.shape(high=4)
    read = d.broadcast(shape)
    # a 1 in the target keeps the dimension of the input
    target = [1 if d.seldom(6) and place >= len(shape) - len(read) else dim for place, dim in enumerate(shape)]
    return d.node([d.array(read, d.dtype(EVERYTHING)), _numbers(target)])


@drawn_operator("Tile")
def _tile(d: Drawer) -> DrawnNode:
    shape = d.shape(low=1, high=4)
    repeats = [0 if d.seldom(16) else d.choice((1, 2, 3)) for _ in shape]
    return d.node([d.array(shape, d.dtype(EVERYTHING)), _numbers(repeats)])


@drawn_operator("Slice")
def _slice(d: Drawer) -> DrawnNode:
    """Starts and ends beyond both ends, steps back, axes in any order."""
    shape = d.shape(low=1)
    axes = d.axes(len(shape), least=1)
    if not d.flag():
        axes = list(range(len(axes)))
    ends = [d.choice((2, 1, 0, -1, -2, 5, -9, 40, 2**31 - 1, -(2**31))) for _ in range(2 * len(axes))]
    steps = [d.choice((1, 2, -1, -2, 7)) for _ in axes]
    kind = d.choice((np.int64, np.int32))
    first = axes == list(range(len(axes)))
    arrays = [np.array(each, kind) for each in (ends[1::2], ends[::2], axes, steps)]
    if first and d.flag():
        arrays = arrays[:2]
    elif all(step == 1 for step in steps) and d.flag():
        arrays = arrays[:3]
    return d.node([d.array(shape, d.dtype(EVERYTHING)), *arrays])


@drawn_operator("Split")
def _split(d: Drawer) -> DrawnNode:
    shape = list(d.shape(low=1, high=4, empty=False))
    axis, count = d.axis(len(shape)), d.choice((2, 1, 3))
    data_type = d.dtype(EVERYTHING)
    if d.flag():
        parts = [d.choice((1, 2, 3, 0)) for _ in range(count)]
        shape[axis] = sum(parts)
        return d.node([d.array(shape, data_type), _numbers(parts)], {"axis": axis}, outputs=count)
    if d.opset >= 18:  # the last part is smaller where they are not equal
        shape[axis] = count * (d.choice((1, 2, 3)) + 1) - (d.integer(0, 1) if count > 1 else 0)
        return d.node([d.array(shape, data_type), None], {"axis": axis, "num_outputs": count}, outputs=count)
    shape[axis] = count * d.choice((1, 2, 3))
    return d.node([d.array(shape, data_type), None], {"axis": axis}, outputs=count)


@drawn_operator("Concat")
def _concat(d: Drawer) -> DrawnNode:
    shape = list(d.shape(low=1))
    axis, data_type = d.axis(len(shape)), d.dtype(EVERYTHING)
    arrays = []
    for _ in range(d.choice((2, 1, 3, 4))):
        part = list(shape)
        part[axis] = d.choice((*SMALL_DIMS, 0))
        arrays.append(d.array(part, data_type))
    return d.node(arrays, {"axis": axis})


@drawn_operator("Pad")
def _pad(d: Drawer) -> DrawnNode:
    """Negative pads in mode constant alone; mirrored ones below the dimension."""
    shape = d.shape(low=1, high=4, empty=False)
    modes = ("constant", "edge", "reflect", "wrap") if d.opset >= 19 else ("constant", "edge", "reflect")
    mode, data_type = d.choice(modes), d.dtype(EVERYTHING)
    axes = d.axes(len(shape), least=1) if d.opset >= 18 and d.flag() else None
    dims = [shape[axis] for axis in (axes if axes is not None else range(len(shape)))]
    most = {"reflect": -1, "wrap": 0}.get(mode, 2)
    least = -1 if mode == "constant" else 0
    pads = [d.integer(max(least, -(dim // 2)), min(dim + most, 4)) for dim in (*dims, *dims)]
    value = d.array((), data_type) if mode == "constant" and d.flag() else None
    inputs = [d.array(shape, data_type), _numbers(pads), value, None if axes is None else _numbers(axes)]
    return d.node(inputs, {"mode": mode if mode != "constant" or d.flag() else None})


@drawn_operator("DepthToSpace", "SpaceToDepth")
def _blocks(d: Drawer) -> DrawnNode:
    block, (n, c, h, w) = (
        d.choice((2, 1, 3)),
        (d.choice((1, 2)), d.choice((1, 3)), d.choice((1, 2, 3)), d.choice((1, 2, 3))),
    )
    deep = d.op_type == "DepthToSpace"
    shape = (n, c * block**2, h, w) if deep else (n, c, h * block, w * block)
    mode = d.choice((None, "DCR", "CRD")) if deep else None
    return d.node([d.array(shape, d.dtype(EVERYTHING))], {"blocksize": block, "mode": mode})


@drawn_operator("Trilu", since=14)
def _trilu(d: Drawer) -> DrawnNode:
    diagonal = np.array(d.choice((0, 1, -1, 3, -3, 40, -40)), np.int64) if d.flag() else None
    return d.node([d.array(d.shape(low=2), d.dtype(EVERYTHING)), diagonal], {"upper": d.choice((None, 0, 1))})


@drawn_operator("CenterCropPad")
def _center_crop_pad(d: Drawer) -> DrawnNode:
    shape = d.shape(low=1, high=4, empty=False)
    axes = d.axes(len(shape), least=1) if d.flag() else None
    target = [d.choice((1, 2, 3, 5, 8)) for _ in (axes if axes is not None else shape)]
    return d.node([d.array(shape, d.dtype(EVERYTHING)), _numbers(target)], {"axes": axes})


@drawn_operator("ReverseSequence")
def _reverse_sequence(d: Drawer) -> DrawnNode:
    shape = d.shape(low=2, high=4, empty=False)
    time = d.choice((0, 1))
    lengths = _numbers([d.integer(1, shape[time]) for _ in range(shape[1 - time])])
    return d.node([d.array(shape, d.dtype(EVERYTHING)), lengths], {"time_axis": time, "batch_axis": 1 - time})


@drawn_operator("ConstantOfShape")
def _constant_of_shape(d: Drawer) -> DrawnNode:
    from actconform.onnx.constants import tensor_of

    shape = d.shape(high=4)
    value = tensor_of(d.array((1,), d.choice(tuple(name for name in EVERYTHING if name in d.allowed("T2")))), "value")
    return d.node([_numbers(list(shape))], {"value": value if d.flag() else None})


@drawn_operator("EyeLike")
def _eye_like(d: Drawer) -> DrawnNode:
    from actconform.suite.drawn.drawer import element_type

    target = (
        element_type(d.dtype(("float32", "float16", "float64", "int32", "int64", "uint8", "bool"), "T2"))
        if d.flag()
        else None
    )
    data_type = d.dtype(("float32", "float64", "int32", "int64", "bool"))
    return d.node(
        [d.array(d.shape(low=2, high=2, empty=False), data_type)], {"k": d.choice((None, 0, 1, -1, 3)), "dtype": target}
    )


@drawn_operator("Range")
def _range(d: Drawer) -> DrawnNode:
    """By steps that floats hold exactly: how many elements there are is not left to rounding."""
    data_type = d.dtype(("float32", "float64", "int32", "int64", "int16"))
    start, step, count = d.integer(-8, 8), d.choice((1, 2, -1, -3)), d.choice((3, 0, 1, 40))
    ends = (
        start,
        start + step * count + (0 if d.flag() or not count else -int(math.copysign(1, step)) if abs(step) > 1 else 0),
        step,
    )
    return d.node([np.array(end, data_type) for end in ends])
