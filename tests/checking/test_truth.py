"""The flat graph in float64, and how far it moves where every tensor is off by one rounding."""

from __future__ import annotations

import weakref

import ml_dtypes
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_models import ENCODER, FLOW, LSTM, MODELS, QUANTIZED, STEPS, TOKENS, flow, made, numbers

from actconform.checking import truth as truth_module
from actconform.checking.flatten import flatten
from actconform.checking.truth import DRAWS, RoundingDraw, draws, evaluated

UNIT = 2.0**-24


def spread(model, inputs, output="y", count=32):
    graph = flatten(model, inputs)
    moved = np.stack([draw[output] - graph.truth[output] for draw in draws(graph, inputs, count)])
    return np.sqrt(np.mean(moved**2, axis=0)), graph.truth[output]


@pytest.mark.parametrize("name", MODELS)
def test_evaluating_the_flat_graph_gives_the_truth_again(name):
    model, inputs = MODELS[name]
    graph = flatten(model, inputs)
    again = evaluated(graph, inputs)
    assert again.keys() == graph.truth.keys()
    for output, array in again.items():
        np.testing.assert_array_equal(array, graph.truth[output])


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_floats_of_8_bits_are_quantized_once_and_come_back_as_they_are_stored(kind):
    nodes = (
        "q = QuantizeLinear (x, s, z)  a = DequantizeLinear (q, s, z)  b = DequantizeLinear (w, s, z)  y = Mul (a, b)"
    )
    model = made(f"(float[n, 8] x) => (float[n, 8] y) {{ {nodes} }}", {"s": np.float32(0.0625)}, opset=19)
    element_type, weights = TensorProto.DataType.Value(kind.replace("_", "").upper()), [1, -2, 0.5, 3, 0, 0.25, -7, 4]
    model.graph.initializer.append(helper.make_tensor("z", element_type, [], [0.0]))
    model.graph.initializer.append(helper.make_tensor("w", element_type, [8], weights))
    x = numbers(1, 4, 8, scale=3)
    graph = flatten(model, {"x": x})
    stored = (x / 0.0625).astype(getattr(ml_dtypes, kind)).astype(np.float64)
    np.testing.assert_array_equal(graph.truth["y"], stored * weights / 256)
    for draw in draws(graph, {"x": x}, 4):
        np.testing.assert_allclose(draw["y"], graph.truth["y"], rtol=8 * UNIT)


def test_the_truth_of_an_encoder_is_torchs_in_float64():
    constants = {
        tensor.name: torch.tensor(numpy_helper.to_array(tensor).astype(np.float64))
        for tensor in ENCODER.graph.initializer
    }
    a = torch.tensor(TOKENS["x"].astype(np.float64)) @ constants["w"] + constants["bias"]
    scaled = torch.nn.functional.layer_norm(a, (8,), constants["scale"], eps=float(constants["epsilon"]))
    root = float(constants["root"])
    gelu = 0.5 * scaled * (1 + torch.erf(scaled / root))
    l = torch.nn.functional.layer_norm(gelu, (8,), constants["scale"], constants["shift"], eps=float(np.float32(1e-5)))  # noqa: E741
    y = torch.softmax(torch.tanh(l) @ constants["o_w"] + constants["o_b"], -1)
    np.testing.assert_allclose(flatten(ENCODER, TOKENS).truth["y"], y.numpy(), rtol=1e-12)


def test_draws_are_the_same_in_every_run_and_differ_among_each_other():
    graph = flatten(LSTM, STEPS)
    first, second = draws(graph, STEPS), draws(graph, STEPS)
    assert len(first) == DRAWS
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one["y"], two["y"])
    assert len({draw["y"].tobytes() for draw in first}) == DRAWS


def test_a_draw_moves_by_about_a_rounding_and_the_truth_stays_where_it_is():
    rms, y = spread(made("(float[n] x) => (float[n] y) { y = Exp (x) }"), {"x": numbers(1, 200)})
    x = np.abs(numbers(1, 200).astype(np.float64))
    expected = np.abs(y) * UNIT * np.sqrt(1 + x**2)  # its own rounding, and that of its argument
    np.testing.assert_allclose(rms, expected, rtol=1.0)
    assert 0.8 < np.mean(rms / expected) < 1.2


def test_what_is_exact_does_not_move():
    moving = made("(float[n, 4] x) => (float[n, 4] y) { y = Neg (x) }")
    rms, _ = spread(moving, {"x": np.float32([[1, 2, 3, 4]])})
    assert not rms.any()  # integers held in floats
    chooses = made("(float[n] x) => (int64[n] y) { f = Floor (x)  y = Cast <to = 7> (f) }")
    graph = flatten(chooses, {"x": np.float32([1, 2, 3])})
    assert all(draw["y"].tolist() == [1, 2, 3] for draw in draws(graph, {"x": np.float32([1, 2, 3])}))
    squares = made("(float[n] x) => (float[n] y) { y = Pow (x, two) }", {"two": np.float32(2)})
    rms, y = spread(squares, {"x": np.float32([0.5, 1.5])})
    assert (rms < 8 * UNIT * y).all()  # an exponent that moved would make more of it, and NaN of negative numbers
    rms, _ = spread(squares, {"x": np.float32([-0.7, -1.3])})
    assert np.isfinite(rms).all()


def test_scales_that_say_how_large_an_output_is_do_not_move():
    model = made(
        '(float[1, 1, 3] x) => (float[1, 1, 5] y) { y = Resize <mode = "nearest"> (x, , scales) }',
        {"scales": np.float32([1, 1, 1.7])},
    )
    graph = flatten(model, {"x": numbers(1, 1, 1, 3)})
    assert {draw["y"].shape for draw in draws(graph, {"x": numbers(1, 1, 1, 3)})} == {(1, 1, 5)}


def test_a_weight_that_is_read_twice_is_moved_once():
    model = made(
        "(float[8] x) => (float[8] y) { a = Identity (w)  b = Identity (w)  y = Sub (a, b) }", {"w": numbers(1, 8)}
    )
    rms, _ = spread(model, {"x": numbers(2, 8)})
    assert not rms.any()


def test_cancellation_is_seen():
    model = made("(float[n] x) => (float[n] y) { a = Add (x, big)  y = Sub (a, big) }", {"big": np.float32(1000.5)})
    rms, y = spread(model, {"x": np.float32([0.25, 0.125])})
    assert (rms > 100 * UNIT * y).all()


def test_a_function_of_scale_one_moves_by_a_rounding_of_one():
    model = made("(float[n] x) => (float[n] y) { y = Sigmoid (x) }")
    rms, y = spread(model, {"x": np.float32([-20.0])})
    assert y < 1e-8
    assert 0.2 * UNIT < rms[0] < 2 * UNIT


def test_sums_move_by_the_root_of_their_terms():
    short = made("(float[n, k] x, float[k, 1] w) => (float[n, 1] y) { y = MatMul (x, w) }")
    ratios = []
    for terms in (4, 1024):
        x = np.ones((16, terms), np.float32) + numbers(1, 16, terms, scale=0.01)
        w = np.ones((terms, 1), np.float32) + numbers(2, terms, 1, scale=0.01)
        rms, y = spread(short, {"x": x, "w": w})
        ratios.append(np.mean(rms / np.abs(y)) / UNIT)
    assert 10 < ratios[1] / ratios[0] < 25  # 16 in the mean


def test_a_shape_that_rounding_decides_makes_a_draw_without_outputs():
    model = made(
        "(float[n] x) => (float[m] y) { s = ReduceSum <keepdims = 1> (x)  f = Mul (s, tenth)  c = Ceil (f)  i = Cast <to = 7> (c)"
        "  e = ConstantOfShape (i)  y = Add (e, three) }",
        {"tenth": np.float32(0.1), "three": np.zeros(3, np.float32)},
    )
    inputs = {"x": np.float32([9.999999, 10, 10])}
    graph = flatten(model, inputs)
    assert graph.truth["y"].shape == (3,)
    moved = draws(graph, inputs, 16)
    assert {len(draw) for draw in moved} == {0, 1}


def test_tensors_are_freed_after_their_last_reader(monkeypatch):
    """At no time are more than a few of a long chain's tensors there."""
    alive: list[weakref.ref] = []
    most = 0
    outputs = truth_module.node_outputs

    def counted(node, by, inputs):
        nonlocal most
        results = outputs(node, by, inputs)
        alive.extend(weakref.ref(array) for array in results)
        most = max(most, sum(reference() is not None for reference in alive))
        return results

    monkeypatch.setattr(truth_module, "node_outputs", counted)
    chain = "  ".join(f"t{i + 1} = Tanh (t{i})" for i in range(20))
    model = made(f"(float[n] x) => (float[n] y) {{ t0 = Exp (x)  {chain}  y = Neg (t20) }}")
    graph = flatten(model, {"x": numbers(1, 4)})
    evaluated(graph, {"x": numbers(1, 4)})
    assert len(alive) == 22
    assert most <= 3


def test_control_flow_and_quantized_models_have_draws_of_the_same_shapes():
    for model, inputs in ((FLOW, flow()), (QUANTIZED, TOKENS)):
        graph = flatten(model, inputs)
        for draw in draws(graph, inputs, 2):
            assert {name: array.shape for name, array in draw.items()} == {
                name: array.shape for name, array in graph.truth.items()
            }


def test_one_draw_object_moves_an_input_alike_each_time():
    graph = flatten(ENCODER, TOKENS)
    draw = RoundingDraw(graph, 3)
    x = TOKENS["x"].astype(np.float64)
    first, second = draw.data("x", x, 1), draw.data("x", x, 1)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(np.abs(first - x), np.abs(x) * UNIT, rtol=1e-6)


def test_results_in_double_are_moved_though_the_truth_is_in_double_too():
    model = made("(double[n] x) => (double[n] y) { y = Exp (x) }")
    rms, y = spread(model, {"x": np.float64([1, 2, 3])})
    assert (rms > 0).all()
    assert (rms < 2.0**-51 * y).all()
