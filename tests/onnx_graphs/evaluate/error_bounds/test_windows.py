"""Error bounds of convolution and pooling, against ONNX Runtime and torch."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

CONVOLUTIONS = [
    ("Conv", (2, 6, 9, 8), (8, 6, 3, 3), {"pads": [1, 1, 1, 1]}),
    ("Conv", (1, 64, 5, 5), (16, 64, 3, 3), {"strides": [2, 2]}),
    ("Conv", (1, 6, 9, 9), (12, 1, 3, 3), {"group": 6, "pads": [2, 1, 0, 1]}),
    ("Conv", (1, 6, 9), (4, 3, 3), {"group": 2, "dilations": [2]}),
    ("Conv", (1, 3, 4, 5, 6), (4, 3, 2, 2, 2), {"auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", (1, 6, 5, 4), (6, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("ConvTranspose", (1, 6, 5), (6, 2, 4), {"group": 2, "strides": [3], "dilations": [2]}),
]


def _convolution(shape, kernel_shape, op_type, group=1, seed=0):
    rng = np.random.default_rng(seed)
    channels = kernel_shape[0] if op_type == "Conv" else kernel_shape[1] * group
    return [rng.standard_normal(each).astype(np.float32) for each in (shape, kernel_shape, (channels,))]


@pytest.mark.parametrize(("op_type", "shape", "kernel_shape", "attributes"), CONVOLUTIONS, ids=str)
def test_convolutions(node, share, passes_on, op_type, shape, kernel_shape, attributes):
    inputs = _convolution(shape, kernel_shape, op_type, attributes.get("group", 1))
    layer = node(op_type, **attributes)
    (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
    assert share(result, bound) <= 1
    # large numbers that cancel
    inputs[0] = (inputs[0] + 1000).astype(np.float32)
    inputs[1] -= inputs[1].mean(axis=tuple(range(1, inputs[1].ndim)), keepdims=True)
    assert share(layer.runtime(inputs)[0], layer.bounds(inputs)[0]) <= 1
    passes_on(layer, inputs)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e18])
def test_a_convolution_of_very_small_or_large_numbers(node, share, scale):
    inputs = _convolution((1, 3, 6, 6), (4, 3, 3, 3), "Conv")
    inputs = [(each * scale).astype(np.float32) for each in inputs[:2]]
    layer = node("Conv")
    (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
    assert share(result, bound) <= 1
    assert np.isfinite(bound.error).all()


def test_convolutions_in_16_bits_round_once_or_at_each_step(node, share):
    inputs = [each.astype(np.float16) for each in _convolution((1, 16, 6, 6), (8, 16, 3, 3), "Conv")]
    (bound,) = node("Conv", output_types=[TensorProto.FLOAT16]).bounds(inputs)
    assert share(bound.value.astype(np.float16), bound) <= 1
    x, kernel, bias = inputs
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    products = windows[:, None] * kernel[None, :, :, None, None]
    products = np.moveaxis(products, 2, -3).reshape(*products.shape[:2], 4, 4, -1)
    while products.shape[-1] > 1:  # a pairwise sum in float16
        if products.shape[-1] % 2:
            products = np.concatenate([products, np.zeros_like(products[..., :1])], -1)
        products = products[..., ::2] + products[..., 1::2]
    assert share(products[..., 0] + bias[:, None, None], bound) <= 1


def test_faults_of_convolutions_exceed_the_bound(node, share):
    x, kernel, bias = _convolution((1, 16, 9, 9), (8, 16, 3, 3), "Conv")
    kernel /= 12
    (bound,) = node("Conv", pads=[1, 1, 1, 1]).bounds([x, kernel, bias])
    (shifted,) = node("Conv", pads=[2, 1, 0, 1]).real([x, kernel, bias])
    assert share(shifted, bound) > 1e3
    (half,) = node("Conv", pads=[1, 1, 1, 1]).real([x, kernel.astype(np.float16), bias])
    assert share(half, bound) > 3
    bias[3] += np.float32(1e-4)
    (biased,) = node("Conv", pads=[1, 1, 1, 1]).real([x, kernel, bias])
    assert share(biased, bound) > 3
    x = np.abs(x)
    (bound,) = node("ConvTranspose", strides=[2, 2]).bounds([x, kernel.swapaxes(0, 1)])
    (half,) = node("ConvTranspose", strides=[2, 2]).real([x, kernel.swapaxes(0, 1).astype(np.float16)])
    assert share(half, bound) > 3


POOLS = [
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}),
    ("GlobalAveragePool", {}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("GlobalMaxPool", {}),
    *(("LpPool", {"kernel_shape": [2, 3], "p": p}) for p in (1, 2, 3)),
    ("GlobalLpPool", {"p": 2}),
]


@pytest.mark.parametrize(("op_type", "attributes"), POOLS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-22])
def test_pools(node, share, passes_on, op_type, attributes, scale):
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 9)) * scale
    pool = node(op_type, **attributes)
    for inputs in ([x.astype(np.float32)], [(x + 100 * scale).astype(np.float32)]):
        (result,), (bound,) = pool.runtime(inputs), pool.bounds(inputs)[:1]
        assert share(result, bound) <= 1
        if "Max" in op_type:
            assert bound.error is None
        passes_on(pool, inputs)


def test_the_place_of_a_maximum_in_doubt_may_be_any(node):
    x = np.array([[[[1.0, 2.0, 9.0, 3.0]]]])
    pool = node("MaxPool", output_types=[TensorProto.FLOAT, TensorProto.INT64], kernel_shape=[1, 2])
    assert [bound.error for bound in pool.bounds([x])] == [None, None]
    value, places = pool.bounds([x], [np.array([[[[0.0, 0.0, 0.0, 0.5]]]])])
    np.testing.assert_array_equal(value.error.ravel(), [0, 0, 0.5])
    np.testing.assert_array_equal(places.error.ravel(), [0, 0, np.inf])


def test_faults_of_pools_exceed_the_bound(node, share):
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    (bound,) = node("AveragePool", **pads).bounds([x])
    assert share(node("AveragePool", **pads, count_include_pad=1).real([x])[0], bound) > 1e3
    (bound,) = node("LpPool", kernel_shape=[2, 2], p=2).bounds([x])
    assert share(node("LpPool", kernel_shape=[2, 2], p=2).real([x.astype(np.float16)])[0], bound) > 3


def test_unpooling_moves_and_columns_are_added_up(node, share, passes_on):
    x = np.array([[[[1.0, -2.0], [3.0, 4.0]]]], np.float32)
    places = np.array([[[[5, 7], [13, 15]]]])
    unpool = node("MaxUnpool", kernel_shape=[2, 2], strides=[2, 2])
    (bound,) = unpool.bounds([x, places])
    assert bound.error is None
    passes_on(unpool, [x, places])
    assert np.isinf(unpool.bounds([x, places], [None, np.ones(places.shape)])[0].error).all()
    columns = np.random.default_rng(0).standard_normal((1, 9 * 2, 16)).astype(np.float32)
    inputs = [columns, np.array([4, 4]), np.array([3, 3])]
    image = node("Col2Im", pads=[1, 1, 1, 1])
    assert share(image.runtime(inputs)[0], image.bounds(inputs)[0]) <= 1
    passes_on(image, inputs)
    apart = node("Col2Im", strides=[2, 2])
    inputs = [columns[:, :8, :4], np.array([4, 4]), np.array([2, 2])]
    assert apart.bounds(inputs)[0].error is None
    assert share(apart.runtime(inputs)[0], apart.bounds(inputs)[0]) == 0


def test_deformable_convolutions(node, share, passes_on):
    rng = np.random.default_rng(0)
    shapes = [(1, 4, 8, 9), (6, 2, 3, 3), (1, 36, 6, 7), (6,), (1, 18, 6, 7)]
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    layer = node("DeformConv", opset=22, group=2, offset_group=2)
    (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
    assert share(result, bound) <= 1
    passes_on(layer, inputs, draws=3)
    x, kernel, offset, bias, mask = inputs
    assert share(layer.real([x, kernel, offset[:, ::-1], bias, mask])[0], bound) > 1e3
    assert share(layer.real([x, kernel, offset * 1.001, bias, mask])[0], bound) > 3
