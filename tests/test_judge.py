"""A verdict excuses what is registered, exactly that, and only where it still shows."""

from __future__ import annotations

import math

import msgspec
import pytest

from actconform.compare.ulp import to_hex
from actconform.formats import DTYPES
from actconform.judge import conforms, judge, unmatched
from actconform.types import Case, Deviation, Finding, Result, Verdict, Worst

CASE = Case("elu", "value", "f32", "keras")
FACTS = {"keras": "3.15.1", "torch": "2.13.0+cpu", "cpu_capability": "AVX512"}
KNOWN = Deviation(
    id="elu-near-zero",
    class_="tail",
    aspect="value",
    kernels=("elu", "selu"),
    dtypes=("f32",),
    routes=("keras",),
    tensors=("y",),
    regimes=("edge", "subnormal"),
    inputs=((-1e-6, -1e-38),),
    bound=100.0,
    when={"keras": ">=3.15,<4"},
    reason="cancellation",
    link="unreported",
    blame="framework",
)
replace = msgspec.structs.replace


def finding(low=-1e-8, high=-1e-9, dtype="f32", **changes):
    fmt = DTYPES[dtype]
    made = Finding(
        class_="tail",
        count=3,
        regime="edge",
        tensor="y",
        interval=(to_hex(low, fmt), to_hex(high, fmt)),
        worst=Worst(to_hex(low, fmt), 0, low, 0.0, 50.0, 1.0),
        magnitude=50.0,
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


def verdict_of(*findings, register=(KNOWN,), facts=FACTS, case=CASE):
    return judge(case, findings, register, facts).verdict


def test_nothing_found_and_nothing_registered_passes():
    assert judge(CASE, [], [], FACTS) == judge(CASE, [], [replace(KNOWN, routes=("torch",))], FACTS)
    assert verdict_of(register=()) == Verdict.PASS


def test_an_unregistered_finding_fails_and_is_named():
    judgement = judge(CASE, [finding()], [], FACTS)
    assert judgement.verdict == Verdict.FAIL
    assert "1 of 1" in judgement.reason
    assert "tail" in judgement.reason
    assert judgement.findings == (finding(),)


def test_a_registered_finding_is_expected_and_takes_the_blame_of_its_cause():
    judgement = judge(CASE, [finding()], [KNOWN], FACTS)
    assert judgement.verdict == Verdict.XFAIL
    assert "elu-near-zero" in judgement.reason
    assert judgement.findings == (finding(deviation="elu-near-zero", blame="framework"),)
    unblamed = judge(CASE, [finding(blame="convention")], [replace(KNOWN, blame="")], FACTS)
    assert unblamed.findings[0].blame == "convention"


NEW = {
    "outside the inputs": finding(low=-1e-3, high=-1e-9),
    "on the other side of zero": finding(low=1e-9, high=1e-8),
    "at zero": finding(low=0.0, high=0.0),
    "nan": finding(low=math.nan, high=math.nan),
    "above the bound": finding(magnitude=100.1),
    "unmeasurable": finding(magnitude=math.nan),
    "infinite": finding(magnitude=math.inf),
    "another class": finding(class_="scaled-error"),
    "a class without inputs": finding(class_="tail", interval=("", "")),
    "another tensor": finding(tensor="d_x"),
    "another regime": finding(regime="ordinary"),
}


@pytest.mark.parametrize("new", NEW.values(), ids=NEW)
def test_a_new_fault_beside_a_known_one_still_fails(new):
    assert verdict_of(new) == Verdict.FAIL
    judgement = judge(CASE, [finding(), new], [KNOWN], FACTS)
    assert judgement.verdict == Verdict.FAIL
    assert "1 of 2" in judgement.reason
    assert [item.deviation for item in judgement.findings] == ["elu-near-zero", None]


@pytest.mark.parametrize(
    "case",
    [
        Case("relu", "value", "f32", "keras"),
        Case("elu", "gradient", "f32", "keras"),
        Case("elu", "value", "f16", "keras"),
        Case("elu", "value", "f32", "torch"),
        Case("elu", "value", "f32", "authored+keras"),
        Case("elu-half", "value", "f32", "keras"),
    ],
    ids=lambda case: case.id,
)
def test_another_case_is_not_excused_and_not_expected_to_deviate(case):
    assert verdict_of(finding(), case=case) == Verdict.FAIL
    assert verdict_of(case=case) == Verdict.PASS


def test_edges_of_inputs_and_bound_are_inside():
    tight = replace(KNOWN, inputs=((-1.0, -0.5),), bound=50.0)
    assert verdict_of(finding(low=-1.0, high=-0.5), register=[tight]) == Verdict.XFAIL
    assert verdict_of(finding(low=-1.0, high=-0.25), register=[tight]) == Verdict.FAIL
    assert verdict_of(finding(low=-2.0, high=-0.5), register=[tight]) == Verdict.FAIL


def test_inputs_may_be_nan_infinite_or_any():
    at = {"nan": math.nan, "inf": math.inf, "0": 0.0}
    for allowed, inside in (("nan", "nan"), ((math.inf, math.inf), "inf"), ((0.0, 0.0), "0")):
        for name, x in at.items():
            wanted = Verdict.XFAIL if name == inside else Verdict.FAIL
            assert verdict_of(finding(low=x, high=x), register=[replace(KNOWN, inputs=(allowed,))]) == wanted
    anywhere = replace(KNOWN, inputs=())
    for new in (finding(low=-1e30, high=1e30), finding(low=math.nan, high=math.nan), finding(interval=("", ""))):
        assert verdict_of(new, register=[anywhere]) == Verdict.XFAIL


def test_intervals_are_read_in_the_format_of_the_case():
    case = Case("elu", "value", "bf16", "keras")
    wide = replace(KNOWN, dtypes=("*",), inputs=((-4.0, -2.0),))
    assert verdict_of(finding(low=-3.0, high=-2.5, dtype="bf16"), register=[wide], case=case) == Verdict.XFAIL
    assert verdict_of(finding(low=-3.0, high=-1.5, dtype="bf16"), register=[wide], case=case) == Verdict.FAIL


@pytest.mark.parametrize(
    "facts", [{"keras": "3.14.0"}, {"keras": "4.0"}, {"torch": "3.15.1"}, {}, {"keras": "nightly"}], ids=str
)
def test_where_the_facts_do_not_hold_nothing_is_excused_and_nothing_expected(facts):
    assert verdict_of(finding(), facts=facts) == Verdict.FAIL
    assert verdict_of(facts=facts) == Verdict.PASS


def test_a_clean_case_with_a_holding_deviation_is_a_surprise():
    judgement = judge(CASE, [], [KNOWN], FACTS)
    assert judgement.verdict == Verdict.XPASS
    assert "elu-near-zero" in judgement.reason


def test_each_finding_may_have_a_cause_of_its_own():
    other = replace(KNOWN, id="elu-nan", class_="nan-lost", inputs=("nan",), bound=0.0)
    nan = finding(low=math.nan, high=math.nan, class_="nan-lost", magnitude=0.0)
    judgement = judge(CASE, [finding(), nan], [KNOWN, other], FACTS)
    assert judgement.verdict == Verdict.XFAIL
    assert [item.deviation for item in judgement.findings] == ["elu-near-zero", "elu-nan"]
    assert verdict_of(finding(), nan) == Verdict.FAIL


def test_an_unmatched_deviation_is_named_once_all_its_cases_ran():
    cases = [CASE, Case("selu", "value", "f32", "keras")]
    facts = {"keras": FACTS}
    ran = [result(case, Verdict.FAIL) for case in cases]
    (message,) = unmatched(cases, ran, [KNOWN], facts)
    assert "elu-near-zero" in message
    assert "2 cases" in message
    used = [ran[0], result(cases[1], Verdict.XFAIL, finding(deviation="elu-near-zero"))]
    assert unmatched(cases, used, [KNOWN], facts) == []
    assert unmatched(cases, ran[:1], [KNOWN], facts) == []
    assert unmatched(cases, [ran[0], result(cases[1], Verdict.CRASH)], [KNOWN], facts) == []
    assert unmatched(cases, ran, [KNOWN], {"keras": {"keras": "3.14"}}) == []
    assert unmatched(cases, ran, [KNOWN], {}) == []
    assert unmatched([], [], [KNOWN], facts) == []


def test_facts_are_those_of_the_backend_at_the_end_of_the_route():
    case = Case("elu", "value", "f32", "authored+ort-cpu")
    known = replace(KNOWN, routes=("authored+ort-*",), when={"onnxruntime": ">=1.31"})
    ran = [result(case, Verdict.PASS)]
    assert len(unmatched([case], ran, [known], {"ort-cpu": {"onnxruntime": "1.31.1"}})) == 1
    assert unmatched([case], ran, [known], {"authored": {"onnxruntime": "1.31.1"}}) == []


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
    assert "1 selected cases have no result" in why


@pytest.mark.parametrize("case", [NATIVE, ORT], ids=lambda case: case.route)
def test_a_required_route_that_is_unavailable_does_not_conform(case):
    assert conforms([case], [result(case, Verdict.UNAVAILABLE)], None) == [f"required route {case.route} did not run"]


def test_routes_required_by_name_replace_the_default_ones():
    cases, results = [NATIVE, CUDA], [result(NATIVE, Verdict.UNAVAILABLE), result(CUDA, Verdict.PASS)]
    assert conforms(cases, results, [CUDA.route]) == []
    (why,) = conforms(cases, results, [CUDA.route, "keras"])
    assert "keras" in why
    (why,) = conforms([NATIVE, CUDA], [result(NATIVE, Verdict.PASS), result(CUDA, Verdict.UNAVAILABLE)], [CUDA.route])
    assert CUDA.route in why


def test_unsupported_is_an_outcome_and_no_failure():
    cases = [NATIVE, replace(NATIVE, dtype="bf16")]
    assert conforms(cases, [result(cases[0], Verdict.PASS), result(cases[1], Verdict.UNSUPPORTED)], None) == []
