"""The reports of several jobs as one: nothing lost, nothing twice, and what is missing is red."""

from __future__ import annotations

import msgspec
import pytest
from made import FACTS, report, result

from actconform.errors import UsageError
from actconform.report.across_runs.merge import merge
from actconform.types import Verdict

replace = msgspec.structs.replace
TORCH = report(result("relu/value/f32/torch"), when="2026-02-01T00:00:00Z")
ORT = report(
    result("relu/value/f32/authored+ort-cpu"),
    result("relu/value/f32/authored+ort-cuda", Verdict.UNAVAILABLE),
    when="2026-02-01T00:05:00Z",
)


def test_the_parts_are_there_in_their_order_with_sums_and_facts() -> None:
    merged = merge({"a": TORCH, "b": ORT}, ["torch", "authored+ort-cpu", "ort-cpu"])
    assert merged.results == TORCH.results + ORT.results
    assert (merged.conforms, merged.problems) == (True, ())
    assert merged.summary == {"PASS": 2, "UNAVAILABLE": 1}
    assert merged.when == "2026-02-01T00:05:00Z"
    assert merged.timings == {"total": 5.0}
    assert merged.facts == FACTS
    assert merge({"a": TORCH}) == TORCH


def test_problems_of_a_part_are_problems_of_all_and_say_whose() -> None:
    merged = merge({"a": replace(TORCH, conforms=False, problems=("1 FAIL",)), "b": replace(ORT, conforms=False)})
    assert merged.problems == ("a: 1 FAIL", "b: does not conform")
    assert merged.conforms is False


def test_what_is_expected_and_did_not_run_is_a_problem() -> None:
    merged = merge({"a": TORCH, "b": ORT}, ["keras", "ort-cuda", "authored+ort-cuda", "torch", "keras"])
    assert merged.problems == (
        "expected keras: there is no report of it",
        "expected ort-cuda: none of its cases could be run",
        "expected authored+ort-cuda: none of its cases could be run",
    )
    assert not merged.conforms


def test_another_version_beside_it_is_not_the_backend_that_is_expected() -> None:
    beside = report(result("relu/value/f32/authored+ort-cpu@1.30"))
    assert merge({"a": beside}, ["ort-cpu"]).problems == ("expected ort-cpu: there is no report of it",)
    assert merge({"a": beside}, ["ort-cpu@1.30"]).conforms


def test_facts_that_differ_stand_side_by_side() -> None:
    other = replace(FACTS, backends={"torch": {"torch": "2.13.0"}, "keras": {"keras": "3"}})
    merged = merge({"a": TORCH, "b": replace(ORT, facts=other)})
    assert merged.facts.backends["torch"] == {"torch": "2.12.0 | 2.13.0"}
    assert merged.facts.backends["keras"] == {"keras": "3"}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (TORCH, "a and b are reports of one run: nothing was merged"),
        (replace(TORCH, when="2026-02-02T00:00:00Z"), "a and b have 1 case in common, relu/value/f32/torch the first"),
        (replace(ORT, results=ORT.results + ORT.results[:1]), "b and b have 1 case in common"),
        (
            replace(ORT, facts=replace(FACTS, actconform="0.2.0")),
            "a is of actconform 0.1.0, b of actconform 0.2.0; run",
        ),
        (
            replace(ORT, facts=replace(FACTS, goldens="")),
            "a is of goldens 0123, b of goldens unknown; run them from one",
        ),
    ],
)
def test_what_is_no_part_of_one_run_is_refused_with_both_named(second, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        merge({"a": TORCH, "b": second})
    assert words in str(raised.value)
