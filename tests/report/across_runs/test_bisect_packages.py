"""Which package is named, for every way in which packages can bring a finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actconform.errors import NoEnvironmentError
from actconform.report.across_runs.bisect_packages import (
    BEFORE_TOO,
    NO_PACKAGE,
    NO_PACKAGE_ALONE,
    NOT_AGAIN,
    Bump,
    Target,
    bisect,
    bumps,
    targets,
)
from actconform.report.across_runs.diff import compare_reports
from actconform.types import Finding, Interval, Result, Verdict
from actconform.types.report import Facts, Report

if TYPE_CHECKING:
    from collections.abc import Callable

A, B, C = (Bump(name, "1.0", "2.0", name, ("torch",)) for name in "abc")
CASE = "relu/value/f32/torch"


def finding(class_: str = "tail", *, at: int = 0x3F800000, deviation: str | None = None) -> Finding:
    return Finding(
        class_=class_,
        count=1,
        regime="ordinary",
        tensor="y",
        interval=Interval(f"0x{at:08x}", f"0x{at + 9:08x}"),
        worst=None,
        magnitude=1.0,
        deviation=deviation,
    )


def result(*findings: Finding, case: str = CASE, verdict: Verdict | None = None) -> Result:
    subject, aspect, dtype, route = case.split("/")
    chosen = verdict or (Verdict.FAIL if findings else Verdict.PASS)
    return Result(
        case=case, subject=subject, aspect=aspect, dtype=dtype, route=route, verdict=chosen, findings=findings
    )


def report(*results: Result, **backends: dict[str, str]) -> Report:
    return Report(
        schema=1,
        facts=Facts(actconform="0", goldens="g", backends=backends),
        conforms=True,
        problems=(),
        timings={},
        summary={},
        results=results,
    )


def answer(shows: Callable[[frozenset[Bump]], bool], *changed: Bump) -> tuple[tuple[str, ...], str, list[str]]:
    """Return the packages named, why, and with which new packages the case was run."""
    tried: list[str] = []

    def rerun(cases, new):
        tried.append("".join(one.fact for one in sorted(new)))
        return {case: result(*[finding()] * shows(new), case=case) for case in cases}

    (one,) = bisect([Target(CASE, finding())], lambda _: frozenset(changed), rerun)
    return tuple(package.fact for package in one.packages), one.reason, tried


def test_one_package_that_changed_is_named_after_two_runs():
    assert answer(lambda new: A in new, A) == (("a",), "", ["a", ""])


def test_of_several_the_one_that_brings_it_alone_is_named():
    assert answer(lambda new: B in new, A, B, C) == (("b",), "alone", ["abc", "", "a", "b", "c"])


def test_of_two_that_each_bring_it_both_are_named():
    assert answer(lambda new: bool({A, C} & new), A, B, C)[:2] == (("a", "c"), "alone")


def test_two_that_bring_it_together_are_named_together():
    named, why, tried = answer(lambda new: {A, C} <= new, A, B, C)
    assert (named, why) == (("a", "c"), "together")
    assert tried == ["abc", "", "a", "b", "c", "bc", "ac", "ab"]
    assert answer(lambda new: {A, B} <= new, A, B) == (("a", "b"), "together", ["ab", "", "a", "b"])


def test_what_no_single_package_explains_is_not_blamed():
    assert answer(lambda new: len(new) >= 2, A, B, C)[:2] == ((), NO_PACKAGE_ALONE)


def test_what_is_not_seen_again_or_was_there_before_is_not_blamed():
    assert answer(lambda _: False, A, B) == ((), NOT_AGAIN, ["ab"])
    assert answer(lambda _: True, A, B) == ((), BEFORE_TOO, ["ab", ""])
    assert answer(lambda _: True) == ((), NO_PACKAGE, [])


def test_an_environment_that_cannot_be_made_is_said_and_the_others_are_tried():
    def rerun(cases, new):
        if new == {A}:
            raise NoEnvironmentError("a==2.0 cannot be installed")
        return {case: result(*[finding()] * (new >= {A, B})) for case in cases}

    (one,) = bisect([Target(CASE, finding())], lambda _: frozenset([A, B]), rerun)
    assert ([package.fact for package in one.packages], one.reason) == (["a"], "together")
    assert one.not_tried == ("a 1.0 -> 2.0 alone: a==2.0 cannot be installed",)

    def never(cases, new):
        raise NoEnvironmentError("b==1.0 cannot be installed")

    (one,) = bisect([Target(CASE, finding())], lambda _: frozenset([A, B]), never)
    assert (one.packages, one.reason) == ((), "b==1.0 cannot be installed")


def test_cases_are_run_with_the_packages_of_their_own_processes():
    other = "relu/value/f32/authored+ort-cpu"
    ran: list[tuple[tuple[str, ...], frozenset[Bump]]] = []

    def rerun(cases, new):
        ran.append((tuple(cases), new))
        return {case: result(*[finding()] * bool(new), case=case) for case in cases}

    wanted = [Target(CASE, finding()), Target(other, finding()), Target(CASE, finding("inf"))]
    answers = bisect(wanted, lambda case: frozenset([A] if case == CASE else [B]), rerun)
    assert ((CASE,), frozenset([A])) in ran
    assert ((other,), frozenset([B])) in ran
    assert {(one.target.kind, one.packages, one.reason) for one in answers} == {
        ("tail", (A,), ""),
        ("tail", (B,), ""),
        ("inf", (), NOT_AGAIN),
    }


def test_a_target_is_what_got_worse_or_else_what_is_new_and_known():
    before = report(result(finding("inf")), result(case="a/value/f32/torch"), result(case="b/value/f32/torch"))
    after = report(
        result(finding("inf"), finding("tail"), finding("kink", deviation="known")),
        result(case="a/value/f32/torch", verdict=Verdict.CRASH),
        result(case="b/value/f32/torch", verdict=Verdict.UNSUPPORTED),
        result(finding(), case="c/value/f32/torch"),
    )
    only_known = report(result(finding("inf"), finding("kink", deviation="known")))
    (known,) = targets(compare_reports(report(result(finding("inf"))), only_known))
    assert known.kind == "kink"
    crash = Target("a/value/f32/torch", verdict=Verdict.CRASH)
    assert targets(compare_reports(before, after)) == [Target(CASE, finding("tail")), crash]
    assert crash.shown(result(case="a/value/f32/torch", verdict=Verdict.CRASH))
    assert not crash.shown(None)
    assert (crash.kind, Target(CASE, finding()).kind) == ("CRASH", "tail")


def test_a_finding_elsewhere_is_another_one():
    target = Target(CASE, finding(at=0x3F800000))
    assert target.shown(result(finding(at=0x3F800005)))
    assert not target.shown(result(finding(at=0x40800000)))
    assert not target.shown(result(finding("inf")))


def test_packages_are_the_facts_that_pip_knows_and_that_are_versions():
    before = Facts(
        actconform="0.1",
        goldens="x",
        backends={
            "torch": {"torch": "2.12.0+cpu", "numpy": "2.0", "device": "cpu", "python": "3.11.1"},
            "ort": {"onnxruntime": "1.30", "build": "Release 1", "environment": "onnxruntime-gpu 1.30, numpy 2.0"},
            "gone": {"numpy": "1.0"},
        },
    )
    after = Facts(
        actconform="0.2",
        goldens="x",
        backends={
            "torch": {"torch": "2.13.0+cpu", "numpy": "2.1", "device": "cuda", "python": "3.12.1"},
            "ort": {"onnxruntime": "1.31", "build": "Release 2", "environment": "onnxruntime-gpu 1.31, numpy 2.1"},
        },
    )
    names = {"torch": "torch", "numpy": "numpy", "onnxruntime": "onnxruntime-gpu", "onnxruntime-gpu": "onnxruntime-gpu"}
    found, others = bumps(before, after, {**names, "build": "build", "device": None}.get)
    assert [(one.words, one.distribution, one.backends) for one in found] == [
        ("numpy 2.0 -> 2.1", "numpy", ("torch", "ort")),
        ("onnxruntime-gpu 1.30 -> 1.31", "onnxruntime-gpu", ("ort",)),
        ("torch 2.12.0+cpu -> 2.13.0+cpu", "torch", ("torch",)),
    ]
    assert [change.fact for change in others] == ["actconform", "device", "python", "build"]
    torch = found[2]
    assert (torch.requirement(new=False), torch.requirement(new=True)) == ("torch==2.12.0", "torch==2.13.0")


@pytest.mark.parametrize("shown", [True, False])
def test_the_same_environment_is_asked_once_for_all_findings_of_a_case(shown):
    asked = []

    def rerun(cases, new):
        asked.append((tuple(cases), new))
        return {CASE: result(*[finding(), finding("inf")] * (shown and bool(new)))}

    bisect([Target(CASE, finding()), Target(CASE, finding("inf"))], lambda _: frozenset([A]), rerun)
    assert asked[0] == ((CASE,), frozenset([A]))
    assert len(asked) == (2 if shown else 1)
