"""The table of JAX's kernels; what its programs say of themselves, and their calls that are held."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform_jax import JaxBackend
from actconform_jax.kernels import COMPOSED, NATIVE, implement

pytest.importorskip("jax")

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}


def test_every_kernel_of_the_catalog_has_one_entry() -> None:
    assert set(NATIVE) | set(COMPOSED) == set(KERNELS)
    assert not set(NATIVE) & set(COMPOSED)


def test_what_a_program_says_names_what_it_calls() -> None:
    assert implement(KERNELS["gelu-erf"]).text == "jax.nn.gelu(approximate=False)"
    assert implement(KERNELS["leaky-relu"]).text == "jax.nn.leaky_relu(negative_slope=0.01)"
    assert implement(KERNELS["swish"]).text == "composition: x * jax.nn.sigmoid(1.5 * x)"


def test_bf16_comes_back_with_memory_of_its_own() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    x = bits.view(ml_dtypes.bfloat16).copy()
    y = JaxBackend().build(KERNELS["linear"], "bf16").forward({"x": x})["y"]
    x[:] = 0
    np.testing.assert_array_equal(y.view(np.uint16), bits)
    y[0] = 1  # and it may be written to


def test_a_held_call_is_computed_when_it_returns_and_may_be_repeated() -> None:
    inputs = {"x": np.linspace(-3, 3, 67, dtype=np.float32)}
    program = JaxBackend().build(KERNELS["mish"], "f32")
    once = program.prepare_call(inputs)
    first, second = (np.asarray(once()["y"]) for _ in range(2))  # type: ignore[index]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, program.forward(inputs)["y"])
