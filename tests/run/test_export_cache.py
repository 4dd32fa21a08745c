"""Exports are asked for once: kept by content, made again when anything that matters differs or the entry is damaged."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.zoo import networks
from actconform.errors import ExportError, Unavailable, Unsupported, WorkerError
from actconform.run.export_cache import Exports, cache_folder
from actconform.testdata.model_tensors import draw_parameters
from actconform.types import Artifact, Kernel
from actconform.types.model import Input
from actconform.workers.protocol import ExportJob, ExportResult, Failure, Handshake

KERNEL = Kernel(name="leaky-relu", definition="", source="", parameters={"alpha": 0.25})
GRAPH = Artifact(b"\x08\x0agraph" * 50, 20, "operator: LeakyRelu", ("warned",), 10)


class Asked:
    """A worker that exports at once, and remembers what it was asked for."""

    def __init__(self, outcome: ExportResult | Exception | None = None, env: Any = None, **hello: Any) -> None:
        self.jobs: list[tuple[ExportJob, float]] = []
        self.starts = 0
        self.env = {"ACTCONFORM_THREADS": "1", **(env or {})}
        self.outcome = outcome or ExportResult(artifact=GRAPH)
        said = {"facts": {"torch": "2.13"}, "plugins": {"actconform-torch": "0.1"}, **hello}
        self.hello = Handshake(actconform="0.1", backend="torch", **said)

    def start(self, timeout: float = 1.0) -> Handshake:
        assert timeout > 0
        self.starts += 1
        return self.hello

    def export(self, job: ExportJob, timeout: float) -> ExportResult:
        self.jobs.append((job, timeout))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def get(worker: Any, folder: Path, kernel: Kernel = KERNEL, dtype: str = "f32", exporter: str = "dynamo") -> Artifact:
    return Exports(worker, folder).artifact(kernel, dtype, exporter, 30.0)


def failed(kind: Any) -> ExportResult:
    return ExportResult(failure=Failure("export", kind, f"words of {kind}"))


def test_what_was_exported_once_is_not_asked_for_again(tmp_path: Path) -> None:
    first, second = Asked(), Asked()
    assert get(first, tmp_path) == GRAPH
    assert first.jobs == [(ExportJob("dynamo", "leaky-relu", "f32"), 30.0)]
    assert get(second, tmp_path) == GRAPH
    assert second.jobs == []


def test_the_worker_is_started_once(tmp_path: Path) -> None:
    worker = Asked()
    exports: Any = Exports(worker, tmp_path)  # type: ignore[arg-type]
    for dtype in ("f32", "f16"):
        exports.artifact(KERNEL, dtype, "dynamo", 30.0)
    assert worker.starts == 1
    assert len(worker.jobs) == 2


@pytest.mark.parametrize(
    ("hello", "wanted"),
    [
        ({"facts": {"torch": "2.14"}}, {}),
        ({"facts": {"torch": "2.13", "onnxscript": "0.5"}}, {}),
        ({"plugins": {"actconform-torch": "0.2"}}, {}),
        ({"code": "a digest of other code"}, {}),
        ({"env": {"TF_ENABLE_ONEDNN_OPTS": "0"}}, {}),
        ({}, {"dtype": "f16"}),
        ({}, {"exporter": "torchscript"}),
        ({}, {"kernel": msgspec.structs.replace(KERNEL, parameters={"alpha": 0.5})}),
        ({}, {"kernel": msgspec.structs.replace(KERNEL, name="leaky-relu-2")}),
    ],
)
def test_whatever_could_change_the_graph_makes_it_another_entry(
    hello: dict[str, Any], wanted: dict[str, Any], tmp_path: Path
) -> None:
    get(Asked(), tmp_path)
    other = Artifact(b"other", 18, "composition: Mul")
    worker = Asked(ExportResult(artifact=other), **hello)
    assert get(worker, tmp_path, **wanted) == other
    assert len(worker.jobs) == 1
    assert get(Asked(), tmp_path) == GRAPH


MODEL = next(model for model in networks() if model.name == "linear-stack")


def test_a_model_is_exported_with_its_constants_and_each_set_of_them_is_an_entry(tmp_path: Path) -> None:
    drawn = draw_parameters(MODEL)
    moved = {**drawn, "dense1.bias": drawn["dense1.bias"] + np.float32(1e-6)}
    variants: list[dict[str, Any] | None] = [None, drawn, moved, {**drawn, "dense1.bias": drawn["dense1.bias"][::-1]}]
    graphs = [Artifact(f"graph {number}".encode(), 20, "dynamo") for number in range(4)]
    for constants, graph in zip(variants, graphs, strict=True):
        worker: Any = Asked(ExportResult(artifact=graph))
        assert Exports(worker, tmp_path).artifact(MODEL, "f32", "dynamo", 30.0, constants) == graph
        ((job, _),) = worker.jobs
        assert (job.subject, job.exporter, job.constants is constants) == ("linear-stack", "dynamo", True)
    for constants, graph in zip(variants, graphs, strict=True):
        again: Any = Asked()
        assert Exports(again, tmp_path).artifact(MODEL, "f32", "dynamo", 30.0, constants) == graph
        assert again.jobs == []


BARE = describe(
    "bare",
    "a model without parameters",
    [
        Input(name="x", shape=(4, 4, 2), draw="normal"),
        Input(name="target", shape=(2, 2, 2), draw="normal", role="target"),
    ],
    [
        layer("y", "max-pool", "x", size=(2, 2), strides=(2, 2), padding="valid"),
        layer("loss", "mean-squared-error", "y", "target"),
    ],
    output="y",
    batch=2,
)


def test_no_constants_are_not_the_constants_of_a_model_without_parameters(tmp_path: Path) -> None:
    assert draw_parameters(BARE) == {}
    graphs = {"inputs": Artifact(b"takes x and target", 20, "dynamo"), "const": Artifact(b"takes x", 20, "dynamo")}
    constants: dict[str, Any] = {"inputs": None, "const": {}}
    for _ in range(2):
        for name, graph in graphs.items():
            worker: Any = Asked(ExportResult(artifact=graph))
            assert Exports(worker, tmp_path).artifact(BARE, "f32", "dynamo", 30.0, constants[name]) == graph
            assert all(job.constants == constants[name] for job, _ in worker.jobs)
    assert len(list(tmp_path.iterdir())) == 2


def test_another_description_of_a_model_is_another_entry(tmp_path: Path) -> None:
    layers = [msgspec.structs.replace(one, settings={**one.settings, "bias": "zeros"}) for one in MODEL.layers[:1]]
    for model in (MODEL, msgspec.structs.replace(MODEL, layers=(*layers, *MODEL.layers[1:]))):
        worker: Any = Asked()
        Exports(worker, tmp_path).artifact(model, "f32", "dynamo", 30.0)
        assert len(worker.jobs) == 1


def test_the_order_of_facts_is_no_difference(tmp_path: Path) -> None:
    get(Asked(facts={"a": "1", "b": "2"}), tmp_path)
    worker = Asked(facts={"b": "2", "a": "1"})
    get(worker, tmp_path)
    assert worker.jobs == []


def entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("kept", [0, 1, 7, 100, -1])
def test_a_damaged_entry_is_made_again(kept: int, tmp_path: Path) -> None:
    get(Asked(), tmp_path)
    whole = entry(tmp_path).read_bytes()
    entry(tmp_path).write_bytes(whole[:kept])
    worker = Asked()
    assert get(worker, tmp_path) == GRAPH
    assert len(worker.jobs) == 1
    assert entry(tmp_path).read_bytes() == whole


@pytest.mark.parametrize("content", [b"\xff\xfe not one of ours", msgspec.msgpack.encode({"model": 1}), b"\x00" * 400])
def test_what_is_no_entry_is_replaced(content: bytes, tmp_path: Path) -> None:
    get(Asked(), tmp_path)
    entry(tmp_path).write_bytes(content)
    assert get(Asked(), tmp_path) == GRAPH
    again = Asked()
    assert get(again, tmp_path) == GRAPH
    assert again.jobs == []


def test_every_changed_bit_of_an_entry_is_noticed(tmp_path: Path) -> None:
    get(Asked(), tmp_path)
    whole = entry(tmp_path).read_bytes()
    for at in range(0, len(whole), 37):
        edited = bytearray(whole)
        edited[at] ^= 4
        entry(tmp_path).write_bytes(edited)
        worker = Asked()
        assert get(worker, tmp_path) == GRAPH
        assert len(worker.jobs) == 1
    assert entry(tmp_path).read_bytes() == whole


def test_an_entry_under_a_foreign_name_is_made_again(tmp_path: Path) -> None:
    """Whole, but of another kernel: as after a copy or a rename by hand."""
    get(Asked(), tmp_path)
    mine = entry(tmp_path)
    foreign = Artifact(b"of another kernel", 18, "composition: Mul")
    get(Asked(ExportResult(artifact=foreign)), tmp_path / "other", dtype="f16")
    mine.write_bytes(entry(tmp_path / "other").read_bytes())
    worker = Asked()
    assert get(worker, tmp_path) == GRAPH
    assert len(worker.jobs) == 1
    assert get(Asked(), tmp_path) == GRAPH


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        worker = Asked()
        assert get(worker, tmp_path / "file" / "exports") == GRAPH
        assert len(worker.jobs) == 1


def test_an_entry_that_cannot_be_replaced_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert get(Asked(), tmp_path) == GRAPH
    assert not list(tmp_path.glob("*.msgpack"))


def test_what_a_killed_run_left_is_not_read(tmp_path: Path) -> None:
    get(Asked(), tmp_path)
    path = entry(tmp_path)
    path.rename(tmp_path / "tmpabc.new")  # killed before the rename: none
    (tmp_path / "tmpdef.new").write_bytes(b"half")
    worker = Asked()
    assert get(worker, tmp_path) == GRAPH
    assert len(worker.jobs) == 1
    assert path.exists()


def test_writers_at_once_leave_a_whole_entry(tmp_path: Path) -> None:
    large = msgspec.structs.replace(GRAPH, model=b"graph" * 200_000)
    barrier = threading.Barrier(4)
    got: list[Artifact] = []

    class Together(Asked):
        def export(self, job: ExportJob, timeout: float) -> ExportResult:
            outcome = super().export(job, timeout)
            barrier.wait(20)
            return outcome

    def one() -> None:
        got.append(get(Together(ExportResult(artifact=large)), tmp_path))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [large] * 4
    assert get(Asked(ExportResult(artifact=GRAPH)), tmp_path) == large


@pytest.mark.parametrize(
    ("kind", "raised"),
    [("unsupported", Unsupported), ("unavailable", Unavailable), ("error", ExportError), ("memory", ExportError)],
)
def test_a_failure_is_raised_as_what_it_is_and_never_kept(kind: str, raised: type[Exception], tmp_path: Path) -> None:
    worker = Asked(failed(kind))
    exports: Any = Exports(worker, tmp_path)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(raised, match=f"^words of {kind}$"):
            exports.artifact(KERNEL, "f32", "dynamo", 30.0)
    assert len(worker.jobs) == 2
    assert not list(tmp_path.iterdir())


def test_what_is_begun_is_made_once_while_the_caller_does_something_else(tmp_path: Path) -> None:
    exporting, release = threading.Event(), threading.Event()

    class Slow(Asked):
        def export(self, job: ExportJob, timeout: float) -> ExportResult:
            exporting.set()
            assert release.wait(30.0)
            return super().export(job, timeout)

    worker = Slow()
    exports: Any = Exports(worker, tmp_path)  # type: ignore[arg-type]
    exports.begin(KERNEL, "f32", "dynamo", 30.0)
    exports.begin(KERNEL, "f32", "dynamo", 30.0)
    assert exporting.wait(30.0)  # and this thread is here
    release.set()
    assert exports.artifact(KERNEL, "f32", "dynamo", 30.0) == GRAPH
    assert len(worker.jobs) == 1


def test_what_fails_ahead_is_raised_where_it_is_asked_for(tmp_path: Path) -> None:
    exports: Any = Exports(Asked(failed("error")), tmp_path)  # type: ignore[arg-type]
    exports.begin(KERNEL, "f32", "dynamo", 30.0)
    with pytest.raises(ExportError, match=r"^words of error$"):
        exports.artifact(KERNEL, "f32", "dynamo", 30.0)


def test_once_closed_nothing_more_is_begun(tmp_path: Path) -> None:
    release = threading.Event()

    class Slow(Asked):
        def export(self, job: ExportJob, timeout: float) -> ExportResult:
            assert release.wait(30.0)
            return super().export(job, timeout)

    worker = Slow()
    exports: Any = Exports(worker, tmp_path)  # type: ignore[arg-type]
    for dtype in ("f32", "f16", "bf16"):
        exports.begin(KERNEL, dtype, "dynamo", 30.0)
    exports.close()
    release.set()
    with pytest.raises(RuntimeError, match="after shutdown"):
        exports.begin(KERNEL, "f64", "dynamo", 30.0)
    assert len(worker.jobs) <= 1


def test_an_unavailable_framework_is_said_without_asking(tmp_path: Path) -> None:
    worker = Asked(unavailable="torch is not installed: pip install torch")
    with pytest.raises(Unavailable, match="pip install torch"):
        get(worker, tmp_path)
    assert worker.jobs == []


def test_a_dead_worker_is_the_callers_matter(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="was killed"):
        get(Asked(WorkerError("crash", "was killed by SIGSEGV")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_folder_is_where_the_user_or_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ACTCONFORM_CACHE", raising=False)
    assert cache_folder() == tmp_path / "home/.cache/actconform/exports"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/actconform/exports"
    monkeypatch.setenv("ACTCONFORM_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
