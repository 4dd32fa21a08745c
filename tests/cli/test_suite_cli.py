"""`actconform suite onnx` through the command line, with a runtime that does to a graph what its name says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import actconform.cli._suite_onnx as suite_cli
from actconform.report.suite.suite_progress import SuiteProgress

sys.path.append(str(Path(__file__).parents[1] / "suite"))

from small_cases import X, small_case

RIGHT = [np.maximum(X, 0)]
HERE = ("suite", "onnx", "--runtime", "suite-runtime", "--out", "out")


@pytest.fixture
def cases(install, monkeypatch):
    """Set the cases that the onnx package has."""
    install(suite="suite_runtime:Plugin")

    def take(*names, **expected):
        made = [small_case(name, expected=expected.get(name, RIGHT)) for name in names]
        monkeypatch.setattr(suite_cli, "standard_cases", lambda patterns: made)

    return take


def written(tmp_path, name="suite.json"):
    return json.loads((tmp_path / "out" / name).read_bytes())


def test_cases_that_are_right_conform(cli, cases, tmp_path):
    cases("first", "second", "refuses")
    done = cli(*HERE, "--html")
    assert done.code == 0
    assert "CONFORMS     3 of 3 cases" in done.out
    assert 'onnx\'s cases of the kind "real" are left out' in done.out
    report = written(tmp_path)
    assert report["conforms"] is True
    assert {name: report["totals"][0][name] for name in ("cases", "passed", "within", "refused")} == {
        "cases": 3, "passed": 2, "within": 2, "refused": 1
    }  # fmt: skip
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "actconform suite onnx --runtime suite-runtime --out out --html" in page


def test_what_is_outside_or_without_an_answer_is_listed_and_costs_the_exit_code(cli, cases, tmp_path):
    cases("first", "doubles", "dies")
    done = cli(*HERE)
    assert done.code == 1
    assert "DOES NOT CONFORM" in done.out
    assert "doubles  outside: y[2]: 5 where 2.5 must be, exactly  blame: runtime" in done.out
    assert "SIGKILL" in done.out
    assert not (tmp_path / "out" / "index.html").exists()


def test_data_that_are_wrong_are_a_finding_of_their_own(cli, cases, tmp_path):
    cases("first", first=[np.array([0.0, 0.0, 2.5001], np.float32)])
    done = cli(*HERE)
    assert done.code == 0
    assert "blame: test data" in done.out
    assert written(tmp_path)["records"][0]["data"]["state"] == "outside"


def test_json_is_the_file(cli, cases, tmp_path):
    cases("first")
    done = cli(*HERE, "--json")
    assert (done.code, json.loads(done.out)) == (0, written(tmp_path))


def test_the_scoreboard_gets_a_report_a_trend_and_counts_of_operators(cli, cases, tmp_path):
    cases("test_first", "doubles", "refuses")
    for _ in range(2):
        assert cli(*HERE).code == 1
    place = "scoreboard/suite-runtime"
    report = written(tmp_path, f"{place}/report.json")
    assert report["passed"] == ["OnnxBackendNodeModelTest::test_first_cpu"]
    assert report["failed"] == ["OnnxBackendNodeModelTest::doubles_cpu", "OnnxBackendNodeModelTest::refuses_cpu"]
    assert report["skipped"] == []
    trend = written(tmp_path, f"{place}/trend.json")
    assert [(entry["passed"], entry["failed"], entry["skipped"], entry["total_ops"]) for entry in trend] == [
        (1, 2, 0, 1)
    ] * 2
    assert [version["name"] for version in trend[0]["versions"]] == ["suite-runtime", "onnx"]
    assert written(tmp_path, f"{place}/ops.json") == [
        {"domain": "", "failed_tests": 2, "op_type": "Relu", "passed_tests": 1, "skipped_tests": 0, "total_tests": 3}
    ]


def test_an_interrupted_run_writes_what_there_is_and_goes_on(cli, cases, tmp_path, monkeypatch):
    names = [f"case{number}" for number in range(30)]
    cases(*names)
    step = SuiteProgress.step
    counted = []

    def interrupt(self):
        step(self)
        counted.append(self)
        if len(counted) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(SuiteProgress, "step", interrupt)
    done = cli(*HERE)
    assert done.code == 1
    assert "7 of 30 cases" in done.out
    assert "interrupted: the same command with --resume goes on" in done.out
    assert len(written(tmp_path)["records"]) == 7
    assert not (tmp_path / "out" / "scoreboard").exists()
    monkeypatch.setattr(SuiteProgress, "step", step)
    done = cli(*HERE, "--resume")
    assert done.code == 0
    assert "resumed: 7 of 30 cases are from before" in done.err
    assert [record["case"] for record in written(tmp_path)["records"]] == names


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--runtime", "sute-runtime"), "did you mean suite-runtime?"),
        (("--timeout", "0"), "--timeout"),
        (("--out", ""), "--out is empty"),
        (("--out", "file"), "is a file: name a folder"),
        (("--resume", "--runtime", "suite-runtime"), "no actconform-suite/suite.jsonl to go on from"),
    ],
)
def test_wrong_usage_says_what_to_do_and_writes_nothing(cli, cases, tmp_path, arguments, words):
    cases("first")
    (tmp_path / "file").touch()
    done = cli("suite", "onnx", *arguments)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "actconform-suite").exists()


def test_a_broken_trend_is_told_before_anything_runs(cli, cases, tmp_path):
    cases("first")
    place = tmp_path / "out" / "scoreboard" / "suite-runtime"
    place.mkdir(parents=True)
    (place / "trend.json").write_text("{")
    done = cli(*HERE)
    assert done.code == 2
    assert "trend.json: is no trend" in done.err
    assert not (tmp_path / "out" / "suite.json").exists()


def test_a_runtime_that_is_none_is_wrong_usage_before_the_cases_are_read(cli, cases, monkeypatch):
    cases("first")
    monkeypatch.setattr(suite_cli, "standard_cases", lambda patterns: pytest.fail("the cases are read"))
    done = cli("suite", "onnx", "--runtime", "suite-runtme", "--out", "out")
    assert done.code == 2
    assert "suite-runtme is no runtime; did you mean suite-runtime" in done.err
    assert not Path("out").exists()


def test_an_operator_that_no_case_has_is_wrong_usage(cli):
    done = cli("suite", "onnx", "--op", "Sofmax")
    assert done.code == 2
    assert "--op Sofmax: no case has such an operator; did you mean Softmax" in done.err


def test_names_from_outside_show_as_text(cli, cases, tmp_path):
    name = "[red]\x1b[31m</script><b>"
    cases("first")
    hostile = small_case(name, expected=[np.zeros(3, np.float32)])
    suite_cli.standard_cases = lambda patterns: [hostile]
    done = cli(*HERE, "--html")
    assert "[red]\\x1b[31m</script>" in done.out
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "</script><b>" not in page
