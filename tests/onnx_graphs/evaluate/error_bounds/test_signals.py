"""Error bounds of operators on signals, against ONNX Runtime and NumPy in float32."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

LENGTHS = (8, 7, 64, 100, 401, 1024)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("attributes", [{}, {"inverse": 1}, {"onesided": 1}], ids=str)
def test_transforms(node, share, passes_on, n, attributes):
    rng = np.random.default_rng(0)
    for shift in (0, 10):
        parts = 1 if attributes == {"onesided": 1} else 2
        x = (rng.standard_normal((2, n, parts)) + shift).astype(np.float32)
        transform = node("DFT", **attributes)
        inputs = [x, None, np.array(1)]
        (bound,) = transform.bounds(inputs)
        assert share(transform.runtime(inputs)[0], bound) <= 1
        assert bound.error.max() < 3e-3 * np.abs(bound.value).max()
        passes_on(transform, inputs, draws=2)
    older = node("DFT", opset=17, axis=1, **attributes)
    inputs = [x, np.array(n - 2)]
    assert share(older.runtime(inputs)[0], older.bounds(inputs)[0]) <= 1


@pytest.mark.parametrize("n", LENGTHS)
def test_direct_sums_in_float32_are_within(node, share, n):
    x = np.full((1, n, 1), 0.1, np.float32)  # whose roundings add up
    times = np.arange(n, dtype=np.float32)
    reduced = times[:, None] * times % n if n & (n - 1) == 0 else times[:, None] * times
    angles = (np.float32(-2 * np.pi) / np.float32(n)) * reduced
    matrix = np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)
    y = np.cumsum(matrix * x[0][:, :, None], axis=0, dtype=np.float32)[-1]
    (bound,) = node("DFT").bounds([x, None, np.array(1)])
    assert share(y[None], bound) <= 1


@pytest.mark.parametrize("n", LENGTHS)
def test_faults_of_transforms_exceed_the_bound(node, share, n):
    inputs = [np.random.default_rng(0).standard_normal((1, n, 1)).astype(np.float32), None, np.array(1)]
    transform = node("DFT")
    (bound,) = transform.bounds(inputs)
    assert share(transform.real(inputs)[0] * [1, -1], bound) > 100
    half = transform.real([inputs[0].astype(np.float16), *inputs[1:]])[0]
    assert share(half, bound) > (1 if n & (n - 1) == 0 else 0)


@pytest.mark.parametrize("n", [16, 25])
@pytest.mark.parametrize("onesided", [0, 1])
def test_short_time_transforms(node, share, passes_on, n, onesided):
    x = np.random.default_rng(0).standard_normal((2, 100, 1)).astype(np.float32)
    inputs = [x, np.array(5), np.hanning(n).astype(np.float32), np.array(n)]
    transform = node("STFT", onesided=onesided)
    (bound,) = transform.bounds(inputs)
    assert share(transform.runtime(inputs)[0], bound) <= 1
    passes_on(transform, inputs)
    assert share(transform.real([*inputs[:2], np.hamming(n), inputs[3]])[0], bound) > 100


@pytest.mark.parametrize("op_type", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(node, share, op_type, periodic):
    window = node(op_type, periodic=periodic)
    for n in (8, 25, 400, 1024):
        inputs = [np.array(n)]
        (bound,) = window.bounds(inputs)
        assert share(window.runtime(inputs)[0], bound) <= 1
        assert share(node(op_type, periodic=1 - periodic).real(inputs)[0], bound) > 100
    half = node(op_type, periodic=periodic, output_datatype=TensorProto.FLOAT16, output_types=[TensorProto.FLOAT16])
    (bound,) = half.bounds(inputs)
    assert share(bound.value.astype(np.float16), bound) <= 1


@pytest.mark.parametrize(
    ("bins", "n", "rate", "low", "high"),
    [(8, 16, 8192, 0, 4096), (40, 512, 16000, 20, 8000), (80, 400, 22050, 0, 8000)],
)
def test_mel_weights(node, share, bins, n, rate, low, high):
    inputs = [np.array(bins), np.array(n), np.array(rate), np.array(low, np.float32), np.array(high, np.float32)]
    matrix = node("MelWeightMatrix")
    (bound,) = matrix.bounds(inputs)
    assert share(matrix.runtime(inputs)[0], bound) <= 1
    assert np.mean(bound.error > 1e-3) < 0.02
    inputs[4] = inputs[4] * np.float32(0.9)
    assert share(matrix.real(inputs)[0], bound) > 1e3
