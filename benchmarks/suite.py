"""How long ONNX's own cases take through `actconform suite`, judged twice, beside onnx's own test runner, in the same run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIMIT = 1.5
ON_THE_CPU = {"ORT_ONNX_BACKEND_EXCLUDE_PROVIDERS": "TensorrtExecutionProvider,CUDAExecutionProvider"}
# onnx's runner on onnxruntime's backend, all cases but those whose models are downloaded.
RUNNER = """
import unittest, warnings
import onnxruntime
from onnx.backend.test.runner import Runner
from onnxruntime.backend.backend import OnnxRuntimeBackend

class OnCpu(OnnxRuntimeBackend):
    @classmethod
    def supports_device(cls, device):
        return device in ("CPU", "GPU")  # the latter is what it calls the machine with the package for GPUs

warnings.simplefilter("ignore")
onnxruntime.set_default_logger_severity(4)
cases = Runner(OnCpu).exclude("_cuda$").test_cases
suite = unittest.TestSuite()
for name, case in cases.items():
    if name != "OnnxBackendRealModelTest":
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
result = unittest.TestResult()
suite.run(result)
"""


def onnx_suite(rounds: int = 1) -> Iterator[tuple[str, float, float]]:
    """Seconds of `actconform suite onnx --runtime ort-cpu`, as a multiple of onnx's own runner's, each from its start to its end."""
    best = [float("inf"), float("inf")]
    with tempfile.TemporaryDirectory() as folder:
        ours = (sys.executable, "-m", "actconform", "suite", "onnx", "--runtime", "ort-cpu", "--out", folder)
        for _ in range(rounds):
            for index, command in enumerate((ours, (sys.executable, "-c", RUNNER))):
                best[index] = min(best[index], _seconds(command, Path(folder), ON_THE_CPU))
    words = f"{best[0]:.1f} s against {best[1]:.1f} s"
    yield f"actconform suite onnx / onnx's own runner, onnxruntime on the CPU ({words})", best[0] / best[1], LIMIT


def _seconds(command: tuple[str, ...], folder: Path, variables: Mapping[str, str]) -> float:
    """Return the seconds of a process. Raises CalledProcessError where it ends with more than 1: the suite ends so where something is outside."""
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return time.perf_counter() - started
