"""Blame accuses nobody without a witness: convention where both answers are defensible, framework where nothing else is there."""

from __future__ import annotations

import math

import pytest
from msgspec import structs

from actconform.blame import blame
from actconform.compare.ulp import to_hex
from actconform.types import DTYPES, Case, Convention, Finding, Kernel, Worst

PLAIN = Kernel(name="k", definition="", source="")
GATED = Kernel(
    name="silu",
    definition="",
    source="",
    conventions=(Convention("value", (-math.inf,), "-inf * 0"), Convention("gradient", (0.0, math.inf), "a choice")),
)


def finding(class_="inf", low=1.0, high=None, dtype="f32", evidence=""):
    ends = ("", "") if low is None else tuple(to_hex(x, DTYPES[dtype]) for x in (low, low if high is None else high))
    return Finding(
        class_=class_, count=1, regime="edge", tensor="y", interval=ends, worst=None, magnitude=0.0, evidence=evidence
    )


def case(aspect="value", dtype="f32", route="torch"):
    return Case("k", aspect, dtype, route)


def test_a_native_route_has_nobody_else_to_blame():
    blamed = blame(finding(evidence="seen twice"), PLAIN, case())
    assert blamed.blame == "framework"
    assert blamed.evidence == "seen twice"  # no number: truth is no witness of what a backend does
    number = Worst(input_hex="0x3f800000", index=0, truth=1.0, got=2.0, ulp=1e7, scaled=1e7)
    assert "torch" in blame(structs.replace(finding(), worst=number), PLAIN, case()).evidence


def test_a_graph_leaves_it_open_between_exporter_and_runtime():
    assert blame(finding(), PLAIN, case(route="authored+ort-cpu")) == finding()
    assert blame(finding(), PLAIN, case(route="torch-dynamo+ort-cpu")).blame == "undetermined"


@pytest.mark.parametrize("route", ["torch", "authored+ort-cpu"])
@pytest.mark.parametrize(
    ("kernel", "seen", "aspect"),
    [
        (Kernel(name="k", definition="", source="", defaults_only=True), finding("scaled-error"), "value"),
        (PLAIN, finding("zero-sign", 0.0), "value"),
        (Kernel(name="argmax", definition="", source="", output_dtype="int64"), finding("dtype", None), "value"),
        (GATED, finding("nan-made", -math.inf), "value"),
        (GATED, finding("kink", 0.0), "gradient"),
        (GATED, finding("kink", math.inf), "gradient"),
    ],
)
def test_where_both_answers_are_defensible_it_is_convention(kernel, seen, aspect, route):
    blamed = blame(seen, kernel, case(aspect, route=route))
    assert blamed.blame == "convention"
    assert blamed.evidence


@pytest.mark.parametrize(
    ("kernel", "seen", "aspect"),
    [
        (PLAIN, finding("dtype", None), "value"),
        (GATED, finding("nan-made", math.inf), "value"),
        (GATED, finding("nan-made", -math.inf), "gradient"),
        (GATED, finding("nan-made", -math.inf, 1.0), "value"),
        (GATED, finding("nan-made", math.nan), "value"),
        (GATED, finding("names", None), "value"),
    ],
)
def test_a_convention_holds_for_its_aspect_and_inputs_only(kernel, seen, aspect):
    assert blame(seen, kernel, case(aspect)).blame == "framework"


def test_patterns_are_read_in_the_format_of_the_case():
    assert blame(finding("nan-made", -math.inf, dtype="bf16"), GATED, case(dtype="bf16")).blame == "convention"
    assert blame(finding("nan-made", -math.inf, dtype="f16"), GATED, case(dtype="f16")).blame == "convention"


def test_the_finding_is_otherwise_left_as_it_was():
    seen = finding("zero-sign", 0.0)
    blamed = blame(seen, PLAIN, case())
    for field in ("class_", "count", "regime", "tensor", "interval", "worst", "magnitude", "deviation"):
        assert getattr(blamed, field) == getattr(seen, field)
