"""The nights that are measured change as they say, and both ways of reading them tell the same."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from actconform.run.recorder import write_report
from benchmarks import history

sys.path.append(str(Path(__file__).parents[1] / "report"))
import itertools

from made import report, result

RESULTS = [result(f"relu/value/f32/torch@{number}") for number in range(200)]


def test_a_hundredth_of_the_cases_changes_each_night_and_versions_each_week():
    nights = list(history.nights(report(*RESULTS)))
    assert len({night.when for night in nights}) == history.NIGHTS
    for before, after in itertools.pairwise(nights):
        changed = [a.case for a, b in zip(before.results, after.results, strict=True) if a.verdict != b.verdict]
        assert len(changed) == len(RESULTS) // history.SHARE
    assert sum(before.facts != after.facts for before, after in itertools.pairwise(nights)) == 4


def test_sizes_and_times_are_printed_and_different_stories_are_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["history", str(write_report(tmp_path, report(*RESULTS)).parent)])
    history.main()
    printed = capsys.readouterr().out
    assert re.search(r"report\.json +\d+\.\d MB +\d+\.\d\d s\n +history\.jsonl +\d+\.\d MB", printed)
    monkeypatch.setattr(history, "read_history", lambda _: [])
    with pytest.raises(SystemExit, match="different stories"):
        history.main()
