"""`actconform run --cluster` as people see it: the report of a local run, and an address that is of no use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from local_cluster import started

from actconform.sweep.journal import read_sweeps

CASE = "relu/value/f32/authored+ort-cpu"


def report(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "report.json").read_bytes())
    for result in content["results"]:
        del result["seconds"], result["timings"]
    del content["when"], content["timings"]
    return content


def test_the_report_is_that_of_a_local_run(cli):
    options = ("--require", "authored+ort-cpu")
    local = cli("run", CASE, *options, "--out", "local")
    with started(n_workers=1, processes=False) as cluster:
        spread = cli("run", CASE, *options, "--out", "spread", "--cluster", cluster.scheduler_address)
    assert (spread.code, local.code) == (0, 0)
    assert report("spread") == report("local")
    assert [result["case"] for result in report("spread")["results"]] == [CASE]


def test_an_address_of_no_use_costs_no_earlier_report(cli):
    kept = Path("conform-out", "results.jsonl")
    kept.parent.mkdir()
    kept.write_text("kept")
    said = cli("run", CASE, "--cluster", "tcp://127.0.0.1:port")
    assert said.code == 2
    assert said.err.startswith("error: --cluster tcp://127.0.0.1:port: no Dask scheduler answers there")
    assert kept.read_text() == "kept"


def test_a_sweep_refuses_workers_of_its_own_beside_a_cluster(cli):
    said = cli("sweep", "relu", "--route", "torch", "--cluster", "tcp://127.0.0.1:port", "--workers", "2")
    assert said.code == 2
    assert "--cluster and --workers: the cluster has its own workers" in said.err


def test_a_sweep_and_its_bits_are_those_of_this_machine(cli):
    options = ("tanh", "--route", "authored+ort-cpu", "--route", "authored+onnx-reference", "--range", "sample")
    with started(n_workers=1, processes=False) as cluster:
        spread = cli("sweep", *options, "--out", "spread", "--cluster", cluster.scheduler_address)
    local = cli("sweep", *options, "--out", "local")
    assert (spread.code, local.code) == (0, 0), spread.err
    sweeps = [read_sweeps(Path(folder)) for folder in ("spread", "local")]
    for there, here in zip(*sweeps, strict=True):
        assert there.identity == here.identity
        assert [there.chunks[number].sha256 for number in range(256)] == [
            here.chunks[number].sha256 for number in range(256)
        ]
    assert Path("spread", "bits.csv").read_bytes() == Path("local", "bits.csv").read_bytes()
    assert "not counted" not in spread.out
    assert " differ on " in spread.out
