"""`actconform run` as a user meets it: exit codes, files, screen, JSON, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from processes import children, heed_ctrl_c

import actconform.cli.run_ as verb
from actconform.testdata.golden.store import golden_dir, read_manifest

ACTCONFORM = str(Path(sys.executable).with_name("actconform"))
RESULT = {
    "case",
    "subject",
    "aspect",
    "dtype",
    "route",
    "verdict",
    "stage",
    "reason",
    "blame",
    "findings",
    "measurements",
    "seconds",
}
FINDING = {
    "class",
    "count",
    "regime",
    "tensor",
    "interval",
    "worst",
    "magnitude",
    "candidates",
    "deviation",
    "used",
    "blame",
    "evidence",
}
WORST = {"input_hex", "index", "truth", "got", "ulp", "scaled"}
MEASUREMENT = {"tensor", "regime", "n", "max_ulp", "max_scaled", "bias", "limit", "margin", "histogram"}


def strict(text: str | bytes) -> Any:
    """Parse JSON as its standard has it: NaN and Infinity are no numbers."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(autouse=True)
def stand_in(install):
    install(**{"stand-in": "stand_in:Plugin"})


def test_a_healthy_run_conforms_and_leaves_its_report(cli, tmp_path):
    said = cli("run", "relu/*/stand-in", "sigmoid/*/f32/stand-in")
    assert said.code == 0
    assert "TESTED · goldens of 2 subjects verified" in said.out
    assert "\n7 pass" not in said.out
    assert "8 pass" in said.out
    assert f"CONFORMS     {Path('conform-out', 'index.html')}" in said.out
    assert "DOES NOT" not in said.out
    report = strict((tmp_path / "conform-out" / "report.json").read_bytes())
    assert (report["schema"], report["conforms"], report["summary"]) == (1, True, {"PASS": 8})
    assert report["facts"]["backends"]["stand-in"]["cpu_capability"] == "TESTED"
    assert {"python", "platform", "machine"} <= set(report["facts"]["backends"]["stand-in"])


def test_the_files_hold_the_contract(cli, tmp_path):
    kernels = ("relu", "thresholded-relu", "linear", "softsign", "silu")
    said = cli("run", *(f"{kernel}/value/f32/stand-in" for kernel in kernels), "--out", "here/it/is")
    assert said.code == 1
    folder = tmp_path / "here" / "it" / "is"
    assert {path.name for path in folder.iterdir()} >= {"facts.json", "report.json", "results.jsonl"}
    report = strict((folder / "report.json").read_bytes())
    lines = [strict(line) for line in (folder / "results.jsonl").read_bytes().splitlines()]
    assert all(line.pop("proof").keys() == {"run", "facts", "sha256"} for line in lines)
    assert sorted(report["results"], key=lambda r: r["case"]) == sorted(lines, key=lambda r: r["case"])
    assert {"schema", "facts", "summary", "results"} <= set(report)
    assert report["summary"] == {"PASS": 1, "FAIL": 2, "UNSUPPORTED": 1, "CRASH": 1}
    results = {result["subject"]: result for result in lines}
    assert set(results) == set(kernels)
    for result in lines:
        assert set(result) >= RESULT
        assert result["case"] == "/".join(result[part] for part in ("subject", "aspect", "dtype", "route"))
        assert all(set(measurement) >= MEASUREMENT for measurement in result["measurements"])
        for finding in result["findings"]:
            assert set(finding) >= FINDING
            assert finding["worst"] is None or set(finding["worst"]) >= WORST
    lost = results["thresholded-relu"]["findings"][0]
    assert (lost["class"], lost["interval"]) == ("nan-lost", ["0x7fc00000", "0x7fc00000"])
    assert (lost["worst"]["truth"], lost["worst"]["got"], lost["worst"]["ulp"]) == ("nan", 0.0, "nan")
    assert {measurement["margin"] for measurement in results["relu"]["measurements"]} == {"inf"}


def test_json_is_one_document_and_nothing_else(tmp_path):
    command = [ACTCONFORM, "run", "relu/value/f32/stand-in", "--json"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, check=False)
    report = strict(done.stdout)
    assert done.returncode == 0, done.stderr
    assert report == strict((tmp_path / "conform-out" / "report.json").read_bytes())
    assert [result["verdict"] for result in report["results"]] == ["PASS"]
    assert b"CONFORMS" in done.stderr


def test_filters_narrow_the_cases(cli):
    said = cli("run", "relu/*", "tanh/*", "--backend", "stand-in", "--dtype", "f16", "--aspect", "value", "--json")
    assert [result["case"] for result in strict(said.out)["results"]] == [
        "tanh/value/f16/stand-in",
        "relu/value/f16/stand-in",
    ]
    said = cli("run", "relu/value/*", "--route", "stand-in", "--json")
    assert {result["dtype"] for result in strict(said.out)["results"]} == {"f32", "f16", "bf16"}


def test_timings_name_the_stages(cli):
    said = cli("run", "relu/value/f32/stand-in", "--timings")
    head = next(line for line in said.out.splitlines() if line.startswith("seconds"))
    assert head.split() == ["seconds", "import", "export", "compile", "run", "compare", "harness"]
    row = next(line for line in said.out.splitlines() if line.startswith("stand-in  "))
    assert float(row.split()[1]) > 0, "a process was started for it"
    assert "total " in said.out
    assert "seconds" not in cli("run", "relu/value/f32/stand-in").out


def test_a_required_route_that_did_not_run_does_not_conform(cli):
    said = cli("run", "relu/value/f32/stand-in", "--require", "no-device")
    assert said.code == 1
    assert "✗ required route no-device did not run" in said.out
    assert "DOES NOT CONFORM" in said.out
    said = cli("run", "relu/value/f32/*", "--backend", "stand-in", "--backend", "no-device", "--require", "stand-in")
    assert said.code == 0
    assert "1 pass · 1 not run: no-device (no device: libnone.so.9 missing)" in said.out
    assert cli("run", "relu/value/f32/no-device").code == 1


def test_an_empty_list_of_required_routes_requires_none(cli, tmp_path):
    assert cli("run", "relu/value/f32/no-device").code == 1
    (tmp_path / "actconform.toml").write_text("require = []\n")
    said = cli("run", "relu/value/f32/no-device")
    assert (said.code, "1 not run: no-device" in said.out) == (0, True)


def test_a_new_finding_is_shown_with_the_command_that_repeats_it(cli):
    said = cli("run", "leaky-relu-0.3/value/f32/stand-in")
    lines = [line.strip() for line in said.out.splitlines()]
    at = lines.index("NEW critical  leaky-relu-0.3/value/f32/stand-in   scaled-error   blame: framework")
    assert lines[at + 1].startswith("x=0x3f")
    assert "   truth 1." in lines[at + 1]
    assert lines[at + 2] == "actconform run leaky-relu-0.3/value/f32/stand-in --out conform-case"
    assert "0 pass · 1 NEW (1 critical)" in lines


def test_settings_reach_the_worker(cli, tmp_path):
    (tmp_path / "actconform.toml").write_text(
        'out = "elsewhere"\n[backends.stand-in.env]\nACTCONFORM_TEST_HEALTHY = "1"\n'
    )
    assert cli("run", "leaky-relu-0.3/value/f32/stand-in").code == 0
    assert (tmp_path / "elsewhere" / "report.json").exists()


def test_a_second_run_leaves_nothing_of_the_first(cli, tmp_path):
    cli("run", "relu/value/*/stand-in", "--out", "out")
    cli("run", "tanh/value/f32/stand-in", "--out", "out")
    (line,) = (tmp_path / "out" / "results.jsonl").read_bytes().splitlines()
    assert strict(line)["subject"] == "tanh"
    assert [r["subject"] for r in strict((tmp_path / "out" / "report.json").read_bytes())["results"]] == ["tanh"]


def test_an_interrupt_keeps_what_there_is(cli, monkeypatch, tmp_path):
    real = verb.progress_for

    def impatient(cases, console):
        progress, left = real(cases, console), iter(range(3, 0, -1))
        advance = progress.advance

        def until_the_third(result):
            advance(result)
            if next(left) == 1:
                raise KeyboardInterrupt

        progress.advance = until_the_third
        return progress

    monkeypatch.setattr(verb, "progress_for", impatient)
    said = cli("run", "relu/*/stand-in", "--out", "out")
    assert said.code == 1
    assert "interrupted" in said.out
    assert "✗ the run was interrupted after 3 of 6 cases" in said.out
    assert "TESTED" in said.out  # the facts are there too
    report = strict((tmp_path / "out" / "report.json").read_bytes())
    assert (report["conforms"], len(report["results"])) == (False, 3)
    assert report["facts"]["backends"]["stand-in"]
    assert len((tmp_path / "out" / "results.jsonl").read_bytes().splitlines()) == 3
    said = cli("run", "relu/value/*/stand-in", "--out", "out")  # interrupted at the last case: all results, no pass
    assert said.code == 1
    assert "✗ the run was interrupted" in said.out


def until(there: Any, seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def runs(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("when", ["between cases", "while it starts"])
def test_ctrl_c_ends_cleanly_with_what_there_is(when, tmp_path):
    slow = "ACTCONFORM_TEST_CASE_SECONDS" if when == "between cases" else "ACTCONFORM_TEST_START_SECONDS"
    command = [ACTCONFORM, "run", "*/stand-in", "--out", "out"]
    environment = {**os.environ, slow: "0.3" if when == "between cases" else "60", "ACTCONFORM_TEST_HEALTHY": "1"}
    lines = tmp_path / "out" / "results.jsonl"
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509  no threads here
    ) as driver:
        workers = until(lambda: children(driver.pid))
        if when == "between cases":
            until(lambda: lines.read_bytes().count(b"\n") >= 2)
        driver.send_signal(signal.SIGINT)
        out, err = driver.communicate(timeout=30)
    assert driver.returncode == 1
    assert b"interrupted: the results until then are kept" in out
    assert b"Traceback" not in out + err
    assert not any(runs(worker) for worker in workers)
    kept = [strict(line) for line in lines.read_bytes().splitlines()]
    assert len(kept) >= 2 or when == "while it starts"
    report = strict((tmp_path / "out" / "report.json").read_bytes())
    assert sorted(result["case"] for result in report["results"]) == sorted(result["case"] for result in kept)
    assert not report["conforms"]


def test_a_broken_plugin_is_named_and_fails_the_run(install_broken, cli):
    said = cli("run", "relu/value/f32/stand-in", "relu/value/f32/broken")
    assert said.code == 1
    assert "1 pass · 1 ERROR" in said.out
    assert "plugin broken (actconform-stand-in 1.0) is broken: ImportError: libbroken.so.1 is missing" in said.out
    said = cli("run", "relu/value/f32/stand-in")  # nor does it pass unseen where its route is not selected
    assert said.code == 1
    assert "✗ plugin broken (actconform-stand-in 1.0) is broken: ImportError: libbroken.so.1" in said.out


@pytest.fixture
def install_broken(stand_in, tmp_path):
    with (tmp_path / "site" / "actconform_stand_in-1.0.dist-info" / "entry_points.txt").open("a") as points:
        points.write("\nbroken = stand_in:Broken\n")


def test_output_that_cannot_hold_the_signs_is_no_fault(tmp_path):
    command = [ACTCONFORM, "run", "linear/value/f32/stand-in"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 1
    assert b"DOES NOT CONFORM" in done.stdout
    assert b"Traceback" not in done.stderr


def test_a_word_that_nobody_knows_is_explained_by_the_plugin_that_is_broken(install_broken, cli):
    said = cli("run", "--backend", "stand-inn")
    assert said.code == 2
    assert "did you mean stand-in?" in said.err
    assert "plugin broken (actconform-stand-in 1.0) is broken: ImportError: libbroken.so.1 is missing" in said.err


def test_a_subject_without_goldens_costs_its_own_cases(cli, tmp_path, monkeypatch):
    manifest = read_manifest(golden_dir())
    left = {name: subject for name, subject in manifest.subjects.items() if name != "elu"}
    monkeypatch.setattr(
        "actconform.testdata.golden.store.read_manifest", lambda _: msgspec.structs.replace(manifest, subjects=left)
    )
    monkeypatch.setattr(verb, "built_in", lambda: {"relu"})
    said = cli("run", "elu/value/f32/stand-in", "relu/value/f32/stand-in", "--out", str(tmp_path))
    assert said.code == 1
    by_case = {result["subject"]: result for result in strict((tmp_path / "report.json").read_bytes())["results"]}
    assert (by_case["elu"]["verdict"], by_case["elu"]["stage"]) == ("ERROR", "draw")
    assert "no goldens for 'elu'; write them with `actconform golden mint elu`" in by_case["elu"]["reason"]
    assert by_case["relu"]["verdict"] == "PASS"
