"""The steps of a training in a worker: the state of one goes into the next, numbers that are not finite end it, faults are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import parser

from actconform import Artifact, Backend, Program
from actconform.plugin.loader import load_plugins
from actconform.types import Case
from actconform.workers.session import Session
from actconform.workers.step_session import StepJob, StepSession

HEAD = '<ir_version: 9, opset_import: ["" : 18]>\n'
STEP = "g (float[n] x, float[2] w, int64 step, float learning_rate) => (float loss, float[2] next_w) { loss = Identity (learning_rate) next_w = Identity (w) }"
INFERENCE = "g (float[n] x, float[2] w) => (float loss, float[n] y) { loss = ReduceSum (x) y = Identity (x) }"
CASE = Case("model", "value", "f32", "authored+sums")


def artifact(text: str) -> Artifact:
    model = parser.parse_model(HEAD + text).SerializeToString()
    return Artifact(model.replace(b"next_w", b"next/w"), 18, "model")  # the parser takes no slash


class Sums(Program):
    """A step that adds rate and batch to its weights; its loss is the sum of the weights."""

    def __init__(self, log: list[Any]) -> None:
        self.log, self.closed = log, False
        self.implementation = "sums"

    def forward(self, inputs: Any) -> Any:
        self.log.append({name: np.array(array) for name, array in inputs.items()})
        if "step" not in inputs:
            return {"loss": inputs["x"].sum() + inputs["w"].sum(), "y": inputs["x"]}
        with np.errstate(over="ignore"):
            after = inputs["w"] + inputs["learning_rate"] + inputs["x"].sum()
            return {"loss": inputs["w"].sum(), "next/w": after}

    def close(self) -> None:
        self.closed = True


class Runtime(Backend):
    name, kind = "sums", "runtime"

    def __init__(self) -> None:
        self.programs: list[Sums] = []
        self.log: list[Any] = []

    def facts(self) -> dict[str, str]:
        return {}

    def load(self, artifact: Artifact, dtype: str) -> Program:
        if artifact.path == "refused":
            raise RuntimeError("no such graph")
        self.programs.append(Sums(self.log))
        return self.programs[-1]


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def session(runtime: Runtime) -> StepSession:
    return StepSession(Session(runtime, load_plugins(entry_points=[])))


def begin(**more: Any) -> StepJob:
    graphs = {"step": artifact(STEP), "inference": artifact(INFERENCE), "output": "y"}
    return StepJob(case=CASE, state={"w": np.zeros(2, np.float32)}, **{**graphs, **more})


def batches(*sums: float) -> dict[str, Any]:
    rates = [0.5 * (k + 1) for k in range(len(sums))]
    return {"batches": [{"x": np.array([total], np.float32)} for total in sums], "rates": rates}


def test_the_state_of_a_step_goes_into_the_next_one_and_into_the_next_job(session, runtime):
    first = session.run(begin(**batches(1.0, 2.0)))
    second = session.run(StepJob(case=CASE, first=3, **batches(4.0), give_state=True))
    assert first.failure is None
    assert first.losses.tolist() == [0.0, 3.0]
    assert second.losses.tolist() == [9.0]
    assert second.state["w"].tolist() == [9.0, 9.0]
    assert [(int(call["step"]), float(call["learning_rate"])) for call in runtime.log] == [(1, 0.5), (2, 1.0), (3, 0.5)]
    assert (first.implementation, first.state) == ("sums", {})
    assert all(call[name].dtype == np.float32 for call in runtime.log for name in ("x", "w", "learning_rate"))


def test_batches_are_evaluated_with_the_state_after_the_steps(session):
    result = session.run(
        begin(**batches(1.0), evaluated=[{"x": np.ones(3, np.float32)}, {"x": np.ones(1, np.float32)}])
    )
    assert result.evaluations.tolist() == [6.0, 4.0]
    np.testing.assert_array_equal(result.output, np.ones(3))


@pytest.mark.parametrize(
    ("sums", "tensor", "index", "losses"),
    [([1.0, np.inf, 1.0], "w", (0,), 2), ([1.0, 3e38, 1.0, 1.0], "loss", (), 3)],
)
def test_a_number_that_is_not_finite_ends_the_steps_and_the_state_before_it_stays(session, sums, tensor, index, losses):
    result = session.run(begin(**batches(*sums), evaluated=[{"x": np.ones(1, np.float32)}], give_state=True))
    assert (result.broken.step, result.broken.tensor, result.broken.index) == (losses, tensor, index)
    assert result.broken.value == np.inf
    assert len(result.losses) == losses
    assert result.evaluations is None
    assert np.isfinite(result.state["w"]).all()


def test_another_training_takes_the_place_of_the_one_that_is_loaded(session, runtime):
    session.run(begin())
    session.run(begin(**batches(1.0)))
    assert [program.closed for program in runtime.programs] == [True, True, False, False]


def test_what_fails_is_told_and_leaves_nothing_open(session, runtime):
    nothing = session.run(StepJob(case=CASE, **batches(1.0)))
    assert "no graph of a step is loaded" in nothing.failure.message
    refused = session.run(begin(inference=Artifact(b"", 18, "refused")))
    assert (refused.failure.stage, "no such graph" in refused.failure.message) == ("load", True)
    assert [program.closed for program in runtime.programs] == [True]
    missing = session.run(begin(**batches(1.0), output="z", evaluated=[{"x": np.ones(1, np.float32)}]))
    assert missing.failure.stage == "run"
