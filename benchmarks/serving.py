"""How long calls take through `serve`, beside ONNX Runtime's own calls and what the runtime computes for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actconform.comparison.metamorphic import RelationChecks
from actconform.onnx.author.exporter import author
from actconform.plugin.loader import load_plugins
from actconform.run.case import job_for
from actconform.settings import BackendConfig, Config
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import generate
from actconform.types import Case
from actconform.workers import serve
from actconform.workers.from_settings import configured_worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.workers.client import Worker
    from actconform.workers.protocol import Job

SUBJECT, DTYPES = "relu", ("f32", "f16")
LIMIT = 2.0
ROUNDS = 15
TIMEOUT = 120.0
SOURCES = Path(__file__).parents[1] / "tests" / "workers" / "serve"


def serving(rounds: int = ROUNDS) -> Iterator[tuple[str, float, float]]:
    """Seconds of the calls of relu through `serve`, as a multiple of ort-cpu's plus the runtime's own computing.

    The runtime is the small one of the tests, in C++, which counts what it computes. Without a compiler for it nothing is measured.
    """
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if compiler is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        built, seconds = Path(folder, "runtime"), Path(folder, "seconds")
        header = Path(serve.__file__).parent
        words = [compiler, "-std=c++17", "-O2", "-I", str(header), str(SOURCES / "runtime.cpp"), "-o", str(built)]
        subprocess.run(words, check=True)  # noqa: S603
        prepare = f'"{sys.executable}" "{SOURCES / "compile_graph.py"}" {{model}} -o {{artifact}}'
        served = BackendConfig(prepare=prepare, serve=f'"{built}" --serve --seconds "{seconds}"')
        config = Config(backends={"served": served}, path=str(Path(folder, "actconform.toml")))
        with configured_worker("served", config) as worker, configured_worker("ort-cpu", config) as onnxruntime:
            for dtype in DTYPES:
                yield _line(_job(dtype, worker), _job(dtype, onnxruntime), worker, onnxruntime, seconds, rounds)


def _line(
    job: Job, same: Job, worker: Worker, onnxruntime: Worker, seconds: Path, rounds: int
) -> tuple[str, float, float]:
    """Return the figure of one dtype: each of the three at its least, from rounds in turns, so that drift hits all alike."""
    through, own, beside = [], [], []
    for _ in range(rounds):
        through.append(_seconds_of_calls(worker, job))
        own.append(float(seconds.read_text()))  # written when the graph is unloaded
        beside.append(_seconds_of_calls(onnxruntime, same))
    words = f"{1e3 * min(through):.1f} ms against {1e3 * min(beside):.1f} and {1e3 * min(own):.1f} ms"
    name = f"calls of {SUBJECT} {job.case.dtype} through serve / ort-cpu's and the runtime's own computing ({words})"
    return name, min(through) / (min(beside) + min(own)), LIMIT


def _seconds_of_calls(worker: Worker, job: Job) -> float:
    outcome = worker.run(job, TIMEOUT)
    if outcome.failure is not None:
        raise RuntimeError(f"{job.case.id}: {outcome.failure.message}")
    return outcome.timings["run"]


def _job(dtype: str, worker: Worker) -> Job:
    """Return the job of a run, all its calls and those that are made again, but for questions about side effects."""
    folder = golden_dir()
    kernel = load_plugins(judging=False).kernels[SUBJECT]
    golden = load(folder, read_manifest(folder), SUBJECT)
    test_vectors = generate(kernel, "value", dtype, golden).asked(few=False, graph=True)
    case = Case(SUBJECT, "value", dtype, f"authored+{worker.backend}")
    job = job_for(kernel, case, test_vectors, RelationChecks(SUBJECT, "value", test_vectors), author(kernel, dtype))
    return msgspec.structs.replace(job, side_effects=False)
