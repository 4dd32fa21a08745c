"""Tensors that the standard does not define: which they are, and that neither an output nor a node is judged by them."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import made, sample_of

from actconform.checking.checked_sample import output_check
from actconform.checking.flatten import flatten
from actconform.checking.judge import Judge
from actconform.checking.truth import draws
from actconform.checking.undefined_values import undefined_tensors

ROW = np.float32([[1, -1, 2]])
NAN_ROW = "h = Log (x)"


def undefined(nodes, outputs, *, x=ROW, opset=17):
    return undefined_tensors(flatten(made(f"(float[n, k] x) => ({outputs}) {{ {nodes} }}", opset=opset), {"x": x}))


@pytest.mark.parametrize(
    ("nodes", "outputs", "names"),
    [
        ("y = ArgMax <axis = 1> (h)", "int64[n, 1] y", {"y"}),
        ("y = Cast <to = 7> (h)", "int64[n, k] y", {"y"}),
        ("s = Constant <value = float {0.1}> ()  y = QuantizeLinear (h, s)", "uint8[n, k] y", {"y"}),
        ("i = ArgMax <axis = 1> (h)  f = Cast <to = 1> (i)  y = Neg (f)", "float[n, 1] y", {"i", "f", "y"}),
        ("i = ArgMax <axis = 1> (h)  y = Shape (i)", "int64[2] y", {"i"}),
        ("y = IsNaN (h)", "bool[n, k] y", set()),
        ("y = Greater (h, x)", "bool[n, k] y", set()),
        ("y = Shape (h)", "int64[2] y", set()),
        ("y = Cast <to = 9> (h)", "bool[n, k] y", set()),
        ("y = Cast <to = 17> (h)", "float8e4m3fn[n, k] y", set()),
        ("y = Neg (h)", "float[n, k] y", set()),
    ],
)
def test_integers_of_nan_are_undefined_and_so_is_what_depends_on_them(nodes, outputs, names):
    assert undefined(f"{NAN_ROW}  {nodes}", outputs, opset=19).keys() == names
    assert undefined(f"{NAN_ROW}  {nodes}", outputs, x=np.abs(ROW), opset=19) == {}


def test_the_reason_names_the_node_and_where_nan_comes_from():
    reasons = undefined(f"{NAN_ROW}  y = ArgMax <axis = 1> (h)", "int64[n, 1] y")
    assert reasons == {
        "y": "ArgMax:y (ArgMax) makes integers or booleans of NaN, which the standard does not define: Log:h (Log) gives NaN for finite operands"
    }


@pytest.mark.parametrize(("opset", "names"), [(7, {"mask"}), (10, {"mask"}), (12, set()), (13, set())])
def test_the_mask_of_an_old_dropout_is_undefined(opset, names):
    assert undefined("y, mask = Dropout (x)", "float[n, k] y, bool[n, k] mask", opset=opset).keys() == names


def verdicts_of(model, got):
    sample = sample_of({"x": ROW})
    sample.graph = flatten(model, sample.inputs)
    sample.draws = draws(sample.graph, sample.inputs)
    return {name: output_check(sample, 0, name, array) for name, array in got.items()}


def test_an_undefined_output_is_not_judged_and_the_others_are():
    model = made("(float[n, k] x) => (float[n, k] y, bool[n, k] mask) { y, mask = Dropout (x) }", opset=10)
    for value in (False, True):
        verdicts = verdicts_of(model, {"y": ROW + 1, "mask": np.full(ROW.shape, value)})
        assert "before opset 12 the standard does not say" in verdicts["mask"].unjudged
        assert verdicts["mask"].explained
        assert not verdicts["y"].explained


def test_a_node_that_makes_integers_of_nan_is_not_judged_nor_what_depends_on_it_unseen():
    model = made("(float[n, k] x) => (int64[n, 1] y) { h = Log (x)  i = ArgMax <axis = 1> (h)  y = Neg (i) }")
    h, y = np.log(np.where(ROW > 0, ROW, np.nan)), np.int64([[5]])
    judge = Judge(flatten(model, {"x": ROW}), {"x": ROW}, ["h", "y"])
    assert [tensor.tensor for tensor in judge.take({"h": h.astype(np.float32), "y": y})] == ["h"]
    assert [each.node for each in judge.unjudged] == ["ArgMax:i", "Neg:y"]
    assert all("makes integers or booleans of NaN" in each.reason for each in judge.unjudged)


def test_a_node_is_judged_where_the_runtime_gave_it_no_nan():
    model = made("(float[n, k] x) => (int64[n, 1] y) { h = Log (x)  y = ArgMax <axis = 1> (h) }")
    judge = Judge(flatten(model, {"x": ROW}), {"x": ROW}, ["h", "y"])
    *_, tensor = judge.take({"h": np.float32([[0, 1, 2]]), "y": np.int64([[0]])})
    assert (tensor.tensor, tensor.explained) == ("y", False)


def test_a_dropout_is_judged_by_what_it_passes_on():
    model = made("(float[n, k] x) => (float[n, k] y, bool[n, k] mask) { y, mask = Dropout (x) }", opset=10)
    judge = Judge(flatten(model, {"x": ROW}), {"x": ROW}, ["y", "mask"])
    assert [tensor.tensor for tensor in judge.take({"y": ROW, "mask": np.zeros(ROW.shape, bool)})] == ["y"]
    assert judge.unjudged == []
