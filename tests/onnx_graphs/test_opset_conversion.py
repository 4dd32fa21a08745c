"""Old opsets compute the same at opset 16: every version of every operator that changed, evaluated at both."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from old_opsets import Graph, old_versions, sweep
from onnx import helper, parser

from actconform.errors import GradientError
from actconform.onnx import opset_conversion
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.onnx.opset_conversion import converted, inlined, outcome

RNG = np.random.default_rng(0)


def in_onnxruntime(model, feeds):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def expect_equal(got, wanted, *, close):
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5 if close else 0, atol=2e-6 if close else 0)


@pytest.mark.parametrize("graph", sweep(), ids=lambda graph: graph.name)
def test_a_graph_computes_the_same_at_opset_16(graph: Graph):
    old = graph.model()
    new = converted(old)
    feeds = graph.feeds()
    wanted = in_onnxruntime(old, feeds)
    for value, array in zip(new.graph.output, wanted, strict=True):  # of a few operators onnx infers no type
        element_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        value.CopyFrom(helper.make_tensor_value_info(value.name, element_type, [None] * array.ndim))
    assert new.opset_import[0].version == 16
    onnx.checker.check_model(new)
    expect_equal(in_onnxruntime(new, feeds), wanted, close=graph.use.close)
    if graph.use.reference:
        expect_equal(list(reference(new.SerializeToString())(feeds).values()), wanted, close=True)


def test_every_version_that_changed_is_kept_rewritten_or_refused_and_evaluated():
    swept = {(graph.use.op_type, graph.version) for graph in sweep()}
    for name, version, _ in old_versions():
        becomes = outcome(name, version)
        assert becomes, f"{name} of opset {version} is neither kept nor rewritten nor refused"
        assert becomes == "refused" or (name, version) in swept, f"no graph evaluates {name} of opset {version}"


def parsed(text, opset, more="", functions=""):
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}{more}]> g {text} {functions}')


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(1, 1, 2, 1.5), (1, 1, 0.6, 1.7), (1, 1, 0.6, 0.5)])
def test_gradients_of_the_old_resize_are_those_of_the_old_resize(mode, scales):
    """It is linear: its matrix is what it makes of each unit vector, at its own opset."""
    values = ", ".join(map(str, map(float, scales)))
    model = parsed(
        f"""(float[n, 1, 5, 6] x) => (float[n, 1, p, q] y) {{
        s = Constant <value = float[4] {{{values}}}> ()
        y = Resize <mode = "{mode}"> (x, s)
    }}""",
        10,
    )
    matrix = in_onnxruntime(model, {"x": np.eye(30, dtype=np.float32).reshape(30, 1, 5, 6)})[0].reshape(30, -1)
    x, g = RNG.standard_normal((1, 1, 5, 6)).astype(np.float32), RNG.standard_normal((1, matrix.shape[1]))
    y = in_onnxruntime(model, {"x": x})[0]
    made = add_gradients(model, ["x"])
    again, d_x = in_onnxruntime(made, {"x": x, "ct_y": g.astype(np.float32).reshape(y.shape)})
    np.testing.assert_array_equal(again, y)
    np.testing.assert_allclose(d_x.ravel(), matrix @ g.ravel(), atol=1e-5)


OLD_FUNCTION = """<domain: "local", opset_import: ["": 10]> old (a, s) => (d) {
    b = Resize <mode = "linear"> (a, s)
    c = Softmax <axis = 1> (b)
    e = Clip <min = 0.01> (c)
    d = Pad <pads = [0, 0, 0, 1, 0, 0, 0, 0], value = 0.25> (e)
}"""


@pytest.mark.parametrize("opset", [10, 15, 18, 21])
def test_a_function_keeps_the_meaning_of_its_own_opset(opset):
    """It may import an older one than the model does; of its tensors no type is known."""
    body = "(float[1, 1, 2, 3] x, float[4] s) => (float[1, 1, p, q] y) { y = local.old (x, s) }"
    _, _, nodes = OLD_FUNCTION.partition("(d)")
    old = parsed(f"(float[1, 1, 2, 3] a, float[4] s) => (float[1, 1, p, q] d) {nodes}", 10)
    model = parsed(body, opset, ', "local": 1', OLD_FUNCTION)
    feeds = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3), np.array([1, 1, 2, 1.5], np.float32)
    (wanted,) = in_onnxruntime(old, dict(zip("as", feeds, strict=True)))
    expect_equal(in_onnxruntime(inlined(model), dict(zip("xs", feeds, strict=True))), [wanted], close=True)


BRANCHES = """If (c) <
    then_branch = a () => (float[2, 3, 4] p) { t = Neg (x) p = Softmax <axis = 1> (t) },
    else_branch = b () => (float[2, 3, 4] q) {
        s = Constant <value = int64[2] {6, 4}> ()
        t = Reshape (x, s)
        u = Softmax <axis = 1> (t)
        r = Constant <value = int64[3] {2, 3, 4}> ()
        q = Reshape (u, r)
    }>"""


def softmax(x):
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


@pytest.mark.parametrize("opset", [9, 18])
@pytest.mark.parametrize("condition", [True, False])
def test_branches_that_give_tensors_of_other_ranks_one_name(opset, condition):
    """In the model of opset 9 they stand in its graph, in the newer one in a function of opset 9."""
    model = parsed(f"(float[2, 3, 4] x, bool c) => (float[2, 3, 4] y) {{ y = {BRANCHES} }}", 9)
    if opset > 9:
        function = f'<domain: "local", opset_import: ["": 9]> old (x, c) => (y) {{ y = {BRANCHES} }}'
        body = "(float[2, 3, 4] x, bool c) => (float[2, 3, 4] y) { y = local.old (x, c) }"
        model = inlined(parsed(body, opset, ', "local": 1', function))
    else:
        model = converted(model)
    x = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    wanted = softmax(-x.reshape(2, 12)) if condition else softmax(x.reshape(6, 4))
    (got,) = in_onnxruntime(model, {"x": x, "c": np.array(condition)})
    np.testing.assert_allclose(got, wanted.reshape(2, 3, 4), rtol=1e-5)


def test_names_that_the_model_has_are_not_taken_twice():
    model = parsed(
        "(float[2, 3, 4] since16_Flatten_1) => (float[2, 3, 4] y) { y = Softmax <axis = 1> (since16_Flatten_1) }", 9
    )
    onnx.checker.check_model(converted(model), full_check=True)


@pytest.mark.parametrize("element_type", ["float16", "double"])
def test_bounds_and_fills_have_the_type_of_what_they_bound(element_type):
    model = parsed(
        f"({element_type}[3] x) => ({element_type}[4] y) {{ c = Clip <max = 2.0> (x) y = Pad <pads = [1, 0], value = 0.5> (c) }}",
        10,
    )
    x = np.array([-1, 1, 3], helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type))
    new = converted(model)
    onnx.checker.check_model(new, full_check=True)
    (y,) = reference(new.SerializeToString())({"x": x}).values()
    np.testing.assert_array_equal(y, [0.5, -1, 1, 2])


def test_what_nobody_reads_does_not_hinder():
    model = parsed("(float[3] x) => (float[3] y) { y, mask = Dropout <ratio = 0.5> (x) }", 9)
    (got,) = in_onnxruntime(converted(model), {"x": np.ones(3, np.float32)})
    np.testing.assert_array_equal(got, np.ones(3))


SCANNED = """(float[1, 3] h, float[1, 2, 3] x) => (float[1, 3] y) { y = Scan <num_scan_inputs = 1, body = b (float[3] a, float[3] c) => (float[3] d) {
    d = Add (a, c) }> (, h, x) }"""
TRAINED = "(float[2, 3] x, float[3] s) => (float[2, 3] y) { [it] y, m, v, a, b = BatchNormalization (x, s, s, s, s) }"


@pytest.mark.parametrize(
    ("graph", "opset", "words"),
    [
        (SCANNED, 8, ["Scan", "opset 8", "-> y", "export the model at opset 9"]),
        (TRAINED, 9, ["BatchNormalization", "opset 9", "node it", "training mode"]),
        (
            "(float[3] x) => (float[3] y, bool[3] m) { y, m = Dropout (x) }",
            10,
            ["Dropout", "opset 10", "-> y, m", "mask"],
        ),
    ],
)
def test_what_has_no_equal_is_refused_by_name(graph, opset, words):
    model = parsed(graph, opset)
    with pytest.raises(GradientError) as error:
        add_gradients(model, ["x"])
    assert [word for word in words if word not in str(error.value)] == []


def test_a_version_that_nobody_has_looked_at_is_refused(monkeypatch):
    monkeypatch.setattr(opset_conversion, "KEPT", opset_conversion.KEPT - {("Abs", 6)})
    with pytest.raises(GradientError, match=r"operator Abs \(opset 7\) at node -> y: this version has no known equal"):
        add_gradients(parsed("(float[3] x) => (float[3] y) { y = Abs (x) }", 7), ["x"])
