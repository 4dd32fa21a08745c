"""A verdict excuses what is covered, exactly that; a run conforms where nothing is new and what is required ran."""

from __future__ import annotations

import msgspec
import pytest

from actconform.types import Case, Finding, Interval, Result, Verdict
from actconform.verdict.causes.explain import Coverage
from actconform.verdict.judge import conforms, judge

replace = msgspec.structs.replace
COVER = Coverage("elu-cancels", "framework", 0.25, "explained by exp(x) - 1")


def finding(**changes):
    made = Finding(
        class_="tail",
        count=3,
        regime="edge",
        tensor="y",
        interval=Interval("0xbf800000", "0xbf000000"),
        worst=None,
        magnitude=50.0,
        evidence="seen",
    )
    return replace(made, **changes)


def result(case, verdict, *findings):
    return Result(
        case=case.id,
        subject=case.subject,
        aspect=case.aspect,
        dtype=case.dtype,
        route=case.route,
        verdict=verdict,
        findings=findings,
    )


def test_nothing_found_passes_and_says_what_is_gone():
    assert judge([], {}).verdict == Verdict.PASS
    assert judge([], {}).reason == ""
    gone = judge([], {}, ["elu-cancels", "elu-nan"])
    assert (gone.verdict, gone.reason) == (Verdict.PASS, "gone here: elu-cancels, elu-nan")


def test_a_finding_that_nothing_covers_fails_and_is_named():
    judgement = judge([finding()], {})
    assert judgement.verdict == Verdict.FAIL
    assert "1 of 1" in judgement.reason
    assert "tail" in judgement.reason
    assert judgement.findings == (finding(),)


def test_a_covered_finding_is_expected_with_the_cause_its_blame_its_evidence_and_the_share_used():
    judgement = judge([finding()], {finding().place: COVER})
    assert judgement.verdict == Verdict.XFAIL
    assert "elu-cancels" in judgement.reason
    (covered,) = judgement.findings
    assert (covered.deviation, covered.blame, covered.used) == ("elu-cancels", "framework", 0.25)
    assert covered.evidence == "seen; explained by exp(x) - 1"
    (unblamed,) = judge([finding(blame="convention")], {finding().place: COVER._replace(blame="")}).findings
    assert unblamed.blame == "convention"


NEW = {
    "another class": finding(class_="scaled-error"),
    "another regime": finding(regime="ordinary"),
    "another tensor": finding(tensor="d_x"),
    "other inputs": finding(interval=Interval("0x3f000000", "0x3f800000")),
}


@pytest.mark.parametrize("new", NEW.values(), ids=NEW)
def test_a_new_finding_beside_a_known_one_fails(new):
    judgement = judge([finding(), new], {finding().place: COVER})
    assert judgement.verdict == Verdict.FAIL
    assert "1 of 2" in judgement.reason
    assert [item.deviation for item in judgement.findings] == ["elu-cancels", None]


def test_each_finding_may_have_a_cause_of_its_own():
    other = finding(class_="nan-lost")
    covers = {finding().place: COVER, other.place: COVER._replace(cause="elu-nan")}
    judgement = judge([finding(), other], covers)
    assert (judgement.verdict, judgement.reason) == (Verdict.XFAIL, "known: elu-cancels, elu-nan")
    assert [item.deviation for item in judgement.findings] == ["elu-cancels", "elu-nan"]


NATIVE = Case("relu", "value", "f32", "torch")
ORT = Case("relu", "value", "f32", "authored+ort-cpu")
CUDA = Case("relu", "value", "f32", "authored+ort-cuda")


def test_a_run_of_passes_and_known_deviations_conforms():
    results = [result(NATIVE, Verdict.PASS), result(ORT, Verdict.XFAIL), result(CUDA, Verdict.UNAVAILABLE)]
    assert conforms([NATIVE, ORT, CUDA], results, None, ["ort-cuda"]) == []


def test_a_run_conforms_without_the_routes_to_optional_backends_and_no_others():
    gpu = replace(NATIVE, route="torch-cuda@b")
    cases = [NATIVE, ORT, CUDA, gpu]
    results = [result(case, Verdict.UNAVAILABLE if case in (CUDA, gpu) else Verdict.PASS) for case in cases]
    assert conforms(cases, results, None, {"ort-cuda", "torch-cuda"}) == []
    assert conforms(cases, results, None, {"torch-cuda"}) == ["required route authored+ort-cuda did not run"]
    assert len(conforms(cases, results, None)) == 2
    failed = [*results[:3], result(gpu, Verdict.FAIL)]
    assert conforms(cases, failed, None, {"ort-cuda", "torch-cuda"}) == ["1 FAIL"]
    assert conforms(cases, results, [gpu.route], {"ort-cuda", "torch-cuda"}) == [
        "required route torch-cuda@b did not run"
    ]


@pytest.mark.parametrize("verdict", ["FAIL", "XPASS", "CRASH", "TIMEOUT", "ERROR"])
def test_one_bad_case_does_not_conform(verdict):
    why = conforms([NATIVE, ORT], [result(NATIVE, Verdict.PASS), result(ORT, Verdict(verdict))], None)
    assert why == [f"1 {verdict}"]


def test_nothing_selected_does_not_conform():
    assert "nothing was selected" in conforms([], [], None)


def test_an_interrupted_run_does_not_conform():
    (why,) = conforms([NATIVE, replace(NATIVE, subject="elu")], [result(NATIVE, Verdict.PASS)], None)
    assert "1 selected case has no result" in why


@pytest.mark.parametrize("case", [NATIVE, ORT], ids=lambda case: case.route)
def test_a_required_route_that_is_unavailable_does_not_conform(case):
    assert conforms([case], [result(case, Verdict.UNAVAILABLE)], None) == [f"required route {case.route} did not run"]


def test_a_required_route_that_is_unavailable_is_named_with_its_reason():
    unavailable = replace(result(NATIVE, Verdict.UNAVAILABLE), reason="torch is not installed: pip install torch")
    assert conforms([NATIVE], [unavailable], None) == [
        f"required route {NATIVE.route} did not run: torch is not installed: pip install torch"
    ]


def test_routes_required_by_name_replace_the_default_ones():
    cases, results = [NATIVE, CUDA], [result(NATIVE, Verdict.UNAVAILABLE), result(CUDA, Verdict.PASS)]
    assert conforms(cases, results, [CUDA.route]) == []
    (why,) = conforms(cases, results, [CUDA.route, "keras"])
    assert "keras" in why
    (why,) = conforms([NATIVE, CUDA], [result(NATIVE, Verdict.PASS), result(CUDA, Verdict.UNAVAILABLE)], [CUDA.route])
    assert CUDA.route in why
    assert conforms([NATIVE], [result(NATIVE, Verdict.UNAVAILABLE)], []) == [], "none is required, which is not all"


def test_unsupported_is_an_outcome_and_no_failure():
    cases = [NATIVE, replace(NATIVE, dtype="bf16")]
    assert conforms(cases, [result(cases[0], Verdict.PASS), result(cases[1], Verdict.UNSUPPORTED)], None) == []
