"""A training down its line, with a worker that trains in this process: natively by the definition, or by the graph of a step."""

from __future__ import annotations

import contextlib

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from study_trainer import DefinitionTrainer

from actconform import Backend
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.plugin.loader import load_plugins
from actconform.plugin.training_loop import train
from actconform.run.case import CaseContext, VectorCache
from actconform.run.training_case import run_training
from actconform.testdata.golden.store import golden_dir, read_manifest
from actconform.types import Blame, Case
from actconform.types.cause import Register
from actconform.workers.protocol import Failure
from actconform.workers.training_session import do_training

CATALOG = load_plugins()
NATIVE = Case("blobs-nesterov", "training", "f32", "torch")
AUTHORED = Case("blobs-nesterov", "training", "f32", "authored+ort-cpu")


class Definition(Backend):
    """A framework that trains as the definition does; `trainer` may be one that does not."""

    name, kind = "torch", "framework"
    trainer = DefinitionTrainer

    def facts(self):
        return {}

    def train(self, task):
        return train(self.trainer(task), task)


class Evaluator(Backend):
    """A runtime that evaluates graphs node by node, each rounded to nearest; `changed` may change a graph, `program` what runs it."""

    name, kind = "ort-cpu", "runtime"

    def __init__(self, changed=lambda graph: graph, outputs=lambda outputs: outputs):
        self._changed, self._outputs = changed, outputs

    def facts(self):
        return {}

    def load(self, artifact, dtype, level=""):
        program = CorrectlyRoundedEvaluator(self._changed(artifact.model))
        forward, outputs = program.forward, self._outputs
        program.forward = lambda inputs: outputs(forward(inputs))
        return program


class Worker:
    """A worker in this process: of a session it needs what takes a case."""

    def __init__(self, backend):
        self.backend = backend

    def taking(self, case):
        return self.backend

    def train(self, job, timeout):
        return do_training(self, job)


def outcome_of(case, backend):
    cache = VectorCache(golden_dir(), read_manifest(golden_dir()))
    context = CaseContext(CATALOG, Register(), 60.0, cache, Worker(backend), None, {})
    return run_training(case, context, lambda _: contextlib.nullcontext())


def places(outcome):
    return {(finding.regime, finding.tensor) for finding in outcome.findings}


def test_the_definition_trains_without_a_finding_and_leaves_a_curve():
    outcome = outcome_of(NATIVE, Definition())
    assert outcome.failure is None
    assert outcome.findings == []
    assert {m.regime for m in outcome.measurements} >= {
        "loss",
        "gradient",
        "optimizer",
        "free running",
        "inference",
    } - {"gradient"}
    assert len(outcome.curve.losses) == 2
    assert outcome.curve.losses[-1] < outcome.curve.losses[0]
    assert outcome.curve.wrong_step == 0
    assert outcome.implementation == "the definition"


def test_a_framework_that_updates_otherwise_is_to_blame_and_the_first_step_is_named():
    class Slower(DefinitionTrainer):
        def step(self, batch, number):
            loss = super().step(batch, number)
            if number >= 4:
                self._state["dense2.kernel"] = self._state["dense2.kernel"] + np.float32(1e-4)
            return loss

    class SlowDefinition(Definition):
        trainer = Slower

    outcome = outcome_of(NATIVE, SlowDefinition())
    wrong = [finding for finding in outcome.findings if finding.regime == "optimizer"]
    assert {finding.tensor for finding in wrong} == {"dense2.kernel"}
    assert {finding.blame for finding in outcome.findings} == {Blame.FRAMEWORK}
    assert "first at step 5, optimizer: dense2.kernel" in wrong[0].evidence
    assert outcome.curve.wrong_step == 5


def test_a_runtime_trains_by_the_graph_of_a_step():
    outcome = outcome_of(AUTHORED, Evaluator())
    assert outcome.failure is None
    assert outcome.findings == []
    assert {m.regime for m in outcome.measurements} >= {"loss", "gradient", "optimizer", "free running", "inference"}


def test_a_runtime_that_computes_the_graph_otherwise_is_to_blame():
    def off(outputs):
        return {
            name: array * np.float32(1.001) if name == "d_dense1.kernel" else array for name, array in outputs.items()
        }

    outcome = outcome_of(AUTHORED, Evaluator(outputs=off))
    assert ("gradient", "d_dense1.kernel") in places(outcome)
    assert {finding.blame for finding in outcome.findings} == {Blame.RUNTIME}


def with_momentum(graph, value):
    """Return a graph of a step in which every constant 0.9 is another number."""
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        if (
            tensor.data_type == onnx.TensorProto.FLOAT
            and not tensor.dims
            and abs(numpy_helper.to_array(tensor) - 0.9) < 1e-6
        ):
            tensor.CopyFrom(numpy_helper.from_array(np.array(value, np.float32), tensor.name))
    return model.SerializeToString()


def test_a_graph_that_is_wrong_itself_is_ours_where_its_optimizer_is(monkeypatch):
    from actconform.run import training_case

    healthy = training_case.training_graph
    monkeypatch.setattr(training_case, "training_graph", lambda *given: with_momentum(healthy(*given), 0.8))
    outcome = outcome_of(AUTHORED, Evaluator())
    assert any(regime == "optimizer" for regime, _ in places(outcome))
    assert {finding.blame for finding in outcome.findings} == {Blame.AUTHORED_GRAPH}


def test_a_framework_that_does_not_train_is_a_failure_in_its_words():
    class Untrained(Definition):
        def train(self, task):
            return Backend.train(self, task)

    failure = outcome_of(NATIVE, Untrained()).failure
    assert (failure.kind, failure.message) == ("unsupported", "torch trains no models")


@pytest.mark.parametrize("returned", [None, {"losses": []}])
def test_what_is_no_record_is_a_failure(returned):
    class Wrong(Definition):
        def train(self, task):
            return returned

    failure = outcome_of(NATIVE, Wrong()).failure
    assert isinstance(failure, Failure)
    assert failure.kind == "error"
    assert "wanted an actconform TrainingRecord" in failure.message


def test_a_claim_that_fails_where_every_step_is_right_is_blamed_on_nobody():
    class Still(DefinitionTrainer):
        def step(self, batch, number):
            return super().step(batch, number) if number < 20 else 3.0

    class Stopping(Definition):
        trainer = Still

    case = msgspec.structs.replace(NATIVE, subject="blobs-adam")
    claims = [finding for finding in outcome_of(case, Stopping()).findings if finding.regime == "claims"]
    assert {finding.tensor for finding in claims} == {"loss", "accuracy"}
    assert {finding.blame for finding in claims} == {Blame.UNDETERMINED}
