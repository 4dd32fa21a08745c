"""Error bounds of operators on signals, against ONNX Runtime and NumPy in float32."""

from __future__ import annotations

import numpy as np
import pytest

LENGTHS = (8, 7, 64, 100, 401, 1024)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("attributes", [{}, {"inverse": 1}, {"onesided": 1}], ids=str)
def test_transforms(node, share, passes_on, n, attributes):
    rng = np.random.default_rng(0)
    for shift in (0, 10):
        parts = 1 if attributes == {"onesided": 1} else 2
        x = (rng.standard_normal((2, n, parts)) + shift).astype(np.float32)
        transform = node("DFT", 3, left_out=[1], **attributes)
        inputs = [x, None, np.array(1)]
        assert share(transform.runtime(inputs)[0], transform.bounds(inputs)[0]) <= 1
        passes_on(transform, inputs, draws=2)
    older = node("DFT", 2, opset=17, axis=1, **attributes)
    inputs = [x, np.array(n - 2)]
    assert share(older.runtime(inputs)[0], older.bounds(inputs)[0]) <= 1


@pytest.mark.parametrize("n", LENGTHS)
def test_direct_sums_in_float32_are_within(node, share, n):
    x = np.random.default_rng(0).standard_normal((1, n, 1)).astype(np.float32)
    times = np.arange(n, dtype=np.float32)
    reduced = times[:, None] * times % n if n & (n - 1) == 0 else times[:, None] * times
    angles = (np.float32(-2 * np.pi) / np.float32(n)) * reduced
    matrix = np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)
    y = np.cumsum(matrix * x[0][:, :, None], axis=0, dtype=np.float32)[-1]
    (bound,) = node("DFT", 3, left_out=[1]).bounds([x, None, np.array(1)])
    assert share(y[None], bound) <= 1
    forward = node("DFT", 3, left_out=[1]).real([x, None, np.array(1)])[0]
    assert share(forward * [1, -1], bound) > 100
    half = node("DFT", 3, left_out=[1]).real([x.astype(np.float16), None, np.array(1)])[0]
    assert share(half, bound) > (1 if n & (n - 1) == 0 else 0)
