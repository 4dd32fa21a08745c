"""Answers that vary: what is wrong in all of them, and whether their difference alone breaks a limit."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.comparison.comparator import comparison
from actconform.comparison.varying import varying_answers
from actconform.testdata.kernel_vectors import TestVector, TestVectors
from actconform.tolerance.limits import Tolerance
from actconform.types.dtypes import DTYPES
from actconform.workers.protocol import JobResult

TRUTH = np.arange(1.0, 9.0)
RIGHT = TRUTH.astype(np.float32)
HALVED = np.where(np.arange(8) == 3, RIGHT / 2, RIGHT)


def vector() -> TestVector:
    wide = {"y": TRUTH}
    return TestVector(
        regime="ordinary", inputs={"x": RIGHT}, cotangents=None, truth=wide, input_at=wide, dtypes={"y": RIGHT.dtype}
    )


VECTORS = TestVectors(Tolerance(fmt=DTYPES["f32"], limit=8.0, exact=False), [vector(), vector()])


def judged(first: np.ndarray, second: np.ndarray) -> tuple[list[str], bool]:
    """Return what is wrong whatever the answer, and whether the answers to the second call break a limit by their difference."""
    outcome = JobResult(outputs=[{"y": RIGHT}, {"y": first}], unsteady=[(1, "y")], second={1: {"y": second}})
    answers = varying_answers(VECTORS, outcome)
    compared = comparison(VECTORS, answers.nearest)
    return [finding.class_ for finding in compared.findings], answers.breaks_limits(VECTORS, compared)


def test_where_nothing_varies_the_answers_are_those_of_the_job():
    outcome = JobResult(outputs=[{"y": RIGHT}, {"y": HALVED}])
    answers = varying_answers(VECTORS, outcome)
    assert not answers.vary
    assert answers.nearest is outcome.outputs


@pytest.mark.parametrize(("first", "second"), [(RIGHT, HALVED), (HALVED, RIGHT)])
def test_a_number_that_is_right_once_is_no_wrong_number(first, second):
    assert judged(first, second) == ([], True)


def test_a_number_that_is_wrong_in_both_stays_a_finding():
    wrong = HALVED.copy()
    wrong[5] = 60.0
    classes, beyond = judged(wrong, np.where(np.arange(8) == 5, np.float32(70.0), RIGHT))
    assert set(classes) == {"scaled-error"}
    assert beyond


def test_a_difference_within_the_limits_breaks_none():
    assert judged(RIGHT, np.nextafter(RIGHT, np.float32(np.inf))) == ([], False)


@pytest.mark.parametrize("spoiled", [np.nan, np.inf, -np.inf])
def test_a_number_is_nearer_than_nan_and_infinity(spoiled):
    other = np.where(np.arange(8) == 2, np.float32(spoiled), RIGHT)
    assert judged(other, RIGHT) == ([], True)
    assert judged(RIGHT, other) == ([], True)


def test_another_shape_breaks_the_limits():
    assert judged(RIGHT, RIGHT[:3])[1]


def test_an_output_without_truth_keeps_its_first_answer():
    outcome = JobResult(outputs=[{"y": RIGHT}, {"y": RIGHT}, {"y": RIGHT}], second={2: {"y": HALVED}})
    answers = varying_answers(VECTORS, outcome)
    np.testing.assert_array_equal(answers.nearest[2]["y"], RIGHT)
    np.testing.assert_array_equal(answers.farthest[2]["y"], HALVED)
