"""Each kind of difference, injected in otherwise correct data, is found and named; healthy data are left alone."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from scipy import special

from actconform.catalog.kernels import UNARY
from actconform.elements.classify import classify
from actconform.elements.elementwise import Sample, elementwise_errors
from actconform.oracle import truth as exact
from actconform.oracle.rounding import round_to
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import generate
from actconform.tolerance.limits import Tolerance, row_tolerance, unary_tolerance
from actconform.tolerance.ulp import to_hex, ulp_of
from actconform.types import Kernel, Kink
from actconform.types.dtypes import DTYPES

KERNELS = {kernel.name: kernel for kernel in UNARY}
NATIVE = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
F32, F16 = DTYPES["f32"], DTYPES["f16"]
TINY = F32.smallest_subnormal


def answered(name, dtype, injected, aspect="value", cotangent=None):
    """Return the findings of a unary kernel that answers everything rightly but the inputs in `injected` -> answer."""
    fmt, kernel = DTYPES[dtype], KERNELS[name]
    x = np.concatenate([list(injected), np.linspace(-9, 9, 2000)]).astype(NATIVE[dtype]).astype(np.float64)
    ones = {"y": np.ones(x.size)} if aspect == "gradient" else None
    truth = next(iter(exact(kernel, {"x": x}, ones).values()))
    ct = None if cotangent is None else np.full(x.size, cotangent)
    truth = truth if ct is None else truth * ct
    got = round_to(truth, fmt)
    for at, answer in enumerate(injected.values()):
        got[at] = answer
    zero = {"x": np.zeros(1)}
    at_zero = next(iter(exact(kernel, zero, {"y": np.ones(1)} if ones else None).values()))
    tolerance = unary_tolerance(kernel, aspect, fmt, float(at_zero[0]))
    sample = Sample(got=got.astype(NATIVE[dtype]), truth=truth, x=x, cotangent=ct)
    return classify(
        sample, tolerance, elementwise_errors(sample, tolerance), "edge", "y" if aspect == "value" else "d_x"
    )


def by_rule(tolerance, x, truth, got, bound=None):
    sample = Sample(
        got=np.asarray(got).astype(NATIVE[tolerance.fmt.name]),
        truth=np.asarray(truth, np.float64),
        x=np.asarray(x, np.float64),
        bound=None if bound is None else np.asarray(bound, np.float64),
    )
    return classify(sample, tolerance, elementwise_errors(sample, tolerance), "edge", "y")


def names(findings):
    return [finding.class_ for finding in findings]


def ends(low, high):
    """Return the interval between two numbers, rounded to float32, as a finding writes it."""
    return to_hex(float(np.float32(low)), F32), to_hex(float(np.float32(high)), F32)


def only(findings, class_):
    assert names(findings) == [class_]
    return findings[0]


def vectors(dtype, aspect):
    """Yield (name, rule, sample with correctly rounded answers, regime) of all calls of all unary kernels."""
    folder, fmt = golden_dir(), DTYPES[dtype]
    manifest = read_manifest(folder)
    for kernel in UNARY:
        test_vectors = generate(kernel, aspect, dtype, load(folder, manifest, kernel.name))
        for vector in test_vectors.vectors:
            ((tensor, truth),) = vector.truth.items()
            cotangent = None if vector.cotangents is None else vector.cotangents["y"].astype(np.float64)
            got = round_to(truth, fmt).astype(NATIVE[dtype])
            sample = Sample(got=got, truth=truth, x=vector.input_at[tensor], cotangent=cotangent)
            yield kernel.name, test_vectors.tolerance, sample, vector.regime


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_correctly_rounded_goldens_give_no_finding(dtype, aspect):
    elements = 0
    for name, tolerance, sample, regime in vectors(dtype, aspect):
        errors = elementwise_errors(sample, tolerance)
        assert classify(sample, tolerance, errors, regime, "y") == [], (name, regime)
        elements += errors.n
    assert elements > 7000 * len(UNARY)


def near(truth, constant, fmt):
    """Tell where a truth, an overflow counted as the next power of two, is within 20 roundings of a constant."""
    if math.isnan(constant):
        return np.isnan(truth)
    cap = 2.0 ** (fmt.emax + 1)
    target = min(max(constant, -cap), cap)
    return np.abs(np.clip(truth, -cap, cap) - target) <= 20 * fmt.unit_roundoff * abs(target)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_a_constant_answer_is_found_at_every_point_where_it_is_wrong(aspect, dtype):
    for name, tolerance, whole, regime in vectors(dtype, aspect):
        if regime == "special" and whole.got.size != 17:
            continue  # the same inputs come at every length
        sample = whole.part(np.arange(0, whole.got.size, 13)) if regime == "exhaustive" else whole
        for constant in (math.nan, math.inf, -math.inf, 30000.0):
            got = np.full_like(sample.got, constant)
            answer = Sample(got=got, truth=sample.truth, x=sample.x, cotangent=sample.cotangent)
            found = sum(
                finding.count
                for finding in classify(answer, tolerance, elementwise_errors(answer, tolerance), regime, "y")
            )
            allowed = near(sample.truth, constant, tolerance.fmt)
            if math.isnan(constant) and sample.cotangent is not None:
                allowed |= np.isinf(sample.cotangent)  # a derivative that is a difference may give NaN
            assert found >= got.size - allowed.sum(), (name, regime, constant)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_flushing_to_zero_alone_is_found_as_nothing_else(name):
    kernel = KERNELS[name]
    x = np.concatenate([np.geomspace(1e-44, 1e-36, 400), -np.geomspace(1e-44, 1e-36, 400)])
    x = x.astype(np.float32).astype(np.float64)
    truth = exact(kernel, {"x": x})["y"]
    got = np.where(np.abs(truth) < F32.smallest_normal, np.copysign(0.0, truth), truth)
    tolerance = unary_tolerance(kernel, "value", F32, float(exact(kernel, {"x": np.zeros(1)})["y"][0]))
    assert set(names(by_rule(tolerance, x, truth, got))) <= {"subnormal-flush"}


def test_nan_made():
    finding = only(answered("sigmoid", "f32", {1.5: math.nan}), "nan-made")
    assert (finding.count, finding.magnitude, finding.regime, finding.tensor) == (1, 0.0, "edge", "y")
    assert finding.interval == ("0x3fc00000", "0x3fc00000")
    assert finding.worst.input_hex == "0x3fc00000"
    assert finding.worst.index == 0
    assert math.isnan(finding.worst.got)
    assert finding.worst.truth == pytest.approx(1 / (1 + math.exp(-1.5)))


@pytest.mark.parametrize("answer", [0.0, 1.0, math.inf])
def test_nan_lost(answer):
    finding = only(answered("relu", "f32", {math.nan: answer}), "nan-lost")
    assert finding.interval == (to_hex(math.nan, F32), to_hex(math.nan, F32))


def test_equal_nans_are_no_finding():
    assert answered("gelu-erf", "f16", {math.nan: math.nan}) == []


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize(("name", "x"), [("gelu-erf", math.inf), ("softplus", math.inf), ("relu", math.inf)])
@pytest.mark.parametrize("answer", [5.0, -math.inf, -5.0, 3e4])
def test_an_infinity_lost_is_found(name, dtype, x, answer):
    assert only(answered(name, dtype, {x: answer}), "inf").interval == (to_hex(x, DTYPES[dtype]),) * 2


@pytest.mark.parametrize("x", [90.0, 200.0, 500.0, 1e4])
@pytest.mark.parametrize("answer", [5.0, 0.0, F32.largest / 2])
def test_a_finite_answer_to_an_overflowing_truth_is_found(x, answer):
    only(answered("exponential", "f32", {x: answer}), "inf")


@pytest.mark.parametrize("x", [200.0, 500.0, 1e4])
def test_saturation_far_beyond_the_largest_number_is_found(x):
    only(answered("exponential", "f32", {x: F32.largest}), "inf")


@pytest.mark.parametrize(("name", "x", "answer"), [("gelu-erf", 2.0, math.inf), ("tanh", -3.0, -math.inf)])
def test_an_infinity_made_is_found(name, x, answer):
    finding = only(answered(name, "f32", {x: answer}), "inf")
    assert finding.worst.got == answer
    assert finding.magnitude == 0.0


@pytest.mark.parametrize(("name", "x"), [("gelu-erf", math.inf), ("exponential", 100.0), ("exponential", 6e4)])
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_an_infinite_answer_to_an_infinite_truth_is_right(name, x, dtype):
    assert answered(name, dtype, {x: math.inf}) == []


@pytest.mark.parametrize("fmt", list(DTYPES.values()), ids=lambda fmt: fmt.name)
def test_the_edge_of_overflow_is_one_ulp_wide(fmt):
    tolerance = Tolerance(fmt=fmt, limit=1.0, exact=True)
    gap = float(ulp_of(np.array([fmt.largest]), fmt)[0])
    for truth in (fmt.largest, fmt.overflow - gap / 8, fmt.overflow, fmt.largest + gap):
        for answer in (fmt.largest, math.inf):
            assert by_rule(tolerance, [1.0], [truth], [answer]) == []
            assert by_rule(tolerance, [1.0], [-truth], [-answer]) == []
            infinite = truth >= fmt.overflow or math.isinf(answer)
            only(by_rule(tolerance, [1.0], [truth], [-answer]), "inf" if infinite else "scaled-error")
    only(by_rule(tolerance, [1.0], [fmt.largest - gap], [math.inf]), "inf")
    only(by_rule(tolerance, [1.0], [fmt.largest + 3 * gap], [fmt.largest]), "inf")


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize(("name", "x", "answer"), [("relu", 0.0, -0.0), ("tanh", -0.0, 0.0), ("gelu-erf", -0.0, 0.0)])
def test_zero_sign(name, x, answer, dtype):
    finding = only(answered(name, dtype, {x: answer}), "zero-sign")
    assert finding.interval == (to_hex(x, DTYPES[dtype]),) * 2


def test_the_sign_of_a_zero_gradient_is_free():
    assert answered("relu", "f32", {-3.0: -0.0}, aspect="gradient") == []


@pytest.mark.parametrize("cotangent", [None, 2.0, -0.5])
@pytest.mark.parametrize("x", [0.0, -0.0, TINY, -1e-39])
@pytest.mark.parametrize("inside", [0.0, 0.25, 1.0])
def test_at_a_kink_anything_between_the_one_sided_derivatives_is_accepted(x, inside, cotangent):
    slope = 0.2 + (1 - 0.2) * inside
    answer = np.float32(slope * (cotangent or 1.0))
    assert answered("leaky-relu-0.2", "f32", {x: answer}, "gradient", cotangent) == []


@pytest.mark.parametrize("cotangent", [None, 2.0, -0.5])
@pytest.mark.parametrize("slope", [2.0, 0.1, -1.0])
def test_at_a_kink_anything_outside_is_found(slope, cotangent):
    answer = slope * (cotangent or 1.0)
    finding = only(answered("leaky-relu-0.2", "f32", {0.0: answer}, "gradient", cotangent), "kink")
    assert finding.tensor == "d_x"
    assert finding.magnitude > 1e5


def test_a_kink_is_one_ulp_wide():
    step = float(np.spacing(np.float32(1.0)))
    for x in (1.0, 1.0 + step, 1.0 - step):
        assert answered("hard-tanh", "f32", {x: 0.5}, "gradient") == []
        only(answered("hard-tanh", "f32", {x: 1.5}, "gradient"), "kink")
    only(answered("hard-tanh", "f32", {1.0 + 2 * step: 1.0}, "gradient"), "scaled-error")
    only(answered("hard-tanh", "f32", {1.0 - 4 * step: 0.0}, "gradient"), "scaled-error")


def test_kinks_of_two_places_are_two_findings():
    findings = answered("hard-tanh", "f32", {-1.0: 1.5, 1.0: 1.5}, "gradient")
    assert names(findings) == ["kink", "kink"]
    assert {finding.worst.input_hex for finding in findings} == {"0x3f800000", "0xbf800000"}


def test_a_subnormal_input_taken_for_zero():
    tolerance = Tolerance(fmt=F32, limit=0.0, exact=True, at_zero=1.0)
    finding = only(by_rule(tolerance, [1e-40, 2.0], [1.5, 2.0], [1.0, 2.0]), "subnormal-flush")
    assert finding.interval[0] == finding.worst.input_hex == to_hex(float(np.float32(1e-40)), F32)
    only(by_rule(tolerance, [1e-40], [1.5], [1.25]), "scaled-error")
    only(by_rule(tolerance, [1e-30], [1.5], [1.0]), "scaled-error")
    only(answered("relu", "f32", {1e-40: 0.0}), "subnormal-flush")


def test_a_subnormal_output_flushed():
    tolerance = Tolerance(fmt=F32, limit=0.5, exact=True)
    edge = F32.smallest_normal
    only(by_rule(tolerance, [0.25], [edge / 2], [0.0]), "subnormal-flush")
    only(by_rule(tolerance, [0.25], [edge * 1.5], [0.0]), "subnormal-flush")
    only(by_rule(tolerance, [0.25], [edge * 2.5], [0.0]), "scaled-error")
    only(by_rule(tolerance, [0.25], [edge * 1.5], [edge * 1.25]), "scaled-error")


def test_an_answer_outside_the_range_though_close():
    above = float(np.nextafter(np.float32(1.0), np.float32(2.0)))
    finding = only(answered("softsign", "f32", {1e8: above}), "range")
    assert finding.magnitude == pytest.approx((above - 1e8 / (1e8 + 1)) / 2.0**-24)
    only(answered("sigmoid", "f32", {-90.0: -TINY}), "range")
    assert answered("softsign", "f32", {1e8: 1.0}) == []


def test_scaled_error_and_its_magnitude():
    truth = math.tanh(0.75)
    units = 40
    finding = only(answered("tanh", "f32", {0.75: truth + units * 2.0**-24}), "scaled-error")
    assert finding.magnitude == pytest.approx(units, abs=1.0)
    assert finding.worst.scaled == finding.magnitude
    assert finding.worst.ulp == pytest.approx(units, abs=1.0)
    assert answered("tanh", "f32", {0.75: truth + 7 * 2.0**-24}) == []


def test_tail_is_relative_accuracy_where_the_function_is_small():
    x = -5.0
    truth = 0.5 * x * math.erfc(-x / math.sqrt(2))
    finding = only(answered("gelu-erf", "f32", {x: truth * (1 + 1e-4)}), "tail")
    assert finding.magnitude == pytest.approx(abs(truth) * 1e-4 / ulp_of(np.array([truth]), F32)[0], rel=0.01)
    assert finding.worst.scaled < 8
    assert answered("gelu-erf", "f32", {x: truth * (1 + 3e-7)}) == []
    only(answered("gelu-erf", "f32", {x: 0.0}), "tail")


def in_tail(name, function):
    """Return the findings of a float32 kernel that answers function(x) from -13 to -1."""
    x = np.linspace(-13, -1, 4001).astype(np.float32)
    wide = x.astype(np.float64)
    truth = next(iter(exact(KERNELS[name], {"x": wide}, None).values()))
    return by_rule(unary_tolerance(KERNELS[name], "value", F32, 0.0), wide, truth, function(x))


def test_gelu_by_erfc_in_float32_is_as_accurate_as_its_argument_lets_it_be():
    half, root = np.float32(0.5), np.float32(math.sqrt(0.5))
    assert in_tail("gelu-erf", lambda x: x * (half * special.erfc(-x * root))) == []


def test_a_tail_by_1_plus_erf_or_off_by_a_10000th_is_found_all_the_same():
    root = np.float32(math.sqrt(0.5))
    cancels = in_tail("gelu-erf", lambda x: np.float32(0.5) * x * (1 + special.erf(x * root)))
    assert "tail" in names(cancels)
    wide = in_tail("gelu-erf", lambda x: x * special.ndtr(x.astype(np.float64)) * (1 + 1e-4))
    assert "tail" in names(wide)


def test_swish_by_a_quotient_may_lose_what_overflow_of_the_exponential_loses():
    x = np.linspace(-103, -80, 500).astype(np.float32)
    wide = x.astype(np.float64)
    truth = wide * special.expit(wide)
    with np.errstate(over="ignore"):
        answers = x / (1 + np.exp(-x))
    assert (answers == 0).any()
    tolerance = unary_tolerance(KERNELS["silu"], "value", F32, 0.0)
    assert set(names(by_rule(tolerance, wide, truth, answers))) <= {"subnormal-flush"}
    assert "tail" in names(by_rule(tolerance, wide, truth, np.where(x < -84, np.float32(-0.0), answers)))


def test_near_the_root_of_a_gradient_relative_error_is_free():
    root = -1.278464542761073795109358739
    x = float(np.float32(root))
    truth = exact(KERNELS["silu"], {"x": np.array([x])}, {"y": np.ones(1)})["d_x"][0]
    assert answered("silu", "f32", {x: truth + 1e-7}, "gradient") == []
    far = answered("silu", "f32", {-20.0: -1e-8}, "gradient")
    only(far, "tail")


def test_two_causes_in_one_regime_are_two_findings():
    """A tail that is cut off, and small inputs that come out as zero; -20 is cut off rightly, the truth there is 1e-88."""
    tail = dict.fromkeys((-8.5, -9.0, -10.0, -20.0), -0.0)
    near_zero = dict.fromkeys((-1e-9, -2e-9, -4e-9), -0.0)
    findings = answered("gelu-erf", "f32", {**tail, **near_zero})
    seen = {finding.class_: (finding.interval, finding.count) for finding in findings}
    assert seen == {"tail": (ends(-10.0, -8.5), 3), "scaled-error": (ends(-4e-9, -1e-9), 3)}


def test_one_class_in_two_places_is_two_findings():
    further = {x: math.expm1(x) * (1 + 1e-5) for x in (-0.001, -0.0015)}
    findings = answered("elu", "f32", {-1e-9: -0.0, -2e-9: -0.0, **further})
    assert names(findings) == ["tail", "tail"]
    assert {finding.interval: finding.count for finding in findings} == {
        ends(-2e-9, -1e-9): 2,
        ends(-0.0015, -0.001): 2,
    }


def test_signs_and_specials_are_kept_apart():
    injected = dict.fromkeys((-2.0, 2.0, math.inf, -math.inf, 0.0), math.nan)
    findings = answered("tanh", "f32", injected)
    assert names(findings) == ["nan-made"] * 5
    assert {finding.worst.input_hex for finding in findings} == {to_hex(x, F32) for x in injected}


def test_each_element_has_one_class_and_the_worst_is_named():
    injected = {-3.0: math.nan, 0.5: math.inf, 0.0: -0.0, 1.0: 0.9, 1.5: 0.5, 2.0: 0.9}
    findings = answered("tanh", "f32", injected)
    assert sum(finding.count for finding in findings) == len(injected)
    (scaled,) = (finding for finding in findings if finding.class_ == "scaled-error")
    assert scaled.count == 3
    assert scaled.worst.index == list(injected).index(1.5)
    assert scaled.interval == (to_hex(1.0, F32), to_hex(2.0, F32))


def test_rows_give_one_finding_a_class():
    tolerance = row_tolerance(Kernel(name="k", definition="", source="", form="row"), "value", F32)
    x, truth = [-1e30, 0.0, 1.0, 1e30], [0.1, 0.2, 0.3, 0.4]
    bound = np.full(4, 1e-6)
    assert by_rule(tolerance, x, truth, truth, bound) == []
    assert by_rule(tolerance, x, truth, np.array(truth) + 0.9e-6, bound) == []
    finding = only(by_rule(tolerance, x, truth, [0.2, 0.2, 0.3, 0.5], bound), "scaled-error")
    assert finding.count == 2
    assert finding.magnitude == pytest.approx(1e5, rel=1e-3)
    assert finding.interval == ends(-1e30, 1e30)


def test_exact_rows_accept_their_bound_whatever_the_ulp():
    tolerance = row_tolerance(Kernel(name="k", definition="", source="", form="row", tier="exact"), "gradient", F32)
    assert by_rule(tolerance, [1.0, 2.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]) == []
    only(by_rule(tolerance, [1.0, 2.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.5]), "scaled-error")
    only(by_rule(tolerance, [1.0], [math.inf], [5.0], [0.0]), "inf")
    only(by_rule(tolerance, [1.0], [1.0], [math.nan], [1.0]), "nan-made")


def test_a_kink_in_16_bits_is_one_ulp_of_the_format():
    tolerance = Tolerance(fmt=F16, limit=0.0, exact=True, kinks=(Kink(1.0, 1.0, 0.0),))
    assert by_rule(tolerance, [1.0 + 2.0**-10], [0.0], [1.0]) == []
    only(by_rule(tolerance, [1.0 + 2.0**-9], [0.0], [1.0]), "scaled-error")
