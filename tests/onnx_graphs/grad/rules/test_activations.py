"""Gradients of activations: against torch's in float64, and at what breaks naive formulas in float32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import scipy.special
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actconform.catalog.kernels import ROWS, UNARY
from actconform.comparison.comparator import compare
from actconform.onnx.author.exporter import author
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.onnx.grad.rules.activations import MILLS_CENTRE, MILLS_DOUBLE, MILLS_SINGLE
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import generate

torch = pytest.importorskip("torch")
F = torch.nn.functional

X = np.concatenate([np.linspace(-7.95, 7.95, 54), [-30.0, 25.0]]).reshape(4, 14)
NO_PARAMETERS = {
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Softplus": lambda x: F.softplus(x, threshold=1e9),
    "Softsign": F.softsign,
    "Relu": F.relu,
    "Mish": lambda x: x * torch.tanh(torch.logaddexp(x, torch.zeros_like(x))),
    "Softmax": lambda x: x.softmax(-1),
    "LogSoftmax": lambda x: x.log_softmax(-1),
}
KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS if kernel.differentiable}
# Kernels whose gradient graph breaks a limit though each node is exact and rounded once, and how, in float32.
KNOWN = {
    **{key: {"tail"} for key in ("celu", "gelu-tanh")},  # exp magnifies the rounding of x / alpha, and of the cubic
    "tanh-shrink": {"tail", "subnormal-flush"},  # x - tanh(x) cancels
    "squareplus": {"tail", "subnormal-flush", "nan-made"},  # x^2 overflows, x + sqrt(x^2 + 4) cancels
    "exponential": {"inf"},  # half of exp(x) is finite where exp(x) is not
    "glu": {"nan-made"},  # g a overflows before it meets a slope of 0
    "swiglu": {"nan-made"},
    "geglu": {"nan-made"},
}
# exp magnifies the rounding of its argument: in float32 the limit allows for that
KNOWN_IN_16_BITS = {key: {"tail"} for key in ("gelu-erf", "gelu-default", "silu", "swish", "quick-gelu", "mish")}
SLOPE_AT_NAN = {"nan-lost"}  # at NaN a choice between pieces lets the cotangent pass


def single(value):
    """The number as an attribute holds it."""
    return float(np.float32(value))


@pytest.mark.parametrize("op_type", NO_PARAMETERS)
def test_without_parameters(agrees, op_type):
    agrees(op_type, [X], NO_PARAMETERS[op_type], tolerance=1e-5)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate):
    _agrees_unrounded("Gelu", lambda x: F.gelu(x, approximate=approximate), X, approximate=approximate)


alphas = st.floats(0.0625, 3.0, width=32)


@settings(max_examples=15, deadline=None)
@given(alphas)
@pytest.mark.parametrize("op_type", ["Elu", "LeakyRelu", "ThresholdedRelu", "Swish"])
def test_with_alpha(agrees, op_type, alpha):
    forward = {
        "Elu": lambda x: F.elu(x, alpha),
        "LeakyRelu": lambda x: F.leaky_relu(x, alpha),
        "ThresholdedRelu": lambda x: F.threshold(x, alpha, 0.0),
        "Swish": lambda x: x * torch.sigmoid(alpha * x),
    }[op_type]
    agrees(op_type, [X], forward, alpha=alpha, opset=24, tolerance=1e-5)


@settings(max_examples=15, deadline=None)
@given(alphas)
def test_celu(alpha):
    """Celu is defined for float32 alone: its graph is evaluated in float64, and no constant of it rounds."""
    _agrees_unrounded("Celu", lambda x: F.celu(x, alpha), X.astype(np.float32), alpha=alpha)


def test_hard_swish():
    _agrees_unrounded("HardSwish", F.hardswish, X)


def _agrees_unrounded(op_type, forward, x, **attributes):
    """Agree under the correctly rounded evaluator: onnx's reference has float32 numbers in its Gelu and HardSwish."""
    graph = add_gradients(_model(op_type, x, **attributes), ["x"])
    runtime = CorrectlyRoundedEvaluator(graph.SerializeToString(), rounding=False)
    got = runtime.forward({"x": x, "ct_y": np.ones_like(x)})["d_x"]
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    forward(leaf).sum().backward()
    np.testing.assert_allclose(got, leaf.grad.numpy(), rtol=1e-12, atol=1e-12)


def _model(op_type, x, **attributes):
    kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    values, result = (onnx.helper.make_tensor_value_info(name, kind, x.shape) for name in "xy")
    node = onnx.helper.make_node(op_type, ["x"], ["y"], **attributes)
    graph = onnx.helper.make_graph([node], "g", [values], [result])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 24)], ir_version=10)


@settings(max_examples=15, deadline=None)
@given(alphas, alphas)
def test_selu(agrees, alpha, gamma):
    def selu(x):
        return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))

    agrees("Selu", [X], selu, alpha=alpha, gamma=gamma, tolerance=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.floats(-2.0, 2.0, width=32).filter(lambda x: abs(x) > 0.01), st.floats(-1.0, 2.0, width=32))
def test_hard_sigmoid(agrees, alpha, beta):
    z = alpha * X + beta
    assume(np.minimum(abs(z), abs(z - 1)).min() > 1e-5)  # at a kink the two may stand on other sides
    agrees("HardSigmoid", [X], lambda x: (alpha * x + beta).clamp(0, 1), alpha=alpha, beta=beta)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.0, 3.0, width=32), st.floats(-1.0, 1.0, width=32))
def test_shrink(agrees, lambd, bias):
    def shrink(x):
        return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, x * 0))

    agrees("Shrink", [X], shrink, runs=False, lambd=lambd, bias=bias)


@pytest.mark.parametrize("slope", [(14,), (1,), (4, 1), (4, 14), ()], ids=str)
@pytest.mark.parametrize("free", [(), (0,)], ids=["static", "batch"])
def test_prelu(agrees, slope, free):
    slopes = np.random.default_rng(5).standard_normal(slope)
    agrees("PRelu", [X, slopes], lambda x, s: torch.where(x > 0, x, s * x), free={0: free})


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize(("op_type", "method"), [("Softmax", "softmax"), ("LogSoftmax", "log_softmax")])
def test_softmax_over_any_axis(agrees, op_type, method, axis):
    agrees(op_type, [X.reshape(4, 7, 2)], lambda x: getattr(x, method)(axis), axis=axis, free={0: (0,)})


def test_log_softmax_of_far_logits():
    got = _derivative("LogSoftmax", [[0.0, 1000.0, -np.inf]], [[1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(got, [[1.0, -1.0, 0.0]])


@pytest.mark.parametrize("op_type", ["Sigmoid", "Tanh", "Softplus", "Gelu", "Swish", "Mish", "Softsign", "Elu", "Selu"])
def test_infinite_and_huge_inputs_give_the_limits(op_type):
    top = {"Softplus": 1.0, "Gelu": 1.0, "Swish": 1.0, "Mish": 1.0, "Elu": 1.0, "Selu": single(1.05070102)}.get(
        op_type, 0.0
    )
    got = _derivative(op_type, [-np.inf, -3e38, -1e5, 1e5, 3e38, np.inf])
    np.testing.assert_allclose(got, [0.0, 0.0, 0.0, top, top, top], atol=2e-10)


def test_tails_keep_their_digits():
    x = np.array([-30.0, -60.0])
    t = np.exp(x)
    np.testing.assert_allclose(_derivative("Sigmoid", -x), t, rtol=1e-5)  # s (1 - s) is 0 there
    np.testing.assert_allclose(_derivative("Tanh", x / 2), 4 * t, rtol=1e-5)
    np.testing.assert_allclose(_derivative("Softplus", x), t, rtol=1e-5)
    np.testing.assert_allclose(_derivative("Swish", x), t * (1 + x), rtol=1e-5)
    np.testing.assert_allclose(_derivative("Mish", x), t * (1 + x), rtol=1e-5)
    low = np.array([-7.0, -10.0])
    phi = np.exp(-low * low / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(_derivative("Gelu", low), scipy.special.ndtr(low) + low * phi, rtol=1e-5)


@pytest.mark.parametrize(("top", "coefficients", "error"), [(15.0, MILLS_SINGLE, 3e-7), (40.0, MILLS_DOUBLE, 1e-14)])
def test_mills_ratio_is_as_near_as_it_says(top, coefficients, error):
    a = np.linspace(0, top, 20001)
    exact = np.sqrt(np.pi / 2) * scipy.special.erfcx(a / np.sqrt(2))
    u = (a - MILLS_CENTRE) / (a + MILLS_CENTRE)
    assert np.abs(np.polynomial.Polynomial(coefficients)(u) - exact).max() < error


def _derivative(op_type, x, cotangent=None):
    """The gradient in float32, each node rounded once."""
    x = np.asarray(x, np.float32)
    cotangent = np.ones_like(x) if cotangent is None else np.asarray(cotangent, np.float32)
    gradient = CorrectlyRoundedEvaluator(add_gradients(_model(op_type, x), ["x"]).SerializeToString())
    return gradient.forward({"x": x, "ct_y": cotangent})["d_x"]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", KERNELS)
def test_gradients_of_kernels_meet_the_goldens(name, dtype):
    """Under the correctly rounded evaluator: what is left over are faults of the gradient's formulas, or of the kernel's graph."""
    kernel = KERNELS[name]
    model = onnx.load_from_string(author(kernel, dtype).model)
    graph = add_gradients(model, kernel.inputs, keep_outputs=False)
    onnx.checker.check_model(graph, full_check=True)
    runtime = CorrectlyRoundedEvaluator(graph.SerializeToString())
    folder = golden_dir()
    test_vectors = generate(kernel, "gradient", dtype, load(folder, read_manifest(folder), name))
    answers = []
    for vector in test_vectors.vectors:
        given = runtime.forward({**vector.inputs, "ct_y": vector.cotangents["y"]})
        answers.append({tensor: array.astype(vector.dtypes[tensor]) for tensor, array in given.items()})
    # each node rounds: in 16 bits many results are not the nearest
    findings = [finding for finding in compare(test_vectors, answers)[1] if "nearest number" not in finding.evidence]
    classes = {finding.class_ for finding in findings}
    known = KNOWN.get(name, set()) | (KNOWN_IN_16_BITS.get(name, set()) if dtype != "f32" else set())
    assert classes <= known | SLOPE_AT_NAN, classes
    if dtype == "f32":
        assert known <= classes, "narrow what is known"


def test_reference_and_evaluator_agree_in_float64(agrees):
    """Two evaluators that share no code but numpy's give one gradient."""
    model = onnx.load_from_string(author(KERNELS["geglu"], "f32").model)
    graph = add_gradients(model, ["x"]).SerializeToString()
    feeds = {"x": X.astype(np.float32), "ct_y": np.ones((4, 7), np.float32)}
    wide, plain = CorrectlyRoundedEvaluator(graph, rounding=False).forward(feeds), reference(graph)(feeds)
    np.testing.assert_allclose(plain["d_x"], wide["d_x"], atol=2e-6)
