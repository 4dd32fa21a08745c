"""All numbers of a 16-bit format: truncation, too many inexact results and lone outliers are found, float32 rounded once is left alone."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.comparison.comparator import comparison, comparison_of
from actconform.elements.elementwise import Sample
from actconform.oracle import truth as exact
from actconform.oracle.rounding import all_patterns, round_to
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import generate
from actconform.tolerance.limits import unary_tolerance
from actconform.types.dtypes import DTYPES

KERNELS = {kernel.name: kernel for kernel in UNARY}
NATIVE = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}
FORMATS = sorted(NATIVE)


class Exhaustive:
    """All numbers of a format, the truth of a kernel there, and the findings of answers to them."""

    def __init__(self, name, dtype):
        self.fmt, self.kernel, self.native = DTYPES[dtype], KERNELS[name], NATIVE[dtype]
        self.x = all_patterns(self.fmt).astype(np.float64)
        with np.errstate(all="ignore"):
            self.truth = exact(self.kernel, {"x": self.x}, None)["y"]
            self.nearest = round_to(self.truth, self.fmt)

    def findings(self, got, regime="exhaustive"):
        at_zero = exact(self.kernel, {"x": np.zeros(1)}, None)["y"][0]
        tolerance = unary_tolerance(self.kernel, "value", self.fmt, float(at_zero))
        with np.errstate(all="ignore"):
            sample = Sample(got=got.astype(self.native), truth=self.truth, x=self.x)
        return comparison_of({(regime, "y"): sample}, tolerance).findings

    def beside(self, values, steps):
        """Return each of `values` moved by whole steps of the format, up or down; zeros and what is no number stay."""
        with np.errstate(invalid="ignore"):  # NaN
            bits = values.astype(self.native).view(np.int16)
            moved = (bits + np.asarray(steps, np.int16)).view(self.native).astype(np.float64)
        return np.where(np.isfinite(values) & (values != 0), moved, values)

    @property
    def truncated(self):
        """The results rounded towards 0."""
        beyond = np.abs(self.nearest) > np.abs(self.truth)
        return np.where(beyond, self.beside(self.nearest, np.full(self.x.size, -1)), self.nearest)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "swish", "softplus", "leaky-relu", "elu"])
def test_truncation_is_a_bias_towards_zero(name, dtype):
    data = Exhaustive(name, dtype)
    assert data.findings(data.nearest) == []
    biased = [finding for finding in data.findings(data.truncated) if finding.class_ == "bias"]
    assert any("towards 0" in finding.evidence for finding in biased)
    assert all(0.4 < finding.magnitude <= 1.0 for finding in biased)


@pytest.mark.parametrize("dtype", FORMATS)
def test_one_binade_that_is_truncated_is_enough(dtype):
    data = Exhaustive("sigmoid", dtype)
    inside = (data.x >= 0.5) & (data.x < 1)
    (finding,) = data.findings(np.where(inside, data.truncated, data.nearest))
    assert finding.class_ == "bias"
    low, high = finding.interval.ends(data.fmt)
    assert 0.5 <= low < high < 1


@pytest.mark.parametrize(("every", "expected"), [(3, ["scaled-error", "scaled-error"]), (25, [])])
def test_more_than_a_tenth_of_results_beside_the_nearest_is_a_finding(every, expected):
    data = Exhaustive("tanh", "f16")
    turn = np.arange(data.x.size)
    steps = np.where(turn % every, 0, np.where(turn // every % 2, 1, -1))
    moved = np.where(np.abs(data.truth) > data.fmt.smallest_normal, data.beside(data.nearest, steps), data.nearest)
    found = data.findings(np.clip(moved, -1, 1))
    assert [finding.class_ for finding in found] == expected
    assert all("are not the nearest number" in finding.evidence for finding in found)


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_lone_wrong_entry_of_a_table_is_found(dtype):
    data = Exhaustive("sigmoid", dtype)
    got = data.nearest.copy()
    entry = int(np.flatnonzero(data.x == 1.25)[0])
    got[entry] = data.beside(got, np.full(got.size, 3))[entry]
    (finding,) = data.findings(got)
    assert (finding.class_, finding.count, finding.worst.index) == ("scaled-error", 1, entry)
    assert data.findings(got, regime="ordinary") == []  # within its limit: only all numbers show that it is alone


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_a_few_units_of_float32_rounded_once_are_left_alone(name, dtype):
    data = Exhaustive(name, dtype)
    with np.errstate(all="ignore"):
        off = np.where(np.arange(data.x.size) % 2, 1 + 2.0**-21, 1 - 2.0**-21)
        single = (data.truth * off).astype(np.float32).astype(np.float64)
        got = round_to(single, data.fmt)
    assert [finding for finding in data.findings(got) if "nearest" in finding.evidence] == []


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(("name", "biased"), [("prelu", True), ("reglu", True), ("softmax", False)])
def test_rows_that_are_one_product_are_held_against_the_nearest_numbers_too(name, biased, dtype):
    kernel = next(kernel for kernel in ROWS if kernel.name == name)
    test_vectors = generate(kernel, "value", dtype, load(golden_dir(), read_manifest(golden_dir()), name))

    def findings(rounded):
        with np.errstate(all="ignore"):
            answers = [{"y": rounded(vector.truth["y"]).astype(NATIVE[dtype])} for vector in test_vectors.vectors]
        return comparison(test_vectors, answers).findings

    def towards_zero(truth):
        nearest = round_to(truth, DTYPES[dtype])
        below = np.nextafter(nearest.astype(NATIVE[dtype]), NATIVE[dtype](0)).astype(np.float64)
        return np.where(np.isfinite(truth) & (np.abs(nearest) > np.abs(truth)), below, nearest)

    assert findings(lambda truth: round_to(truth, DTYPES[dtype])) == []
    assert ("bias" in {finding.class_ for finding in findings(towards_zero)}) is biased


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_share_is_of_inputs_at_which_rounding_shows(dtype):
    data = Exhaustive("exponential", dtype)  # 1 at half of all numbers, 0 or an overflow at most others
    steps = np.where(np.abs(data.x) < 3, (np.arange(data.x.size) % 5 < 2) * (1 - 2 * (np.arange(data.x.size) % 2)), 0)
    moved = np.where((np.abs(data.x) > 0.05) & (steps != 0), data.beside(data.nearest, steps), data.nearest)
    assert "scaled-error" in {finding.class_ for finding in data.findings(moved)}
