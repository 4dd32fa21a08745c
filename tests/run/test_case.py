"""The questions that a run draws once for all its routes; a worker that dies."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from onnx import parser

from actconform.catalog.experiments import experiments
from actconform.catalog.kernels import UNARY
from actconform.errors import GoldenError, NoGoldens, WorkerCrash, WorkerError, WorkerTimeout
from actconform.plugin.loader import load_plugins
from actconform.run import case
from actconform.testdata.golden.store import golden_dir, read_manifest
from actconform.types import Artifact, Case, Verdict
from actconform.verdict.causes.register import read_register
from actconform.workers.protocol import Call, Failure, Job

if TYPE_CHECKING:
    from pathlib import Path

BY_NAME = {kernel.name: kernel for kernel in UNARY}
RELU = next(experiment for experiment in experiments() if experiment.name == "noise-relu")
NAMES = ("relu", "sigmoid", "tanh")


@pytest.fixture
def vector_cache() -> case.VectorCache:
    return case.VectorCache(golden_dir(), read_manifest(golden_dir()))


def drawn(vector_cache: case.VectorCache, name: str, route: str) -> object:
    return vector_cache.generate(BY_NAME[name], Case(subject=name, aspect="value", dtype="f32", route=route))


def test_questions_are_drawn_once_for_all_routes(vector_cache: case.VectorCache):
    first = [drawn(vector_cache, name, "torch") for name in NAMES]
    later = [drawn(vector_cache, name, "keras") for name in NAMES]
    assert all(one is other for one, other in zip(first, later, strict=True))


def test_the_oldest_questions_go_where_all_are_too_large(
    vector_cache: case.VectorCache, monkeypatch: pytest.MonkeyPatch
):
    relu = vector_cache.generate(BY_NAME["relu"], Case(subject="relu", aspect="value", dtype="f32", route="torch"))
    monkeypatch.setattr(case, "CACHE_BYTES", int(2.5 * relu.nbytes))
    sigmoid, tanh = (drawn(vector_cache, name, "torch") for name in ("sigmoid", "tanh"))
    assert drawn(vector_cache, "sigmoid", "keras") is sigmoid
    assert drawn(vector_cache, "tanh", "keras") is tanh
    assert drawn(vector_cache, "relu", "keras") is not relu


def test_what_alone_is_too_large_is_kept_until_the_next(
    vector_cache: case.VectorCache, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(case, "CACHE_BYTES", 1)
    relu = drawn(vector_cache, "relu", "torch")
    assert drawn(vector_cache, "relu", "keras") is relu
    drawn(vector_cache, "tanh", "torch")
    assert drawn(vector_cache, "relu", "keras") is not relu


def goldens_of(subject: str, folder: Path) -> case.VectorCache:
    """Return a cache whose goldens are those of one subject, in a folder of their own."""
    manifest = read_manifest(golden_dir())
    shutil.copytree(golden_dir() / subject, folder / subject)
    files = {name: entry for name, entry in manifest.files.items() if name.startswith(f"{subject}/")}
    return case.VectorCache(folder, msgspec.structs.replace(manifest, files=files))


def test_an_experiment_is_drawn_once_and_begins_with_the_state_of_its_golden(tmp_path: Path):
    vector_cache = goldens_of(RELU.name, tmp_path)
    task = vector_cache.task(RELU)
    assert vector_cache.task(RELU) is task
    assert task.state["dense1.kernel"].tobytes() == np.load(tmp_path / RELU.name / "dense1.kernel.npy").tobytes()


def test_damaged_goldens_of_an_experiment_stop_the_run(tmp_path: Path):
    vector_cache = goldens_of(RELU.name, tmp_path)
    path = tmp_path / RELU.name / "losses.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(GoldenError, match=r"losses\.npy: damaged golden"):
        vector_cache.task(RELU)


def test_an_experiment_that_begins_elsewhere_than_its_golden_is_refused(tmp_path: Path):
    vector_cache = goldens_of(RELU.name, tmp_path)
    with pytest.raises(GoldenError, match=r"dense1\.kernel.* are not what training begins with"):
        vector_cache.task(msgspec.structs.replace(RELU, seed=1))


def test_an_experiment_without_goldens_says_how_to_write_them(tmp_path: Path):
    unknown = msgspec.structs.replace(RELU, name="mine")
    with pytest.raises(NoGoldens, match="no goldens for 'mine'; write them with `actconform golden mint mine`"):
        goldens_of(RELU.name, tmp_path).task(unknown)


def job_of(body: str, rows: int) -> Job:
    text = f'<ir_version: 8, opset_import: ["": 18]> g (float[n, 4] x) => (float[n, 4] y) {{ {body} }}'
    artifact = Artifact(parser.parse_model(text).SerializeToString(), 18, "converted")
    asked = Case(subject="relu", aspect="value", dtype="f32", route="tf2onnx+ort-cpu")
    return Job(asked, artifact, [Call("ordinary", {"x": np.ones((rows, 4), np.float32)})])


FOUR_ROWS = "n = Constant <value_ints = [4, 4]> () y = Reshape (x, n)"


def test_a_graph_that_fails_by_itself_at_a_size_is_the_exporters_shape():
    (finding,) = case._fails_itself(job_of(FOUR_ROWS, 7), Failure("run", "error", "cannot reshape", 0))
    assert (finding.class_, finding.blame) == ("shape", "exporter")
    assert "x [7, 4]" in finding.evidence


@pytest.mark.parametrize(
    ("rows", "failure"),
    [
        (4, Failure("run", "error", "of its own", 0)),
        (7, Failure("load", "error", "of its own")),
        (7, Failure("run", "memory", "too much", 0)),
    ],
    ids=["the graph can", "before any call", "memory"],
)
def test_a_runtime_that_fails_by_itself_is_not_the_graphs_fault(rows: int, failure: Failure):
    assert case._fails_itself(job_of(FOUR_ROWS, rows), failure) == []


CRASHES = """
[[cause]]
id = "dies"
reason = "r"
link = "unreported"
since = "0.2"
routes = ["torch"]
covers = [{ class = "crash", kernels = ["relu"] }]
"""


class DyingWorker:
    """A worker whose process dies at every job, or ends it some other way."""

    def __init__(self, error: WorkerError) -> None:
        self._error = error

    def run(self, job: Job, timeout: float) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("name", "error", "verdict"),
    [
        ("relu", WorkerCrash("the torch worker was killed by SIGSEGV; its last words: ...", "SIGSEGV"), Verdict.XFAIL),
        ("tanh", WorkerCrash("the torch worker was killed by SIGSEGV; its last words: ...", "SIGSEGV"), Verdict.CRASH),
        ("relu", WorkerTimeout("no answer came", 1.0), Verdict.TIMEOUT),
    ],
)
def test_a_crash_is_known_where_a_cause_covers_it_and_nothing_else_is(
    vector_cache: case.VectorCache, name: str, error: WorkerError, verdict: Verdict
):
    catalog = load_plugins()
    context = case.CaseContext(catalog, read_register(CRASHES, "test"), 1.0, vector_cache, DyingWorker(error), None, {})
    result = case.run_case(Case(name, "value", "f32", "torch"), context)
    assert result.verdict == verdict
    if verdict == Verdict.XFAIL:
        (finding,) = result.findings
        assert (finding.class_, finding.deviation) == ("crash", "dies")
        assert finding.evidence == "the torch worker was killed by SIGSEGV"
