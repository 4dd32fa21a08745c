"""`run`, `report`, `diff` and `merge` as a user meets them: the files that are left, exit codes, what is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest

ACTCONFORM = Path(sys.executable).with_name("actconform")
TOP = Path(__file__).parents[2]
FILES = {"report.json", "results.jsonl", "facts.json", "junit.xml", "summary.md", "accuracy.json"}
CASES = "relu/value/*/stand-in"


BROKEN = """
from actconform import Reporter, hookimpl

class Broken(Reporter):
    name = "broken"
    filename = "broken.txt"

    def write(self, report, folder):
        raise RuntimeError("out of ink")

class Plugin:
    @hookimpl
    def actconform_reporters(self):
        return [Broken]
"""


def edit(path: Path, change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.fixture(scope="module")
def finished(environment, tmp_path_factory) -> Path:
    """The folder with what two runs left: `a` (conforming) and `b` (of another kernel, with new findings)."""
    folder = tmp_path_factory.mktemp("finished")
    for out, cases, code in (("a", CASES, 0), ("b", "leaky-relu-0.3/value/f32/stand-in", 1)):
        command = [ACTCONFORM, "run", cases, "--out", out]
        assert subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode == code
    return folder


@pytest.fixture
def two_runs(install, finished, tmp_path) -> Path:
    """A copy of the two runs, for a test to change."""
    install(**{"stand-in": "stand_in:Plugin"})
    return shutil.copytree(finished, tmp_path, dirs_exist_ok=True)


def test_a_run_leaves_all_files_and_its_report_is_held_by_the_published_schema(two_runs):
    schema = json.loads((TOP / "docs/report-schema.json").read_text())
    for folder in ("a", "b"):
        assert {path.name for path in (two_runs / folder).iterdir()} >= FILES
        report = json.loads((two_runs / folder / "report.json").read_text())
        jsonschema.Draft202012Validator(schema).validate(report)
        assert len(report["facts"]["goldens"]) == 16
        assert report["when"].endswith("Z")
        measured = [m for result in report["results"] for m in result["measurements"]]
        assert {m["unit"] for m in measured} <= {"ulp", "scaled", "bound"}
    assert ET.parse(two_runs / "b" / "junit.xml").getroot().get("failures") == "2"  # noqa: S314  our own
    assert "leaky-relu-0.3/value/f32/stand-in" in (two_runs / "b" / "summary.md").read_text()
    entries = json.loads((two_runs / "a" / "accuracy.json").read_text())["entries"]
    assert [entry["dtype"] for entry in entries] == ["bf16", "f16", "f32"]


def test_the_files_are_made_anew_from_the_report(two_runs, cli):
    before = {name: (two_runs / "a" / name).read_bytes() for name in ("junit.xml", "summary.md", "accuracy.json")}
    for name in before:
        (two_runs / "a" / name).unlink()
    said = cli("report", "a")
    assert said.code == 0
    assert {str(Path("a", name)) for name in before} <= set(said.out.split())
    assert before == {name: (two_runs / "a" / name).read_bytes() for name in before}
    said = cli("report", "nowhere")
    assert (said.code, said.out) == (2, "")
    assert "nowhere: cannot be read" in said.err


def test_a_history_tells_since_when(two_runs, cli):
    def older(report):
        report["when"] = "2020-01-01T00:00:00Z"
        report["facts"]["backends"]["stand-in"]["cpu_capability"] = "UNTESTED"
        (result,) = report["results"]
        result.update(verdict="PASS", findings=[])

    (two_runs / "past").mkdir()
    (two_runs / "past" / "one.json").write_text((two_runs / "b" / "report.json").read_text())
    edit(two_runs / "past" / "one.json", older)
    added = cli("history", "add", "past/one.json", "b", "--store", "history.jsonl")
    assert (added.code, "2 runs added to history.jsonl" in added.out) == (0, True)
    said = cli("report", "b", "--history", "history.jsonl")
    assert said.code == 0
    line = said.out.splitlines()[0]
    assert "(not yet 2020-01-01T00:00:00Z)" in line
    assert "scaled-error of leaky-relu-0.3/value/f32/stand-in" in line
    assert "stand-in: cpu_capability UNTESTED -> TESTED" in line
    assert cli("report", "b", "--history", "elsewhere").code == 2
    folder = cli("report", "b", "--history", "past")
    assert (folder.code, "is a folder; wanted a history" in folder.err) == (2, True)


def test_a_reporter_that_raises_costs_its_file_and_the_exit_code(install, cli, tmp_path):
    install(**{"stand-in": "stand_in:Plugin", "ink": "ink:Plugin"})
    (tmp_path / "site" / "ink.py").write_text(BROKEN)
    said = cli("run", CASES, "--out", "a")
    assert said.code == 1
    assert f"reporter broken: {Path('a', 'broken.txt')} is not written: RuntimeError: out of ink" in said.out
    assert {path.name for path in (tmp_path / "a").iterdir()} >= FILES
    assert cli("report", "a").code == 1


def test_diff_says_what_got_worse_in_every_form(two_runs, cli):
    assert cli("diff", "a", "a").code == 0
    worse = cli("diff", "a", "b")
    assert worse.code == 1
    assert "worse: " in worse.out
    assert json.loads(cli("diff", "a", "b", "--json").out)["appeared"] == ["leaky-relu-0.3/value/f32/stand-in"]
    assert cli("diff", "a", "b", "--markdown").out.startswith("## actconform diff: worse: ")
    both = cli("diff", "a", "b", "--markdown", "--html")
    assert (both.code, "ask for one" in both.err) == (2, True)
    said = cli("diff", "a", "b", "--html", "--out", "diff.html")
    assert (said.code, said.out) == (1, "")
    assert (two_runs / "diff.html").read_text().startswith("<!doctype html>")
    (two_runs / "b" / "report.json").write_text('{"schema": 1')
    cut = cli("diff", "a", "b")
    assert cut.code == 2
    assert "is cut off" in cut.err
    assert cli("diff", "a", "a", "--out", "no/such/file").code == 2


def test_merge_is_red_where_something_is_missing(two_runs, cli):
    said = cli("merge", "a", "b", "--out", "all", "--expect", "stand-in", "--expect", "keras")
    assert said.code == 1
    assert "✗ expected keras: there is no report of it" in said.out
    assert "DOES NOT CONFORM" in said.out
    report = json.loads((two_runs / "all" / "report.json").read_text())
    assert report["summary"] == {"PASS": 3, "FAIL": 1}
    assert "b: 1 FAIL" in report["problems"]
    assert {path.name for path in (two_runs / "all").iterdir()} >= {"junit.xml", "summary.md"}
    said = cli("merge", "a", "--out", "one", "--expect", "stand-in")
    assert said.code == 0
    assert "CONFORMS" in said.out


def test_merge_refuses_what_would_lose_something(two_runs, cli):
    (two_runs / "night").mkdir()  # as in a history: the report alone
    (two_runs / "night" / "report.json").write_bytes((two_runs / "a" / "report.json").read_bytes())
    for arguments, words in (
        (("a", "b", "--out", "a"), "holds a report already"),
        (("a", "--out", "b"), "holds a report already"),
        (("b", "--out", "night"), "holds a report already"),
        (("a", "./a", "--out", "all"), "a folder is named twice"),
        (("a", "nowhere", "--out", "all"), "nowhere: cannot be read"),
    ):
        before = (two_runs / "a" / "report.json").read_bytes()
        said = cli("merge", *arguments)
        assert said.code == 2
        assert words in said.err
        assert (two_runs / "a" / "report.json").read_bytes() == before
        assert not (two_runs / "all").exists()
    (two_runs / "copy").mkdir()
    (two_runs / "copy" / "report.json").write_bytes((two_runs / "a" / "report.json").read_bytes())
    said = cli("merge", "a", "copy", "--out", "all")
    assert said.code == 2
    assert "a and copy are reports of one run" in said.err
    assert not (two_runs / "all").exists()
