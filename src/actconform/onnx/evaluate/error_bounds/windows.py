"""Error bounds of operators over windows of an image: convolution and pooling.

Convolutions may sum their products in any order, directly, over columns or over blocks of channels. Winograd's and Fourier's
algorithms are not covered: their error in one element grows with its neighbours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.evaluate.error_bounds.products import product_errors
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, lost, lost_in_sum
from actconform.tolerance.row_bounds import EXP_ULP
from actconform.tolerance.running_error import sum_factor

if TYPE_CHECKING:
    from actconform.onnx.evaluate.computation import Array
    from actconform.onnx.evaluate.elementwise import OperatorNode
    from actconform.oracle.rounding import F64
    from actconform.types.dtypes import FloatFormat


def _along_channels(parameter: Array, rank: int) -> Array:
    return parameter.reshape(-1, *[1] * rank)


def _bias_error(bias: Approximation | None, terms: int, rank: int, fmt: FloatFormat) -> F64 | float:
    """Return what a bias adds to the error of sums of which it is one of the terms."""
    if bias is None:
        return 0.0
    return _along_channels(sum_factor(terms, fmt) * bias.size + errors(bias), rank)


def _overlaps(node: OperatorNode, kernel: tuple[int, ...]) -> int:
    """Return how many places of a kernel reach one element of the image that windows are added up to, at most."""
    rank, overlaps = len(kernel), 1
    strides, dilations = (node.attributes.get(name) or [1] * rank for name in ("strides", "dilations"))
    for size, stride, dilation in zip(kernel, strides, dilations, strict=True):
        overlaps *= math.ceil(size / (stride // math.gcd(stride, dilation)))
    return overlaps


@error_bound("Conv", "ConvTranspose")
def _convolution(
    context: BoundContext, x: Approximation, kernel: Approximation, bias: Approximation | None = None
) -> Approximation:
    """Sums of products, the bias one more term; zeros of the padding count as terms."""
    shape = kernel.value.shape
    if context.node.op_type == "Conv":
        terms = math.prod(shape[1:])
    else:
        terms = shape[0] // int(context.node.attributes["group"]) * _overlaps(context.node, shape[2:])
    terms += bias is not None
    fmt, value = context.float_format, context.values((x, kernel, bias))[0]
    error = product_errors(lambda a, b: context.compute((a, b))[0], (x, kernel), terms, fmt)
    return Approximation(value, error + _bias_error(bias, terms, len(shape) - 2, fmt))


@error_bound("DeformConv")
def _deformable_convolution(
    context: BoundContext,
    x: Approximation,
    kernel: Approximation,
    offset: Approximation,
    bias: Approximation | None = None,
    mask: Approximation | None = None,
) -> Approximation:
    """A convolution of pixels interpolated between four, at places computed in float32 or better.

    A place is off by a rounding of the size of the image and of its offset, and by the offset's own error; over a pixel the image changes by
    twice its largest magnitude at most, over more by no more.
    """
    fmt = context.float_format
    value = context.values((x, kernel, offset, bias, mask))[0]
    shape, rank = kernel.value.shape, kernel.value.ndim - 2

    def product(a: Array, b: Array, masks: Array | None = None) -> Array:
        return context.compute((a, b, offset.value, None, masks))[0]

    factors = (x, kernel) if mask is None else (x, kernel, mask)
    sizes = [each.size for each in factors]
    terms = math.prod(shape[1:]) + (bias is not None)
    error = product_errors(product, factors, terms, fmt) + _bias_error(bias, terms, rank, fmt)
    error += 4.0 * rank * fmt.unit_roundoff * product(*sizes)  # the pixels between which is read, and their weights
    weights = _along_channels(np.sum(kernel.size, axis=tuple(range(1, kernel.value.ndim))), rank)
    heaviest = 1.0 if mask is None else float(np.max(mask.size, initial=0.0))
    brightest = float(np.max(x.size, initial=0.0))
    farthest = max(x.value.shape[2:]) + float(np.max(offset.size, initial=0.0))
    off_place = 2.0 * rank * farthest * 2.0**-24 + rank * float(np.max(errors(offset), initial=0.0))
    return Approximation(value, error + weights * brightest * heaviest * min(2.0 * off_place, 2.0))


@error_bound("AveragePool", "GlobalAveragePool")
def _average_pool(context: BoundContext, x: Approximation) -> Approximation:
    """A sum of the window's elements, divided by their number or multiplied with its reciprocal."""
    fmt, value = context.float_format, context.values([x])[0]
    terms = _window_size(context.node, x)
    # of numbers of one sign the mean is that of their sizes
    sizes = np.abs(value) if np.min(x.value, initial=0.0) >= 0.0 else context.compute([np.abs(x.value)])[0]
    passed_on = None if x.error is None else context.compute([errors(x)])[0]
    reach = sizes if passed_on is None else sizes + passed_on
    rounding = (sum_factor(terms, fmt) + 2.0 * fmt.unit_roundoff) * reach
    rounding += np.where(reach > 0.0, lost_in_sum(terms, fmt), 0.0)
    return Approximation(value, rounding if passed_on is None else rounding + passed_on)


def _window_size(node: OperatorNode, x: Approximation) -> int:
    if node.op_type.startswith("Global"):
        return math.prod(x.value.shape[2:])
    return math.prod(node.attributes["kernel_shape"])


@error_bound("MaxPool", "GlobalMaxPool", arithmetic=False)
def _max_pool(context: BoundContext, x: Approximation) -> tuple[Approximation, ...]:
    """A maximum is chosen, without error; over errors it moves by the window's largest, and its place may be any."""
    value, *places = context.values([x])
    if x.error is None:
        return tuple(Approximation(each) for each in (value, *places))
    moved = context.compute([errors(x)])[0]
    return (Approximation(value, moved), *(Approximation(each, np.where(moved > 0.0, np.inf, 0.0)) for each in places))


@error_bound("LpPool", "GlobalLpPool")
def _lp_pool(context: BoundContext, x: Approximation) -> Approximation:
    """The p-th root of S, a sum of powers: powers and root as accurate as exp, S without cancellation.

    The errors of x pass on by their own norm (Minkowski).
    """
    fmt, value = context.float_format, context.values([x])[0]
    p, terms = int(context.node.attributes["p"]), _window_size(context.node, x)
    passed_on = None if x.error is None else context.compute([errors(x)])[0]
    reach = value if passed_on is None else value + passed_on
    unit = fmt.unit_roundoff
    power = 0.0 if p == 1 else max(p - 1.0, 2.0 * _exp_ulp(fmt.bits)) * unit
    relative, absolute = sum_factor(terms, fmt) + power, 2.0 * terms * lost(fmt)
    sums = reach**p
    lost_in_powers = 0.0 if p == 1 else absolute
    error = np.asarray((sums * (1.0 + relative) + lost_in_powers) ** (1 / p) - reach)
    error = np.maximum(error, reach - np.maximum(sums * (1.0 - relative) - lost_in_powers, 0.0) ** (1 / p))
    error += 0.0 if p == 1 else (2.0 * _exp_ulp(fmt.bits) + 1.0) * unit * reach + lost(fmt)
    error = np.where(reach > 0.0, error, 0.0)
    return Approximation(value, error if passed_on is None else error + passed_on)


def _exp_ulp(bits: int) -> float:
    return EXP_ULP[min(bits, 32)]


def _moved_errors(context: BoundContext, x: Approximation, shapes: tuple[Approximation | None, ...]) -> F64 | None:
    if x.error is None:
        return None
    moved: F64 = context.compute((errors(x), *(None if each is None else each.value for each in shapes)))[0]
    return moved


@error_bound("Col2Im")
def _columns_to_image(
    context: BoundContext, x: Approximation, image_shape: Approximation, block_shape: Approximation
) -> Approximation:
    """Sums of as many elements as windows overlap; without overlap elements are moved."""
    value = context.values((x, image_shape, block_shape))[0]
    terms = _overlaps(context.node, tuple(block_shape.value.tolist()))
    passed_on = _moved_errors(context, x, (image_shape, block_shape))
    if terms == 1:
        return Approximation(value, passed_on)
    fmt = context.float_format
    reach = context.compute((x.size, image_shape.value, block_shape.value))[0]
    rounding = sum_factor(terms, fmt) * reach + np.where(reach > 0.0, lost_in_sum(terms, fmt), 0.0)
    return Approximation(value, rounding if passed_on is None else rounding + passed_on)
