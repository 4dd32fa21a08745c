"""Dense layers and changes of shape against complex steps, torch in float64 and worked values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import actconform.oracle.layers.dense  # noqa: F401  registers its kinds
from tests.layer_steps import agree, read, value


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


def test_flatten_and_reshape_keep_the_order_of_the_last_axis_first():
    x = np.arange(24.0).reshape(2, 2, 3, 2)
    assert_array_equal(value(read("flatten", x)), np.arange(24.0).reshape(2, 12))
    assert_array_equal(value(read("reshape", x, shape=(3, 4))), np.arange(24.0).reshape(2, 3, 4))
    rng = np.random.default_rng(4)
    for reading in (read("flatten", x), read("reshape", x, shape=(3, 4))):
        agree(reading, rng)
