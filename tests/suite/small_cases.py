"""Cases of one node, written as text."""

from __future__ import annotations

import numpy as np
import onnx.parser

from actconform.suite.case import CaseData, SuiteCase, model_case

RELU = "(float[3] x) => (float[3] y) { y = Relu(x) }"
X = np.array([-1.5, 0.0, 2.5], np.float32)


def small_case(name: str, text: str = RELU, inputs=None, expected=None, opset: int = 17) -> SuiteCase:
    """Return a case of the graph `name` with one data set; without `expected` it ships no outputs."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> g {text}')
    model.graph.name = name
    inputs = {"x": X} if inputs is None else inputs
    return model_case(name, "node", model, lambda _: [CaseData(inputs, expected)])
