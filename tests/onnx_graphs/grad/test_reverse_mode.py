"""Gradients of whole graphs: what flows where, in which types and opsets, and what is refused in which words."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from actconform.errors import GradientError, UnsupportedOperator
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.onnx.grad.rules.registry import rule_of

NUMPY = {"float": np.float32, "double": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def parsed(graph: str, opset: int = 18, header: str = "", functions: str = "") -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}{header}]> agraph {graph} {functions}')


def run(model: onnx.ModelProto, **feeds) -> dict:
    onnx.checker.check_model(model, full_check=True)
    return dict(reference(model.SerializeToString())(feeds))


DENSE = """(double[b, 3] x, double[3, 2] w, double[2] c) => (double[b, 2] y, double[b, 2] z) {
    u = MatMul(x, w)
    z = Add(u, c)
    t = Tanh(z)
    s = Mul(t, z)
    y = Add(s, u)
}"""


def test_a_graph_whose_tensors_are_used_often_agrees_with_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((4, 3)), "w": rng.standard_normal((3, 2)), "c": rng.standard_normal(2)}
    cotangents = {"ct_y": rng.standard_normal((4, 2)), "ct_z": rng.standard_normal((4, 2))}
    got = run(add_gradients(parsed(DENSE), ["x", "w", "c"]), **arrays, **cotangents)
    x, w, c = (torch.tensor(each, requires_grad=True) for each in arrays.values())
    u = x @ w
    z = u + c
    y = torch.tanh(z) * z + u
    torch.autograd.backward([y, z], [torch.tensor(each) for each in cotangents.values()])
    np.testing.assert_allclose(got["y"], y.detach(), atol=1e-14)
    for name, leaf in (("d_x", x), ("d_w", w), ("d_c", c)):
        np.testing.assert_allclose(got[name], leaf.grad, atol=1e-13)


def test_only_the_outputs_asked_for_have_cotangents():
    model = parsed(DENSE)
    before = model.SerializeToString(deterministic=True)
    one = add_gradients(model, ["x", "x"], ["z"], cotangent="seed/", gradient="grad/", keep_outputs=False)
    assert [value.name for value in one.graph.input] == ["x", "w", "c", "seed/z"]
    assert [value.name for value in one.graph.output] == ["grad/x"]
    w, g = np.arange(6.0).reshape(3, 2), np.ones((1, 2))
    got = run(one, x=np.zeros((1, 3)), w=w, c=np.zeros(2), **{"seed/z": g})
    np.testing.assert_array_equal(got["grad/x"], g @ w.T)
    assert model.SerializeToString(deterministic=True) == before


def test_shapes_and_types_are_those_of_the_tensors():
    graph = add_gradients(parsed(DENSE), ["x", "c"]).graph
    described = {value.name: value for value in (*graph.input, *graph.output)}
    for new, old in (("ct_y", "y"), ("d_x", "x"), ("d_c", "c")):
        assert described[new].type == described[old].type


def test_an_initializer_large_or_small_has_a_gradient_and_stays_as_it_is():
    rng = np.random.default_rng(0)
    large, small = rng.standard_normal((60, 40)), rng.standard_normal(40)
    model = parsed("(double[b, 60] x) => (double[b, 40] y) { u = MatMul(x, w) y = Mul(u, c) }")
    model.graph.initializer.extend([numpy_helper.from_array(large, "w"), numpy_helper.from_array(small, "c")])
    made = add_gradients(model, ["w", "c"])
    assert {tensor.name: tensor for tensor in model.graph.initializer}.items() <= {
        tensor.name: tensor for tensor in made.graph.initializer
    }.items()
    x, g = rng.standard_normal((2, 60)), rng.standard_normal((2, 40))
    got = run(made, x=x, ct_y=g)
    np.testing.assert_allclose(got["d_w"], x.T @ (g * small))
    np.testing.assert_allclose(got["d_c"], (g * (x @ large)).sum(0))


def test_an_initializer_that_is_an_input_may_be_overridden():
    model = parsed("(double[2] x, double e) => (double[2] y) { y = Pow(x, e) }")
    model.graph.initializer.append(numpy_helper.from_array(np.array(2.0), "e"))
    got = run(add_gradients(model, ["x"]), x=np.array([1.0, 2.0]), e=np.array(3.0), ct_y=np.ones(2))
    np.testing.assert_allclose(got["d_x"], [3.0, 12.0])


def test_external_data_stays_where_it_is():
    model = parsed("(float[2, 2] x) => (float[2, 2] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.eye(2, dtype=np.float32), "w"))
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    model.graph.initializer[0].ClearField("raw_data")
    made = add_gradients(model, ["x", "w"])
    assert next(tensor for tensor in made.graph.initializer if tensor.name == "w") == model.graph.initializer[0]


def test_what_no_output_depends_on_gets_zeros():
    model = parsed("""(double[2] x, double[2, 2] unused, double[2] stepped) => (double[2] y) {
        level = Floor(stepped)
        y = Mul(x, level)
    }""")
    got = run(
        add_gradients(model, ["unused", "stepped"]),
        x=np.ones(2),
        unused=np.full((2, 2), np.nan),
        stepped=np.ones(2),
        ct_y=np.ones(2),
    )
    np.testing.assert_array_equal(got["d_unused"], np.zeros((2, 2)))
    np.testing.assert_array_equal(got["d_stepped"], np.zeros(2))


def test_all_float_inputs_are_differentiated_by_default():
    model = parsed(
        "(double[n] x, int64[n] k, double[n] c) => (double[n] y) { f = CastLike(k, x) u = Mul(x, f) y = Add(u, c) }"
    )
    made = add_gradients(model)
    assert [value.name for value in made.graph.output] == ["y", "d_x", "d_c"]
    got = run(made, x=np.ones(2), k=np.array([2, 3]), c=np.ones(2), ct_y=np.ones(2))
    np.testing.assert_array_equal(got["d_x"], [2.0, 3.0])
    held = parsed("(int64[n] k) => (double[n] y) { y = CastLike(k, w) }")
    held.graph.initializer.append(numpy_helper.from_array(np.ones(1), "w"))
    with pytest.raises(GradientError, match="name initializers of the model as wrt"):
        add_gradients(held)


def test_shapes_that_are_fixed_stand_in_the_graph():
    model = parsed("(double[b, n] x, double[b, m] z) => (double[b, k] y) { y = Concat <axis = 1> (x, z) }")
    made = add_gradients(model, ["x"], shapes={"x": [2, 3]})
    dims = {v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim] for v in made.graph.input}
    assert dims == {"x": [2, 3], "z": [2, "m"], "ct_y": [2, "k"]}
    assert [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim] == ["b", "n"]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"X": [2, 3]}, "no input 'X'; did you mean x?"),
        ({"x": [2]}, "'x' has 2 dimensions, not 1"),
        ({"x": [2, 4]}, "dimension 1 of 'x' cannot be 4: it is 3 already"),
        ({"x": [2, 3], "z": [4]}, "dimension 0 of 'z' cannot be 4: it is 2 already"),
        ({"x": [-1, 3]}, "dimension 0 of 'x' cannot be -1: 0 or more is expected"),
    ],
)
def test_shapes_that_cannot_be_are_refused(shapes, expected):
    model = parsed("(double[b, 3] x, double[b] z) => (double[b, 3] y) { y = Neg(x) }")
    with pytest.raises(GradientError, match=re.escape(expected)):
        add_gradients(model, shapes=shapes)


@pytest.mark.parametrize("unknown", ["?", -1])
def test_a_placeholder_for_an_unknown_size_is_no_symbol(unknown):
    """PaddlePaddle writes "?" for each size that it does not know; two of them are not equal."""
    model = parsed("(double[h, w] x, double[w] c) => (double[h, w] y) { y = Mul(x, c) }")
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
            if unknown == "?":
                dim.dim_param = unknown
            else:
                dim.dim_value = unknown
    got = run(add_gradients(model), x=np.ones((2, 3)), c=np.ones(1), ct_y=np.ones((2, 3)))
    np.testing.assert_array_equal(got["d_c"], [6.0])
    assert add_gradients(model, shapes={"x": [2, 3]})


def test_an_output_that_is_an_input_passes_its_cotangent():
    model = parsed("(double[2] x) => (double[2] y, double[2] x) { y = Neg(x) }")
    got = run(add_gradients(model, ["x"]), x=np.ones(2), ct_y=np.ones(2), ct_x=np.array([5.0, 6.0]))
    np.testing.assert_array_equal(got["d_x"], [4.0, 5.0])


@pytest.mark.parametrize("kind", NUMPY)
def test_gradients_are_of_the_type_of_what_they_belong_to(kind):
    """Scatter, broadcast, constants, reductions and casts, in every float type."""
    model = parsed(
        f"""({kind}[n, 4] x, {kind}[1] c) => ({kind}[n, 2] y) {{
        margins = Constant <value_ints = [0, 1, 0, 0]> ()
        padded = Pad <mode = "edge"> (x, margins)
        half = Constant <value_ints = [2, 3]> ()
        parts = Gather <axis = 1> (padded, half)
        g = Gelu(parts)
        h = Mul(g, c)
        y = Softmax <axis = -1> (h)
    }}""",
        opset=22,
    )
    made = add_gradients(model, ["x", "c"])
    onnx.checker.check_model(made, full_check=True)
    dtype = NUMPY[kind]
    feeds = {"x": np.ones((3, 4), dtype), "c": np.ones(1, dtype), "ct_y": np.array([[1, 2]] * 3, dtype)}
    got = CorrectlyRoundedEvaluator(made.SerializeToString()).forward(feeds)
    assert {got[name].dtype for name in ("d_x", "d_c")} == {np.dtype(dtype)}
    # gelu'(1) = 1.0833 times -1/4, and no sum for c: both logits have the same share of it
    np.testing.assert_allclose(got["d_x"][0].astype(float), [0, -0.2708, 0.2708, 0], atol=3e-3)


@pytest.mark.parametrize("opset", range(15, 27))
def test_opsets(opset):
    model = parsed(
        """(double[b, 4] x) => (double[b, 2] y) {
        two = Constant <value_ints = [0, 2]> ()
        a = LeakyRelu <alpha = 0.5> (x)
        c = Gather <axis = 1> (a, two)
        m = ReduceSum (c)
        y = Mul (c, m)
    }""",
        opset=opset,
    )
    made = add_gradients(model, ["x"])
    assert made.opset_import[0].version == max(opset, 16)
    got = run(made, x=np.array([[1.0, 2.0, -2.0, 3.0]]), ct_y=np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(got["d_x"], [[1.0, 0.0, 0.5, 0.0]])


def test_local_functions_are_inlined():
    model = parsed(
        "(double[2] x) => (double[2] y) { h = local.twice(x) y = local.twice(h) }",
        header=', "local": 1',
        functions='<domain: "local", opset_import: ["": 18]> twice (a) => (b) { b = Add(a, a) }',
    )
    got = run(add_gradients(model, ["x"]), x=np.ones(2), ct_y=np.ones(2))
    np.testing.assert_array_equal(got["d_x"], [4.0, 4.0])


def test_an_operator_that_the_standard_defines_by_others_is_replaced():
    torch = pytest.importorskip("torch")
    assert rule_of("", "SoftmaxCrossEntropyLoss") is None
    model = parsed("""(double[4, 5] x, int64[4] labels) => (double loss) {
        loss = SoftmaxCrossEntropyLoss <reduction = "mean"> (x, labels)
    }""")
    x, labels = np.random.default_rng(0).standard_normal((4, 5)), np.array([0, 4, 2, 2])
    got = run(add_gradients(model, ["x"]), x=x, labels=labels, ct_loss=np.array(1.0))
    leaf = torch.tensor(x, requires_grad=True)
    torch.nn.functional.cross_entropy(leaf, torch.tensor(labels)).backward()
    np.testing.assert_allclose(got["d_x"], leaf.grad, atol=1e-15)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_agrees_with_torch(causal):
    torch = pytest.importorskip("torch")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = parsed(
        f"""(float[b, 2, n, 4] q, float[b, 2, m, 4] k, float[b, 2, m, 4] v) => (float[b, 2, n, 4] y) {{
        y = Attention <is_causal = {causal}> (q, k, v)
    }}""",
        opset=23,
    )
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((3, 2, 5, 4)).astype(np.float32) for name in ("q", "k", "v", "ct_y")}
    graph = add_gradients(model, ["q", "k", "v"], keep_outputs=False).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    got = onnxruntime.InferenceSession(graph, options).run(None, arrays)
    leaves = [torch.tensor(arrays[name], dtype=torch.float64, requires_grad=True) for name in "qkv"]
    y = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=bool(causal))
    for mine, theirs in zip(got, torch.autograd.grad(y, leaves, torch.tensor(arrays["ct_y"]).double()), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_onnx_runtime_loads_a_gradient_that_also_goes_into_a_product_with_a_sum():
    """d_z = p is an output, and d_h = p w^T + q: as copy of p the output made a graph that ONNX Runtime 1.31 cannot load."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = parsed("""(float[2, 3] h, float[3, 3] w, float[2, 3] z) => (float[2, 3] y) {
        m = MatMul(h, w)
        s = Add(m, z)
        t = Tanh(s)
        e = Exp(h)
        y = Mul(t, e)
    }""")
    rng = np.random.default_rng(0)
    h, w, z, ct_y = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3), (3, 3), (2, 3), (2, 3)))
    graph = add_gradients(model, ["h", "z"], keep_outputs=False).SerializeToString()
    d_h, d_z = onnxruntime.InferenceSession(graph).run(None, {"h": h, "w": w, "z": z, "ct_y": ct_y})
    t = np.tanh(h @ w + z)
    p = ct_y * np.exp(h) * (1 - t**2)
    np.testing.assert_allclose(d_z, p, atol=1e-5)
    np.testing.assert_allclose(d_h, p @ w.T + ct_y * np.exp(h) * t, atol=1e-5)


def test_two_inputs_with_one_gradient_get_it_each():
    model = parsed("(double[2] a, double[2] c) => (double[2] y) { s = Add(a, c) y = Exp(s) }")
    a, c = np.array([0.5, 1.0]), np.array([-0.5, 1.0])
    got = run(add_gradients(model, ["a", "c"]), a=a, c=c, ct_y=np.ones(2))
    for name in ("d_a", "d_c"):
        np.testing.assert_allclose(got[name], np.exp(a + c))


def test_a_gradient_has_a_gradient():
    """d/dx of exp(x) three times."""
    model = parsed("(double[2] x) => (double[2] y) { y = Exp(x) }")
    first = add_gradients(model, ["x"], keep_outputs=False)
    second = add_gradients(first, ["x"], cotangent="ct2_", gradient="d2_", keep_outputs=False)
    third = add_gradients(second, ["x"], cotangent="ct3_", gradient="d3_", keep_outputs=False)
    x, one = np.array([0.5, -1.0]), np.ones(2)
    got = run(third, x=x, ct_y=one, ct2_d_x=one, ct3_d2_x=one)
    np.testing.assert_allclose(got["d3_x"], np.exp(x))


def test_a_long_chain():
    nodes = [helper.make_node("Neg", [f"t{i}"], [f"t{i + 1}"]) for i in range(5000)]
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n"]) for name in ("t0", "t5000")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    got = run(add_gradients(model, ["t0"]), t0=np.ones(1), ct_t5000=np.full(1, 7.0))
    np.testing.assert_array_equal(got["d_t0"], [7.0])


REFUSED = {
    "foreign": ("(double[2] x) => (double[2] y) { [it] y = other.Squash(x) }", "Squash", "other", "at node it"),
    "quantized": (
        "(float[2] x, float s, uint8 z) => (float[2] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
        "DequantizeLinear",
        "ai.onnx",
        "it has no rule",
    ),
    "sequence": (
        "(double[2] x, int64 i) => (double[2] y) { s = SequenceConstruct(x, x) y = SequenceAt(s, i) }",
        "SequenceAt",
        "ai.onnx",
        "it has no rule",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_no_gradient_passes_what_has_no_rule(case):
    graph, operator, domain, where = REFUSED[case]
    with pytest.raises(UnsupportedOperator, match=rf"operator {operator} \(domain {domain}, opset (18|1)\)") as error:
        add_gradients(parsed(graph, header=', "other": 1'), ["x"])
    assert where in str(error.value)


def test_what_no_gradient_has_to_pass_is_not_refused():
    model = parsed(
        "(double[2] x, double[2] t) => (double[2] y, double[2] z) { s = other.Squash(t) y = Mul(x, t) z = Mul(x, s) }",
        header=', "other": 1',
    )
    made = add_gradients(model, ["x", "t"], ["y"])
    assert [node.op_type for node in made.graph.node].count("Squash") == 1
    assert made.graph.output[-1].name == "d_t"


def test_the_examples_of_the_document_run(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[3] / "docs/gradients.md").read_text(encoding="utf-8")
    example, training, _ = re.findall(
        r"```python\n(.*?)```", text, re.DOTALL
    )  # the last is tests/cli/test_grad_cli.py's
    exec(example, {})  # noqa: S102  our own document
    exec(training, {})  # noqa: S102
    (command,) = re.findall(r"^    \$ actconform (.*)$", text, re.MULTILINE)
    from actconform.cli.grad_ import command as grad

    assert grad.main(command.split()[1:], standalone_mode=False) == 0
    assert [value.name for value in onnx.load("grad.onnx").graph.output] == ["y", "d_x", "d_w"]
