"""The limits are the stated ones, for every kernel, aspect and format, with no tuning in between."""

from __future__ import annotations

import math

import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.tolerance.limits import (
    BIAS_LIMIT,
    ROOT_RADIUS,
    SCALES,
    TAIL_LIMIT,
    Tolerance,
    row_tolerance,
    unary_tolerance,
)
from actconform.types.dtypes import DTYPES

KERNELS = {kernel.name: kernel for kernel in (*UNARY, *ROWS)}
each_format = pytest.mark.parametrize("fmt", list(DTYPES.values()), ids=lambda fmt: fmt.name)


@each_format
@pytest.mark.parametrize("name", [kernel.name for kernel in UNARY if kernel.tier == "scaled"])
def test_scaled_kernels_share_four_limits(name, fmt):
    value, gradient = (unary_tolerance(KERNELS[name], aspect, fmt, 0.0) for aspect in ("value", "gradient"))
    assert (value.limit, gradient.limit) == ((8.0, 16.0) if fmt.bits == 32 else (5.0, 10.0))
    for tolerance in (value, gradient):
        assert tolerance.tail
        assert not tolerance.exact
        assert (tolerance.tail_limit, tolerance.bias_limit) == (TAIL_LIMIT, BIAS_LIMIT) == (8.0, 1.0)


@each_format
@pytest.mark.parametrize("name", [kernel.name for kernel in (*UNARY, *ROWS) if kernel.tier == "exact"])
@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_exact_kernels_may_err_half_an_ulp_at_most(name, aspect, fmt):
    kernel = KERNELS[name]
    tolerance = (
        unary_tolerance(kernel, aspect, fmt, 0.0) if kernel.form == "unary" else row_tolerance(kernel, aspect, fmt)
    )
    assert tolerance.exact
    assert not tolerance.tail
    assert tolerance.limit <= (0.5 if fmt.bits == 32 else 1.0)
    assert (tolerance.limit == 0.0) == (kernel.exact_ulp == 0.0)
    assert tolerance.bias_limit == math.inf


@pytest.mark.parametrize(
    ("name", "f32", "sixteen"), [("relu", 0.0, 0.0), ("leaky-relu", 0.5, 1.0), ("prelu", 0.5, 1.0)]
)
def test_exact_limits_by_format(name, f32, sixteen):
    kernel = KERNELS[name]
    make = (
        row_tolerance if kernel.form == "row" else lambda kernel, aspect, fmt: unary_tolerance(kernel, aspect, fmt, 0.0)
    )
    limits = {fmt.name: make(kernel, "value", fmt).limit for fmt in DTYPES.values()}
    assert limits == {"f32": f32, "f16": sixteen, "bf16": sixteen}


@each_format
@pytest.mark.parametrize("name", [kernel.name for kernel in ROWS if kernel.tier == "scaled"])
def test_rows_count_in_units_of_their_bound(name, fmt):
    for aspect in ("value", "gradient"):
        tolerance = row_tolerance(KERNELS[name], aspect, fmt)
        assert (tolerance.limit, tolerance.exact, tolerance.tail, tolerance.unary) == (1.0, False, False, False)


def test_range_and_zero_sign_are_of_values_kinks_and_roots_of_gradients():
    value = unary_tolerance(KERNELS["hard-tanh"], "value", DTYPES["f32"], 0.0)
    gradient = unary_tolerance(KERNELS["hard-tanh"], "gradient", DTYPES["f32"], 1.0)
    assert (value.range, value.zero_sign, value.kinks) == ((-1.0, 1.0), True, ())
    assert (gradient.range, gradient.zero_sign) == ((-math.inf, math.inf), False)
    assert [kink.x for kink in gradient.kinks] == [-1.0, 1.0]
    assert gradient.at_zero == 1.0
    assert unary_tolerance(KERNELS["silu"], "value", DTYPES["f32"], 0.0).roots == ()
    assert (
        unary_tolerance(KERNELS["silu"], "gradient", DTYPES["f32"], 0.5).roots == KERNELS["silu"].gradient_roots != ()
    )
    assert row_tolerance(KERNELS["softmax"], "value", DTYPES["f32"]).range == KERNELS["softmax"].range
    assert row_tolerance(KERNELS["softmax"], "gradient", DTYPES["f32"]).range == (-math.inf, math.inf)


def test_scales_are_those_of_the_definition():
    x = np.array([-3.0, -0.25, 0.0, 0.5, 2.0])
    before = x.copy()
    wanted = {
        "one": [1.0, 1.0, 1.0, 1.0, 1.0],
        "input": [3.0, 0.25, 0.0, 0.5, 2.0],
        "one-or-input": [3.0, 1.0, 1.0, 1.0, 2.0],
        "gelu-tanh": [1 + 3 * (1 + 0.134 * 9), 1 + 0.25 * (1 + 0.134 / 16), 1.0, 1 + 0.5 * 1.0335, 1 + 2 * 1.536],
    }
    assert wanted.keys() == SCALES.keys()
    for name, scales in wanted.items():
        tolerance = Tolerance(fmt=DTYPES["f32"], limit=8.0, scale=name)
        np.testing.assert_allclose(tolerance.scales(x), scales, rtol=1e-15)
        tolerance.scales(x)[:] = 7.0
        np.testing.assert_array_equal(x, before)


def test_the_scale_of_gelu_tanh_gradients_is_its_own():
    assert unary_tolerance(KERNELS["gelu-tanh"], "gradient", DTYPES["f32"], 0.5).scale == "gelu-tanh"
    assert unary_tolerance(KERNELS["gelu-erf"], "gradient", DTYPES["f32"], 0.5).scale == "one-or-input"


def test_near_a_root_is_within_its_radius():
    tolerance = Tolerance(fmt=DTYPES["f32"], limit=16.0, scale="one", roots=(-1.25, 2.0))
    x = np.array([-1.25, -1.0, -1.25 - 1.01 * ROOT_RADIUS, 0.0, 2.0 + 0.9 * ROOT_RADIUS, math.nan])
    assert tolerance.near_root(x).tolist() == [True, True, False, False, True, False]


def test_roundings_of_an_argument_weigh_in_the_tail_of_float32_alone():
    x = np.array([-12.0, -0.5, 0.0])
    expected = {"gelu-erf": 2.0 * x * x, "swish": 1.5 * np.abs(x), "silu": 0.0 * x, "sigmoid": 0.0 * x}
    for name, ulps in expected.items():
        single, half = (unary_tolerance(KERNELS[name], "value", DTYPES[dtype], 0.0) for dtype in ("f32", "f16"))
        np.testing.assert_allclose(single.tail_condition(x) * TAIL_LIMIT, TAIL_LIMIT + ulps)
        assert (half.tail_condition(x) == 1.0).all()


def test_a_factor_below_the_normal_range_may_be_lost_with_what_it_is_multiplied_by():
    x = np.array([-90.0, 0.0])
    silu, half = (unary_tolerance(KERNELS["silu"], "value", DTYPES[dtype], 0.0) for dtype in ("f32", "f16"))
    assert silu.tail_lost(x).tolist() == [90.0 * 2.0**-126, 0.0]
    assert not half.tail_lost(x).any()
    assert not unary_tolerance(KERNELS["sigmoid"], "value", DTYPES["f32"], 0.0).tail_lost(x).any()
