"""A pass over a chunk finds what is wrong, where it is, and nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from actconform.catalog.kernels import KERNELS
from actconform.errors import Unsupported
from actconform.exhaustive.measure import SweptFunction, measured_chunk
from actconform.exhaustive.patterns import patterns, swept_inputs
from actconform.exhaustive.statistics import CountedInputs

ONES, SPECIAL, SUBNORMAL = (
    63,
    127,
    0,
)  # chunks: |x| in [0.5, 2); the largest numbers, infinity, NaN; zero and subnormals
TANH = SweptFunction.of(KERNELS["tanh"], "value")


def right(x):
    with np.errstate(invalid="ignore"):  # signalling NaN
        return np.tanh(x.astype(np.float64)).astype(np.float32)


def wrong_at(pattern, answer, correct=right):
    def call(x):
        y = correct(x)
        y[x.view(np.uint32) == pattern] = answer
        return y

    return call


def test_a_correct_kernel_is_right_everywhere():
    for chunk in (ONES, SPECIAL, SUBNORMAL):
        statistics, _ = measured_chunk(TANH, chunk, "sample", right)
        assert statistics.inputs == swept_inputs(chunk, "sample") == 1 << 16
        assert statistics.correctly_rounded == statistics.below(1) == sum(statistics.histogram) == 1 << 16
        assert statistics.ulp.error <= 0.5 + 1e-6
        assert statistics.findings == ()
        assert abs(statistics.bias) < 0.01


def test_an_error_is_found_with_its_input_and_size():
    pattern = int(patterns(126, "sample")[20_000])
    answer = right(np.uint32(pattern).view(np.float32)[None])[0] + np.float32(5 * 2.0**-24)
    statistics, _ = measured_chunk(TANH, ONES, "sample", wrong_at(pattern, answer))
    assert statistics.correctly_rounded == statistics.below(4) == (1 << 16) - 1
    assert statistics.below(8) == 1 << 16
    assert statistics.ulp.input_hex == statistics.scaled.input_hex == f"0x{pattern:08x}"
    assert statistics.ulp.error == pytest.approx(5.0, abs=0.51)
    assert [each.ulp.error > 4 for each in statistics.binades] == [True, False]
    assert statistics.findings == ()  # within the limit of 8


@pytest.mark.parametrize(
    ("chunk", "pattern", "answer", "class_"),
    [
        (ONES, 0x3F800000, 0.5, "scaled-error"),
        (ONES, 0x3F800000, np.nan, "nan-made"),
        (ONES, 0x3F800000, np.inf, "inf"),
        (SPECIAL, 0x7FC00000, 1.0, "nan-lost"),
        (SPECIAL, 0x7F800000, 1.0000001, "range"),
        (SUBNORMAL, 0x00000000, -0.0, "zero-sign"),
    ],
)
def test_what_breaks_a_limit_is_a_finding_at_its_input(chunk, pattern, answer, class_):
    pattern = next(int(each) for each in patterns(pattern >> 23, "sample") if each >= pattern)
    statistics, _ = measured_chunk(TANH, chunk, "sample", wrong_at(pattern, answer))
    (finding,) = statistics.findings
    assert (finding.class_, finding.count) == (class_, 1)
    assert finding.worst.input_hex == f"0x{pattern:08x}"
    if class_ != "nan-lost":
        assert finding.interval == (f"0x{pattern:08x}",) * 2
    assert statistics.correctly_rounded == (1 << 16) - (class_ != "zero-sign")


def test_findings_of_many_blocks_are_one_for_each_class_and_binade():
    statistics, _ = measured_chunk(TANH, ONES, "sample", lambda x: np.where(x > 1.5, np.float32(0), right(x)))
    (finding,) = statistics.findings
    above = patterns(127, "sample").view(np.float32) > 1.5
    assert finding.count == above.sum()
    assert finding.interval == (f"0x{patterns(127, 'sample')[above.argmax()]:08x}", "0x3fffffff")
    negative, _ = measured_chunk(TANH, ONES + 128, "sample", lambda x: np.where(x < -1.5, np.float32(0), right(x)))
    assert negative.findings[0].interval == ("0xbfffffff", finding.interval.first.replace("0x3", "0xb"))


def test_flushed_results_are_counted_where_they_are_forgiven():
    flush = lambda x: np.where(np.abs(x) < 2.0**-126, np.float32(0), right(x))  # noqa: E731
    statistics, _ = measured_chunk(TANH, SUBNORMAL, "sample", flush)
    assert statistics.findings == ()
    assert statistics.flushed == CountedInputs((1 << 15) - 1, "0x00000001", "0x007fffff")
    assert statistics.ulp.input_hex == "0x007fffff"


def test_the_digest_is_of_the_outputs_every_nan_alike():
    _, plain = measured_chunk(TANH, SPECIAL, "sample", right)
    _, negative = measured_chunk(TANH, SPECIAL, "sample", lambda x: np.where(np.isnan(x), -np.abs(x), right(x)))
    _, moved = measured_chunk(TANH, SPECIAL, "sample", wrong_at(0x7F800000, np.nextafter(np.float32(1), np.float32(0))))
    assert plain == negative != moved
    outputs = [right(patterns(binade, "sample").view(np.float32)) for binade in (254, 255)]
    joined = np.concatenate(outputs)
    joined[np.isnan(joined)] = np.nan
    assert plain == hashlib.sha256(joined.tobytes()).hexdigest()


def test_a_gradient_is_held_against_the_derivative():
    function = SweptFunction.of(KERNELS["tanh"], "gradient")
    statistics, _ = measured_chunk(
        function, ONES, "sample", lambda x: function.formula(x.astype(np.float64), {}).astype(np.float32)
    )
    assert statistics.correctly_rounded == 1 << 16
    statistics, _ = measured_chunk(function, ONES, "sample", right)
    assert [finding.class_ for finding in statistics.findings] == ["scaled-error", "scaled-error"]


def test_at_a_kink_either_slope_is_right():
    function = SweptFunction.of(KERNELS["relu"], "gradient")
    for slope, classes in ((0.0, []), (1.0, []), (2.0, ["kink"])):
        step = lambda x: np.where(np.isnan(x), x, (x > 0).astype(np.float32))  # noqa: E731
        statistics, _ = measured_chunk(function, SUBNORMAL, "sample", wrong_at(0, slope, step))
        assert [finding.class_ for finding in statistics.findings] == classes


@pytest.mark.parametrize(
    ("kernel", "aspect", "words"),
    [
        ("softmax", "value", "softmax is not elementwise: it depends on whole rows"),
        ("prelu", "value", "prelu is not elementwise: it depends on the inputs x and slope"),
        ("max", "value", "max is not elementwise"),
    ],
)
def test_what_is_not_elementwise_is_refused(kernel, aspect, words):
    with pytest.raises(Unsupported, match=words):
        SweptFunction.of(KERNELS[kernel], aspect)
