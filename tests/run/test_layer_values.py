"""Layers of a graph, each seen by running the graph up to it: nothing is marked that a runtime would have fused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.comparison.layerwise import layerwise
from actconform.onnx.author.model import author_model
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.gates import io_names
from actconform.run.layer_values import call_with_inputs_of, layer_values, subgraph_to
from actconform.testdata.model_vectors import generate_model
from actconform.types import Case
from actconform.types.dtypes import DTYPES
from actconform.workers.protocol import Call, Failure, Job, JobResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.types.model import Model

MODELS = {model.name: model for model in networks()}
SMALL = [name for name in MODELS if PUBLISHED not in name]
STACK = MODELS["linear-stack"]


def pattern(model: Model) -> Job:
    """The job of a case, as the line makes it."""
    (vector,) = generate_model(model, "value", "f32", constants=False, regimes=["ordinary"]).vectors
    return Job(Case(model.name, "value", "f32", "authored+ideal"), None, [Call("ordinary", vector.inputs)])


def ideally(job: Job) -> JobResult:
    assert job.artifact is not None
    runtime = CorrectlyRoundedEvaluator(job.artifact.model)
    return JobResult(outputs=[runtime.forward(call.inputs) for call in job.calls])


class Asked:
    """A runtime that keeps its jobs; `refuse` says of a graph's output why there is no answer."""

    def __init__(self, refuse: Callable[[str], JobResult | None] = lambda _: None) -> None:
        self.jobs: list[Job] = []
        self.refuse = refuse

    def __call__(self, job: Job) -> JobResult:
        self.jobs.append(job)
        assert job.artifact is not None
        (output,) = io_names(job.artifact.model)[1]
        return self.refuse(output) or ideally(job)


@pytest.mark.parametrize("name", SMALL)
def test_every_layer_is_seen_and_has_the_value_that_it_should(name: str) -> None:
    model, job = MODELS[name], pattern(MODELS[name])
    seen = layer_values(model, author_model(model, "f32"), job, ideally)
    assert list(seen) == [layer.name for layer in model.layers]
    measurements, findings = layerwise(model, job.calls[0].inputs, seen, DTYPES["f32"], fused=True)
    assert findings == []
    assert len(measurements) == len(model.layers)


def test_each_layer_has_a_graph_of_its_own_that_ends_with_it_and_takes_what_it_needs() -> None:
    job, ask = pattern(STACK), Asked()
    layer_values(STACK, author_model(STACK, "f32"), job, ask)
    read = []
    for layer, one in zip(STACK.layers, ask.jobs, strict=True):
        assert one.case == job.case
        assert not one.intermediates
        assert one.artifact is not None
        inputs, outputs = io_names(one.artifact.model)
        assert outputs == [f"layer.{layer.name}"]
        (call,) = one.calls
        assert list(call.inputs) == inputs
        read.append(set(inputs))
    assert read[0] == {"x", "dense1.kernel", "dense1.bias"}
    assert read[1] == read[0] | {"dense2.kernel", "dense2.bias"}
    assert read[3] == {*job.calls[0].inputs}
    sizes = [len(onnx.load_from_string(one.artifact.model).graph.node) for one in ask.jobs if one.artifact]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize(
    "refusal",
    [
        JobResult(failure=Failure("load", "unsupported", "NOT_IMPLEMENTED")),
        JobResult(outputs=[{"layer.dense2": np.zeros((4, 7))}], failure=Failure("run", "error", "bad luck", 0)),
        JobResult(),
    ],
)
def test_a_layer_without_an_answer_is_left_out(refusal: JobResult) -> None:
    ask = Asked(lambda output: refusal if output == "layer.dense2" else None)
    seen = layer_values(STACK, author_model(STACK, "f32"), pattern(STACK), ask)
    assert list(seen) == ["dense1", "dense3", "loss"]


def test_what_a_runtime_gives_is_taken_as_it_is() -> None:
    def wrong(output: str) -> JobResult | None:
        return JobResult(outputs=[{"layer.elsewhere": np.zeros(3)}]) if output == "layer.dense1" else None

    seen = layer_values(STACK, author_model(STACK, "f32"), pattern(STACK), Asked(wrong))
    assert set(seen) == {"elsewhere", "dense2", "dense3", "loss"}


def test_a_graph_is_cut_to_what_its_outputs_need() -> None:
    whole = author_model(MODELS["regression-softmax-hidden"], "f32")
    part = subgraph_to(whole, ["y"])
    assert io_names(part.model)[1] == ["y"]
    assert "target" in io_names(whole.model)[0]
    assert "target" not in io_names(part.model)[0]
    assert (part.path, part.opset, part.warnings) == (whole.path, whole.opset, whole.warnings)
    assert len(io_names(whole.model)[1]) == 20  # and the whole one is as it was
    assert io_names(subgraph_to(whole, ["y", "loss"]).model)[1] == ["y", "loss"]


def test_a_cut_at_a_layer_that_the_graph_has_not_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no tensor 'layer\.dense4'; did you mean layer\.dense"):
        subgraph_to(author_model(STACK, "f32"), ["layer.dense4"])


def test_a_call_is_fed_in_the_order_of_the_graph_with_what_it_takes() -> None:
    artifact = subgraph_to(author_model(STACK, "f32"), ["layer.dense1"])
    inputs: dict[str, Any] = {name: np.zeros(1) for name in ("target", "dense1.bias", "dense1.kernel", "x", "other")}
    given = Call("ordinary", inputs, {"loss": np.ones(())})
    got = call_with_inputs_of(given, artifact)
    assert list(got.inputs) == io_names(artifact.model)[0] == ["x", "dense1.kernel", "dense1.bias"]
    assert (got.regime, got.cotangents) == (given.regime, given.cotangents)
    assert list(call_with_inputs_of(Call("ordinary", {"x": inputs["x"]}), artifact).inputs) == ["x"]
