"""Error bounds of quantization and of products of integers, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

UINT8, INT8, INT32, FLOAT = (getattr(TensorProto, name) for name in ("UINT8", "INT8", "INT32", "FLOAT"))


def _near_ties(scale, count=4000):
    """Numbers whose quotient by the scale is a tie in real numbers, or next to one in float32."""
    ties = ((np.arange(count) % 300 - 150 + 0.5) * scale).astype(np.float32)
    towards = np.where(np.arange(count) % 3 == 0, np.inf, -np.inf).astype(np.float32)
    return np.where(np.arange(count) % 2 == 0, ties, np.nextafter(ties, towards))


@pytest.mark.parametrize("scale", [0.1, 0.0371, 0.25, 1.0])
def test_quantization_may_take_either_side_of_a_tie(node, share, scale):
    x = np.concatenate([_near_ties(np.float32(scale)), np.float32([np.inf, -np.inf, 1e30, 0])])
    inputs = [x, np.array(scale, np.float32), np.array(7, np.uint8)]
    layer = node("QuantizeLinear", output_types=[UINT8])
    (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
    assert share(result, bound) <= 1
    reciprocal = np.clip(np.rint(x * (np.float32(1) / np.float32(scale))) + 7, 0, 255)
    assert share(reciprocal, bound) <= 1
    if scale in {0.25, 1.0}:
        assert bound.error is None
        away = np.clip(np.floor(np.abs(x) / scale + 0.5) * np.sign(x) + 7, 0, 255)
        assert share(away, bound) == np.inf  # halves are rounded to even
    else:
        assert bound.error.max() == 1
        assert (bound.error[-4:] == 0).all()
        random = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
        (bound,) = layer.bounds([random, *inputs[1:]])
        assert bound.error is None or bound.error.mean() < 1e-3


def test_quantization_along_an_axis_and_in_blocks(node, share, passes_on):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 8, 5)).astype(np.float32)
    scales = rng.uniform(0.01, 0.1, 8).astype(np.float32)
    inputs = [x, scales, np.arange(8, dtype=np.int8)]
    layer = node("QuantizeLinear", output_types=[INT8], axis=-2)
    assert share(layer.runtime(inputs)[0], layer.bounds(inputs)[0]) <= 1
    passes_on(layer, inputs)
    scales = rng.uniform(0.01, 0.1, (3, 3, 5)).astype(np.float32)
    inputs = [x, scales, rng.integers(-3, 3, (3, 3, 5), np.int8)]
    blocks = node("QuantizeLinear", output_types=[INT8], opset=21, axis=1, block_size=3)
    assert share(blocks.runtime(inputs)[0], blocks.bounds(inputs)[0]) <= 1
    passes_on(blocks, inputs)
    y = blocks.real(inputs)[0]
    back = node("DequantizeLinear", opset=21, axis=1, block_size=3)
    inputs = [y, scales, inputs[2]]
    (result,), (bound,) = back.runtime(inputs), back.bounds(inputs)
    assert share(result, bound) <= 1
    assert (bound.error <= 3 * 2.0**-24 * np.abs(bound.value)).all()
    passes_on(back, inputs)
    assert share(back.real([y, scales * np.float32(1.0001), inputs[2]])[0], bound) > 100


def test_doubtful_integers_are_in_doubt_behind_them(node):
    x, scale, zero = np.array([3, 9], np.uint8), np.array(0.5), np.array(4, np.uint8)
    (bound,) = node("DequantizeLinear").bounds([x, scale, zero], [np.array([1.0, 0.0]), None, None])
    np.testing.assert_allclose(bound.error, [0.5, 0], atol=1e-6)
    (bound,) = node("DequantizeLinear").bounds([x, scale, zero], [None, None, np.ones(())])
    np.testing.assert_allclose(bound.error, [0.5, 0.5], atol=1e-6)


DYNAMIC = [UINT8, FLOAT, UINT8]


@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0, 0.4])
def test_dynamic_quantization(node, share, shift):
    for seed in range(5):
        x = (np.random.default_rng(seed).standard_normal((40, 50)) + shift).astype(np.float32)
        layer = node("DynamicQuantizeLinear", output_types=DYNAMIC)
        results = layer.runtime([x])
        for observed in ((), results):
            bounds = layer.bounds([x], observed=observed)
            assert max(share(result, bound) for result, bound in zip(results, bounds, strict=True)) <= 1
            assert np.mean(np.zeros(1) if bounds[0].error is None else bounds[0].error) < 2e-3
        scale = results[1] * np.float32(1.001)
        assert share(scale, bounds[1]) > 100
    (_, scale, _), x = layer.real([np.float32([0, 0])]), np.float32([0, 0])
    assert [share(each, bound) for each, bound in zip(layer.runtime([x]), layer.bounds([x]), strict=True)] == [0, 0, 0]


def test_errors_pass_through_dynamic_quantization(node, share):
    x = np.random.default_rng(0).standard_normal(400)
    layer = node("DynamicQuantizeLinear", output_types=DYNAMIC)
    bounds = layer.bounds([x], [np.full(x.shape, 1e-3)])
    for seed in range(8):
        moved = x + 1e-3 * np.random.default_rng(seed).uniform(-1, 1, x.shape)
        assert max(share(result, bound) for result, bound in zip(layer.real([moved]), bounds, strict=True)) <= 1


def test_products_of_integers_are_exact(node, share):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 255, (5, 7), np.uint8), rng.integers(0, 255, (7, 6), np.uint8)
    zeros = [rng.integers(0, 9, 5, np.uint8), rng.integers(0, 9, 6, np.uint8)]
    layer = node("MatMulInteger", output_types=[INT32])
    (bound,) = layer.bounds([a, b, *zeros])
    assert bound.error is None
    wide = (a.astype(int) - zeros[0][:, None]) @ (b.astype(int) - zeros[1])
    assert share(wide, bound) == 0
    assert share(wide + np.eye(5, 6), bound) == np.inf
    single = [a, b, np.array(zeros[0][0]), zeros[1]]
    assert share(layer.runtime(single)[0], layer.bounds(single)[0]) == 0
    (doubtful,) = layer.bounds([a, b, *zeros], [np.ones(a.shape), None, None, np.ones(6)])
    moved = [np.minimum(a, 254) + np.uint8(1), b, zeros[0], zeros[1] + np.uint8(1)]
    assert 0.3 < share(layer.real(moved)[0], doubtful) <= 1


def test_convolutions_of_integers_are_exact(node, share):
    rng = np.random.default_rng(0)
    x, kernel = rng.integers(0, 255, (1, 3, 6, 6), np.uint8), rng.integers(0, 127, (4, 3, 3, 3), np.uint8)
    inputs = [x, kernel, np.array(7, np.uint8), np.array(64, np.uint8)]
    layer = node("ConvInteger", output_types=[INT32], pads=[1, 1, 1, 1])
    (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
    assert bound.error is None
    assert share(result, bound) == 0
    (bound,) = layer.bounds(inputs, [np.ones(x.shape), None, np.ones(()), None])
    moved = [np.minimum(x, 254) + np.uint8(1), kernel, np.array(6, np.uint8), inputs[3]]
    assert 0.1 < share(layer.real(moved)[0], bound) <= 1


def _quantized_matmul(rng):
    a, b = rng.integers(0, 255, (9, 16), np.uint8), rng.integers(0, 255, (16, 40), np.uint8)
    scales = [np.array(scale, np.float32) for scale in (0.02, 0.03, 0.13)]
    zeros = [np.array(zero, np.uint8) for zero in (120, 128, 100)]
    return [a, scales[0], zeros[0], b, scales[1], zeros[1], scales[2], zeros[2]]


def test_quantized_matrix_products(node, share):
    layer = node("QLinearMatMul", output_types=[UINT8])
    for seed in range(4):
        inputs = _quantized_matmul(np.random.default_rng(seed))
        (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
        assert share(result, bound) <= 1
        assert bound.error is None or bound.error.mean() < 0.02
        inputs[4] = inputs[4] * np.float32(1.01)
        assert share(layer.real(inputs)[0], bound) == np.inf


def test_quantized_products_by_powers_of_two_have_exact_ties(node):
    inputs = _quantized_matmul(np.random.default_rng(0))
    for place, scale in ((1, 0.25), (4, 0.5), (6, 2.0)):
        inputs[place] = np.array(scale, np.float32)
    (bound,) = node("QLinearMatMul", output_types=[UINT8]).bounds(inputs)
    assert bound.error is None


def test_quantized_convolutions(node, share):
    rng = np.random.default_rng(0)
    # weights of 7 bits: without VNNI, AVX2 saturates the sum of two products of 8 bits at 32767
    x, kernel = rng.integers(0, 255, (1, 6, 9, 9), np.uint8), rng.integers(-63, 64, (4, 6, 3, 3), np.int8)
    scales = [np.array(0.02, np.float32), rng.uniform(0.001, 0.01, 4).astype(np.float32), np.array(0.05, np.float32)]
    zeros = [np.array(128, np.uint8), np.zeros(4, np.int8), np.array(100, np.uint8)]
    bias = rng.integers(-2000, 2000, 4, np.int32)
    inputs = [x, scales[0], zeros[0], kernel, scales[1], zeros[1], scales[2], zeros[2], bias]
    layer = node("QLinearConv", output_types=[UINT8], pads=[1, 1, 1, 1])
    (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
    assert share(result, bound) <= 1
    assert bound.error is None or bound.error.mean() < 0.02
    (doubtful,) = layer.bounds(inputs, [np.ones(x.shape), *[None] * 8])
    inputs[0] = np.where(x < 255, x + 1, x - 1).astype(np.uint8)
    assert 0.1 < share(layer.real(inputs)[0], doubtful) <= 1
    inputs[8] = None
    (bound,) = node("QLinearConv", output_types=[UINT8], pads=[1, 1, 1, 1]).bounds(inputs)
    assert share(result, bound) == np.inf
