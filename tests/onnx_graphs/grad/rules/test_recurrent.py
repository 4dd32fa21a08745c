"""Gradients of LSTM, GRU and RNN: against torch's, and by finite differences where torch has no such layer."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from actconform.errors import UnsupportedOperator
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.grad.reverse_mode import add_gradients

NAMES = ("x", "w", "r", "b", "lengths", "h", "c", "p")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
TORCH_ORDER = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}  # where torch's gates stand among the standard's
STEPS, BATCH, SIZE, HIDDEN = 5, 3, 4, 2


def arrays(op_type, directions=1, *, without=(), batch_first=False):
    rng = np.random.default_rng(0)
    gates = GATES[op_type] * HIDDEN
    shapes = {
        "x": (STEPS, BATCH, SIZE),
        "w": (directions, gates, SIZE),
        "r": (directions, gates, HIDDEN),
        "b": (directions, 2 * gates),
        "h": (directions, BATCH, HIDDEN),
        "c": (directions, BATCH, HIDDEN),
        "p": (directions, 3 * HIDDEN),
    }
    left_out = {*without, *(() if op_type == "LSTM" else ("c", "p"))}
    made = {name: rng.standard_normal(shape) for name, shape in shapes.items() if name not in left_out}
    if "lengths" not in without:
        made["lengths"] = np.array([5, 2, 3], np.int32)
    if batch_first:
        made |= {name: made[name].transpose(1, 0, 2) for name in ("x", "h", "c") if name in made}
    return made


OPEN = {"x", "h", "c", "lengths"}


def layer(op_type, given, element_type=TensorProto.DOUBLE, opset=18, free=OPEN, **attributes):
    names = [name if name in given else "" for name in NAMES]
    while not names[-1]:
        names.pop()
    values = [
        helper.make_tensor_value_info(
            name,
            TensorProto.INT32 if name == "lengths" else element_type,
            [f"{name}{axis}" if name in free else n for axis, n in enumerate(given[name].shape)],
        )
        for name in names
        if name
    ]
    outputs = ["y", "y_h", "y_c"] if op_type == "LSTM" else ["y", "y_h"]
    ends = [helper.make_tensor_value_info(name, element_type, [None] * (3 if "_" in name else 4)) for name in outputs]
    node = helper.make_node(op_type, names, outputs, name="layer", hidden_size=HIDDEN, **attributes)
    graph = helper.make_graph([node], "recurrent", values, ends)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def floats(given):
    return [name for name in given if name != "lengths"]


PLAIN = ("lengths", "p")
CASES = {
    "plain": ({"without": PLAIN}, {}),
    "bare": ({"without": (*PLAIN, "b", "h", "c")}, {}),
    "reverse": ({"without": PLAIN}, {"direction": "reverse"}),
    "both-directions": ({"without": PLAIN, "directions": 2}, {"direction": "bidirectional"}),
    "lengths": ({"without": ("p",)}, {}),
    "lengths-in-reverse": ({"without": ("p",)}, {"direction": "reverse"}),
    "lengths-in-both": ({"without": ("p",), "directions": 2}, {"direction": "bidirectional"}),
    "batch-first": (
        {"without": ("p",), "directions": 2, "batch_first": True},
        {"direction": "bidirectional", "layout": 1},
    ),
    "clipped": ({"without": PLAIN}, {"clip": 0.7}),
}
OWN = [
    ("LSTM", {"directions": 2}, {"direction": "bidirectional"}),
    ("LSTM", {"without": ("lengths", "b")}, {"input_forget": 1, "clip": 0.8}),
    ("LSTM", {"without": PLAIN}, {"activations": ["Sigmoid", "Softsign", "softplus"]}),
    ("GRU", {}, {"linear_before_reset": 1}),
    ("GRU", {"without": (*PLAIN, "b", "h")}, {"linear_before_reset": 1, "direction": "reverse"}),
    ("RNN", {"directions": 2}, {"direction": "bidirectional", "activations": ["Sigmoid", "Tanh"]}),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("op_type", GATES)
def test_layers_by_finite_differences(by_differences, op_type, case):
    shapes, attributes = CASES[case]
    given = arrays(op_type, **shapes)
    by_differences(layer(op_type, given, **attributes), given, floats(given))


@pytest.mark.parametrize(("op_type", "shapes", "attributes"), OWN, ids=str)
def test_what_one_kind_of_layer_alone_has(by_differences, op_type, shapes, attributes):
    given = arrays(op_type, **shapes)
    by_differences(layer(op_type, given, **attributes), given, floats(given))


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("op_type", GATES)
def test_layers_agree_with_torch(op_type, directions):
    torch = pytest.importorskip("torch")
    given = arrays(op_type, directions, without=("p",))
    attributes = {"linear_before_reset": 1} if op_type == "GRU" else {}
    attributes |= {"direction": "bidirectional"} if directions == 2 else {}
    model = add_gradients(layer(op_type, given, **attributes))
    peer = getattr(torch.nn, op_type)(SIZE, HIDDEN, bidirectional=directions == 2, dtype=torch.float64)
    weights = {}
    order = TORCH_ORDER[op_type]
    for d, suffix in zip(range(directions), ("", "_reverse"), strict=False):
        for name, kind in (("w", "ih"), ("r", "hh")):
            weights[f"weight_{kind}_l0{suffix}"] = given[name][d].reshape(GATES[op_type], HIDDEN, -1)[order]
        for kind, half in zip(("ih", "hh"), np.split(given["b"][d], 2), strict=True):
            weights[f"bias_{kind}_l0{suffix}"] = half.reshape(GATES[op_type], HIDDEN)[order]
    with torch.no_grad():
        for name, value in weights.items():
            parameter = getattr(peer, name)
            parameter.copy_(torch.tensor(value).reshape(parameter.shape))
    leaves = {name: torch.tensor(given[name], requires_grad=True) for name in ("x", "h", "c") if name in given}
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        leaves["x"], torch.tensor(given["lengths"]).long(), enforce_sorted=False
    )
    states = (leaves["h"], leaves["c"]) if op_type == "LSTM" else leaves["h"]
    y, last = peer(packed, states)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
    y = y.reshape(STEPS, BATCH, directions, HIDDEN).transpose(1, 2)
    results = dict(zip(("y", "y_h", "y_c"), (y, *(last if op_type == "LSTM" else (last,))), strict=False))
    rng = np.random.default_rng(1)
    cotangents = {f"ct_{name}": rng.standard_normal(tuple(each.shape)) for name, each in results.items()}
    torch.autograd.backward(list(results.values()), [torch.tensor(each) for each in cotangents.values()])
    got = CorrectlyRoundedEvaluator(model.SerializeToString(), rounding=False).forward(given | cotangents)
    for name, each in results.items():
        np.testing.assert_allclose(got[name], each.detach(), atol=1e-13)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(got[f"d_{name}"], leaf.grad, atol=1e-12, err_msg=name)
    back = np.argsort(order)
    for d, suffix in zip(range(directions), ("", "_reverse"), strict=False):
        for name, kind in (("w", "ih"), ("r", "hh")):
            wanted = getattr(peer, f"weight_{kind}_l0{suffix}").grad.reshape(GATES[op_type], HIDDEN, -1)[back]
            np.testing.assert_allclose(got[f"d_{name}"][d], wanted.reshape(GATES[op_type] * HIDDEN, -1), atol=1e-12)


IN_RUNTIME = [
    *((op_type, *CASES[name]) for op_type in GATES for name in CASES if name != "batch-first"),  # which it refuses
    *OWN,
]


@pytest.mark.parametrize(("op_type", "shapes", "attributes"), IN_RUNTIME, ids=str)
def test_onnx_runtime_computes_them_in_float32(op_type, shapes, attributes):
    onnxruntime = pytest.importorskip("onnxruntime")
    plain = arrays(op_type, **shapes)
    exact = add_gradients(layer(op_type, plain, **attributes))
    rng = np.random.default_rng(1)
    directions = shapes.get("directions", 1)
    given = plain | {"ct_y": rng.standard_normal((STEPS, directions, BATCH, HIDDEN))}
    states = 2 if op_type == "LSTM" else 1
    given |= {name: rng.standard_normal((directions, BATCH, HIDDEN)) for name in ("ct_y_h", "ct_y_c")[:states]}
    truth = CorrectlyRoundedEvaluator(exact.SerializeToString(), rounding=False).forward(given)
    single = {name: each.astype(np.float32) if each.dtype == np.float64 else each for name, each in given.items()}
    for free in (OPEN, set()):  # where sizes are fixed it fuses more
        model = add_gradients(layer(op_type, plain, TensorProto.FLOAT, free=free, **attributes))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        got = dict(zip([each.name for each in session.get_outputs()], session.run(None, single), strict=True))
        for name, wanted in truth.items():
            np.testing.assert_allclose(got[name], wanted, atol=2e-5 * max(1, np.abs(wanted).max()), err_msg=name)


def test_an_activation_without_a_rule_is_refused_and_what_works_is_named():
    given = arrays("LSTM", without=PLAIN)
    model = layer("LSTM", given, activations=["HardSigmoid", "Tanh", "Tanh"])
    with pytest.raises(
        UnsupportedOperator, match=r"LSTM .*at node layer: its activation HardSigmoid .*Sigmoid.*unrolled"
    ):
        add_gradients(model, ["x"])
