"""Driver and workers killed in the midst of cases, at random points: what is resumed ends with the report of a run that nobody killed.

With ACTCONFORM_TEST_REAL, as in the nightly job, the installed frameworks are killed too.
"""

from __future__ import annotations

import contextlib
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
from processes import children

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ACTCONFORM = str(Path(sys.executable).with_name("actconform"))
KERNELS = (
    "relu",
    "sigmoid",
    "tanh",
    "relu-squared",
    "hard-shrink",
    "silu",
    "mish",
    "linear",
    "leaky-relu",
    "threshold",
)
FAKE = [f"{kernel}/value/f32/stand-in" for kernel in (*KERNELS, "softmax", "relu6")]
REAL = [f"{kernel}/value/f32/{route}" for kernel in KERNELS for route in ("torch", "authored+ort-cpu")]
SECONDS = 120


def command(cases: Sequence[str], folder: Path, *more: str) -> list[str]:
    return [ACTCONFORM, "run", *cases, "--out", str(folder), *more]


def finished(cases: Sequence[str], environment: Mapping[str, str], folder: Path, *more: str) -> Any:
    """Run to the end; return the report without its seconds and its date."""
    done = subprocess.run(
        command(cases, folder, *more), env=environment, cwd=folder.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads((folder / "report.json").read_bytes())
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_bytes().splitlines()]
    assert sorted(line["case"] for line in lines) == sorted(result["case"] for result in report["results"])
    del report["timings"], report["when"]
    for result in report["results"]:
        del result["seconds"], result["timings"]
    return report


def in_a_case(driver: subprocess.Popen[bytes], marks: Path, seen: set[str]) -> str:
    """Wait until the backend is at work on a case that it was not seen at; return which, and "" where the run is over."""
    end = time.monotonic() + SECONDS
    while driver.poll() is None:
        assert time.monotonic() < end
        at_work = {path.name for path in marks.iterdir()} - seen
        if at_work:
            return min(at_work)
        time.sleep(0.002)
    return ""


def kill(processes: set[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return finished(FAKE, environment, tmp_path_factory.mktemp("whole") / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
@pytest.mark.parametrize("seed", range(5))
def test_six_kills_in_the_midst_of_cases(seed: int, environment: dict[str, str], whole: Any, tmp_path: Path) -> None:
    """Twice two workers and the driver; the stand-in marks in a file that it is at a call, which takes a while."""
    chance, folder, marks = random.Random(seed), tmp_path / "out", tmp_path / "marks"  # noqa: S311  no secrets
    marks.mkdir()
    slow = {**environment, "ACTCONFORM_TEST_MARKS": str(marks), "ACTCONFORM_TEST_CALL_SECONDS": "0.03"}
    more: tuple[str, ...] = ()
    kills = 0
    for _ in range(2):
        seen: set[str] = set()
        with subprocess.Popen(
            command(FAKE, folder, *more), env=slow, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as driver:
            for victim in ("worker", "worker", "driver"):
                at = in_a_case(driver, marks, seen)
                assert at
                time.sleep(chance.uniform(0, 0.3))  # at any call of it, between two, or in the next case
                seen = {path.name for path in marks.iterdir()} | {at}
                kills += 1
                if victim == "driver":
                    driver.kill()
                    break
                kill(children(driver.pid))
            driver.kill()
        for mark in marks.iterdir():
            mark.unlink()
        more = ("--resume",)
    assert kills == 6
    before = (folder / "results.jsonl").read_bytes()
    assert finished(FAKE, environment, folder, "--resume") == whole
    ended = {
        line for line in before.splitlines(keepends=True) if line.endswith(b"\n") and b'"verdict":"CRASH"' not in line
    }
    assert {line for line in ended if b'"verdict":"ERROR"' not in line} <= set(
        (folder / "results.jsonl").read_bytes().splitlines(keepends=True)
    )  # with their seconds: nothing that had ended was run twice
    assert {path.name for path in folder.iterdir() if path.name.startswith((".", "results."))} == {
        "results.jsonl",
        ".results.lock",
    }


@pytest.mark.skipif("ACTCONFORM_TEST_REAL" not in os.environ, reason="takes minutes: the nightly job does it")
def test_thirty_kills_of_real_frameworks(environment: dict[str, str], tmp_path: Path) -> None:
    chance, folder = random.Random(0), tmp_path / "out"  # noqa: S311  no secrets
    expected = finished(REAL, environment, tmp_path / "whole")
    more: tuple[str, ...] = ()
    for _ in range(30):
        with subprocess.Popen(
            command(REAL, folder, *more),
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as driver:
            end = time.monotonic() + SECONDS
            while not (workers := children(driver.pid)):
                assert time.monotonic() < end
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 10))
            victims = chance.choice([{driver.pid}, workers])
            kill(victims)
            if driver.pid not in victims:
                driver.wait(SECONDS)
        more = ("--resume",) if (folder / "results.jsonl").exists() else ()
    assert finished(REAL, environment, folder, *more) == expected
