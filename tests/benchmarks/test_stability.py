"""What the stability check makes of runs, fabricated here; frameworks run in `make stability`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from processes import heed_ctrl_c

from actconform.plugin.loader import load_plugins
from actconform.run.select import Selection, all_cases, select
from actconform.types import Finding, Interval, Result, Verdict
from benchmarks import stability
from benchmarks.stability import Ran, Setting, differences

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CASE = "gelu-erf/value/f32/torch"
EXPORTED = "gelu-erf/value/f32/torch-dynamo+ort-cpu"
SOURCES = {"torch-dynamo": "torch"}
AVX512 = {"torch": {"torch": "2.13.0", "cpu_capability": "AVX512", "threads": "1"}}
AVX2 = {"torch": {"torch": "2.13.0", "cpu_capability": "AVX2", "threads": "1"}}
TWO = {"torch": {"torch": "2.13.0", "cpu_capability": "AVX2", "threads": "2"}}


def result(verdict: str = "PASS", *findings: tuple[str, str], case: str = CASE) -> Result:
    subject, aspect, dtype, route = case.split("/")
    found = tuple(
        Finding(class_=class_, count=1, regime="", tensor=tensor, interval=Interval("", ""), worst=None, magnitude=1.0)
        for class_, tensor in findings
    )
    return Result(
        case=case, subject=subject, aspect=aspect, dtype=dtype, route=route, verdict=Verdict(verdict), findings=found
    )


def ran(name: str, facts: dict[str, dict[str, str]], *results: Result, line: str = "torch") -> Ran:
    return Ran(name, {one.case: one for one in results}, {line: facts})


# --- what differs -------------------------------------------------------------------------------------------------------


def test_pure_repeats_that_say_the_same_do_not_differ() -> None:
    runs = [ran(str(n), AVX512, result("XFAIL", ("inf", "y"), ("tail", "y"))) for n in range(4)]
    assert differences(runs, SOURCES) == []


def test_the_order_and_number_of_findings_do_not_count() -> None:
    one = ran("1", AVX512, result("XFAIL", ("inf", "y"), ("tail", "y")))
    other = ran("2", AVX512, result("XFAIL", ("tail", "y"), ("inf", "y"), ("inf", "y")))
    assert differences([one, other], SOURCES) == []


def test_another_verdict_under_the_same_facts_is_unexplained_and_names_both_runs() -> None:
    runs = [
        ran("1", AVX512, result()),
        ran("2", AVX2, result()),
        ran("3", AVX512, result("FAIL", ("inf", "y"))),
    ]
    (found,) = differences(runs, SOURCES)
    assert (found.case, found.runs, found.changed) == (CASE, ("1", "3"), ())
    assert found.said == ("PASS", "FAIL, inf at y")


@pytest.mark.parametrize("other", [("inf", "d_x"), ("tail", "y")], ids=["tensor", "class"])
def test_other_findings_under_the_same_verdict_differ_too(other: tuple[str, str]) -> None:
    runs = [ran("1", AVX512, result("XFAIL", ("inf", "y"))), ran("2", AVX512, result("XFAIL", other))]
    (found,) = differences(runs, SOURCES)
    assert found.changed == ()
    assert found.said == ("XFAIL, inf at y", f"XFAIL, {other[0]} at {other[1]}")


def test_what_came_with_another_fact_is_explained_by_it() -> None:
    runs = [ran("1", AVX512, result("XFAIL", ("inf", "y"))), ran("2", AVX2, result())]
    (found,) = differences(runs, SOURCES)
    assert found.runs == ("1", "2")
    assert found.changed == ("torch cpu_capability AVX512 -> AVX2",)


def test_what_is_explained_once_is_not_said_again_and_a_repeat_of_it_must_be_the_same() -> None:
    runs = [
        ran("1", AVX512, result("XFAIL", ("inf", "y"))),
        ran("2", AVX2, result()),
        ran("3", AVX2, result()),
        ran("4", TWO, result()),
        ran("5", AVX2, result("XFAIL", ("inf", "y"))),
    ]
    explained, unexplained = differences(runs, SOURCES)
    assert (explained.runs, explained.changed) == (("1", "2"), ("torch cpu_capability AVX512 -> AVX2",))
    assert (unexplained.runs, unexplained.changed) == (("2", "5"), ())


def test_the_run_with_the_fewest_other_facts_is_compared() -> None:
    runs = [ran("1", AVX512, result()), ran("2", AVX2, result()), ran("3", TWO, result("FAIL", ("inf", "y")))]
    (found,) = differences(runs, SOURCES)
    assert (found.runs, found.changed) == (("2", "3"), ("torch threads 1 -> 2",))


@pytest.mark.parametrize("facts", [AVX512, AVX2], ids=["same facts", "other facts"])
@pytest.mark.parametrize("lacking", [0, 1])
def test_a_result_that_one_run_lacks_is_unexplained_whatever_the_facts(
    facts: dict[str, dict[str, str]], lacking: int
) -> None:
    other = result(case="relu/value/f32/torch")
    runs = [ran("1", AVX512, result(), other), ran("2", facts, result(), other)]
    del runs[lacking].results[CASE]
    (found,) = differences(runs, SOURCES)
    assert (found.case, found.runs, found.changed) == (CASE, ("1", "2"), ())
    assert found.said[lacking] == "no result"


def test_a_process_that_did_not_start_explains_nothing() -> None:
    runs = [ran("1", AVX512, result()), ran("2", {}, result("ERROR"))]
    assert [found.changed for found in differences(runs, SOURCES)] == [()]


def test_a_backend_that_is_never_there_does_not_differ() -> None:
    assert differences([ran(name, {}, result("UNAVAILABLE")) for name in "12"], SOURCES) == []


@pytest.mark.parametrize(("line", "count"), [("torch+ort-cpu", 1), ("ort-cpu", 0), ("torch", 0)])
def test_an_exported_case_has_the_facts_of_its_exporter_s_line(line: str, count: int) -> None:
    """Facts of other lines explain nothing of it: here those are the only ones that changed."""
    runs = [
        ran("1", AVX512, result("FAIL", case=EXPORTED), line=line),
        ran("2", AVX2, result(case=EXPORTED), line=line),
    ]
    (found,) = differences(runs, SOURCES)
    assert len(found.changed) == count


# --- what is said -------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs_are(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Setting, Any]]]:
    def are(*runs: Ran) -> list[tuple[Setting, Any]]:
        left, asked = list(runs), []

        def run_once(setting: Setting, name: str, patterns: Any, folder: Path) -> Ran:
            asked.append((setting, patterns))
            return msgspec.structs.replace(left.pop(0), name=name)

        monkeypatch.setattr(stability, "run_once", run_once)
        return asked

    return are


def test_stable_runs_are_said_to_be_and_the_settings_are_those_stated(
    runs_are: Callable[..., list[tuple[Setting, Any]]],
) -> None:
    asked = runs_are(*[ran("", AVX512, result())] * 11)
    done = CliRunner().invoke(stability.main)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("run 1: 1 thread, as the machine is: 1 PASS; ")
    assert lines[-1] == "STABLE: 1 case in 11 runs; 0 changes without a changed fact, 0 with one."
    assert [setting for setting, _ in asked] == list(stability.SETTINGS)
    assert {tuple(patterns) for _, patterns in asked} == {stability.MATRIX}


def test_unexplained_changes_are_named_and_end_with_1_explained_ones_do_not(
    runs_are: Callable[..., list[tuple[Setting, Any]]],
) -> None:
    explained = [ran("", AVX512, result("XFAIL", ("inf", "y"))), ran("", AVX2, result())]
    asked = runs_are(*explained)
    done = CliRunner().invoke(stability.main, ["--runs", "2", "gelu-*"])
    assert done.exit_code == 0, done.output
    assert [patterns for _, patterns in asked] == [("gelu-*",)] * 2
    assert done.output.splitlines()[2:] == [
        "explained: 1 case, by torch cpu_capability AVX512 -> AVX2",
        f"  {CASE}: XFAIL, inf at y in run 1; PASS in run 2",
        "STABLE: 1 case in 2 runs; 0 changes without a changed fact, 1 with one.",
    ]
    runs_are(*explained, ran("", AVX2, result("CRASH")))
    done = CliRunner().invoke(stability.main, ["--runs", "3"])
    assert done.exit_code == 1
    assert done.output.splitlines()[-2:] == [
        f"UNEXPLAINED: {CASE}: PASS in run 2; CRASH in run 3",
        "NOT STABLE: 1 case in 3 runs; 1 change without a changed fact, 1 with one.",
    ]


@pytest.mark.parametrize("runs", ["1", "0", "many"])
def test_one_run_is_no_comparison(runs: str) -> None:
    assert CliRunner().invoke(stability.main, ["--runs", runs]).exit_code == 2


def test_the_settings_hold_both_numbers_of_threads_every_level_and_repeats() -> None:
    assert len(stability.SETTINGS) == 11
    assert {setting.threads for setting in stability.SETTINGS} == {1, 2}
    told = {value for setting in stability.SETTINGS for value in setting.env.items()}
    assert {("ATEN_CPU_CAPABILITY", "default"), ("ATEN_CPU_CAPABILITY", "avx2")} <= told
    assert {("ONEDNN_MAX_CPU_ISA", "SSE41"), ("ONEDNN_MAX_CPU_ISA", "AVX2")} <= told
    switched = {(one.env.get("TF_ENABLE_ONEDNN_OPTS"), one.env.get("ONEDNN_MAX_CPU_ISA")) for one in stability.SETTINGS}
    assert switched == {(None, None), ("0", None), ("1", None), ("1", "SSE41"), ("1", "AVX2")}
    words = [str(setting) for setting in stability.SETTINGS]
    assert len(set(words)) < len(words)


def test_every_pattern_of_the_matrix_selects_cases_and_none_of_them_waits_for_another_device() -> None:
    catalog = load_plugins()
    chosen = select(all_cases(catalog), Selection(patterns=stability.MATRIX))
    assert {case.aspect for case in chosen} == {"value", "gradient"}
    assert {case.route for case in chosen} == {*stability.ROUTES, "torch-dynamo+ort-cpu"}
    assert {case.dtype for case in chosen} == {"f32"}


# --- one run ------------------------------------------------------------------------------------------------------------


def program(folder: Path, body: str) -> None:
    """Have this Python program stand where `actconform` does."""
    script = folder / "actconform"
    script.write_text(f"#!{sys.executable}\nimport os, pathlib, signal, sys, time\n{textwrap.dedent(body)}")
    script.chmod(0o755)


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def stand(body: str) -> None:
        program(tmp_path, body)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    return stand


LEAVES = """
    out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
    words = {name: os.environ.get(name, "") for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "ACTCONFORM_CACHE")}
    words["settings"] = pathlib.Path(sys.argv[sys.argv.index("--config") + 1]).read_text()
    words["patterns"] = " ".join(sys.argv[2:sys.argv.index("--config")])
    import json
    (out / "facts.json").write_text(json.dumps({"run": "", "lines": {"torch": {"torch": words}}}))
    (out / "results.jsonl").write_text("")
    (out / "report.json").write_text("{}")
    sys.exit(1)
"""


def test_a_run_is_told_its_setting_and_keeps_nothing_of_another(
    instead: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(LEAVES)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setenv("ACTCONFORM_CACHE", "/elsewhere")
    folder = tmp_path / "1"
    said = stability.run_once(Setting(2, {"ONEDNN_MAX_CPU_ISA": "SSE41"}), "run 1", ["relu/*"], folder)
    assert said.name == "run 1"
    assert said.results == {}
    assert said.lines["torch"]["torch"] == {
        "ATEN_CPU_CAPABILITY": "",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ACTCONFORM_CACHE": str(folder / "exports"),
        "settings": "threads = 2\n",
        "patterns": "relu/*",
    }


def test_a_run_without_a_report_is_an_error_in_its_own_words(instead: Callable[[str], None], tmp_path: Path) -> None:
    instead('print("error: pattern matches no case", file=sys.stderr)\nsys.exit(2)')
    with pytest.raises(click.ClickException, match=r"run 3 made no report \(exit code 2\):\nerror: pattern matches no"):
        stability.run_once(Setting(1), "run 3", [], tmp_path / "3")


def test_ctrl_c_ends_the_run_and_leaves_no_process_behind(tmp_path: Path) -> None:
    """As from a terminal, where Ctrl-C goes to the whole group of processes: the run must hear it once, not twice."""
    program(
        tmp_path,
        f"""
        place = pathlib.Path({str(tmp_path)!r})
        told = []
        signal.signal(signal.SIGINT, lambda *_: told.append(1))
        (place / "pid.new").write_text(str(os.getpid()))
        (place / "pid.new").rename(place / "pid")
        until = time.monotonic() + 60
        while not told and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.3)
        (place / "told").write_text(str(len(told)))
        """,
    )
    main = f"import sys; sys.executable = {str(tmp_path / 'python')!r}; from benchmarks.stability import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", main],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509  no threads here
    )
    try:
        pid = tmp_path / "pid"
        until = time.monotonic() + 60
        while not pid.exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (tmp_path / "told").read_text() == "1"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "Aborted" in said
