"""The error over the input domain against one plain loop over the elements."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from actconform.comparison.comparator import measurement
from actconform.elements.classify import classify
from actconform.elements.elementwise import BLOCK, Sample, elementwise_errors
from actconform.tolerance.limits import Tolerance
from actconform.types import Kink
from actconform.types.dtypes import DTYPES

NATIVE = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
WIDTH = {"f32": 4, "bf16": 4, "f16": 1}


def rules(fmt):
    return {
        "exact": Tolerance(fmt=fmt, limit=0.5, exact=True, zero_sign=True),
        "exact-0": Tolerance(fmt=fmt, limit=0.0, exact=True),
        "one": Tolerance(fmt=fmt, limit=5.0, scale="one"),
        "input": Tolerance(fmt=fmt, limit=8.0, scale="input", range=(-2.0, math.inf)),
        "gradient": Tolerance(fmt=fmt, limit=16.0, scale="one-or-input", roots=(-0.75,), kinks=(Kink(0.0, 0.25, 1.0),)),
    }


def sample_of(fmt, *, with_cotangent):
    """Answers wrong by every size from an exact one to a lost one, on inputs of every binade, more than one block of them."""
    rng = np.random.default_rng(5)
    n = BLOCK + 3000
    with np.errstate(over="ignore"):
        x = (rng.choice([-1, 1], n) * 2.0 ** rng.uniform(fmt.emin - fmt.precision, fmt.emax + 1, n)).astype(
            NATIVE[fmt.name]
        )
        x[:40] = [0.0, -0.0, math.inf, -math.inf, math.nan] * 8
        wide = x.astype(np.float64)
        truth = np.where(np.abs(wide) < 1, wide / 2, np.sign(wide) / (1 + np.abs(wide)))
        cotangent = rng.choice([-4.0, 0.5, 2.0], n) if with_cotangent else None
        truth = truth if cotangent is None else truth * cotangent
        off = rng.choice([0.0, 1e-3, 1.0, 30.0, 1e6], n, p=[0.2, 0.3, 0.3, 0.1, 0.1]) * rng.normal(size=n)
        got = (truth * (1 + off * fmt.unit_roundoff)).astype(NATIVE[fmt.name])
    return Sample(got=got, truth=truth, x=wide, cotangent=cotangent)


def group_of(x, first, width, last):
    if x == 0:
        return 0
    exponent = math.frexp(x)[1] - 1 if math.isfinite(x) else None
    k = last + 1 if exponent is None else (exponent - first) // width + 1
    return int(math.copysign(k, x))


def by_loop(sample, tolerance, first, width):
    """Return {group: worst share}, over all elements that have an error with a limit."""
    fmt, worst = tolerance.fmt, {}
    last = (fmt.emax - first) // width + 1
    breached = set()
    for i, (got, truth, x) in enumerate(zip(sample.got.astype(np.float64), sample.truth, sample.x, strict=True)):
        if not (math.isfinite(got) and math.isfinite(truth)) or math.isnan(x):
            continue
        ct = 1.0 if sample.cotangent is None else abs(sample.cotangent[i])
        ulp_size = math.ldexp(
            1.0, max(min(math.frexp(truth)[1] - 1 if truth else fmt.emin, fmt.emax), fmt.emin) - fmt.precision + 1
        )
        scale = float(tolerance.scales(np.array([x]))[0]) * ct
        unit = fmt.unit_roundoff * max(abs(truth), scale, fmt.smallest_normal) if tolerance.scale else ulp_size
        share = abs(got - truth) / unit / (tolerance.limit or 1.0)
        ulp = abs(got - truth) / ulp_size
        if tolerance.scale and abs(truth) < scale / 8 and all(abs(x - root) >= 0.3 for root in tolerance.roots):
            share = max(share, ulp / tolerance.tail_limit)
        group = group_of(x, first, width, last)
        if share > 1 or (tolerance.limit == 0 and share > 0):
            breached.add(group)  # a breach: classes that have no magnitude may take it
            continue
        if tolerance.zero_sign and got == 0 and math.copysign(1, got) != math.copysign(1, truth):
            continue
        if tolerance.range[0] <= got <= tolerance.range[1]:
            worst[group] = max(worst.get(group, 0.0), share)
    return worst, breached


@pytest.mark.parametrize("with_cotangent", [False, True])
@pytest.mark.parametrize("kind", ["exact", "exact-0", "one", "input", "gradient"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_the_worst_of_each_group_is_that_of_a_plain_loop(dtype, kind, with_cotangent):
    fmt = DTYPES[dtype]
    tolerance, sample = rules(fmt)[kind], sample_of(fmt, with_cotangent=with_cotangent)
    errors = elementwise_errors(sample, tolerance)
    profile = errors.worst.profile()
    wanted, _ = by_loop(sample, tolerance, profile.first, profile.width)
    assert profile.width == WIDTH[dtype]
    assert list(profile.at) == sorted(wanted)
    assert profile.share == pytest.approx([wanted[group] for group in profile.at], rel=6e-3, abs=0)


@pytest.mark.parametrize("kind", ["exact-0", "one", "input", "gradient"])
def test_breaches_are_added_where_they_are_found_and_nowhere_else(kind):
    fmt = DTYPES["f32"]
    tolerance, sample = rules(fmt)[kind], sample_of(fmt, with_cotangent=False)
    errors = elementwise_errors(sample, tolerance)
    within = dict(zip(*[getattr(errors.worst.profile(), part) for part in ("at", "share")], strict=True))
    findings = classify(sample, tolerance, errors, "ordinary", "y")
    profile = measurement(sample, tolerance, errors, findings, "ordinary", "y").profile
    over = {at for at, share in zip(profile.at, profile.share, strict=True) if share > (1 if tolerance.limit else 0)}
    _, breached = by_loop(sample, tolerance, profile.first, profile.width)
    assert over
    assert over <= breached
    for at, share in zip(profile.at, profile.share, strict=True):
        assert share >= within.get(at, 0.0)
    limits = {"scaled-error": tolerance.limit or 1.0, "kink": tolerance.limit, "tail": tolerance.tail_limit}
    largest = max(finding.magnitude / limits[finding.class_] for finding in findings if finding.class_ in limits)
    assert max(profile.share) == pytest.approx(largest, rel=6e-3)


def test_a_single_bad_input_stands_in_its_own_group_in_any_block():
    fmt = DTYPES["f32"]
    tolerance = rules(fmt)["one"]
    x = np.concatenate([np.linspace(0.5, 0.9, 2 * BLOCK), [3e-20, -1e30]])
    truth = np.where(np.abs(x) < 1, x, -1.0)
    got = truth.astype(np.float32)
    got[-1] = -1.5
    errors = elementwise_errors(Sample(got, truth, x), tolerance)
    classify(Sample(got, truth, x), tolerance, errors, "ordinary", "y")
    profile = errors.worst.profile()
    shares = dict(zip(profile.at, profile.share, strict=True))
    assert len(shares) == 3
    bad = min(shares)
    assert (
        -(2.0 ** (profile.first + profile.width * -bad))
        < -1e30
        <= -(2.0 ** (profile.first + profile.width * (-bad - 1)))
    )
    assert shares[bad] == pytest.approx(0.5 / (fmt.unit_roundoff * 1.0) / tolerance.limit, rel=6e-3)


def test_rows_and_models_have_no_profile_and_the_widest_one_is_small():
    fmt = DTYPES["f32"]
    sample = sample_of(fmt, with_cotangent=False)
    bound = np.full(sample.x.size, 1e-3)
    rows = Tolerance(fmt=fmt, limit=1.0, unary=False)
    errors = elementwise_errors(Sample(sample.got, sample.truth, sample.x, bound=bound), rows)
    assert measurement(sample, rows, errors, [], "ordinary", "y").profile is None
    assert all(
        len(elementwise_errors(sample_of(DTYPES[d], with_cotangent=False), rules(DTYPES[d])["one"]).worst.profile().at)
        <= 145
        for d in DTYPES
    )
