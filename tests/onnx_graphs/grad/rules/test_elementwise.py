"""Gradients of arithmetic, functions of one element, choices and casts against torch's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from actconform.errors import UnsupportedOperator
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.grad.reverse_mode import add_gradients

torch = pytest.importorskip("torch")


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def between(low, high, *shape):
    return np.random.default_rng(2).uniform(low, high, shape)


FUNCTIONS = {
    "Neg": (torch.neg, normal(2, 5)),
    "Abs": (torch.abs, np.array([-2.0, -0.5, 0.0, 0.5, 2.0])),
    "Exp": (torch.exp, normal(2, 5)),
    "Log": (torch.log, between(0.1, 5, 7)),
    "Sqrt": (torch.sqrt, between(0.1, 5, 7)),
    "Reciprocal": (torch.reciprocal, between(0.5, 5, 7)),
    "Sin": (torch.sin, normal(2, 5)),
    "Cos": (torch.cos, normal(2, 5)),
    "Tan": (torch.tan, between(-1, 1, 7)),
    "Asin": (torch.asin, between(-0.9, 0.9, 7)),
    "Acos": (torch.acos, between(-0.9, 0.9, 7)),
    "Atan": (torch.atan, normal(2, 5)),
    "Sinh": (torch.sinh, normal(2, 5)),
    "Cosh": (torch.cosh, normal(2, 5)),
    "Asinh": (torch.asinh, normal(2, 5)),
    "Acosh": (torch.acosh, between(1.1, 5, 7)),
    "Atanh": (torch.atanh, between(-0.9, 0.9, 7)),
    "Erf": (torch.erf, normal(2, 5)),
    "Identity": (lambda x: x * 1, normal(2, 5)),
}
BROADCASTS = [((3,), (3,)), ((2, 3), (3,)), ((), (2, 3)), ((2, 1, 4), (5, 1)), ((1,), (2, 2)), ((1, 3), (2, 3))]


@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_function_of_one_element(agrees, op_type):
    function, x = FUNCTIONS[op_type]
    agrees(op_type, [x], function)


@pytest.mark.parametrize("free", [(), (0,), (0, 1, 2)], ids=["static", "batch", "all"])
@pytest.mark.parametrize("shapes", BROADCASTS, ids=str)
@pytest.mark.parametrize(
    ("op_type", "function"), [("Add", torch.add), ("Sub", torch.sub), ("Mul", torch.mul), ("Div", torch.div)]
)
def test_arithmetic_sums_over_what_was_broadcast(agrees, op_type, function, shapes, free):
    a, c = normal(*shapes[0]), 2.0 + normal(*shapes[1], seed=3) ** 2
    agrees(op_type, [a, c], function, free={0: free, 1: free})


@pytest.mark.parametrize(("op_type", "function"), [("Sum", sum), ("Mean", lambda xs: sum(xs) / len(xs))])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_sum_and_mean_of_several(agrees, op_type, function, count):
    shapes = [(2, 3), (3,), (2, 1), ()][:count]
    agrees(op_type, [normal(*shape) for shape in shapes], lambda *xs: function(xs) * 1)


@pytest.mark.parametrize(("op_type", "function"), [("Max", torch.maximum), ("Min", torch.minimum)])
def test_extremum_of_two_shares_ties(agrees, op_type, function):
    a = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 5.0]])
    agrees(op_type, [a, np.array([1.0, 3.0, 2.0])], function)


def test_extremum_of_three_gives_each_its_own(agrees):
    shapes = [(2, 3), (3,), ()]
    agrees("Max", [normal(*s, seed=i) for i, s in enumerate(shapes)], lambda a, b, c: a.maximum(b).maximum(c))


def test_a_square_is_no_product_of_two(agrees):
    node = [helper.make_node("Mul", ["x", "x"], ["y"])]
    got = _run(node, {"x": np.array([3.0, -1.0])}, {"y": np.array([1.0, 2.0])})
    np.testing.assert_allclose(got["d_x"], [6.0, -4.0])


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([-2.0, -1.0, 0.5, 1.0, 2.0, 3.0, 2.5]), st.booleans())
def test_power_of_a_known_exponent(agrees, setting, exponent, positive):
    x = between(0.5, 3, 4) if positive or exponent % 1 else normal(4)
    agrees("Pow", [x, setting(exponent, np.float64)], lambda x, _: x**exponent, runs=False)


def test_power_with_gradients_of_both(agrees):
    agrees("Pow", [between(0.5, 3, 2, 4), normal(4)], torch.pow)


def test_power_at_zero(agrees):
    with np.errstate(divide="ignore", invalid="ignore"):
        agrees("Pow", [np.array([0.0, 0.0, 0.0]), np.array([2.0, 1.0, 0.0])], torch.pow)


def test_power_of_integers_rounds_nothing():
    node = [helper.make_node("Pow", ["x", "e"], ["y"])]
    got = _run(node, {"x": np.array([3.0, -2.0]), "e": np.array([2, 3])}, {"y": np.ones(2)}, ["x"])
    np.testing.assert_array_equal(got["d_x"], [6.0, 12.0])


def test_remainder(agrees):
    a, c = np.array([5.3, -5.3, 7.0, -0.2]), np.array([2.0, 2.0, -3.0, 1.5])
    agrees("Mod", [a, c], torch.fmod, fmod=1)


CLIP_X = np.array([-3.0, -1.0, 0.0, 1.0, 3.0, 2.0])


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (None, 1.0), (-1.0, None), (2.5, -2.5)])
def test_clip_by_numbers(agrees, setting, low, high):
    bounds = [None if each is None else setting(each, np.float64) for each in (low, high)]
    # torch also lets the cotangent pass at the bounds
    agrees("Clip", [CLIP_X, *bounds], lambda x, *_: x.clamp(low, high), runs=False)


def test_clip_gives_bounds_their_gradient(agrees):
    agrees("Clip", [CLIP_X + 0.1, np.array(-1.0), np.array(1.0)], torch.clamp)


def test_crossed_bounds_give_the_upper_one_everything(agrees):
    agrees("Clip", [CLIP_X + 0.1, np.array(1.5), np.array(-1.5)], torch.clamp)


def test_where_parts_the_cotangent(agrees):
    condition = np.array([[True], [False]])
    agrees(
        "Where",
        [condition, normal(2, 3), normal(3)],
        lambda c, a, b: torch.where(torch.tensor(c), a, b),
    )


@pytest.mark.parametrize("unselected", ["Exp", "Log", "Sqrt", "Reciprocal", "Acosh"])
def test_a_branch_not_taken_makes_no_nan(unselected):
    """At these x each function or its derivative is infinite or NaN; its branch is not the one taken."""
    x = {"Exp": 1000.0, "Log": 0.0, "Sqrt": 0.0, "Reciprocal": 0.0, "Acosh": -3.0}[unselected]
    nodes = [
        helper.make_node(unselected, ["x"], ["inner"]),
        helper.make_node("Mul", ["inner", "inner"], ["wild"]),
        helper.make_node("Where", ["c", "x", "wild"], ["y"]),
    ]
    with np.errstate(all="ignore"):
        got = _run(nodes, {"x": np.array([x]), "c": np.array([True])}, {"y": np.array([2.0])}, ["x"])
    np.testing.assert_array_equal(got["d_x"], [2.0])


def test_a_minimum_with_infinity_makes_no_nan():
    """elu as max(x, 0) + min(exp(x) - 1, 0) at x = 1000."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Sub", ["e", "one"], ["m"]),
        helper.make_node("Min", ["m", "zero"], ["y"]),
    ]
    constants = {"one": np.array(1.0), "zero": np.array(0.0)}
    with np.errstate(all="ignore"):
        got = _run(nodes, {"x": np.array([1000.0]), **constants}, {"y": np.array([1.0])}, ["x"])
    np.testing.assert_array_equal(got["d_x"], [0.0])


@pytest.mark.parametrize(("source", "target"), [("FLOAT16", "FLOAT"), ("FLOAT", "BFLOAT16"), ("DOUBLE", "FLOAT")])
def test_cast_between_floats_casts_back(graph_of, source, target):
    numpy = {"FLOAT16": np.float16, "FLOAT": np.float32, "DOUBLE": np.float64}[source]
    cast = helper.make_node("Cast", ["x"], ["y"], to=getattr(TensorProto, target))
    values = helper.make_tensor_value_info("x", getattr(TensorProto, source), [2])
    result = helper.make_tensor_value_info("y", getattr(TensorProto, target), [2])
    graph = helper.make_graph([cast], "g", [values], [result])
    model = add_gradients(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), ["x"])
    cotangent = np.array([1.0, -2.0]).astype(helper.tensor_dtype_to_np_dtype(getattr(TensorProto, target)))
    got = reference(model.SerializeToString())({"x": np.zeros(2, numpy), "ct_y": cotangent})["d_x"]
    assert got.dtype == numpy
    np.testing.assert_array_equal(got, [1.0, -2.0])


def test_no_derivative_passes_a_cast_to_integers():
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["f", "x"], ["y"]),
    ]
    got = _run(nodes, {"x": np.array([2.5, -1.5])}, {"y": np.ones(2)})
    np.testing.assert_array_equal(got["d_x"], [2.0, -1.0])


def test_dropout_in_inference_passes_and_in_training_needs_its_mask():
    def model(outputs):
        return [
            helper.make_node("Constant", [], ["training"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])),
            helper.make_node("Dropout", ["x", "ratio", "training"], outputs, seed=1),
        ]

    alone = [helper.make_node("Dropout", ["x"], ["y"])]
    np.testing.assert_array_equal(_run(alone, {"x": np.ones(4)}, {"y": np.arange(4.0)})["d_x"], np.arange(4.0))
    with pytest.raises(UnsupportedOperator, match=r"Dropout .* needs its mask"):
        _model(model(["y"]), {"x": np.ones(8), "ratio": np.array(0.5)}, ["y"], ["x"])
    feeds = {"x": np.arange(1.0, 9.0), "ratio": np.array(0.5)}
    got = _run(model(["y", "mask"]), feeds, {"y": np.ones(8)}, ["x"])
    np.testing.assert_array_equal(got["d_x"], got["y"] / feeds["x"])


def _model(nodes, feeds, outputs, wrt, opset=18):
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n"]) for name in outputs]
    graph = helper.make_graph(nodes, "g", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return add_gradients(model, wrt, outputs)


def _run(nodes, feeds, cotangents, wrt=None):
    model = _model(nodes, feeds, list(cotangents), wrt or list(feeds))
    return reference(model.SerializeToString())(feeds | {f"ct_{name}": each for name, each in cotangents.items()})
