"""Two reports side by side: what is new, gone, moved, missing, and what of it is worse."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import FACTS, finding, measurement, report, result

from actconform.bench.baseline import baseline_of
from actconform.bench.baseline import compare as compare_speeds
from actconform.report.across_runs.diff import compare_reports
from actconform.report.across_runs.diff_text import as_markdown, as_page, diff_as_text
from actconform.tolerance.ulp import to_hex
from actconform.types import Verdict
from actconform.types.dtypes import DTYPES

replace = msgspec.structs.replace
KNOWN = {"deviation": "torch-known"}


def difference(old, new, **fields):
    """The difference between reports of one case each."""
    return compare_reports(report(old), report(new, **fields))


def test_equal_reports_differ_in_nothing() -> None:
    one = report(result(findings=(finding(),)), result("elu/value/f32/torch", Verdict.CRASH))
    same_ = compare_reports(one, one)
    assert same_.worse == same_.new == same_.gone == same_.verdicts == same_.moved == same_.changed == ()
    assert diff_as_text(same_).startswith("nothing differs\n")
    assert "nothing differs" in as_markdown(same_)
    assert "nothing differs" in as_page(same_)


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (finding(count=1, magnitude=41.0, deviation="known"), True),
        (finding(low="0x40000000", high="0x40400000"), True),  # one input in common
        (finding(low="0xbf800000", high="0x7f800000"), True),
        (finding(low="0x40000001", high="0x40400000"), False),
        (finding(low="0xc0000000", high="0xbf800000"), False),
        (finding(low="0x7fc00000", high="0x7fc00000"), False),
        (finding(low="", high=""), False),
        (finding("inf"), False),
        (finding(tensor="d_x"), False),
        (finding(regime="huge"), False),
    ],
)
def test_a_finding_is_the_same_by_class_tensor_regime_and_inputs(other, is_same: bool) -> None:
    assert finding().same(other) is other.same(finding()) is is_same
    got = difference(result(findings=(finding(),)), result(findings=(other,)))
    assert (len(got.new), len(got.gone)) == ((0, 0) if is_same else (1, 1))
    assert bool(got.worse) is not is_same


NUMBERS = st.floats(width=16, allow_nan=False)


@given(st.sampled_from(sorted(DTYPES)), NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_intervals_overlap_as_their_numbers_do(dtype: str, a: float, b: float, c: float, d: float) -> None:
    fmt = DTYPES["f16" if dtype == "f16" else "f32"]
    (low, high), (other_low, other_high) = sorted((a, b)), sorted((c, d))
    one = finding(low=to_hex(low, fmt), high=to_hex(high, fmt))
    other = finding(low=to_hex(other_low, fmt), high=to_hex(other_high, fmt))
    assert one.same(other) is (low <= other_high and other_low <= high)
    assert one.same(one)


def test_findings_without_inputs_are_the_same() -> None:
    nowhere = finding("names", low="", high="", worst=None)
    assert nowhere.same(nowhere)


def test_a_new_finding_is_worse_unless_it_is_registered_and_a_gone_one_never() -> None:
    new = difference(result(), result(findings=(finding(),)))
    assert [found.case for found in new.new] == ["relu/value/f32/torch"]
    assert new.worse == ("1 new finding (1 minor)", "1 larger error", "1 verdict that does not conform")
    known = difference(result(), result(verdict=Verdict.XFAIL, findings=(finding(**KNOWN),)))
    assert (len(known.new), known.worse) == (1, ())
    assert "known: torch-known" in diff_as_text(known)
    gone = difference(result(findings=(finding(),)), result())
    assert (len(gone.gone), gone.worse) == (1, ())


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        (Verdict.PASS, Verdict.CRASH, True),
        (Verdict.PASS, Verdict.XPASS, True),
        (Verdict.PASS, Verdict.UNSUPPORTED, True),
        (Verdict.XFAIL, Verdict.UNAVAILABLE, True),
        (Verdict.UNAVAILABLE, Verdict.TIMEOUT, True),
        (Verdict.FAIL, Verdict.CRASH, True),
        (Verdict.FAIL, Verdict.XFAIL, False),
        (Verdict.CRASH, Verdict.PASS, False),
        (Verdict.CRASH, Verdict.UNAVAILABLE, False),
        (Verdict.UNAVAILABLE, Verdict.PASS, False),
        (Verdict.UNSUPPORTED, Verdict.UNAVAILABLE, False),
    ],
)
def test_verdicts(before: Verdict, after: Verdict, worse: bool) -> None:
    got = difference(result(verdict=before), result(verdict=after, reason="why"))
    assert [(one.before, one.after, one.reason) for one in got.verdicts] == [(before, after, "why")]
    assert bool(got.worse) is worse
    assert got.new == got.gone == ()


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [(1.0, 2.1, True), (2.1, 1.0, True), (1.0, 1.9, False), (0.1, 0.7, False), (0.0, 0.9, True), (0.0, 0.7, False)],
)
def test_an_error_moved_that_is_another_by_more_than_twice_and_counts(before: float, after: float, moved: bool) -> None:
    got = difference(result(measurements=(measurement(before),)), result(measurements=(measurement(after),)))
    assert len(got.moved) == moved
    assert bool(got.worse) is (moved and after > before)


def test_the_growth_of_a_known_error_is_shown_and_not_held_against() -> None:
    def known(magnitude: float):
        return result(verdict=Verdict.XFAIL, findings=(finding(magnitude=magnitude, **KNOWN),))

    got = difference(known(10.0), known(math.inf))
    assert ([one.factor for one in got.moved], got.worse) == ([math.inf], ())


def test_a_case_that_is_missing_is_worse_if_it_ran_and_one_that_came_in_if_it_fails() -> None:
    both = report(result(), result("elu/value/f32/torch", Verdict.UNAVAILABLE), result("mish/value/f32/torch"))
    got = compare_reports(both, report(result()))
    assert got.disappeared == ("elu/value/f32/torch", "mish/value/f32/torch")
    assert got.worse == ("1 case that ran before and is missing",)
    assert compare_reports(report(result()), both).worse == ()
    came = compare_reports(report(), report(result(findings=(finding(),))))
    assert (came.appeared, came.new, came.worse) == (
        ("relu/value/f32/torch",),
        (),
        ("1 verdict that does not conform",),
    )


def test_changed_facts_stand_beside() -> None:
    backends = {**FACTS.backends, "torch": {"torch": "2.13.0", "onednn": "AVX512"}, "keras": {"keras": "3"}}
    got = difference(result(), result(), facts=replace(FACTS, goldens="4567", backends=backends))
    assert [msgspec.structs.astuple(change) for change in got.changed] == [
        ("", "goldens", "0123", "4567"),
        ("torch", "torch", "2.12.0", "2.13.0"),
        ("torch", "onednn", "", "AVX512"),
    ]
    text = diff_as_text(got)
    assert "torch: torch 2.12.0 -> 2.13.0" in text
    assert "torch: onednn unknown -> AVX512" in text
    assert got.worse == ()


EVIL = "<script>alert(1)</script>|`x`\x1b[31m\ud800"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_whatever_a_report_holds_is_text_in_every_form() -> None:
    facts = replace(FACTS, backends={"torch": {"torch": EVIL}})
    evil = finding("tail", evidence=EVIL, worst=None, tensor=EVIL, regime=EVIL)
    got = compare_reports(
        report(result(), result("mish/value/f32/torch")),
        report(result(findings=(evil,), reason=EVIL), result(f"{EVIL.replace('/', '')}/a/b/c"), facts=facts),
    )
    page = as_page(got)
    parsed = Tags()
    parsed.feed(page)
    assert "script" not in parsed.tags
    assert parsed.text.count("<script>alert(1)</script>|`x`\\x1b[31m\\ud800") >= 5
    markdown = as_markdown(got)
    assert "<script>" not in markdown
    assert "\x1b" not in diff_as_text(got) + markdown + page
    for form in (diff_as_text(got), markdown, page):
        form.encode()


def test_long_lists_are_cut_but_for_the_page() -> None:
    many = [f"k{n}/value/f32/torch" for n in range(120)]
    got = compare_reports(report(*map(result, many)), report())
    assert "… and 70 more" in diff_as_text(got)
    assert "… and 70 more" in as_markdown(got)
    assert len(as_markdown(got).splitlines()) < 70
    assert as_page(got).count("/value/f32/torch") == 120
    assert "http" not in as_page(got)


def test_a_phone_shows_the_page(browse, too_small, tmp_path) -> None:
    worse = finding(evidence="a long sentence that takes more than one line on a phone, " * 3)
    name = "a-subject-with-a-long-name/gradient/bf16/torch-torchscript@const+ort-cpu"
    path = tmp_path / "diff.html"
    path.write_text(as_page(difference(result(name), result(name, findings=(worse,)))), encoding="utf-8")
    page = browse(path.as_uri(), width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert too_small(page) == []
    assert page.locator("tbody tr").first.bounding_box()["height"] < 120


def test_what_became_slower_is_worse_and_stands_in_a_table(timed) -> None:
    one = report(result())
    speeds = compare_speeds(baseline_of(timed({"torch": 1e-3})), timed({"torch": 2e-3}, seed=1))
    found = compare_reports(one, one, speeds)
    assert found.worse == ("1 slower benchmark result",)
    for text in (diff_as_text(found), as_markdown(found), as_page(found)):
        assert "relu forward 1K" in text
        assert "slower: 2.00 times the baseline" in text
    again = compare_speeds(baseline_of(timed({"torch": 1e-3})), timed({"torch": 1e-3}, seed=1))
    assert diff_as_text(compare_reports(one, one, again)).startswith("nothing differs\n")


def test_versions_may_differ_where_speeds_are_compared_but_not_machines(timed) -> None:
    one, facts = report(result()), {"torch": {"torch": "2.12"}, "calibration": {"numpy": "2.0"}}
    speeds = compare_speeds(
        baseline_of(timed({"torch": 1e-3}, facts=facts)), timed({"torch": 2e-3}), other_versions=True
    )
    assert compare_reports(one, one, speeds).worse == ("1 slower benchmark result",)
    made = timed({"torch": 1e-3})
    other = baseline_of(replace(made, machine=replace(made.machine, cpu="another")))
    found = compare_reports(one, one, compare_speeds(other, timed({"torch": 2e-3}), other_versions=True))
    assert found.worse == ()
    assert "cpu was another" in diff_as_text(found)


def test_a_run_that_no_longer_conforms_is_worse_and_says_why() -> None:
    got = difference(result(), result(), problems=("required route torch did not run",))
    assert got.worse == ("the run no longer conforms",)
    assert "required route torch did not run" in diff_as_text(got)
    assert not compare_reports(*[report(result(), problems=("it never did",))] * 2).worse


def test_a_finding_that_lost_the_deviation_that_covered_it_is_a_new_one() -> None:
    covered, bare = result(findings=(finding(**KNOWN),)), result(findings=(finding(),))
    assert difference(covered, bare).worse == ("1 new finding (1 minor)",)
    assert [found.finding for found in difference(covered, bare).new] == list(bare.findings)
    for before, after in ((bare, covered), (covered, covered), (bare, bare)):
        assert not difference(before, after).new
    both = result(findings=(*covered.findings, *bare.findings))
    assert not difference(both, bare).new


def test_findings_stand_gravest_first_with_their_severity() -> None:
    cases = {"small": finding(), "nan": finding("nan-made", regime="ordinary"), "agreed": finding(blame="convention")}
    clean = [result(f"{name}/value/f32/torch") for name in cases]
    bad = [result(f"{name}/value/f32/torch", findings=(made,)) for name, made in cases.items()]
    got = compare_reports(report(*clean), report(*bad))
    assert [one.case.split("/")[0] for one in got.new] == ["nan", "small", "agreed"]
    assert got.worse[0] == "3 new findings (1 critical, 1 minor, 1 convention)"
    assert [one.case.split("/")[0] for one in got.verdicts] == ["nan", "small", "agreed"]
    gone = compare_reports(report(*bad), report(*clean))
    assert [one.case.split("/")[0] for one in gone.gone] == ["nan", "small", "agreed"]
    for text in (diff_as_text(got), as_markdown(got), as_page(got)):
        assert text.index("critical") < text.index("minor")


def test_another_blame_is_told_and_is_not_worse() -> None:
    got = difference(result(findings=(finding(blame="exporter"),)), result(findings=(finding(blame="runtime"),)))
    assert [(one.case, one.before, one.finding.blame) for one in got.blamed] == [(result().case, "exporter", "runtime")]
    assert not got.worse
    assert "Changed blame (1)" in diff_as_text(got)
