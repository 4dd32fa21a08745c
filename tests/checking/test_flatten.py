"""A model as the flat list of nodes that a sample runs: the same numbers as ONNX Runtime gives for the model, bit for bit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from small_models import CONV, ENCODER, FLOW, IMAGES, LSTM, STEPS, TOKENS, flow, made, numbers

from actconform.checking.flatten import flatten
from actconform.errors import Unsupported

NESTED = made(
    """(float[3] x, int64 rounds) => (float[3] y)
    {
        s = Mul (x, w)
        y = Loop (rounds, , s) <
            body = g (int64 i, bool go, float[3] state) => (bool on, float[3] next)
            {
                on = Identity (go)
                two = Constant <value = int64 {2}> ()
                rest = Mod (i, two)
                odd = Cast <to = 9> (rest)
                chosen = If (odd) <
                    then_branch = h () => (float[3] t) { r = Tanh (state)  t = Add (r, x) },
                    else_branch = h () => (float[3] t) { r = Mul (state, w)  t = Sub (r, s) }
                >
                next = Loop (two, , chosen) <
                    body = k (int64 j, bool ahead, float[3] inner) => (bool still, float[3] product)
                    { still = Identity (ahead)  product = Mul (inner, w) }
                >
            }
        >
    }""",
    {"w": np.float32(0.75)},
)
COUNTING = made(
    """(float[2] x, float bound) => (float[2] y, float[m, 2] shown)
    {
        yes = Constant <value = bool {1}> ()
        y, shown = Loop (, yes, x) <
            body = g (int64 i, bool go, float[2] state) => (bool on, float[2] next, float[2] seen)
            { next = Add (state, state)  seen = Neg (state)  largest = ReduceMax <keepdims = 0> (next)  on = Less (largest, bound) }
        >
    }"""
)
SCANNING = made(
    """(float[2] x, float[2, 4] a, float[3, 4] b) => (float[2] y, float[2, 4] rows, float[4, 2] turned)
    {
        y, rows, turned = Scan <num_scan_inputs = 2, scan_input_axes = [1, 1], scan_input_directions = [0, 1],
            scan_output_axes = [1, 0], scan_output_directions = [1, 0],
            body = g (float[2] s, float[2] p, float[3] q) => (float[2] next, float[2] first, float[2] second)
            { t = ReduceSum <keepdims = 0> (q)  u = Mul (s, p)  next = Add (u, t)  first = Tanh (next)  second = Neg (u) }
        > (x, a, b)
    }"""
)


def run(model, inputs):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def ops(graph):
    return [node.proto.op_type for node in graph.nodes]


CASES = {
    "conv": (CONV, IMAGES),
    "encoder": (ENCODER, TOKENS),
    "lstm": (LSTM, STEPS),
    "if-then": (FLOW, flow()),
    "if-else": (FLOW, flow(early=False)),
    "no-round": (FLOW, flow(rounds=0)),
    "nested": (NESTED, {"x": numbers(1, 3), "rounds": np.array(3, np.int64)}),
    "nested-no-round": (NESTED, {"x": numbers(1, 3), "rounds": np.array(0, np.int64)}),
    "counting": (COUNTING, {"x": np.float32([1, -2]), "bound": np.array(20, np.float32)}),
    "scanning": (SCANNING, {"x": numbers(2, 2), "a": numbers(3, 2, 4), "b": numbers(4, 3, 4)}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_flat_graph_is_valid_and_gives_the_same_bits_and_the_truth_is_near(name):
    model, inputs = CASES[name]
    graph = flatten(model, inputs)
    onnx.checker.check_model(graph.model, full_check=True)
    assert not {"If", "Loop", "Scan"} & set(ops(graph))
    plain, flat = run(model, inputs), run(graph.model, inputs)
    assert plain.keys() == flat.keys() == graph.truth.keys()
    for output, array in plain.items():
        np.testing.assert_array_equal(flat[output], array)
        assert flat[output].dtype == array.dtype
        assert graph.truth[output].shape == array.shape
        np.testing.assert_allclose(graph.truth[output], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_names_are_of_one_tensor_and_of_one_node_each(name):
    graph = flatten(*CASES[name])
    outputs = Counter(output for node in graph.nodes for output in node.outputs)
    names = Counter(node.name for node in graph.nodes)
    assert max(outputs.values()) == max(names.values()) == 1
    assert not outputs.keys() & graph.constants.keys()
    assert not outputs.keys() & set(graph.inputs)


@pytest.mark.parametrize("name", CASES)
def test_types_and_shapes_are_those_that_the_runtime_gives(name):
    model, inputs = CASES[name]
    graph = flatten(model, inputs)
    tensors = [tensor for node in graph.nodes for tensor in node.outputs]
    marked = onnx.ModelProto()
    marked.CopyFrom(graph.model)
    finals = {value.name for value in marked.graph.output}
    marked.graph.output.extend(
        onnx.helper.make_tensor_value_info(tensor, graph.types[tensor], None)
        for tensor in tensors
        if tensor not in finals
    )
    for tensor, array in run(marked, inputs).items():
        assert graph.types[tensor] == onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        assert graph.shapes[tensor] == array.shape


def test_a_node_bears_the_users_name_after_those_of_the_nodes_that_held_it():
    model = onnx.ModelProto()
    model.CopyFrom(FLOW)
    for node, name in zip(model.graph.node, ("double", "choose", "repeat", "along", "end"), strict=True):
        node.name = name
    graph = flatten(model, flow(rounds=2))
    names = [node.name for node in graph.nodes]
    assert names[:3] == ["double", "choose/Tanh:t", "choose/Mul:inner"]
    assert {"repeat/0/Mul:t", "repeat/1/Mul:t", "along/4/Add:next", "end"} <= set(names)


def test_nodes_of_the_same_name_are_told_apart_and_nodes_without_one_bear_their_output():
    model = made("(float[n] x) => (float[n] y) { a = Neg (x)  b = Neg (a)  y = Exp (b) }")
    for node in model.graph.node[:2]:
        node.name = "same"
    assert [node.name for node in flatten(model, {"x": numbers(1, 3)}).nodes] == ["same", "same#2", "Exp:y"]


def test_functions_are_taken_apart_functions_in_functions_too():
    model = made(
        "(float[n] x) => (float[n] y) { t = local.Outer (x)  y = local.Outer (t) }",
        more="""
        <domain: "local", opset_import: ["" : 17, "local" : 1]> Outer (a) => (b) { c = local.Inner (a)  b = Add (c, a) }
        <domain: "local", opset_import: ["" : 17]> Inner (a) => (b) { c = Tanh (a)  b = Mul (c, c) }
        """,
    )
    inputs = {"x": numbers(1, 5)}
    graph = flatten(model, inputs)
    assert ops(graph) == ["Tanh", "Mul", "Add"] * 2
    np.testing.assert_array_equal(run(graph.model, inputs)["y"], run(model, inputs)["y"])


def test_constants_of_a_body_are_kept_once_however_often_it_runs():
    model = made(
        """(float[2] x, int64 rounds) => (float[2] y)
        { y = Loop (rounds, , x) <body = g (int64 i, bool go, float[2] s) => (bool on, float[2] next) <float[2] w = {2.0, 3.0}>
            { on = Identity (go)  next = Mul (s, w) }> }"""
    )
    inputs = {"x": numbers(1, 2), "rounds": np.array(7, np.int64)}
    graph = flatten(model, inputs)
    assert sum(np.array_equal(array, [2.0, 3.0]) for array in graph.constants.values()) == 1
    np.testing.assert_array_equal(run(graph.model, inputs)["y"], run(model, inputs)["y"])


def test_constant_nodes_become_initializers_in_their_own_types():
    model = made(
        "(float[n] x) => (float[n] y) { a = Constant <value_float = 2.5> ()  b = Constant <value = int64[2] {1, -1}> ()"
        "  c = Mul (x, a)  d = Reshape (c, b)  y = Reshape (d, minus) }",
        {"minus": np.int64([-1])},
    )
    graph = flatten(model, {"x": numbers(1, 3)})
    assert graph.constants["a"].dtype == np.float32
    assert graph.constants["b"].dtype == np.int64
    assert ops(graph) == ["Mul", "Reshape", "Reshape"]


def test_an_initializer_that_the_sample_overrides_is_an_input():
    model = made("(float[2] x, float[2] w) => (float[2] y) { y = Mul (x, w) }", {"w": np.float32([2, 3])})
    x = np.float32([1, 1])
    assert flatten(model, {"x": x}).truth["y"].tolist() == [2, 3]
    overridden = flatten(model, {"x": x, "w": np.float32([5, 7])})
    assert overridden.truth["y"].tolist() == [5, 7]
    assert overridden.inputs == ["x", "w"]
    assert "w" not in overridden.constants


def test_the_first_overflow_is_told_with_the_values_kept_in_the_truth():
    model = made("(float16[2] x) => (float16[2] y) { a = Mul (x, x)  b = Mul (a, a)  y = Sqrt (b) }")
    graph = flatten(model, {"x": np.float16([300, 2])})
    assert graph.overflow.node == "Mul:a"
    assert graph.truth["y"].tolist() == [90_000, 4]


def test_a_value_just_below_where_the_format_rounds_up_to_infinity_is_no_overflow():
    model = made("(float16[1] x) => (float16[1] y) { y = Add (x, x) }")
    assert flatten(model, {"x": np.float16([32752])}).overflow is None  # 65,504
    assert flatten(model, {"x": np.float16([32768])}).overflow is not None  # 65,536


def test_what_depends_on_an_unknown_value_has_none_and_says_why():
    model = made("(float[n] x) => (float[n] y, float[n] z) { a = ai.onnx.ml.Nothing (x)  y = Exp (a)  z = Exp (x) }")
    graph = flatten(model, {"x": numbers(1, 3)})
    assert graph.truth.keys() == {"z"}
    assert graph.unknown.keys() == {"a", "y"}
    assert "Nothing" in graph.unknown["y"]


def test_an_answer_is_taken_for_what_nobody_evaluates_and_asked_with_the_graph_so_far():
    asked = []

    def answers(model, names):
        asked.append(([node.op_type for node in model.graph.node], list(names)))
        return {"a": np.float32([1, 2, 3])}

    model = made("(float[n] x) => (float[n] y) { t = Neg (x)  a = ai.onnx.ml.Nothing (t)  y = Neg (a) }")
    graph = flatten(model, {"x": numbers(1, 3)}, answers)
    assert asked == [(["Neg", "Nothing"], ["a"])]
    assert graph.truth["y"].tolist() == [-1, -2, -3]
    assert graph.answered.keys() == {"a"}


def test_a_loop_of_too_many_rounds_is_refused(monkeypatch):
    monkeypatch.setattr("actconform.checking.flatten.MOST_NODES", 1000)
    model = made(
        """(float[1] x, int64 rounds) => (float[1] y)
        { y = Loop (rounds, , x) <body = g (int64 i, bool go, float[1] s) => (bool on, float[1] next)
            { on = Identity (go)  next = Neg (s) }> }"""
    )
    with pytest.raises(Unsupported, match="more than 1,000 nodes"):
        flatten(model, {"x": numbers(1, 1), "rounds": np.array(600, np.int64)})


def test_a_node_that_fails_at_these_inputs_is_named():
    model = made("(float[2] x, float[3] z) => (float[n] y) { y = Add (x, z) }")
    model.graph.node[0].name = "sum"
    with pytest.raises(ValueError, match=r"Add at node sum fails at these inputs"):
        flatten(model, {"x": numbers(1, 2), "z": numbers(1, 3)})


def test_tensors_die_with_their_last_reader_outputs_and_kept_ones_do_not():
    model = made(
        "(float[2] x) => (float[2] y) { a = Neg (x)  b = Exp (a)  c = Add (a, b)  y = Mul (c, w) }",
        {"w": np.float32(2)},
    )
    graph = flatten(model, {"x": numbers(1, 2)})
    assert graph.last_readers() == [["x"], [], ["a", "b"], ["c"]]
    assert graph.last_readers(["b"]) == [["x"], [], ["a"], ["c"]]


def test_tensors_of_the_main_graph_keep_their_names_whatever_those_in_bodies_are():
    model = made(
        """(bool c, float[n] x) => (float[n] y)
        {
            t = If (c) <then_branch = yes () => (float[n] r) { a = Exp (x)  r = Neg (a) },
                        else_branch = no () => (float[n] s) { s = Neg (x) }>
            z = Abs (t)
            y = Neg (z)
        }"""
    )
    model.graph.node[0].name = "choose"
    model.graph.node[1].output[0] = model.graph.node[2].input[0] = "choose/a"
    graph = flatten(model, {"c": np.array(True), "x": numbers(1, 3)})
    assert [node.outputs for node in graph.nodes] == [["choose/a'2"], ["choose/r"], ["t"], ["choose/a"], ["y"]]


def test_equal_graphs_of_two_samples_share_their_weights_and_others_do_not():
    model = made("(bool c, float[n] x) => (float[n] y) { h = Mul (x, w)  y = If (c) <then_branch = yes () => (float[n] r) "
                 "{ r = Neg (h) }, else_branch = no () => (float[n] s) { s = Relu (h) }> }", {"w": np.float32(-2)})  # fmt: skip
    first, second, other = (
        flatten(model, {"c": np.array(c), "x": numbers(1, n)}) for c, n in ((True, 3), (True, 4), (False, 3))
    )
    assert second.shares(first)
    assert second.model is first.model
    assert second.constants is first.constants
    assert second.truth["y"].shape == (4,)
    assert not other.shares(first)
    assert other.model is not first.model
