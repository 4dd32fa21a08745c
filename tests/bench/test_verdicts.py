"""The mark beside a figure: never better than its cases."""

from __future__ import annotations

import pytest

from actconform.bench.verdicts import cases, judged
from actconform.bench.workloads import Workload
from actconform.types import Case, Finding, Interval, Result, Verdict
from actconform.verdict.severity import graded

FORWARD, BACKWARD = Workload("relu", "forward", 1), Workload("relu", "forward+backward", 1)


def result(aspect, verdict, *classes, blame="runtime", deviation="known"):
    case = Case("relu", aspect, "f32", "torch")
    findings = tuple(
        Finding(
            class_=one,
            count=1,
            regime="ordinary",
            tensor="y",
            interval=Interval("", ""),
            worst=None,
            magnitude=0.0,
            blame=blame,
            deviation=deviation,
        )
        for one in classes
    )
    made = Result(
        case=case.id,
        subject="relu",
        aspect=aspect,
        dtype="f32",
        route="torch",
        verdict=verdict,
        reason=f"why {aspect}",
        findings=findings,
    )
    return graded(made)


def found(workload, *results):
    one = judged(workload, "torch", {result.case: result for result in results})
    return one.verdict, one.mark, one.finding


def test_marks_are_those_of_the_screen():
    assert found(FORWARD, result("value", Verdict.PASS)) == ("PASS", "", "")
    assert found(FORWARD, result("value", Verdict.XFAIL, "tail", "nan-lost")) == ("XFAIL", "▲", "nan-lost")
    assert found(FORWARD, result("value", Verdict.XFAIL, "nondeterministic")) == ("XFAIL", "△", "nondeterministic")
    assert found(FORWARD, result("value", Verdict.XFAIL, "tail")) == ("XFAIL", "◦", "tail")
    assert found(FORWARD, result("value", Verdict.XFAIL, "kink", blame="convention")) == ("XFAIL", "◦", "kink")
    assert found(FORWARD, result("value", Verdict.FAIL, "tail", deviation=None)) == ("FAIL", "●", "tail")
    assert found(FORWARD, result("value", Verdict.XPASS))[1] == "●"


def test_a_new_finding_is_named_before_a_graver_known_one():
    known, new = result("value", Verdict.FAIL, "nan-lost"), result("value", Verdict.FAIL, "tail", deviation=None)
    both = Result(
        **{name: getattr(known, name) for name in known.__struct_fields__} | {"findings": known.findings + new.findings}
    )
    assert found(FORWARD, both) == ("FAIL", "●", "tail")


@pytest.mark.parametrize("worse", [Verdict.XFAIL, Verdict.FAIL, Verdict.CRASH, Verdict.UNSUPPORTED])
@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_backwards_the_graver_of_both_counts(aspect, worse):
    other = "gradient" if aspect == "value" else "value"
    verdict, _, _ = found(BACKWARD, result(aspect, worse, "tail"), result(other, Verdict.PASS))
    assert verdict == worse


def test_what_was_not_run_is_no_pass():
    assert found(BACKWARD, result("value", Verdict.PASS))[0] == Verdict.ERROR


def test_each_case_is_run_once():
    ids = [case.id for case in cases([(FORWARD, ["torch"]), (BACKWARD, ["torch", "keras"])])]
    assert ids == ["relu/value/f32/torch", "relu/gradient/f32/torch", "relu/value/f32/keras", "relu/gradient/f32/keras"]
