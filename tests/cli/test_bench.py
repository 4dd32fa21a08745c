"""`actconform bench` through the command line: what it refuses, what it keeps, and two real routes; nothing is said of speed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from actconform.bench import baseline, runner
from actconform.bench.results import ThroughputReport

SMALL = ("--size", "64", "--batch", "2", "--rounds", "6")
STAND_IN = ("relu/*", "sigmoid/*", "silu/*", "--backend", "stand-in", *SMALL)
RELU = ("relu/*", "--backend", "stand-in", *SMALL)
STORED = "stored.json"


@pytest.fixture
def stand_in(install, monkeypatch):
    install(stand="stand_in:Plugin")
    monkeypatch.setenv("ACTCONFORM_TEST_HEALTHY", "1")


def read(path="conform-out"):
    return msgspec.json.decode((Path(path) / "throughput.json").read_bytes(), type=ThroughputReport)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--threads", "0"), "--threads 0: expected at least 1"),
        (("--rounds", "5"), "--rounds 5: no 95 % interval"),
        (("--size", "1Q"), "--size 1Q: '1Q' is no size"),
        (("--batch", "0"), "--batch 0: '0' is no size"),
        (("--size", "900G", "relu/*"), "GiB are available; take a smaller --size"),
        (("--baseline", "nowhere.json"), "--baseline nowhere.json: no such file; write it with --update"),
        (("--route", "trch"), "unknown route 'trch'"),
        (("reluu/*",), "'reluu'; did you mean relu"),
        (("--out", "file.txt"), "--out file.txt: is a file"),
        (("--baseline", "file.txt"), "not a baseline of throughput"),
        (("--baseline", "file.txt", "--update"), "nothing was overwritten"),
        (("--baseline", "newer.json", "--update"), "schema 2, but this actconform reads schema 1"),
        (("--config", "nowhere.toml"), "nowhere.toml: cannot be read"),
    ],
)
def test_mistakes_are_said_at_once(cli, tmp_path, arguments, said):
    files = {"file.txt": "{}", "newer.json": '{"what": "actconform throughput", "schema": 2}'}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    done = cli("bench", *arguments)
    assert done.code == 2
    assert said in done.err
    assert {name: (tmp_path / name).read_text() for name in files} == files


def test_a_folder_that_cannot_be_written_is_said_at_once(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    done = cli("bench", "--out", "there")
    assert done.code == 2
    assert "--out there: cannot be written" in done.err


def test_figures_stand_beside_verdicts_and_what_has_none_says_why(cli, stand_in):
    done = cli("bench", *STAND_IN, "--twice")
    made = read()
    assert done.code == 0
    workloads = [(one.workload.subject, one.workload.direction) for one in made.measured]
    both = ("forward", "forward+backward")
    assert sorted(workloads) == sorted(
        [*((name, way) for name in ("relu", "sigmoid") for way in both), ("silu", "forward")]
    )
    assert {(one.workload.subject, one.verdict) for one in made.not_timed} == {("silu", "UNSUPPORTED")}
    for one in made.measured:
        (figure,) = one.figures
        assert figure.verdict in ("PASS", "XFAIL", "FAIL")
        assert (figure.mark == "") == (figure.verdict == "PASS")
        assert figure.implementation == "numpy in float64, rounded once"
        assert figure.again is not None
    assert "timed twice" in done.out
    assert "UNSUPPORTED: numpy has no silu gradient" in done.out


def test_an_interrupted_run_keeps_what_there_is_and_updates_nothing(cli, stand_in, monkeypatch):
    whole = runner.BenchmarkRunner.time

    def interrupted(self, workload, routes):
        if workload.subject == "sigmoid" and workload.direction == "forward+backward":
            raise KeyboardInterrupt
        return whole(self, workload, routes)

    monkeypatch.setattr(runner.BenchmarkRunner, "time", interrupted)
    done = cli("bench", *STAND_IN[1:], "--baseline", STORED, "--update")
    assert done.code == 1
    assert "interrupted" in done.out
    assert read().interrupted
    assert [one.workload.subject for one in read().measured] == ["sigmoid"]
    assert not Path(STORED).exists()


def test_only_update_writes_a_baseline_and_a_slowdown_is_called(cli, stand_in):
    assert cli("bench", *RELU, "--baseline", STORED, "--update").code == 0
    kept = baseline.read(Path(STORED))
    assert len(kept.entries) == 2
    assert kept.facts["stand-in"]["cpu_capability"] == "TESTED"
    before = Path(STORED).read_bytes()
    done = cli("bench", *RELU, "--baseline", STORED)
    assert f"against {STORED}:" in done.out
    assert Path(STORED).read_bytes() == before

    faster = [
        msgspec.structs.replace(
            one, scale=1.0, to_calibration=baseline.ConfidenceInterval(*(one.to_calibration.low / 100,) * 3)
        )
        for one in kept.entries
    ]
    baseline.save(Path(STORED), msgspec.structs.replace(kept, entries=faster))
    injected = Path(STORED).read_bytes()
    done = cli("bench", *RELU, "--baseline", STORED, "--rounds", "9")
    changes = {one["change"] for one in read().comparison["judgements"]}
    assert changes <= {"slower", "noisy"}  # on a busy machine
    assert done.code == (1 if "slower" in changes else 0)
    assert Path(STORED).read_bytes() == injected


def test_other_facts_are_named_and_nothing_is_compared(cli, stand_in):
    cli("bench", *RELU, "--baseline", STORED, "--update")
    kept = baseline.read(Path(STORED))
    baseline.save(Path(STORED), msgspec.structs.replace(kept, machine={**kept.machine, "cpu": "an abacus"}))
    before = Path(STORED).read_bytes()
    done = cli("bench", *RELU, "--baseline", STORED)
    assert done.code == 0
    assert "cpu was an abacus, is " in done.out
    assert read().comparison["judgements"] == []
    assert Path(STORED).read_bytes() == before


def test_nothing_timed_is_no_success(cli, stand_in):
    done = cli("bench", "relu/*", "--backend", "no-device", *SMALL)
    assert done.code == 1
    assert "UNAVAILABLE: no device" in done.out
    assert read().measured == []


@pytest.mark.end_to_end
def test_two_kernels_and_a_model_on_torch_and_ort(cli):
    routes = ("--route", "torch", "--route", "authored+ort-cpu")
    done = cli("bench", "relu/*", "softmax/*", "mlp-relu/*", *routes, *SMALL, "--json")
    made = json.loads(done.out)
    assert done.code in (0, 1)
    assert made == json.loads((Path("conform-out") / "throughput.json").read_text())
    assert made["not_timed"] == []
    assert {"torch", "ort-cpu", "calibration"} == set(made["facts"])
    assert len(made["measured"]) == 6
    for one in made["measured"]:
        assert [figure["route"] for figure in one["figures"]] == ["torch", "authored+ort-cpu"]
        assert one["calibration"]["kind"] == ("matmul" if one["trial"]["subject"] == "mlp-relu" else "copy")
        for figure in one["figures"]:
            low, high = figure["seconds"][1:]
            assert len(figure["samples"]) == 6
            assert 0 < low <= figure["seconds"][0] <= high
            assert figure["verdict"] in ("PASS", "XFAIL")
            assert figure["share"] > 0
            assert figure["loops"] >= 1
    placed = [figure["placement"] for one in made["measured"] for figure in one["figures"] if "ort" in figure["route"]]
    assert all(set(one) == {"CPUExecutionProvider"} for one in placed)
    assert "relu  forward" in done.err
