"""The pass over arrays, in blocks and compiled, against one plain loop over exact fractions, element by element."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actconform.elements import elementwise
from actconform.elements.classify import classify
from actconform.elements.elementwise import BLOCK, HISTOGRAM_BINS, ErrorStatistics, Sample, elementwise_errors
from actconform.oracle.rounding import round_to
from actconform.tolerance.limits import Tolerance
from actconform.types import Kink
from actconform.types.dtypes import DTYPES

NATIVE = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
SPECIALS = [math.nan, math.inf, -math.inf, 0.0, -0.0]
F32 = DTYPES["f32"]


@pytest.fixture(scope="module", autouse=True, params=["blocks", "compiled"])
def pass_over_elements(request):
    """Whether small samples are compared in blocks or by compiled code."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elementwise, "COMPILED_FROM", 1 if request.param == "compiled" else 1 << 62)
        yield


def rules(fmt):
    """One rule of each kind."""
    return {
        "exact": Tolerance(fmt=fmt, limit=0.5, exact=True, zero_sign=True),
        "exact-0": Tolerance(fmt=fmt, limit=0.0, exact=True, range=(0.0, math.inf), zero_sign=True),
        "one": Tolerance(fmt=fmt, limit=8.0, scale="one", range=(-1.0, 1.0), zero_sign=True),
        "input": Tolerance(fmt=fmt, limit=5.0, scale="input", range=(-0.5, math.inf), zero_sign=True),
        "gradient": Tolerance(
            fmt=fmt, limit=16.0, scale="one-or-input", roots=(-0.75,), kinks=(Kink(0.0, 0.25, 1.0),), at_zero=1.0
        ),
        "gelu-tanh": Tolerance(fmt=fmt, limit=16.0, scale="gelu-tanh", roots=(-0.75,)),
        "bound": Tolerance(fmt=fmt, limit=1.0, unary=False, range=(0.0, 1.0)),
    }


def scale_of(tolerance, x):
    x = abs(x)
    return {
        "one": lambda: 1.0,
        "input": lambda: x,
        "one-or-input": lambda: max(1.0, x),
        "gelu-tanh": lambda: 1.0 + x * (1.0 + 0.134 * x * x),
    }[tolerance.scale]()


def element(tolerance, got, truth, x, cotangent, bound):
    """Return (ULP, signed error in units, plainly within its limit, side of every comparison is certain) of one element."""
    fmt = tolerance.fmt
    if not (math.isfinite(got) and math.isfinite(truth)):
        return None, None, False, True
    difference = Fraction(got) - Fraction(truth)
    exponent = max(min(math.frexp(truth)[1] - 1 if truth else fmt.emin, fmt.emax), fmt.emin)
    gap = Fraction(2) ** (exponent - fmt.precision + 1)
    ulp = abs(difference) / gap
    scale = 0.0
    if tolerance.scale:
        scale = scale_of(tolerance, x) * abs(cotangent)
        unit = Fraction(fmt.unit_roundoff) * Fraction(max(abs(truth), scale, fmt.smallest_normal))
    else:
        unit = gap if tolerance.exact else Fraction(bound)
    signed = difference / unit
    within = abs(signed) <= tolerance.limit
    tail = bool(tolerance.scale) and abs(truth) < scale / 8 and all(abs(x - root) >= 0.3 for root in tolerance.roots)
    within &= not (tail and ulp > tolerance.tail_limit)
    within &= tolerance.range[0] <= got <= tolerance.range[1]
    within &= not (tolerance.zero_sign and got == 0 and math.copysign(1, got) != math.copysign(1, truth))
    ties = [(abs(signed), tolerance.limit), *([(ulp, tolerance.tail_limit)] if tolerance.scale else [])]
    certain = all(abs(float(a) - b) > 1e-9 * b or a == b == 0 for a, b in ties)
    return ulp, signed * int(math.copysign(1, cotangent)), within, certain


def bin_of(ulp):
    if ulp == 0:
        return 0
    edges = [Fraction(2) ** power for power in range(-8, 26)]
    return 1 + sum(ulp >= edge for edge in edges)


@st.composite
def samples(draw, name):
    """A rule and a sample: answers a few units from the truth, or far off, or special; inputs, cotangents, bounds."""
    fmt = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    tolerance = rules(fmt)[name]
    high = min(fmt.largest, 1e6)
    number = st.floats(-high, high, allow_nan=False, width=32)
    size = st.sampled_from([1e-42, 1e-38, 1e-6, 1e-3, 0.1, 1.0, 7.0])
    tiny = st.builds(lambda s, m: s * m, size, st.floats(-1, 1))
    truths = st.one_of(st.floats(-1.5, 1.5), tiny, st.sampled_from(SPECIALS))
    shift = st.sampled_from([0.0, 0.0, 0.25, -0.25, 3.0, -3.0, 7.0, 9.0, -20.0, 1e3, 1e7, "flip", *SPECIALS])
    rows = draw(st.lists(st.tuples(truths, shift, number, st.integers(-1, 2), st.booleans()), min_size=1, max_size=24))
    truth = np.array([row[0] for row in rows])
    x = np.array([row[2] for row in rows])
    cotangent = np.array([2.0 ** row[3] * (-1.0) ** row[4] for row in rows])
    if draw(st.booleans()):
        truth = truth * cotangent
    else:
        cotangent = None
    bound = np.maximum(np.abs(truth), 0.25) * fmt.unit_roundoff * 4
    bound[~np.isfinite(truth)] = 0.0
    unit = bound / 4
    got = np.array(
        [
            shift if shift in SPECIALS or shift != shift else -t if shift == "flip" else t + shift * u  # noqa: PLR0124
            for t, u, (_, shift, *_) in zip(truth, unit, rows, strict=True)
        ]
    )
    sample = Sample(
        got=round_to(got, fmt).astype(NATIVE[fmt.name]),
        truth=truth,
        x=round_to(x, fmt),
        cotangent=cotangent,
        bound=bound if name == "bound" else None,
    )
    return tolerance, sample


def elements(tolerance, sample):
    n = sample.got.size
    ones, nothing = np.ones(n), np.zeros(n)
    columns = (
        sample.got.astype(np.float64),
        sample.truth,
        sample.x,
        ones if sample.cotangent is None else sample.cotangent,
        nothing if sample.bound is None else sample.bound,
    )
    return [element(tolerance, *row) for row in zip(*(column.tolist() for column in columns), strict=True)]


@pytest.mark.parametrize("name", sorted(rules(F32)))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_number_is_that_of_a_plain_loop(name, data):
    tolerance, sample = data.draw(samples(name))
    rows = elements(tolerance, sample)
    errors = elementwise_errors(sample, tolerance)
    inside = [row for number, row in enumerate(rows) if number not in set(errors.suspects.tolist())]
    assert errors.n == len(rows)
    assert errors.max_ulp == pytest.approx(float(max((row[0] for row in inside), default=0)), rel=1e-12)
    assert errors.max_scaled == pytest.approx(float(max((abs(row[1]) for row in inside), default=0)), rel=1e-12)
    certain = {number for number, row in enumerate(rows) if row[3]}
    suspects = {number for number, row in enumerate(rows) if not row[2]}
    assert set(errors.suspects.tolist()) & certain == suspects & certain
    if len(certain) == len(rows):
        within = [float(row[1]) for row in rows if row[2]]
        assert errors.within == len(within)
        assert errors.bias == pytest.approx(math.fsum(within) / len(within) if within else 0.0, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", sorted(rules(F32)))
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_histogram_counts_every_finite_element_once(name, data):
    tolerance, sample = data.draw(samples(name))
    ulps = [row[0] for row in elements(tolerance, sample) if row[0] is not None]
    histogram = elementwise_errors(sample, tolerance).histogram
    assert histogram.sum() == len(ulps)
    wanted = np.bincount([bin_of(ulp) for ulp in ulps], minlength=HISTOGRAM_BINS)
    near_edge = any(ulp and abs(math.log2(ulp) - round(math.log2(ulp))) < 1e-9 for ulp in ulps)
    if not near_edge:
        np.testing.assert_array_equal(histogram, wanted)


@pytest.mark.parametrize("name", sorted(rules(F32)))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_finding_hides_outside_the_suspects(name, data):
    tolerance, sample = data.draw(samples(name))
    everything = ErrorStatistics(n=sample.got.size, suspects=np.arange(sample.got.size))
    measured = elementwise_errors(sample, tolerance)
    assert set(np.diff(measured.suspects)) <= set(range(1, sample.got.size))
    looked_everywhere = classify(sample, tolerance, everything, "edge", "y")
    assert repr(classify(sample, tolerance, measured, "edge", "y")) == repr(looked_everywhere)


def test_histogram_bins_open_at_powers_of_two():
    truth = np.zeros(6)
    ulps = np.array([0.0, 2.0**-9, 2.0**-8, 1.0, 1.5, 2.0**40])
    tolerance = Tolerance(fmt=DTYPES["f16"], limit=1.0, exact=True)
    sample = Sample(got=ulps * tolerance.fmt.smallest_subnormal, truth=truth, x=truth)
    histogram = elementwise_errors(sample, tolerance).histogram
    assert {number: int(count) for number, count in enumerate(histogram) if count} == {0: 1, 1: 1, 2: 1, 10: 2, 35: 1}


@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_blocks_leave_nothing_out_and_count_nothing_twice(n):
    tolerance = Tolerance(fmt=F32, limit=0.5, exact=True)
    truth = np.random.default_rng(n).uniform(1, 2, n)
    got = truth.astype(np.float32)
    faults = sorted({0, n - 1, *(at for at in (BLOCK - 1, BLOCK, 2 * BLOCK) if at < n)}) if n else []
    got[faults] = 3.0
    errors = elementwise_errors(Sample(got=got, truth=truth, x=truth), tolerance)
    assert errors.n == n
    assert errors.suspects.tolist() == faults
    assert errors.within == n - len(faults)
    assert errors.histogram.sum() == n
    signed = (got.astype(np.float64) - truth) / 2.0**-23
    assert errors.signed_sum == pytest.approx(float(np.delete(signed, faults).sum()))
    assert errors.max_ulp == pytest.approx(float(np.abs(np.delete(signed, faults)).max(initial=0.0)))


@pytest.mark.parametrize("name", sorted(rules(F32)))
@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 2 * BLOCK + 6])
def test_nan_never_passes(name, at):
    truth = np.full(2 * BLOCK + 7, 0.5)
    got = truth.astype(np.float32)
    got[at] = np.nan
    bound = np.full(truth.size, 1e-7)
    errors = elementwise_errors(Sample(got=got, truth=truth, x=truth, bound=bound), rules(F32)[name])
    assert errors.suspects.tolist() == [at]
    assert errors.within == truth.size - 1
    assert not math.isnan(errors.max_ulp)
    assert not math.isnan(errors.max_scaled)
    assert not math.isnan(errors.bias)


def test_a_nan_or_infinite_truth_is_always_looked_at():
    truth = np.array([1.0, np.nan, np.inf, -np.inf])
    for got in (truth, np.ones(4)):
        errors = elementwise_errors(Sample(got=got.astype(np.float32), truth=truth, x=np.ones(4)), rules(F32)["input"])
        assert errors.suspects.tolist() == [1, 2, 3]


def test_bias_is_the_mean_and_keeps_its_sign():
    tolerance = Tolerance(fmt=F32, limit=8.0, scale="one")
    truth = np.full(1000, 1.0)
    drift = np.tile([1.0, 1.0, 2.0, 0.0], 250) * 2 * F32.unit_roundoff
    for sign in (1.0, -1.0):
        got = (truth + sign * drift).astype(np.float32)
        assert elementwise_errors(Sample(got=got, truth=truth, x=truth), tolerance).bias == pytest.approx(2.0 * sign)


def test_bias_follows_the_derivative_through_signed_cotangents():
    tolerance = Tolerance(fmt=F32, limit=16.0, scale="one-or-input")
    cotangent = np.tile([2.0, -0.5, -1.0, 4.0], 100)
    got = ((1.0 + 4 * F32.unit_roundoff) * cotangent).astype(np.float32)
    sample = Sample(got=got, truth=cotangent, x=np.zeros(400), cotangent=cotangent)
    errors = elementwise_errors(sample, tolerance)
    assert errors.bias == pytest.approx(4.0)
    assert errors.max_scaled == pytest.approx(4.0)


@pytest.mark.parametrize("odd", ["got", "truth", "x"])
def test_unequal_lengths_are_refused(odd):
    arrays = {"got": np.zeros(3, np.float32), "truth": np.zeros(3), "x": np.zeros(3)}
    arrays[odd] = arrays[odd][:2]
    with pytest.raises(ValueError, match="must be equal"):
        elementwise_errors(Sample(**arrays), rules(F32)["one"])


def test_integers_are_compared_as_numbers():
    tolerance = Tolerance(fmt=F32, limit=0.0, exact=True, unary=False)
    truth = np.array([0.0, 3.0, 17.0])
    assert not elementwise_errors(Sample(got=np.array([0, 3, 17]), truth=truth, x=truth), tolerance).suspects.size
    assert elementwise_errors(Sample(got=np.array([0, 3, 16]), truth=truth, x=truth), tolerance).suspects.tolist() == [
        2
    ]


def test_large_samples_are_compared_by_compiled_code_alone_where_it_is_installed(monkeypatch):
    def broken(*_):
        raise AssertionError("blocks")

    tolerance = Tolerance(fmt=F32, limit=0.5, exact=True)
    sample = Sample(got=np.ones(3, np.float32), truth=np.ones(3), x=np.ones(3))
    monkeypatch.setattr(elementwise, "COMPILED_FROM", 3)
    with monkeypatch.context() as patch:
        patch.setattr(elementwise, "compiled_code", lambda: None)
        assert elementwise_errors(sample, tolerance).within == 3
        patch.setattr(elementwise, "_block", broken)
        with pytest.raises(AssertionError, match="blocks"):
            elementwise_errors(sample, tolerance)
    monkeypatch.setattr(elementwise, "_block", broken)
    assert elementwise_errors(sample, tolerance).within == 3


@pytest.mark.parametrize("name", sorted(rules(F32)))
def test_both_passes_give_the_same_numbers_of_a_kernel_with_all_its_specials(name, monkeypatch):
    tolerance = rules(F32)[name]
    rng = np.random.default_rng(3)
    patterns = rng.integers(0, 1 << 32, 100_000, np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):
        x = np.concatenate([patterns.astype(np.float64), rng.normal(size=50_000)])
    with np.errstate(all="ignore"):
        truth = np.where(np.abs(x) > 3, x * np.exp(-np.abs(x)), np.tanh(x))
        got = (truth * (1.0 + rng.normal(size=x.size) * rng.choice([0.0, 1e-8, 1e-7, 1e-5], x.size))).astype(np.float32)
    got[rng.integers(0, x.size, 100)] = np.nan
    sample = Sample(got, truth, x, bound=np.abs(truth) * 1e-6)
    results = []
    for least in (1, 1 << 62):
        monkeypatch.setattr(elementwise, "COMPILED_FROM", least)
        results.append(elementwise_errors(sample, tolerance))
    compiled, blocks = results
    assert compiled.suspects.tolist() == blocks.suspects.tolist()
    assert compiled.histogram.tolist() == blocks.histogram.tolist()
    assert (compiled.within, compiled.max_ulp, compiled.max_scaled) == (
        blocks.within,
        blocks.max_ulp,
        blocks.max_scaled,
    )
    assert compiled.signed_sum == pytest.approx(blocks.signed_sum, rel=1e-9)
    if blocks.worst is not None:
        assert compiled.worst.profile() == blocks.worst.profile()
