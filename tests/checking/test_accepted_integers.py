"""Integers of 64 bits that float64 does not tell apart are told apart, in this process and in a program that stands alone."""

from __future__ import annotations

import numpy as np

from actconform.checking.part import accepted_within
from actconform.checking.standalone import wrong_elements

TRUTH = np.array([2**63 - 1, -(2**63) + 1, 7])


def test_an_integer_that_is_off_by_one_is_rejected_however_large():
    accepted = accepted_within(TRUTH, 0.0, 7)
    expected = {"truth": TRUTH, "lowest": accepted.lowest, "highest": accepted.highest}
    for got, wrong in ((TRUTH, [False] * 3), (TRUTH - np.array([1, 0, 0]), [True, False, False])):
        assert accepted.rejects(got).tolist() == wrong
        assert wrong_elements(got, expected).tolist() == wrong
    assert accepted.ratio(TRUTH) == 0
    assert accepted.ratio(TRUTH + np.array([0, 0, 1])) > 1


def test_what_may_be_off_by_a_level_still_may():
    accepted = accepted_within(TRUTH, np.array([0.0, 0.0, 1.0]), 7)
    expected = {"truth": TRUTH, "lowest": accepted.lowest, "highest": accepted.highest}
    for step, wrong in ((1, False), (2, True)):
        got = TRUTH + np.array([0, 0, step])
        assert accepted.rejects(got).tolist() == [False, False, wrong]
        assert wrong_elements(got, expected).tolist() == [False, False, wrong]
