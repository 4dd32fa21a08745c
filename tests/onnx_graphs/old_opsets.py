"""Graphs of opsets 7 to 15, one for each version of an operator and way to use it, to hold against their conversion.

As a program it writes the table of them into docs/gradients.md: `python tests/onnx_graphs/old_opsets.py docs/gradients.md`.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from actconform.onnx.opset_conversion import OLDEST, REFUSED, TARGET, outcome
from actconform.report.marked_section import write_between

BEGIN, END = "<!-- old opsets: written by make docs -->", "<!-- end of old opsets -->"
OLD = range(OLDEST, TARGET)
RNG = np.random.default_rng(0)


class Use(NamedTuple):
    """A way to use an operator: inputs, None where left out, of which some are constants, and attributes."""

    op_type: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]
    opsets: range = OLD
    constant: tuple[int, ...] = ()
    outputs: int = 1
    text: str = ""  # a graph that the parser reads, in place of one node
    close: bool = False  # equal but for rounding: the newer form is another sum of products
    reference: bool = True  # onnx's evaluator serves as a second witness


class Graph(NamedTuple):
    """One graph of the sweep."""

    use: Use
    version: int
    opset: int

    @property
    def name(self) -> str:
        """What a test is called by."""
        return f"{self.use.op_type}-{self.version}-at-{self.opset}-{spelled(self.use)}"

    def model(self) -> onnx.ModelProto:
        """Return the graph as a model, with IR version 4 as of its time."""
        if self.use.text:
            return parser.parse_model(f'<ir_version: 4, opset_import: ["": {self.opset}]> g {self.use.text}')
        names = ["" if each is None else f"x{i}" for i, each in enumerate(self.use.inputs)]
        given = [(i, name, each) for i, (name, each) in enumerate(zip(names, self.use.inputs, strict=True)) if name]
        node = helper.make_node(
            self.use.op_type, names, [f"y{i}" for i in range(self.use.outputs)], **self.use.attributes
        )
        graph = helper.make_graph(
            [node],
            "g",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
                for i, name, each in given
                if i not in self.use.constant
            ],
            [onnx.ValueInfoProto(name=name) for name in node.output],
            [numpy_helper.from_array(each, name) for i, name, each in given if i in self.use.constant],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=4)
        inferred = onnx.shape_inference.infer_shapes(model)
        for value in inferred.graph.output:  # runtimes want types, and some shapes are inferred wrongly
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()
        return inferred

    def feeds(self) -> dict[str, np.ndarray]:
        """Return the inputs by name."""
        return {
            f"x{i}": each for i, each in enumerate(self.use.inputs) if each is not None and i not in self.use.constant
        }


def f(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def i64(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def f32(*values: Any) -> np.ndarray:
    return np.array(values, np.float32)


X = f(2, 3, 4)
TIED = RNG.integers(-2, 3, (2, 3, 4)).astype(np.float32)
POSITIVE = np.abs(X) + np.float32(0.5)
IMAGE = f(1, 2, 5, 7)
SPECIAL = f32(-np.inf, -1e30, -2.5, -0.0, 0.0, 0.5, 2.5, 1e30, np.inf, np.nan)


def use(op_type: str, *inputs: Any, opsets: range = OLD, **more: Any) -> list[Use]:
    """Return one use for each combination of attributes: what is a list of several choices is `any_of`."""
    own = {name: more.pop(name) for name in list(more) if name in Use._fields}
    choices = [value if isinstance(value, Choice) else [value] for value in more.values()]
    combined = [dict(zip(more, values, strict=True)) for values in itertools.product(*choices)]
    return [Use(op_type, inputs, {k: v for k, v in each.items() if v is not None}, opsets, **own) for each in combined]


class Choice(list[Any]):
    """Values of an attribute, each to be tried; None leaves it out."""


def any_of(*values: Any) -> Choice:
    return Choice(values)


def since(first: int) -> range:
    return range(first, TARGET)


def elementwise() -> list[Use]:
    uses = []
    for op_type in ("Abs", "Ceil", "Exp", "Floor", "Neg", "Relu", "Sigmoid", "Tanh", "Identity", "Shape", "Size"):
        uses += use(op_type, X)
    for op_type in ("Erf", "Sign", "NonZero", "IsNaN"):
        uses += use(
            op_type, TIED if op_type == "NonZero" else SPECIAL[2:7] if op_type == "Erf" else SPECIAL, opsets=since(9)
        )
    for op_type in ("Log", "Reciprocal", "Sqrt"):
        uses += use(op_type, POSITIVE)
    for op_type in ("Add", "Sub", "Mul", "Div"):
        uses += use(op_type, X, f(4)) + use(op_type, i64(7, -7, 5), i64(2, 2, -3))
    for op_type in ("Greater", "Less"):
        uses += use(op_type, TIED, TIED[:, :1]) + use(op_type, i64(1, 2, 3), i64(2), opsets=since(9))
    for op_type in ("GreaterOrEqual", "LessOrEqual"):
        uses += use(op_type, TIED, TIED[:, :1], opsets=since(12))
    uses += use("Equal", i64(1, 2, 3), i64(2)) + use("Equal", TIED, TIED[:, :1], opsets=since(11))
    uses += use("Pow", POSITIVE, f(4)) + use("Pow", X, i64(2), opsets=since(12))
    uses += use("Mod", i64(7, -7, 7, -7), i64(3, 3, -3, -3), opsets=since(10))
    uses += use("Mod", f32(7.5, -7.5), f32(2, 2), opsets=since(10), fmod=1)
    uses += use("PRelu", X, f(4)) + use("PRelu", X, f(3, 1)) + use("LeakyRelu", X, alpha=any_of(None, 0.5))
    for op_type in ("Max", "Min", "Mean", "Sum"):
        uses += use(op_type, X, TIED, POSITIVE) + use(op_type, X) + use(op_type, X, f(3, 1), f(4), opsets=since(8))
    uses += use("Clip", SPECIAL, opsets=range(7, 11), min=any_of(None, -1.0), max=any_of(None, 2.0))
    unbounded = {"opsets": since(11), "reference": False}  # where ONNX Runtime bounds infinities all the same
    uses += use("Clip", SPECIAL, np.array(-1, np.float32), None, **unbounded) + use(
        "Clip", SPECIAL, None, np.array(2, np.float32), **unbounded
    )
    uses += use("Clip", SPECIAL, np.array(-1, np.float32), np.array(2, np.float32), opsets=since(11)) + use(
        "Clip", SPECIAL, **unbounded
    )
    uses += use("Cast", f32(-2.7, 0.0, 3.2), to=any_of(7, 9, 10, 11)) + use("Cast", i64(0, 2, -3), to=any_of(1, 9))
    uses += use("Where", TIED > 0, X, f(4), opsets=since(9)) + use(
        "CumSum", X, np.array(1), opsets=since(11), exclusive=any_of(0, 1), reverse=any_of(0, 1)
    )
    uses += use("Dropout", X, opsets=range(7, 12), ratio=any_of(None, 0.3)) + use(
        "Dropout", X, opsets=since(12), outputs=2
    )
    uses += use("QuantizeLinear", X, np.array(0.1, np.float32), np.array(128, np.uint8), opsets=since(10))
    uses += use(
        "DequantizeLinear",
        np.array([[0, 128], [200, 255]], np.uint8),
        np.array(0.1, np.float32),
        np.array(128, np.uint8),
        opsets=since(10),
        reference=False,
    )
    return uses


def shapes() -> list[Use]:
    uses = use("Reshape", X, i64(0, -1), constant=(1,)) + use("Reshape", X, i64(4, 6))
    uses += (
        use("Transpose", X, perm=any_of(None, [2, 0, 1]))
        + use("Tile", X, i64(1, 2, 3))
        + use("Concat", X, TIED, axis=any_of(0, 1, 2))
    )
    uses += (
        use("Concat", X, TIED, opsets=since(11), axis=-1)
        + use("Flatten", X, axis=any_of(None, 0, 1, 2, 3))
        + use("Flatten", X, opsets=since(11), axis=-2)
    )
    uses += use("Expand", f(3, 1), i64(2, 3, 4), opsets=since(8)) + use(
        "Squeeze", f(1, 3, 1, 2), opsets=range(7, 13), axes=any_of(None, [0], [0, 2])
    )
    uses += use("Squeeze", f(1, 3, 1), opsets=range(11, 13), axes=[-1]) + use(
        "Unsqueeze", X, opsets=range(7, 13), axes=any_of([0], [1, 3])
    )
    uses += use("Unsqueeze", X, opsets=range(11, 13), axes=[-1]) + use("DepthToSpace", f(1, 8, 2, 3), blocksize=2)
    uses += use("DepthToSpace", f(1, 8, 2, 3), opsets=since(11), blocksize=2, mode=any_of("DCR", "CRD")) + use(
        "SpaceToDepth", f(1, 2, 4, 6), blocksize=2
    )
    for parts in (None, [1, 3]):
        uses += use("Split", f(3, 4), opsets=range(7, 13), outputs=2, axis=1, split=parts)
    uses += use("Split", f(3, 4), opsets=range(11, 13), outputs=2, axis=-1, split=[1, 3]) + use(
        "Split", f(4, 3), opsets=range(7, 13), outputs=2
    )
    uses += use("Slice", X, opsets=range(7, 10), starts=[1, -3], ends=[2, 2**31 - 1], axes=any_of(None, [0, 2], [2, 1]))
    uses += use(
        "Slice", X, i64(-1, 0), i64(-9, 3), i64(2, 1), i64(-2, 2), opsets=since(10), constant=(1, 2, 3, 4)
    ) + use("Slice", X, i64(0, 1), i64(1, 3), opsets=since(10))
    uses += use("Slice", X, i64(1), i64(3), i64(-1), opsets=since(11))
    pads = [0, 1, 2, 1, 0, 1]
    uses += use("Pad", X, opsets=range(7, 11), pads=pads, mode=any_of(None, "edge", "reflect"))
    uses += use("Pad", X, opsets=range(7, 11), pads=pads, value=1.5) + use(
        "Pad", X, opsets=range(7, 11), pads=[0, -1, 0, 0, 0, -2], reference=False
    )
    uses += use("Pad", X, i64(*pads), opsets=since(11), mode=any_of(None, "edge", "reflect"), constant=(1,)) + use(
        "Pad", X, i64(*pads), np.array(1.5, np.float32), opsets=since(11), constant=(1,)
    )
    return uses


def reductions() -> list[Use]:
    uses = []
    for op_type in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]:
        x = POSITIVE if op_type == "LogSum" else X
        until = range(7, 13) if op_type == "Sum" else OLD
        uses += use(f"Reduce{op_type}", x, opsets=until, axes=any_of(None, [1], [0, 2]), keepdims=any_of(None, 0))
        uses += use(f"Reduce{op_type}", x, opsets=range(11, until.stop), axes=[-1])
    for op_type in ("ArgMax", "ArgMin"):
        uses += use(op_type, TIED, axis=any_of(None, 1, 2), keepdims=any_of(None, 0)) + use(
            op_type, TIED, opsets=since(11), axis=-1
        )
        uses += use(op_type, TIED, opsets=since(12), axis=1, select_last_index=1)
    for op_type in ("Softmax", "LogSoftmax", "Hardmax"):
        uses += use(op_type, X, opsets=range(7, 13), axis=any_of(None, 0, 1, 2)) + use(
            op_type, f(3, 4), opsets=range(7, 13)
        )
        uses += use(op_type, X, opsets=range(11, 13), axis=any_of(-1, -2, -3))
    uses += use("TopK", TIED, opsets=range(7, 10), outputs=2, k=2, axis=any_of(None, 0, 1)) + use(
        "TopK", TIED, i64(2), opsets=range(10, 16), outputs=2, axis=any_of(None, 1)
    )
    return uses


def indexing() -> list[Use]:
    uses = use("Gather", X, i64(2, 0, 2), axis=any_of(1, 2)) + use("Gather", X, i64(-1, 0), opsets=since(11), axis=1)
    uses += use("GatherElements", X, np.array([[[0, 1, -1, 0]]]), opsets=since(11), axis=1, reference=False)
    uses += use("GatherND", X, np.array([[0, 1], [1, -1]]), opsets=since(11)) + use(
        "GatherND", X, np.array([[0], [1]]), opsets=since(12), batch_dims=1
    )
    index, updates = np.array([[[1, 0, 2, 1]]]), f(1, 1, 4)
    uses += use("Scatter", X, index % 2, updates, opsets=range(9, 11), axis=any_of(None, 1)) + use(
        "ScatterElements", X, index % 2, updates, opsets=since(11), axis=any_of(None, 1)
    )
    uses += use("ScatterElements", X, index - 3, updates, opsets=since(11), axis=1) + use(
        "ScatterND", X, np.array([[0, 1], [1, -1]]), f(2, 4), opsets=since(11)
    )
    uses += use("Compress", X, np.array([True, False, True]), opsets=since(9), axis=any_of(None, 1))
    uses += use("OneHot", i64(0, 2, 7), i64(3), f32(-1, 2), opsets=since(9), axis=any_of(None, 0), reference=False)
    boxes = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 10, 1, 11]]], np.float32)
    uses += use(
        "NonMaxSuppression",
        boxes,
        f32(0.9, 0.75, 0.6).reshape(1, 1, 3),
        i64(3),
        f32(0.5),
        f32(0.0),
        opsets=since(10),
        center_point_box=any_of(None, 1),
    )
    rois = f32(0, 0, 4, 3, 1, 1, 3, 4).reshape(2, 4)
    uses += use(
        "RoiAlign",
        IMAGE,
        rois,
        i64(0, 0),
        opsets=since(10),
        output_height=2,
        output_width=3,
        sampling_ratio=any_of(None, 2),
        mode=any_of(None, "max"),
        spatial_scale=any_of(None, 0.5),
        reference=False,
    )
    return uses


def resampling() -> list[Use]:
    uses = []
    for scales in ([1, 1, 2, 3], [1, 1, 1.5, 2.3]):
        uses += use(
            "Upsample", IMAGE, opsets=range(7, 9), scales=[float(each) for each in scales], mode=any_of(None, "linear")
        )
        uses += use("Upsample", IMAGE, f32(*scales), opsets=since(9)[:1], constant=(1,), mode=any_of(None, "linear"))
    for scales in ([1, 1, 2, 3], [1, 1, 1.5, 2.3], [1, 1, 0.6, 0.5], [1, 1, 0.6, 1.7]):
        for constant in ((1,), ()):
            uses += use(
                "Resize", IMAGE, f32(*scales), opsets=range(10, 11), constant=constant, mode=any_of(None, "linear")
            )
    uses += use("Upsample", IMAGE, f32(1, 1, 2, 1.5), opsets=range(9, 10), mode=any_of(None, "linear"))
    places = any_of(None, "pytorch_half_pixel", "asymmetric", "align_corners")
    for scales in ([1, 1, 2, 1.5], [1, 1, 0.6, 0.7]):
        given = {"opsets": range(11, 13), "constant": (1, 2), "coordinate_transformation_mode": places}
        uses += use(
            "Resize",
            IMAGE,
            f32(),
            f32(*scales),
            mode="nearest",
            nearest_mode=any_of(None, "floor", "ceil", "round_prefer_ceil"),
            reference=False,
            **given,
        )
        uses += use("Resize", IMAGE, f32(), f32(*scales), mode="linear", reference=False, **given)
        uses += use(
            "Resize",
            IMAGE,
            f32(),
            f32(*scales),
            mode="cubic",
            cubic_coeff_a=any_of(None, -0.5),
            exclude_outside=any_of(0, 1),
            reference=False,
            **given,
        )
    uses += use(
        "Resize",
        IMAGE,
        f32(),
        f32(),
        i64(1, 2, 9, 4),
        opsets=range(11, 13),
        constant=(1, 2, 3),
        mode=any_of("nearest", "linear"),
        reference=False,
    )
    roi = f32(0, 0, 0.1, 0.2, 1, 1, 0.9, 0.8)
    uses += use(
        "Resize",
        IMAGE,
        roi,
        f32(1, 1, 1.5, 2),
        opsets=range(11, 13),
        constant=(1, 2),
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=any_of(None, 3.0),
        reference=False,
    )
    uses += use(
        "Resize",
        IMAGE,
        f32(),
        f32(1, 1, 2, 1.5),
        opsets=range(11, 13),
        constant=(1, 2),
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="tf_half_pixel_for_nn",
        reference=False,
    )
    return uses


def windows() -> list[Use]:
    uses, image = [], f(1, 2, 6, 7)
    pads = any_of([0, 0, 0, 0], [1, 0, 1, 1])
    for op_type in ("MaxPool", "AveragePool"):
        uses += use(op_type, image, kernel_shape=[2, 3], strides=any_of(None, [2, 3]), pads=pads, reference=False)
        uses += use(
            op_type,
            image,
            kernel_shape=[2, 3],
            strides=[2, 2],
            auto_pad=any_of("SAME_UPPER", "SAME_LOWER", "VALID"),
            reference=False,
        )
        uses += use(
            op_type,
            image,
            opsets=since(10),
            kernel_shape=any_of([1, 1], [2, 3]),
            strides=[2, 2],
            ceil_mode=1,
            reference=False,
        )
    uses += use(
        "MaxPool", image, opsets=since(8), outputs=2, kernel_shape=[2, 3], storage_order=any_of(0, 1), reference=False
    )
    uses += use("MaxPool", image, opsets=since(10), kernel_shape=[2, 3], dilations=[2, 1], reference=False)
    uses += use(
        "AveragePool", image, kernel_shape=[2, 3], strides=[2, 2], pads=[1, 1, 0, 1], count_include_pad=any_of(0, 1)
    )
    uses += use(
        "LpPool", image, kernel_shape=[2, 3], strides=any_of(None, [2, 2]), p=any_of(None, 1, 3), reference=False
    )
    uses += use("LpPool", image, kernel_shape=[2, 3], pads=[1, 0, 1, 1], reference=False)
    uses += use(
        "MaxUnpool",
        f(1, 1, 2, 2),
        i64(5, 7, 13, 15).reshape(1, 1, 2, 2),
        opsets=since(9),
        kernel_shape=[2, 2],
        strides=[2, 2],
    )
    conv = {"strides": any_of(None, [2, 1]), "pads": pads, "close": True}
    uses += use("Conv", image, f(4, 2, 2, 3), f(4), dilations=any_of(None, [2, 2]), **conv) + use(
        "Conv", image, f(4, 1, 2, 3), group=2, **conv
    )
    uses += use(
        "Conv",
        image,
        f(4, 2, 2, 3),
        strides=[2, 2],
        auto_pad=any_of("SAME_UPPER", "SAME_LOWER", "VALID"),
        close=True,
        reference=False,
    )
    transposed = {"close": True, "reference": False}
    uses += use("ConvTranspose", image, f(2, 3, 2, 3), f(3), **conv, reference=False) + use(
        "ConvTranspose",
        image,
        f(2, 3, 2, 3),
        group=2,
        strides=[2, 2],
        output_padding=any_of(None, [1, 0]),
        **transposed,
    )
    uses += use(
        "ConvTranspose",
        image,
        f(2, 3, 2, 3),
        strides=[2, 2],
        dilations=any_of(None, [1, 2]),
        output_shape=[12, 14],
        auto_pad=any_of(None, "SAME_UPPER", "SAME_LOWER"),
        **transposed,
    )
    uses += use(
        "ConvTranspose",
        image,
        f(2, 3, 2, 3),
        strides=[2, 2],
        auto_pad=any_of("SAME_UPPER", "SAME_LOWER"),
        output_padding=any_of(None, [1, 0]),
        **transposed,
    )
    return uses


def networks() -> list[Use]:
    uses = (
        use("MatMul", f(2, 3, 4), f(4, 5), close=True)
        + use("MatMul", f(4), f(4, 5), close=True)
        + use("MatMul", i64(1, 2), np.array([[3], [4]]), opsets=since(9))
    )
    uses += use("Gemm", f(3, 4), f(4, 5), f(5), close=True, alpha=any_of(None, 0.5), beta=any_of(None, 2.0)) + use(
        "Gemm", f(4, 3), f(5, 4), f(3, 1), transA=1, transB=1, close=True
    )
    uses += use("Gemm", f(3, 4), f(4, 5), np.array(2, np.float32), close=True) + use(
        "Gemm", f(3, 4), f(4, 5), opsets=since(11), close=True
    )
    positive = np.abs(f(3)) + np.float32(0.1)
    statistics = f(3), f(3), f(3), positive
    uses += use(
        "BatchNormalization",
        f(2, 3, 4),
        *statistics,
        opsets=range(7, 14),
        epsilon=any_of(None, 0.1),
        momentum=0.5,
        close=True,
    ) + use("BatchNormalization", f(2, 3), *statistics, opsets=range(7, 9), spatial=any_of(0, 1), close=True)
    each = f(3, 4), f(3, 4), f(3, 4), np.abs(f(3, 4)) + np.float32(0.1)
    uses += use(
        "BatchNormalization", f(2, 3, 4), *each, opsets=range(7, 9), spatial=0, epsilon=any_of(None, 0.1), close=True
    )
    uses += use("BatchNormalization", f(2, 3, 4), *statistics, opsets=range(14, 15), close=True) + use(
        "BatchNormalization", f(2, 3, 4), *statistics, opsets=range(14, 15), outputs=3, training_mode=1, close=True
    )
    uses += use("LRN", f(2, 5, 3, 2), size=3, alpha=any_of(None, 0.1), bias=any_of(None, 2.0), reference=False) + use(
        "MeanVarianceNormalization",
        f(2, 3, 4, 2),
        opsets=since(9),
        axes=any_of(None, [1, 2]),
        close=True,
        reference=False,
    )
    for op_type, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        for direction, n in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            given = (f(3, 2, 4), f(n, gates * 5, 4), f(n, gates * 5, 5), f(n, 2 * gates * 5))
            more = {"linear_before_reset": any_of(0, 1)} if op_type == "GRU" else {}
            uses += use(
                op_type,
                *given,
                outputs=3 if op_type == "LSTM" else 2,
                hidden_size=5,
                direction=direction,
                close=True,
                reference=False,
                **more,
            )
    scores, classes = f(3, 4, 2), np.array([[0, 1], [1, 2], [3, 0]])
    for op_type in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
        for more in ((), (np.abs(f(4)),)):
            uses += use(
                op_type,
                scores,
                classes,
                *more,
                opsets=since(12),
                reduction=any_of(None, "none", "sum"),
                ignore_index=any_of(None, 1),
                close=True,
            )
    return uses


def control_flow() -> list[Use]:
    branch = "{} () => (float[2, 3, 4] {}) {{ {} = {} (x0) }}"
    then, other = branch.format("t", "a", "a", "Softmax <axis = 1>"), branch.format("e", "b", "b", "Clip <min = -1.0>")
    chosen = f"(float[2, 3, 4] x0, bool x1) => (float[2, 3, 4] y0) {{ y0 = If (x1) <then_branch = {then}, else_branch = {other}> }}"
    uses = [Use("If", (X, np.array(flag)), {"condition": flag}, range(7, 11), text=chosen) for flag in (True, False)]
    later = chosen.replace("Clip <min = -1.0>", "Softmax <axis = 2>")
    uses += [Use("If", (X, np.array(flag)), {"condition": flag}, range(11, 14), text=later) for flag in (True, False)]
    body = "b (int64 i, bool c, float[2, 3] h) => (bool d, float[2, 3] k, float[2, 3] r) { d = Identity (c) s = Softmax <axis = 1> (h) k = Add (s, h) r = Neg (k) }"
    loop = f"(float[2, 3] x0) => (float[2, 3] y0, float[3, 2, 3] y1) {{ n = Constant <value = int64 {{3}}> () t = Constant <value = bool {{1}}> () y0, y1 = Loop (n, t, x0) <body = {body}> }}"
    uses += [Use("Loop", (f(2, 3),), {"body": "with Softmax"}, OLD, text=loop, reference=False)]
    step = "b (float[3] h, float[3] x) => (float[3] k, float[3] r) { k = Add (h, x) r = Softmax <axis = 0> (k) }"
    scan = f"(float[3] x0, float[4, 3] x1) => (float[3] y0, float[4, 3] y1) {{ y0, y1 = Scan (x0, x1) <num_scan_inputs = 1, body = {step}> }}"
    uses += [Use("Scan", (f(3), f(4, 3)), {"body": "with Softmax"}, since(9), text=scan)]
    constant = "(float[2] x0) => (float[2] y0) { c = Constant <value = float[2] {1.5, -2.0}> () y0 = Add (x0, c) }"
    return [*uses, Use("Constant", (f(2),), {"value": "a tensor"}, OLD, text=constant)]


def old_versions() -> list[tuple[str, int, range]]:
    """Return each version of a standard operator that opset 16 does not have, with the opsets below 16 at which it holds."""
    pairs: dict[tuple[str, int], list[int]] = {}
    for name in sorted({schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}):
        newest = onnx.defs.get_schema(name, TARGET, "") if onnx.defs.has(name, TARGET, "") else None
        for opset in OLD:
            if not onnx.defs.has(name, opset, "") or (schema := onnx.defs.get_schema(name, opset, "")).deprecated:
                continue
            if newest is None or newest.deprecated or schema.since_version != newest.since_version:
                pairs.setdefault((name, schema.since_version), []).append(opset)
    return [(name, version, range(opsets[0], opsets[-1] + 1)) for (name, version), opsets in pairs.items()]


USES = [*elementwise(), *shapes(), *reductions(), *indexing(), *resampling(), *windows(), *networks(), *control_flow()]


def sweep() -> list[Graph]:
    """Return one graph for each use of an operator and each version that takes it, at the first opset of both."""
    graphs = []
    for name, version, held in old_versions():
        for each in USES:
            opsets = range(max(held.start, each.opsets.start), min(held.stop, each.opsets.stop))
            if each.op_type == name and opsets:
                graphs.append(Graph(each, version, opsets.start))
    return graphs


def spelled(each: Use) -> str:
    return ", ".join(f"{name} {value}" for name, value in each.attributes.items()) or "no attributes"


def table() -> str:
    """Return the sweep as a table in Markdown."""
    words = {"kept": "kept, proven equal", "rewritten": "rewritten, proven equal", "refused": "refused"}
    versions: dict[tuple[str, str], list[int]] = {}
    for name, version, _ in old_versions():
        versions.setdefault((name, outcome(name, version)), []).append(version)
    swept = sweep()
    lines = [
        "| operator | since opset | graphs | attributes and constants tried | at opset 16 |",
        "|---|---|---|---|---|",
    ]
    for (name, becomes), numbers in versions.items():
        graphs = [graph for graph in swept if graph.use.op_type == name and graph.version in numbers]
        tried: dict[str, dict[str, None]] = {}
        for attribute, value in (pair for graph in graphs for pair in varied(graph.use)):
            tried.setdefault(attribute, {})[value] = None
        how = "; ".join(f"{attribute} {', '.join(values)}" for attribute, values in tried.items()) or "–"
        why = f": {REFUSED[name, numbers[0]]}" if becomes == "refused" else ""
        since_opsets = ", ".join(map(str, sorted(numbers)))
        lines.append(f"| {name} | {since_opsets} | {len(graphs)} | {how} | {words[becomes]}{why} |")
    return "\n".join(lines)


def varied(each: Use) -> list[tuple[str, str]]:
    """Return the attributes and constant inputs of a use, as words."""
    inputs = [(i, each.inputs[i].tolist()) for i in each.constant]
    constants = {f"input {i}": [round(value, 6) for value in values] for i, values in inputs if values}
    pairs = (each.attributes | constants).items()
    return [(name, str(value).replace("[", "(").replace("]", ")")) for name, value in pairs]


if __name__ == "__main__":
    write_between(Path(sys.argv[1]), BEGIN, END, table())
