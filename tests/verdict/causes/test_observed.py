"""The ratchet: under equal facts nothing new and no bound used by a quarter more; under others the formula alone decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actconform.errors import ObservedError
from actconform.testdata.golden.store import OBSERVED
from actconform.types import Finding, Interval, Result, Verdict
from actconform.verdict.causes.observed import (
    Observed,
    as_text,
    evidence,
    idle,
    observe,
    read_observed,
    with_machine,
    worse,
)

if TYPE_CHECKING:
    from pathlib import Path

FACTS = {"torch": {"torch": "2.13.0", "python": "3.11", "onednn": "AVX2"}}
BACKENDS = {"elu/value/f32/torch": ("torch",), "relu/value/f32/torch": ("torch",)}


def finding(class_: str = "tail", cause: str | None = "c", used: float = 0.4, count: int = 10) -> Finding:
    return Finding(
        class_=class_,
        count=count,
        regime="r",
        tensor="y",
        interval=Interval("", ""),
        worst=None,
        magnitude=1.0,
        deviation=cause,
        used=used,
    )


def result(*findings: Finding, subject: str = "elu", verdict: Verdict = Verdict.XFAIL) -> Result:
    case = f"{subject}/value/f32/torch"
    return Result(
        case=case, subject=subject, aspect="value", dtype="f32", route="torch", verdict=verdict, findings=findings
    )


def seen(*results: Result) -> Observed:
    return with_machine(Observed(), observe(results, FACTS, "now"))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (finding(used=0.49), []),
        (finding(used=0.52), ["uses 0.52 of the bound of c, was 0.4"]),
        (finding("inf"), ["has inf"]),
        (finding(cause="other", used=0.9), []),
    ],
)
def test_worse_is_a_new_class_or_a_used_share_larger_by_a_quarter(now: Finding, words: list[str]) -> None:
    messages = worse([result(now)], FACTS, BACKENDS, seen(result(finding())))
    assert len(messages) == len(words)
    assert all(word in message for word, message in zip(words, messages, strict=True))
    assert all("elu/value/f32/torch" in message for message in messages)


@pytest.mark.parametrize(
    "facts",
    [
        {"torch": {**FACTS["torch"], "onednn": "AVX512"}},
        {"torch": {**FACTS["torch"], "torch": "2.14.0"}},
        {"keras": FACTS["torch"]},
        {},
    ],
)
def test_under_other_facts_nothing_is_worse(facts: Any) -> None:
    assert not worse([result(finding("inf", used=1.0))], facts, BACKENDS, seen(result(finding())))


def test_facts_that_say_who_ran_do_not_count() -> None:
    other = {"torch": {**FACTS["torch"], "python": "3.12", "platform": "another", "cpu": "a name"}}
    assert worse([result(finding("inf"))], other, BACKENDS, seen(result(finding())))


def test_a_clean_case_is_never_worse_and_a_cause_that_covers_nothing_is_idle() -> None:
    before = seen(result(finding()), result(finding(cause="d"), subject="relu"))
    clean = result(verdict=Verdict.PASS)
    still = result(finding(cause="d"), subject="relu")
    assert not worse([clean, still], FACTS, BACKENDS, before)
    assert idle([clean, still], FACTS, BACKENDS, before) == ["c covers nothing any more, where it covered 10 elements"]
    assert not idle([result(finding()), still], FACTS, BACKENDS, before)
    assert not idle([result(verdict=Verdict.UNAVAILABLE)], FACTS, BACKENDS, before)


def test_what_a_case_had_that_was_clean_is_new() -> None:
    messages = worse([result(finding())], FACTS, BACKENDS, seen(result(verdict=Verdict.PASS)))
    assert messages == ["worse than observed under equal facts: elu/value/f32/torch has tail"]


def test_the_file_reads_back_has_a_line_a_case_and_replaces_what_had_the_same_facts(tmp_path: Path) -> None:
    observed = seen(result(finding()), result(finding(cause="d"), subject="relu"))
    (tmp_path / OBSERVED).write_bytes(as_text(observed))
    assert read_observed(tmp_path) == observed
    text = (tmp_path / OBSERVED).read_text()
    assert sum(line.startswith('"') for line in text.splitlines()) == 2
    again = with_machine(observed, observe([result(finding(used=0.1))], FACTS, "later"))
    (machine,) = again.machines
    assert machine.cases["elu/value/f32/torch"].used == {"c": 0.1}
    assert machine.cases["relu/value/f32/torch"].used == {"d": 0.4}
    more = with_machine(again, observe([result(finding())], {"torch": {"torch": "3"}}, "later"))
    assert len(more.machines) == 2


def test_no_file_is_nothing_observed_and_a_broken_one_is_named(tmp_path: Path) -> None:
    assert read_observed(tmp_path) == Observed()
    (tmp_path / OBSERVED).write_text("{")
    with pytest.raises(ObservedError, match=OBSERVED):
        read_observed(tmp_path)


def test_the_proof_of_a_cause_is_its_elements_and_the_largest_share_used() -> None:
    observed = seen(result(finding(), finding("inf", used=0.7, count=5)), result(finding(used=0.0), subject="relu"))
    assert evidence(observed) == {"c": (25, 0.7)}
