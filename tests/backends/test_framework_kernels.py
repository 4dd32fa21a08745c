"""Every kernel of the catalog as the frameworks compute it, against the float64 formulas at ordinary points."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_truth import DTYPES, KERNELS, bits, computed_by, cotangent_of, gradients_of, inputs_of, value_of

from actconform import Kernel, Unsupported

FRAMEWORKS = ("keras", "torch", "jax")
# Of the value and of the gradient, relative and absolute.
LIMITS = {"f32": (1e-5, 1e-5), "f16": (0.05, 0.1), "bf16": (0.05, 0.1)}
OF_JAX = {**LIMITS, "f32": (64 * 2.0**-24, 64 * 2.0**-24)}  # 64 roundings: its arithmetic is float32's throughout
# They count indices in int32: the report calls that a finding of class dtype.
INT32 = ("keras", "jax")

each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@each_framework
def test_value_and_gradient_agree_with_the_truth(backend_of, framework, kernel, dtype):
    program = backend_of(framework).build(kernel, dtype)
    truth = computed_by(framework, kernel)
    # Where several entries share, Keras 3.15's sparsemax is wrong (keras-team/keras#23425).
    inputs = inputs_of(truth, dtype, sparse=framework != "keras")
    before = bits(inputs)
    try:
        outputs = program.forward(inputs)
        cotangent = cotangent_of(outputs["y"])
        gradients = program.vjp(inputs, {"y": cotangent}) if kernel.differentiable else {}
    except Unsupported as refusal:
        words = str(refusal)
        assert words
        assert dtype != "f32", words
        return
    assert set(outputs) == {"y"}
    index = np.int32 if framework in INT32 else np.int64
    assert outputs["y"].dtype == (index if kernel.output_dtype == "int64" else DTYPES[dtype])
    value_limit, gradient_limit = (OF_JAX if framework == "jax" else LIMITS)[dtype]
    check_near(outputs, {"y": value_of(truth, inputs)}, value_limit)
    check_near(gradients, gradients_of(truth, inputs, cotangent) if kernel.differentiable else {}, gradient_limit)
    assert {gradient.dtype for gradient in gradients.values()} <= {np.dtype(DTYPES[dtype])}
    assert bits(inputs) == before


def check_near(outputs, wanted, limit):
    assert set(outputs) == set(wanted)
    for name, truth in wanted.items():
        assert outputs[name].shape == truth.shape
        np.testing.assert_allclose(outputs[name].astype(np.float64), truth, rtol=limit, atol=limit, err_msg=name)


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if not kernel.differentiable])
@each_framework
def test_a_kernel_without_a_gradient_refuses_one(backend_of, framework, name):
    inputs = inputs_of(KERNELS[name], "f32")
    with pytest.raises(Unsupported, match="has no gradient, by declaration"):
        backend_of(framework).build(KERNELS[name], "f32").vjp(inputs, {"y": np.ones_like(inputs["x"])})


@each_framework
def test_the_slope_of_prelu_runs_along_the_last_axis(backend_of, framework):
    x = -np.ones((2, 3, 3), np.float32)
    slope = np.array([1.0, 2.0, 3.0], np.float32)
    program = backend_of(framework).build(KERNELS["prelu"], "f32")
    np.testing.assert_array_equal(program.forward({"x": x, "slope": slope})["y"], x * slope)
    gradients = program.vjp({"x": x, "slope": slope}, {"y": np.ones_like(x)})
    np.testing.assert_array_equal(gradients["d_slope"], [-6.0, -6.0, -6.0])


@each_framework
def test_a_kernel_that_it_does_not_know_is_refused_by_name(backend_of, framework):
    unknown = Kernel(name="no-such", definition="x", source="here")
    with pytest.raises(Unsupported, match=f"{framework} has no implementation of kernel no-such"):
        backend_of(framework).build(unknown, "f32")
