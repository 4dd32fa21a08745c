"""What goes into a framework and comes back: every bit, from arrays of any layout, into memory of its own."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from kernel_truth import KERNELS

each_framework = pytest.mark.parametrize("framework", ["keras", "torch", "jax"])


@each_framework
def test_bf16_bits_survive_the_round_trip(backend_of, framework):
    bits = np.arange(65536, dtype=np.uint16)
    program = backend_of(framework).build(KERNELS["linear"], "bf16")
    y = program.forward({"x": bits.view(ml_dtypes.bfloat16)})["y"]
    np.testing.assert_array_equal(y.view(np.uint16), bits)
    d = program.vjp({"x": y}, {"y": bits.view(ml_dtypes.bfloat16)})["d_x"]
    np.testing.assert_array_equal(d.view(np.uint16), bits)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)], ids=["f32", "bf16"])
@each_framework
def test_what_comes_back_does_not_follow_what_was_given(backend_of, framework, dtype):
    x, g = np.ones(4, dtype), np.ones(4, dtype)
    program = backend_of(framework).build(KERNELS["linear"], "f32" if dtype.itemsize == 4 else "bf16")
    y, d = program.forward({"x": x})["y"], program.vjp({"x": x}, {"y": g})["d_x"]
    x[:] = g[:] = 9.0
    np.testing.assert_array_equal([y, d], np.ones((2, 4)))


@pytest.mark.filterwarnings("error")
@each_framework
def test_read_only_strided_and_scalar_arrays_are_taken(backend_of, framework):
    program = backend_of(framework).build(KERNELS["relu"], "f32")
    frozen = np.array([-1.0, 2.0], np.float32)
    frozen.setflags(write=False)
    np.testing.assert_array_equal(program.forward({"x": frozen})["y"], [0.0, 2.0])
    backwards = np.array([-1.0, 2.0, 3.0], np.float32)[::-1]
    np.testing.assert_array_equal(program.forward({"x": backwards})["y"], [3.0, 2.0, 0.0])
    assert program.forward({"x": np.array(2.0, np.float32)})["y"].shape == ()
