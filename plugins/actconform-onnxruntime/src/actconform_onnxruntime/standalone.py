"""How ONNX Runtime runs a graph, for a program that stands alone: the text of this file is copied into it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnxruntime

PROVIDER = "CPUExecutionProvider"
LEVELS = {"disabled": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}


def run(model: str, inputs: dict[str, Any], level: str) -> dict[str, Any]:
    """Return the outputs by name; `level` is one of LEVELS, "without NAME, NAME" of optimizers, or "" for the default."""
    if PROVIDER == "CUDAExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    extra = {}
    if level.startswith("without "):
        extra["disabled_optimizers"] = level.removeprefix("without ").split(", ")
    elif level:
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{LEVELS[level]}")
    session = onnxruntime.InferenceSession(model, options, providers=[PROVIDER], **extra)
    names = [output.name for output in session.get_outputs()]
    if all("bfloat16" not in value.type for value in (*session.get_inputs(), *session.get_outputs())):
        return dict(zip(names, session.run(names, inputs), strict=True))
    values = session.run_with_ort_values(names, {name: _to_ort(array) for name, array in inputs.items()})
    return dict(zip(names, map(_from_ort, values), strict=True))


def _to_ort(array: Any) -> Any:
    if array.dtype.name != "bfloat16":
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), 16)  # TensorProto.BFLOAT16


def _from_ort(value: Any) -> Any:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    import ml_dtypes

    shape = tuple(value.shape())
    bits = (ctypes.c_uint16 * int(np.prod(shape))).from_address(value.data_ptr())
    return np.ctypeslib.as_array(bits).copy().view(ml_dtypes.bfloat16).reshape(shape)
