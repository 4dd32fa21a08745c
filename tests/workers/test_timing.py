"""Programs held ready in a worker: prepared, sampled, closed; whatever goes wrong is a Failure. Nothing is said of speed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np
import pytest

from actconform import Backend, Kernel, Program, Unsupported, hookimpl
from actconform.catalog.models.builder import describe, layer
from actconform.plugin.loader import load_plugins
from actconform.types import Case
from actconform.types.model import LOSS, Input
from actconform.workers.client import Worker
from actconform.workers.protocol import Call, Job
from actconform.workers.session import Session
from actconform.workers.timing import Prepare, TakeSample, Timers, _in_fresh_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Model

HERE = Path(__file__).parent
X = np.array([-1.0, 0.0, 2.0], np.float32)
BATCHED = describe(
    "batched",
    "tests",
    [Input(name="x", shape=(2,), draw="normal"), Input(name="target", shape=(2,), draw="normal", role="target")],
    [layer("twice", "affine", "x", scale=2.0), layer(LOSS, "mean-squared-error", "twice", "target")],
    output="twice",
    batch=2,
)


class Counted(Program):
    """Remembers what was asked of it."""

    implementation = "counted"
    placement: ClassVar[dict[str, tuple[str, ...]]] = {"FakeExecutionProvider": ("Relu",)}

    def __init__(self, name: str, batch: int = 0) -> None:
        self.name, self.batch = name, batch
        self.calls: list[str] = []
        self.closed = 0

    def forward(self, inputs: Any) -> Any:
        self.calls.append("forward")
        if self.name == "call-raises":
            raise RuntimeError("the device is lost")
        return {"y": inputs["x"] * 2}

    def vjp(self, inputs: Any, cotangents: Any) -> Any:
        self.calls.append("vjp")
        return {"d_x": cotangents["y"] * 2}

    def close(self) -> None:
        self.closed += 1


class Ready(Counted):
    """Prepares what it computes, and writes into the arrays that it was given."""

    def prepare_call(self, inputs: Any, cotangents: Any = None) -> Callable[[], object]:
        if self.name == "ready-raises":
            raise Unsupported("has no gradient, by declaration")
        self.given = {**inputs, **(cotangents or {})}
        inputs["x"][...] = 9.0
        return lambda: self.calls.append("once")


class Counting(Backend):
    name = "counting"
    kind = "framework"
    built: ClassVar[list[Counted]] = []

    def facts(self) -> dict[str, str]:
        return {}

    def build(self, kernel: Kernel, dtype: str) -> Program:
        if kernel.name == "build-raises":
            raise Unsupported("has no function for it")
        self.built.append((Ready if kernel.name in ("ready", "ready-raises") else Counted)(kernel.name))
        return self.built[-1]

    def build_model(self, model: Model, dtype: str) -> Program:
        self.built.append(Counted(model.name, model.batch))
        return self.built[-1]


class Plugin:
    @hookimpl
    def actconform_kernels(self) -> list[Kernel]:
        names = ("plain", "ready", "build-raises", "ready-raises", "call-raises")
        return [Kernel(name=name, definition=name, source="tests") for name in names]

    @hookimpl
    def actconform_models(self) -> list[Model]:
        return [BATCHED]

    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Counting]


CATALOG = load_plugins([Plugin()], entry_points=[])


@pytest.fixture
def timers() -> Timers:
    Counting.built.clear()
    return Timers(Session(Counting(), CATALOG))


def job(name: str, aspect: Any = "value", batch: int = 0) -> Job:
    cotangents = {"y": np.ones_like(X)} if aspect == "gradient" else None
    return Job(Case(name, aspect, "f32", "counting"), None, [Call("ordinary", {"x": X}, cotangents)], batch=batch)


def test_empty_cotangents_are_cotangents_when_a_call_is_repeated(timers: Timers) -> None:
    """A pullback that is given none to pull back is not the forward call, in fresh memory either."""
    asked: list[Any] = []
    pulled = msgspec.structs.replace(job("ready").calls[0], cotangents={})

    class Noting(Ready):
        def prepare_call(self, inputs: Any, cotangents: Any = None) -> Callable[[], object]:
            asked.append(cotangents)
            return lambda: None

    _in_fresh_memory(Noting("ready"), pulled)
    _in_fresh_memory(Noting("ready"), msgspec.structs.replace(pulled, cotangents=None))
    assert asked == [{}, None]


def test_what_is_prepared_says_how_many_calls_make_a_sample(timers: Timers) -> None:
    prepared = timers.prepare(Prepare("a", job("plain")))
    assert prepared.failure is None
    assert prepared.loops >= 1
    assert prepared.clock > 0
    assert (prepared.implementation, prepared.placement) == ("counted", {"FakeExecutionProvider": ("Relu",)})


@pytest.mark.parametrize(("aspect", "method"), [("value", "forward"), ("gradient", "vjp")])
def test_a_sample_makes_so_many_calls_and_returns_their_seconds(timers: Timers, aspect: str, method: str) -> None:
    timers.prepare(Prepare("a", job("plain", aspect)))
    (program,) = Counting.built
    assert set(program.calls) == {method}  # to warm up
    before = len(program.calls)
    sampled = timers.sample(TakeSample("a", 7))
    assert sampled.failure is None
    assert sampled.seconds > 0
    assert len(program.calls) == before + 1 + 7, "one before them fills the caches"
    timers.sample(TakeSample("a", 1))
    assert len(program.calls) == before + 1 + 7 + 1
    assert program.closed == 0


def test_what_a_program_gets_ready_is_timed_on_copies(timers: Timers) -> None:
    timers.prepare(Prepare("a", job("ready", "gradient")))
    (program,) = Counting.built
    assert isinstance(program, Ready)
    assert program.given.keys() == {"x", "y"}
    assert set(program.calls) == {"once"}
    np.testing.assert_array_equal(X, [-1.0, 0.0, 2.0])


def test_several_calls_get_inputs_in_fresh_memory_and_a_single_one_does_not(timers: Timers) -> None:
    timers.prepare(Prepare("a", job("ready", "gradient")))
    (program,) = Counting.built
    assert isinstance(program, Ready)
    first = program.given
    timers.sample(TakeSample("a", 1))
    assert program.given is first
    timers.sample(TakeSample("a", 2))
    assert not any(np.shares_memory(program.given[name], first[name]) for name in ("x", "y"))
    np.testing.assert_array_equal(X, [-1.0, 0.0, 2.0])


def test_several_are_ready_at_once(timers: Timers) -> None:
    for key in ("a", "b"):
        assert timers.prepare(Prepare(key, job("plain"))).failure is None
    first, second = Counting.built
    counts = len(first.calls), len(second.calls)
    timers.sample(TakeSample("b", 3))
    assert (len(first.calls), len(second.calls)) == (counts[0], counts[1] + 1 + 3)


@pytest.mark.parametrize(
    ("name", "stage", "kind", "words"),
    [
        ("build-raises", "build", "unsupported", "has no function for it"),
        ("ready-raises", "run", "unsupported", "has no gradient, by declaration"),
        ("call-raises", "run", "error", "RuntimeError: the device is lost"),
        ("nobody-knows", "build", "error", "knows no kernel or model 'nobody-knows'"),
    ],
)
def test_what_goes_wrong_in_preparing_is_a_failure(
    timers: Timers, name: str, stage: str, kind: str, words: str
) -> None:
    prepared = timers.prepare(Prepare("a", job(name)))
    assert prepared.failure is not None
    assert (prepared.failure.stage, prepared.failure.kind) == (stage, kind)
    assert words in prepared.failure.message
    assert prepared.loops == 0
    assert timers.sample(TakeSample("a", 1)).failure is not None  # nothing is ready under that key


def test_a_call_that_fails_later_and_an_unknown_key_are_failures(
    timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers.prepare(Prepare("a", job("plain")))
    monkeypatch.setattr(Counting.built[0], "name", "call-raises")
    failure = timers.sample(TakeSample("a", 1)).failure
    assert failure is not None
    assert (failure.stage, failure.kind) == ("run", "error")
    assert "RuntimeError: the device is lost" in failure.message
    unknown = timers.sample(TakeSample("nobody's", 1))
    assert unknown.failure is not None
    assert "nobody's" in unknown.failure.message
    assert unknown.seconds == 0


def test_no_calls_close_the_program_once(timers: Timers) -> None:
    timers.prepare(Prepare("a", job("plain")))
    for _ in range(2):  # closing what is not there is no fault
        assert timers.sample(TakeSample("a", 0)).failure is None
    assert [program.closed for program in Counting.built] == [1]
    assert timers.sample(TakeSample("a", 1)).failure is not None


@pytest.mark.parametrize("then", ["plain", "build-raises"])
def test_preparing_a_key_again_closes_what_was_there(timers: Timers, then: str) -> None:
    timers.prepare(Prepare("a", job("plain")))
    timers.prepare(Prepare("b", job("plain")))
    timers.prepare(Prepare("a", job(then)))
    assert [program.closed for program in Counting.built] == ([1, 0, 0] if then == "plain" else [1, 0])


@pytest.mark.parametrize(("batch", "wanted"), [(0, 2), (32, 32)])
def test_the_batch_of_a_job_reaches_the_model(timers: Timers, batch: int, wanted: int) -> None:
    assert timers.prepare(Prepare("a", job("batched", batch=batch))).failure is None
    assert [program.batch for program in Counting.built] == [wanted]


def test_through_a_worker_process() -> None:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    with Worker("counting", plugins=("test_timing:Plugin",), env={"PYTHONPATH": path}) as worker:
        prepared = worker.prepare(Prepare("a", job("plain")), timeout=60)
        assert (prepared.failure, prepared.implementation) == (None, "counted")
        assert prepared.loops >= 1
        assert worker.sample(TakeSample("a", prepared.loops), timeout=60).seconds > 0
        refused = worker.prepare(Prepare("b", job("build-raises")), timeout=60)
        assert refused.failure is not None
        assert refused.failure.stage == "build"
        assert worker.run(job("plain"), timeout=60).failure is None  # jobs go on beside what is ready
        assert worker.sample(TakeSample("a", 1), timeout=60).failure is None
        assert worker.sample(TakeSample("a", 0), timeout=60).failure is None
        assert worker.sample(TakeSample("a", 1), timeout=60).failure is not None
