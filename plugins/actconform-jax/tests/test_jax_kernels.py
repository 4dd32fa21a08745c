"""Every kernel in JAX against the float64 truth, values and gradients; what the programs say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from actconform import Kernel, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import ROW_FORMULAS
from actconform_jax import JaxBackend
from actconform_jax.kernels import COMPOSED, NATIVE, implement

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytest.importorskip("jax")

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
NUMPY: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
UNIT = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
# Called without parameters they are other functions, by JAX's own defaults.
OTHER = {"gelu-default": "gelu-tanh", "hard-sigmoid-default": "hard-sigmoid-relu6"}

each_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def inputs_of(kernel: Kernel, dtype: str) -> dict[str, NDArray[Any]]:
    draw = np.random.default_rng(3)
    shape = (67,) if kernel.form == "unary" else (2, 17, 3) if kernel.axis == 1 else (3, 34)
    inputs = {"x": (2.0 * draw.standard_normal(shape)).astype(NUMPY[dtype])}
    if "slope" in kernel.inputs:
        inputs["slope"] = draw.standard_normal(shape[-1:]).astype(NUMPY[dtype])
    return inputs


def truth_of(kernel: Kernel, inputs: dict[str, NDArray[Any]], cotangent: NDArray[Any] | None) -> dict[str, Any]:
    kernel = KERNELS[OTHER.get(kernel.name, kernel.name)]
    wide = {name: array.astype(np.float64) for name, array in inputs.items()}
    if kernel.form == "unary":
        formula = FORMULAS[kernel.name]
        if cotangent is None:
            return {"y": formula.value(wide["x"], kernel.parameters)}
        return {"d_x": cotangent.astype(np.float64) * formula.derivative(wide["x"], kernel.parameters)}
    rows = ROW_FORMULAS[kernel.name]
    return (
        {"y": rows.value(wide, kernel)} if cotangent is None else rows.vjp(wide, cotangent.astype(np.float64), kernel)
    )


def check(found: dict[str, Any], wanted: dict[str, Any], dtype: str) -> None:
    assert set(found) == set(wanted)
    for name, truth in wanted.items():
        assert found[name].shape == truth.shape
        limit = 64 * UNIT[dtype]
        np.testing.assert_allclose(found[name].astype(np.float64), truth, rtol=limit, atol=limit, err_msg=name)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@each_kernel
def test_values_and_gradients_are_near_the_truth(kernel: Kernel, dtype: str) -> None:
    inputs = inputs_of(kernel, dtype)
    before = {name: array.tobytes() for name, array in inputs.items()}
    program = JaxBackend().build(kernel, dtype)
    outputs = program.forward(inputs)
    assert outputs["y"].dtype == (np.int32 if kernel.output_dtype == "int64" else NUMPY[dtype])
    check(outputs, truth_of(kernel, inputs, None), dtype)
    if not kernel.differentiable:
        with pytest.raises(Unsupported, match="no gradient, by declaration"):
            program.vjp(inputs, {"y": outputs["y"]})
        return
    cotangent = np.random.default_rng(5).choice([-2.0, -1.0, 0.5, 1.0], outputs["y"].shape).astype(NUMPY[dtype])
    pulled = program.vjp(inputs, {"y": cotangent})
    check(pulled, {f"d_{n.removeprefix('d_')}": g for n, g in truth_of(kernel, inputs, cotangent).items()}, dtype)
    assert {name: array.tobytes() for name, array in inputs.items()} == before


def test_every_kernel_of_the_catalog_has_one_entry() -> None:
    assert set(NATIVE) | set(COMPOSED) == set(KERNELS)
    assert not set(NATIVE) & set(COMPOSED)


def test_what_a_program_says_names_what_it_calls() -> None:
    assert implement(KERNELS["gelu-erf"]).text == "jax.nn.gelu(approximate=False)"
    assert implement(KERNELS["leaky-relu"]).text == "jax.nn.leaky_relu(negative_slope=0.01)"
    assert implement(KERNELS["swish"]).text == "composition: x * jax.nn.sigmoid(1.5 * x)"


def test_a_kernel_of_somebody_elses_is_refused() -> None:
    with pytest.raises(Unsupported, match="jax has no implementation of kernel a-kernel-of-a-plugin"):
        JaxBackend().build(Kernel(name="a-kernel-of-a-plugin", definition="x", source="a plugin"), "f32")


def test_bf16_comes_back_with_memory_of_its_own() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    x = bits.view(ml_dtypes.bfloat16).copy()
    y = JaxBackend().build(KERNELS["linear"], "bf16").forward({"x": x})["y"]
    x[:] = 0
    np.testing.assert_array_equal(y.view(np.uint16), bits)
    y[0] = 1  # and it may be written to


def test_a_held_call_is_computed_when_it_returns_and_may_be_repeated() -> None:
    inputs = inputs_of(KERNELS["mish"], "f32")
    program = JaxBackend().build(KERNELS["mish"], "f32")
    once = program.ready(inputs)
    first, second = (np.asarray(once()["y"]) for _ in range(2))  # type: ignore[index]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, program.forward(inputs)["y"])
