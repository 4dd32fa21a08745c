"""`deviations adopt` writes what a run found as a register that a run can read; `deviations document` prints the document."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from actconform.run.recorder import report
from actconform.settings import read_config
from actconform.types import Finding, Interval, Result, Verdict, Worst
from actconform.types.cause import Register
from actconform.types.json import finite
from actconform.types.report import Facts
from actconform.verdict.causes.register import with_files

if TYPE_CHECKING:
    from pathlib import Path


def run_report(*, deviation: str | None = None) -> str:
    """The report of a run with one finding, new or registered."""
    finding = Finding(
        class_="scaled-error",
        count=3,
        regime="tail",
        tensor="y",
        interval=Interval("0xc1200000", "0xc1000000"),
        worst=Worst("0xc1200000", 4, -1e-3, -2e-3, 40.0, 20.0),
        magnitude=20.0,
        deviation=deviation,
    )
    result = Result(
        case="mish/value/f32/torch",
        subject="mish",
        aspect="value",
        dtype="f32",
        route="torch",
        verdict=Verdict.XFAIL if deviation else Verdict.FAIL,
        findings=(finding,),
    )
    problems = [] if deviation else ["1 FAIL"]
    return json.dumps(finite(report([result], Facts(backends={"torch": {"torch": "2.13.0"}}), problems, {})))


def test_a_new_finding_becomes_a_deviation_that_the_settings_can_name(cli, tmp_path: Path):
    (tmp_path / "report.json").write_text(run_report())
    code, output, message = cli("deviations", "adopt", ".", "--output", "mine.toml")
    assert (code, message) == (0, "")
    assert "no known formula explains mish/value/f32/torch: scaled-error y tail, 3 elements" in output
    setting = re.search(r"deviations = \[.*\]", output)[0]
    (tmp_path / "actconform.toml").write_text(setting)
    (cause,) = with_files(Register(), read_config().deviations).causes
    (cover,) = cause.covers
    assert (cover.class_, cover.kernels, cover.dtypes) == ("scaled-error", ("mish",), ("f32",))
    assert cause.routes == ("torch",)
    assert 20.0 < cover.bound < 30.0


def test_the_default_folder_and_file_are_those_of_a_run_and_of_the_day(cli, tmp_path: Path):
    (tmp_path / "conform-out").mkdir()
    (tmp_path / "conform-out" / "report.json").write_text(run_report())
    code, _, _ = cli("deviations", "adopt")
    assert code == 0
    (written,) = tmp_path.glob("deviations-*.toml")
    assert re.fullmatch(r"deviations-\d{4}-\d\d-\d\d\.toml", written.name)
    assert len(with_files(Register(), (str(written),)).causes) == 1
    before = written.read_bytes()
    code, _, message = cli("deviations", "adopt")
    assert code == 2
    assert f"{written.name} exists; nothing was overwritten" in message
    assert written.read_bytes() == before


def test_a_run_without_new_findings_writes_nothing(cli, tmp_path: Path):
    (tmp_path / "report.json").write_text(run_report(deviation="known"))
    code, output, _ = cli("deviations", "adopt", ".", "-o", "mine.toml")
    assert code == 0
    assert "nothing to adopt" in output
    assert not (tmp_path / "mine.toml").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "3",
        '"text"',
        "[]",
        "{}",
        '{"results": 3}',
        '{"results": null, "facts": null}',
        '{"results": [], "facts": []}',
        '{"results": ["case"], "facts": {"backends": {}}}',
        '{"results": [{"findings": [{}]}], "facts": {"backends": {}}}',
        '{"results": [{"findings": 3}], "facts": {"backends": {}}}',
    ],
)
def test_what_is_no_report_is_refused_by_name(text: str, cli, tmp_path: Path):
    (tmp_path / "report.json").write_text(text)
    code, output, message = cli("deviations", "adopt", ".")
    assert (code, output) == (2, "")
    assert message.startswith("error: report.json: ")
    assert "report.json" in message.partition("wanted")[2] + message.partition("run again")[1]
    assert len(message.splitlines()) == 1
    assert not list(tmp_path.glob("*.toml"))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("dtype", 3), ("interval", ["x"]), ("magnitude", "large"), ("route", 3), ("interval", 3)],
)
def test_a_report_with_a_field_that_makes_no_sense_is_refused(field: str, wrong: object, cli, tmp_path: Path):
    document = json.loads(run_report())
    result = document["results"][0]
    (result if field in result else result["findings"][0])[field] = wrong
    (tmp_path / "report.json").write_text(json.dumps(document))
    code, _, message = cli("deviations", "adopt", ".")
    assert code == 2
    assert "not the report of a run" in message


def test_facts_of_another_shape_are_refused(cli, tmp_path: Path):
    document = json.loads(run_report())
    document["facts"]["backends"] = ["torch"]
    (tmp_path / "report.json").write_text(json.dumps(document))
    code, _, message = cli("deviations", "adopt", ".")
    assert code == 2
    assert "not the report of a run" in message


def test_an_output_that_cannot_be_written_is_named(cli, tmp_path: Path):
    (tmp_path / "report.json").write_text(run_report())
    code, _, message = cli("deviations", "adopt", ".", "-o", "report.json/mine.toml")
    assert code == 2
    assert "report.json/mine.toml" in message
    code, _, message = cli("deviations", "adopt", ".", "-o", "gone/mine.toml")
    assert code == 2
    assert "--output gone/mine.toml: cannot be written: No such file or directory" in message


def test_a_run_is_observed_and_held_against_what_was_observed(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("actconform.cli.deviations_.golden_dir", lambda: tmp_path)
    (tmp_path / "report.json").write_text(run_report(deviation="known"))
    assert cli("deviations", "ratchet", ".").code == 0
    observed = cli("deviations", "observe", ".")
    assert (observed.code, (tmp_path / "observed.json").exists()) == (0, True)
    assert cli("deviations", "ratchet", ".").code == 0
    gone = json.loads(run_report(deviation="known"))
    gone["results"][0]["findings"] = []
    (tmp_path / "report.json").write_text(json.dumps(gone))
    held = cli("deviations", "ratchet", ".")
    assert held.code == 1
    assert "known covers nothing any more, where it covered 3 elements" in held.out
    (tmp_path / "observed.json").write_text("{")
    broken = cli("deviations", "ratchet", ".")
    assert broken.code == 2
    assert "observed.json" in broken.err


def test_the_document_is_printed_and_names_every_registered_deviation(cli):
    said = cli("deviations", "document")
    assert said.code == 0
    assert said.out.startswith("#")
    for deviation in json.loads(cli("list", "deviations", "--json").out):
        assert deviation["id"] in said.out
