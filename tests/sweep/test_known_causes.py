"""Findings of a sweep are held against registered causes at a sample of their inputs."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import msgspec
import numpy as np
import pytest

from actconform.errors import SweepError
from actconform.exhaustive.measure import SweptFunction, measured_chunk
from actconform.plugin.loader import load_plugins
from actconform.sweep.known_causes import Explanations
from actconform.types import Case
from actconform.types.cause import Cause, Cover, Register
from actconform.types.finding import FindingClass
from actconform.workers.protocol import Failure, JobResult

CASE = Case("tanh", "value", "f32", "numpy")
FORMULA = Cause(id="halves", reason="", link="unreported", since="0.1", routes=("numpy",), covers=(
    Cover(class_=FindingClass.SCALED_ERROR, kernels=("tanh",)),
))  # fmt: skip


def right(x):
    with np.errstate(invalid="ignore"):
        return np.tanh(x.astype(np.float64)).astype(np.float32)


def halved(x):
    return np.where(x > 1.5, right(x) / 2, right(x)).astype(np.float32)


class Answering:
    def __init__(self, function):
        self.function, self.asked = function, np.empty(0)

    def run(self, job, timeout):
        (call,) = job.calls
        self.asked = call.inputs["x"]
        return JobResult(outputs=[{"y": self.function(self.asked)}])


@pytest.fixture(scope="module")
def catalog():
    return load_plugins(entry_points=[EntryPoint("core", "actconform.plugin.builtin:Builtin", "actconform")])


@pytest.fixture(scope="module")
def findings(catalog):
    statistics, _ = measured_chunk(SweptFunction.of(catalog.kernels["tanh"], "value"), 63, "sample", halved)
    return statistics.findings


def test_a_finding_is_explained_by_a_registered_cause(catalog, findings):
    worker = Answering(halved)
    covered = Explanations(catalog, Register((), (FORMULA,)), 1.0).explained(CASE, None, findings, worker, {})
    assert [(each.class_, each.interval, each.cause) for each in covered] == [
        ("scaled-error", findings[0].interval, "halves")
    ]
    assert 512 <= np.unique(worker.asked).size <= 513
    assert (worker.asked > 1.5).all()


def test_a_finding_of_vector_code_alone_is_explained_though_the_end_of_an_array_is_right(catalog, findings):
    def vectors_of_eight(x):
        whole = x.size // 8 * 8
        return np.concatenate([halved(x[:whole]), right(x[whole:])])

    last = findings[-1].interval[1]
    alone = [msgspec.structs.replace(findings[-1], interval=(last, last), worst=None)]
    explanations = Explanations(catalog, Register((), (FORMULA,)), 1.0)
    assert explanations.explained(CASE, None, alone, Answering(vectors_of_eight), {})


def test_without_a_cause_or_where_it_does_not_come_again_it_is_not(catalog, findings):
    assert Explanations(catalog, Register((), ()), 1.0).explained(CASE, None, findings, Answering(halved), {}) == []
    explanations = Explanations(catalog, Register((), (FORMULA,)), 1.0)
    assert explanations.explained(CASE, None, findings, Answering(right), {}) == []
    assert explanations.explained(CASE, None, [], Answering(right), {}) == []


def test_a_program_that_fails_there_is_told(catalog, findings):
    worker = Answering(right)
    worker.run = lambda job, timeout: JobResult(failure=Failure("run", "error", "no"))
    with pytest.raises(SweepError, match="tanh/value/f32/numpy, at the inputs of its findings: no"):
        Explanations(catalog, Register((), ()), 1.0).explained(CASE, None, findings, worker, {})
