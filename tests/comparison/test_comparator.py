"""Answers held against questions: structure both ways, then numbers, drift, and the same input at different places."""

from __future__ import annotations

import functools
import math

import ml_dtypes
import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.comparison.comparator import compare
from actconform.oracle.rounding import round_to
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import TestVector, TestVectors, generate
from actconform.testdata.regimes import NAN_PATTERNS
from actconform.tolerance.limits import BIAS_LIMIT, BIAS_POINTS, BINADE_POINTS, Tolerance
from actconform.tolerance.ulp import to_hex
from actconform.types import Kink
from actconform.types.dtypes import DTYPES

F32 = DTYPES["f32"]
U = F32.unit_roundoff
KERNELS = {kernel.name: kernel for kernel in (*UNARY, *ROWS)}


@functools.cache
def exam_of(name, aspect="value", dtype="f32"):
    folder = golden_dir()
    return generate(KERNELS[name], aspect, dtype, load(folder, read_manifest(folder), name))


def right(test_vectors):
    """Return the correctly rounded answers, as writable arrays."""
    return [
        {
            name: (truth if vector.dtypes[name].kind == "i" else round_to(truth, test_vectors.tolerance.fmt)).astype(
                vector.dtypes[name]
            )
            for name, truth in vector.truth.items()
        }
        for vector in test_vectors.vectors
    ]


def vector(x, truth, regime="ordinary", cotangent=None, tensor="y"):
    x, truth = np.asarray(x, np.float32), np.asarray(truth, np.float64)
    return TestVector(
        regime=regime,
        inputs={"x": x},
        cotangents=None if cotangent is None else {"y": np.asarray(cotangent, np.float32)},
        truth={tensor: truth},
        input_at={tensor: x.astype(np.float64)},
        dtypes={tensor: np.dtype(np.float32)},
    )


def identity_exam(*vectors):
    return TestVectors(Tolerance(fmt=F32, limit=0.0, exact=True, zero_sign=True), list(vectors))


def classes(findings):
    return sorted(finding.class_ for finding in findings)


def findings_of(test_vectors, answers):
    return compare(test_vectors, answers)[1]


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("name", [kernel.name for kernel in ROWS])
def test_correctly_rounded_rows_give_no_finding(name, dtype):
    for aspect in ("value", "gradient") if KERNELS[name].differentiable else ("value",):
        test_vectors = exam_of(name, aspect, dtype)
        measurements, findings = compare(test_vectors, right(test_vectors))
        assert findings == []
        assert all(measurement.max_scaled <= 1.0 for measurement in measurements)


@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_correctly_rounded_elements_give_no_finding_across_calls(aspect):
    for kernel in UNARY:
        test_vectors = exam_of(kernel.name, aspect)
        measurements, findings = compare(test_vectors, right(test_vectors))
        assert findings == [], kernel.name
        asked = sum(truth.size for vector in test_vectors.vectors for truth in vector.truth.values())
        assert sum(measurement.n for measurement in measurements) == asked
        assert sum(sum(measurement.histogram) for measurement in measurements) <= asked


def test_measurements_say_what_was_seen():
    test_vectors = identity_exam(vector([1.0, 2.0], [1.0, 2.0]), vector([4.0], [4.0]), vector([8.0], [8.0], "huge"))
    test_vectors = TestVectors(Tolerance(fmt=F32, limit=8.0, scale="input"), test_vectors.vectors)
    answers = [{"y": np.float32([1.0 + 4 * U, 2.0])}, {"y": np.float32([4.0])}, {"y": np.float32([8.0])}]
    (ordinary, huge), findings = compare(test_vectors, answers)
    assert findings == []
    assert (ordinary.tensor, ordinary.regime, ordinary.n, ordinary.limit) == ("y", "ordinary", 3, 8.0)
    assert (ordinary.max_scaled, ordinary.max_ulp, ordinary.margin) == (4.0, 2.0, 2.0)
    assert ordinary.bias == pytest.approx(4.0 / 3)
    assert sum(ordinary.histogram) == 3
    assert (huge.regime, huge.n, huge.max_scaled, huge.margin) == ("huge", 1, 0.0, math.inf)


def test_the_maximum_counts_what_was_found_and_not_what_was_accepted():
    tolerance = Tolerance(fmt=F32, limit=8.0, scale="one", kinks=(Kink(0.0, 0.0, 1.0),))
    test_vectors = TestVectors(tolerance, [vector([0.0, 2.0, 3.0], [0.0, 1.0, 1.0])])
    ((measurement,), findings) = compare(test_vectors, [{"y": np.float32([1.0, 1.0 + 4 * U, 1.0])}])
    assert (findings, measurement.max_scaled, measurement.max_ulp, measurement.margin) == ([], 4.0, 2.0, 2.0)
    ((measurement,), findings) = compare(test_vectors, [{"y": np.float32([1.0, 1.0 + 4 * U, 1.0 + 64 * U])}])
    assert classes(findings) == ["scaled-error"]
    assert (measurement.max_scaled, measurement.max_ulp, measurement.margin) == (64.0, 32.0, 0.125)
    ((measurement,), findings) = compare(test_vectors, [{"y": np.float32([1.0, 1.0 + 4 * U, np.nan])}])
    assert classes(findings) == ["nan-made"]
    assert (measurement.max_scaled, measurement.max_ulp) == (4.0, 2.0)


def test_a_missing_output_is_named():
    test_vectors = identity_exam(vector([1.0], [1.0]), vector([2.0], [2.0], "huge"))
    (finding,) = findings_of(test_vectors, [{"y": np.float32([1.0])}, {}])
    assert (finding.class_, finding.tensor, finding.regime, finding.count) == ("names", "y", "huge", 1)
    assert "missing" in finding.evidence


def test_an_output_too_many_is_named():
    test_vectors = identity_exam(vector([1.0], [1.0]))
    (finding,) = findings_of(test_vectors, [{"y": np.float32([1.0]), "z": np.float32([1.0])}])
    assert (finding.class_, finding.tensor) == ("names", "z")


def test_a_renamed_output_is_both():
    findings = findings_of(identity_exam(vector([1.0], [1.0])), [{"z": np.float32([1.0])}])
    assert sorted((finding.class_, finding.tensor) for finding in findings) == [("names", "y"), ("names", "z")]


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 1), (1, 2), ()])
def test_a_wrong_shape_is_found_and_nothing_is_broadcast(shape):
    test_vectors = identity_exam(vector([1.0, 1.0], [1.0, 1.0]))
    measurements, (finding,) = compare(test_vectors, [{"y": np.ones(shape, np.float32)}])
    assert (finding.class_, finding.tensor, measurements) == ("shape", "y", [])
    assert str(list(shape)) in finding.evidence


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int32])
def test_a_wrong_dtype_is_found_and_the_numbers_still_compared(dtype):
    test_vectors = identity_exam(vector([1.0, 2.0], [1.0, 2.0]))
    (finding,) = findings_of(test_vectors, [{"y": np.array([1, 2]).astype(dtype)}])
    assert finding.class_ == "dtype"
    assert classes(findings_of(test_vectors, [{"y": np.array([1, 3]).astype(dtype)}])) == ["dtype", "scaled-error"]


def test_complex_answers_are_no_numbers_to_compare():
    (finding,) = findings_of(identity_exam(vector([1.0], [1.0])), [{"y": np.array([1 + 2j], np.complex64)}])
    assert finding.class_ == "dtype"


def test_the_same_fault_in_several_calls_is_counted_once_a_regime():
    test_vectors = identity_exam(vector([1.0], [1.0]), vector([2.0], [2.0]), vector([3.0], [3.0], "huge"))
    findings = findings_of(test_vectors, [{}, {}, {}])
    assert sorted((finding.regime, finding.count) for finding in findings) == [("huge", 1), ("ordinary", 2)]


def test_outputs_swapped_are_found():
    test_vectors = exam_of("prelu", "gradient")
    answers = right(test_vectors)
    assert {"d_x", "d_slope"} == answers[0].keys()
    swapped = [{"d_x": answer["d_slope"], "d_slope": answer["d_x"]} for answer in answers]
    found = findings_of(test_vectors, swapped)
    assert {"d_x", "d_slope"} == {finding.tensor for finding in found}
    one_shape = TestVector(
        regime="ordinary",
        inputs={"x": np.float32([1.0])},
        cotangents=None,
        truth={"a": np.array([1.0]), "b": np.array([2.0])},
        input_at={"a": np.array([1.0]), "b": np.array([1.0])},
        dtypes=dict.fromkeys("ab", np.dtype(np.float32)),
    )
    findings = findings_of(identity_exam(one_shape), [{"b": np.float32([1.0]), "a": np.float32([2.0])}])
    assert sorted((finding.class_, finding.tensor) for finding in findings) == [
        ("scaled-error", "a"),
        ("scaled-error", "b"),
    ]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_as_many_answers_as_questions(n):
    test_vectors = identity_exam(vector([1.0], [1.0]), vector([2.0], [2.0]))
    with pytest.raises(ValueError, match="zip"):
        compare(test_vectors, [{"y": np.float32([1.0])}] * n)


def test_answers_to_the_wrong_questions_are_found():
    test_vectors = identity_exam(vector([1.0], [1.0]), vector([2.0], [2.0], "huge"))
    findings = findings_of(test_vectors, [{"y": np.float32([2.0])}, {"y": np.float32([1.0])}])
    assert sorted(finding.regime for finding in findings) == ["huge", "ordinary"]


@pytest.mark.parametrize("which", ["first", "last"])
def test_a_fault_in_any_call_of_a_regime_is_found_with_its_place(which):
    test_vectors = exam_of("tanh")
    answers = right(test_vectors)
    regime = "special"
    calls = [number for number, asked in enumerate(test_vectors.vectors) if asked.regime == regime]
    call = calls[0 if which == "first" else -1]
    start = sum(test_vectors.vectors[number].inputs["x"].size for number in calls if number < call)
    x = test_vectors.vectors[call].inputs["x"]
    at = next(number for number in range(x.size) if 0.1 < abs(x[number]) < 4) if which == "last" else 0
    answers[call]["y"][at] = 0.625 if which == "last" else 0.5
    found = [finding for finding in findings_of(test_vectors, answers) if finding.class_ != "position-dependent"]
    (finding,) = found
    assert (finding.regime, finding.count, finding.worst.index) == (regime, 1, start + at)


@pytest.mark.parametrize("place", ["body", "tail"])
def test_an_answer_that_depends_on_the_place_is_found_as_such(place):
    """As torch's NaN gradient: NaN in the vector body, 0 in the scalar tail, both perhaps allowed, but not both at once."""
    test_vectors = exam_of("relu", "gradient")
    answers = right(test_vectors)
    for asked, answer in zip(test_vectors.vectors, answers, strict=True):
        x = asked.inputs["x"]
        if asked.regime == "special" and x.size == 17 and np.isnan(x).any():
            answer["d_x"][x.size - 1 if place == "tail" else x.size // 3] = 0.0
    findings = findings_of(test_vectors, answers)
    assert classes(findings) == ["nan-lost", "position-dependent"]
    (finding,) = (finding for finding in findings if finding.class_ == "position-dependent")
    assert finding.interval == ("0x7fc00000", "0x7fc00000")
    # body and tail of four lengths; of length 1 they are one; every pattern of NaN
    assert finding.count == (8 - 1) * (1 + len(NAN_PATTERNS))
    assert "nan" in finding.evidence


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize(
    ("name", "kink"),
    [
        ("hard-swish", 3.0),
        ("hard-swish", -3.0),
        ("relu6", 6.0),
        ("hard-tanh", -1.0),
        ("hard-sigmoid-relu6", 3.0),
        ("hard-sigmoid-onnx", 2.5),  # the number next to 0.5 / float32(0.2), which no format has
        ("hard-sigmoid-default", -2.5),
        ("relu", 0.0),
    ],
)
def test_a_slope_at_a_kink_that_depends_on_the_place_is_found(name, kink, dtype):
    """As a vectorized loop that takes one side and a scalar tail that takes the other: each alone would pass."""
    test_vectors = exam_of(name, "gradient", dtype)
    nearest = min(test_vectors.tolerance.kinks, key=lambda point: abs(point.x - kink))
    sides = float(nearest.left), float(nearest.right)

    def answers(tail):
        given = right(test_vectors)
        for asked, answer in zip(test_vectors.vectors, given, strict=True):
            at = np.flatnonzero(asked.input_at["d_x"] == kink)
            g = asked.cotangents["y"].astype(np.float64)
            slopes = np.where(at < asked.input_at["d_x"].size // 16 * 16, sides[0], tail)
            answer["d_x"][at] = (slopes * g[at]).astype(answer["d_x"].dtype)
        return given

    assert "position-dependent" not in classes(findings_of(test_vectors, answers(sides[0])))
    found = [
        finding for finding in findings_of(test_vectors, answers(sides[1])) if finding.class_ == "position-dependent"
    ]
    assert found
    assert {finding.interval[0] for finding in found} <= {
        to_hex(kink, test_vectors.tolerance.fmt),
        to_hex(-kink, test_vectors.tolerance.fmt),
    }


def test_a_sum_of_cotangents_that_leaves_float16_is_found():
    """As g - softmax(x) sum(g) with a sum in float16: of 131,072 ones it is infinite."""
    test_vectors = exam_of("log-softmax", "gradient", "f16")
    answers = right(test_vectors)
    for asked, answer in zip(test_vectors.vectors, answers, strict=True):
        if asked.regime == "long":
            g = asked.cotangents["y"]
            p = (1.0 - asked.truth["d_x"]) / g.size
            answer["d_x"] = (1.0 - p * math.inf).astype(g.dtype)
    assert classes(findings_of(test_vectors, answers)) == ["inf"]


def test_the_same_wrong_answer_everywhere_does_not_depend_on_the_place():
    test_vectors = exam_of("relu", "gradient")
    answers = right(test_vectors)
    for asked, answer in zip(test_vectors.vectors, answers, strict=True):
        answer["d_x"][np.isnan(asked.inputs["x"])] = 0.0
    assert classes(findings_of(test_vectors, answers)) == ["nan-lost"]


def test_signed_zeros_are_different_inputs():
    x = [0.0, -0.0, 0.0, -0.0]
    truth = [1.0, -1.0, 1.0, -1.0]
    test_vectors = identity_exam(vector(x, truth, "special"))
    assert findings_of(test_vectors, [{"y": np.float32(truth)}]) == []
    found = findings_of(test_vectors, [{"y": np.float32([1.0, -1.0, -1.0, -1.0])}])
    assert "position-dependent" in classes(found)


def drifting(units, n=4000, sign=None):
    """A scaled exam whose answers lie `units` of 2**-24 off on average, each by 0, 1 or 2, and those answers."""
    ct = np.ones(n) if sign is None else np.where(np.arange(n) % 2, -1.0, 1.0)
    x = np.linspace(-1, 1, n)
    truth = (0.75 + x / 8) * ct
    cotangent = None if sign is None else ct
    test_vectors = TestVectors(
        Tolerance(fmt=F32, limit=8.0, scale="one", bias_limit=BIAS_LIMIT), [vector(x, truth, cotangent=cotangent)]
    )
    steps = np.diff(np.floor(np.arange(n + 1) * units))
    return test_vectors, [{"y": (truth.astype(np.float32) + (steps * U * ct).astype(np.float32)).astype(np.float32)}]


@pytest.mark.parametrize("sign", [None, "mixed"])
def test_a_drift_that_no_maximum_shows_is_found(sign):
    (measurement,), findings = compare(*drifting(1.2, sign=sign))
    assert measurement.max_scaled < 3
    assert [(finding.class_, finding.count, finding.worst) for finding in findings] == [("bias", 2000, None)] * 2
    assert [finding.magnitude for finding in findings] == [pytest.approx(1.2, abs=0.05)] * 2
    assert (findings[0].interval.last, findings[1].interval.first) == ("0x3f800000", "0xbf800000")  # each side of 0
    assert [finding.magnitude for finding in findings_of(*drifting(-1.2, sign=sign))] == [
        pytest.approx(1.2, abs=0.05)
    ] * 2


@pytest.mark.parametrize("sign", [None, "mixed"])
def test_a_drift_below_the_limit_is_not_found(sign):
    (measurement,), findings = compare(*drifting(0.9, sign=sign))
    assert findings == []
    assert measurement.bias == pytest.approx(0.9, abs=0.05)


def test_few_points_have_no_mean_worth_judging():
    assert classes(findings_of(*drifting(1.5, n=2 * BIAS_POINTS))) == ["bias", "bias"]
    assert findings_of(*drifting(1.5, n=2 * BINADE_POINTS - 2)) == []


@pytest.mark.parametrize("cotangent", [1.0, -2.0])
@pytest.mark.parametrize(("slope", "side"), [(0.25, "left"), (1.0, "right"), (0.5, "other"), (7.0, "other")])
def test_the_side_chosen_at_a_kink_is_recorded(slope, side, cotangent):
    tolerance = Tolerance(fmt=F32, limit=16.0, scale="one-or-input", kinks=(Kink(0.0, 0.25, 1.0), Kink(3.0, 1.0, 1.0)))
    x = [-1.0, 0.0, 3.0]
    asked = vector(x, np.array([0.25, 1.0, 1.0]) * cotangent, cotangent=np.full(3, cotangent), tensor="d_x")
    (measurement,), findings = compare(
        TestVectors(tolerance, [asked]), [{"d_x": np.float32([0.25, slope, 1.0]) * cotangent}]
    )
    assert measurement.kinks == {"0x00000000": side}
    assert classes(findings) == (["kink"] if slope == 7.0 else [])
