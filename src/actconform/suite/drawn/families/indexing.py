"""Operators that read or write at places."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from actconform.suite.drawn.drawer import ANY, EVERYTHING, FLOATS, SMALL_DIMS, Drawer, ValueRange
from actconform.suite.drawn.registry import drawn_operator

if TYPE_CHECKING:
    from actconform.suite.drawn.node import Array, DrawnNode


def _places(d: Drawer, shape: tuple[int, ...], bound: int, dtype: str = "int64") -> Array:
    """Return places on an axis of `bound` elements, counted from either end."""
    generator = np.random.default_rng(d.integer(0, 999))
    flat = generator.integers(-bound if d.flag() else 0, bound, math.prod(shape))
    return flat.reshape(shape).astype(dtype)


@drawn_operator("Gather")
def _gather(d: Drawer) -> DrawnNode:
    shape = d.shape(low=1, high=4, empty=False)
    axis = d.axis(len(shape))
    places = _places(d, d.shape(high=3), shape[axis], d.choice(("int64", "int32")))
    return d.node([d.array(shape, d.dtype(EVERYTHING)), places], {"axis": axis if axis or d.flag() else None})


@drawn_operator("GatherElements")
def _gather_elements(d: Drawer) -> DrawnNode:
    shape = d.shape(low=1, high=4, empty=False)
    axis = d.axis(len(shape))
    read = [d.integer(1, dim) for dim in shape]
    read[axis] = d.choice(SMALL_DIMS)
    places = _places(d, tuple(read), shape[axis], d.choice(("int64", "int32")))
    return d.node([d.array(shape, d.dtype(EVERYTHING)), places], {"axis": axis})


def _tuples(d: Drawer, bounds: tuple[int, ...], count: int) -> Array:
    """Return different places in axes of `bounds`, as many as there are up to `count`, each counted from either end of its axis."""
    generator = np.random.default_rng(d.integer(0, 999))
    flat = generator.permutation(math.prod(bounds))[:count]
    places = np.stack(np.unravel_index(flat, bounds), axis=-1) if bounds else np.zeros((len(flat), 0), np.int64)
    negative = d.flag()
    return (places - np.array(bounds) if negative else places).astype(np.int64)


@drawn_operator("GatherND")
def _gather_nd(d: Drawer) -> DrawnNode:
    shape = d.shape(low=1, high=4, empty=False)
    batch = d.integer(0, min(len(shape) - 1, 2)) if d.flag() else 0
    depth = d.integer(1, len(shape) - batch)
    leading = (*shape[:batch], *d.shape(low=0 if batch else 1, high=2, empty=False))
    columns = [_places(d, leading, bound) for bound in shape[batch : batch + depth]]
    places = np.stack(columns, axis=-1)
    return d.node([d.array(shape, d.dtype(EVERYTHING)), places], {"batch_dims": batch or None})


def _reduction(d: Drawer, dtype: str) -> str | None:
    choices = (None, "none", "add", "mul", "max", "min") if d.opset >= 18 else (None, "none", "add", "mul")
    return None if dtype == "bool" else d.choice(choices)


def _scattered(reduction: str | None, dtype: str) -> ValueRange:
    if reduction in ("max", "min"):
        return ValueRange(nan=False)
    if reduction in ("add", "mul"):
        return ValueRange(most=64, infinite=False) if dtype in FLOATS else ValueRange(most=5)
    return ANY


@drawn_operator("ScatterElements", since=16)
def _scatter_elements(d: Drawer) -> DrawnNode:
    """At different places, unless what meets there is reduced: which of several stays, the standard leaves open."""
    shape, dtype = d.shape(low=1, high=4, empty=False), d.dtype(EVERYTHING)
    axis, reduction = d.axis(len(shape)), _reduction(d, dtype)
    updated = [d.integer(1, dim) for dim in shape]
    if reduction in (None, "none"):
        generator = np.random.default_rng(d.integer(0, 999))
        order = np.argsort(generator.integers(0, 1 << 30, shape), axis=axis, kind="stable")
        places = order[tuple(slice(size) for size in updated)]
        places = places - shape[axis] if d.flag() else places
    else:
        places = _places(d, tuple(updated), shape[axis])
    values = _scattered(reduction, dtype)
    inputs = [d.array(shape, dtype, values), places.astype(np.int64), d.array(updated, dtype, values)]
    return d.node(inputs, {"axis": axis, "reduction": reduction})


@drawn_operator("ScatterND", since=16)
def _scatter_nd(d: Drawer) -> DrawnNode:
    """At different places, unless what meets there is reduced."""
    shape, dtype = d.shape(low=1, high=4, empty=False), d.dtype(EVERYTHING)
    depth, reduction = d.integer(1, len(shape)), _reduction(d, dtype)
    count = d.integer(1, 4)
    if reduction in (None, "none"):
        places = _tuples(d, shape[:depth], count)
    else:
        places = np.stack([_places(d, (count,), bound) for bound in shape[:depth]], axis=-1)
    values = _scattered(reduction, dtype)
    updates = d.array((places.shape[0], *shape[depth:]), dtype, values)
    return d.node([d.array(shape, dtype, values), places, updates], {"reduction": reduction})


@drawn_operator("OneHot")
def _one_hot(d: Drawer) -> DrawnNode:
    """Places out of range among them, which give no one."""
    shape, depth = d.shape(low=1, high=3), d.choice((3, 1, 5))
    kind = d.choice(("int64", "int32", "float32"))
    places = _places(d, shape, depth + d.integer(0, 2), kind)
    values = d.array((2,), d.dtype(("float32", "int64", "int32", "float16", "float64"), "T3"))
    axis = d.integer(-len(shape) - 1, len(shape)) if d.flag() else None
    return d.node([places, np.array(depth, d.choice((np.int64, np.int32))), values], {"axis": axis})


@drawn_operator("Compress")
def _compress(d: Drawer) -> DrawnNode:
    shape = d.shape(low=1, high=4, empty=False)
    axis = d.axis(len(shape)) if d.flag() else None
    count = math.prod(shape) if axis is None else shape[axis]
    condition = d.array((d.integer(1, count),), "bool")
    return d.node([d.array(shape, d.dtype(EVERYTHING)), condition], {"axis": axis})


@drawn_operator("NonZero")
def _non_zero(d: Drawer) -> DrawnNode:
    """Of tensors with an axis: of a scalar the standard leaves the shape open."""
    return d.node([d.array(d.shape(low=1), d.dtype(EVERYTHING))])
