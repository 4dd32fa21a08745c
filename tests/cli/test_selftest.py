"""`actconform selftest`: what it prints, what it writes, what it refuses, and its exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import actconform.run.subject
from actconform.cli import selftest_
from actconform.errors import UsageError
from actconform.selftest import Detection, DetectionReport
from actconform.tolerance import limits
from actconform.verdict.causes.explain import Explanation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAULT = "faulty-torch@sigmoid-nine-units"
COLUMNS = "| family | faults | caught | wrong blame | wrong class | missed |"


def detection(fault: str, family: str, outcome: str, *seen: str) -> Detection:
    return Detection(fault=fault, family=family, what="made up", outcome=outcome, wanted="inf", seen=seen)


CAUGHT = detection("a@one", "precision", "caught", "inf (framework)")
WRONG = [
    CAUGHT,
    detection("a@two", "precision", "missed"),
    detection("a@three", "layers", "wrong blame", "inf (runtime)"),
    detection("a@four", "layers", "wrong class", "nan-made (framework)", "tail (framework)"),
]


@pytest.fixture
def trial_gives(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Have the trial end so, at once; return the arguments that it was given."""

    def gives(*detections: Detection, alarms: tuple[str, ...] = ()) -> list[Any]:
        asked: list[Any] = []

        def selftest(plan: Any, names: Any, on_result: Any) -> DetectionReport:
            asked.extend((plan, names))
            return DetectionReport(detections=list(detections), false_alarms=list(alarms), healthy=7, seconds=1.5)

        monkeypatch.setattr(selftest_, "selftest", selftest)
        return asked

    return gives


def test_one_fault_in_real_workers_is_caught(cli: Callable[..., Any]) -> None:
    said = cli("selftest", FAULT)
    assert said.code == 0
    assert said.out.splitlines() == [
        COLUMNS,
        "|---|---|---|---|---|---|",
        "| precision | 1 | 1 | 0 | 0 | 0 |",
        "| all | 1 | 1 | 0 | 0 | 0 |",
        "1 of 1 injected fault caught, with the right class and blame; 0 false alarms in 1 healthy case.",
    ]


def test_a_healthy_backend_under_a_limit_that_is_too_strict_is_a_false_alarm_and_exit_code_1(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(limits.SCALED_LIMITS, ("value", 32), 0.01)
    monkeypatch.setattr(
        actconform.run.subject.KernelSubject, "explain", lambda *_: Explanation({}, [])
    )  # or the formula explains what it finds
    said = cli("selftest", FAULT)
    assert said.code == 1
    alarm, verdict = said.out.splitlines()[-2:]
    assert alarm.startswith("false alarm: sigmoid/value/f32/torch: FAIL, ")
    assert verdict == "1 of 1 injected fault caught, with the right class and blame; 1 false alarm in 1 healthy case."


def test_the_register_is_active_with_that_of_the_settings(
    cli: Callable[..., Any], trial_gives: Callable[..., list[Any]], tmp_path: Path
) -> None:
    asked = trial_gives(CAUGHT)
    (tmp_path / "actconform.toml").write_text('deviations = ["mine.toml"]\n')
    (tmp_path / "mine.toml").write_text(
        '[[cause]]\nid = "mine"\nreason = "made up"\nlink = "unreported"\nsince = "0.2"\nroutes = ["torch"]\n'
        'covers = [{ class = "inf", kernels = ["relu"] }]\n'
    )
    assert cli("selftest").code == 0
    plan, names = asked
    assert names == ()
    assert [cause.id for cause in plan.register.causes][-1] == "mine"
    assert {cause.id for cause in plan.catalog.register.causes} < {cause.id for cause in plan.register.causes}


def test_every_outcome_has_its_column_and_every_problem_its_line(
    cli: Callable[..., Any], trial_gives: Callable[..., list[Any]]
) -> None:
    trial_gives(*WRONG, alarms=("relu/value/f32/torch: FAIL, made up",))
    said = cli("selftest")
    assert said.code == 1
    assert said.out.splitlines() == [
        COLUMNS,
        "|---|---|---|---|---|---|",
        "| precision | 2 | 1 | 0 | 0 | 1 |",
        "| layers | 2 | 0 | 1 | 1 | 0 |",
        "| all | 4 | 1 | 1 | 1 | 1 |",
        "a@two: missed; wanted inf, seen nothing",
        "a@three: wrong blame; wanted inf, seen inf (runtime)",
        "a@four: wrong class; wanted inf, seen nan-made (framework), tail (framework)",
        "false alarm: relu/value/f32/torch: FAIL, made up",
        "1 of 4 injected faults caught, with the right class and blame; 1 false alarm in 7 healthy cases.",
    ]


def test_what_is_healthy_but_unusual_is_listed_and_whether_it_was_accused(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    unusual = {"odd@one": "counts backwards", "odd@one-more": "counts twice"}
    alarms = ["relu/value/f32/authored+odd@one: FAIL, 1 finding"]
    trial = DetectionReport(detections=[CAUGHT], false_alarms=alarms, healthy=9, seconds=1.5, unusual=unusual)
    monkeypatch.setattr(selftest_, "selftest", lambda *_: trial)
    said = cli("selftest")
    assert said.code == 1
    assert "| odd@one | counts backwards | accused |" in said.out
    assert "| odd@one-more | counts twice | left alone |" in said.out
    assert said.out.splitlines()[-1].endswith("1 false alarm in 9 healthy cases, of 2 unusual backends among them.")


@pytest.mark.parametrize("one", WRONG[1:], ids=lambda one: one.outcome)
def test_one_fault_that_is_not_caught_is_enough_for_exit_code_1(
    cli: Callable[..., Any], trial_gives: Callable[..., list[Any]], one: Detection
) -> None:
    trial_gives(CAUGHT, one)
    assert cli("selftest").code == 1


def test_json_holds_every_detection(cli: Callable[..., Any], trial_gives: Callable[..., list[Any]]) -> None:
    trial_gives(*WRONG, alarms=("relu/value/f32/torch: FAIL, made up",))
    said = cli("selftest", "--json")
    assert said.code == 1
    trial = json.loads(said.out)
    assert trial.keys() == {
        "schema",
        "detections",
        "false_alarms",
        "healthy",
        "seconds",
        "timeouts",
        "unusual",
        "problems",
    }
    assert (trial["schema"], trial["healthy"], trial["seconds"]) == (1, 7, 1.5)
    assert trial["false_alarms"] == ["relu/value/f32/torch: FAIL, made up"]
    assert len(trial["problems"]) == 4
    assert trial["detections"][0] == {
        "fault": "a@one",
        "family": "precision",
        "what": "made up",
        "outcome": "caught",
        "wanted": "inf",
        "seen": ["inf (framework)"],
    }
    assert [one["outcome"] for one in trial["detections"]] == ["caught", "missed", "wrong blame", "wrong class"]


# --- --into -------------------------------------------------------------------------------------------------------------


def test_into_writes_between_the_marks_and_nothing_else(
    cli: Callable[..., Any], trial_gives: Callable[..., list[Any]], tmp_path: Path
) -> None:
    trial_gives(CAUGHT)
    page = tmp_path / "page.md"
    page.write_text(f"# Détection\n\n{selftest_.BEGIN}\nold\n{selftest_.END}\n\nafter\n", encoding="utf-8")
    said = cli("selftest", "--into", str(page))
    assert said.code == 0
    once = page.read_text(encoding="utf-8")
    before, table = once.split(f"{selftest_.BEGIN}\n")
    table, after = table.split(f"\n{selftest_.END}")
    assert (before, after) == ("# Détection\n\n", "\n\nafter\n")
    assert "old" not in once
    assert table.splitlines()[0] == COLUMNS
    assert table.splitlines()[-2:] == ["", said.out.splitlines()[-1]]
    cli("selftest", "--into", str(page))
    assert page.read_text(encoding="utf-8") == once


@pytest.mark.parametrize("text", ["no marks\n", f"{selftest_.BEGIN}\n", f"{selftest_.END}\n"])
def test_into_refuses_a_file_without_both_marks_and_leaves_it(
    cli: Callable[..., Any], trial_gives: Callable[..., list[Any]], tmp_path: Path, text: str
) -> None:
    trial_gives(CAUGHT)
    page = tmp_path / "page.md"
    page.write_text(text)
    said = cli("selftest", "--into", str(page))
    assert said.code == 2
    assert "page.md has no lines" in said.err
    assert page.read_text() == text


def test_into_refuses_a_file_that_is_not_there(cli: Callable[..., Any], trial_gives: Callable[..., list[Any]]) -> None:
    asked = trial_gives(CAUGHT)
    said = cli("selftest", "--into", "nowhere.md")
    assert (said.code, asked) == (2, [])
    assert "nowhere.md" in said.err


# --- refusals -----------------------------------------------------------------------------------------------------------


def test_an_unknown_fault_is_refused_with_the_names_near_it(
    cli: Callable[..., Any], trial_gives: Callable[..., list[Any]]
) -> None:
    asked = trial_gives(CAUGHT)
    said = cli("selftest", FAULT, "faulty-torch@sigmoid-nine-unit")
    assert (said.code, asked) == (2, [])
    assert said.err.startswith("error: unknown fault 'faulty-torch@sigmoid-nine-unit'; did you mean ")
    assert FAULT in said.err
    assert "Traceback" not in said.err


def test_without_any_fault_it_says_what_to_install(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = msgspec.structs.replace(selftest_.load_plugins(), faults=())
    monkeypatch.setattr(selftest_, "load_plugins", lambda: catalog)
    said = cli("selftest")
    assert said.code == 2
    assert said.err == "error: no fault is installed: pip install actconform-faulty\n"


def test_what_the_trial_refuses_is_said_without_a_traceback(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> DetectionReport:
        raise UsageError("fault a@one names the case b/c, which there is not")

    monkeypatch.setattr(selftest_, "selftest", refuse)
    said = cli("selftest")
    assert (said.code, said.err) == (2, "error: fault a@one names the case b/c, which there is not\n")
