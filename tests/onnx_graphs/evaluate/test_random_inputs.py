"""Operators of images, boxes and quantized tensors at random inputs and many settings, against ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper

from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAW = np.random.default_rng(7)


class NodeCase(NamedTuple):
    """One node with its inputs, None where one is left out."""

    op_type: str
    arrays: list[NDArray[Any] | None]
    attributes: dict[str, Any]
    opset: int = 21
    outputs: int = 1
    levels: int = 0
    """Of integers: how far a rounding at a tie may be."""


def f32(*shape: int) -> NDArray[np.float32]:
    return DRAW.standard_normal(shape).astype(np.float32)


def uniform(low: float, high: float, *shape: int) -> NDArray[np.float32]:
    return DRAW.uniform(low, high, shape).astype(np.float32)


def u8(*shape: int) -> NDArray[np.uint8]:
    return DRAW.integers(0, 256, shape).astype(np.uint8)


def s8(*shape: int, most: int = 63) -> NDArray[np.int8]:
    return DRAW.integers(-most, most + 1, shape).astype(np.int8)


def number(value: float, dtype: Any = np.float32) -> NDArray[Any]:
    return np.array(value, dtype)


IMAGE, BOXES = f32(2, 3, 9, 11), np.sort(uniform(0, 8, 5, 2, 2), axis=1).reshape(5, 4)
ROIS = np.concatenate([DRAW.integers(0, 2, (5, 1)).astype(np.float32), BOXES], 1)
CORNERS = uniform(0, 10, 2, 12, 4)

CASES = {
    **{
        f"roi-align-{mode}-{ratio}-{place}": NodeCase(
            "RoiAlign",
            [IMAGE, BOXES - 1, np.array([0, 1, 1, 0, 1])],
            {
                "output_height": 3,
                "output_width": 2,
                "sampling_ratio": ratio,
                "mode": mode,
                "spatial_scale": 0.75,
                "coordinate_transformation_mode": place,
            },
        )
        for mode in ("avg", "max")
        for ratio in (0, 2)
        for place in ("half_pixel", "output_half_pixel")
    },
    "max-roi-pool": NodeCase("MaxRoiPool", [IMAGE, ROIS], {"pooled_shape": [3, 2], "spatial_scale": 0.75}),
    **{
        f"non-max-suppression-{centre}-{n_inputs}": NodeCase(
            "NonMaxSuppression",
            [CORNERS, uniform(0, 1, 2, 3, 12), number(6, np.int64), number(0.1), number(0.2)][:n_inputs],
            {"center_point_box": centre},
        )
        for centre in (0, 1)
        for n_inputs in (3, 4, 5)
    },
    **{
        f"grid-sample-{mode}-{padding}-{corners}": NodeCase(
            "GridSample",
            [IMAGE, uniform(-1.6, 1.6, 2, 4, 5, 2)],
            {"mode": mode, "padding_mode": padding, "align_corners": corners},
            opset=20,
        )
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    },
    "grid-sample-3d": NodeCase("GridSample", [f32(1, 2, 4, 5, 6), uniform(-1.2, 1.2, 1, 2, 3, 2, 3)], {}, opset=20),
    "deform-conv": NodeCase(
        "DeformConv",
        [f32(2, 4, 6, 7), f32(6, 2, 3, 2), f32(2, 2 * 2 * 6, 3, 6), f32(6), uniform(0, 1, 2, 2 * 6, 3, 6)],
        {"group": 2, "offset_group": 2, "strides": [2, 1], "pads": [1, 0, 1, 0], "dilations": [1, 1]},
        opset=19,
    ),
    "affine-grid": NodeCase("AffineGrid", [f32(2, 2, 3), np.array([2, 1, 4, 5])], {"align_corners": 0}, opset=20),
    "quantize-axis": NodeCase(
        "QuantizeLinear", [f32(2, 3, 4), uniform(0.01, 0.1, 3), s8(3)], {"axis": 1}, opset=13, levels=1
    ),
    "quantize-blocks": NodeCase("QuantizeLinear", [f32(6, 4), uniform(0.01, 0.1, 2, 4), s8(2, 4)], {"axis": 0, "block_size": 3}),
    "dequantize-axis": NodeCase("DequantizeLinear", [s8(2, 3, 4), uniform(0.01, 0.1, 3), s8(3)], {"axis": -2}),
    "dequantize-blocks": NodeCase(
        "DequantizeLinear", [s8(6, 4), uniform(0.01, 0.1, 2, 4), s8(2, 4)], {"axis": 0, "block_size": 3}
    ),
    "dynamic-quantize": NodeCase("DynamicQuantizeLinear", [f32(30)], {}, outputs=3, levels=1),
    "dynamic-quantize-zeros": NodeCase("DynamicQuantizeLinear", [np.zeros(4, np.float32)], {}, outputs=3),
    "matmul-integer": NodeCase("MatMulInteger", [u8(2, 4, 5), u8(5, 3), u8()], {}),
    "matmul-integer-by-column": NodeCase("MatMulInteger", [u8(4, 5), s8(5, 3), u8(), s8(3)], {}),
    "conv-integer": NodeCase("ConvInteger", [u8(1, 4, 6, 7), u8(6, 2, 3, 3), u8()], {"group": 2, "pads": [1, 1, 0, 2]}),
    "quantized-matmul": NodeCase(
        "QLinearMatMul",
        [u8(4, 5), number(0.02), u8(), s8(5, 3), uniform(0.01, 0.03, 3), np.zeros(3, np.int8), number(0.1), number(120, np.uint8)],
        {},
        levels=1,
    ),
    "quantized-conv": NodeCase(
        "QLinearConv",
        [
            u8(2, 4, 6, 7),
            number(0.02),
            number(120, np.uint8),
            s8(6, 2, 3, 3),
            uniform(0.01, 0.03, 6),
            np.zeros(6, np.int8),
            number(0.3),
            number(125, np.uint8),
            DRAW.integers(-500, 500, 6).astype(np.int32),
        ],
        {"group": 2, "strides": [2, 1], "pads": [1, 1, 1, 1]},
        levels=1,
    ),
}  # fmt: skip


def model_of(case: NodeCase) -> tuple[bytes, dict[str, NDArray[Any]]]:
    inputs = {f"x{i}": array for i, array in enumerate(case.arrays) if array is not None}
    names = [f"x{i}" if f"x{i}" in inputs else "" for i in range(len(case.arrays))]
    node = helper.make_node(case.op_type, names, [f"y{i}" for i in range(case.outputs)], **case.attributes)
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    graph = helper.make_graph([node], "g", declared, [onnx.ValueInfoProto(name=name) for name in node.output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=8)
    return model.SerializeToString(), inputs


@pytest.mark.parametrize("name", CASES)
def test_an_operator_gives_what_onnxruntime_gives(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    model, inputs = model_of(CASES[name])
    expected = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, inputs)
    outputs = CorrectlyRoundedEvaluator(model).forward(inputs)
    for ours, theirs in zip(outputs.values(), expected, strict=True):
        assert ours.dtype == theirs.dtype
        tolerance = (
            {"rtol": 0, "atol": CASES[name].levels} if theirs.dtype.kind in "iu" else {"rtol": 1e-4, "atol": 2e-5}
        )
        np.testing.assert_allclose(ours.astype(np.float64), theirs.astype(np.float64), **tolerance)
