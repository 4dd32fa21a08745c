"""What is kept of a run: lines at once, the report in one step, nothing of an older run, JSON that any reader takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from actconform.record import FolderInUseError, Recorder, report
from actconform.types import Finding, Measurement, Result, Verdict, Worst

if TYPE_CHECKING:
    from pathlib import Path

NAN, INF = float("nan"), float("inf")


def result(subject: str = "relu", verdict: Verdict = Verdict.PASS) -> Result:
    measurement = Measurement(
        tensor="y",
        regime="special",
        n=1,
        max_ulp=NAN,
        max_scaled=-INF,
        bias=0.5,
        limit=0.0,
        margin=INF,
        histogram=(1, 2),
    )
    return Result(
        case=f"{subject}/value/f32/torch",
        subject=subject,
        aspect="value",
        dtype="f32",
        route="torch",
        verdict=verdict,
        measurements=(measurement,),
    )


def test_each_line_is_on_disk_before_the_next_result(tmp_path: Path) -> None:
    with Recorder(tmp_path / "new" / "folder") as recorder:
        for number in (1, 2, 3):
            recorder.add(result(f"k{number}"))
            lines = (recorder.folder / "results.jsonl").read_bytes().splitlines(keepends=True)
            assert len(lines) == number
            assert lines[-1].endswith(b"\n")
            assert json.loads(lines[-1])["subject"] == f"k{number}"
        assert not (recorder.folder / "report.json").exists()


def test_a_new_run_takes_the_old_report_away_at_once(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.add(result())
        recorder.finish({"schema": 1})
    with Recorder(tmp_path):
        assert not (tmp_path / "report.json").exists()
        assert (tmp_path / "results.jsonl").read_bytes() == b""


def test_a_report_that_cannot_be_written_leaves_no_half_one(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.finish({"schema": 1})
        with pytest.raises(TypeError):
            recorder.finish({"schema": object()})
        assert (tmp_path / "report.json").read_bytes() == b'{"schema":1}'
        assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "results.jsonl"]


def test_the_report_counts_what_is_there_and_names_what_is_not_finite() -> None:
    results = [result(), result("tanh"), result("elu", Verdict.FAIL)]
    document = report(results, {"backends": {"torch": {"torch": "2.13.0"}}}, ["1 FAIL"], {"total": 1.0})
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["schema"] == 1
    assert document["summary"] == {"PASS": 2, "FAIL": 1}
    assert (document["conforms"], document["problems"]) == (False, ["1 FAIL"])
    assert document["facts"]["backends"]["torch"]["torch"] == "2.13.0"
    measurement = document["results"][0]["measurements"][0]
    assert (measurement["max_ulp"], measurement["max_scaled"], measurement["margin"]) == ("nan", "-inf", "inf")
    assert measurement["histogram"] == [1, 2]
    assert report([], {}, [], {})["conforms"] is True


def test_a_run_that_is_killed_keeps_its_results_and_has_no_report(tmp_path: Path) -> None:
    def killed() -> None:
        with Recorder(tmp_path) as recorder:
            recorder.add(result())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert len((tmp_path / "results.jsonl").read_bytes().splitlines()) == 1
    assert not (tmp_path / "report.json").exists()


def test_a_folder_that_cannot_be_made_or_cleared_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "out" / "report.json").mkdir(parents=True)
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "out"):
        with pytest.raises(OSError, match=r"file|report\.json"):
            Recorder(place)


def test_a_report_has_the_fields_of_the_contract_and_a_line_those_of_its_result(tmp_path: Path) -> None:
    finding = Finding(
        class_="nan-lost",
        count=2,
        regime="special",
        tensor="y",
        interval=("0x7fc00000", "0x7fc00000"),
        worst=Worst(input_hex="0x7fc00000", index=3, truth=NAN, got=-INF, ulp=INF, scaled=0.5),
        magnitude=INF,
    )
    made = msgspec.structs.replace(result(), findings=(finding,))
    (kept,) = report([made], {}, [], {})["results"]
    assert kept.keys() >= {
        *("case", "subject", "aspect", "dtype", "route", "verdict", "stage", "reason", "blame", "seconds")
    }
    (found,) = kept["findings"]
    assert found.keys() == {
        *("class", "count", "regime", "tensor", "interval", "worst", "magnitude", "deviation", "blame", "evidence")
    }
    assert found["worst"].keys() == {"input_hex", "index", "truth", "got", "ulp", "scaled"}
    assert (found["worst"]["truth"], found["worst"]["got"], found["magnitude"]) == ("nan", "-inf", "inf")
    (measured,) = kept["measurements"]
    assert measured.keys() >= {
        *("tensor", "regime", "n", "max_ulp", "max_scaled", "bias", "limit", "margin", "histogram")
    }
    with Recorder(tmp_path) as recorder:
        recorder.add(made)
    assert json.loads((tmp_path / "results.jsonl").read_bytes()) == kept


def test_a_second_run_into_the_same_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with Recorder(tmp_path) as first:
        first.add(result())
        with pytest.raises(FolderInUseError):
            Recorder(tmp_path)
        first.add(result("elu"))
    assert len((tmp_path / "results.jsonl").read_bytes().splitlines()) == 2
    with Recorder(tmp_path):
        assert (tmp_path / "results.jsonl").read_bytes() == b""
