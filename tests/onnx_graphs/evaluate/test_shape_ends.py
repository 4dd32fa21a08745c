"""Shape between two axes, at every start and end, against ONNX Runtime: onnx's reference counts an end far below 0 from the wrong side."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import TensorProto, helper

from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator

ENDS = (None, *range(-5, 6))


@pytest.mark.parametrize("rank", range(4))
def test_ends_are_clamped_to_the_axes_that_there_are(rank):
    onnxruntime = pytest.importorskip("onnxruntime")
    nodes = []
    for number, (start, end) in enumerate(itertools.product(ENDS, ENDS)):
        stated = {name: place for name, place in (("start", start), ("end", end)) if place is not None}
        nodes.append(helper.make_node("Shape", ["x"], [f"y{number}"], **stated))
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.INT64, [None]) for node in nodes]
    x = np.zeros(tuple(range(2, 2 + rank)), np.float32)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    graph = helper.make_graph(nodes, "shapes", [value], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = dict(zip([output.name for output in outputs], session.run(None, {"x": x}), strict=True))
    got = CorrectlyRoundedEvaluator(model).forward({"x": x})
    for name, shape in expected.items():
        assert got[name].tolist() == shape.tolist(), name
        assert got[name].dtype == np.int64
