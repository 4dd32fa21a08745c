"""`actconform run --cluster` as people see it: the report of a local run, and an address that is of no use."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from distributed import LocalCluster

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
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as cluster:
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
