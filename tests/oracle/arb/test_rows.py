"""Exact rows against decimal and rational arithmetic of the standard library, and the float64 formulas against them."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import scipy.special
from missing_package import take_away
from numpy.testing import assert_allclose, assert_array_equal

from actconform.catalog.kernels import ROWS
from actconform.oracle import truth
from actconform.oracle.arb.rows import exact_rows

KERNELS = {kernel.name: kernel for kernel in ROWS}
LENGTHS = (1, 2, 3, 17, 500)
# float64 units in the last place between formula and truth, over rows of normal numbers times 1, 30 and 1e4 in float32;
# None where terms of a gradient cancel, so that only the absolute error counts (beside the size of the terms)
ULP_LIMITS = {
    ("softmax", "y"): 32,
    ("softmax-axis1", "y"): 64,
    ("softmin", "y"): 32,
    ("log-softmax", "y"): 8,
    ("log-softmax-axis1", "y"): 16,
    ("glu", "y"): 8,
    ("glu", "d_x"): 16,
    ("swiglu", "y"): 8,
    ("swiglu", "d_x"): 16,
    ("geglu", "y"): 16,
    ("geglu", "d_x"): 32,
    ("sparsemax", "y"): None,
}
EXACT = ("prelu", "max", "maxout", "hardmax", "argmax", "reglu")


def drawn(name, rng, n, scale):
    n += n % 2 if name.endswith("glu") or name == "maxout" else 0
    shape = (2, n, 2) if KERNELS[name].axis == 1 else (2, n)
    inputs = {"x": rng.normal(0, scale, shape).astype(np.float32).astype(float)}
    if name == "prelu":
        inputs["slope"] = rng.uniform(-0.5, 0.5, n).astype(np.float32).astype(float)
    g = rng.normal(0, 1, truth(KERNELS[name], inputs)["y"].shape).astype(np.float32).astype(float)
    return inputs, g


def both(name, inputs, g):
    """Yield (tensor, exact, float64 formula) for the value and all gradients."""
    exact, rough = exact_rows(KERNELS[name], inputs, None), truth(KERNELS[name], inputs)
    if KERNELS[name].differentiable:
        exact |= exact_rows(KERNELS[name], inputs, g)
        rough |= truth(KERNELS[name], inputs, {"y": g})
    assert exact.keys() == rough.keys()
    for tensor in exact:
        yield tensor, exact[tensor], rough[tensor]


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_formulas_are_within_their_limits_of_the_exact_values(name, scale):
    rng = np.random.default_rng(7)
    for n in LENGTHS:
        inputs, g = drawn(name, rng, n, scale)
        for tensor, exact, rough in both(name, inputs, g):
            assert exact.shape == rough.shape
            assert exact.dtype == rough.dtype
            if name in EXACT and tensor != "d_slope":
                assert_array_equal(exact, rough)
                continue
            limit = ULP_LIMITS.get((name, tensor))
            counted = np.abs(exact) > 2.0**-1000 if limit else np.ones(exact.shape, bool)
            unit = (
                np.spacing(np.abs(exact)) if limit else np.spacing(max(1.0, np.abs(g).sum(), np.abs(inputs["x"]).max()))
            )
            worst = np.max(np.abs(exact - rough) / unit, where=counted, initial=0)
            assert worst <= (limit or 8), tensor


def decimals(*arrays):
    return [[Decimal(v) for v in array] for array in arrays]


def test_softmaxes_are_correctly_rounded():
    """Decimal's exp and ln are correctly rounded to any number of digits, and float() of a Decimal is, too."""
    rng = np.random.default_rng(8)
    x, g = rng.normal(0, 5, 9), rng.normal(0, 1, 9)
    with localcontext() as context:
        context.prec = 80
        xs, gs = decimals(x, g)
        e = [v.exp() for v in xs]
        total = sum(e)
        mean = sum(v * c for v, c in zip(e, gs, strict=True)) / total
        expected = {
            ("softmax", "y"): [v / total for v in e],
            ("softmax", "d_x"): [v / total * (c - mean) for v, c in zip(e, gs, strict=True)],
            ("log-softmax", "y"): [v - total.ln() for v in xs],
            ("log-softmax", "d_x"): [c - v / total * sum(gs) for v, c in zip(e, gs, strict=True)],
        }
    for (name, tensor), numbers in expected.items():
        assert_array_equal(
            exact_rows(KERNELS[name], {"x": x}, g if tensor == "d_x" else None)[tensor], [float(v) for v in numbers]
        )
        columns = np.stack([x, -x], -1)[None]
        answer = exact_rows(
            KERNELS[f"{name}-axis1"], {"x": columns}, np.stack([g, g], -1)[None] if tensor == "d_x" else None
        )
        assert_array_equal(answer[tensor][0, :, 0], [float(v) for v in numbers])
    assert_array_equal(
        exact_rows(KERNELS["softmin"], {"x": -x}, None)["y"], [float(v) for v in expected["softmax", "y"]]
    )
    assert_array_equal(
        exact_rows(KERNELS["softmin"], {"x": -x}, g)["d_x"], [-float(v) for v in expected["softmax", "d_x"]]
    )


def test_gated_units_are_correctly_rounded():
    rng = np.random.default_rng(9)
    a, b, g = rng.normal(0, 4, (3, 8))
    x = np.concatenate([a, b])
    with localcontext() as context:
        context.prec = 80

        def sigmoid(v):
            return 1 / (1 + (-v).exp())

        da, db, dg = decimals(a, b, g)
        glu = [float(u * sigmoid(v)) for u, v in zip(da, db, strict=True)]
        glu_b = [float(c * u * sigmoid(v) * sigmoid(-v)) for u, v, c in zip(da, db, dg, strict=True)]
        swiglu = [float(u * sigmoid(u) * v) for u, v in zip(da, db, strict=True)]
        swiglu_a = [float(c * v * sigmoid(u) * (1 + u * sigmoid(-u))) for u, v, c in zip(da, db, dg, strict=True)]
    assert_array_equal(exact_rows(KERNELS["glu"], {"x": x}, None)["y"], glu)
    assert_array_equal(exact_rows(KERNELS["glu"], {"x": x}, g)["d_x"][8:], glu_b)
    assert_array_equal(exact_rows(KERNELS["swiglu"], {"x": x}, None)["y"], swiglu)
    assert_array_equal(exact_rows(KERNELS["swiglu"], {"x": x}, g)["d_x"][:8], swiglu_a)
    cdf, density = scipy.special.ndtr(a), np.exp(-a * a / 2) / np.sqrt(2 * np.pi)
    assert_allclose(exact_rows(KERNELS["geglu"], {"x": x}, None)["y"], a * cdf * b, rtol=1e-14)
    expected = np.concatenate([g * b * (cdf + a * density), g * a * cdf])
    assert_allclose(exact_rows(KERNELS["geglu"], {"x": x}, g)["d_x"], expected, rtol=1e-13)


def test_sparsemax_is_correctly_rounded_on_every_possible_support():
    """The true support is the one whose tau separates the row: found by trying all."""
    rng = np.random.default_rng(10)
    for x in rng.normal(0, 0.5, (20, 6)):
        numbers = sorted(map(Fraction, x), reverse=True)
        taus = [(sum(numbers[:k]) - 1) / k for k in range(1, 7)]
        (tau,) = [t for k, t in enumerate(taus, 1) if numbers[k - 1] > t and all(v <= t for v in numbers[k:])]
        expected = [float(max(Fraction(v) - tau, Fraction(0))) for v in x]
        assert_array_equal(exact_rows(KERNELS["sparsemax"], {"x": x}, None)["y"], expected)
        g = rng.normal(0, 1, 6)
        inside = [Fraction(v) > tau for v in x]
        mean = sum(Fraction(c) for c, s in zip(g, inside, strict=True) if s) / sum(inside)
        expected = [float(Fraction(c) - mean) if s else 0.0 for c, s in zip(g, inside, strict=True)]
        assert_array_equal(exact_rows(KERNELS["sparsemax"], {"x": x}, g)["d_x"], expected)


def test_the_slope_gradient_is_summed_without_rounding():
    x, g = np.array([[-1e16, 1.0], [-1.0, -2.0], [-1e16, -3.0]]), np.array([[1.0, 7.0], [1.0, 2.0], [-1.0, 4.0]])
    d = exact_rows(KERNELS["prelu"], {"x": x, "slope": np.array([0.5, 0.5])}, g)
    assert_array_equal(d["d_slope"], [-1.0, -16.0])


def test_what_vanishes_is_zero_and_what_is_tiny_is_not_lost():
    ones = np.ones(5)
    x = np.array([0.0, -1.0, 2.0, 3.0, -4.0])
    assert_array_equal(exact_rows(KERNELS["softmax"], {"x": x}, ones)["d_x"], np.zeros(5))
    assert_array_equal(exact_rows(KERNELS["log-softmax"], {"x": np.array([3e38])}, np.array([2.0]))["d_x"], [0.0])
    y = exact_rows(KERNELS["softmax"], {"x": np.array([3e38, -3e38, 3e38])}, None)["y"]
    assert_array_equal(y, [0.5, 0.0, 0.5])
    y = exact_rows(KERNELS["log-softmax"], {"x": np.array([0.0, -740.0])}, None)["y"]
    assert y[0] == -float(np.exp(-740.0))
    y = exact_rows(KERNELS["geglu"], {"x": np.array([-(2.0**100), 0.0, 2.0**100, 1.0, 2.0, 3.0])}, None)["y"]
    assert_array_equal(y, [-0.0, 0.0, 3 * 2.0**100])
    assert_array_equal(np.signbit(y), [True, False, False])


@pytest.mark.parametrize(
    "row", [[0.0, np.nan, 1.0, 2.0], [-np.inf, 0.5, 1.0, -1.0], [np.inf, 0.0, 1.0, 2.0], [-np.inf] * 4, [np.inf] * 4]
)
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_special_values_are_those_of_the_formulas(name, row):
    inputs = {"x": np.array(row)[None, :, None] if KERNELS[name].axis == 1 else np.array([row])}
    if name == "prelu":
        inputs["slope"] = np.array([0.5, -0.25, 0.125, 2.0])
    g = np.ones(truth(KERNELS[name], inputs)["y"].shape)
    for _, exact, rough in both(name, inputs, g):
        special = ~np.isfinite(rough) | (rough == 0)
        assert_array_equal(exact[special], rough[special])
        assert_allclose(exact, rough, rtol=1e-14)


def test_argmax_has_indices_and_no_gradient():
    answer = exact_rows(KERNELS["argmax"], {"x": np.array([[1.0, 5.0, 5.0]])}, None)["y"]
    assert_array_equal(answer, [1])
    assert answer.dtype == np.int64
    with pytest.raises(ValueError, match="argmax has no gradient, by declaration"):
        exact_rows(KERNELS["argmax"], {"x": np.array([[1.0, 5.0]])}, np.ones(1))


def test_without_flint_the_error_says_what_to_install(monkeypatch):
    take_away(monkeypatch, "flint")
    with pytest.raises(ImportError, match=r'pip install "actconform\[golden\]"'):
        exact_rows(KERNELS["softmax"], {"x": np.ones(4)}, None)
