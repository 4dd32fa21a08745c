"""How OpenVINO runs a graph, for a program that stands alone: the text of this file is copied into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import openvino

OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_NUM_THREADS": 1}


def run(model: str, inputs: dict[str, Any], level: str) -> dict[str, Any]:  # noqa: ARG001  there are none
    """Return the outputs by name."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", OPTIONS)
    ports = {name for port in compiled.inputs for name in port.get_names()}  # without those that no node reads
    # held until there is an answer
    arrays = {name: np.asarray(array, order="C") for name, array in inputs.items() if name in ports}
    results = compiled.create_infer_request().infer({name: _tensor(array) for name, array in arrays.items()})
    names = [output.name for output in onnx.load(model).graph.output]
    return {name: _array(port, array) for name, (port, array) in zip(names, results.items(), strict=True)}


def _tensor(array: Any) -> Any:
    if array.dtype.name == "bfloat16":
        return openvino.Tensor(np.atleast_1d(array.view(np.uint16)), list(array.shape), openvino.Type.bf16)
    return openvino.Tensor(np.atleast_1d(array), list(array.shape), openvino.Type(array.dtype))


def _array(port: Any, array: Any) -> Any:
    if port.element_type.to_string() == "bf16":
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    return array
