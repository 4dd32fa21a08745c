"""The answer furthest from the truth among repeats, and inputs whose answers depend on their place."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from actconform.comparison.comparator import compare
from actconform.comparison.repeats import furthest, locate_moved
from actconform.elements.elementwise import Sample
from actconform.testdata.kernel_vectors import TestVector, TestVectors
from actconform.tolerance.limits import Tolerance
from actconform.types.dtypes import DTYPES

F32 = DTYPES["f32"]
SCALED = Tolerance(fmt=F32, limit=8.0, scale="one")
TRUTH = np.array([1.0, -0.0, np.nan, 3.0])
NOTHING = np.empty(0, np.uint64)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("place", "wrong"), [(4, 1.5), (9, 0.0), (14, 7.0), (19, np.inf), (16, np.nan), (3, 2.5)])
def test_the_answer_furthest_from_the_truth_is_judged(dtype, place, wrong):
    got = np.resize(TRUTH.astype(dtype), 21)
    got[place] = wrong
    answers = furthest(got, TRUTH).astype(np.float64)
    wanted = TRUTH.copy()
    wanted[place % 4] = wrong
    np.testing.assert_array_equal(answers, wanted)
    assert (np.signbit(answers) == np.signbit(wanted)).all()


def test_a_worse_answer_outdoes_a_bad_one():
    got = np.resize(TRUTH.astype(np.float32), 40)
    got[[4, 8, 12]] = 1.25, -3.0, 1.5
    assert furthest(got, TRUTH)[0] == -3.0


def test_rows_are_repeated_along_the_first_axis():
    truth = np.arange(6.0).reshape(3, 2)
    got = np.resize(truth.astype(np.float32), (7, 2))
    got[6, 1] = 9.0
    np.testing.assert_array_equal(furthest(got, truth), [[0, 9], [2, 3], [4, 5]])


def moved(x, got, tolerance=SCALED, elsewhere=NOTHING, cotangent=None):
    x = np.array(x, np.float64)
    sample = Sample(np.array(got, np.float32), np.tanh(x), x, None if cotangent is None else np.array(cotangent, float))
    return [located.finding for located in locate_moved(sample, tolerance, elsewhere, "sizes", "y")]


def test_a_vector_and_its_tail_may_round_differently():
    y = np.float32(np.tanh(0.5))
    assert moved([0.5, 0.5, 0.5], [y, np.nextafter(y, 1, dtype=np.float32), y - np.float32(2.0**-22)]) == []


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf, -0.5])
def test_the_same_input_with_another_result_is_position_dependent(wrong):
    (finding,) = moved([0.5, 0.25, 0.5], [np.tanh(0.5), np.tanh(0.25), wrong])
    assert (finding.class_, finding.count) == ("position-dependent", 2)
    assert len(set(finding.interval.ends(F32))) == 1


def test_a_slope_is_compared_without_its_cotangent():
    slopes = np.tanh(0.5) * np.array([2.0, -4.0])
    assert moved([0.5, 0.5], slopes, cotangent=[2.0, -4.0]) == []
    assert moved([0.5, 0.5], slopes, cotangent=[2.0, 4.0])


def test_an_exact_kernel_gives_the_same_number_everywhere():
    exact = Tolerance(fmt=F32, limit=0.0, exact=True)
    assert moved([2.0, 2.0], [2.0, np.nextafter(np.float32(2), np.float32(3))], exact)


def identity(rows=1 << 16):
    x = np.arange(1.0, 252.0)
    tensors = {"inputs": {"x": x.astype(np.float32)}, "cotangents": None, "truth": {"y": x}, "input_at": {"y": x}}
    dtypes = {"y": np.dtype(np.float32)}
    vectors = [
        TestVector(regime="ordinary", **tensors, dtypes=dtypes),
        TestVector(regime="sizes", **tensors, dtypes=dtypes, rows=rows),
    ]
    return TestVectors(Tolerance(fmt=F32, limit=0.0, exact=True), vectors)


def answers(test_vectors):
    return [{"y": vector.asked()[0]["x"].copy()} for vector in test_vectors.vectors]


def classes(test_vectors, got):
    return sorted((finding.regime, finding.class_) for finding in compare(test_vectors, got)[1])


def test_a_long_array_that_is_right_is_left_alone():
    test_vectors = identity()
    assert classes(test_vectors, answers(test_vectors)) == []


@pytest.mark.parametrize("place", [0, 4096, 65534, 65535])
def test_one_wrong_number_of_a_long_array_is_found(place):
    test_vectors = identity()
    got = answers(test_vectors)
    got[1]["y"][place] = -1
    assert {class_ for _, class_ in classes(test_vectors, got)} == {"scaled-error"}


def test_a_number_that_is_right_at_another_length_is_position_dependent():
    test_vectors = identity()
    x = np.array([5.0])
    short = TestVector(
        regime="sizes", inputs={"x": x.astype(np.float32)}, cotangents=None, truth={"y": x}, input_at={"y": x},
        dtypes={"y": np.dtype(np.float32)},
    )  # fmt: skip
    test_vectors.vectors.append(short)
    got = answers(test_vectors)
    got[1]["y"][4 + 251 * 200] = 0
    assert classes(test_vectors, got) == [("sizes", "position-dependent"), ("sizes", "scaled-error")]


def test_an_array_of_another_length_is_a_shape():
    test_vectors = identity()
    got = answers(test_vectors)
    got[1]["y"] = got[1]["y"][:-1]
    assert classes(test_vectors, got) == [("sizes", "shape")]


def test_an_input_that_is_off_everywhere_is_told_once():
    test_vectors = identity()
    got = answers(test_vectors)
    got[0]["y"][7] = got[1]["y"][7] = 0
    assert classes(test_vectors, got) == [("ordinary", "scaled-error")]
