"""What a run found becomes a register that the reader takes, that covers these findings, and no others."""

from __future__ import annotations

import math
import tomllib

import msgspec
import pytest

from actconform.adopt import adopt
from actconform.as_json import finite
from actconform.compare.ulp import to_hex
from actconform.deviations import read_deviations
from actconform.document import Facts
from actconform.formats import DTYPES
from actconform.judge import judge
from actconform.record import report
from actconform.types import Case, Finding, Result, Verdict, Worst

FACTS = {
    "torch": {"torch": "2.13.0+cpu", "cpu_capability": "AVX512", "machine": "x86_64", "threads": "2"},
    "ort-cpu": {"onnxruntime": "1.31.1", "machine": "x86_64"},
}
GELU = Case("gelu-erf", "value", "f32", "torch")
GRADIENT = Case("gelu-erf", "gradient", "bf16", "torch")
ORT = Case("softplus", "value", "f16", "authored+ort-cpu")
replace = msgspec.structs.replace


def finding(class_, low, high, dtype, magnitude=0.0, regime="edge", tensor="y"):
    fmt = DTYPES[dtype]
    interval = ("", "") if low is None else (to_hex(low, fmt), to_hex(high, fmt))
    worst = None if low is None else Worst(interval[0], 0, math.nan, -math.inf, math.nan, magnitude)
    return Finding(
        class_=class_, count=2, regime=regime, tensor=tensor, interval=interval, worst=worst, magnitude=magnitude
    )


FOUND = {
    GELU: [
        finding("tail", -13.0, -5.5, "f32", 1.6e7, "tail"),
        finding("tail", -12.5, -5.25, "f32", 1.7e7, "ordinary"),
        finding("tail", 1e-45, 1e-45, "f32", 9.0, "tail"),
        finding("nan-lost", math.nan, math.nan, "f32", regime="special"),
        finding("inf", math.inf, math.inf, "f32", regime="special"),
        finding("inf", 1.7014118346046923e38, 3.4028234663852886e38, "f32"),
        finding("zero-sign", -0.0, -0.0, "f32", regime="special"),
        finding("nondeterministic", None, None, "f32"),
    ],
    GRADIENT: [finding("scaled-error", -1.0, 0.5, "bf16", math.inf, tensor="d_x")],
    ORT: [finding("names", None, None, "f16", tensor="z"), finding("bias", -65504.0, 65504.0, "f16", 1.25)],
}


def judged(register, found=None, facts=FACTS):
    """Return a result for each case under a register."""
    results = []
    for case, findings in (found or FOUND).items():
        judgement = judge(case, findings, register, facts[case.backend])
        results.append(
            Result(
                case=case.id,
                subject=case.subject,
                aspect=case.aspect,
                dtype=case.dtype,
                route=case.route,
                verdict=judgement.verdict,
                findings=judgement.findings,
            )
        )
    return results


def written(results, facts=FACTS):
    """Return the report of a run as it is read back from the disk."""
    return msgspec.json.decode(msgspec.json.encode(finite(report(results, Facts(backends=facts), [], {}))))


def adopted(results=None, facts=FACTS):
    text, count = adopt(written(results or judged([]), facts), "2026-01-31")
    register = read_deviations(text, "local")
    assert len(register) == count
    return register


def test_adopted_findings_are_known_from_then_on():
    assert {result.verdict for result in judged([])} == {Verdict.FAIL}
    assert {result.verdict for result in judged(adopted())} == {Verdict.XFAIL}


def test_one_deviation_a_case_class_and_tensor():
    register = adopted()
    keys = {(*deviation.kernels, deviation.aspect, *deviation.dtypes, deviation.class_) for deviation in register}
    assert len(register) == len(keys) == 8
    (tail,) = (deviation for deviation in register if deviation.class_ == "tail")
    assert tail.inputs == ((-12.5, -5.25), (-13.0, -5.5), (2.0**-149, 2.0**-149))
    assert tail.regimes == ("ordinary", "tail")
    assert 1.7e7 < tail.bound < 1.3 * 1.7e7
    (nan,) = (deviation for deviation in register if deviation.class_ == "nan-lost")
    assert nan.inputs == ("nan",)


NEW = {
    "wider": finding("tail", -14.0, -5.5, "f32", 1.6e7, "tail"),
    "larger": finding("tail", -13.0, -5.5, "f32", 3e7, "tail"),
    "elsewhere": finding("tail", 1.0, 1.0, "f32", 10.0, "tail"),
    "another regime": finding("tail", -13.0, -5.5, "f32", 1.6e7, "huge"),
    "another tensor": finding("tail", -13.0, -5.5, "f32", 1.6e7, "tail", tensor="d_x"),
    "another class": finding("nan-made", -13.0, -5.5, "f32", 0.0, "tail"),
    "a number where NaN was": finding("nan-lost", 1.0, 1.0, "f32", 0.0, "special"),
}


@pytest.mark.parametrize("new", NEW.values(), ids=NEW)
def test_nothing_else_is_adopted(new):
    (result,) = judged(adopted(), {GELU: [*FOUND[GELU], new]})
    assert result.verdict == Verdict.FAIL
    assert [item.deviation is None for item in result.findings] == [False] * len(FOUND[GELU]) + [True]


@pytest.mark.parametrize(
    "case",
    [replace(GELU, subject="gelu-tanh"), replace(GELU, aspect="gradient"), replace(GELU, dtype="f16")],
    ids=lambda case: case.id,
)
def test_no_other_case_is_excused(case):
    (result,) = judged(adopted(), {case: [finding("tail", -10.0, -6.0, case.dtype, 9.0, "tail")]})
    assert result.verdict == Verdict.FAIL


@pytest.mark.parametrize(
    "other", [{"torch": "2.14.0+cpu"}, {"cpu_capability": "DEFAULT"}, {"machine": "arm64"}], ids=str
)
def test_adopted_for_this_platform_only(other):
    facts = {**FACTS, "torch": {**FACTS["torch"], **other}}
    register = adopted()
    assert {result.verdict for result in judged(register, {GELU: FOUND[GELU]}, facts)} == {Verdict.FAIL}
    assert {result.verdict for result in judged(register, {GELU: FOUND[GELU]}, {"torch": {}})} == {Verdict.FAIL}


def test_what_is_known_already_is_not_adopted_again():
    tail = [deviation for deviation in adopted() if deviation.class_ == "tail"]
    rest = adopted(judged(tail))
    assert len(rest) == 7
    assert {result.verdict for result in judged([*tail, *rest])} == {Verdict.XFAIL}


def test_nothing_to_adopt():
    text, count = adopt(written(judged(adopted())), "2026-01-31")
    assert count == 0
    assert read_deviations(text, "local") == ()
    assert adopt(written([]), "2026-01-31")[1] == 0


def test_the_date_stands_beside_each():
    text, _ = adopt(written(judged([])), "2026-01-31")
    assert text.startswith("#")
    assert all("2026-01-31" in table["reason"] for table in tomllib.loads(text)["deviation"])


def test_what_is_no_report_is_refused():
    for broken in ({}, {"results": [{}], "facts": {"backends": {}}}, {"results": []}):
        with pytest.raises(KeyError):
            adopt(broken, "2026-01-31")
