"""Operators of ONNX Runtime on weights of few bits: its own kernels stay within their error bounds."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from bounded_nodes import worst
from contrib_nodes import Case, bounded, evaluated, expect_within_bounds, run

from actconform import Unsupported

RNG = np.random.default_rng(19)


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def u8(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def four_bits(dtype, *shape):
    first = -8 if dtype == ml_dtypes.int4 else 0
    return RNG.integers(first, first + 16, shape).astype(dtype)


LEVELS, STEPS = u8(3, 3, 8), np.abs(f32(3, 3))
FOUR_BITS = {"K": 40, "N": 3, "block_size": 16}
PRODUCTS = [
    *(Case("MatMulNBits", [f32(2, 40), LEVELS, STEPS], {**FOUR_BITS, "accuracy_level": level}) for level in range(5)),
    Case("MatMulNBits", [f32(2, 40), LEVELS, STEPS, u8(3, 2)], FOUR_BITS),
    Case("MatMulNBits", [f32(2, 40), LEVELS, STEPS, f32(3, 3), None, f32(3)], FOUR_BITS),
    Case("MatMulNBits", [f32(2, 3, 40), u8(3, 3, 16), STEPS], {**FOUR_BITS, "bits": 8}),
    Case("MatMulNBits", [f32(40), u8(3, 3, 4), STEPS, u8(3, 1)], {**FOUR_BITS, "bits": 2}),
]
NORMAL = {"K": 24, "N": 5, "block_size": 16, "quant_type": 1}
PAIRS, SIZES = u8(60), np.abs(f32(8))
LOOKUPS = [
    *(
        Case(
            "GatherBlockQuantized",
            [u8(7, 8 * bits), places, f32(7, 64 // size), zeros],
            {"bits": bits, "block_size": size},
        )
        for bits in (2, 4, 8)
        for size, places, zeros in (
            (16, np.array([[1, 2, -1], [0, 6, 3]]), None),
            (32, np.array([5, 0], np.int32), u8(7, -(-2 * bits // 8))),
        )
    ),
    *(
        Case(
            "GatherBlockQuantized",
            [four_bits(dtype, 32, 32, 32), np.array([[1, 0]]), f32(*shape), four_bits(dtype, *shape)],
            {"gather_axis": along, "quantize_axis": across, "block_size": 16},
        )
        for dtype in (ml_dtypes.int4, ml_dtypes.uint4)
        for along, across, shape in (
            (0, 1, (32, 2, 32)),
            (1, 1, (32, 2, 32)),
            (1, 0, (2, 32, 32)),
            (0, -1, (32, 32, 2)),
        )
    ),
]
CASES = [
    *PRODUCTS,
    *(
        replace(case, inputs=[x if x is None or x.dtype != np.float32 else x.astype(np.float16) for x in case.inputs])
        for case in PRODUCTS[:7]
    ),
    *(Case("MatMulBnb4", [f32(2, 3, 24), PAIRS, SIZES], {**NORMAL, "quant_type": kind}) for kind in (0, 1)),
    *LOOKUPS,
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_onnx_runtime_stays_within_the_bounds(case):
    expect_within_bounds(case)


def test_the_matrix_itself_is_multiplied_where_it_is_not_transposed():
    """Against the product with a unit matrix: ONNX Runtime 1.31 reads beyond the matrix there."""
    (columns,) = evaluated(Case("MatMulBnb4", [np.eye(24, dtype=np.float32), PAIRS, SIZES], NORMAL))
    a = f32(3, 5)
    (y,) = evaluated(Case("MatMulBnb4", [a, PAIRS, SIZES], {**NORMAL, "transB": 0}))
    np.testing.assert_allclose(y, a.astype(np.float64) @ columns.T, rtol=1e-12)


def test_a_place_outside_the_table_gives_zeros():
    (y,) = evaluated(Case("GatherBlockQuantized", [u8(3, 16), np.array([1, 3, -4]), f32(3, 1)], {"block_size": 32}))
    assert np.abs(y[0]).min() >= 0.0
    assert np.abs(y[0]).max() > 0.0
    np.testing.assert_array_equal(y[1:], np.zeros((2, 32)))


@pytest.mark.parametrize(
    ("inputs", "attributes", "words"),
    [
        ([f32(2, 40), LEVELS, STEPS, None, np.array([1], np.int32)], {}, "g_idx"),
        ([f32(2, 40), LEVELS, STEPS], {"weight_prepacked": 1}, "weight_prepacked"),
    ],
    ids=["g_idx", "prepacked"],
)
def test_forms_without_a_definition_are_refused_in_words(inputs, attributes, words):
    with pytest.raises(Unsupported, match=words):
        evaluated(Case("MatMulNBits", inputs, {**FOUR_BITS, **attributes}))


def test_lost_zero_points_are_over_the_bound_and_lost_accuracy_is_where_it_is_not_allowed():
    a = f32(2, 40)
    sound = Case("MatMulNBits", [a, LEVELS, STEPS], FOUR_BITS)
    (bound,) = bounded(sound)
    (got,) = run(replace(sound, inputs=[*sound.inputs, u8(3, 2)]))
    assert worst(got, bound) > 1e3
    (y,) = evaluated(replace(sound, inputs=[a.astype(np.float16).astype(np.float32), LEVELS, STEPS]))
    assert worst(y.astype(np.float32), bound) > 1.0
    (allowed,) = bounded(replace(sound, attributes={**FOUR_BITS, "accuracy_level": 2}))
    assert worst(y.astype(np.float32), allowed) <= 1.0
