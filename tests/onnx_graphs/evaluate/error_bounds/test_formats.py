"""Error bounds in other formats than float32, and of nothing at all."""

from __future__ import annotations

import numpy as np
import pytest
from bounded_nodes import BF16, F16, F32, F64, rounded_to
from onnx import TensorProto

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 4, 6, 7))
KERNEL = RNG.standard_normal((4, 4, 3, 3)) / 4
GRID = RNG.uniform(-1, 1, (2, 3, 3, 2))
SIGNAL = RNG.standard_normal((2, 24, 1))
SEQUENCE = [RNG.standard_normal(shape) / 2 for shape in ((1, 2, 4), (1, 9, 4), (1, 9, 3), (1, 18))]
CASES = [
    ("Conv", [IMAGE, KERNEL, KERNEL[:, 0, 0, 0]], {"pads": [1, 1, 1, 1]}),
    ("ConvTranspose", [IMAGE, KERNEL], {"strides": [2, 2]}),
    ("DeformConv", [IMAGE, KERNEL, 0.1 * RNG.standard_normal((2, 18, 4, 5))], {}),
    ("AveragePool", [IMAGE], {"kernel_shape": [2, 2]}),
    ("GlobalAveragePool", [IMAGE], {}),
    ("MaxPool", [IMAGE], {"kernel_shape": [2, 2]}),
    ("LpPool", [IMAGE], {"kernel_shape": [2, 2]}),
    ("Col2Im", [IMAGE.reshape(2, 4, 42)[:, :, :9], np.array([4, 4]), np.array([2, 2])], {}),
    ("Resize", [IMAGE, None, np.array([1, 1, 1.7, 2])], {"mode": "linear"}),
    ("Resize", [IMAGE, None, np.array([1, 1, 1.7, 2])], {"mode": "cubic"}),
    ("GridSample", [IMAGE, GRID], {"mode": "linear"}),
    ("GridSample", [IMAGE, GRID], {"mode": "cubic"}),
    ("AffineGrid", [GRID[:, :2, :, 0], np.array([2, 1, 4, 5])], {}),
    ("RoiAlign", [IMAGE, np.array([[0.3, 0.2, 5, 4.1]]), np.array([1])], {}),
    ("GRU", SEQUENCE, {"hidden_size": 3}),
    ("DequantizeLinear", [np.arange(9, dtype=np.uint8), np.array(0.37)], {}),
    ("DFT", [SIGNAL], {}),
    ("STFT", [SIGNAL, np.array(4), SIGNAL[0, :8, 0]], {}),
]


def _format_of(kind):
    return F32 if kind == F64 else kind


@pytest.mark.parametrize("kind", [F16, BF16, F64])
@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"), CASES, ids=lambda each: each if isinstance(each, str) else ""
)
def test_one_rounding_of_the_real_function_is_within(node, share, kind, op_type, inputs, attributes):
    numbers = [
        each if each is None or each.dtype.kind != "f" else rounded_to(_format_of(kind), each).astype(np.float64)
        for each in inputs
    ]
    layer = node(op_type, output_types=[kind], opset=22, **attributes)
    (bound, *_), (real, *_) = layer.bounds(numbers), layer.real(numbers)
    assert share(rounded_to(kind, real).astype(np.float64), bound) <= 1
    unit = {F16: 2.0**-11, BF16: 2.0**-8, F64: 2.0**-24}[kind]  # places are taken to be of float32 at least
    if op_type != "STFT":
        assert (
            np.max(0.0 if bound.error is None else bound.error)
            < (1000 if kind == F64 else 100) * unit * np.abs(real).max()
        )


EMPTY = [
    ("Conv", [np.zeros((0, 4, 6, 7)), KERNEL], {}),
    ("AveragePool", [np.zeros((0, 4, 6, 7))], {"kernel_shape": [2, 2]}),
    ("Resize", [np.zeros((0, 4, 6, 7)), None, np.array([1, 1, 1.7, 2])], {"mode": "linear"}),
    ("Resize", [np.zeros((0, 4, 6, 7)), None, np.array([1, 1, 1.7, 2])], {"mode": "nearest"}),
    ("GridSample", [np.zeros((0, 4, 6, 7)), GRID[:0]], {"mode": "linear"}),
    ("RoiAlign", [IMAGE, np.zeros((0, 4)), np.zeros(0, int)], {}),
    ("MaxRoiPool", [IMAGE, np.zeros((0, 5))], {"pooled_shape": [2, 2]}),
    ("GRU", [SEQUENCE[0][:, :0], *SEQUENCE[1:]], {"hidden_size": 3}),
    ("NonMaxSuppression", [np.zeros((1, 0, 4)), np.zeros((1, 1, 0)), np.array([3])], {}),
    ("DequantizeLinear", [np.zeros(0, np.uint8), np.array(0.37)], {}),
    ("QuantizeLinear", [np.zeros(0), np.array(0.37)], {}),
    ("DynamicQuantizeLinear", [np.zeros(0)], {}),
    ("MatMulInteger", [np.zeros((0, 3), np.uint8), np.zeros((3, 2), np.uint8)], {}),
]


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"), EMPTY, ids=lambda each: each if isinstance(each, str) else ""
)
def test_empty_tensors(node, op_type, inputs, attributes):
    integers = {"NonMaxSuppression": TensorProto.INT64, "MatMulInteger": TensorProto.INT32}
    kind = integers.get(
        op_type, TensorProto.UINT8 if op_type.endswith("QuantizeLinear") or op_type == "QuantizeLinear" else F32
    )
    layer = node(op_type, output_types=[kind], opset=22, **attributes)
    (bound, *_), (real, *_) = layer.bounds(inputs), layer.real(inputs)
    assert bound.value.shape == real.shape
    assert bound.value.size == 0
