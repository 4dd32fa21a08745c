"""Convolutions, pools, up-sampling and resizing against complex steps, torch in float64 and worked values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import actconform.oracle.layers.windows  # noqa: F401  registers its kinds
from tests.layer_steps import agree, pulled, read, value

NAN, INF = np.nan, np.inf


def tensorflow_pads(length, window, stride):
    """The rule as TensorFlow documents it, by the remainder: https://www.tensorflow.org/api_docs/python/tf/nn."""
    remainder = length % stride
    total = max(window - (stride if remainder == 0 else remainder), 0)
    return total // 2, total - total // 2


@st.composite
def images(draw):
    """Return (generator, x, settings of a window that fits it)."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    padding = draw(st.sampled_from(["valid", "same"]))
    least = size if padding == "valid" else (1, 1)
    height, width = (draw(st.integers(low, 7)) for low in least)
    x = rng.normal(size=(draw(st.integers(1, 2)), height, width, draw(st.integers(1, 3))))
    return rng, x, {"size": size, "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), "padding": padding}


def padded_tensor(torch, x, window, fill):
    """Return x as a leaf of torch's graph, and that tensor as (batch, channels, height, width) with its padding."""
    leaf = torch.tensor(x, requires_grad=True)
    pads = [(0, 0), (0, 0)]
    if window["padding"] == "same":
        pads = [tensorflow_pads(*three) for three in zip(x.shape[1:3], window["size"], window["strides"], strict=True)]
    return leaf, torch.nn.functional.pad(leaf.permute(0, 3, 1, 2), (*pads[1], *pads[0]), value=fill)


@settings(max_examples=40, deadline=None)
@given(images(), st.integers(1, 3))
def test_conv2d_agrees_with_torch(image, filters):
    torch = pytest.importorskip("torch")
    rng, x, window = image
    parameters = {"kernel": rng.normal(size=(*window["size"], x.shape[3], filters)), "bias": rng.normal(size=filters)}
    reading = read("conv2d", x, parameters, filters=filters, **window)

    leaf, padded = padded_tensor(torch, x, window, 0.0)
    kernel, bias = (torch.tensor(parameters[name], requires_grad=True) for name in ("kernel", "bias"))
    y = torch.nn.functional.conv2d(padded, kernel.permute(3, 2, 0, 1).contiguous(), bias, stride=window["strides"])
    assert_allclose(value(reading), y.detach().permute(0, 2, 3, 1).numpy(), rtol=1e-12, atol=1e-13)

    g = rng.normal(size=value(reading).shape)
    y.backward(torch.tensor(g).permute(0, 3, 1, 2))
    ours = pulled(reading, g)
    for name, tensor in {"x": leaf, "kernel": kernel, "bias": bias}.items():
        assert_allclose(ours[name], tensor.grad.numpy(), rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 3), (2, 4)])
def test_gradients_of_conv2d_are_those_of_complex_steps(size, strides, padding):
    rng = np.random.default_rng(1)
    parameters = {"kernel": rng.normal(size=(*size, 2, 3)), "bias": rng.normal(size=3)}
    x = rng.normal(size=(2, 5, 4, 2))
    agree(read("conv2d", x, parameters, filters=3, size=size, strides=strides, padding=padding), rng)


@settings(max_examples=40, deadline=None)
@given(images())
def test_max_pool_agrees_with_torch_and_complex_steps(image):
    torch = pytest.importorskip("torch")
    rng, x, window = image
    reading = read("max-pool", x, **window)
    leaf, padded = padded_tensor(torch, x, window, -INF)
    y = torch.nn.functional.max_pool2d(padded, window["size"], window["strides"])
    assert_array_equal(value(reading), y.detach().permute(0, 2, 3, 1).numpy())
    g, ours = agree(reading, rng)
    y.backward(torch.tensor(g).permute(0, 3, 1, 2))
    assert_allclose(ours["x"], leaf.grad.numpy(), rtol=1e-12, atol=1e-13)


def pool(image, size=(1, 2), strides=(1, 2), padding="same"):
    return read(
        "max-pool", np.array(image, float)[np.newaxis, ..., np.newaxis], size=size, strides=strides, padding=padding
    )


def plane(array):
    return array[0, ..., 0].tolist()


def test_the_gradient_of_a_maximum_goes_to_its_first_pixel_in_row_major_order():
    reading = pool([[1, 3, 3], [3, 3, 0]], size=(2, 2), strides=(1, 1), padding="valid")
    assert plane(value(reading)) == [[3, 3]]
    assert plane(pulled(reading, np.array([[[[5.0], [7.0]]]]))["x"]) == [[0, 12, 0], [0, 0, 0]]
    reading = pool([[2, 2], [2, 2]], size=(2, 2), strides=(2, 2))
    assert plane(pulled(reading, np.full((1, 1, 1, 1), 5.0))["x"]) == [[5, 0], [0, 0]]


def test_padding_never_wins_a_maximum():
    """Windows of 3 over 5 pixels by steps of 2: one column of padding on either side."""
    reading = pool([[-5, -7, -INF, -INF, -INF]], size=(1, 3))
    assert plane(value(reading)) == [[-5, -7, -INF]]
    assert plane(pulled(reading, np.array([[[[1.0], [10.0], [100.0]]]]))["x"]) == [[1, 10, 0, 100, 0]]
    lowest = pool([[-INF]], size=(3, 3), strides=(1, 1))
    assert plane(value(lowest)) == [[-INF]]
    assert plane(pulled(lowest, np.ones((1, 1, 1, 1)))["x"]) == [[1]]


def test_a_nan_is_the_maximum_of_its_windows():
    reading = pool([[1, NAN, 2, 3]])
    assert_array_equal(value(reading)[0, 0, :, 0], [NAN, 3])
    assert plane(pulled(reading, np.ones((1, 1, 2, 1)))["x"]) == [[0, 1, 0, 1]]


def test_the_odd_pixel_of_same_padding_stands_after():
    """Two ones at stride 2 over 3 pixels: 3 taps are wanted by 4 places, so the one zero stands at the end."""
    x = np.array([1.0, 10.0, 100.0]).reshape(1, 1, 3, 1)
    parameters = {"kernel": np.ones((1, 2, 1, 1)), "bias": np.zeros(1)}
    y = value(read("conv2d", x, parameters, filters=1, size=(1, 2), strides=(1, 2), padding="same"))
    assert plane(y) == [[11, 100]]


def test_a_convolution_is_a_correlation_the_kernel_is_not_turned():
    x = np.array([0.0, 0.0, 1.0, 0.0]).reshape(1, 1, 4, 1)
    parameters = {"kernel": np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1), "bias": np.array([0.5])}
    y = value(read("conv2d", x, parameters, filters=1, size=(1, 3), strides=(1, 1), padding="same"))
    assert plane(y) == [[0.5, 3.5, 2.5, 1.5]]


def test_up_sampling_repeats_pixels_and_its_gradient_sums_them():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 2, 3, 2))
    reading = read("up-sampling", x, size=(2, 3))
    y = value(reading)
    assert y.shape == (2, 4, 9, 2)
    for row, column in np.ndindex(4, 9):
        assert_array_equal(y[:, row, column], x[:, row // 2, column // 3])
    agree(reading, rng)


def torch_agrees(reading, function, rng):
    """Hold value and gradients to torch's function of (x channels first, parameters by name), in float64."""
    torch = pytest.importorskip("torch")
    leaves = {
        name: torch.tensor(array, requires_grad=True)
        for name, array in {"x": reading.inputs[0], **reading.parameters}.items()
    }
    y = function(leaves["x"].permute(0, 3, 1, 2), leaves)
    y = y.permute(0, 2, 3, 1) if y.dim() == 4 else y
    assert_allclose(value(reading), y.detach().numpy(), rtol=1e-12, atol=1e-13)
    g, ours = agree(reading, rng)
    y.backward(torch.tensor(g))
    for name, leaf in leaves.items():
        assert_allclose(ours[name], leaf.grad.numpy(), rtol=1e-12, atol=1e-12, err_msg=name)


def weights(rng, *shape):
    return {"kernel": rng.normal(size=shape), "bias": rng.normal(size=shape[-1])}


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("channels", "filters", "groups", "strides", "dilations"),
    [
        (2, 3, 1, (1, 1), (2, 3)),
        (6, 9, 3, (1, 1), (1, 1)),
        (6, 3, 3, (2, 1), (1, 1)),
        (4, 8, 4, (2, 2), (1, 1)),  # depthwise, two filters a channel
        (3, 3, 3, (1, 1), (1, 2)),
        (4, 6, 2, (2, 3), (2, 1)),
    ],
)
def test_dilated_grouped_and_depthwise_conv2d_agree_with_torch(channels, filters, groups, strides, dilations, padding):
    rng, size = np.random.default_rng(5), (3, 2)
    x = rng.normal(size=(1, 6, 5, channels))
    settings = {"strides": strides, "dilations": dilations, "groups": groups, "padding": padding}
    reading = read(
        "conv2d", x, weights(rng, *size, channels // groups, filters), filters=filters, size=size, **settings
    )
    reach = [(k - 1) * step + 1 for k, step in zip(size, dilations, strict=True)]
    pads = [(0, 0), (0, 0)]
    if padding == "same":
        pads = [tensorflow_pads(*axis) for axis in zip(x.shape[1:3], reach, strides, strict=True)]

    def by_torch(x, leaves):
        from torch.nn.functional import conv2d, pad

        kernel = leaves["kernel"].permute(3, 2, 0, 1)
        return conv2d(pad(x, (*pads[1], *pads[0])), kernel, leaves["bias"], strides, 0, dilations, groups)

    torch_agrees(reading, by_torch, rng)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 3), (3, 1)])
@pytest.mark.parametrize("size", [(3, 3), (3, 4), (1, 2), (2, 5)])
def test_conv2d_transpose_agrees_with_torch(size, strides, padding):
    """Of torch's whole result what Keras' documented lengths, n s under "same", leave: the odd pixel is cut off at the end."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2, 3, 4, 2))
    parameters = {"kernel": rng.normal(size=(*size, 3, 2)), "bias": rng.normal(size=3)}
    reading = read("conv2d-transpose", x, parameters, filters=3, size=size, strides=strides, padding=padding)
    wanted = [n * s + max(k - s, 0) * (padding == "valid") for n, s, k in zip(x.shape[1:3], strides, size, strict=True)]
    first = [max(k - s, 0) // 2 * (padding == "same") for s, k in zip(strides, size, strict=True)]

    def by_torch(x, leaves):
        from torch.nn.functional import conv_transpose2d

        longer = [max(s - k, 0) for s, k in zip(strides, size, strict=True)]
        kernel = leaves["kernel"].permute(3, 2, 0, 1)
        y = conv_transpose2d(x, kernel, leaves["bias"], strides, output_padding=longer)
        return y[:, :, first[0] : first[0] + wanted[0], first[1] : first[1] + wanted[1]]

    assert value(reading).shape == (2, *wanted, 3)
    torch_agrees(reading, by_torch, rng)


def test_conv2d_transpose_pulls_back_what_conv2d_gives():
    """<conv(x), y> = <x, transposed(y)> without bias: one is the other's transpose."""
    rng = np.random.default_rng(7)
    kernel = rng.normal(size=(3, 4, 2, 5))
    window = {"size": (3, 4), "strides": (2, 3), "padding": "same"}
    x, y = rng.normal(size=(1, 6, 9, 2)), rng.normal(size=(1, 3, 3, 5))
    forward = value(read("conv2d", x, {"kernel": kernel, "bias": np.zeros(5)}, filters=5, **window))
    back = value(read("conv2d-transpose", y, {"kernel": kernel, "bias": np.zeros(2)}, filters=2, **window))
    assert_allclose(np.sum(forward * y), np.sum(x * back), rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(images())
def test_average_pool_is_the_mean_of_the_pixels_that_a_window_has(image):
    rng, x, window = image
    reading = read("average-pool", x, **window)
    with_nan = np.full((len(x), *np.add(x.shape[1:3], 8), x.shape[3]), NAN)
    with_nan[:, 4:-4, 4:-4] = x
    first = [0, 0]
    if window["padding"] == "same":
        axes = zip(x.shape[1:3], window["size"], window["strides"], strict=True)
        first = [tensorflow_pads(*axis)[0] for axis in axes]
    y = value(reading)
    for row, column in np.ndindex(*y.shape[1:3]):
        top, left = (4 + at * s - p for at, s, p in zip((row, column), window["strides"], first, strict=True))
        pixels = with_nan[:, top : top + window["size"][0], left : left + window["size"][1]]
        assert_allclose(y[:, row, column], np.nanmean(pixels, axis=(1, 2)), rtol=1e-12, atol=1e-14)
    agree(reading, rng)


def test_an_average_of_three_at_the_border_divides_by_two():
    row = np.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    reading = read("average-pool", row, size=(1, 3), strides=(1, 1), padding="same")
    assert_allclose(plane(value(reading)), [[1.5, 7 / 3, 3.0]])
    pulled_back = pulled(reading, np.ones((1, 1, 3, 1)))["x"]
    assert_allclose(plane(pulled_back), [[1 / 2 + 1 / 3, 1 / 2 + 1 / 3 + 1 / 2, 1 / 3 + 1 / 2]])


def test_global_average_pool_is_the_mean_of_each_channel():
    rng = np.random.default_rng(8)
    reading = read("global-average-pool", rng.normal(size=(2, 3, 5, 4)))
    torch_agrees(reading, lambda x, _: x.mean(dim=(2, 3)), rng)


@pytest.mark.parametrize("size", [(8, 6), (9, 7), (3, 2), (1, 1), (4, 5)])
def test_bilinear_resize_agrees_with_torch(size):
    rng = np.random.default_rng(9)
    reading = read("bilinear-resize", rng.normal(size=(2, 4, 5, 2)), size=size)

    def by_torch(x, _):
        from torch.nn.functional import interpolate

        return interpolate(x, size, mode="bilinear", align_corners=False)

    torch_agrees(reading, by_torch, rng)


def test_pixels_of_a_resized_image_are_between_half_pixels():
    row = np.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    assert plane(value(read("bilinear-resize", row, size=(1, 4)))) == [[0, 1, 3, 4]]
    assert plane(value(read("bilinear-resize", row, size=(1, 1)))) == [[2]]
