"""Tensors and attributes with an ordinary number in place of what is NaN or infinite: to see what these spoil."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper

INSTEAD = 0.5  # in the domain of logarithms, roots and divisions


def finite_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return a tensor of floats with INSTEAD where it is NaN or infinite, without its name."""
    array = numpy_helper.to_array(tensor)
    number = np.full((), INSTEAD).astype(array.dtype)
    return numpy_helper.from_array(np.where(np.isfinite(array), array, number))


def make_attributes_finite(node: onnx.NodeProto) -> None:
    """Write INSTEAD into the float attributes of a node, tensors among them, where they are NaN or infinite."""
    for attribute in node.attribute:
        if attribute.HasField("f") and not math.isfinite(attribute.f):
            attribute.f = INSTEAD
        elif attribute.floats:
            attribute.floats[:] = [number if math.isfinite(number) else INSTEAD for number in attribute.floats]
        elif attribute.HasField("t") and attribute.t.data_type != onnx.TensorProto.STRING:
            attribute.t.CopyFrom(finite_tensor(attribute.t))
