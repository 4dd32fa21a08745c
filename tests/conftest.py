"""Reports made of injected times, whose truth is then known; wheels for pip that need no network; a place with the stand-in installed."""

from __future__ import annotations

import itertools
import os
import sys
import zipfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from actconform.bench.interleaved import Samples
from actconform.bench.results import Machine, Measured, ThroughputReport, calibrated, with_ratios
from actconform.bench.runner import benchmark_result
from actconform.bench.verdicts import Judged
from actconform.bench.workloads import Workload
from actconform.types import Verdict
from actconform.workers.timing import Prepared

sys.path.append(str(Path(__file__).parent))  # what tests share is imported by its name

hypothesis.settings.register_profile("any machine", deadline=None)  # how long an example takes is for benchmarks
hypothesis.settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse paths that are not there: processes that share the tests would collect nothing and say nothing."""
    missing = [path for path in config.args if not (config.invocation_params.dir / path.partition("::")[0]).exists()]
    if missing:
        raise pytest.UsageError(f"no such file or folder: {', '.join(missing)}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the tests, start with those that take minutes: none is left alone with them at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("end_to_end") is None)


MACHINE = Machine(cpu="a processor", capability="AVX2", affinity=(0, 1), threads=1, memory=1 << 34)
FACTS = {"calibration": {"numpy": "2.0"}, "torch": {"torch": "2.13", "platform": "Linux-6.1"}, "keras": {"keras": "3"}}
ROUNDS = 9


@pytest.fixture
def timed():
    """Make a report of one trial: seconds of a call by route, each round up to `noise` of it more, from a seed."""

    def made(seconds, *, seed=0, noise=0.01, copy=1e-3, copy_noise=0.01, machine=MACHINE, facts=FACTS, subject="relu"):
        rng = np.random.default_rng(seed)

        def draw(middle, width):
            return [float(t) for t in middle * (1 + width * rng.uniform(0, 1, ROUNDS))]

        workload = Workload(subject, "forward", 1024)
        scale = calibrated("copy", 8192, Samples(Prepared(loops=10, clock=1e-7), draw(copy, copy_noise)))
        figures = [
            benchmark_result(
                Judged(route=route, verdict=Verdict.PASS),
                Samples(Prepared(loops=10, clock=1e-7), draw(middle, noise)),
                scale,
                counts=(1024, 8192),
                device="cpu",
            )
            for route, middle in seconds.items()
        ]
        return ThroughputReport(
            actconform="0",
            machine=machine,
            facts=facts,
            rounds=ROUNDS,
            confidence=0.95,
            interrupted=False,
            seconds=1.0,
            measured=[Measured(workload=workload, calibration=scale, figures=with_ratios(figures))],
            not_timed=[],
        )

    return made


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Let pip find wheels of wobble, steady and leaning alone, 1.0 and 2.0, and keep environments in an empty folder, which is returned.

    leaning depends on what there is not.
    """
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, version in itertools.product(("wobble", "steady", "leaning"), ("1.0", "2.0")):
        info = f"{name}-{version}.dist-info"
        needs = "Requires-Dist: nosuchthing\n" if name == "leaning" else ""
        files = {
            f"{name}/__init__.py": f"__version__ = {version!r}\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for path, content in files.items():
                wheel.writestr(path, content)
    for variable, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("ACTCONFORM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "environments"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a process in which the stand-in backend is an installed plugin."""
    site = tmp_path_factory.mktemp("site")
    info = site / "actconform_stand_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: actconform-stand-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[actconform]\nstand-in = stand_in:Plugin\n")
    path = os.pathsep.join([str(site), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}
