"""One node of an operator that ONNX Runtime adds to the standard: evaluated, bounded, and run in ONNX Runtime alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from bounded_nodes import wide, worst
from onnx import helper, numpy_helper

from actconform.onnx.evaluate.computation import computation
from actconform.onnx.evaluate.element_types import STORAGE, held, output_types
from actconform.onnx.evaluate.error_bounds import Approximation, bounded_outputs

MICROSOFT = "com.microsoft"


@dataclass
class Case:
    """A node: its operator, inputs (None: left out) and attributes; `outputs` many, or their names, "" for one left out."""

    op_type: str
    inputs: list
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: Any = 1
    domain: str = MICROSOFT
    opset: int = 17

    def __str__(self):
        stated = [f"{len([x for x in self.inputs if x is not None])}-inputs"]
        return "-".join([self.op_type, *stated, *(f"{name}={value}" for name, value in self.attributes.items())])


def node_of(case):
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(case.inputs)]
    outputs = [f"y{i}" for i in range(case.outputs)] if isinstance(case.outputs, int) else case.outputs
    return helper.make_node(case.op_type, names, outputs, domain=case.domain, **case.attributes)


def kinds_of(case):
    """Return the element types of inputs and outputs."""
    taken = [0 if x is None else helper.np_dtype_to_tensor_dtype(x.dtype) for x in case.inputs]
    return taken, output_types(node_of(case), case.opset, taken)


def held_inputs(case):
    return [None if x is None else held(x, kind) for x, kind in zip(case.inputs, kinds_of(case)[0], strict=True)]


def evaluated(case):
    """Return the outputs that have a name."""
    node = node_of(case)
    results = computation(node, case.opset).compute(held_inputs(case))
    return [np.asarray(result) for name, result in zip(node.output, results, strict=False) if name]


def bounded(case, observed=()):
    node, (_, kinds) = node_of(case), kinds_of(case)
    inputs = [None if x is None else Approximation(x) for x in held_inputs(case)]
    results = bounded_outputs(computation(node, case.opset), kinds, inputs, observed)
    return [result for name, result in zip(node.output, results, strict=False) if name]


def run(case, threads=1):
    """Return what ONNX Runtime on the CPU makes of the node, nothing optimized."""
    node, (_, kinds) = node_of(case), kinds_of(case)
    inputs = {name: x for name, x in zip(node.input, case.inputs, strict=True) if name}
    given = {name: x for name, x in inputs.items() if not x.dtype.name.endswith("int4")}
    constants = [numpy_helper.from_array(x, name) for name, x in inputs.items() if name not in given]
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in given.items()
    ]
    results = [
        helper.make_tensor_value_info(name, kind, None) for name, kind in zip(node.output, kinds, strict=True) if name
    ]
    graph = helper.make_graph([node], "node", values, results, constants)
    imports = [helper.make_opsetid("", case.opset), helper.make_opsetid(MICROSOFT, 1)]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    model = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, given)


def expect_within_bounds(case, threads=1):
    """Assert that ONNX Runtime gives every output in its element type, within its bound; return the worst share of a bound."""
    got = run(case, threads)
    kinds = [kind for kind in kinds_of(case)[1] if kind]
    shown = [wide(y) if y.dtype.kind == "f" else y for y in got]
    for value, result in zip(evaluated(case), bounded(case), strict=True):
        np.testing.assert_allclose(wide(result.value), wide(value), rtol=1e-12, atol=1e-12)
    results = bounded(case, shown)  # recurrent layers are judged from the states that they show
    for y, kind, result in zip(got, kinds, results, strict=True):
        assert y.dtype == STORAGE[kind]
        assert worst(y, result) <= 1.0
    return max(worst(y, result) for y, result in zip(got, results, strict=True))
