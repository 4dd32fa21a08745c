"""`actconform sweep` through the command line, with a framework in plain NumPy."""

from __future__ import annotations

import csv
import json

import msgspec
import pytest

from actconform.report.sweep.sweep_screen import SweepProgress
from actconform.sweep.journal import SweepIdentity, read_sweep
from actconform.types import Case

SAMPLE = ("--route", "stand-in", "--range", "sample", "--out", "out")


@pytest.fixture
def stand_in(install):
    install(stand_in="stand_in:Plugin")


def journal(tmp_path, kernel="relu", aspect="value"):
    return tmp_path / "out" / f"{kernel}.{aspect}.stand-in.sample.sweep.jsonl"


def test_a_sweep_says_how_accurate_a_kernel_is(cli, stand_in, tmp_path):
    done = cli("sweep", "relu", "argmax", *SAMPLE, "--aspect", "value", "--aspect", "gradient", "--workers", "2")
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines() if line.startswith("relu")]
    assert [line[:4] for line in lines] == [
        ["relu", aspect, "stand-in", "16,777,216"] for aspect in ("value", "gradient")
    ]
    assert lines[0][4] == "0"
    assert "not swept: argmax gives indices, which have no error in ULP" in done.out
    assert "2 of 2 sweeps complete" in done.out
    value = read_sweep(journal(tmp_path)).statistics
    assert value.correctly_rounded == value.inputs == 1 << 24


def test_a_kernel_of_rows_is_swept_at_a_sample_whose_size_is_told(cli, stand_in, tmp_path):
    done = cli("sweep", "softmax", "--route", "stand-in", "--range", "all", "--out", "out", "--workers", "2")
    assert (done.code, done.err) == (0, "")
    (line,) = [line.split() for line in done.out.splitlines() if line.startswith("softmax  ")]
    assert line[:4] == ["softmax", "value", "stand-in", "4,505,600"]
    assert line[-1] == "none"
    words = "softmax is swept at a sample, whatever the range: 32 rows of 2, of 17 and of 256 numbers for every binade"
    assert words in done.out
    swept = read_sweep(journal(tmp_path, "softmax"))
    assert swept.statistics.inputs == 4_505_600
    assert swept.identity.sample == "32 rows of 2, of 17 and of 256 numbers for every binade"
    assert cli("sweep", "softmax", *SAMPLE, "--resume").code == 0


def test_what_breaks_a_limit_without_a_known_cause_ends_with_1(cli, stand_in, tmp_path):
    done = cli("sweep", "thresholded-relu", "relu", *SAMPLE)  # the former takes NaN for 0
    assert done.code == 1
    (line,) = [line.split() for line in done.out.splitlines() if line.startswith("thresholded-relu  ")]
    assert line[-1] == "1/1"  # NaN of both signs
    counted = read_sweep(journal(tmp_path, "thresholded-relu")).statistics
    assert {(finding.class_, finding.deviation) for finding in counted.findings} == {("nan-lost", None)}
    # the sign of zero is a convention
    (line,) = [line.split() for line in done.out.splitlines() if line.startswith("relu  ")]
    assert line[-1] in {"none", "0/1"}
    done = cli("sweep", "relu", *SAMPLE, "--resume")
    assert done.code == 0


def test_an_interrupted_sweep_goes_on(cli, stand_in, tmp_path, monkeypatch):
    advance, counted = SweepProgress.advance, []

    def interrupt(self, inputs, doing):
        advance(self, inputs, doing)
        counted.append(inputs)
        if len(counted) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(SweepProgress, "advance", interrupt)
    done = cli("sweep", "relu", *SAMPLE)
    assert done.code == 1
    assert "interrupted: the same command with --resume goes on" in done.out
    assert "(3/256)" in done.out
    before = journal(tmp_path).read_bytes()
    journal(tmp_path).write_bytes(before[:-40])
    done = cli("sweep", "relu", *SAMPLE, "--resume")
    assert done.code == 0
    assert "1 of 1 sweep complete" in done.out
    assert len(counted) == 3 + 256 - 2
    records = [json.loads(line) for line in journal(tmp_path).read_bytes().splitlines()[1:]]
    chunks = [record["chunk"] for record in records if "chunk" in record]
    assert sorted(chunks) == list(range(256))


def test_inputs_at_which_two_routes_differ_are_counted_and_an_interrupted_count_goes_on(
    cli, stand_in, tmp_path, monkeypatch
):
    advance, counted = SweepProgress.advance, []

    def interrupt(self, inputs, doing):
        advance(self, inputs, doing)
        counted.append(doing)
        if counted.count("tanh/value") == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(SweepProgress, "advance", interrupt)
    sweep = ("sweep", "tanh", *SAMPLE, "--route", "authored+ort-cpu")
    done = cli(*sweep)
    assert done.code == 1
    assert "interrupted: the same command with --resume goes on" in done.out
    assert "not counted: the inputs of" in done.out
    before = len(counted)
    done = cli(*sweep, "--resume")
    assert done.code == 0
    pair = "tanh, value: authored+ort-cpu and stand-in are bit-identical on"
    (line,) = [line for line in done.out.splitlines() if line.startswith(pair)]
    assert "of 16,777,216 inputs, from 0x00" in line
    assert "not counted" not in line
    (counts,) = csv.DictReader((tmp_path / "out" / "bits.csv").read_text().splitlines())
    assert len(counted) == before + 256 - int(counts["bit_identical_chunks"]) - 3
    assert 0 < int(counts["differing"]) < 1 << 24


def test_a_budget_ends_it_and_says_what_is_proven(cli, stand_in):
    done = cli("sweep", "relu", *SAMPLE, "--budget", "0.001s")
    assert done.code == 1
    assert "the budget of 0.001s was over before the first chunk" in done.out
    assert "give a longer --budget" in done.out
    assert "--resume" not in done.out
    assert "0 of 1 sweep complete" in done.out


def test_a_route_that_cannot_start_costs_no_result_of_another(cli, stand_in, tmp_path):
    done = cli("sweep", "relu", *SAMPLE, "--route", "no-device", "--aspect", "value", "--aspect", "gradient")
    assert done.code == 1
    assert done.out.count("not swept: no-device: no device: libnone.so.9 missing") == 1
    assert "nothing was swept on no-device" in done.out
    lines = csv.DictReader((tmp_path / "out" / "sweep.csv").read_text().splitlines())
    assert [(line["route"], line["chunks"], line["sample"]) for line in lines] == [("stand-in", "256", "")] * 2
    assert (tmp_path / "out" / "index.html").exists()


def test_a_journal_of_another_sweep_costs_no_result_of_another_kernel(cli, stand_in, tmp_path):
    other = journal(tmp_path, "tanh")
    other.parent.mkdir()
    identity = SweepIdentity(
        actconform="0.0",
        case=Case("tanh", "value", "f32", "stand-in"),
        extent="sample",
        definition="",
        provider="",
        facts={},
    )
    other.write_bytes(msgspec.json.encode({"sweep": identity}) + b"\n")
    done = cli("sweep", "relu", "tanh", *SAMPLE, "--resume")
    assert done.code == 1
    assert f"not swept: {other.relative_to(tmp_path)}: is of another sweep: " in done.out
    assert read_sweep(journal(tmp_path)).complete


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("argmax", *SAMPLE), "argmax gives indices, which have no error in ULP: actconform run compares them"),
        (("rleu", *SAMPLE), "unknown kernel 'rleu'; did you mean relu"),
        (("relu", "--range", "sample"), "no --route"),
        (("relu", "--route", "stand-on"), "unknown route 'stand-on'; did you mean stand-in"),
        (("relu", *SAMPLE, "--workers", "0"), "--workers 0: expected at least 1"),
        (("relu", *SAMPLE, "--budget", "soon"), "--budget soon: expected a time such as 90s, 10m or 2h"),
        (("relu", "--route", "stand-in", "--range", "half"), "'half' is not one of"),
        (("silu", *SAMPLE), 'silu/value/f32/stand-in, chunk 63: "stand_in" not implemented'),
        (("relu", "--route", "no-device"), "no-device: no device: libnone.so.9 missing"),
    ],
)
def test_wrong_usage_is_told_and_ends_with_2(cli, stand_in, arguments, words):
    done = cli("sweep", *arguments)
    assert done.code == 2
    assert words in done.err


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ("hard-tanh", "the program returned float64 [1048576] as 'y': wanted float32"),
        ("elu-half", "chunk 63: the stand-in worker was killed"),
    ],
)
def test_a_program_that_fails_is_told_and_ends_with_1(cli, stand_in, kernel, words):
    done = cli("sweep", kernel, *SAMPLE)
    assert done.code == 1
    assert words.replace("1048576", str(1 << 15)) in done.out
