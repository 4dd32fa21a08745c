"""A run that was killed goes on with --resume and ends with the report that it would have had, running nothing twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processes import children, heed_ctrl_c

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TESTS = Path(__file__).parent
ACTCONFORM = str(Path(sys.executable).with_name("actconform"))
KERNELS = (
    *("relu", "sigmoid", "softmax", "tanh", "relu-squared", "hard-shrink", "silu", "mish", "linear", "relu6"),
    *("leaky-relu", "leaky-relu-0.3", "thresholded-relu", "gelu-erf"),
)
SELECTION = [f"{kernel}/value/f32/stand-in" for kernel in KERNELS]
SLOW = {"ACTCONFORM_TEST_CASE_SECONDS": "0.05"}


def command(folder: Path, *more: str) -> list[str]:
    return [ACTCONFORM, "run", *SELECTION, "--out", str(folder), *more]


def finished(folder: Path, environment: Mapping[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(folder, *more), env=environment, cwd=folder.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    return done


def substance(folder: Path) -> Any:
    """Return the report without its seconds and its date, after a look at results.jsonl, which has each case once."""
    report = json.loads((folder / "report.json").read_bytes())
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_bytes().splitlines()]
    assert all(line.pop("proof") for line in lines)
    assert sorted(lines, key=lambda r: r["case"]) == sorted(report["results"], key=lambda r: r["case"])
    del report["timings"], report["when"]
    for result in report["results"]:
        del result["seconds"], result["timings"]
        result["reason"] = result["reason"].partition(" (at ")[0]
    return report


@pytest.fixture(scope="module")
def whole(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("whole") / "out"
    finished(folder, environment)
    return substance(folder)


def whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def start(folder: Path, environment: Mapping[str, str], *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(folder, *more),
        env={**environment, **SLOW},
        cwd=folder.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def until(there: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    """Wait until that is there, which must be at the latest when the driver has ended."""
    end = time.monotonic() + 60
    while True:
        ended = driver.poll() is not None
        if there():
            return
        assert not ended
        assert time.monotonic() < end
        time.sleep(0.005)


def until_it_has(lines: int, folder: Path, driver: subprocess.Popen[bytes]) -> None:
    until(lambda: len(whole_lines(folder / "results.jsonl")) >= lines, driver)


def final(lines: list[bytes]) -> set[bytes]:
    return {line for line in lines if line.endswith(b"\n") and json.loads(line)["verdict"] != "ERROR"}


@pytest.mark.parametrize("seed", range(4))
def test_a_driver_killed_at_any_moment_is_resumed(
    seed: int, environment: dict[str, str], whole: Any, tmp_path: Path
) -> None:
    chance, folder = random.Random(seed), tmp_path / "out"  # noqa: S311  no secrets
    more: tuple[str, ...] = ()
    for _ in range(2):  # the run, and the one that resumes it
        with start(folder, environment, *more) as driver:
            until_it_has(chance.randint(1, 6), folder, driver)
            time.sleep(chance.uniform(0, 0.1))
            driver.kill()
        more = ("--resume",)
    kept = final(whole_lines(folder / "results.jsonl"))
    if chance.random() < 0.5:
        with (folder / "results.jsonl").open("ab") as lines:
            lines.write(b'{"case":"tanh/value/f32/sta')
    done = finished(folder, environment, "--resume")
    assert substance(folder) == whole
    assert kept <= set(whole_lines(folder / "results.jsonl"))  # with their seconds: not run again
    assert f"resumed: {len(kept)} of {len(SELECTION)} results are from the earlier run" in done.stdout


def test_a_driver_killed_before_its_first_result_is_resumed(
    environment: dict[str, str], whole: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    with start(folder, environment | {"ACTCONFORM_TEST_START_SECONDS": "30"}) as driver:
        until((folder / "facts.json").exists, driver)
        driver.kill()
    finished(folder, environment, "--resume")
    assert substance(folder) == whole


def test_an_interrupt_while_a_resumed_run_starts_costs_no_earlier_result(
    environment: dict[str, str], whole: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    finished(folder, environment)
    before = whole_lines(folder / "results.jsonl")
    slow = environment | {"ACTCONFORM_TEST_START_SECONDS": "30"}
    with subprocess.Popen(
        command(folder, "--resume"),
        env=slow,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509  no threads here
    ) as driver:
        until(lambda: bool(children(driver.pid)), driver)
        driver.send_signal(signal.SIGINT)
        said, _ = driver.communicate()
    assert driver.returncode == 1
    assert "interrupted after 0 of" in said
    assert "dropped" not in said
    assert final(whole_lines(folder / "results.jsonl")) == final(before)
    done = finished(folder, environment, "--resume")
    assert f"resumed: {len(final(before))} of {len(SELECTION)} results" in done.stdout
    assert substance(folder) == whole


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_worker_costs_nothing_after_a_resume(
    seed: int, environment: dict[str, str], whole: Any, tmp_path: Path
) -> None:
    chance, folder = random.Random(seed), tmp_path / "out"  # noqa: S311  no secrets
    with start(folder, environment) as driver:
        until_it_has(chance.randint(1, 6), folder, driver)
        time.sleep(chance.uniform(0, 0.05))
        for worker in children(driver.pid):
            os.kill(worker, signal.SIGKILL)
        assert driver.wait(60) == 1
    finished(folder, environment, "--resume")
    assert substance(folder) == whole


def test_a_run_that_ended_is_not_run_again(environment: dict[str, str], whole: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    finished(folder, environment)
    before = final(whole_lines(folder / "results.jsonl"))
    done = finished(folder, environment, "--resume")
    assert substance(folder) == whole
    assert final(whole_lines(folder / "results.jsonl")) == before
    assert len(before) == len(SELECTION) - 1  # but for the one that ended in an ERROR
    assert "dropped" not in done.stdout


def test_other_facts_run_all_again_and_are_named(environment: dict[str, str], whole: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    finished(folder, environment)
    facts = (folder / "facts.json").read_text()
    (folder / "facts.json").write_text(facts.replace("TESTED", "OTHER"))
    done = finished(folder, environment, "--resume")
    assert "results of the earlier run are dropped: cpu_capability was OTHER, is TESTED" in done.stdout
    assert f"resumed: 0 of {len(SELECTION)}" in done.stdout
    assert substance(folder) == whole


def test_a_verdict_that_was_edited_is_not_believed(environment: dict[str, str], whole: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    finished(folder, environment)
    lines = (folder / "results.jsonl").read_text()
    assert lines.count('"verdict":"FAIL"') > 0
    (folder / "results.jsonl").write_text(lines.replace('"verdict":"FAIL"', '"verdict":"PASS"', 1) + "[]\n")
    done = finished(folder, environment, "--resume")
    assert "2 lines of results.jsonl are dropped, and what is missing now is run again" in done.stdout
    assert f"resumed: {len(SELECTION) - 2} of {len(SELECTION)}" in done.stdout  # one ended in an ERROR anyway
    assert substance(folder) == whole


def test_a_plugin_whose_code_changed_is_run_again(environment: dict[str, str], tmp_path: Path) -> None:
    """The version alone does not tell."""
    folder, copy = tmp_path / "out", tmp_path / "plugin"
    copy.mkdir()
    code = (TESTS / "stand_in.py").read_text(encoding="utf-8")
    (copy / "stand_in.py").write_text(code, encoding="utf-8")
    surroundings = {**environment, "PYTHONPATH": os.pathsep.join([str(copy), environment["PYTHONPATH"]])}
    finished(folder, surroundings)
    assert "dropped" not in finished(folder, surroundings, "--resume").stdout
    assert '"tanh": np.tanh,' in code
    (copy / "stand_in.py").write_text(code.replace('"tanh": np.tanh,', '"tanh": np.sinh,'), encoding="utf-8")
    done = finished(folder, surroundings, "--resume")
    assert "versions, settings, goldens, register or code have changed" in done.stdout
    assert f"resumed: 0 of {len(SELECTION)}" in done.stdout
    verdicts = {result["subject"]: result["verdict"] for result in substance(folder)["results"]}
    assert verdicts["tanh"] == "FAIL"


def test_there_is_nothing_to_resume(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path / "out", "--resume"), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "results.jsonl to go on from; run without --resume" in done.stderr
    assert not (tmp_path / "out").exists()
