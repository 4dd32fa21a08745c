"""Dense, convolution, pooling, up-sampling and changes of shape against complex steps, torch in float64 and worked values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import actconform.oracle.layers.dense  # noqa: F401  registers its kinds
from actconform.oracle.layers.registry import Reading, formula_of
from actconform.types.model import Layer

NAN, INF = np.nan, np.inf


def read(kind, x, parameters=None, **setting):
    return Reading(Layer(name="it", kind=kind, inputs=("x",), settings=setting), [x], parameters or {}, training=False)


def value(reading):
    return formula_of(reading.layer).forward(reading)


def pulled(reading, g):
    """Return the cotangents of x and of the parameters by name, each of the shape of what it belongs to."""
    (d_x,), parameters = formula_of(reading.layer).vjp(reading, value(reading), g)
    found = {"x": d_x, **parameters}
    assert {name: array.shape for name, array in found.items()} == {
        name: array.shape for name, array in {"x": reading.inputs[0], **reading.parameters}.items()
    }
    return found


def steps(reading, g):
    """Return what `pulled` must return, by a complex step at every element: exact to rounding."""
    found = {}
    for name, array in {"x": reading.inputs[0], **reading.parameters}.items():
        found[name] = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            moved = array.astype(complex)
            moved[index] += 1e-30j
            if name == "x":
                stepped = reading._replace(inputs=[moved])
            else:
                stepped = reading._replace(parameters={**reading.parameters, name: moved})
            found[name][index] = np.sum(g * value(stepped).imag) / 1e-30
    return found


def agree(reading, rng):
    g = rng.normal(size=value(reading).shape)
    ours, stepped = pulled(reading, g), steps(reading, g)
    for name, array in stepped.items():
        assert_allclose(ours[name], array, rtol=1e-11, atol=1e-12, err_msg=name)
    return g, ours


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


@pytest.mark.parametrize("leading", [(3,), (2, 3), (2, 1, 3)])
def test_dense_works_on_the_last_axis(leading):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    parameters = {"kernel": rng.normal(size=(4, 5)), "bias": rng.normal(size=5)}
    reading = read("dense", rng.normal(size=(*leading, 4)), parameters, units=5)
    x, kernel, bias = (torch.tensor(array) for array in (reading.inputs[0], *parameters.values()))
    y = torch.nn.functional.linear(x, kernel.T, bias)
    assert_allclose(value(reading), y.numpy(), rtol=1e-13, atol=1e-14)
    agree(reading, rng)


def test_up_sampling_repeats_pixels_and_its_gradient_sums_them():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 2, 3, 2))
    reading = read("up-sampling", x, size=(2, 3))
    y = value(reading)
    assert y.shape == (2, 4, 9, 2)
    for row, column in np.ndindex(4, 9):
        assert_array_equal(y[:, row, column], x[:, row // 2, column // 3])
    agree(reading, rng)


def test_flatten_and_reshape_keep_the_order_of_the_last_axis_first():
    x = np.arange(24.0).reshape(2, 2, 3, 2)
    assert_array_equal(value(read("flatten", x)), np.arange(24.0).reshape(2, 12))
    assert_array_equal(value(read("reshape", x, shape=(3, 4))), np.arange(24.0).reshape(2, 3, 4))
    rng = np.random.default_rng(4)
    for reading in (read("flatten", x), read("reshape", x, shape=(3, 4))):
        agree(reading, rng)
