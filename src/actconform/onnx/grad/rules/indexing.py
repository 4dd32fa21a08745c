"""Operators that pick, place and resample elements, and the losses that pick one class a row.

What only moves data has a transpose that adds each cotangent where its element came from. `b.scatter` does so by
ScatterElements over a flat tensor: over one axis ONNX Runtime takes a fifth of the time that it takes over four, and its
ScatterND, with several threads, loses sums where indices repeat (microsoft/onnxruntime#18048).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from actconform.onnx.grad.rules.registry import rule
from actconform.onnx.grad.rules.windows import all_known, along, padded, window_elements, window_in

if TYPE_CHECKING:
    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Cotangents, Node


@rule("Gather")
def gather(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Gather: slices of g are added to dx at their indices along the axis; repeated indices add up.

    A slice is rows of the elements behind the axis: the operator on where the rows of x begin tells where those of g belong.
    """
    (x, indices), (cotangent,) = node.inputs, g
    assert cotangent
    axis, shape, index = b.axis(node.attributes["axis"], x), b.shape(x), b.value(indices)
    if index is not None and index.size == 1 and shape is not None and (length := shape[axis]) is not None:
        first = int(index.reshape(-1)[0]) % length
        return [_between_zeros(b, cotangent, x, axis, first, length - 1 - first)]
    behind = all_known(shape[axis + 1 :]) if shape is not None else None
    if behind is not None:
        size = b.constant(np.array(math.prod(behind)))
    else:
        size = b.ReduceProd(b.Shape(x, start=axis + 1), keepdims=0)
    zero, step = b.constant(np.array(0)), b.constant(np.array(1))
    begins = b.Reshape(b.Range(zero, b.Size(x), size), b.Shape(x, end=axis + 1))
    rows = b.Unsqueeze(b.Gather(begins, indices, axis=axis), b.integers([-1]))
    return [b.scatter(x, b.Add(rows, b.Range(zero, size, step)), cotangent)]


def _between_zeros(b: GraphBuilder, g: str, x: str, axis: int, before: int, after: int) -> str:
    """Return g, the slice of `x` at one index, with the zeros before and after it: far faster than to scatter it."""
    slice_of_x = b.Reshape(g, b.integers([0] * axis + [1, -1]))  # what is behind the axis as one
    pads = b.integers([*[0] * axis, before, 0, *[0] * axis, after, 0])
    return b.reshape_like(b.Pad(slice_of_x, pads), x)


@rule("GatherElements", "GatherND", "Compress")
def gather_elements(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """GatherElements, GatherND, Compress: g is added where each element came from, as the operator tells of flat indices."""
    x, index = node.inputs
    (cotangent,) = g
    assert cotangent
    origin = b.outputs(1, node.op_type, b.iota(x), index, **node.attributes)[0]
    return [b.scatter(x, origin, cotangent)]


@rule("ScatterElements", "ScatterND", widen=True)
def scattered(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """ScatterElements, ScatterND, y is data with updates put, added, or compared at the indices.

    none: ddata = g, but 0 where it was overwritten, and dupdates = g there; indices that repeat leave y undefined.
    add: ddata = g and dupdates = g at the indices. max, min: g is shared equally among those that attain the extremum.
    mul: each gets g times the product of the other factors, which is right where one is 0 too.
    """
    data, indices, updates = node.inputs
    (cotangent,), reduction = g, node.attributes["reduction"]
    assert cotangent
    count = b.iota(data)
    if node.op_type == "ScatterND":
        place = b.GatherND(count, indices)
    else:
        place = b.GatherElements(count, indices, axis=node.attributes["axis"])
    flat = b.integers([-1])

    def at_indices(tensor: str) -> str:
        return b.Gather(b.Reshape(tensor, flat), place, axis=0)

    if reduction == "add":
        return [cotangent, None, at_indices(cotangent) if node.wants(2) else None]
    if reduction == "none":
        scatter_inputs = b.Reshape(cotangent, flat), b.Reshape(place, flat), b.Reshape(b.zeros_like(updates), flat)
        ddata = b.reshape_like(b.ScatterElements(*scatter_inputs, axis=0), data) if node.wants(0) else None
        return [ddata, None, at_indices(cotangent) if node.wants(2) else None]
    if reduction == "mul":
        products = _other_factors(b, data, place, updates)
        return [b.Mul(cotangent, products[0]), None, b.Mul(at_indices(cotangent), products[1])]
    attains = b.Equal(data, node.outputs[0])
    attain = b.Equal(updates, at_indices(node.outputs[0]))
    winners = b.Add(b.Where(attains, 1.0, 0.0), b.scatter(data, place, b.Where(attain, 1.0, 0.0)))
    share = b.Div(cotangent, winners)
    return [b.Where(attains, share, 0.0), None, b.Where(attain, at_indices(share), 0.0)]


def _other_factors(b: GraphBuilder, data: str, place: str, updates: str) -> tuple[str, str]:
    """Return for each element of data, and of updates put at flat places of it, the product of all other factors there.

    That is the product of all that are not 0, divided by the element; where another is 0, 0.
    """
    flat = b.integers([-1])
    index = b.Reshape(place, flat)
    factors = [b.Reshape(each, flat) for each in (data, updates)]
    zeros = [b.Equal(each, 0.0) for each in factors]
    nonzero = [b.Where(zero, 1.0, each) for zero, each in zip(zeros, factors, strict=True)]
    counts = [b.Where(zero, 1.0, 0.0) for zero in zeros]
    product = b.ScatterElements(nonzero[0], index, nonzero[1], axis=0, reduction="mul")
    count = b.ScatterElements(counts[0], index, counts[1], axis=0, reduction="add")
    products = []
    for i, like in enumerate((data, updates)):
        factor_product, n_zeros = (each if i == 0 else b.Gather(each, index, axis=0) for each in (product, count))
        rest = b.Where(b.Equal(b.Sub(n_zeros, counts[i]), 0.0), b.Div(factor_product, nonzero[i]), 0.0)
        products.append(b.reshape_like(rest, like))
    return products[0], products[1]


@rule("OneHot")
def one_hot(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """OneHot: of values (off, on) each gets the sum of g over the places that it fills."""
    indices, depth, _ = node.inputs
    (cotangent,) = g
    assert cotangent
    on = b.Cast(
        b.OneHot(indices, depth, b.constant(np.array([0, 1])), axis=node.attributes["axis"]), to=TensorProto.BOOL
    )
    parts = b.Where(on, 0.0, cotangent), b.Where(on, cotangent, 0.0)
    sums = [b.ReduceSum(b.Reshape(part, b.integers([-1])), b.integers([0]), keepdims=1) for part in parts]
    return [None, None, b.Concat(*sums, axis=0)] if node.wants(2) else [None]


@rule("Resize", widen=True)
def resize(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Resize is linear and treats one axis after the other: y = A x along each, so dx = A^T g along each.

    A^T is what the same Resize makes of the identity along that axis, so that every mode, rounding and rule of coordinates
    is the runtime's own. Sizes and scales may be known at run time alone.
    """
    x, (cotangent,) = node.inputs[0], g
    assert cotangent
    rank = b.rank(x)
    for axis in range(rank):
        if not _stays(b, node, axis):
            cotangent = along(b, cotangent, axis, rank, _resized_identity(b, node, axis, rank))
    return [cotangent]


def _place(b: GraphBuilder, node: Node, axis: int) -> int | None:
    """Return where the inputs with one number an axis speak of `axis`; None where they do not."""
    axes = node.attributes.get("axes")
    if axes is None:
        return axis
    named = [b.axis(each, node.inputs[0]) for each in axes]
    return named.index(axis) if axis in named else None


def _scaled(b: GraphBuilder, node: Node) -> bool:
    """Say whether a Resize is given scales, and not sizes."""
    values = b.value(node.input(2))
    return node.input(2) is not None and (node.input(3) is None or (values is not None and values.size > 0))


def _stays(b: GraphBuilder, node: Node, axis: int) -> bool:
    """Say whether it is known that Resize leaves an axis as it is."""
    cropped = node.attributes["coordinate_transformation_mode"] == "tf_crop_and_resize"
    if cropped and b.value(node.input(1)) is None:
        raise node.refuse("tf_crop_and_resize needs a constant roi")
    place = _place(b, node, axis)
    if place is None:
        return True
    if _scaled(b, node):
        scales = b.value(node.input(2))
        return scales is not None and float(scales[place]) == 1 and not cropped
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.refuse("sizes with a keep_aspect_ratio_policy other than 'stretch' have no rule: give scales")
    return b.same_dim(node.inputs[0], node.outputs[0], axis) and not cropped


def _resized_identity(b: GraphBuilder, node: Node, axis: int, rank: int) -> str:
    """Return the identity resized along the axis as the node does: the matrix (old size, new size)."""
    x, y = node.inputs[0], node.outputs[0]
    rows = 1 if axis == 0 and rank > 1 else 0  # where the rows of the identity lie in the image that is resized
    place = axis if rank > 1 else 1
    rank = max(rank, 2)
    size, unit = b.size_of(x, axis), b.integers([1])

    def everywhere(value: float, at_axis: float) -> list[float]:
        return [at_axis if each == place else value for each in range(rank)]

    def dims(at_place: str) -> str:
        return b.Concat(
            *(size if each == rows else at_place if each == place else unit for each in range(rank)), axis=0
        )

    roi = scales = sizes = None
    corners, entry = b.value(node.input(1)), _place(b, node, axis)
    assert entry is not None
    if corners is not None and node.attributes["coordinate_transformation_mode"] == "tf_crop_and_resize":
        first, last = (float(half[entry]) for half in np.split(corners, 2))
        roi = b.constant(np.array(everywhere(0.0, first) + everywhere(1.0, last)))
    if _scaled(b, node):
        single = b.constant(np.ones(1), TensorProto.FLOAT)
        scale = b.Gather(node.inputs[2], b.integers([entry]), axis=0)
        scales = b.Concat(*(scale if each == place else single for each in range(rank)), axis=0)
    else:
        sizes = dims(b.size_of(y, axis))
    identity = b.EyeLike(b.ConstantOfShape(b.Concat(size, size, axis=0)), dtype=b.element_type)
    left_out = {"axes", "keep_aspect_ratio_policy", "extrapolation_value"}
    attributes = {name: value for name, value in node.attributes.items() if name not in left_out}
    resized = b.Resize(b.Reshape(identity, dims(size)), roi, scales, sizes, **attributes)
    if rows > place:
        return b.Transpose(b.Reshape(resized, b.Concat(b.integers([-1]), size, axis=0)), perm=[1, 0])
    return b.Reshape(resized, b.Concat(size, b.integers([-1]), axis=0))


@rule("Col2Im")
def col2im(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Col2Im adds up windows (N, C kernel, L): dx is what each element of the window sees of g."""
    x, (cotangent,) = node.inputs[0], g
    assert cotangent
    image, kernel = b.value(node.inputs[1]), b.value(node.inputs[2])
    if image is None or kernel is None:
        raise node.refuse("image_shape and block_shape must be constant")
    window = window_in(node, [int(size) for size in kernel])
    pads = zip(window.before, window.after, strict=True)
    wide = [int(size) + sum(pad) for size, pad in zip(image, pads, strict=True)]
    sizes = [(n - span) // stride + 1 for n, span, stride in zip(wide, window.spans, window.strides, strict=True)]
    pieces = window_elements(b, padded(b, cotangent, window), window, cotangent, sizes)
    columns = [b.Reshape(piece, b.integers([0, 0, 1, -1])) for piece in pieces]
    return [b.reshape_like(b.Concat(*columns, axis=2), x)]


@rule("CenterCropPad")
def center_crop_pad(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """CenterCropPad: dx is g cropped or padded with zeros, about the same centre, to the sizes of x."""
    x, (cotangent,) = node.inputs[0], g
    assert cotangent
    axes = node.attributes.get("axes")
    shape = b.shape_of(x)
    if axes is None:
        return [b.CenterCropPad(cotangent, shape)]
    return [
        b.CenterCropPad(cotangent, b.Gather(shape, b.integers(b.axis(axis, x) for axis in axes), axis=0), axes=axes)
    ]
