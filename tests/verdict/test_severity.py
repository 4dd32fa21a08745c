"""One table says how grave a finding is: by class, inputs and size; and the gravest decides."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actconform.tolerance.ulp import to_hex
from actconform.types import Finding, FindingClass, Interval, Measurement, Result, Verdict, Worst
from actconform.types.dtypes import DTYPES
from actconform.types.finding import CLASSES, FIXED_SHAPE, WITHIN_LIMITS, Severity, Where
from actconform.verdict.severity import (
    CRITICAL_FROM,
    MAJOR_FROM,
    ORDINARY_UP_TO,
    counted,
    graded,
    gravest,
    mark,
    place_of,
    severity_of,
    severity_order,
    tally,
)

TOP = Path(__file__).parents[2]
replace = msgspec.structs.replace
NAN, INF = math.nan, math.inf


def finding(class_: str = "scaled-error", low: float = 1.0, high: float = 2.0, dtype: str = "f32", **fields) -> Finding:
    """A finding over an interval of ordinary inputs, far off; `fields` override."""
    ends = Interval(to_hex(low, DTYPES[dtype]), to_hex(high, DTYPES[dtype]))
    made = Finding(
        class_=class_,
        count=1,
        regime="exhaustive",
        tensor="y",
        interval=ends,
        worst=Worst(input_hex=ends[1], index=0, truth=1.0, got=2.0, ulp=9.0, scaled=9.0),
        magnitude=1e6,
        blame="framework",
    )
    return replace(made, **fields)


def measurement(limit: float, regime: str = "exhaustive", tensor: str = "y") -> Measurement:
    return Measurement(
        tensor=tensor,
        regime=regime,
        n=1,
        max_ulp=0.0,
        max_scaled=0.0,
        bias=0.0,
        limit=limit,
        margin=1.0,
        histogram=(),
    )


def result(*findings: Finding, dtype: str = "f32", limit: float = 8.0, **fields) -> Result:
    made = Result(
        case=f"elu/value/{dtype}/torch",
        subject="elu",
        aspect="value",
        dtype=dtype,
        route="torch",
        verdict=Verdict.FAIL,
        findings=findings,
        measurements=(measurement(limit),),
    )
    return replace(made, **fields)


def test_severities_are_ordered_gravest_first() -> None:
    assert [str(severity) for severity in sorted(Severity, key=lambda severity: severity.rank)] == [
        "critical",
        "major",
        "minor",
        "convention",
    ]


@pytest.mark.parametrize(
    ("made", "place"),
    [
        (finding(low=1.0, high=2.0), Where.ORDINARY),
        (finding(low=-ORDINARY_UP_TO, high=-ORDINARY_UP_TO), Where.ORDINARY),
        (finding(low=-1e30, high=-3.0), Where.ORDINARY),  # it reaches into them
        (finding(low=3.0, high=1e30), Where.ORDINARY),
        (finding(low=21.0, high=1e30), Where.LARGE),
        (finding(low=-1e30, high=-21.0), Where.LARGE),
        (finding(low=0.0, high=0.0), Where.ORDINARY),
        (finding(low=-0.0, high=-0.0), Where.ORDINARY),
        (finding(low=1e-45, high=1e-39), Where.SUBNORMAL),
        (finding(low=-1e-39, high=-1e-45), Where.SUBNORMAL),
        (finding(low=-1e-37, high=-1e-45), Where.ORDINARY),
        (finding(low=NAN, high=NAN), Where.SPECIAL),
        (finding(low=-INF, high=-INF), Where.SPECIAL),
        (finding(low=1.0, high=2.0, regime="special"), Where.SPECIAL),
        (finding(low=-1e38, high=1e38, regime="huge"), Where.LARGE),  # rows: large beside small
        (finding(low=1.0, high=2.0, regime="subnormal"), Where.SUBNORMAL),
        (finding(low=1e30, high=1e30, regime="layers"), Where.ORDINARY),  # of a model, whose interval says nothing
        (finding(interval=Interval("", ""), worst=None, regime=""), Where.ORDINARY),
        (finding(interval=Interval("0xzz", "junk")), Where.ORDINARY),
        (finding(interval=Interval("0x1234567890", "0x1")), Where.ORDINARY),
    ],
)
def test_a_finding_is_at_the_inputs_that_it_reaches(made: Finding, place: Where) -> None:
    assert place_of(made, DTYPES["f32"]) is place


@pytest.mark.parametrize(("dtype", "tiny", "place"), [("f16", 3e-5, "subnormal"), ("bf16", 3e-5, "ordinary")])
def test_what_is_subnormal_is_asked_of_the_format(dtype: str, tiny: float, place: str) -> None:
    pattern = {"f16": "0x01f7", "bf16": "0x37fb"}[dtype]  # 3.0e-5
    at_inputs = finding(interval=Interval(pattern, pattern))
    assert place_of(at_inputs, DTYPES[dtype]).value == place
    off = Worst(input_hex="0x3c00", index=0, truth=0.0, got=tiny, ulp=9.0, scaled=9.0)
    assert place_of(finding(dtype=dtype, worst=off), DTYPES[dtype]).value == place


def test_a_format_that_is_not_known_goes_by_the_regime_alone() -> None:
    assert severity_of(finding(regime="huge"), "f8") is Severity.MAJOR
    assert severity_of(finding(regime="edge"), "f8") is Severity.CRITICAL


@pytest.mark.parametrize(
    ("class_", "regime", "fields", "severity"),
    [
        ("nan-made", "ordinary", {}, "critical"),
        ("nan-made", "special", {}, "major"),
        ("nan-made", "huge", {}, "major"),
        ("nan-made", "subnormal", {}, "major"),
        ("inf", "layers", {}, "critical"),
        ("scaled-error", "subnormal", {}, "minor"),
        ("kink", "kink", {}, "critical"),
        ("tail", "ordinary", {}, "minor"),
        ("subnormal-flush", "special", {}, "minor"),
        ("zero-sign", "ordinary", {}, "convention"),
        ("invalid-model", "", {}, "critical"),
        ("dtype", "", {}, "critical"),
        ("shape", "ordinary", {}, "critical"),
        ("shape", "", {}, "major"),  # a graph that takes one size alone
        ("mutates-input", "ordinary", {}, "critical"),
        ("nondeterministic", "ordinary", {"magnitude": 0.0}, "major"),
        ("nondeterministic", "ordinary", {"magnitude": 1.0}, "critical"),
        ("property", "property", {}, "critical"),
        ("formula", "ordinary", {"magnitude": 1.5}, "minor"),
        ("formula", "ordinary", {"magnitude": 1e4}, "critical"),
        ("bias", "ordinary", {"magnitude": 12.0}, "major"),
        ("bias", "ordinary", {"magnitude": 1.5}, "minor"),
        ("nan-made", "ordinary", {"blame": "convention"}, "convention"),
        ("scaled-error", "ordinary", {"magnitude": NAN}, "critical"),
        ("scaled-error", "ordinary", {"magnitude": INF}, "critical"),
    ],
)
def test_the_table(class_: str, regime: str, fields: dict, severity: str) -> None:
    assert severity_of(finding(class_, regime=regime, **fields), "f32") == severity


@pytest.mark.parametrize("limit", [1.0, 5.0, 16.0])
def test_size_is_counted_in_limits(limit: float) -> None:
    def grade(times: float, regime: str = "exhaustive") -> Severity:
        made = finding(magnitude=times * limit, regime=regime)
        return severity_of(made, "f32", (measurement(1e9, "other"), measurement(1e9, tensor="z"), measurement(limit)))

    assert [grade(times) for times in (1.2, MAJOR_FROM, 9.9, CRITICAL_FROM, 100.0)] == [
        Severity.MINOR,
        Severity.MAJOR,
        Severity.MAJOR,
        Severity.CRITICAL,
        Severity.CRITICAL,
    ]


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_an_exact_limit_counts_as_one_ulp(limit: float) -> None:
    one, many = (severity_of(finding(magnitude=ulp), "f32", [measurement(limit)]) for ulp in (1.0, 100.0))
    assert (one, many) == (Severity.MINOR, Severity.CRITICAL)


def test_one_ulp_outside_of_the_range_is_minor_and_far_outside_is_critical() -> None:
    near, far = (severity_of(finding("range", magnitude=ulp), "f32", [measurement(1.0)]) for ulp in (3.0, 1e6))
    assert (near, far) == (Severity.MINOR, Severity.CRITICAL)


def test_every_class_has_a_row_and_says_what_it_means() -> None:
    assert {*CLASSES} == {*FindingClass, FIXED_SHAPE, WITHIN_LIMITS}
    assert all(row.meaning and row.reason and row.unit in ("", "scaled", "ulp", "bound") for row in CLASSES.values())
    assert [row.meaning for row in CLASSES.values() if row.sized and not row.unit] == []


def test_a_result_has_its_findings_gravest_first_and_its_blame_from_the_first() -> None:
    agreed = finding("nan-lost", blame="convention", deviation="d")
    wrong = finding("scaled-error", magnitude=1e44, blame="exporter", deviation="d")
    made = graded(result(agreed, finding("tail", deviation="d"), wrong, verdict=Verdict.XFAIL))
    assert [(each.class_, each.severity) for each in made.findings] == [
        ("scaled-error", "critical"),
        ("tail", "minor"),
        ("nan-lost", "convention"),
    ]
    assert made.blame == "exporter"
    assert graded(made) == made


def test_a_new_finding_decides_before_a_graver_known_one() -> None:
    made = graded(result(finding("nan-made", deviation="d", blame="exporter"), finding("tail", blame="runtime")))
    assert (made.findings[0].class_, made.blame) == ("tail", "runtime")
    assert [mark(each) for each in made.findings] == ["●", "▲"]


def test_a_severity_that_a_report_has_is_kept_and_one_that_is_none_is_not() -> None:
    kept, odd = finding("tail", severity="critical"), finding("tail", severity="catastrophic")
    assert sorted(each.severity for each in graded(result(kept, odd)).findings) == ["critical", "minor"]


def test_what_has_no_findings_is_left_as_it_is() -> None:
    crash = result(verdict=Verdict.CRASH, blame="")
    assert graded(crash) is crash
    assert gravest([]) is None
    assert tally([]) == ""
    assert counted([crash, crash], "CRASH") == "2 CRASH"


def test_results_are_counted_by_their_gravest_finding() -> None:
    small = graded(result(finding("tail", deviation="d")))
    both = graded(result(finding("tail", deviation="d"), finding("nan-made", deviation="d")))
    assert counted([small, both, small], "known") == "3 known (1 critical, 2 minor)"
    assert tally([*small.findings, *both.findings, None]) == "1 critical, 2 minor"


FINDINGS = st.builds(
    finding,
    st.sampled_from([*FindingClass]),
    regime=st.sampled_from(["ordinary", "edge", "special", "huge", "subnormal", "layers", ""]),
    magnitude=st.floats(min_value=0.0),
    deviation=st.sampled_from([None, "d"]),
    blame=st.sampled_from(["framework", "exporter", "convention"]),
)


@given(st.lists(FINDINGS, min_size=1, max_size=8).flatmap(lambda made: st.tuples(st.just(made), st.permutations(made))))
def test_the_order_does_not_depend_on_where_findings_stood(both: tuple[list[Finding], list[Finding]]) -> None:
    first, second = (graded(result(*findings)) for findings in both)
    assert list(map(severity_order, first.findings)) == list(map(severity_order, second.findings))
    ranks = [(each.deviation is not None, Severity(each.severity).rank) for each in first.findings]
    assert all(before <= after for before, after in itertools.pairwise(ranks))
    assert gravest(first.findings) == first.findings[0]


def test_the_table_is_the_published_one() -> None:
    text = (TOP / "docs/reports.md").read_text()
    for class_, row in CLASSES.items():
        severities = [str(row.at(place)) for place in Where]
        cells = severities if len(set(severities)) > 1 else [severities[0], "", "", ""]
        line = f"| {class_} | {' | '.join(cells)} | {'yes' if row.sized else ''} | {row.reason} |"
        assert " ".join(line.split()) in [" ".join(each.split()) for each in text.splitlines()], line
