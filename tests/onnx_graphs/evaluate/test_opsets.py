"""Graphs of opsets 7 to 15 evaluated at their own opset: every version of every operator that changed, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from tests.onnx_graphs.old_opsets import Graph, sweep


def is_left_open(graph: Graph) -> bool:
    """Say whether ONNX Runtime is no witness: Clip without a bound, and places that are ties but for the rounding of a scale."""
    attributes = graph.use.attributes
    places = attributes.get("coordinate_transformation_mode", "half_pixel")
    unbounded = graph.use.op_type == "Clip" and graph.version >= 11 and len(graph.feeds()) < 3
    tied = graph.use.op_type == "Resize" and attributes.get("mode") == "nearest" and "half_pixel" in places
    return unbounded or (tied and graph.version == 11 and np.float32(0.6) in graph.use.inputs[2])


GRAPHS = [graph for graph in sweep() if not is_left_open(graph)]


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_a_graph_has_the_values_of_its_opset(graph: Graph) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    model, feeds = graph.model().SerializeToString(), graph.feeds()
    expected = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    outputs: dict[str, Any] = dict(CorrectlyRoundedEvaluator(model).forward(feeds))
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs.values(), expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)
