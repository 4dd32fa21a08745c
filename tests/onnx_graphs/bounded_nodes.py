"""One node, bounded and run: what the tests of error bounds share."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from actconform.onnx.evaluate.computation import computation
from actconform.onnx.evaluate.element_types import STORAGE
from actconform.onnx.evaluate.error_bounds import Approximation, bounded_outputs

F32, F16, BF16, F64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
DTYPES = {F32: np.float32, F16: np.float16, BF16: ml_dtypes.bfloat16}


def node_of(op_type, inputs, outputs=1, domain="", **attributes):
    names = [None if x is None else f"x{i}" for i, x in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    return helper.make_node(op_type, [name or "" for name in names], results, domain=domain, **attributes)


def wide(array):
    array = np.asarray(array)
    return array.astype(np.float64) if array.dtype.kind not in "iub" else array


def bounds(op_type, *inputs, kinds=(F32,), opset=22, errors=(), observed=(), **attributes):
    """Return the approximations of the outputs, of which `kinds` are the element types, with `errors` of the first inputs.

    `observed` is what a run shows of the outputs.
    """
    node = node_of(op_type, inputs, len(kinds), **attributes)
    padded = [*errors, *[None] * (len(inputs) - len(errors))]
    approximations = [
        None if x is None else Approximation(wide(x), None if error is None else np.asarray(error, float))
        for x, error in zip(inputs, padded, strict=True)
    ]
    shown = [None if each is None else wide(each) for each in observed]
    return bounded_outputs(computation(node, opset), kinds, approximations, shown)


def run(op_type, *inputs, kinds=(F32,), opset=22, **attributes):
    """Return what ONNX Runtime makes of the node alone, nothing optimized; inputs in their own dtypes."""
    node = node_of(op_type, inputs, len(kinds), **attributes)
    given = {f"x{i}": np.asarray(x) for i, x in enumerate(inputs) if x is not None}
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in given.items()
    ]
    results = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(node.output, kinds, strict=True)]
    graph = helper.make_graph([node], "node", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
        None, given
    )


def worst(got, bound):
    """Return the largest error of `got` in units of the bound; infinite where it must be exact and is not, or is of another class."""
    got, value = wide(got).astype(np.float64), wide(bound.value).astype(np.float64)
    assert got.shape == value.shape
    with np.errstate(all="ignore"):
        same = (got == value) | (np.isnan(got) & np.isnan(value))
        error = np.where(same, 0.0, np.abs(got - value))
        allowed = np.broadcast_to(0.0 if bound.error is None else bound.error, value.shape)
        ratio = np.where(error == 0.0, 0.0, np.where(np.isinf(allowed), 0.0, error / allowed))
    return float(np.nan_to_num(ratio, nan=np.inf, posinf=np.inf).max(initial=0.0))


def rounded_to(kind, array):
    return np.asarray(array).astype(STORAGE[kind])


def moved(rng, x, error):
    """Return x moved within its error, to either end half of the time."""
    side = np.where(
        rng.random(np.shape(x)) < 0.5, np.sign(rng.random(np.shape(x)) - 0.5), rng.uniform(-1, 1, np.shape(x))
    )
    return x + side * np.broadcast_to(error, np.shape(x))


def values(op_type, *inputs, outputs=1, opset=22, **attributes):
    """Return the real function of float64 inputs."""
    node = node_of(op_type, inputs, outputs, **attributes)
    with np.errstate(all="ignore"):
        return computation(node, opset).compute(inputs)
