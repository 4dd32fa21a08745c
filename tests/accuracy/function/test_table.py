"""What a person reads of a measurement says what was measured."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from actconform.accuracy.function.measure import measure


def tanh(x):
    return np.tanh(x.astype(np.float64)).astype(x.dtype)


def test_what_conforms_has_its_figures_and_worst_input():
    lines = str(measure(tanh, "tanh", "bf16")).splitlines()
    assert lines[0] == "tanh as tanh in bf16: conforms    (tanh(x))"
    assert lines[1].startswith("values    65,536 elements, 100.00 % correctly rounded, at most 0.")
    assert lines[2] == "  |error| in ULP: to 1/2 100.00 %"
    assert len(lines) == 4


def test_findings_of_one_class_are_one_line_with_what_to_act_on():
    def broken(x):
        return np.where(np.abs(x) > 3, -tanh(x), tanh(x)).astype(x.dtype)

    measured = measure(broken, "tanh", "f32", lambda x, ct: ct)
    text = str(measured)
    assert "broken as tanh in f32: DOES NOT CONFORM" in text
    assert "● critical the error is beyond its limit" in text
    assert "gradients" in text
    assert "times its limit" in text
    of_values = [finding for finding in measured.value.findings if finding.class_ == "scaled-error"]
    assert len(of_values) > 1
    assert f"{sum(f.count for f in of_values if f.severity == 'critical'):,} in " in text
    assert len(text.splitlines()) <= 18
    assert repr(measured) == "<broken as tanh in f32: does not conform>"


def test_the_worst_input_is_named_by_number_and_pattern():
    measured = measure(lambda x: np.where(x == 1.5, 0.25, tanh(x)).astype(x.dtype), "tanh", "bf16")
    assert "worst at x = 1.5 (0x3fc0): got 0.25, truth 0.905148" in str(measured)
    assert measured.worst.input == 1.5


def test_nothing_comparable_is_said():
    assert "none could be compared" in str(measure(lambda x: tanh(x)[..., None], "tanh", "f16"))


def test_parameters_are_shown():
    assert "with alpha 0.5)" in str(measure(tanh, "elu-half", "bf16"))


def test_the_histogram_counts_every_number_once():
    measured = measure(tanh, "tanh", "bf16")
    bins = measured.histogram
    assert sum(b.n for b in bins) == (1 << 16) - 2 * 127  # no NaN
    assert all(low.high <= high.low for low, high in pairwise(bins))
    assert sum(b.n for b in bins if b.low >= 0.5) == 0


def test_a_notebook_gets_the_lines_as_html_and_no_markup_of_the_function():
    def tanh_(x):
        return tanh(x)

    tanh_.__name__ = "<script>alert(1)</script>"
    html = measure(tanh_, "tanh", "bf16")._repr_html_()
    tags = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append(tag)

    Parser().feed(html)
    assert "script" not in tags
    assert tags.count("tr") == len(str(measure(tanh, "tanh", "bf16")).splitlines())
    assert len(html) < 4000


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_every_element_has_a_row(dtype):
    def gradient(x, ct):
        y = np.tanh(x.astype(np.float64))
        return ((1 - y * y) * ct).astype(x.dtype)

    measured = measure(tanh, "tanh", dtype, gradient)
    columns = measured.columns()
    assert len({array.shape for array in columns.values()}) == 1
    values = columns["aspect"] == "value"
    assert np.isnan(columns["cotangent"][values]).all()
    assert np.isnan(columns["cotangent"][~values]).mean() < 1e-3  # a few are NaN, and asked so
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(
            columns["share"][values] > 1, np.zeros(np.count_nonzero(values), bool), err_msg="what conforms is within"
        )
        x = columns["input"][values]
        np.testing.assert_allclose(columns["truth"][values], np.tanh(x), rtol=1e-13)
    assert columns["share"].max() == pytest.approx(measured.worst.share)
