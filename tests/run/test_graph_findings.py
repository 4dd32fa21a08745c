"""What an exported graph shows without being run, as findings blamed on the exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from actconform.catalog.models.zoo import networks
from actconform.onnx.author.model import author_model
from actconform.onnx.subgraph import extract_subgraph
from actconform.run.graph_findings import drawing_findings, of_model
from actconform.testdata.model_tensors import draw_parameters
from actconform.types import Artifact, Blame, Finding

if TYPE_CHECKING:
    from actconform.types.model import Model

MODELS = {model.name: model for model in networks()}
STACK, CNN = MODELS["linear-stack"], MODELS["image-cnn-softmax2"]


def shipped(model: Model, **changed: Any) -> onnx.ModelProto:
    proto = onnx.load_from_string(extract_subgraph(author_model(model, "f32").model, ["y"]))
    parameters = {**draw_parameters(model), **{name.replace("_", "."): array for name, array in changed.items()}}
    names = [value.name for value in proto.graph.input if value.name in parameters]
    inputs = [value for value in proto.graph.input if value.name not in parameters]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.graph.initializer.extend(numpy_helper.from_array(parameters[name], name) for name in names)
    return proto


def findings(proto: onnx.ModelProto, model: Model = STACK) -> list[Finding]:
    artifact = Artifact(proto.SerializeToString(), 20, "converted")
    return of_model(artifact, model, ["y"], "f32", draw_parameters(model))


def test_a_healthy_graph_shows_nothing() -> None:
    assert findings(shipped(STACK)) == []
    assert findings(shipped(CNN), CNN) == []


def test_an_altered_parameter_is_named_with_the_element_and_both_numbers() -> None:
    bias = draw_parameters(STACK)["dense2.bias"].copy()
    bias[1] += np.float32(0.5)
    (finding,) = findings(shipped(STACK, dense2_bias=bias))
    assert (finding.class_, finding.tensor, finding.blame, finding.count) == (
        "scaled-error",
        "dense2.bias",
        Blame.EXPORTER,
        1,
    )
    assert f"[1]: {bias[1]:.9g} in the graph" in finding.evidence
    assert finding.magnitude > 1e5


def test_a_parameter_that_is_nowhere_is_as_wrong_as_another_number() -> None:
    (finding,) = findings(shipped(CNN, norm1_gamma=np.ones(5, np.float32)), CNN)
    assert finding.tensor == "norm1.gamma"
    assert finding.magnitude > 1e5


def test_a_norm_that_trains_and_an_epsilon_that_is_near_are_found() -> None:
    proto = shipped(CNN)
    for node in proto.graph.node:
        if node.op_type == "BatchNormalization":
            others = [attribute for attribute in node.attribute if attribute.name != "epsilon"]
            del node.attribute[:]
            node.attribute.extend([*others, helper.make_attribute("epsilon", 1.001e-3)])
            node.attribute.append(helper.make_attribute("training_mode", 1))
    trains, near = findings(proto, CNN)
    assert "statistics in inference" in trains.evidence
    assert near.tensor == "norm1.epsilon"
    assert {trains.class_, near.class_} == {"scaled-error"}


def test_a_graph_that_draws_is_not_deterministic_by_the_exporters_hand() -> None:
    proto = shipped(STACK)
    proto.graph.node.append(helper.make_node("RandomNormalLike", ["y"], ["n"]))
    proto.graph.node.append(helper.make_node("Add", ["y", "n"], ["z"]))
    proto.graph.output[0].name = "z"
    artifact = Artifact(proto.SerializeToString(), 20, "converted")
    (finding,) = drawing_findings(artifact, ["z"])
    assert (finding.class_, finding.blame) == ("nondeterministic", Blame.EXPORTER)
    assert drawing_findings(artifact, ["y"]) == []
