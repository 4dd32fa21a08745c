"""Each rule on exports: a graph in which it finds its mistake and what it says, and one like it in which there is none."""

from __future__ import annotations

import numpy as np
import pytest
from linted import codes_of, findings_of
from small_models import made, numbers

from actconform.linting.linted_model import RuntimeAnswer

NORM = {name: np.ones(3, np.float32) for name in ("scale", "shift", "mean", "variance")}


def norm(attributes: str = "", outputs: str = "y", opset: int = 17):
    text = f"(float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) {{ {outputs} = BatchNormalization <{attributes}> (x, scale, shift, mean, variance) }}"
    return made(text, NORM, opset)


def test_batch_norm_that_trains():
    assert codes_of(norm("training_mode = 1", "y, m, v")) == ["AC201"]
    assert codes_of(norm("epsilon = 0.001", "y, m, v", opset=9)) == ["AC201"]
    assert codes_of(norm("training_mode = 0")) == codes_of(norm("epsilon = 0.00001", opset=9)) == []


def test_dropout_that_trains():
    text = "(float[n, 4] x) => (float[n, 4] y) {{ y = Dropout (x, ratio, mode) }}"
    constants = {"ratio": np.float32(0.3), "mode": np.array(True)}
    (finding,) = findings_of(made(text.replace("{{", "{").replace("}}", "}"), constants))
    assert (finding.code, finding.numbers) == ("AC202", {"ratio": pytest.approx(0.3)})
    for other in ({"mode": np.array(False)}, {"ratio": np.float32(0)}):
        assert codes_of(made(text.replace("{{", "{").replace("}}", "}"), constants | other)) == []


def test_dropout_written_out_is_found_and_other_chance_is_not():
    text = """(float[n, 4] x) => (float[n, 4] y) { u = RandomUniformLike (x)  g = Greater (u, half)  m = Cast <to = 1> (g)
        d = Mul (x, m)  y = Div (d, half) }"""
    (finding,) = findings_of(made(text, {"half": np.float32(0.5)}))
    assert (finding.code, finding.node) == ("AC202", "d")
    noise = "(float[n, 4] x) => (float[n, 4] y) { u = RandomNormalLike (x)  y = Add (x, u) }"
    assert codes_of(made(noise)) == []


def reshape(shape: list[int], dims: str = "n, 4, 2", after: str = "y = Identity (r)"):
    constants = {"s": np.array(shape, np.int64), "w": numbers(1, 8, 3)}
    return made(f"(float[{dims}] x) => (float[a, b] y) {{ r = Reshape (x, s)  {after} }}", constants)


def test_a_reshape_that_holds_the_batch_size():
    (finding,) = findings_of(reshape([16, 8]))
    assert (finding.code, finding.severity, finding.numbers) == ("AC203", "error", {"batch": 16})
    (finding,) = findings_of(reshape([16, -1], after="y = MatMul (r, w)"))
    assert finding.numbers == {"batch": 16}
    for fine in (reshape([-1, 8]), reshape([0, 8]), reshape([0, -1]), reshape([1, 8], dims="1, 4, 2")):
        assert codes_of(fine) == []
    assert codes_of(reshape([16, -1])) == [], "16 rows of whatever there is may be meant"


def test_a_constant_state_of_a_recurrent_layer():
    constants = {"w": numbers(1, 1, 20, 4), "r": numbers(2, 1, 20, 5), "h": np.zeros((1, 2, 5), np.float32)}
    text = "(float[t, n, 4] x) => (float[t, 1, n, 5] y) { y = LSTM <hidden_size = 5> (x, w, r, , , h) }"
    assert codes_of(made(text, constants)) == [], "the first axis is the time"
    named = "(float[n, t, 4] a) => (float[t, 1, n, 5] y) { x = Transpose <perm = [1, 0, 2]> (a)  y = LSTM <hidden_size = 5> (x, w, r, , , h) }"
    (finding,) = findings_of(made(named, constants))
    assert (finding.code, finding.numbers) == ("AC203", {"batch": 2})
    assert codes_of(made(named.replace(", , , h", ""), constants)) == []


@pytest.mark.parametrize(
    ("inputs", "severity"),
    [
        ("float[8, 4] x, float[n, 4] z", "warning"),
        ("float[8, 4] x, float[8, 4] z", "note"),
        ("float[1, 4] x, float[1, 4] z", ""),
        ("float[n, 4] x, float[n, 4] z", ""),
    ],
)
def test_an_input_of_a_fixed_batch(inputs, severity):
    findings = findings_of(made(f"({inputs}) => (float[a, 4] y) {{ y = Add (x, z) }}"))
    assert {finding.severity for finding in findings} == ({severity} if severity else set())


def test_float64_in_a_float32_graph():
    text = "(float[n, 4] x) => (float[n, 4] y) { h = Cast <to = 11> (x)  k = Mul (h, two)  y = Cast <to = 1> (k) }"
    findings = findings_of(made(text, {"two": np.array(2.0)}))
    assert [(finding.code, finding.node) for finding in findings] == [("AC204", "k"), ("AC204", "h")]
    idle = "(float[n, 4] x) => (float[n, 4] y) { c = Cast <to = 1> (two)  y = Mul (x, c) }"
    (finding,) = findings_of(made(idle, {"two": np.array(2.0)}))
    assert (finding.code, finding.severity) == ("AC204", "note")
    double = "(double[n, 4] x) => (double[n, 4] y) { y = Mul (x, two) }"
    assert codes_of(made(double, {"two": np.array(2.0)})) == []
    assert codes_of(made(double.replace("double", "float"), {"two": np.float32(2)})) == []


@pytest.mark.parametrize(("opset", "axis", "codes"), [(12, 1, ["AC205"]), (12, 3, []), (13, 1, [])])
def test_softmax_of_old_opsets(opset, axis, codes):
    text = f"(float[n, 5, 4, 4] x) => (float[n, 5, 4, 4] y) {{ y = Softmax <axis = {axis}> (x) }}"
    assert codes_of(made(text, opset=opset)) == codes
    rows = f"(float[n, 5, 1, 1] x) => (float[n, 5, 1, 1] y) {{ y = Softmax <axis = {axis}> (x) }}"
    assert codes_of(made(rows, opset=opset)) == (["AC101"] if axis == 3 else [])


def half(weight: float, text: str = "y = MatMul (x, w)"):
    weights = np.full((4, 4), 0.5, np.float16)
    weights[1, 2] = weight
    return made(f"(float16[n, 4] x) => (float16[n, 4] y) {{ {text} }}", {"w": weights})


def test_a_weight_that_is_nan_or_infinite_is_told_at_its_reader_with_the_first_place():
    weights = np.full((4, 4), 0.5, np.float32)
    weights[1, 2], weights[3, 0] = np.nan, np.inf
    text = "(float[n, 4] x) => (float[n, 4] y) { h = Relu (x)  t = Transpose (w)  y = MatMul (h, t) }"
    (finding,) = findings_of(made(text, {"w": weights}))
    assert (finding.code, finding.severity, finding.node) == ("AC211", "error", "t")
    assert finding.message == (
        "weight w has 1 NaN and 1 infinity among 16 numbers, the first at [1, 2]; it comes to y (MatMul)"
    )
    assert finding.numbers == {"nan": 1, "infinite": 1, "elements": 16}
    (finding,) = findings_of(half(np.nan))
    assert (finding.code, finding.numbers["nan"]) == ("AC211", 1), "of any format"
    straight = "(float[n, 4] x) => (float[n, 4] y, float[4, 4] z) { y = Relu (x)  t = Transpose (w)  z = Identity (t) }"
    (finding,) = findings_of(made(straight, {"w": np.where(np.isnan(weights), weights, 1)}))
    assert (finding.node, finding.message) == (
        "t",
        "weight w has 1 NaN among 16 numbers, the first at [1, 2]; it comes to output z",
    )


def test_an_attribute_that_is_nan_is_told_at_its_node():
    model = made("(float[n, 4] x) => (float[n, 4] y) { y = LeakyRelu <alpha = 0.01> (x) }")
    model.graph.node[0].attribute[0].f = np.nan
    (finding,) = [each for each in findings_of(model) if each.code == "AC211"]
    assert (finding.node, finding.message) == ("y", "attribute alpha is NaN")


def test_infinities_that_mask_or_bound_are_no_findings():
    mask, nodes = np.float32([0, 0, -np.inf, 0]), "h = Add (x, w)  c = Clip (h, b, e)  y = Softmax <axis = -1> (c)"
    bounds = {"b": np.float32(-np.inf), "e": np.float32(np.inf)}
    assert codes_of(made(f"(float[n, 4] x) => (float[n, 4] y) {{ {nodes} }}", {"w": mask, **bounds})) == []


def test_ill_typed_nodes_are_told_with_their_types():
    text = "(float[n, 4] x, int64[n, 4] i) => (float[n, 4] y, float[n, 4] z) { y = MatMul (x, w)  z = Add (i, x) }"
    product, total = findings_of(made(text, {"w": np.ones((4, 4), np.float16)}))
    assert (product.code, product.node) == ("AC212", "y")
    assert product.message == "MatMul reads x of float32 and w of float16, which must be of one type"
    assert total.message == "Add reads i of int64 and x of float32, which must be of one type"


def test_malformed_nodes_are_told_alone_as_the_other_rules_cannot_read_them():
    text = "(float[n, 1] x) => (float[n, 1] y, float[n, 1] z) { d = Div (x)  y = Softmax <axis = -1> (d)  z = Relu <slope = 0.1> (x) }"
    quotient, rectified = findings_of(made(text))
    assert (quotient.code, quotient.severity, quotient.node) == ("AC213", "error", "d")
    assert quotient.message.startswith("Div has 1 input, and takes 2 at opset 17; ")
    assert rectified.message.startswith("Relu has the attribute slope, and takes none at opset 17; ")


def test_operators_that_the_opset_lacks_are_told_beside_all_else():
    text = "(float[n, 1] x) => (float[n, 1] y) {{ h = {} (x, x)  y = Softmax <axis = -1> (h) }}"
    gelu, softmax = sorted(
        findings_of(made(text.format("Gelu").replace("x, x", "x"), opset=18)), key=lambda each: each.node
    )
    assert (gelu.code, gelu.severity, softmax.code) == ("AC213", "error", "AC101")
    norm = next(each for each in findings_of(made(text.format("LayerNormalization"), opset=16)) if each.node == "h")
    assert (norm.code, norm.severity) == ("AC213", "warning")
    assert norm.message.endswith("ONNX Runtime has it at this opset all the same")


def test_float16_weights_that_overflowed():
    (finding,) = findings_of(half(np.inf))
    assert (finding.code, finding.severity, finding.numbers["infinite"]) == ("AC206", "error", 1)
    (finding,) = findings_of(half(-65504.0))
    assert (finding.code, finding.severity, finding.numbers["clamped"]) == ("AC206", "warning", 1)
    assert codes_of(half(60000.0)) == []
    mask = made(
        "(float16[n, 4] x) => (float16[n, 4] y) { y = Add (x, w) }",
        {"w": np.array([0, -np.inf, 0, -65504], np.float16)},
    )
    assert codes_of(mask) == [], "a mask is added"


def epsilon(value: float):
    text = "(float16[n, 4] x) => (float16[n, 1] y) { s = Mul (x, x)  v = ReduceMean <axes = [1]> (s)  a = Add (v, e)  y = Sqrt (a) }"
    return made(text, {"e": np.float16(value)})


def test_epsilons_that_float16_does_not_hold():
    (finding,) = findings_of(epsilon(1e-12))
    assert (finding.code, finding.severity, finding.node) == ("AC207", "error", "a")
    (finding,) = findings_of(epsilon(1e-5))
    assert finding.severity == "note"
    assert codes_of(epsilon(1e-3)) == []
    shift = made("(float16[n, 4] x) => (float16[n, 4] y) { y = Add (x, e) }", {"e": np.float16(0)})
    assert codes_of(shift) == []


def test_a_runtime_that_refuses_the_opset():
    plain = made("(float[n, 4] x) => (float[n, 4] y) { y = Relu (x) }")
    (finding,) = findings_of(plain, runtimes=[RuntimeAnswer("old", "1.0", "Opset 17 is under development")])
    assert (finding.code, finding.node) == ("AC208", "old")
    assert codes_of(plain, runtimes=[RuntimeAnswer("new", "2.0", "")]) == []


def produced(nodes: str, producer: str, constants=None):
    model = made(f"(float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) {{ {nodes} }}", constants)
    model.producer_name = producer
    return model


@pytest.mark.parametrize(
    ("nodes", "producer", "owner"),
    [
        ("y = LeakyRelu <alpha = 0.3> (x)", "pytorch", "Keras"),
        ("y = LeakyRelu <alpha = 0.01> (x)", "tf2onnx", "PyTorch"),
        ("y = HardSigmoid <alpha = 0.2> (x)", "pytorch", "ONNX and Keras 2"),
        ("y = BatchNormalization <epsilon = 0.001> (x, scale, shift, mean, variance)", "pytorch", "Keras"),
        ("y = BatchNormalization <epsilon = 0.00001> (x, scale, shift, mean, variance)", "keras", "PyTorch"),
        ("y = LayerNormalization <axis = 3, epsilon = 0.001> (x, four)", "pytorch", "Keras"),
    ],
)
def test_a_default_of_another_framework_is_a_note(nodes, producer, owner):
    constants = NORM | {"four": np.ones(4, np.float32)}
    (finding,) = findings_of(produced(nodes, producer, constants))
    assert (finding.code, finding.severity) == ("AC209", "note")
    assert f"the default of {owner}" in finding.message
    other = "tf2onnx" if producer == "pytorch" else "pytorch"
    if owner != "ONNX and Keras 2":
        assert codes_of(produced(nodes, other, constants)) == [], "there it is the framework's own"
    assert codes_of(produced(nodes, "somebody", constants)) == [], "whose defaults are not known"


def test_gelu_by_tanh_is_found_written_out():
    text = """(float[n, 4] x) => (float[n, 4] y) { c = Mul (x, x)  d = Mul (c, x)  e = Mul (d, k)  f = Add (x, e)  g = Mul (f, r)
        t = Tanh (g)  p = Add (t, unit)  q = Mul (x, p)  y = Mul (q, half) }"""
    constants = {
        name: np.float32(value) for name, value in {"k": 0.044715, "r": 0.7978846, "unit": 1, "half": 0.5}.items()
    }
    model = made(text, constants)
    model.producer_name = "pytorch"
    (finding,) = findings_of(model)
    assert (finding.code, finding.numbers["value"]) == ("AC209", "tanh")


def test_the_one_layer_whose_epsilon_is_another():
    scale = {"s": np.ones(4, np.float32)}
    chain = [
        f"a{i + 1} = LayerNormalization <axis = -1, epsilon = {'0.0001' if i == 2 else '0.00001'}> (a{i}, s)"
        for i in range(5)
    ]
    nodes = " ".join(chain).replace("(a0,", "(x,").replace("a5 =", "y =")
    (finding,) = findings_of(made(f"(float[n, 4] x) => (float[n, 4] y) {{ {nodes} }}", scale))
    assert (finding.code, finding.node, finding.severity) == ("AC210", "a3", "note")
    assert (
        codes_of(made(f"(float[n, 4] x) => (float[n, 4] y) {{ {nodes.replace('0.0001>', '0.00001>')} }}", scale)) == []
    )
