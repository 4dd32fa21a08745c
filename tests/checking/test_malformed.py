"""Nodes that the standard does not have as they are written: what is said of each, and that no broken graph ends in a traceback."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import MODELS, Silent, made

from actconform.checking.ill_typed import ill_typed_nodes
from actconform.checking.malformed import malformed_nodes
from actconform.checking.model_check import check_model
from actconform.checking.samples import draw_user_samples
from actconform.checking.source import read_source
from actconform.errors import Unsupported, UsageError
from actconform.linting.session import LintRequest, lint_source
from actconform.onnx.nested_graphs import graphs
from actconform.plugin.loader import Catalog
from actconform.settings import Config
from actconform.types.cause import Register

if TYPE_CHECKING:
    from pathlib import Path

IN, OUT = "(float[4, 4] x, float[4] s, bool b, int64 k)", "(float[4, 4] y)"
THEN = "then_branch = t () => (float[4, 4] p, float[4, 4] q) { p = Relu (x)  q = Neg (x) }"
ELSE = "else_branch = e () => (float[4, 4] r) { r = Neg (x) }"
BODY = "body = b (int64 i, bool c) => (bool d, float[4, 4] v) { d = Identity (c)  v = Neg (x) }"
ROW = "body = b (float[4] v, float[4] e) => (float[4] w) { w = Add (v, e) }"
ANEW = "correct what wrote it, and export the model anew: no opset has it as it is written"
# By case the node, the opset, what is said of it, and what to do; "_" is a name that is left out.
CASES = {
    "an operator of a newer opset": (
        "y = Gelu (x)",
        18,
        "is not an operator of opset 18: the standard has it since opset 20",
        "export the model at opset 20 or newer, which has the node as it is written",
    ),
    "an operator that was removed": (
        "y = Upsample (x, s)",
        12,
        "is not an operator of opset 12: the standard had it up to opset 9",
        "export the model at opset 9 or older, which has the node as it is written, or correct what wrote it for opset 12",
    ),
    "an operator that never was": (
        "y = Sigmod (x)",
        17,
        "is not an operator of any opset; did you mean Sigmoid",
        "an operator of a runtime's own is in a domain of its own, such as com.microsoft, which opset_import states",
    ),
    "an operator of another domain of the standard": (
        "y = ai.onnx.ml.Scalar (x)",
        17,
        "is not an operator of any version of ai.onnx.ml; did you mean Scaler",
        "an operator of a runtime's own is in a domain of its own, such as com.microsoft, which opset_import states",
    ),
    "too few inputs": ("y = Div (x)", 17, "has 1 input, and takes 2 at opset 17", ANEW),
    "too many inputs": ("y = Relu (x, s)", 17, "has 2 inputs, and takes 1 at opset 17", ANEW),
    "no input": ("y = Concat <axis = 0> ()", 17, "has 0 inputs, and takes 1 or more at opset 17", ANEW),
    "too many outputs": (
        "y, u, v, w = BatchNormalization (x, s, s, s, s)",
        14,
        "has 4 outputs, and gives 1 to 3 at opset 14",
        "export the model at opset 13 or older, which has the node as it is written, or correct what wrote it for opset 14",
    ),
    "an input left out": ("y = Div (x, _)", 17, "leaves out its input 2, B, which it must have at opset 17", ANEW),
    "one of any number left out": (
        "y = Sum (x, x, _)",
        17,
        "leaves out its input 3, data_0, which it must have at opset 17",
        ANEW,
    ),
    "an output left out": (
        "y = Neg (x)  _ = Relu (x)",
        17,
        "leaves out its output 1, Y, which it must have at opset 17",
        ANEW,
    ),
    "an attribute that became an input": (
        "y = ReduceSum <axes = [0]> (x)",
        13,
        "has the attribute axes, and takes it as an input at opset 13",
        "export the model at opset 12 or older, which has the node as it is written, or correct what wrote it for opset 13",
    ),
    "an attribute of a newer opset": (
        'y = ScatterND <reduction = "add"> (x, k, x)',
        15,
        "has the attribute reduction, and takes none at opset 15",
        "export the model at opset 16 or newer, which has the node as it is written",
    ),
    "an attribute that never was": (
        "y = LeakyRelu <slope = 0.1> (x)",
        17,
        "has the attribute slope, and takes only alpha at opset 17",
        ANEW,
    ),
    "attributes that became inputs": (
        "y = Clip <min = 0.0, max = 6.0> (x)",
        13,
        "has the attributes min, max, and takes these as inputs at opset 13",
        "export the model at opset 10 or older, which has the node as it is written, or correct what wrote it for opset 13",
    ),
    "an attribute that is misspelt": (
        "y = Cast <too = 1, to = 1> (x)",
        19,
        "has the attribute too, and takes only to, saturate at opset 19",
        ANEW,
    ),
    "a missing attribute": ("y = Cast (x)", 17, "lacks the attribute to, which it must have at opset 17", ANEW),
    "a constant of nothing": ("y = Constant ()", 17, "states no value, which it must have at opset 17", ANEW),
    "branches that give more": (
        f"y = If (b) <{THEN}, {ELSE}>",
        17,
        "has a then_branch of 2 outputs, and takes 1 from it at opset 17",
        ANEW,
    ),
    "a body that takes less": (
        f"y = Loop (k, b, x) <{BODY}>",
        17,
        "has a body of 2 inputs, and passes it 3 at opset 17",
        ANEW,
    ),
    "more scan inputs than inputs": (
        f"y = Scan <num_scan_inputs = 5, {ROW}> (s, x)",
        17,
        "states 5 scan inputs, and has 2 inputs at opset 17",
        ANEW,
    ),
}


def malformed(nodes: str, opset: int = 17):
    model = made(f"{IN} => {OUT} {{ {nodes} }}", opset=opset)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["" if name == "_" else name for name in names]
    return list(malformed_nodes(model))


@pytest.mark.parametrize("case", CASES)
def test_a_malformed_node_is_told_with_what_its_opset_has_and_what_to_do(case):
    nodes, opset, words, advice = CASES[case]
    (node,) = malformed(nodes, opset)
    assert re.fullmatch(re.escape(words) + r"(,.*)?\??", node.words)  # newer versions of onnx have more names
    assert node.advice == advice
    assert node.readable == ("is not an operator" in words)


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ("y = Gelu (x)", 20),
        ("y = GroupNormalization <num_groups = 1> (x, s, s)", 18),
        ("y = Gemm (x, x, _)", 17),
        ("y = Relu <__own = 1> (x)", 17),
        ("y, _ = Dropout (x)", 17),
        ("y = com.acme.Own <axes = [0]> ()", 17),
        ("y = com.microsoft.FastGelu (x)", 17),
        (f"y = Scan <num_scan_inputs = 1, {ROW}> (s, x)", 17),
        (f"y = If (b) <{ELSE.replace('else', 'then')}, {ELSE}>", 17),
    ],
)
def test_a_node_that_its_opset_has_is_not_told(nodes, opset):
    assert malformed(nodes, opset) == []


@pytest.mark.parametrize(
    ("node", "opset", "runs"),
    [
        ("LayerNormalization (x, s)", 16, True),
        ("SimplifiedLayerNormalization (x, s)", 17, True),
        ("ThresholdedRelu (x)", 9, True),
        ("ScaledTanh (x)", 9, True),
        ("ScaledTanh (x)", 10, False),
        ("Gelu (x)", 18, False),
    ],
)
def test_an_operator_that_onnx_runtime_has_at_an_opset_that_lacks_it_is_told_as_such(node, opset, runs):
    (each,) = malformed(f"y = {node}", opset)
    assert each.readable
    assert each.runs == runs


def test_nodes_in_functions_are_judged_by_the_opset_of_the_function():
    function = '<domain: "local", opset_import: ["" : 20]> f (a) => (c) { c = Gelu (a) }'
    assert list(malformed_nodes(made(f"{IN} => {OUT} {{ y = local.f (x) }}", opset=18, more=function))) == []
    older = function.replace("20", "18")
    (node,) = malformed_nodes(made(f"{IN} => {OUT} {{ y = local.f (x) }}", opset=20, more=older))
    assert node.words.startswith("is not an operator of opset 18")


FUNCTION = '<domain: "local", opset_import: ["" : 17]> f <slope> (a, low, high) => (c, d) { c = Clip (a, low, high)  d = LeakyRelu <alpha: float = @slope> (a) }'


def called(call: str) -> list[str]:
    return [each.words for each in malformed_nodes(made(f"(float[4] x) => (float[4] y) {{ {call} }}", more=FUNCTION))]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("y = local.f (x, x, x, x)", "has 4 inputs, and takes at most 3"),
        ("y, z, t = local.f (x)", "has 3 outputs, and gives at most 2"),
        ("y = local.f <foo = 1> (x)", "has the attribute foo, and takes only slope"),
    ],
)
def test_a_call_that_its_function_does_not_fit_is_malformed(call, words):
    assert called(call) == [f"{words} as a call of the model's function local.f"]


@pytest.mark.parametrize(
    "call", ["y = local.f (x)", "y, z = local.f <slope = 0.5> (x, , x)", "y = local.f <__own = 1> (x)"]
)
def test_a_call_may_leave_out_inputs_outputs_and_attributes(call):
    assert called(call) == []


def test_an_attribute_refers_to_one_of_a_function_in_a_function_alone():
    inside = made("(float[4] x) => (float[4] y) { y = local.f (x) }", more=FUNCTION)
    inside.graph.node[0].CopyFrom(inside.functions[0].node[1])
    inside.graph.node[0].input[0], inside.graph.node[0].output[0] = "x", "y"
    (node,) = malformed_nodes(inside)
    assert node.words == "refers for its attribute alpha to the attribute slope of a function, and stands in none"
    assert not node.readable


# Every broken graph is linted and checked, or refused in one line

NAMES = ["axes", "axis", "to", "keepdims", "perm", "value", "split", "body", "other"]
VALUES = [0, -9, 2**40, 0.5, float("nan"), [0], [7, -8], "", "x"]
OPERATORS = ["Gelu", "Softmax", "If", "Loop", "Scan", "Cast", "Constant", "Range", "Reshape", "SequenceAt", "Dropout"]


def edited(model: onnx.ModelProto, draw) -> None:
    """Break one thing in a model."""
    bodies = list(graphs(model.graph))
    body = draw(st.sampled_from(bodies))
    node = draw(st.sampled_from(list(body.node)))
    values = [*body.input, *body.output, *body.value_info]
    names = [name for each in bodies for node in each.node for name in (*node.input, *node.output)]
    match draw(st.integers(0, 9)):
        case 0:
            repeated = draw(st.sampled_from([node.input, node.output, node.attribute, body.input, body.output]))
            assume(len(repeated))
            del repeated[draw(st.integers(0, len(repeated) - 1))]
        case 1:
            node.input.append(draw(st.sampled_from(names)))
        case 2:
            assume(len(node.input))
            node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(["", *names]))
        case 3:
            node.output.append("further")
        case 4:
            node.attribute.append(helper.make_attribute(draw(st.sampled_from(NAMES)), draw(st.sampled_from(VALUES))))
        case 5:
            value = draw(st.sampled_from(values))
            value.type.tensor_type.elem_type = draw(st.sampled_from(TensorProto.DataType.values()))
        case 6:
            kind = helper.make_tensor_type_proto(draw(st.sampled_from([1, 7, 10])), None)
            draw(st.sampled_from(values)).type.CopyFrom(helper.make_sequence_type_proto(kind))
        case 7:
            model.opset_import[0].version = draw(st.integers(7, 23))
        case 8:
            node.op_type = draw(st.sampled_from(OPERATORS))
        case 9:
            draw(st.sampled_from(values)).ClearField("type")


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=30, derandomize=True)
@given(data=st.data())
def test_no_broken_graph_ends_in_a_traceback(tmp_path_factory, kind, data):
    model = onnx.ModelProto()
    model.CopyFrom(MODELS[kind][0])
    for _ in range(data.draw(st.integers(1, 2))):
        edited(model, data.draw)
    path = tmp_path_factory.getbasetemp() / "broken.onnx"
    onnx.save(model, path)
    for judged in (linted, checked):
        with suppress(UsageError):  # in words
            judged(path)


def linted(path: Path) -> None:
    lint_source(LintRequest(str(path)), Catalog({}, {}, {}, {}, Register(), (), (), {}, {}), Config())


def checked(path: Path) -> None:
    """Do what a check does before it asks a runtime."""
    source = read_source(path)
    if all(node.readable for node in malformed_nodes(source.model)):
        list(ill_typed_nodes(source.light))
        samples = draw_user_samples(source, [], seed=0, count=1, ranges={}, max_memory=None)
        with suppress(Unsupported, ValueError):  # which a check says in words
            check_model(source, samples, [], Silent())
