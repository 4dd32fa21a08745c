"""One node: its bounds, what ONNX Runtime makes of it, and how much of the bound an implementation needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from actconform.onnx.evaluate.computation import computation
from actconform.onnx.evaluate.error_bounds import Approximation, bounded_outputs

CONTRIB_DOMAIN = "com.microsoft"


def _wide(array: Any) -> Any:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


class Node(NamedTuple):
    """A node with the element types of its outputs."""

    proto: onnx.NodeProto
    output_types: list[int]
    opset: int

    def bounds(self, inputs, input_errors=None, observed=()):
        """The bounds of the outputs, the inputs being exact or within their errors."""
        given = iter(input_errors or [None] * len(inputs))
        approximations = [
            None if each is None else Approximation(_wide(each), error)
            for each, error in zip(inputs, given, strict=True)
        ]
        shown = [None if each is None else _wide(each) for each in observed]
        return bounded_outputs(self.computation(), self.output_types, approximations, shown)

    def computation(self):
        return computation(self.proto, self.opset)

    def real(self, inputs):
        """The outputs in float64, nothing rounded."""
        with np.errstate(all="ignore"):
            return computation(self.proto, self.opset).compute(
                [None if each is None else _wide(each) for each in inputs]
            )

    def runtime(self, inputs):
        """What ONNX Runtime gives, its optimizer off."""
        onnxruntime = pytest.importorskip("onnxruntime")
        named = {name: each for name, each in zip(self.proto.input, inputs, strict=True) if each is not None}
        values = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
            for name, each in named.items()
        ]
        ends = [
            helper.make_tensor_value_info(name, kind, None)
            for name, kind in zip(self.proto.output, self.output_types, strict=True)
            if name
        ]
        graph = helper.make_graph([self.proto], "node", values, ends)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(CONTRIB_DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = iter(session.run(None, named))
        return [next(results) if name else None for name in self.proto.output]


@pytest.fixture
def node():
    """Make a node: `node("Conv", 3, pads=[1, 1])` of three inputs, which gives one float32 output."""

    def make(op_type, inputs, *, output_types=(TensorProto.FLOAT,), opset=20, domain="", left_out=(), **attributes):
        names = ["" if i in left_out else f"x{i}" for i in range(inputs)]
        outputs = [f"y{i}" if kind else "" for i, kind in enumerate(output_types)]
        proto = helper.make_node(op_type, names, outputs, name="node", domain=domain, **attributes)
        return Node(proto, list(output_types), opset)

    return make


@pytest.fixture
def share():
    """How much of its bound an output needs: above 1 where it is off by more."""

    def of(result, bound):
        result = np.asarray(result)
        assert result.shape == np.shape(bound.value)
        if not result.size:
            return 0.0
        error = np.zeros(result.shape) if bound.error is None else np.broadcast_to(bound.error, result.shape)
        assert (error >= 0).all()
        value = np.asarray(bound.value, np.float64)
        wide = result.astype(np.float64)
        same = (wide == value) | (np.isnan(wide) & np.isnan(value))
        with np.errstate(all="ignore"):
            needed = np.where(same, 0.0, np.abs(wide - value) / error)
        return float(np.max(np.nan_to_num(needed, nan=np.inf, posinf=np.inf)))

    return of


@pytest.fixture
def passes_on(share):
    """Check that outputs of inputs within their errors stay within the bounds, and that these are not idle."""

    def check(node, inputs, relative=1e-3, skipped=(), draws=8):
        rng = np.random.default_rng(5)
        input_errors = [
            None if each is None or each.dtype.kind != "f" or i in skipped else relative * np.abs(_wide(each))
            for i, each in enumerate(inputs)
        ]
        bounds = node.bounds(inputs, input_errors)
        for _ in range(draws):
            moved = [
                each if error is None else _wide(each) + 0.999 * error * np.sign(rng.standard_normal(each.shape))
                for each, error in zip(inputs, input_errors, strict=True)
            ]
            for result, bound in zip(node.real(moved), bounds, strict=False):
                assert share(result, bound) <= 1.0
        return bounds

    return check
