"""Casts to the types that only hold numbers: rounded once, saturated or not; and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, parser

from actconform import Unsupported
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.evaluate.quantized import FLOATS, small_float

if TYPE_CHECKING:
    from numpy.typing import NDArray


def outputs_of(text: str, opset: int, **inputs: NDArray[Any]) -> NDArray[Any]:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> g {text}').SerializeToString()
    (output,) = CorrectlyRoundedEvaluator(model).forward(inputs).values()
    return output


@pytest.mark.parametrize("name", FLOATS)
def test_a_small_float_is_the_nearest_one(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    bits = 4 if name == "float4_e2m1fn" else 8
    patterns = np.arange(2**bits).astype(np.uint8).view(dtype).astype(np.float64)
    numbers = np.unique(patterns[np.isfinite(patterns)])
    x = np.random.default_rng(0).uniform(-1, 1, 2_000) * np.exp2(np.random.default_rng(1).integers(-20, 9, 2_000))
    distance = np.abs(x[:, None] - numbers).min(axis=1)
    got = small_float(x, dtype, saturate=True).astype(np.float64)
    np.testing.assert_array_equal(np.abs(got - x), distance)
    ties = (numbers[1:] + numbers[:-1]) / 2
    above = small_float(ties * (1 + np.sign(ties) * 2.0**-40), dtype, saturate=True).astype(np.float64)
    np.testing.assert_array_equal(above[ties != 0], numbers[1:][ties != 0])  # not first to float32, where it is a tie


def test_what_overflows_is_the_largest_or_none() -> None:
    x = np.array([1e6, -np.inf, np.nan])
    e4m3, e5m2 = np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2)
    np.testing.assert_array_equal(small_float(x, e4m3, saturate=True).astype(float), [448.0, -448.0, np.nan])
    np.testing.assert_array_equal(small_float(x, e4m3, saturate=False).astype(float), [np.nan] * 3)
    np.testing.assert_array_equal(small_float(x, e5m2, saturate=False).astype(float), [np.inf, -np.inf, np.nan])


def test_a_quantized_number_saturates_and_blocks_may_be_longer_than_the_axis() -> None:
    x = np.array([[-3.0, 0.25, 0.75, 99.0]], np.float32)
    y = outputs_of(
        "(float[1, 4] x, float[1, 1] s) => (int4[1, 4] y) { y = QuantizeLinear<axis = 1, block_size = 1000000000000, output_dtype = 22>(x, s) }",
        23,
        x=x,
        s=np.array([[0.5]], np.float32),
    )
    assert y.dtype == ml_dtypes.int4
    np.testing.assert_array_equal(y.astype(int), [[-6, 0, 2, 7]])


def test_bits_of_16_bit_floats_and_endless_regions_are_refused() -> None:
    with pytest.raises(Unsupported, match="BitCast of 16-bit floats"):
        outputs_of(
            f"(float16[n] x) => (int16[n] y) {{ y = BitCast<to = {TensorProto.INT16}>(x) }}",
            26,
            x=np.ones(2, np.float16),
        )
    with pytest.raises(Unsupported, match=r"RoiAlign with .* samples along one axis"):
        outputs_of(
            "(float[1, 1, 4, 4] x, float[1, 4] r, int64[1] b) => (float[1, 1, 1, 1] y) { y = RoiAlign(x, r, b) }",
            16,
            x=np.ones((1, 1, 4, 4), np.float32),
            r=np.array([[0, 0, 1e9, 1]], np.float32),
            b=np.array([0]),
        )


def test_a_table_of_ngrams_without_end_is_refused() -> None:
    text = """(int64[n] x) => (float[m] y) { y = TfIdfVectorizer<mode = "TF", min_gram_length = 1, max_gram_length = 1,
        max_skip_count = 0, ngram_counts = [0], ngram_indexes = [1000000000000], pool_int64s = [3]>(x) }"""
    with pytest.raises(Unsupported, match="at most"):
        outputs_of(text, 20, x=np.array([3, 4]))
