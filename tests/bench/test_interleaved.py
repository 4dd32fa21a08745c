"""Turns, with a worker that keeps a diary instead of time."""

from __future__ import annotations

import pytest

from actconform.bench import interleaved
from actconform.bench.interleaved import Runner, interleaved_rounds
from actconform.errors import Unsupported, WorkerCrash
from actconform.types import Case
from actconform.workers.protocol import Failure, Job
from actconform.workers.timing import Prepared, Sampled

JOB = Job(Case("relu", "value", "f32", "fake"), None, [])


class Diary:
    """A worker: what it was asked goes into `log`; `seconds` of a call by name; it dies at what `dies` names."""

    def __init__(self, log, seconds=None, dies=(), fails=()):
        self.log, self.seconds, self.dies, self.fails = log, seconds or {}, dies, fails

    def prepare(self, request, timeout):
        self.log.append(("ready", request.key))
        self._die("ready", request.key)
        failure = Failure("run", "error", "no such thing", 0) if ("ready", request.key) in self.fails else None
        return Prepared(loops=10, clock=1e-7, failure=failure)

    def sample(self, request, timeout):
        self.log.append(("close" if not request.loops else "sample", request.key))
        self._die("sample", request.key)
        if ("sample", request.key) in self.fails:
            return Sampled(failure=Failure("run", "error", "the device is lost", 0))
        return Sampled(seconds=request.loops * self.seconds.get(request.key, 1.0))

    def _die(self, at, key):
        if (at, key) in self.dies:
            raise WorkerCrash("the worker was killed", "was killed")


def runners(worker, *names):
    return [Runner(name, worker, lambda: JOB) for name in names]


def test_all_are_ready_before_the_first_sample_and_then_take_turns():
    log = []
    taken = interleaved_rounds(runners(Diary(log, {"a": 2.0, "b": 3.0}), "a", "b"), 3, 1.0)
    turns = [("sample", "a"), ("sample", "b")]
    assert log == [("ready", "a"), ("ready", "b"), *turns * 3, ("close", "a"), ("close", "b")]
    assert {name: one.samples for name, one in taken.items()} == {"a": [2.0] * 3, "b": [3.0] * 3}
    assert not any(one.stopped for one in taken.values())


def test_rounds_that_take_long_end_when_there_are_enough(monkeypatch):
    monkeypatch.setattr(interleaved, "SECONDS", 0.0)
    taken = interleaved_rounds(runners(Diary([]), "a", "b"), interleaved.ENOUGH + 3, 1.0)
    assert [len(one.samples) for one in taken.values()] == [interleaved.ENOUGH] * 2
    assert (
        len(interleaved_rounds(runners(Diary([]), "a"), interleaved.ENOUGH - 2, 1.0)["a"].samples)
        == interleaved.ENOUGH - 2
    )


@pytest.mark.parametrize(("at", "why"), [("ready", "no such thing"), ("sample", "the device is lost")])
def test_one_that_fails_is_out_and_the_others_go_on(at, why):
    log = []
    taken = interleaved_rounds(runners(Diary(log, fails={(at, "a")}), "a", "b"), 3, 1.0)
    assert taken["a"].stopped == why
    assert log.count(("sample", "a")) == (at == "sample")
    assert len(taken["b"].samples) == 3


@pytest.mark.parametrize("at", ["ready", "sample"])
def test_a_worker_that_dies_takes_its_runners_along_and_no_others(at):
    log = []
    mortal, other = Diary(log, dies={(at, "b")}), Diary(log)
    taken = interleaved_rounds([*runners(mortal, "a", "b", "c"), *runners(other, "d")], 3, 1.0)
    assert taken["b"].stopped == "the worker was killed"
    assert taken["a"].stopped == taken["c"].stopped == "its worker ended with b: the worker was killed"
    assert len(taken["d"].samples) == 3
    assert ("close", "a") not in log


@pytest.mark.parametrize(
    ("error", "why"), [(Unsupported("no such operator"), "no such operator"), (KeyError("x"), "KeyError")]
)
def test_a_graph_that_cannot_be_had_costs_its_route_alone(error, why):
    def job():
        raise error

    worker = Diary([])
    taken = interleaved_rounds([Runner("a", worker, job), *runners(worker, "b")], 2, 1.0)
    assert why in taken["a"].stopped
    assert len(taken["b"].samples) == 2


def test_ctrl_c_passes_on():
    def job():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interleaved_rounds([Runner("a", Diary([]), job)], 2, 1.0)
