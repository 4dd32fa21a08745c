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
from actconform.sweep.row_sample import swept_rows
from actconform.types import Case
from actconform.types.cause import Cause, Cover, Register
from actconform.types.finding import FindingClass
from actconform.workers.protocol import Failure, JobResult

CASE = Case("tanh", "value", "f32", "numpy")
ROWS, PAIRS = Case("softmax", "value", "f32", "numpy"), Case("prelu", "gradient", "f32", "numpy")


def cause(**cover):
    covers = (Cover(class_=FindingClass.SCALED_ERROR, **cover),)
    return Cause(id="halves", reason="", link="unreported", since="0.1", routes=("numpy",), covers=covers)


FORMULA = cause(kernels=("tanh",))


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


def softmax(x):
    raised = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return {"y": (raised / raised.sum(axis=-1, keepdims=True)).astype(np.float32)}


def softmax_halved(x):
    y = softmax(x)["y"]
    return {"y": np.where(x > 0, y / 2, y).astype(np.float32)}


def softmax_halved_or_nan(x):
    y = softmax_halved(x)["y"]
    y[:, 1] = np.nan
    return {"y": y}


def prelu_halved(x, slope, g):
    with np.errstate(all="ignore"):
        d_x = np.where(x > 0, g, g * slope) / 2
        return {"d_x": d_x, "d_slope": np.where(x > 0, 0, g * x).sum(axis=0) / 2}


class Program:
    """A worker of rows and pairs, and how many calls it was asked."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def run(self, job, timeout):
        self.calls += len(job.calls)
        cotangents = [{"g": call.cotangents["y"]} if call.cotangents else {} for call in job.calls]
        return JobResult(
            outputs=[self.function(**call.inputs, **g) for call, g in zip(job.calls, cotangents, strict=True)]
        )


def chunk_of(catalog, case, function, number=63):
    return swept_rows(Program(function), catalog.kernels[case.subject], case, None, number, 1.0)


def explained_rows(catalog, causes, case, chunks, worker):
    covered = Explanations(catalog, Register((), causes), 1.0).explained_rows(case, None, chunks, worker, {})
    return [(each.class_, each.tensor, each.interval, each.cause) for each in covered]


def test_findings_of_a_sample_are_explained_and_only_their_chunks_are_asked_again(catalog):
    chunks = [chunk_of(catalog, ROWS, softmax, 62), chunk_of(catalog, ROWS, softmax_halved)]
    (finding,) = chunks[1].statistics.findings
    worker = Program(softmax_halved)
    covered = explained_rows(catalog, (cause(kernels=("softmax",)),), ROWS, chunks, worker)
    assert covered == [("scaled-error", "y", finding.interval, "halves")]
    assert worker.calls == 3


def test_a_finding_of_a_sample_without_a_cause_or_that_does_not_come_again_is_not(catalog):
    chunks = [chunk_of(catalog, ROWS, softmax_halved)]
    assert explained_rows(catalog, (), ROWS, chunks, Program(softmax_halved)) == []
    assert explained_rows(catalog, (FORMULA,), ROWS, chunks, Program(softmax_halved)) == []
    assert explained_rows(catalog, (cause(kernels=("softmax",)),), ROWS, chunks, Program(softmax)) == []


def test_of_a_sample_each_class_and_each_tensor_needs_a_cause(catalog):
    chunks = [chunk_of(catalog, ROWS, softmax_halved_or_nan)]
    assert {each.class_ for each in chunks[0].statistics.findings} == {"scaled-error", "nan-made"}
    covered = explained_rows(catalog, (cause(kernels=("softmax",)),), ROWS, chunks, Program(softmax_halved_or_nan))
    assert {each[0] for each in covered} == {"scaled-error"}
    chunks = [chunk_of(catalog, PAIRS, prelu_halved, 63 + 128)]
    assert {(each.class_, each.tensor) for each in chunks[0].statistics.findings} == {
        ("scaled-error", "d_x"),
        ("scaled-error", "d_slope"),
    }
    of_slope = cause(aspect="gradient", kernels=("prelu",), tensors=("d_slope",))
    covered = explained_rows(catalog, (of_slope,), PAIRS, chunks, Program(prelu_halved))
    assert {each[:2] for each in covered} == {("scaled-error", "d_slope")}


def test_a_program_that_fails_at_a_sample_is_an_error(catalog):
    worker = Program(softmax)
    worker.run = lambda job, timeout: JobResult(failure=Failure("run", "error", "no"))
    with pytest.raises(SweepError, match="softmax/value/f32/numpy, chunk 63: no"):
        explained_rows(catalog, (), ROWS, [chunk_of(catalog, ROWS, softmax_halved)], worker)
