"""`actconform site`: what it writes, and what it refuses before it writes anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from actconform.run.recorder import write_report

sys.path.append(str(Path(__file__).parents[1] / "report"))
from made import report, result


@pytest.fixture
def run(cli, tmp_path) -> None:
    (tmp_path / "conform-out").mkdir()
    write_report(tmp_path / "conform-out", report(result()))
    assert cli("history", "add", "conform-out", "--store", "history.jsonl").code == 0


@pytest.mark.usefixtures("run")
def test_a_site_is_written_and_written_again_the_same(cli, tmp_path):
    said = cli("site", "public", "--store", "history.jsonl")
    assert said.code == 0, said.err
    before = {path.name: path.read_bytes() for path in (tmp_path / "public").iterdir()}
    assert set(said.out.split()) == {str(Path("public", name)) for name in before}
    assert cli("site", "public", "--store", "public/history.jsonl", "--report", "public/report.json").code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "public").iterdir()} == before


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("public", "--store", "gone.jsonl"), "gone.jsonl: cannot be read"),
        (("public", "--store", "conform-out/report.json"), "is no history"),
        (("public", "--store", "history.jsonl", "--report", "gone"), "--report gone: cannot be read"),
        (("history.jsonl", "--store", "history.jsonl"), "is a file; name a folder"),
        (("public",), "--store"),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_is_written(cli, tmp_path, arguments, words):
    said = cli("site", *arguments)
    assert said.code == 2
    assert words in said.err
    assert not (tmp_path / "public").exists()


@pytest.mark.usefixtures("run")
def test_without_a_report_where_one_is_looked_for_the_option_that_names_it_is_said(cli, tmp_path):
    (tmp_path / "conform-out").rename(tmp_path / "nightly")
    refused = cli("site", "public", "--store", "history.jsonl")
    assert (refused.code, "--report conform-out: cannot be read" in refused.err) == (2, True)
