"""What is a model that gradients can be added to, and in which words the others are refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from actconform.errors import GradientError
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.grad.reverse_mode import add_gradients


def parsed(graph: str, opset: int = 18, header: str = "", functions: str = "") -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}{header}]> agraph {graph} {functions}')


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (onnx.ModelProto(), "not a valid ONNX model"),
        ("model.onnx", "an onnx.ModelProto is expected, not str: read one with onnx.load"),
        (parsed("(double[2] x) => (double[2] y) { y = Negg(x) }"), "Negg"),
        (parsed("(double[2] x) => (double[2] y) { y = Neg(z) }"), "not a valid ONNX model"),
        (
            parsed("(double[2] x) => (double[2] y) { y = Neg(x) }", opset=27),
            "opset 27; gradients are known for opsets 15 to 26",
        ),
        (parsed("(double[2] x) => (double[2] y) { y = Neg(x) }", opset=6), "opset 6"),
    ],
    ids=["empty", "path", "operator", "dangling", "new", "old"],
)
def test_models_that_are_none_are_told(model, words):
    with pytest.raises(GradientError, match=words):
        add_gradients(model, ["x"])


FITTING = '<domain: "local", opset_import: ["": 18]> fit (a, b) => (c) { c = MatMul(a, b) }'


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ("(float[2, 3] x, float[4, 2] w) => (float[2, 2] y) { y = MatMul(x, w) }", ["MatMul", "-> y"]),
        ("(float[2, 3] x, float[4, 2] w) => (float[2, 2] y) { [it] y = MatMul(x, w) }", ["MatMul", "node name: it"]),
        ("(float[2, 3] x) => (float[3, 3] y) { y = Neg(x) }", ["Neg", "-> y", "differ in dimension 0"]),
        ("(float[2, 3] x) => (double[2, 3] y) { y = Neg(x) }", ["Neg", "-> y", "elem type differs"]),
        ("(float[2, 3] x, float[4, 2] w) => (float[2, 2] y) { y = local.fit(x, w) }", ["fit", "-> y", "MatMul"]),
    ],
)
def test_shapes_and_types_that_cannot_fit_are_told(graph, words):
    with pytest.raises(GradientError, match="not a valid ONNX model") as error:
        add_gradients(parsed(graph, header=', "local": 1', functions=FITTING), ["x"])
    assert [word for word in words if word not in str(error.value)] == []


def test_what_onnx_infers_wrongly_is_no_fault():
    """It knows no broadcasting of ellipses; they are right in a graph, a function and a branch."""
    einsum = """Einsum <equation = "...ij,...jk->...ik">"""
    branches = ", ".join(
        f"{name} = {name} () => (double[5, 2, 2] t) {{ t = {einsum} (x, w) }}"
        for name in ("then_branch", "else_branch")
    )
    made = add_gradients(
        parsed(
            f"""(double[5, 2, 3] x, double[3, 2] w, bool b) => (double[5, 2, 2] y, double[5, 2, 2] z) {{
            u = {einsum} (x, w)
            v = local.fit(x, w)
            y = Add(u, v)
            z = If <{branches}> (b)
        }}""",
            header=', "local": 1',
            functions=FITTING.replace("MatMul", einsum),
        ),
        ["x"],
        ["y"],
    )
    x, w, g = np.ones((5, 2, 3)), np.arange(6.0).reshape(3, 2), np.ones((5, 2, 2))
    got = reference(made.SerializeToString())({"x": x, "w": w, "b": np.array(True), "ct_y": g})
    np.testing.assert_allclose(got["d_x"], 2 * g @ w.T)


@pytest.mark.parametrize("opset", range(7, 15))
def test_older_opsets_are_converted(opset):
    """Softmax was of a flattened matrix before 13."""
    model = parsed(
        """(double[2, 4] x, double[4, 3] w) => (double[2] y) {
        h = MatMul(x, w)
        a = LeakyRelu <alpha = 0.5> (h)
        s = Softmax <axis = 1> (a)
        p = Mul(s, h)
        y = ReduceMean <axes = [1], keepdims = 0> (p)
    }""",
        opset=opset,
    )
    made = add_gradients(model, ["x"])
    assert made.opset_import[0].version == 16

    def forward(x):
        h = x @ w
        raised = np.exp(np.where(h > 0, h, 0.5 * h))
        return (raised / raised.sum(1, keepdims=True) * h).mean(1)

    x, w, g = np.arange(8.0).reshape(2, 4) / 8, np.arange(12.0).reshape(4, 3) / 6 - 1.1, np.array([1.0, 2.0])
    got = reference(made.SerializeToString())({"x": x, "w": w, "ct_y": g})
    np.testing.assert_allclose(got["y"], forward(x))
    steps = 1e-6 * np.eye(8).reshape(8, 2, 4)
    slopes = [(forward(x + step) - forward(x - step)) @ g / 2e-6 for step in steps]
    np.testing.assert_allclose(got["d_x"].ravel(), slopes, rtol=1e-6)
