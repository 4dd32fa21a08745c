"""Whose fault a training through graphs is where its end is wrong: the runtime's if the graph evaluates rightly, else the graph's."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest
from faulty_training import compared, trained

from actconform.onnx.author.model import author_model
from actconform.run.training_blame import blame_of_training
from actconform.types import Artifact, Blame, Case

NAME = "blobs-sgd"
AUTHORED, EXPORTED = (Case(NAME, "training", "f32", f"{exporter}+ort-cpu") for exporter in ("authored", "torch-dynamo"))


@pytest.fixture
def wrong():
    """A task, a record whose predictions are wrong, what that is judged as, and the right graph in inference."""
    task, record = trained(NAME)
    predictions = {name: array * np.float32(1.01) for name, array in record.predictions.items()}
    bad = msgspec.structs.replace(record, predictions=predictions)
    result = compared(NAME, bad)
    assert result.first.part == "inference"
    return task, bad, result.first, author_model(task.experiment.evaluation, "f32")


def scaled(artifact):
    """Return a graph whose logits, and so its loss, come out 1.01 times as large."""
    model = onnx.load_from_string(artifact.model)
    node = next(node for node in model.graph.node if "y" in node.output)
    readers = [each for each in model.graph.node if "y" in each.input]
    place = list(model.graph.node).index(node)
    node.output[:] = ["raw" if name == "y" else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.01), "factor"))
    model.graph.node.insert(place + 1, onnx.helper.make_node("Mul", ["raw", "factor"], ["y"]))
    for reader in readers:
        reader.input[:] = ["raw" if name == "y" else name for name in reader.input]
    return msgspec.structs.replace(artifact, model=model.SerializeToString())


def test_a_right_graph_is_not_to_blame_for_wrong_predictions(wrong):
    task, record, first, graph = wrong
    assert blame_of_training(AUTHORED, task, record, (Artifact(b"", 20, ""), graph), first) == Blame.RUNTIME


@pytest.mark.parametrize(("case", "blame"), [(AUTHORED, Blame.AUTHORED_GRAPH), (EXPORTED, Blame.EXPORTER)])
def test_a_graph_that_predicts_wrongly_itself_is_whose_it_is(wrong, case, blame):
    task, record, first, graph = wrong
    assert blame_of_training(case, task, record, (Artifact(b"", 20, ""), scaled(graph)), first) == blame


def test_without_a_graph_it_is_the_framework_and_without_a_wrong_step_nobody(wrong):
    task, record, first, graph = wrong
    assert blame_of_training(Case(NAME, "training", "f32", "torch"), task, record, None, first) == Blame.FRAMEWORK
    assert blame_of_training(AUTHORED, task, record, (graph, graph), None) == Blame.UNDETERMINED
