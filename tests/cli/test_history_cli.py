"""`actconform history`: runs go in, and any run of them comes out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from actconform.run.recorder import write_report

sys.path.append(str(Path(__file__).parents[1] / "report"))
from made import finding, report, result

RELU, ELU = "relu/value/f32/torch", "elu/value/f32/torch"
ADD = ("--store", "history.jsonl")


@pytest.fixture
def nights(cli, tmp_path: Path) -> None:
    """Three folders of runs, a to c, in the working folder, of which the second has a finding more."""
    bad = result(RELU, findings=(finding("inf"),))
    for number, (name, first) in enumerate({"a": result(RELU), "b": bad, "c": bad}.items(), 1):
        (tmp_path / name).mkdir()
        problems = () if name == "a" else ("1 FAIL",)
        write_report(
            tmp_path / name, report(first, result(ELU), when=f"2026-02-0{number}T00:00:00Z", problems=problems)
        )


@pytest.mark.usefixtures("nights")
def test_reports_are_added_in_the_order_of_time_once(cli):
    said = cli("history", "add", "c", "a/report.json", "b", *ADD)
    assert (said.code, "3 runs added to history.jsonl" in said.out) == (0, True), said
    again = cli("history", "add", "b", *ADD)
    assert (again.code, "2026-02-02T00:00:00Z: is there already" in again.out) == (0, True)


@pytest.mark.usefixtures("nights")
def test_what_a_kill_left_is_dropped_and_told(cli, tmp_path):
    cli("history", "add", "a", *ADD)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"case":"relu')
    said = cli("history", "add", "b", *ADD)
    assert (said.code, "dropped 13 bytes of an addition that did not come to its end" in said.out) == (0, True)


@pytest.mark.usefixtures("nights")
def test_the_state_at_any_run_is_shown_with_since_when(cli):
    cli("history", "add", "a", "b", "c", *ADD)
    last = cli("history", "show", "relu/*", *ADD)
    assert last.code == 0
    assert last.out.splitlines()[0] == "2026-02-03T00:00:00Z, the last of 3 runs: does not conform"
    assert "FAIL        relu/value/f32/torch" in last.out
    assert "inf in y, tail since 2026-02-02T00:00:00Z, not yet 2026-02-01T00:00:00Z: no fact changed" in last.out
    assert f" {ELU}" not in last.out
    first = cli("history", "show", *ADD, "--at", "2026-02-01")
    assert first.out.splitlines()[0] == "2026-02-01T00:00:00Z, the last of 1 run: conforms"
    assert "PASS        relu/value/f32/torch  12.5 % of its limit" in first.out


@pytest.mark.usefixtures("nights")
def test_json_has_all_points(cli):
    cli("history", "add", "a", "b", "c", *ADD)
    document = json.loads(cli("history", "show", "relu/*", *ADD, "--json").out)
    (case,) = document["cases"]
    assert [point["verdict"] for point in case["points"]] == ["PASS", "FAIL", "FAIL"]
    assert case["since"][0]["when"] == "2026-02-02T00:00:00Z"


@pytest.mark.usefixtures("nights")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "nowhere", *ADD), "nowhere"),
        (("add", "a", "--store", "."), "no regular file"),
        (("add", "a", "--store", "no/such/file"), "cannot be written"),
        (("add", "a", "--store", "a/report.json"), "is no history"),
        (("show", "--store", "gone.jsonl"), "cannot be read"),
        (("show", "--store", "a/report.json"), "is no history"),
        (("show", "nosuch/*", *ADD), "no case of the run"),
        (("show", *ADD, "--at", "yesterday"), "wanted a date"),
        (("show", *ADD, "--at", "2020-01-01"), "has no run at or before 2020-01-01"),
    ],
)
def test_what_cannot_be_used_is_named(cli, arguments, words):
    cli("history", "add", "a", *ADD)
    said = cli("history", *arguments)
    assert said.code == 2, said
    assert words in said.err


def test_a_report_without_a_time_has_that_of_its_file(cli, tmp_path):
    os.utime(write_report(tmp_path, report(result(RELU), when="")), (0, 0))
    assert cli("history", "add", "report.json", *ADD).code == 0
    assert "1970-01-01T00:00:00Z" in cli("history", "show", *ADD).out
