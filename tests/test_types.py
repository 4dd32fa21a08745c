"""The vocabulary: formats as libraries know them, float32 parameters, cases and findings as data."""

from __future__ import annotations

import json
import math
import pickle

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actconform.types import ASPECTS, BAD, RAN, Case, Finding, Interval, Kernel, Kink, Verdict, Worst, f32
from actconform.types.dtypes import DTYPES

NUMPY = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("name", DTYPES)
def test_a_format_is_what_the_library_says(name: str):
    fmt, info = DTYPES[name], ml_dtypes.finfo(NUMPY[name])
    assert fmt.name == name
    assert fmt.bits == info.bits
    assert fmt.smallest_normal == float(info.smallest_normal)
    assert fmt.smallest_subnormal == float(info.smallest_subnormal)
    assert fmt.largest == float(info.max)
    assert fmt.unit_roundoff == float(info.eps) / 2
    assert fmt.precision == info.nmant + 1


@pytest.mark.parametrize("name", ["f32", "f16"])
def test_overflow_is_the_smallest_number_that_rounds_to_infinity(name: str):
    fmt = DTYPES[name]
    with np.errstate(over="ignore"):
        assert np.isinf(np.float64(fmt.overflow).astype(NUMPY[name]))
        assert np.float64(math.nextafter(fmt.overflow, 0)).astype(NUMPY[name]) == fmt.largest


@settings(deadline=None, max_examples=60)
@given(st.floats(width=32))
def test_a_float32_number_is_its_own_parameter(number: float):
    assert f32(number) == number or math.isnan(number)


@settings(deadline=None, max_examples=60)
@given(st.floats(-1e38, 1e38))
def test_a_parameter_is_the_nearest_float32(number: float):
    assert f32(number) == float(np.float32(number))


def test_cases_are_ordered_hashable_and_cross_processes():
    first, second = Case("elu", "value", "f32", "torch"), Case("relu", "gradient", "bf16", "authored+ort-cpu")
    assert sorted([second, first]) == [first, second]
    assert {first: 1}[Case("elu", "value", "f32", "torch")] == 1
    assert pickle.loads(pickle.dumps(second)) == second  # noqa: S301  our own bytes
    assert msgspec.json.decode(msgspec.json.encode(second), type=Case) == second
    assert second.id == "relu/gradient/bf16/authored+ort-cpu"
    assert ASPECTS == ("value", "gradient")


def test_nothing_that_flows_along_the_line_can_be_changed():
    for made in (
        Case("elu", "value", "f32", "torch"),
        Kernel(name="cube", definition="x^3", source="tests"),
        DTYPES["f32"],
    ):
        field = made.__struct_fields__[0]
        with pytest.raises(AttributeError):
            setattr(made, field, "other")


def test_no_verdict_is_both_good_and_bad_and_a_skip_is_neither():
    skipped = {Verdict.UNSUPPORTED, Verdict.UNAVAILABLE}
    assert set(BAD) | {Verdict.PASS, Verdict.XFAIL} | skipped == set(Verdict)
    assert not set(RAN) & skipped
    assert not set(BAD) & skipped


def test_findings_are_called_class_outside_and_survive_the_way_there_and_back():
    finding = Finding(
        class_="tail",
        count=1,
        regime="tail",
        tensor="y",
        interval=Interval("0x3f800000", "0x3f800000"),
        worst=Worst("0x3f800000", 0, 1.0, 2.0, 3.0, 4.0),
        magnitude=3.0,
    )
    text = msgspec.json.encode(finding)
    assert json.loads(text)["class"] == "tail"
    assert msgspec.json.decode(text, type=Finding) == finding
    assert finding.place == ("tail", "tail", "y", ("0x3f800000", "0x3f800000"))


def test_at_nan_a_kernel_of_pieces_may_have_the_slope_of_any():
    kernel = Kernel(
        name="k",
        definition="",
        source="",
        kinks=(Kink(0.0, 0.25, 1.0),),
        gradient_at_infinity=(0.0, math.inf),
    ).with_pieces()
    (convention,) = kernel.conventions
    assert convention.aspect == "gradient"
    assert math.isnan(convention.inputs[0])
    assert convention.answers == (0.0, 0.25, 1.0)
