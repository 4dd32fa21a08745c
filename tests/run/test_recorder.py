"""What is kept of a run: lines at once, the report in one step, nothing of an older run, JSON that any reader takes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actconform.errors import FolderInUseError, UsageError
from actconform.run.recorder import CLAIM, Recorder, read_results, report
from actconform.types import Case, Finding, FindingClass, Interval, Measurement, Result, Verdict, Worst
from actconform.types.json import finite
from actconform.types.report import Facts
from actconform.verdict.severity import graded

if TYPE_CHECKING:
    from collections.abc import Callable
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
        recorder.finish(report([], Facts(), [], {}))
    with Recorder(tmp_path):
        assert not (tmp_path / "report.json").exists()
        assert (tmp_path / "results.jsonl").read_bytes() == b""


def test_a_report_that_cannot_be_written_leaves_no_half_one(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.finish(report([], Facts(actconform="first"), [], {}))
        before = (tmp_path / "report.json").read_bytes()
        with pytest.raises(UnicodeEncodeError):
            recorder.finish(report([], Facts(), ["\ud800"], {}))
        assert (tmp_path / "report.json").read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == [CLAIM, "facts.json", "report.json", "results.jsonl"]


def test_the_report_counts_what_is_there_and_names_what_is_not_finite() -> None:
    results = [result(), result("tanh"), result("elu", Verdict.FAIL)]
    facts = Facts(backends={"torch": {"torch": "2.13.0"}})
    document = finite(report(results, facts, ["1 FAIL"], {"total": 1.0}))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["schema"] == 1
    assert document["summary"] == {"PASS": 2, "FAIL": 1}
    assert (document["conforms"], document["problems"]) == (False, ["1 FAIL"])
    assert document["facts"]["backends"]["torch"]["torch"] == "2.13.0"
    measurement = document["results"][0]["measurements"][0]
    assert (measurement["max_ulp"], measurement["max_scaled"], measurement["margin"]) == ("nan", "-inf", "inf")
    assert measurement["histogram"] == [1, 2]
    assert report([], Facts(), [], {}).conforms is True


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
        interval=Interval("0x7fc00000", "0x7fc00000"),
        worst=Worst(input_hex="0x7fc00000", index=3, truth=NAN, got=-INF, ulp=INF, scaled=0.5),
        magnitude=INF,
    )
    made = msgspec.structs.replace(result(), findings=(finding,))
    (kept,) = finite(report([made], Facts(), [], {}))["results"]
    assert kept.keys() >= {
        *("case", "subject", "aspect", "dtype", "route", "verdict", "stage", "reason", "blame", "seconds")
    }
    (found,) = kept["findings"]
    assert found.keys() == {
        *("class", "count", "regime", "tensor", "interval", "worst", "magnitude", "deviation", "blame", "evidence"),
        *("used", "candidates", "severity", "relation"),
    }
    assert found["worst"].keys() == {"input_hex", "index", "truth", "got", "ulp", "scaled"}
    assert (found["worst"]["truth"], found["worst"]["got"], found["magnitude"]) == ("nan", "-inf", "inf")
    (measured,) = kept["measurements"]
    assert measured.keys() >= {
        *("tensor", "regime", "n", "max_ulp", "max_scaled", "bias", "limit", "margin", "histogram")
    }
    with Recorder(tmp_path) as recorder:
        recorder.add(made)
    line = json.loads((tmp_path / "results.jsonl").read_bytes())
    assert line.pop("proof").keys() == {"run", "facts", "sha256"}
    assert line == kept


def test_a_second_run_into_the_same_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with Recorder(tmp_path) as first:
        first.add(result())
        with pytest.raises(FolderInUseError):
            Recorder(tmp_path)
        first.add(result("elu"))
    assert len((tmp_path / "results.jsonl").read_bytes().splitlines()) == 2
    with Recorder(tmp_path):
        assert (tmp_path / "results.jsonl").read_bytes() == b""


FLOATS = st.floats() | st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 5e-324, 1.7976931348623157e308])
WORDS = st.text(max_size=6) | st.sampled_from(["nan", "inf", "-inf", "1.5", "\n", "\u2028"])


@given(st.data())
def test_a_result_comes_back_as_it_went(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    number, word = lambda: data.draw(FLOATS), lambda: data.draw(WORDS)
    worst = Worst(input_hex=word(), index=3, truth=number(), got=number(), ulp=number(), scaled=number())
    finding = Finding(
        class_=data.draw(st.sampled_from(FindingClass)),
        count=2,
        regime=word(),
        tensor=word(),
        interval=Interval(word(), word()),
        worst=data.draw(st.sampled_from([worst, None])),
        magnitude=number(),
        deviation=data.draw(st.none() | WORDS),
    )
    measurement = msgspec.structs.replace(
        result().measurements[0], max_ulp=number(), bias=number(), kinks={word(): word()}
    )
    made = msgspec.structs.replace(
        result(data.draw(WORDS), data.draw(st.sampled_from(Verdict))),
        reason=word(),
        findings=(finding,),
        measurements=(measurement,),
        seconds=number(),
        timings={word(): number()},
    )
    folder = tmp_path_factory.mktemp("out")
    with Recorder(folder) as recorder:
        recorder.add(made)
    (back,) = read_results(folder)
    assert repr(back) == repr(graded(made))  # nan is nan there, and -0.0 is not 0.0


FACTS = {"torch": {"torch": "2.13.0"}}
NAMES = ("relu", "tanh", "elu", "silu")
CASES = [Case(name, "value", "f32", "torch") for name in NAMES]


def earlier(folder: Path, *results: Result, about: str = "so") -> None:
    with Recorder(folder, about=about) as recorder:
        recorder.validate_facts("torch", FACTS, CASES)
        for one in results:
            recorder.add(one)


def resumed(folder: Path, about: str = "so") -> Recorder:
    return Recorder(folder, about=about, resume={case.id for case in CASES})


def subjects(folder: Path) -> list[str]:
    return [one.subject for one in read_results(folder)]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path, cut: int) -> None:
    earlier(tmp_path, result(), result("tanh"))
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert subjects(tmp_path) == ["relu"]
    with resumed(tmp_path) as recorder:
        recorder.validate_facts("torch", FACTS, CASES)
        assert recorder.get(CASES[1].id) is None
        recorder.add(result("tanh"))
    assert subjects(tmp_path) == ["relu", "tanh"]
    assert recorder.notes == []


def written(folder: Path) -> list[bytes]:
    return (folder / "results.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    "wrong", [b'{"case":"relu/va', b"[]", b"", b"\xff\xfe", b'{"case":"a"}', b"[" * 100_000, b"9" * 10_000, b"\x00"]
)
def test_a_line_that_is_no_result_is_dropped_and_said(wrong: bytes, tmp_path: Path) -> None:
    earlier(tmp_path, result(), result("tanh"))
    first, second = written(tmp_path)
    (tmp_path / "results.jsonl").write_bytes(wrong + b"\n" + second)
    with pytest.raises(UsageError, match=r"results\.jsonl: line 1 is not a result as a run wrote it"):
        read_results(tmp_path)
    with resumed(tmp_path) as recorder:
        assert (recorder.get(CASES[0].id), recorder.kept) == (None, 1)
        (note,) = recorder.notes
        assert note.startswith("1 line of results.jsonl is dropped, and what is missing now is run again: line 1 ")
    assert written(tmp_path) == [second]
    assert first != second


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "verdict": lambda line: line.update(verdict="PASS"),
    "case": lambda line: line.update(case=CASES[2].id),
    "reason": lambda line: line.update(reason="as it should be"),
    "a number": lambda line: line["measurements"][0].update(bias=0.25),
    "blame": lambda line: line.update(blame="convention"),
    "a field more": lambda line: line.update(note="looks well"),
    "a field less": lambda line: line.pop("measurements"),
    "no proof": lambda line: line.pop("proof"),
    "an empty proof": lambda line: line.update(proof={}),
    "another run's proof": lambda line: line["proof"].update(run="0" * 64),
    "other facts": lambda line: line["proof"].update(facts="0" * 64),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_line_that_was_edited_is_dropped_said_and_run_again(edit: str, tmp_path: Path) -> None:
    earlier(tmp_path, result(verdict=Verdict.FAIL), result("tanh"))
    first, second = written(tmp_path)
    line = json.loads(first)
    EDITS[edit](line)
    (tmp_path / "results.jsonl").write_bytes(json.dumps(line).encode() + b"\n" + second)
    with resumed(tmp_path) as recorder:
        recorder.validate_facts("torch", FACTS, CASES)
        assert [bool(recorder.get(case.id)) for case in CASES] == [False, True, False, False]
        assert "line 1 is not a result as a run wrote it" in " ".join(recorder.notes)
        recorder.add(result(verdict=Verdict.FAIL))
    assert [one.verdict for one in read_results(tmp_path)] == [Verdict.PASS, Verdict.FAIL]


def test_a_line_that_is_written_otherwise_and_says_the_same_is_kept(tmp_path: Path) -> None:
    earlier(tmp_path, result())
    line = json.loads(written(tmp_path)[0])
    (tmp_path / "results.jsonl").write_text(json.dumps(dict(reversed(line.items()))) + "\n")
    with resumed(tmp_path) as recorder:
        recorder.validate_facts("torch", FACTS, CASES)
        assert (recorder.kept, recorder.notes) == (1, [])


@pytest.mark.parametrize("of", ["a run about something else", "a run under other facts"])
def test_a_line_of_another_run_is_dropped_though_facts_say_otherwise(of: str, tmp_path: Path) -> None:
    mine, foreign = tmp_path / "mine", tmp_path / "foreign"
    earlier(mine, result("tanh"))
    with Recorder(foreign, about="so" if "facts" in of else "otherwise") as recorder:
        recorder.validate_facts("torch", {"torch": {"torch": "1.0"}} if "facts" in of else FACTS, CASES)
        recorder.add(result())
    with (mine / "results.jsonl").open("ab") as lines:
        lines.write((foreign / "results.jsonl").read_bytes())
    with resumed(mine) as recorder:
        recorder.validate_facts("torch", FACTS, CASES)
        assert [bool(recorder.get(case.id)) for case in CASES] == [False, True, False, False]
        assert len(recorder.notes) == 1
        assert "1 result of the earlier run is dropped" in recorder.notes[0]
    assert subjects(mine) == ["tanh"]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    earlier(tmp_path, result())
    for name in ("results.4711", ".facts.json.4711", ".report.json.4711"):
        (tmp_path / name).write_text("{")
    (tmp_path / "results.old").write_text("mine")
    with resumed(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [CLAIM, "facts.json", "results.jsonl", "results.old"]


@pytest.mark.parametrize("file", ["results.jsonl", "facts.json"])
def test_what_is_no_file_is_not_waited_for(file: str, tmp_path: Path) -> None:
    earlier(tmp_path, result())
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    with pytest.raises((OSError, UsageError), match="is no regular file"):
        resumed(tmp_path)
    if file == "results.jsonl":
        with pytest.raises(OSError, match="is no regular file"):
            Recorder(tmp_path)


def test_what_may_be_mended_or_is_not_selected_is_not_kept(tmp_path: Path) -> None:
    ends = [result("elu", Verdict.CRASH), result("silu", Verdict.UNAVAILABLE), result("gone")]
    earlier(tmp_path, result(), result("tanh", Verdict.FAIL), *ends)
    with resumed(tmp_path) as recorder:
        recorder.validate_facts("torch", FACTS, CASES)
        assert [bool(recorder.get(case.id)) for case in CASES] == [True, True, False, False]
        kept = recorder.get(CASES[0].id)
        assert kept is not None
        recorder.add(kept)
        with pytest.raises(FolderInUseError):  # the claim holds for the file that was put in its place
            Recorder(tmp_path)
    assert subjects(tmp_path) == ["relu", "tanh"]


@pytest.mark.parametrize("now", [{"torch": {"torch": "2.14.0"}}, {**FACTS, "keras": {}}, {}])
def test_results_under_other_facts_are_dropped_before_the_facts_are_written(tmp_path: Path, now: dict) -> None:
    earlier(tmp_path, result(), result("tanh"))
    with resumed(tmp_path) as recorder:
        recorder.validate_facts("torch", now, CASES)
        assert not any(recorder.get(case.id) for case in CASES)
        (note,) = recorder.notes
        assert note.startswith("torch: 2 results of the earlier run are dropped: ")
    assert subjects(tmp_path) == []
    with resumed(tmp_path) as recorder:
        assert recorder.kept == 0


def test_a_run_about_something_else_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    earlier(tmp_path, result())
    with resumed(tmp_path, about="otherwise") as recorder:
        assert (recorder.kept, len(recorder.notes)) == (0, 1)
    earlier(tmp_path, result())
    (tmp_path / "facts.json").unlink()
    with resumed(tmp_path) as recorder:
        assert recorder.kept == 0
    assert subjects(tmp_path) == []


def test_unreadable_facts_are_named(tmp_path: Path) -> None:
    earlier(tmp_path, result())
    (tmp_path / "facts.json").write_text("{")
    with pytest.raises(UsageError, match=r"facts\.json: not the facts"):
        resumed(tmp_path)
