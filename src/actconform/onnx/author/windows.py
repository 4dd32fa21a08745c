"""The graphs of layers whose windows move over an image, by the standard's own operators.

Images come with their channels last and leave so; between the two Transposes they are as ONNX has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.catalog.models.layer_kinds import extent, same_pads, transposed_cut
from actconform.onnx.nodes import layer_graph

if TYPE_CHECKING:
    from actconform.onnx.nodes import Nodes, Wiring


def to_channels_first(g: Nodes, x: str, rank: int) -> str:
    """Turn (b, ..., c) to (b, c, ...); of rank 2 both are one."""
    return x if rank == 2 else g.Transpose(x, perm=[0, rank - 1, *range(1, rank - 1)])


def to_channels_last(g: Nodes, x: str, rank: int) -> str:
    """Turn (b, c, ...) to (b, ..., c)."""
    return x if rank == 2 else g.Transpose(x, perm=[0, *range(2, rank), 1])


def _pads(at: Wiring) -> list[int]:
    """Return the padding of rows and columns, first all before, then all after them."""
    if at.layer.settings["padding"] == "valid":
        return [0, 0, 0, 0]
    inner = zip(at.shapes[0][:2], extent(at.layer), at.integers("strides"), strict=True)
    (top, bottom), (left, right) = (same_pads(length, window, stride) for length, window, stride in inner)
    return [top, left, bottom, right]


def _window(at: Wiring) -> dict[str, list[int] | tuple[int, ...]]:
    return {"kernel_shape": at.integers("size"), "strides": at.integers("strides"), "pads": _pads(at)}


@layer_graph("conv2d")
def _conv2d(g: Nodes, at: Wiring) -> str:
    x = to_channels_first(g, at.inputs[0], 4)
    kernel = g.Transpose(at.parameter("kernel"), perm=[3, 2, 0, 1])
    reading = {"dilations": at.integers("dilations"), "group": int(at.number("groups"))}
    return to_channels_last(g, g.Conv(x, kernel, at.parameter("bias"), **_window(at), **reading), 4)


@layer_graph("conv2d-transpose")
def _conv2d_transpose(g: Nodes, at: Wiring) -> str:
    x = to_channels_first(g, at.inputs[0], 4)
    kernel = g.Transpose(at.parameter("kernel"), perm=[3, 2, 0, 1])
    size, strides = at.integers("size"), at.integers("strides")
    padding = str(at.layer.settings["padding"])
    (top, bottom), (left, right) = (transposed_cut(*axis, padding) for axis in zip(size, strides, strict=True))
    window = {
        "kernel_shape": size,
        "strides": strides,
        "pads": [top, left, max(bottom, 0), max(right, 0)],
        "output_padding": [max(-bottom, 0), max(-right, 0)],
    }
    return to_channels_last(g, g.ConvTranspose(x, kernel, at.parameter("bias"), **window), 4)


@layer_graph("max-pool")
def _max_pool(g: Nodes, at: Wiring) -> str:
    return to_channels_last(g, g.MaxPool(to_channels_first(g, at.inputs[0], 4), **_window(at)), 4)


@layer_graph("average-pool")
def _average_pool(g: Nodes, at: Wiring) -> str:
    x = to_channels_first(g, at.inputs[0], 4)
    return to_channels_last(g, g.AveragePool(x, **_window(at), count_include_pad=0), 4)


@layer_graph("global-average-pool")
def _global_average_pool(g: Nodes, at: Wiring) -> str:
    return g.Flatten(g.GlobalAveragePool(to_channels_first(g, at.inputs[0], 4)), axis=1)


@layer_graph("up-sampling")
def _up_sampling(g: Nodes, at: Wiring) -> str:
    scales = g.constant(np.array([1, 1, *at.integers("size")], np.float32))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return to_channels_last(g, g.Resize(to_channels_first(g, at.inputs[0], 4), "", scales, **nearest), 4)


@layer_graph("bilinear-resize")
def _bilinear_resize(g: Nodes, at: Wiring) -> str:
    x = to_channels_first(g, at.inputs[0], 4)
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", "axes": [2, 3]}
    return to_channels_last(g, g.Resize(x, "", "", g.integers(*at.integers("size")), **linear), 4)
