"""Windows that slide over an image: where they stand, the values that they see, and linear maps along one axis."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.onnx.grad.rules.tensor_info import FIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.errors import UnsupportedOperator
    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Node
    from actconform.onnx.grad.rules.tensor_info import Array


class Window(NamedTuple):
    """A window's size and steps along every spatial axis, and the padding before and after the image."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """From the first element that the window sees along an axis to its last, how many stand there."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def places(self, axis: int, size: int) -> Array:
        """Return the places in the padded image that the window sees at each of `size` positions, (size, kernel)."""
        corners = np.arange(size)[:, None] * self.strides[axis]
        return corners + np.arange(self.kernel[axis]) * self.dilations[axis]


def all_known(shape: Sequence[int | None] | None) -> tuple[int, ...] | None:
    """Return the shape where all of it is known, else None."""
    return None if shape is None or None in shape else tuple(dim for dim in shape if dim is not None)


def image_sizes(b: GraphBuilder, x: str) -> tuple[int, ...] | None:
    """Return the sizes of `x` (N, C, *image) along the axes of its image where all of them are known, else None."""
    shape = b.shape(x)
    return None if shape is None else all_known(shape[2:])


def static(b: GraphBuilder, node: Node, x: str, first: int = 0) -> tuple[int, ...]:
    """Return the dimensions of `x` from axis `first` on. Raises UnsupportedOperator where one is known only at run time."""
    shape = b.shape(x)
    dims = None if shape is None else all_known(shape[first:])
    if dims is None:
        extent = f" from axis {first} on" if first else ""
        raise node.refuse(f"the shape of {x} must be known{extent}: {FIX}")
    return dims


def window_in(node: Node, kernel: Sequence[int]) -> Window:
    """Return the window with the strides, dilations and pads that the node's attributes give."""
    axes = len(kernel)
    strides = tuple(node.attributes.get("strides") or [1] * axes)
    dilations = tuple(node.attributes.get("dilations") or [1] * axes)
    pads = tuple(node.attributes.get("pads") or [0] * 2 * axes)
    return Window(tuple(kernel), strides, dilations, pads[:axes], pads[axes:])


def expect_whole_image(b: GraphBuilder, node: Node, window: Window, *, spared: int) -> None:
    """Raise UnsupportedOperator where ONNX Runtime cuts the front of an image off whose padding the node finds by itself.

    Where strides are wider than windows the padding of SAME_UPPER and SAME_LOWER is negative. Others take it for 0, and so see
    less of the end alone; ONNX Runtime cuts half of it off in front, but for `spared` elements, and one more of SAME_LOWER.
    """
    if any(
        lacking - spared - (node.attributes["auto_pad"] == "SAME_LOWER") >= 2 for lacking in unseen(b, node, window)
    ):
        raise refused_padding(node)


def unseen(b: GraphBuilder, node: Node, window: Window) -> list[int]:
    """Return by how much the padding that a node finds by itself is below 0 along each axis, at most where the size is open."""
    if not node.attributes["auto_pad"].startswith("SAME"):
        return [0] * len(window.kernel)
    sizes = (b.shape(node.inputs[0]) or (None,) * (2 + len(window.kernel)))[2:]
    steps = zip(sizes, window.strides, window.spans, strict=True)
    return [stride - span - (0 if size is None else -size % stride) for size, stride, span in steps]


def refused_padding(node: Node) -> UnsupportedOperator:
    """Return the error that runtimes differ in the padding that a node finds by itself."""
    return node.refuse("runtimes differ in where its windows lie: state pads in place of auto_pad")


def window_of(b: GraphBuilder, node: Node, kernel: Sequence[int]) -> Window:
    """Return the window of a Conv or a pool over its first input, whose size must be known for SAME_UPPER and SAME_LOWER."""
    window = window_in(node, kernel)
    placed = node.attributes["auto_pad"]
    if placed == "NOTSET":
        return window
    totals = [0] * len(kernel)
    if placed != "VALID":
        steps = zip(static(b, node, node.inputs[0], 2), window.strides, window.spans, strict=True)
        totals = [max((math.ceil(size / stride) - 1) * stride + span - size, 0) for size, stride, span in steps]
    return split_padding(window, totals, upper=placed == "SAME_UPPER")


def split_padding(window: Window, totals: Sequence[int], *, upper: bool) -> Window:
    """Return the window with the total padding of every axis split; of an odd one the larger half goes after if `upper`."""
    less, more = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return window._replace(before=less, after=more) if upper else window._replace(before=more, after=less)


def padding_at_run_time(
    b: GraphBuilder, node: Node, size: str, positions: str, steps: tuple[int | Sequence[int], int | Sequence[int]]
) -> tuple[str, str]:
    """Return the padding before and after that SAME_UPPER or SAME_LOWER make, as int64 tensors shaped as the sizes are.

    `steps` are the stride and the span of the window, numbers, or one of each axis.
    """
    strides, spans = (b.constant(np.array(each)) for each in steps)
    zero, one, two = (b.constant(np.array(number)) for number in (0, 1, 2))
    total = b.Max(b.Sub(b.Add(b.Mul(b.Sub(positions, one), strides), spans), size), zero)
    less = b.Div(total, two)
    more = b.Sub(total, less)
    return (less, more) if node.attributes["auto_pad"] == "SAME_UPPER" else (more, less)


def padded(b: GraphBuilder, x: str, window: Window) -> str:
    """Return `x` (N, C, *image) with the window's padding, of zeros."""
    if not any(window.before + window.after):
        return x
    return b.Pad(x, b.integers([0, 0, *window.before, 0, 0, *window.after]))


def window_elements(b: GraphBuilder, image: str, window: Window, g: str, sizes: Sequence[int | None]) -> list[str]:
    """Return what each element of the window sees of the padded `image` at all positions, a tensor an element, row by row.

    Each is shaped as `g`, whose spatial sizes are `sizes`, None where known only at run time.
    """
    if math.prod(window.kernel) == 1 and set(window.strides) == {1}:
        return [image]
    axes = range(2, 2 + len(sizes))
    reach = [
        None if size is None else (size - 1) * stride + 1 for size, stride in zip(sizes, window.strides, strict=True)
    ]
    length = all_known(reach)
    if length is None:
        spatial = b.Slice(b.Shape(g), b.integers([2]), b.integers([2 + len(sizes)]))
        less = b.Sub(spatial, b.integers([1]))
        reaches = b.Add(b.Mul(less, b.integers(window.strides)), b.integers([1]))
    pieces = []
    for element in itertools.product(*map(range, window.kernel)):
        starts = [place * step for place, step in zip(element, window.dilations, strict=True)]
        if length is None:
            ends = b.Add(reaches, b.integers(starts))
        else:
            ends = b.integers(start + reach for start, reach in zip(starts, length, strict=True))
        pieces.append(b.Slice(image, b.integers(starts), ends, b.integers(axes), b.integers(window.strides)))
    return pieces


def along(b: GraphBuilder, x: str, axis: int, rank: int, matrix: str) -> str:
    """Return `x` with its `axis` mapped by a matrix (new size, old size)."""
    if axis == rank - 2:
        return b.MatMul(matrix, x)
    if axis == rank - 1:
        return b.MatMul(x, b.Transpose(matrix, perm=[1, 0]))
    order = [*range(axis), *range(axis + 1, rank), axis]
    moved = b.MatMul(b.Transpose(x, perm=order), b.Transpose(matrix, perm=[1, 0]))
    return b.Transpose(moved, perm=[int(place) for place in np.argsort(order)])
