"""study.csv, and what the terminal shows of a study as it goes and at its end."""

from __future__ import annotations

import csv
import io
import math

import pytest
from rich.console import Console

from actconform.report.study import study_screen
from actconform.report.study.study_csv import COLUMNS, write_study_csv
from actconform.report.study.study_screen import StudyProgress, study_tables
from actconform.study.plan import Excluded
from actconform.study.summary import Spread, StudyRow
from actconform.study.trial import Trial

TRIAL = Trial(
    experiment="noise-relu",
    variant="",
    role="hidden",
    kernel="relu",
    seed=3,
    losses=(1.0, 0.25),
    validation=(1.5, math.nan),
    gradients_before={"dense1.kernel": 0.1, "head.kernel": 0.5},
    reached=7,
    rank=6.0,
    width=8,
)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=160)


def test_a_line_has_every_number_and_nothing_where_there_is_none(tmp_path):
    path = write_study_csv([TRIAL], [], tmp_path)
    (line,) = csv.DictReader(path.read_text("utf-8").splitlines())
    assert tuple(line) == COLUMNS
    assert (line["loss"], line["validation_loss"], line["losses"], line["validation_losses"]) == (
        "0.25",
        "",
        "1;0.25",
        "1.5;",
    )
    assert (line["seed"], line["reached_step"], line["diverged_step"], line["rank"], line["width"]) == (
        "3",
        "7",
        "",
        "6",
        "8",
    )
    assert line["gradient_norms_before"] == "dense1.kernel=0.1;head.kernel=0.5"


def test_foreign_words_are_no_formula_and_stay_on_their_line(tmp_path):
    reason = "=HYPERLINK(1)\nnext\x1b[0m"
    failed = Trial(experiment="e", variant="", role="hidden", kernel="k", seed=0, failure=reason)
    path = write_study_csv([failed], [Excluded("e", "output", "k", reason)], tmp_path)
    first, second = csv.DictReader(path.read_text("utf-8").splitlines())
    assert first["failure"] == "'=HYPERLINK(1) next\\x1b[0m"
    assert second["failure"] == "not applicable: =HYPERLINK(1) next\\x1b[0m"
    assert first["loss"] == first["steps"] == ""


def test_progress_says_rate_and_time_left(console, monkeypatch):
    clock = iter((0.0, 10.0, 10.0, 20.0, 20.0, 20.0))
    monkeypatch.setattr(study_screen.time, "monotonic", lambda: next(clock))
    with StudyProgress(8, console) as progress:
        progress.advance(TRIAL)  # at 10 s: nothing yet
        progress.advance(TRIAL)
    assert console.file.getvalue() == "2/8 trainings, 0.1/s, 60 s left: noise-relu, hidden relu, seed 3\n"


def test_tables_are_by_experiment_and_role_and_reasons_stand_below(console):
    about = {"experiment": "noise-relu", "role": "hidden", "seeds": 5}
    rows = [
        StudyRow(
            **about, kernel="[red]relu", words="learns", loss=Spread(0.5, 0.4, 0.6), reached=30.0, reached_seeds=3
        ),
        StudyRow(**about, kernel="max", reason="not applicable: no"),
        StudyRow(**about, kernel="argmax", reason="not applicable: no"),
        StudyRow(**{**about, "role": "output"}, kernel="tanh", words="learns", rank=7.0, width=8, dead=0.5),
    ]
    study_tables(console, rows)
    first, second = console.file.getvalue().split("noise-relu  output")
    assert first.strip().startswith("noise-relu  hidden")
    assert "[red]relu" in first
    assert "30 (3/5)" in first
    assert first.rstrip().endswith("not applicable: no: max, argmax")
    assert "7/8" in second
    assert "50 %" in second
