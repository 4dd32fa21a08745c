"""`actconform ci`: how a job ends, what it prints on GitHub and elsewhere, and what it refuses."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from actconform.report.ci import job_files
from actconform.run.recorder import write_report

sys.path.append(str(Path(__file__).parents[1] / "report"))
from made import finding, report, result


@pytest.fixture
def runs(cli, tmp_path, monkeypatch) -> None:
    """Folders of a run that conforms, good, and of one with a finding, bad; no variable of GitHub is set."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    for name, findings in {"good": (), "bad": (finding("inf"),)}.items():
        (tmp_path / name).mkdir()
        problems = ("1 FAIL",) if findings else ()
        write_report(tmp_path / name, report(result(findings=findings), problems=problems))


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("folder", "baseline", "code"),
    [
        ("good", "good", 0),
        ("bad", "good", 1),
        ("bad", "bad", 0),
        ("good", "bad", 0),
        ("bad", "gone", 1),
        ("good", "gone", 0),
    ],
)
def test_only_what_is_new_fails_the_job(cli, tmp_path, folder, baseline, code):
    said = cli("ci", folder, "--baseline", baseline, "--name", "x")
    assert said.code == code, said
    assert (tmp_path / folder / "comment.md").read_text().startswith("<!-- actconform: x -->")
    assert "::" not in said.out
    assert ("relu/value/f32/torch: " in said.out) is bool(code)


@pytest.mark.usefixtures("runs")
def test_on_github_lines_are_commands_and_the_page_gets_the_comment_too(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page"))
    (tmp_path / "page").write_text("before\n")
    said = cli("ci", "bad", "--baseline", "good")
    assert said.out.startswith("::error title=relu/value/f32/torch::")
    assert (tmp_path / "page").read_text() == "before\n" + (tmp_path / "bad" / "comment.md").read_text()


@pytest.mark.usefixtures("runs")
def test_a_run_that_ended_with_1_and_conforms_by_its_report_is_red(cli):
    said = cli("ci", "good", "--baseline", "good", "--ended", "1")
    assert (said.code, "a file could not be written" in said.out) == (1, True)


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "nowhere"),
        (("good/report.json",), "name the folder"),
        (("good", "--name", "a--b"), "--name"),
        (("good", "--name", "x --><b>"), "--name"),
        (("good", "--ended", "2"), "--ended"),
        (("both",), "name a folder for each"),
        (("good", "--baseline", "empty"), "report.json"),
    ],
)
def test_what_cannot_be_used_is_named(cli, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "both").mkdir()
    for name in ("report.json", "check.json"):
        (tmp_path / "both" / name).touch()
    said = cli("ci", *arguments)
    assert said.code == 2, said
    assert words in said.err


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 1), (errno.EACCES, 2)])
def test_what_cannot_be_written_is_named(cli, monkeypatch, number, code):
    def refused(path, _content):
        raise OSError(number, "no room", str(path))

    monkeypatch.setattr(job_files, "write_bytes", refused)
    said = cli("ci", "good")
    assert said.code == code
    assert "comment.md: cannot be written: no room" in said.err
