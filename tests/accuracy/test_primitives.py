"""The truth of primitives against Arb's balls, and the inputs that are asked."""

from __future__ import annotations

import flint
import numpy as np
import pytest

from actconform.accuracy.points import everything, inputs, partners
from actconform.accuracy.primitives import PRIMITIVES
from actconform.tolerance.ulp import ulp_of
from actconform.types.dtypes import DTYPES

EXACT = {
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.expm1(),
    "log": lambda x: x.log(),
    "log1p": lambda x: x.log1p(),
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "erf": lambda x: x.erf(),
    "erfc": lambda x: x.erfc(),
    "erf_gelu": lambda x: (x / flint.arb(2).sqrt()).erf(),
    "softplus": lambda x: x.exp().log1p(),
    "sqrt": lambda x: x.sqrt(),
    "rsqrt": lambda x: 1 / x.sqrt(),
    "reciprocal": lambda x: 1 / x,
    "division": lambda x, z: x / z,
}
F32 = DTYPES["f32"]
BITS = 600  # 1 + exp(-x) keeps exp(-104), and tanh its smallest arguments


def sample(count: int) -> np.ndarray:
    """Some of the points that are asked, without NaN and infinities."""
    asked = inputs("f32", 20_000)
    return np.random.default_rng(5).choice(asked[np.isfinite(asked)], count).astype(np.float64)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_truth_is_good_to_a_thousandth_of_a_step_of_float32(name: str):
    primitive = PRIMITIVES[name]
    operands = [sample(600)] if primitive.operands == 1 else [sample(600), sample(600)[::-1].copy()]
    with np.errstate(all="ignore"):
        truth = primitive.truth(*operands)
    old, flint.ctx.prec = flint.ctx.prec, BITS
    try:
        held = 0
        for got, *given in zip(truth, *operands, strict=True):
            if abs(got) < F32.overflow and abs(given[0]) < 1e5:  # beyond, exp is 0 or infinite, and balls are huge
                exact = EXACT[name](*map(flint.arb, given))
                error = abs(flint.arb(float(got)) - exact)
                assert error < 1e-3 * float(ulp_of(np.array([got]), F32)[0]), (name, given)
                held += 1
    finally:
        flint.ctx.prec = old
    assert held > 100


def test_float32_points_are_in_every_binade_of_both_signs():
    x = inputs("f32", 100_000)
    bits = np.unique(x.view(np.uint32) >> 23)
    assert bits.size == 512
    assert abs(x.size - 100_000) < 5_000
    for trouble in (0x7F800000, 0x80000000, 0x80000001, 0x3F800000, 0x42B17218, 0x7F7FFFFF, 0x00800000, 0x007FFFFF):
        assert np.any(x.view(np.uint32) == trouble), hex(trouble)
    assert np.array_equal(x.view(np.uint32), inputs("f32", 100_000).view(np.uint32))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_sixteen_bits_are_asked_at_every_pattern(dtype: str):
    assert np.unique(inputs(dtype).view(np.uint16)).size == 1 << 16
    (whole,) = everything(dtype)
    assert whole.size == 1 << 16


def test_every_float32_is_in_one_chunk_of_everything():
    chunks = everything("f32")
    first, second = next(chunks).view(np.uint32), next(chunks).view(np.uint32)
    assert first[0] == 0
    assert np.all(np.diff(first) == 1)
    assert second[0] == first[-1] + 1
    assert (1 << 32) % first.size == 0


def test_half_of_the_second_operands_are_near_the_first():
    x = np.linspace(1.0, 1e6, 1000, dtype=np.float32)
    ratio = partners(x) / x
    assert np.all((ratio[::2] > 0.2) & (ratio[::2] < 4.1))
    assert ratio[1::2].min() < 0.01
