"""Normalizations over channels, groups and rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.suite.drawn.drawer import PLAIN, Drawer, ValueRange
from actconform.suite.drawn.registry import drawn_operator

if TYPE_CHECKING:
    from actconform.suite.drawn.node import Array, DrawnNode

STASHED = ("float32", "float16", "bfloat16")
"""For operators that take their statistics in float32 unless told otherwise: of float64 they would be rounded."""
NORMALIZED = ValueRange(most=64, infinite=False, tiny=False)


def _epsilon(d: Drawer) -> float | None:
    return d.choice((1e-3, 1e-5, 0.5)) if d.flag() else None


def _positive(d: Drawer, shape: tuple[int, ...], dtype: str) -> Array:
    array = d.array(shape, dtype, PLAIN)
    positive: Array = (np.abs(array) + np.array(0.25, array.dtype)).astype(array.dtype)
    return positive


@drawn_operator("BatchNormalization", since=15)
def _batch_normalization(d: Drawer) -> DrawnNode:
    """In inference, with the statistics that it reads."""
    shape, dtype = d.shape(low=2, high=5), d.dtype()
    channels = (shape[1],)
    inputs = [d.array(channels, dtype, PLAIN) for _ in range(3)]
    return d.node([d.array(shape, dtype, NORMALIZED), *inputs, _positive(d, channels, dtype)], {"epsilon": _epsilon(d)})


@drawn_operator("InstanceNormalization")
def _instance_normalization(d: Drawer) -> DrawnNode:
    shape, dtype = d.shape(low=3, high=5, empty=False), d.dtype()
    channels = (shape[1],)
    inputs = [d.array(channels, dtype, PLAIN) for _ in range(2)]
    return d.node([d.array(shape, dtype, NORMALIZED), *inputs], {"epsilon": _epsilon(d)})


@drawn_operator("GroupNormalization", since=21)
def _group_normalization(d: Drawer) -> DrawnNode:
    groups, dtype = d.choice((1, 2, 3)), d.dtype(STASHED)
    channels = groups * d.choice((1, 2, 3))
    shape = (d.choice((1, 2)), channels, *d.shape(low=1, high=3, empty=False))
    inputs = [d.array((channels,), dtype, PLAIN) for _ in range(2)]
    return d.node([d.array(shape, dtype, NORMALIZED), *inputs], {"num_groups": groups, "epsilon": _epsilon(d)})


@drawn_operator("LayerNormalization", since=17)
def _layer_normalization(d: Drawer) -> DrawnNode:
    shape, dtype = d.shape(low=1, high=4, empty=False), d.dtype(STASHED)
    axis = d.axis(len(shape))
    scaled = shape[axis if axis >= 0 else axis + len(shape) :]
    bias = d.array(scaled, dtype, PLAIN) if d.flag() else None
    attributes = {"axis": axis, "epsilon": _epsilon(d)}
    return d.node([d.array(shape, dtype, NORMALIZED), d.array(scaled, dtype, PLAIN), bias], attributes)


@drawn_operator("RMSNormalization", since=23)
def _rms_normalization(d: Drawer) -> DrawnNode:
    shape, dtype = d.shape(low=1, high=4, empty=False), d.dtype(STASHED)
    axis = d.axis(len(shape))
    scaled = shape[axis if axis >= 0 else axis + len(shape) :]
    attributes = {"axis": axis, "epsilon": _epsilon(d)}
    return d.node([d.array(shape, dtype, NORMALIZED), d.array(scaled, dtype, PLAIN)], attributes)
