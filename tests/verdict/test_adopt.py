"""What a run found becomes a register that the reader takes: formulas where one explains it, else what was seen, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.run.recorder import report
from actconform.types import Case, Finding, Interval, Result, Verdict
from actconform.types.report import Facts
from actconform.verdict.adopt import adopt
from actconform.verdict.causes.explain import plainly
from actconform.verdict.causes.register import read_register

if TYPE_CHECKING:
    from actconform.types.cause import Register

FACTS = {"mine": {"mine": "1.0", "machine": "riscv64", "cpu_capability": "NONE"}}
REGISTER = read_register(
    """
[[library]]
name = "lib"
[[cause]]
id = "cancels"
reason = "exp(x) - 1 cancels"
link = "https://example.org/1"
since = "0.2"
routes = ["keras"]
library = "lib"
[cause.value]
"elu*" = ["where(x > 0, x, exp(x) - 1)", "x"]
selu = "x"
""",
    "test",
)


def finding(class_: str = "tail", magnitude: float = 40.0, **changes: object) -> Finding:
    made = Finding(
        class_=class_,
        count=2,
        regime="tail",
        tensor="y",
        interval=Interval("0xc1200000", "0xc1000000"),
        worst=None,
        magnitude=magnitude,
    )
    return msgspec.structs.replace(made, **changes)


def result(*findings: Finding, subject: str = "elu", route: str = "mine") -> Result:
    case = Case(subject, "value", "f32", route)
    return Result(
        case=case.id,
        subject=subject,
        aspect="value",
        dtype="f32",
        route=route,
        verdict=Verdict.FAIL,
        findings=findings,
    )


def adopted(*results: Result) -> tuple[Register, object]:
    made = adopt(report(results, Facts(backends=FACTS), [], {}), REGISTER, "2026-11-28")
    return read_register(made.text, "adopted"), made


def test_a_finding_that_a_known_formula_explains_is_adopted_as_that_formula() -> None:
    register, made = adopted(result(finding(candidates=("gone", "cancels"))))
    (cause,) = register.causes
    assert (cause.routes, cause.library, cause.reason) == (("mine",), "lib", "exp(x) - 1 cancels")
    assert cause.link == "https://example.org/1"
    assert dict(cause.value) == {"elu": ("where(x > 0, x, exp(x) - 1)", "x")}
    assert not cause.covers
    assert made.explained == ["elu/value/f32/mine: tail y tail, 2 elements"]
    assert made.unexplained == []


def test_what_no_formula_explains_is_adopted_as_it_was_seen_under_the_facts_and_named() -> None:
    register, made = adopted(result(finding(), finding("inf", 0.0, regime="special")))
    (cause,) = register.causes
    assert cause.when == {"machine": ("riscv64",), "cpu_capability": ("NONE",)}
    assert made.explained == []
    assert len(made.unexplained) == 2
    here = Case("elu", "value", "f32", "mine")
    assert set(plainly([finding()], here, register.causes)) == {finding().place}
    for other in (
        finding(magnitude=51.0),
        finding("scaled-error"),
        finding(tensor="d_x"),
        finding(regime="edge"),
    ):
        assert not plainly([other], here, register.causes)
    assert not plainly([finding()], Case("selu", "value", "f32", "mine"), register.causes)
    assert not plainly([finding()], Case("elu", "value", "f16", "mine"), register.causes)


def test_routes_have_causes_of_their_own_and_what_is_registered_is_left() -> None:
    register, _ = adopted(
        result(finding()),
        result(finding(), route="authored+mine"),
        result(finding(deviation="cancels"), subject="selu"),
    )
    assert [cause.routes for cause in register.causes] == [("authored+mine",), ("mine",)]
    assert len({cause.id for cause in register.causes}) == 2


def test_nothing_new_is_nothing_adopted() -> None:
    register, made = adopted(result(finding(deviation="cancels")))
    assert register.causes == ()
    assert (made.explained, made.unexplained) == ([], [])
