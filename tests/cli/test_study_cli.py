"""`actconform study` through the command line, with a framework that trains as the definition does."""

from __future__ import annotations

import csv
import json
import os

import pytest
from filelock import FileLock

from actconform.report.study.study_screen import StudyProgress

TINY = ("noise-relu", "--backend", "study-trainer", "--seeds", "2", "--epochs", "2", "--out", "out")
KERNELS = ("--kernel", "relu", "--kernel", "softmax", "--kernel", "exponential", "--kernel", "max")
HIDDEN = (*TINY, *KERNELS, "--role", "hidden")


@pytest.fixture
def trainer(install):
    install(study="study_trainer:Plugin")


@pytest.fixture
def interrupted(trainer, cli, monkeypatch):
    """A study that was interrupted after three of its six trainings."""
    advance = StudyProgress.advance
    counted = []

    def interrupt(self, trial):
        advance(self, trial)
        counted.append(trial)
        if len(counted) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(StudyProgress, "advance", interrupt)
    done = cli("study", *HIDDEN)
    monkeypatch.setattr(StudyProgress, "advance", advance)
    return done


def journal(tmp_path):
    return tmp_path / "out" / "study.jsonl"


def lines_of(tmp_path):
    return list(csv.DictReader((tmp_path / "out" / "study.csv").read_text(encoding="utf-8").splitlines()))


def test_a_study_says_what_becomes_of_each_kernel(cli, trainer, tmp_path):
    done = cli("study", *TINY, *KERNELS)
    assert (done.code, done.err) == (0, "")
    screen = done.out.splitlines()
    titles = [line.strip() for line in screen if line.startswith("noise-relu")]
    assert titles == ["noise-relu  hidden", "noise-relu  output"]
    assert any(line.startswith("exponential") and "diverged at step 1" in line for line in screen)
    assert any(line.startswith("softmax") and line.rstrip().endswith("no better than a constant") for line in screen)
    assert "not applicable: makes one number of a row: max" in screen
    assert "12 of 12 trainings" in done.out
    lines = lines_of(tmp_path)
    assert [(line["role"], line["kernel"], line["seed"]) for line in lines[:12]] == [
        (role, kernel, seed)
        for seed in "01"
        for role in ("hidden", "output")
        for kernel in ("relu", "softmax", "exponential")
    ]
    assert [line["failure"] for line in lines[12:]] == ["not applicable: makes one number of a row"] * 2
    by_key = {(line["role"], line["kernel"], line["seed"]): line for line in lines}
    assert by_key["hidden", "exponential", "0"]["diverged_step"] == "1"
    assert by_key["hidden", "exponential", "0"]["loss"] == ""
    assert by_key["hidden", "softmax", "1"]["rank"] == "7"
    assert float(by_key["output", "softmax", "0"]["dead_units"]) == 1.0
    assert len(by_key["hidden", "relu", "0"]["losses"].split(";")) == 2
    assert "actconform study noise-relu" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_an_interrupted_study_goes_on(cli, interrupted, tmp_path):
    assert interrupted.code == 1
    assert "3 of 6 trainings" in interrupted.out
    assert "interrupted" in interrupted.out
    assert len(lines_of(tmp_path)) == 4
    before = journal(tmp_path).read_bytes()
    done = cli("study", *HIDDEN, "--resume")
    assert done.code == 0
    assert "resumed: 3 of 6 trainings are from the earlier study" in done.out
    assert journal(tmp_path).read_bytes().startswith(before)
    resumed = lines_of(tmp_path)
    assert cli("study", *HIDDEN).code == 0
    for line, fresh in zip(resumed, lines_of(tmp_path), strict=True):
        assert {**line, "seconds": ""} == {**fresh, "seconds": ""}


def test_a_line_that_was_cut_off_is_trained_again(cli, interrupted, tmp_path):
    assert interrupted.code == 1
    journal(tmp_path).write_bytes(journal(tmp_path).read_bytes()[:-40])
    done = cli("study", *HIDDEN, "--resume")
    assert done.code == 0
    assert "resumed: 2 of 6 trainings are from the earlier study; 1 broken line is dropped" in done.out
    assert [json.loads(line) for line in journal(tmp_path).read_bytes().splitlines()]
    assert "resumed: 6 of 6" in cli("study", *HIDDEN, "--resume").out


def test_a_wider_study_takes_what_a_narrower_one_has_and_another_experiment_of_that_name_does_not(
    cli, interrupted, tmp_path
):
    assert interrupted.code == 1
    done = cli("study", *HIDDEN, "--role", "output", "--resume")
    assert "resumed: 3 of 12 trainings" in done.out
    lines = journal(tmp_path).read_text().splitlines()
    changed = [lines[0], *(line.replace('"variant":"', '"variant":"0') for line in lines[1:])]
    journal(tmp_path).write_text("\n".join(changed) + "\n")
    assert "resumed: 0 of 6 trainings" in cli("study", *HIDDEN, "--resume").out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--epochs", "3"), ("at most 2 epochs", "at most 3 epochs")),
        (("--reach", "0.7"), ("a stated loss of 0.5", "a stated loss of 0.7")),
    ],
)
def test_a_journal_of_another_study_is_refused_with_both_named(cli, interrupted, tmp_path, change, words):
    assert interrupted.code == 1
    before = journal(tmp_path).read_bytes()
    done = cli("study", *HIDDEN, *change, "--resume")
    assert done.code == 2
    assert "out/study.jsonl: is of another study: study-trainer" in done.err
    assert all(word in done.err for word in words)
    assert journal(tmp_path).read_bytes() == before


def test_what_the_framework_refuses_is_a_result_and_what_kills_its_worker_is_not(cli, trainer, tmp_path, monkeypatch):
    kernels = ("--kernel", "relu", "--kernel", "tanh")
    monkeypatch.setenv("ACTCONFORM_TEST_STUDY", "refuse=tanh")
    done = cli("study", *TINY, *kernels, "--role", "hidden", "--seeds", "1")
    assert done.code == 0
    assert "2 of 2 trainings, 1 refused by study-trainer" in done.out
    assert "refused: ValueError: this loss takes no such output" in done.out
    monkeypatch.setenv("ACTCONFORM_TEST_STUDY", "die=tanh")
    done = cli("study", *TINY, *kernels, "--role", "hidden", "--seeds", "1")
    assert done.code == 1
    assert "2 of 2 trainings, 1 without an answer" in done.out
    assert "SIGABRT" in {line["kernel"]: line["failure"] for line in lines_of(tmp_path)}["tanh"]
    monkeypatch.delenv("ACTCONFORM_TEST_STUDY")
    done = cli("study", *TINY, *kernels, "--role", "hidden", "--seeds", "1", "--resume")
    assert done.code == 0
    assert "resumed: 1 of 2" in done.out


def test_a_study_whose_worker_does_not_start_again_keeps_what_there_is(cli, trainer, tmp_path, monkeypatch):
    plugins = next((tmp_path / "site").glob("*/entry_points.txt"))
    listed = plugins.read_text()
    advance = StudyProgress.advance

    def vanishing(self, trial):
        advance(self, trial)
        if trial.failure:
            plugins.unlink()

    monkeypatch.setattr(StudyProgress, "advance", vanishing)
    monkeypatch.setenv("ACTCONFORM_TEST_STUDY", "die=tanh")
    kernels = [word for name in ("relu", "tanh", "sigmoid") for word in ("--kernel", name)]
    study = ("study", *TINY, *kernels, "--role", "hidden", "--seeds", "1")
    done = cli(*study)
    assert done.code == 1
    assert "2 of 3 trainings, 1 without an answer" in done.out
    assert "no worker starts any more: " in done.out
    assert "the same command with --resume goes on" in done.out
    assert [line["kernel"] for line in lines_of(tmp_path)] == ["relu", "tanh"]
    assert "<html" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    plugins.write_text(listed)
    monkeypatch.delenv("ACTCONFORM_TEST_STUDY")
    done = cli(*study, "--resume")
    assert (done.code, "resumed: 1 of 3 trainings" in done.out) == (0, True)


def test_a_study_of_which_everything_is_refused_does_not_end_well(cli, trainer, monkeypatch):
    monkeypatch.setenv("ACTCONFORM_TEST_STUDY", "refuse=tanh")
    assert cli("study", *TINY, "--kernel", "tanh", "--role", "hidden").code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("noise-rely",), "unknown experiment 'noise-rely'; did you mean noise-relu"),
        (("--kernel", "sofmax"), "unknown kernel 'sofmax'; did you mean softmax"),
        (("--role", "hiden"), "unknown role 'hiden'; did you mean hidden?"),
        (("--backend", "stdy-trainer"), "unknown backend 'stdy-trainer'; did you mean study-trainer"),
        (("--backend", "ort-cpu"), "ort-cpu trains no models; those that do: "),
        (("--seeds", "0"), "--seeds 0: expected at least 1"),
        (("--epochs", "-1"), "--epochs -1: expected at least 0"),
        (("--reach", "1"), "--reach 1: expected a share of the best constant's loss, between 0 and 1"),
        (("--out", "file.txt"), "--out file.txt: is a file"),
        (("--out", "empty", "--resume"), "--resume: there is no empty/study.jsonl to go on from"),
        (("--out", "garbage", "--resume"), "garbage/study.jsonl: its first line names no study"),
        (("--out", "pipe", "--resume"), "pipe/study.jsonl: is no regular file"),
        (
            ("--kernel", "max"),
            "no kernel that is selected can be trained there:\nmax, hidden: makes one number of a row",
        ),
    ],
)
def test_mistakes_are_wrong_usage(cli, trainer, tmp_path, arguments, words):
    (tmp_path / "file.txt").touch()
    for name in ("garbage", "pipe"):
        (tmp_path / name).mkdir()
    (tmp_path / "garbage" / "study.jsonl").write_text("{}\n")
    os.mkfifo(tmp_path / "pipe" / "study.jsonl")
    usual = () if "--backend" in arguments else ("--backend", "study-trainer")
    done = cli("study", *usual, "--epochs", "1", "--seeds", "1", *arguments)
    assert done.code == 2
    assert words in done.err


def test_a_folder_that_another_study_writes_into_is_refused(cli, interrupted, tmp_path):
    assert interrupted.code == 1
    with FileLock(journal(tmp_path).with_name(f".{journal(tmp_path).name}.lock")):
        before = journal(tmp_path).read_bytes()
        done = cli("study", *HIDDEN)
    assert done.code == 2
    assert "another study is being written there" in done.err
    assert journal(tmp_path).read_bytes() == before
