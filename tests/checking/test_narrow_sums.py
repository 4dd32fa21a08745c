"""Sums of 8-bit products that saturate in 16 bits: named with what helps, and no other fault is taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import checked, made

from actconform.checking.narrow_sums import SATURATION

WEIGHTS = np.int8([[127, -3], [120, 5], [-7, 100], [11, 90]])
MODEL = made("(uint8[n, 4] a) => (int32[n, 2] y) { y = MatMulInteger (a, w) }", {"w": WEIGHTS})
LARGE, SMALL = np.uint8([[255, 250, 9, 0], [1, 2, 240, 255]]), np.uint8([[100, 90, 9, 0]])


def test_pairs_of_products_that_leave_16_bits_are_named_with_what_helps(runtime):
    (result,) = checked(MODEL, {"a": LARGE}, runtime("saturates")).runtimes
    assert (result.status, result.fault.blame, result.fault.op_type) == ("not explained", "runtime", "MatMulInteger")
    assert set(SATURATION) <= set(result.fault.evidence)


def test_where_no_pair_leaves_them_there_is_no_fault(runtime):
    assert checked(MODEL, {"a": SMALL}, runtime("saturates")).explained


@pytest.mark.parametrize("inputs", [LARGE, SMALL], ids=["large", "small"])
def test_another_fault_is_no_saturation(runtime, inputs):
    (result,) = checked(MODEL, {"a": inputs}, runtime("adds-one")).runtimes
    assert result.fault.blame == "runtime"
    assert set(SATURATION).isdisjoint(result.fault.evidence)
