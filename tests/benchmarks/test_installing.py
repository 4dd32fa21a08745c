"""The installation of built packages: each Python has a row, what fails is named, and what does not run is no success."""

from __future__ import annotations

import sys

import pytest

from benchmarks import installing

PYTHON = """#!/bin/sh
case "$*" in
"-c ") exit 0 ;;
-c*) echo 3.13.9 Linux x86_64 ;;
"-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
*"{fails}"*) echo "it went wrong" >&2; exit 3 ;;
esac
"""


@pytest.fixture
def called(tmp_path, monkeypatch, capsys):
    def call(fails, *arguments):
        python = tmp_path / "python"
        python.write_text(PYTHON.replace("{fails}", fails))
        python.chmod(0o755)
        monkeypatch.setattr(sys, "argv", ["installing", str(tmp_path), "--python", str(python), *arguments])
        return installing.main(), capsys.readouterr()

    return call


def test_a_python_that_takes_every_step_has_a_row(called):
    code, said = called("nothing of it", "--install", "actconform[ort,golden]", "--install", "actconform-tract")
    assert code == 0
    start = "| 3.13.9 Linux x86_64 | actconform[ort,golden], actconform-tract |"
    (row,) = [line for line in said.out.splitlines() if line.startswith(start)]
    assert row.count(" s |") == 4


def test_environments_that_are_kept_are_there_with_what_was_printed_and_never_overwritten(called, tmp_path, capsys):
    assert called("actconform run", "--keep", str(tmp_path / "kept"))[0] == 1
    assert (tmp_path / "kept" / "python" / "venv" / "bin" / "python").exists()
    assert (tmp_path / "kept" / "python" / "printed.txt").read_text() == "it went wrong\n"
    with pytest.raises(SystemExit):
        called("nothing of it", "--keep", str(tmp_path / "kept"))
    assert "kept is there already: remove it, or name another folder" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["pip install", "actconform check", "actconform run"])
def test_a_step_that_fails_ends_the_row_and_is_shown(called, step):
    code, said = called(step)
    assert code == 1
    assert said.out.rstrip().endswith("| failed with 3 |")
    assert "it went wrong" in said.err


def test_where_no_python_runs_nothing_was_installed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["installing", str(tmp_path), "--python", "no-such-python"])
    assert installing.main() == 2
    assert "no-such-python: does not run here, not tried" in capsys.readouterr().err
