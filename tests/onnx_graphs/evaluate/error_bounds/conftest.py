"""One node: its bounds, what ONNX Runtime makes of it, and how much of the bound an implementation needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import bounded_nodes
import numpy as np
import pytest

from actconform.onnx.evaluate.computation import computation


class Node(NamedTuple):
    """A node without its inputs; `output_types` are the element types of its outputs."""

    op_type: str
    output_types: tuple[int, ...]
    opset: int
    attributes: dict[str, Any]

    def bounds(self, inputs, input_errors=(), observed=()):
        """The bounds of the outputs, the inputs being exact or within their errors."""
        given = {"kinds": self.output_types, "opset": self.opset, "errors": input_errors, "observed": observed}
        return bounded_nodes.bounds(self.op_type, *inputs, **given, **self.attributes)

    def real(self, inputs):
        """The outputs in float64, nothing rounded."""
        proto = bounded_nodes.node_of(self.op_type, inputs, len(self.output_types), **self.attributes)
        with np.errstate(all="ignore"):
            return computation(proto, self.opset).compute(
                [None if each is None else bounded_nodes.wide(each) for each in inputs]
            )

    def runtime(self, inputs):
        """What ONNX Runtime gives, its optimizer off."""
        return bounded_nodes.run(self.op_type, *inputs, kinds=self.output_types, opset=self.opset, **self.attributes)


@pytest.fixture
def node():
    """Make a node: `node("Conv", pads=[1, 1])`, which gives one float32 output."""

    def make(op_type, *, output_types=(bounded_nodes.F32,), opset=20, **attributes):
        return Node(op_type, tuple(output_types), opset, attributes)

    return make


@pytest.fixture
def share():
    """How much of its bound an output needs: above 1 where it is off by more."""
    return bounded_nodes.worst


@pytest.fixture
def passes_on(share):
    """Check that outputs of inputs within their errors stay within the bounds."""

    def check(node, inputs, relative=1e-3, skipped=(), draws=8):
        rng = np.random.default_rng(5)
        input_errors = [
            None
            if each is None or each.dtype.kind != "f" or i in skipped
            else relative * np.abs(bounded_nodes.wide(each))
            for i, each in enumerate(inputs)
        ]
        bounds = node.bounds(inputs, input_errors)
        for _ in range(draws):
            moved = [
                each if error is None else bounded_nodes.moved(rng, bounded_nodes.wide(each), 0.999 * error)
                for each, error in zip(inputs, input_errors, strict=True)
            ]
            for result, bound in zip(node.real(moved), bounds, strict=False):
                assert share(result, bound) <= 1.0
        return bounds

    return check
