"""The estimate counts weights as often as they are held, and of the other tensors those that are needed at once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from actconform.checking.memory import BASE, COPIES, HELD, TRUTH, estimated_bytes, weight_bytes

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
SHAPES = dict.fromkeys("xabcdy", (5, 20))


@pytest.mark.parametrize(
    ("nodes", "at_once"),
    [
        ("a = Relu(x) b = Relu(a) c = Relu(b) d = Relu(c) y = Relu(d)", 2),
        ("a = Relu(x) b = Relu(a) c = Relu(b) d = Relu(c) y = Add(d, x)", 3),
        ("a = Relu(x) b = Relu(x) c = Relu(x) d = Relu(x) e = Add(a, b) f = Add(c, d) y = Add(e, f)", 5),
        ("a = Relu(x) b = Relu(a) y = Relu(b) c = Relu(y) d = Relu(c)", 3),
    ],
)
def test_tensors_count_while_they_are_needed(nodes, at_once):
    graph = onnx.parser.parse_model(f"{HEAD}g (float[5, 20] x) => (float[5, 20] y) {{ {nodes} }}").graph
    assert estimated_bytes(7, graph, SHAPES) == BASE + 7 + at_once * 100 * TRUTH * HELD


def test_weights_count_as_they_are_stored_and_in_float64():
    tensors = [
        helper.make_tensor("w", TensorProto.FLOAT16, [10], np.zeros(10)),
        helper.make_tensor("i", TensorProto.INT8, [10], [0] * 10),
    ]
    graph = helper.make_graph([], "g", [], [], tensors)
    assert weight_bytes(helper.make_model(graph)) == COPIES * (20 + 10) + TRUTH * 10
