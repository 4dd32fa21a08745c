"""Drawn inputs and parameters have the distribution that they are named after."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from actconform.catalog.models.builder import describe, layer
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types.model import LOSS, Input

TARGET = Input(name="target", shape=(2,), draw="normal", role="target")
DENSE = layer("y", "dense", "x", units=2)
MSE = layer(LOSS, "mean-squared-error", "y", "target")


def drawn_from(*layers, inputs):
    return describe("tried", "a test", inputs, layers, output="y", batch=3)


def one_input(draw, width=1000, batch=20):
    inputs = (Input(name="x", shape=(width,), draw=draw), TARGET)
    return draw_inputs(describe("drawn", "a test", inputs, [DENSE, MSE], output="y", batch=batch))["x"]


def one_parameter(init, *, window=None):
    if window is None:
        model = drawn_from(layer("y", "dense", "x", units=2, init=init), MSE, inputs=(one_wide(300), TARGET))
        return draw_parameters(model)["y.kernel"]
    layers = [layer("c", "conv2d", "x", filters=12, size=window, init=init), layer("f", "flatten", "c")]
    image = Input(name="x", shape=(9, 9, 8), draw="normal")
    model = drawn_from(*layers, layer("y", "dense", "f", units=2), MSE, inputs=(image, TARGET))
    return draw_parameters(model)["c.kernel"]


def one_wide(width):
    return Input(name="x", shape=(width,), draw="normal")


@pytest.mark.parametrize(
    ("init", "window", "reach"),
    [
        ("he_uniform", None, math.sqrt(6 / 300)),
        ("glorot_uniform", None, math.sqrt(6 / 302)),
        ("he_uniform", (3, 2), math.sqrt(6 / (6 * 8))),
        ("glorot_uniform", (3, 2), math.sqrt(6 / (6 * 8 + 6 * 12))),
    ],
)
def test_initial_kernels_are_uniform_up_to_the_reach_of_their_fan(init, window, reach):
    kernel = one_parameter(init, window=window).astype(float)
    assert np.abs(kernel).max() <= reach * (1 + 1e-7)
    assert np.abs(kernel).max() > 0.98 * reach
    deviation = reach / math.sqrt(3)
    assert abs(kernel.mean()) < 4 * deviation / math.sqrt(kernel.size)
    assert abs(kernel.std() - deviation) < 0.1 * deviation


def test_other_initial_values():
    assert_array_equal(one_parameter("zeros"), np.zeros((300, 2)))
    assert_array_equal(one_parameter("ones"), np.ones((300, 2)))
    for middle in (0.0, 1.0):
        near = one_parameter(f"near:{middle:g}")
        assert abs(near - middle).max() <= 0.25
        assert np.unique(near).size > 500


@pytest.mark.parametrize("rate", [0.12, 0.3, 0.5])
def test_masks_are_0_for_about_their_rate_and_else_1(rate):
    mask = one_input(f"mask:{rate}")
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert abs(mask.mean() - (1 - rate)) < 4 * math.sqrt(rate * (1 - rate) / mask.size)


def test_padding_has_every_length():
    rows = one_input("padding", width=5, batch=20)
    lengths = rows.sum(axis=1)
    assert_array_equal(rows, np.arange(5) < lengths[:, None])
    assert_array_equal(np.unique(lengths, return_counts=True), [[1, 2, 3, 4, 5], [4] * 5])


def test_ids_are_whole_numbers_that_all_come():
    ids = one_input("ids:7")
    values, counts = np.unique(ids, return_counts=True)
    assert_array_equal(values, np.arange(7))
    assert abs(counts - ids.size / 7).max() < 5 * math.sqrt(ids.size / 7)


def test_rows_of_one_hot_have_one_1_and_all_classes_come():
    rows = one_input("one-hot", width=8, batch=400)
    assert set(np.unique(rows)) == {0.0, 1.0}
    assert_array_equal(rows.sum(axis=1), np.ones(400))
    assert rows.sum(axis=0).min() > 25


def test_rows_of_softmax_are_positive_and_sum_to_1():
    rows = one_input("softmax", width=40)
    assert (rows > 0).all()
    assert_allclose(rows.sum(axis=1, dtype=np.float64), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("draw", "low", "high", "mean", "deviation"),
    [
        ("normal", -6, 6, 0, 1),
        ("uniform", -1, 1, 0, 1 / math.sqrt(3)),
        ("unit", 1 / 64, 63 / 64, 0.5, (62 / 64) / math.sqrt(12)),
        ("binary", 0, 1, 0.5, 0.5),
        ("gumbel", -4, 24, 0.5772156649, math.pi / math.sqrt(6)),
    ],
)
def test_drawn_numbers_have_the_distribution_that_they_are_named_after(draw, low, high, mean, deviation):
    x = one_input(draw).astype(float)
    assert low <= x.min()
    assert x.max() <= high
    assert abs(x.mean() - mean) < 4 * deviation / math.sqrt(x.size)
    assert abs(x.std() - deviation) < 0.03 * deviation


def test_gumbel_noise_has_the_distribution_function_exp_of_minus_exp():
    x = one_input("gumbel")
    for at in (-1.0, 0.0, 1.0, 3.0):
        wanted = math.exp(-math.exp(-at))
        assert abs((x <= at).mean() - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / x.size)


def test_an_unknown_draw_or_initializer_is_refused_by_name():
    with pytest.raises(ValueError, match="input x: no way to draw is called 'poisson'"):
        one_input("poisson")
    with pytest.raises(ValueError, match=r"parameter y\.kernel: no initializer is called 'lecun'"):
        one_parameter("lecun")
