"""A graph of a few bytes that would fill the memory is refused by its size, in words, before any of it is made."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import parser

from actconform.errors import GradientError, TooLargeError, Unsupported
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.gates import inspect
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.onnx.opset_conversion import inlined
from actconform.onnx.size_limits import MOST_NODES, MOST_VECTOR_ELEMENTS, expect_sane_size, inferred_with_data
from actconform.plugin.loader import load_plugins
from actconform.types import Artifact

HUGE = 1_000_000_000_000
HEAD = '<ir_version: 8, opset_import: ["": 18, "c": 1]>'
INT = "Constant<value = int64 {%d}>()"


def graph(body: str, x: str = "float[3]", y: str = "float") -> onnx.ModelProto:
    return parser.parse_model(f"{HEAD} g ({x} x) => ({y} y) {{ {body} }}")


def nested(depth: int, calls: int) -> onnx.ModelProto:
    """Functions each of which calls the one before it `calls` times: calls ** (depth - 1) nodes once they are inlined."""
    functions = ['<domain: "c", opset_import: ["": 18]> f0 (a) => (b) { b = Tanh(a) }']
    for level in range(1, depth):
        chain = [f"t{i + 1} = c.f{level - 1}(t{i})" for i in range(calls)]
        body = " ".join(chain).replace("(t0)", "(a)").replace(f"t{calls} =", "b =")
        functions.append(f'<domain: "c", opset_import: ["": 18, "c": 1]> f{level} (a) => (b) {{ {body} }}')
    return parser.parse_model(
        f"{HEAD} g (float[3] x) => (float[3] y) {{ y = c.f{depth - 1}(x) }}\n" + "\n".join(functions)
    )


def recursive() -> onnx.ModelProto:
    return parser.parse_model(f"""{HEAD} g (float[3] x) => (float[3] y) {{ y = c.f(x) }}
        <domain: "c", opset_import: ["": 18, "c": 1]> f (a) => (b) {{ t = c.h(a) b = Tanh(t) }}
        <domain: "c", opset_import: ["": 18, "c": 1]> h (a) => (b) {{ b = c.f(a) }}""")


@pytest.mark.parametrize(("depth", "calls"), [(30, 2), (12, 5), (3, 400), (60, 3)])
def test_functions_that_grow_without_end_are_refused_at_once(depth: int, calls: int) -> None:
    model = nested(depth, calls)
    assert model.ByteSize() < 20_000
    started = time.process_time()
    with pytest.raises(TooLargeError, match=r"nodes in .* bytes; at most 100,000"):
        inlined(model)
    with pytest.raises(GradientError, match="nodes in"):
        add_gradients(model, ["x"])
    with pytest.raises(Unsupported, match="nodes in"):
        CorrectlyRoundedEvaluator(model.SerializeToString())
    kernel = load_plugins().kernels["tanh"]
    (class_, why), *_ = inspect(Artifact(model.SerializeToString(), 18, "a test"), kernel, "f32")
    assert (class_, "at most 100,000 nodes" in why) == ("invalid-model", True)
    assert time.process_time() - started < 20


@pytest.mark.parametrize("reverse", [False, True])
def test_a_long_chain_of_functions_is_refused_at_once(reverse: bool) -> None:
    model = nested(3000, 1)
    if reverse:
        functions = [*model.functions][::-1]
        del model.functions[:]
        model.functions.extend(functions)
    started = time.process_time()
    with pytest.raises(TooLargeError, match="call one another more than 100 deep"):
        expect_sane_size(model)
    assert time.process_time() - started < 5
    expect_sane_size(nested(100, 1))


def test_functions_that_call_themselves_are_refused() -> None:
    for refused in (lambda: inlined(recursive()), lambda: CorrectlyRoundedEvaluator(recursive().SerializeToString())):
        with pytest.raises(TooLargeError, match="calls itself"):
            refused()
    with pytest.raises(GradientError, match="calls itself"):
        add_gradients(recursive(), ["x"])


def test_the_count_is_that_of_the_inlined_model() -> None:
    model = nested(9, 2)
    assert len(inlined(model).graph.node) == 2**8
    expect_sane_size(model)
    wide = nested(2, 1000)
    for i in range(MOST_NODES // 1000 + 1):
        wide.graph.node.append(onnx.helper.make_node("f1", ["x"], [f"z{i}"], domain="c"))
    with pytest.raises(TooLargeError, match="nodes"):
        expect_sane_size(wide)


def test_a_function_of_large_constants_called_often_is_refused_by_its_bytes() -> None:
    model = parser.parse_model(f"""{HEAD} g (float[3] x) => (float[3] y) {{ y = c.f(x) }}
        <domain: "c", opset_import: ["": 18]> f (a) => (b) {{ b = Tanh(a) }}""")
    value = onnx.numpy_helper.from_array(np.zeros(1 << 20, np.float32))
    model.functions[0].node.append(onnx.helper.make_node("Constant", [], ["k"], value=value))
    for i in range(600):
        model.graph.node.append(onnx.helper.make_node("f", ["x"], [f"z{i}"], domain="c"))
    with pytest.raises(TooLargeError, match="bytes"):
        expect_sane_size(model)


MADE = {
    "Range": f"s = {INT % 0} l = {INT % HUGE} d = {INT % 1} r = Range(s, l, d) z = ReduceSum<keepdims = 0>(r) f = Cast<to = 1>(z) y = Add(f, f)",
    "Range of floats": "s = Constant<value = float {0}>() l = Constant<value = float {1000000000000}>() d = Constant<value = float {1}>() r = Range(s, l, d) y = ReduceSum<keepdims = 0>(r)",
    "ConstantOfShape": f"s = Constant<value = int64[1] {{{HUGE}}}>() r = ConstantOfShape(s) y = ReduceSum<keepdims = 0>(r)",
    "Expand": f"s = Constant<value = int64[2] {{{HUGE}, 3}}>() r = Expand(x, s) y = ReduceSum<keepdims = 0>(r)",
    "Tile": f"s = Constant<value = int64[1] {{{HUGE}}}>() r = Tile(x, s) y = ReduceSum<keepdims = 0>(r)",
    "Pad": f"s = Constant<value = int64[2] {{0, {HUGE}}}>() r = Pad(x, s) y = ReduceSum<keepdims = 0>(r)",
    "OneHot": f"i = Constant<value = int64[1] {{0}}>() l = {INT % HUGE} v = Constant<value = float[2] {{0, 1}}>() r = OneHot(i, l, v) y = ReduceSum<keepdims = 0>(r)",
    "Resize by scales": 's = Constant<value = float[1] {1000000000000}>() r = Resize<mode = "nearest">(x, , s) y = ReduceSum<keepdims = 0>(r)',
    "Resize to sizes": f's = Constant<value = int64[1] {{{HUGE}}}>() r = Resize<mode = "nearest">(x, , , s) y = ReduceSum<keepdims = 0>(r)',
    "Gather": f"i = Constant<value = int64[1] {{0}}>() s = Constant<value = int64[1] {{{1 << 20}}}>() e = Expand(i, s) a = Constant<value = int64[2] {{3, 1024}}>() w = ConstantOfShape(a) g = Gather(w, e) y = ReduceSum<keepdims = 0>(g)",
    "outer product": f"s = Constant<value = int64[2] {{{1 << 20}, 1}}>() a = ConstantOfShape(s) b = Transpose(a) c = Add(a, b) y = ReduceSum<keepdims = 0>(c)",
    "MatMul": f"s = Constant<value = int64[2] {{{1 << 20}, 1}}>() a = ConstantOfShape(s) b = Transpose(a) c = MatMul(a, b) y = ReduceSum<keepdims = 0>(c)",
    "sizes computed": f"a = {INT % 1_000_000} l = Mul(a, a) s = {INT % 0} d = {INT % 1} r = Range(s, l, d) z = ReduceSum<keepdims = 0>(r) y = Cast<to = 1>(z)",
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_no_tensor_larger_than_the_limit_is_made(name: str) -> None:
    runtime = CorrectlyRoundedEvaluator(graph(MADE[name]).SerializeToString())
    with pytest.raises(Unsupported, match=r"would hold [\d,]+ numbers; at most 268,435,456 are made"):
        runtime.forward({"x": np.ones(3, np.float32)})


def test_what_is_large_and_sane_is_made() -> None:
    body = "s = Constant<value = int64[1] {1000000}>() r = Tile(x, s) y = ReduceSum<keepdims = 0>(r)"
    assert CorrectlyRoundedEvaluator(graph(body).SerializeToString()).forward({"x": np.ones(3, np.float32)})["y"] == 3e6


def test_a_loop_has_a_last_round() -> None:
    body = """m = Constant<value = int64 {1000000000000}>()
        y = Loop(m, , x) <body = b (int64 i, bool going, float[3] v) => (bool on, float[3] w) { on = Identity(going) w = Tanh(v) }>"""
    runtime = CorrectlyRoundedEvaluator(graph(body, y="float[3]").SerializeToString())
    with pytest.raises(Unsupported, match="a loop of 1,000,000,000,000 rounds"):
        runtime.forward({"x": np.ones(3, np.float32)})


DOUBLED = " ".join(f"c{i + 1} = Concat<axis = 0>(c{i}, c{i})" for i in range(40))
INFERRED = {
    "indices": "s = {0} l = {1} d = {2} r = Range(s, l, d) g = Gather(x, r) z = ReduceSum<keepdims = 0>(g) y = Mul(x, z)",
    "computed": "s = {0} a = Constant<value = int64 {{1000000}}>() l = Mul(a, a) d = {2} r = Range(s, l, d) g = Gather(x, r) z = ReduceSum<keepdims = 0>(g) y = Mul(x, z)",
    "doubled": f"c0 = Constant<value = int64[2] {{{{1, 1}}}}>() {DOUBLED} e = ReduceSum<keepdims = 0>(c40) f = Cast<to = 1>(e) y = Mul(x, f)",
}  # fmt: skip


@pytest.mark.parametrize("name", INFERRED)
def test_gradients_of_huge_constants_cost_what_their_nodes_cost(name: str) -> None:
    model = graph(INFERRED[name].format(INT % 0, INT % HUGE, INT % 1), y="float[3]")
    started = time.process_time()
    assert "d_x" in [value.name for value in add_gradients(model, ["x"]).graph.output]
    assert time.process_time() - started < 20


def test_inputs_of_huge_declared_size_cost_nothing() -> None:
    model = graph("y = Add(x, x)", f"float[{HUGE}]", f"float[{HUGE}]")
    assert add_gradients(model, ["x"]).graph.output[1].type.tensor_type.shape.dim[0].dim_value == HUGE


def test_small_values_are_still_among_the_reasons() -> None:
    body = "s = Shape(x) k = Constant<value = int64[1] {0}>() n = Gather(s, k) a = Constant<value = int64[1] {-1}>() t = Concat<axis = 0>(n, a) y = Reshape(x, t)"
    model = graph(body, "float[4, 2, 3]", "float[p, q]")
    shape = {value.name: value.type.tensor_type.shape.dim for value in inferred_with_data(model).graph.output}["y"]
    assert [dim.dim_value for dim in shape] == [4, 6]
    assert MOST_VECTOR_ELEMENTS > 1_000_000


def test_a_split_into_more_outputs_than_there_are_is_refused_before_onnx_makes_their_sizes() -> None:
    model = graph(f"[many] y = Split<num_outputs = {10**9}> (x)", "float[8]", "float[8]")
    with pytest.raises(
        GradientError, match="operator Split at node many asks for 1,000,000,000 outputs; at most 100,000"
    ):
        add_gradients(model)


@pytest.mark.parametrize("sizes", ["4294967296, 4294967296", "9223372036854775807, 3", "9223372036854775807"])
def test_a_size_that_no_integer_holds_is_known_only_at_run_time(sizes: str) -> None:
    made = add_gradients(graph("n = Size(x) c = Cast<to = 1>(n) y = Div(x, c)", f"float[{sizes}]", f"float[{sizes}]"))
    assert made.graph.output[-1].name == "d_x"
