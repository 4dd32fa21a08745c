"""Every kernel of the catalog as the runtimes compute our graph of it, at any size, against the float64 formulas."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_truth import DTYPES, KERNELS, UNIT, bits, inputs_of_width, value_of

from actconform import Unsupported
from actconform.onnx.author.exporter import author

# How many units of the dtype they may err, relative and absolute.
RUNTIMES = {"ort-cpu": 50.0, "openvino": 64.0, "onnx-reference": 50.0, "onnx-reference-float64": 4.0}
WIDTHS = {"f32": (1, 8, 17, 67, 10_000), "f16": (1, 17, 67), "bf16": (1, 17, 67)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_kernel_is_near_the_truth_in_the_graphs_own_type(backend_of, runtime, kernel, dtype):
    limit = RUNTIMES[runtime] * UNIT[dtype]
    try:
        program = backend_of(runtime).load(author(kernel, dtype), dtype)
        answers = [(inputs, bits(inputs), program.forward(inputs)) for inputs in all_inputs(runtime, kernel, dtype)]
    except Unsupported as refusal:
        words = str(refusal)
        assert words
        assert (runtime, dtype != "f32") == ("ort-cpu", True), words
        assert "ONNXRuntimeError" not in words
        assert "\n" not in words
        return
    for inputs, before, outputs in answers:
        assert list(outputs) == ["y"]
        assert outputs["y"].dtype == (np.int64 if kernel.output_dtype == "int64" else DTYPES[dtype])
        assert bits(inputs) == before
        truth = value_of(kernel, inputs)
        assert outputs["y"].shape == truth.shape
        np.testing.assert_allclose(outputs["y"].astype(np.float64), truth, rtol=limit, atol=limit)


def all_inputs(runtime, kernel, dtype):
    if runtime.startswith("onnx-reference"):  # no loop of its own over vectors, whose rest could be treated otherwise
        return [inputs_of_width(kernel, dtype, 67 if kernel.form == "unary" else 17, seed=8)]
    return [inputs_of_width(kernel, dtype, width, seed=width) for width in WIDTHS[dtype]]
