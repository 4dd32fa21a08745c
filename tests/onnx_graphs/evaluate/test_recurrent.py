"""The correctly rounded evaluator's recurrent layers, control flow and signals, against ONNX Runtime and by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, parser

from actconform.errors import Unsupported
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator

NAMES = ("x", "w", "r", "b", "lengths", "h", "c", "p")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def node_model(op_type, given, names, ranks, **attributes):
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
        for name, each in given.items()
    ]
    ends = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [None] * rank) for i, rank in enumerate(ranks)]
    node = helper.make_node(op_type, names, [value.name for value in ends], **attributes)
    graph = helper.make_graph([node], "one", values, ends)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def agree(model, given, tolerance=1e-5):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    ours = CorrectlyRoundedEvaluator(model, rounding=False).forward(given)
    for value, theirs in zip(session.get_outputs(), session.run(None, given), strict=True):
        assert ours[value.name].shape == theirs.shape
        np.testing.assert_allclose(ours[value.name], theirs, atol=tolerance, err_msg=value.name)


LAYERS = [
    *((op_type, attributes) for op_type in GATES for attributes in ({}, {"clip": 0.5})),
    ("GRU", {"linear_before_reset": 1}),
    ("LSTM", {"input_forget": 1}),
]
PARAMETRIC = {
    "GRU": {"activations": ["HardSigmoid", "LeakyRelu"], "activation_alpha": [0.3, 0.1], "activation_beta": [0.4]},
    "LSTM": {"activations": ["HardSigmoid", "Affine", "ScaledTanh"], "activation_alpha": [0.3, 0.5, 0.7], "activation_beta": [0.4, 0.1, 0.9]},
    "RNN": {"activations": ["Elu"], "activation_alpha": [0.6]},
}  # fmt: skip


@pytest.mark.parametrize("op_type", PARAMETRIC)
@pytest.mark.parametrize("directions", [1, 2])
def test_activations_have_parameters(op_type, directions):
    rng, gates = np.random.default_rng(1), GATES[op_type]
    shapes = {"x": (4, 2, 3), "w": (directions, gates * 2, 3), "r": (directions, gates * 2, 2)}
    given = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    attributes = {name: values * directions for name, values in PARAMETRIC[op_type].items()}
    model = node_model(
        op_type,
        given,
        ["x", "w", "r"],
        [4, 3],
        hidden_size=2,
        direction=["forward", "bidirectional"][directions - 1],
        **attributes,
    )
    agree(model, given)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op_type", "attributes"), LAYERS, ids=str)
def test_recurrent_layers(op_type, attributes, direction):
    rng, directions, hidden = np.random.default_rng(0), 2 if direction == "bidirectional" else 1, 2
    shapes = {
        "x": (5, 3, 4),
        "w": (directions, GATES[op_type] * hidden, 4),
        "r": (directions, GATES[op_type] * hidden, hidden),
        "b": (directions, 2 * GATES[op_type] * hidden),
        "h": (directions, 3, hidden),
    }
    if op_type == "LSTM":
        shapes |= {"c": (directions, 3, hidden), "p": (directions, 3 * hidden)}
    given = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    given["lengths"] = np.array([5, 2, 3], np.int32)
    names = [name if name in given else "" for name in (NAMES if op_type == "LSTM" else NAMES[:6])]
    ranks = [4, 3, 3] if op_type == "LSTM" else [4, 3]
    agree(node_model(op_type, given, names, ranks, direction=direction, hidden_size=hidden, **attributes), given)


@pytest.mark.parametrize(
    ("activation", "message"), [("Erf", "activation erf"), ("Affine", "affine needs activation_alpha")]
)
def test_an_activation_that_cannot_be_computed_is_named(activation, message):
    given = {
        "x": np.zeros((2, 1, 1), np.float32),
        "w": np.zeros((1, 1, 1), np.float32),
        "r": np.zeros((1, 1, 1), np.float32),
    }
    model = node_model("RNN", given, ["x", "w", "r"], [4, 3], hidden_size=1, activations=[activation])
    with pytest.raises(Unsupported, match=rf"operator RNN .*{message}"):
        CorrectlyRoundedEvaluator(model).forward(given)


@pytest.mark.parametrize(
    "how", ["", ", scan_input_directions = [1]", ", scan_output_directions = [1], scan_output_axes = [1]"]
)
def test_scan(how):
    axes = "2, n" if "axes" in how else "n, 2"
    model = parser.parse_model(f"""<ir_version: 8, opset_import: ["": 18]>
        sums (float[2] h0, float[n, 2] xs, float w) => (float[2] h, float[{axes}] ys) {{
            h, ys = Scan <num_scan_inputs = 1{how}, body = step (float[2] s, float[2] x) => (float[2] s2, float[2] y) {{
                p = Mul (s, w) s2 = Add (p, x) y = Neg (s2)
            }}> (h0, xs)
        }}""").SerializeToString()
    rng = np.random.default_rng(0)
    agree(
        model,
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("h0", 2), ("xs", (4, 2)), ("w", ()))},
    )


@pytest.mark.parametrize("condition", [True, False])
def test_if(condition):
    model = parser.parse_model("""<ir_version: 8, opset_import: ["": 18]>
        branches (float[2] x, bool c) => (float[2] y) {
            y = If <then_branch = one () => (float[2] a) { a = Neg (x) }, else_branch = two () => (float[2] b) { b = Exp (x) }> (c)
        }""").SerializeToString()
    agree(model, {"x": np.array([1, -2], np.float32), "c": np.array(condition)})


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("aligned", [0, 1])
def test_grid_sample(mode, padding, aligned):
    rng = np.random.default_rng(0)
    given = {
        "x": rng.standard_normal((2, 3, 4, 5)).astype(np.float32),
        "grid": rng.uniform(-1.6, 1.6, (2, 3, 2, 2)).astype(np.float32),
    }
    how = {"mode": mode, "padding_mode": padding, "align_corners": aligned}
    agree(node_model("GridSample", given, ["x", "grid"], [4], **how), given)


@pytest.mark.parametrize(
    ("numbers", "how"), [(1, {}), (1, {"inverse": 1}), (1, {"onesided": 1}), (2, {}), (2, {"inverse": 1})], ids=str
)
def test_fourier(numbers, how):
    given = {"x": np.random.default_rng(0).standard_normal((2, 6, numbers)).astype(np.float32)}
    agree(node_model("DFT", given, ["x"], [3], **how), given)


def test_determinant():
    given = {"x": np.random.default_rng(0).standard_normal((2, 3, 3)).astype(np.float32)}
    agree(node_model("Det", given, ["x"], [1]), given)
