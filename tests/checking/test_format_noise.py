"""Draws of a format's rounding: as large as its rounding is, exact where nothing rounds, and at both ends of its range."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from small_models import FLOW, MODELS, flow, made, numbers

from actconform.checking.flatten import flatten
from actconform.checking.format_noise import RELATIVE, FormatNoise, side_by_side
from actconform.checking.truth import evaluated

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def lanes(graph, count, *, stored):
    return [FormatNoise(graph, seed, stored=stored) for seed in (None, *range(count))]


def moves(model, inputs, output="y", count=32, *, stored=False):
    """Return how far each draw moves an output, and the output."""
    graph = flatten(model, inputs)
    for values in side_by_side(graph, inputs, lanes(graph, count, stored=stored)):
        if output in values.node.outputs:
            own, *draws = (lane[0] for lane in values.results)
            return np.stack(draws) - own, own
    return None


@pytest.mark.parametrize("name", DTYPES)
def test_a_result_moves_as_rounding_to_nearest_moves_numbers_of_all_leading_digits(name):
    x = (2.0 ** np.random.default_rng(1).uniform(-4, 4, 4000)).astype(DTYPES[name])
    model = made(f"({name}[n] x) => ({name}[n] y) {{ y = Div (x, seven) }}", {"seven": np.asarray(7, DTYPES[name])})
    by, y = moves(model, {"x": x}, count=4)
    rounded = y.astype(DTYPES[name]).astype(np.float64)
    actual = np.sqrt(np.mean(((rounded - y) / y) ** 2))
    assert np.sqrt(np.mean((by / y) ** 2)) == pytest.approx(actual, rel=0.1)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[name]
    assert actual == pytest.approx(RELATIVE * unit, rel=0.1)


def test_sums_are_rounded_once_however_many_terms_they_have():
    inputs = {"x": numbers(1, 16, 1024).astype(np.float16)}
    model = made(
        "(float16[n, 1024] x) => (float16[n, 8] y) { y = MatMul (x, w) }", {"w": numbers(2, 1024, 8).astype(np.float16)}
    )
    by, y = moves(model, inputs, count=8)
    assert np.sqrt(np.mean((by / y) ** 2)) == pytest.approx(RELATIVE * 2.0**-11, rel=0.1)


def test_weights_move_where_they_were_rounded_and_alike_each_time():
    model = made(
        "(float16[8] x) => (float16[8] y, float16[8] z) { y = Neg (w)  a = Identity (w)  z = Add (a, y) }",
        {"w": numbers(1, 8).astype(np.float16)},
    )
    inputs = {"x": numbers(2, 8).astype(np.float16)}
    by, w = moves(model, inputs, stored=True)
    np.testing.assert_allclose(np.abs(by), np.broadcast_to(RELATIVE * 2.0**-11 * np.abs(w), by.shape), rtol=1e-9)
    assert not moves(model, inputs, "z", stored=True)[0].any()
    assert not moves(model, inputs)[0].any()


def test_integers_stay_where_the_format_has_others_between_them():
    for weight, stays in ((2.0, True), (1000.0, True), (1500.0, False)):
        model = made("(float16[1] x) => (float16[1] y) { y = Neg (w) }", {"w": np.float16([weight])})
        by, _ = moves(model, {"x": np.float16([1])}, stored=True)
        assert (not by.any()) is stays


def test_both_ends_of_the_range():
    inputs = {"x": np.float16([60000, 0.01, 1e-4, 5e-7])}
    model = made("(float16[4] x) => (float16[4] y) { y = Mul (x, f) }", {"f": np.float16([1.5, 1e-6, 0.1, 0.01])})
    graph = flatten(model, inputs)
    ((_, _, results),) = side_by_side(graph, inputs, lanes(graph, 4, stored=False))
    for (draw,) in results[1:]:
        assert np.isinf(draw[0])
        np.testing.assert_array_equal(draw[1:], results[0][0][1:].astype(np.float16).astype(np.float64))
    assert draw[3] == 0 != results[0][0][3]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_quantization_moves_by_its_step_over_the_root_of_12_and_clips(dtype):
    limits = np.iinfo(dtype)
    scale = np.float32([0.5, 0.25])
    model = made(
        "(float[n, 2] x) => (float[n, 2] y) {"
        "  q = QuantizeLinear <axis = 1> (x, s, z)  t = Transpose (q)  u = Transpose (t)  y = DequantizeLinear <axis = 1> (u, s, z) }",
        {"s": scale, "z": np.full(2, limits.min + 100, dtype)},
        opset=21,
    )
    x = numbers(1, 2000, 2, scale=8)
    by, y = moves(model, {"x": x}, count=8)
    np.testing.assert_allclose(y, x, rtol=1e-6)  # quantization is taken out
    np.testing.assert_allclose(np.sqrt(np.mean(by**2, axis=(0, 1))), scale / np.sqrt(12), rtol=0.05)
    top = (float(limits.max) - limits.min - 100) * 0.5
    by, y = moves(model, {"x": np.float32([[top + 40, 0]])}, count=8)
    np.testing.assert_allclose(by[:, 0, 0], -40, atol=0.3)


def test_a_relu_that_a_quantization_does_stays():
    model = made(
        "(float[n] x) => (float[n] y) { q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }",
        {"s": np.float32(0.5), "z": np.uint8(0)},
    )
    _, y = moves(model, {"x": np.float32([-3, 3])}, count=1)
    assert y.tolist() == [0, 3]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "quantized"])
def test_the_first_evaluation_is_the_truth_and_each_tensor_is_told_once(name):
    model, inputs = MODELS[name]
    graph = flatten(model, inputs)
    told = {}
    for values in side_by_side(graph, inputs, lanes(graph, 1, stored=False)):
        told.update(zip(values.node.proto.output, values.results[0], strict=False))
    assert [*told] == [output for node in graph.nodes for output in node.outputs]
    for output, truth in evaluated(graph, inputs).items():
        np.testing.assert_array_equal(told[output], truth)


def test_draws_are_the_same_each_time_and_differ_among_each_other():
    first, again = (moves(FLOW, flow(), "y", 3)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len({draw.tobytes() for draw in first}) == 3
