"""Gradients where an input is infinite: the limit of the derivative, wherever the operator itself is not NaN there."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.grad.reverse_mode import add_gradients

torch = pytest.importorskip("torch")
functional = torch.nn.functional
INF = np.inf


def gradients(graph_of, op_type, inputs, rank, wrt="x0", **attributes):
    """Return what ours and ONNX Runtime give for cotangents 1, 2, ..., in float64 and float32, and the values."""
    onnxruntime = pytest.importorskip("onnxruntime")
    feeds = {f"x{i}": each for i, each in enumerate(inputs) if isinstance(each, np.ndarray)}
    answers = []
    for element_type, dtype in ((TensorProto.DOUBLE, np.float64), (TensorProto.FLOAT, np.float32)):
        model = graph_of(op_type, inputs, [rank], element_type=element_type, **attributes)
        given = {name: each.astype(dtype) for name, each in feeds.items()}
        y = CorrectlyRoundedEvaluator(model.SerializeToString()).forward(given)["y0"]
        given["ct_y0"] = np.arange(1, y.size + 1, dtype=dtype).reshape(y.shape)
        made = add_gradients(model, [wrt], keep_outputs=False).SerializeToString()
        answers.append(CorrectlyRoundedEvaluator(made).forward(given)[f"d_{wrt}"])
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    return [*answers, session.run(None, given)[0]], y


REDUCED = {
    "ReduceL2": ([INF, -3.0, 4.0], [1.0, 0.0, 0.0]),
    "ReduceL2 of -inf": ([2.0, -INF, 4.0], [0.0, -1.0, 0.0]),
    "ReduceL2 of two": ([INF, -INF, 4.0], [0.5**0.5, -(0.5**0.5), 0.0]),
    "ReduceL1": ([INF, -3.0, -INF], [1.0, -1.0, -1.0]),
    "ReduceLogSumExp": ([INF, -3.0, 4.0], [1.0, 0.0, 0.0]),
    "ReduceLogSumExp of two": ([INF, -3.0, INF], [0.5, 0.0, 0.5]),
    "ReduceLogSumExp of -inf": ([-INF, 0.0, 0.0], [0.0, 0.5, 0.5]),
    "ReduceLogSumExp of all -inf": ([-INF, -INF, -INF], [0.0, 0.0, 0.0]),
    "ReduceLogSum": ([INF, 3.0, 4.0], [0.0, 0.0, 0.0]),
    "ReduceProd": ([INF, -3.0, 4.0], [-12.0, INF, -INF]),
    "ReduceProd of -inf": ([-INF, -3.0, 4.0], [-12.0, -INF, INF]),
    "ReduceProd of two": ([INF, -INF, 4.0], [-INF, INF, -INF]),
    "ReduceSumSquare": ([INF, -3.0, 4.0], [INF, -6.0, 8.0]),
    "ReduceSum": ([INF, -3.0, 4.0], [1.0, 1.0, 1.0]),
    "ReduceMean": ([INF, -3.0, 4.0], [1 / 3, 1 / 3, 1 / 3]),
    "ReduceMax": ([INF, INF, 4.0], [0.5, 0.5, 0.0]),
    "ReduceMin": ([INF, -INF, 4.0], [0.0, 1.0, 0.0]),
}


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("name", REDUCED)
def test_a_reduction_has_the_limit(graph_of, setting, name, keepdims):
    row, slopes = REDUCED[name]
    x, wanted = np.array([row, [0.5, 1.5, 1.0]]), np.array(slopes)  # an ordinary row beside it stays ordinary
    answers, y = gradients(graph_of, name.split()[0], [x, setting([1])], 1 + keepdims, keepdims=keepdims)
    assert not np.isnan(y).any()
    for got in answers:
        np.testing.assert_allclose(got[0], wanted, rtol=1e-6)
        assert np.isfinite(got[1]).all()
        assert np.any(got[1])


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_a_norm_whose_squares_leave_the_format_has_its_direction(graph_of, size):
    x = size * np.array([[3.0, -4.0]])
    for got in gradients(graph_of, "ReduceL2", [x], 2)[0]:
        np.testing.assert_allclose(got, [[0.6, -0.8]], rtol=1e-6)


def test_a_product_with_zero_and_infinity_among_the_others_has_no_limit(graph_of):
    for got in gradients(graph_of, "ReduceProd", [np.array([0.0, INF, 2.0])], 1)[0]:
        np.testing.assert_array_equal(got, [INF, 0.0, np.nan])


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norm_pools_have_the_limit(graph_of, p):
    x = np.array([[[1.0, -2.0, INF, -INF, 3.0, 4.0]]])
    shared = 0.5 ** ((p - 1) / p)
    for got in gradients(graph_of, "GlobalLpPool", [x], 3, p=p, opset=21)[0]:
        finite = np.sign(x[0, 0]) if p == 1 else np.zeros(6)
        finite[2:4] = [1.0, -1.0] if p == 1 else [shared, -shared]
        np.testing.assert_allclose(got[0, 0], finite, rtol=1e-6)
    for got in gradients(graph_of, "LpPool", [x], 3, p=p, kernel_shape=[2], strides=[2])[0]:
        ends = np.array([1.0, 2.0]), np.array([3.0, 4.0])
        first, last = (row ** (p - 1) / np.sum(row**p) ** ((p - 1) / p) for row in ends)
        wanted = [first[0], -first[1], 2 * shared, -2 * shared, 3 * last[0], 3 * last[1]]
        np.testing.assert_allclose(got[0, 0], wanted, rtol=1e-6)


SLOPES = {  # at -inf and inf; None where the operator itself is NaN
    "Abs": (-1, 1), "Acosh": (None, 0), "Asinh": (0, 0), "Atan": (0, 0), "Celu": (0, 1), "Cosh": (-INF, INF),
    "Elu": (0, 1), "Erf": (0, 0), "Exp": (0, INF), "HardSigmoid": (0, 0), "LeakyRelu": (0.01, 1), "Log": (None, 0),
    "Mish": (None, 1), "Reciprocal": (0, 0), "Relu": (0, 1), "Selu": (0, 1.0507009873554805), "Shrink": (1, 1),
    "Sigmoid": (0, 0), "Sinh": (INF, INF), "Softplus": (0, 1), "Softsign": (None, None), "Sqrt": (None, 0), "Tanh": (0, 0),
    "ThresholdedRelu": (0, 1), "Gelu": (None, 1), "HardSwish": (None, 1), "Neg": (-1, -1),
}  # fmt: skip


@pytest.mark.parametrize("op_type", SLOPES)
def test_functions_of_one_element_have_the_limit(graph_of, op_type):
    below, above = SLOPES[op_type]
    for x, slope in ((-INF, below), (INF, above)):
        if slope is not None:
            with np.errstate(all="ignore"):
                answers, y = gradients(graph_of, op_type, [np.array([x])], 1)
            assert not np.isnan(y).any()
            for got in answers if op_type not in {"Celu", "Mish", "Gelu"} else answers[1:]:
                np.testing.assert_allclose(got, [slope], rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "e", "wanted"), [(INF, -1.5, 0.0), (INF, 2.0, INF), (0.0, 1.0, 0.0), (0.5, -INF, -INF), (2.0, -INF, 0.0)]
)
def test_a_power_by_its_exponent_has_the_limit(graph_of, x, e, wanted):
    for got in gradients(graph_of, "Pow", [np.array([x]), np.array([e])], 1, wrt="x1")[0]:
        np.testing.assert_array_equal(got, [wanted])


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(
    ("x", "e", "wanted"),
    [(0.0, INF, 0.0), (0.5, INF, 0.0), (2.0, INF, INF), (2.0, -INF, 0.0), (0.5, -INF, -INF), (INF, -1.5, 0.0), (INF, 1.0, 1.0), (-INF, 2.0, -INF)],
)  # fmt: skip
def test_a_power_by_its_base_has_the_limit(graph_of, setting, constant, x, e, wanted):
    exponent = setting([e], np.float32) if constant else np.array([e])
    for got in gradients(graph_of, "Pow", [np.array([x]), exponent], 1)[0]:
        np.testing.assert_array_equal(got, [wanted])
