"""Which output is right, computed a second time by others: the texts of these functions are copied into programs that stand alone."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from actconform.onnx.widen import widened


def in_double(model: onnx.ModelProto, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs as onnx's reference evaluator computes them with every float in float64."""
    evaluator = ReferenceEvaluator(onnx.load_model_from_string(widened(model.SerializeToString())))
    feeds = {name: array if array.dtype.kind in "biu" else array.astype(np.float64) for name, array in inputs.items()}
    with np.errstate(all="ignore"):
        return dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))


def exact_product(model: onnx.ModelProto, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the output of a graph of one MatMul or Gemm, summed in rational numbers and rounded once to float64."""
    (node,) = model.graph.node
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer} | inputs
    exact = [np.vectorize(_fraction, otypes=[object])(tensors[name]) for name in node.input if name]
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    left, right = exact[:2]
    if node.op_type == "Gemm":
        left = left.T if attributes.get("transA") else left
        right = right.T if attributes.get("transB") else right
    product = np.matmul(left, right)
    if node.op_type == "Gemm":
        product = product * Fraction(float(attributes.get("alpha", 1.0)))
        if len(exact) > 2:
            product = product + exact[2] * Fraction(float(attributes.get("beta", 1.0)))
    return {node.output[0]: np.asarray(product).astype(np.float64)}


def _fraction(number: Any) -> Fraction:
    return Fraction(float(number))
