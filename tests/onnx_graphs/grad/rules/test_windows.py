"""Windows whose padding a node finds itself: ONNX Runtime and others must place them alike, or there is no gradient."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from actconform.errors import UnsupportedOperator
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.grad.reverse_mode import add_gradients

OPERATORS = ["Conv", "AveragePool", "LpPool"]
PLACED = ["SAME_UPPER", "SAME_LOWER"]


def strided(graph_of, op_type, placed, kernel, stride, size, element_type=TensorProto.DOUBLE, **options):
    inputs = [np.arange(1.0, 1 + size).reshape(1, 1, size)]
    if op_type == "Conv":
        inputs.append(np.ones((1, 1, kernel)))
    given = {"auto_pad": placed, "kernel_shape": [kernel], "strides": [stride]}
    return inputs, graph_of(op_type, inputs, [3], element_type=element_type, **given, **options)


def is_refused(model):
    try:
        add_gradients(model, ["x0"])
    except UnsupportedOperator as error:
        return "runtimes differ in where its windows lie: state pads" in str(error)
    return False


@pytest.mark.parametrize("placed", PLACED)
@pytest.mark.parametrize("op_type", OPERATORS)
def test_where_onnx_runtime_cuts_the_front_of_the_image_is_refused(graph_of, op_type, placed):
    runtime = pytest.importorskip("onnxruntime")
    cut = 0
    for kernel, stride, size in [(k, s, n) for k in (1, 2) for s in range(k + 1, 7) for n in range(k, 9)]:
        inputs, model = strided(graph_of, op_type, placed, kernel, stride, size, TensorProto.FLOAT)
        feeds = {f"x{i}": each.astype(np.float32) for i, each in enumerate(inputs)}
        text = model.SerializeToString()
        (theirs,) = runtime.InferenceSession(text, providers=["CPUExecutionProvider"]).run(None, feeds)
        if not np.array_equal(theirs, CorrectlyRoundedEvaluator(text).forward(feeds)["y0"]):
            cut += 1
            assert is_refused(model), (kernel, stride, size)
    assert cut


@pytest.mark.parametrize("placed", PLACED)
@pytest.mark.parametrize("op_type", OPERATORS)
def test_strides_wider_than_windows_by_one_cut_nothing(graph_of, op_type, placed):
    for free in ({}, {0: (2,)}):
        inputs, model = strided(graph_of, op_type, placed, 1, 2, 6, free=free)
        given = {f"x{i}": each for i, each in enumerate(inputs)} | {"ct_y0": np.array([[[2.0, 3.0, 5.0]]])}
        got = CorrectlyRoundedEvaluator(add_gradients(model, ["x0"]).SerializeToString(), rounding=False).forward(given)
        np.testing.assert_allclose(got["d_x0"].ravel(), [2.0, 0.0, 3.0, 0.0, 5.0, 0.0], rtol=1e-12)


@pytest.mark.parametrize("op_type", OPERATORS)
def test_of_an_open_size_the_worst_decides(graph_of, op_type):
    assert is_refused(strided(graph_of, op_type, "SAME_UPPER", 1, 4, 8, free={0: (2,)})[1])
    assert not is_refused(strided(graph_of, op_type, "SAME_UPPER", 1, 4, 9)[1])
    assert not is_refused(strided(graph_of, op_type, "SAME_UPPER", 1, 4, 9, free={0: (0,)})[1])
