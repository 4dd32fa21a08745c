"""Errors of one side are found for each sign and binade of x; what cancels within both, or is smaller, is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.catalog.kernels import UNARY
from actconform.comparison.comparator import comparison_of
from actconform.elements.elementwise import Sample
from actconform.oracle import truth as exact
from actconform.oracle.rounding import round_to
from actconform.testdata.regimes import unary_regimes
from actconform.tolerance.limits import unary_tolerance
from actconform.types.dtypes import DTYPES

KERNELS = {kernel.name: kernel for kernel in UNARY}
F32 = DTYPES["f32"]
UNIT = F32.unit_roundoff


def findings(name, shift, regime="ordinary"):
    """Return the findings of a kernel whose results are off by `shift`(x, truth) units of 2**-24 max(1, |truth|)."""
    kernel = KERNELS[name]
    x = unary_regimes(kernel)[regime].astype(np.float64)
    with np.errstate(all="ignore"):
        truth = exact(kernel, {"x": x}, None)["y"]
        got = round_to(truth + shift(x, truth) * UNIT * np.maximum(1.0, np.abs(truth)), F32)
        at_zero = exact(kernel, {"x": np.zeros(1)}, None)["y"][0]
        tolerance = unary_tolerance(kernel, "value", F32, float(at_zero))
        sample = Sample(got=got.astype(np.float32), truth=truth, x=x)
    return comparison_of({(regime, "y"): sample}, tolerance).findings


def saturating(_, truth):
    return np.where(np.abs(truth) > 0.5, -3.0 * np.sign(truth), 0.0)


def test_an_odd_function_that_is_too_small_on_both_sides_is_biased_on_both():
    found = findings("tanh", saturating)
    assert [finding.class_ for finding in found] == ["bias", "bias"]
    low, high = found[0].interval.ends(F32)
    assert 0 <= low < high  # each side of 0 has its own
    assert all("towards 0" in finding.evidence for finding in found)


def test_a_bias_of_one_binade_is_found_where_the_mean_over_all_is_small():
    (finding,) = findings("sigmoid", lambda x, _: np.where((x >= 4) & (x < 8), 2.0, 0.0))
    assert finding.class_ == "bias"
    assert finding.magnitude == pytest.approx(2.0, abs=0.2)
    low, high = finding.interval.ends(F32)
    assert 4 <= low < high < 8


@pytest.mark.parametrize("size", [3.0 * (-1.0) ** np.arange(3073), 0.8])
def test_errors_that_cancel_or_are_small_are_no_bias(size):
    assert [finding.class_ for finding in findings("sigmoid", lambda _, truth: np.where(truth > 0.2, size, 0.0))] == []


def test_a_few_points_at_many_places_have_no_bias():
    assert "bias" not in {finding.class_ for finding in findings("tanh", saturating, "special")}


@pytest.mark.parametrize(("name", "end"), [("tanh", 1.0), ("sigmoid", 1.0), ("elu", -1.0)])
def test_an_end_that_no_result_reaches_is_a_bias_and_one_that_some_reach_is_none(name, end):
    def short(x, truth):
        return np.where(np.abs(truth - end) < 2.0**-30, -np.sign(end), 0.0)  # the number before it

    (finding,) = [f for f in findings(name, short, "tail") if "never reached" in f.evidence]
    assert finding.class_ == "bias"
    assert f"{end:.9g} is never reached" in finding.evidence
    sometimes = lambda x, truth: np.where(np.arange(x.size) % 2, short(x, truth), 0.0)  # noqa: E731
    assert not [f for f in findings(name, sometimes, "tail") if "never reached" in f.evidence]
