"""Every kernel of the catalog as Keras computes it, against the float64 formulas at ordinary points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from actconform import Kernel, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import ROW_FORMULAS
from actconform_keras import KerasBackend

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}

# What Keras's own default is, where it is not the definition: declared differences.
DEFAULTS = {"hard-sigmoid-default": "hard-sigmoid-relu6", "leaky-relu-default": "leaky-relu-0.2"}


@pytest.fixture(scope="module")
def backend() -> KerasBackend:
    return KerasBackend()


def meant(kernel: Kernel) -> Kernel:
    """Return the kernel whose truth Keras is held against."""
    return KERNELS[DEFAULTS.get(kernel.name, kernel.name)]


def inputs_of(kernel: Kernel, dtype: str) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(20)
    if kernel.form == "unary":
        kinks = np.array([kink.x for kink in meant(kernel).kinks])
        x = rng.uniform(-7, 7, 230).astype(DTYPES[dtype])
        return {"x": x[(np.abs(x[:, None].astype(np.float64) - kinks) > 0.01).all(axis=1)]}
    if kernel.name == "sparsemax":
        # More than 1 apart: one entry has it all. Where several share, Keras 3.15 is wrong (keras-team/keras#23425).
        return {"x": rng.permuted(np.tile(np.linspace(-4, 4, 7), (5, 1)), axis=1).astype(DTYPES[dtype])}
    shape = (7, 6, 5) if kernel.axis == 1 else (5, 40)
    drawn = {"x": rng.uniform(-4, 4, shape).astype(DTYPES[dtype])}
    return drawn | ({"slope": rng.uniform(-1, 1, 40).astype(DTYPES[dtype])} if "slope" in kernel.inputs else {})


def truth_of(kernel: Kernel, inputs: dict[str, NDArray[Any]], g: NDArray[Any]) -> dict[str, NDArray[Any]]:
    wide = {name: array.astype(np.float64) for name, array in inputs.items()}
    kernel = meant(kernel)
    if kernel.form == "unary":
        formula = FORMULAS[kernel.name]
        slope = formula.derivative(wide["x"], kernel.parameters)
        return {"y": formula.value(wide["x"], kernel.parameters), "d_x": slope * g.astype(np.float64)}
    row = ROW_FORMULAS[kernel.name]
    y = row.value(wide, kernel)
    return {"y": y} | (row.vjp(wide, g.astype(np.float64), kernel) if row.vjp else {})


def cotangent_of(y: NDArray[Any]) -> NDArray[Any]:
    return np.random.default_rng(30).choice([-2.0, -0.5, 1.0], y.shape).astype(y.dtype)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_value_and_gradient_agree_with_the_truth(backend: KerasBackend, kernel: Kernel) -> None:
    inputs = inputs_of(kernel, "f32")
    program = backend.build(kernel, "f32")
    got = dict(program.forward(inputs))
    g = cotangent_of(got["y"])
    if kernel.differentiable:
        got |= program.vjp(inputs, {"y": g})
    truth = truth_of(kernel, inputs, g)
    assert set(got) == set(truth)
    for name, wanted in truth.items():
        np.testing.assert_allclose(got[name], wanted, rtol=1e-5, atol=1e-5, err_msg=f"{kernel.name} {name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_every_dtype_runs_or_is_refused_in_words(backend: KerasBackend, kernel: Kernel, dtype: str) -> None:
    inputs = inputs_of(kernel, dtype)
    before = {name: array.tobytes() for name, array in inputs.items()}
    program = backend.build(kernel, dtype)
    try:
        y = program.forward(inputs)["y"]
        g = cotangent_of(y)
        gradients = program.vjp(inputs, {"y": g}) if kernel.differentiable else {}
    except Unsupported as refusal:
        words = str(refusal)
        assert words
    else:
        wanted = truth_of(kernel, inputs, g)
        # Keras counts indices in int32: the report calls that a finding of class dtype.
        assert y.dtype == (np.int32 if kernel.output_dtype == "int64" else DTYPES[dtype])
        np.testing.assert_allclose(y.astype(np.float64), wanted["y"], rtol=0.05, atol=0.05)
        for name, gradient in gradients.items():
            assert gradient.dtype == DTYPES[dtype]
            assert gradient.shape == inputs[name.removeprefix("d_")].shape
            np.testing.assert_allclose(gradient.astype(np.float64), wanted[name], rtol=0.1, atol=0.1)
    assert {name: array.tobytes() for name, array in inputs.items()} == before


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if not kernel.differentiable])
def test_kernels_without_a_gradient_refuse_one(backend: KerasBackend, name: str) -> None:
    inputs = inputs_of(KERNELS[name], "f32")
    with pytest.raises(Unsupported, match=f"{name} has no gradient"):
        backend.build(KERNELS[name], "f32").vjp(inputs, {"y": np.ones_like(inputs["x"])})


def test_the_slope_of_prelu_runs_along_the_last_axis(backend: KerasBackend) -> None:
    x = -np.ones((2, 3, 3), np.float32)
    slope = np.array([1.0, 2.0, 3.0], np.float32)
    program = backend.build(KERNELS["prelu"], "f32")
    np.testing.assert_array_equal(program.forward({"x": x, "slope": slope})["y"], x * slope)
    gradients = program.vjp({"x": x, "slope": slope}, {"y": np.ones_like(x)})
    np.testing.assert_array_equal(gradients["d_slope"], [-6.0, -6.0, -6.0])


def test_programs_say_what_computes_them(backend: KerasBackend) -> None:
    said = {name: backend.build(kernel, "f32").implementation for name, kernel in KERNELS.items()}
    assert said["gelu-erf"] == "keras.activations.gelu(approximate=False)"
    assert said["leaky-relu"] == "keras.activations.leaky_relu(negative_slope=0.01)"
    assert said["leaky-relu-0.3"] == "keras.layers.LeakyReLU(negative_slope=0.3)"
    assert said["leaky-relu-default"] == "keras.activations.leaky_relu"
    assert said["prelu"] == "keras.layers.PReLU"
    assert said["quick-gelu"] == "composition: x * keras.activations.sigmoid(1.702 * x)"
    assert all(text.startswith(("keras.", "composition: ")) for text in said.values())


def test_a_kernel_of_somebody_else_is_unsupported(backend: KerasBackend) -> None:
    unknown = Kernel(name="no-such", definition="x", source="here")
    with pytest.raises(Unsupported, match="keras has no implementation of kernel no-such"):
        backend.build(unknown, "f32")
