"""The witnesses' operators of layers, in float64, against torch in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from actconform import Unsupported
from actconform.onnx.evaluate import layers, windows
from actconform.onnx.evaluate.elementwise import OPERATIONS
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.evaluate.reference import reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


class One(NamedTuple):
    """One node, and its true outputs as torch's functions f give them of tensors t."""

    op_type: str
    arrays: list[NDArray[Any] | None]
    truth: Callable[[Any, Any], Any]
    attributes: dict[str, Any] | None = None
    opset: int = 22
    outputs: int = 1


DRAW = np.random.default_rng(1)


def normal(*shape: int) -> NDArray[np.float64]:
    return DRAW.standard_normal(shape)


def ones(*shape: int) -> NDArray[np.float64]:
    return np.ones(shape)


X, CHANNELS = normal(2, 4, 9, 7), [normal(4) for _ in range(3)] + [DRAW.uniform(0.5, 2.0, 4)]
G, B, MEAN, VARIANCE = CHANNELS
W, BIAS, TURNED, BIAS3 = normal(6, 4, 3, 2), normal(6), normal(4, 3, 3, 2), normal(3)
EPSILON, MOMENTUM = float(np.float32(1e-3)), float(np.float32(0.8))
Q, K, V, MASK, Q3 = normal(2, 3, 5, 4), normal(2, 3, 6, 4), normal(2, 3, 6, 4), normal(5, 6), normal(2, 5, 8)
SCORES, LABELS, CLASSES = normal(5, 3, 2), DRAW.integers(0, 3, (5, 2)), DRAW.uniform(0.5, 2.0, 3)


def heads(t: Any) -> Any:
    return t.view(2, 5, 2, 4).transpose(1, 2)


def padded(f: Any, t: Any, *amounts: int) -> Any:
    return f.pad(t, amounts, value=0.0)


CASES = {
    "conv": One("Conv", [X, W, BIAS], lambda f, t: f.conv2d(*t)),
    "conv-strided-dilated": One(
        "Conv",
        [X, W, BIAS],
        lambda f, t: f.conv2d(*t, (2, 1), (1, 2), (2, 3)),
        {"strides": [2, 1], "pads": [1, 2, 1, 2], "dilations": [2, 3]},
    ),
    "conv-uneven-pads": One(
        "Conv", [X, W], lambda f, t: f.conv2d(padded(f, t[0], 2, 3, 0, 1), t[1]), {"pads": [0, 2, 1, 3]}
    ),
    "conv-grouped": One("Conv", [X, normal(6, 2, 3, 3)], lambda f, t: f.conv2d(*t, groups=2), {"group": 2}),
    "conv-depthwise": One("Conv", [X, normal(4, 1, 3, 3)], lambda f, t: f.conv2d(*t, groups=4), {"group": 4}),
    "conv-1d": One("Conv", [normal(2, 3, 8), normal(5, 3, 3)], lambda f, t: f.conv1d(*t)),
    "conv-3d": One(
        "Conv",
        [normal(1, 2, 5, 6, 4), normal(3, 2, 2, 3, 2)],
        lambda f, t: f.conv3d(*t, stride=2),
        {"strides": [2, 2, 2]},
    ),
    "conv-same-upper": One(
        "Conv",
        [X, W],
        lambda f, t: f.conv2d(padded(f, t[0], 0, 1, 1, 1), t[1], stride=2),
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    "conv-same-lower": One(
        "Conv", [X, W], lambda f, t: f.conv2d(padded(f, t[0], 1, 0, 1, 1), t[1]), {"auto_pad": "SAME_LOWER"}
    ),
    "conv-valid": One("Conv", [X, W], lambda f, t: f.conv2d(*t, stride=2), {"auto_pad": "VALID", "strides": [2, 2]}),
    "conv-transpose": One("ConvTranspose", [X, TURNED, BIAS3], lambda f, t: f.conv_transpose2d(*t)),
    "conv-transpose-strided": One(
        "ConvTranspose",
        [X, TURNED, BIAS3],
        lambda f, t: f.conv_transpose2d(*t, (3, 2), (1, 1), (2, 1), 1, (2, 3)),
        {"strides": [3, 2], "pads": [1, 1, 1, 1], "output_padding": [2, 1], "dilations": [2, 3]},
    ),
    "conv-transpose-grouped": One(
        "ConvTranspose",
        [X, TURNED],
        lambda f, t: f.conv_transpose2d(*t, stride=2, groups=2),
        {"strides": [2, 2], "group": 2},
    ),
    "conv-transpose-same-upper": One(
        "ConvTranspose",
        [X, normal(4, 3, 3, 3)],
        lambda f, t: f.conv_transpose2d(*t, stride=2)[:, :, :18, :14],
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "conv-transpose-same-lower": One(
        "ConvTranspose",
        [X, normal(4, 3, 3, 3)],
        lambda f, t: f.conv_transpose2d(*t, stride=2)[:, :, 1:, 1:],
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
    ),
    **{
        f"max-pool-{ceil=}": One(
            "MaxPool",
            [X],
            lambda f, t, ceil=ceil: f.max_pool2d(*t, (2, 3), (3, 2), (1, 1), (2, 1), ceil_mode=bool(ceil)),
            {"kernel_shape": [2, 3], "strides": [3, 2], "pads": [1, 1, 1, 1], "dilations": [2, 1], "ceil_mode": ceil},
        )
        for ceil in (0, 1)
    },
    "max-pool-none-begins-in-padding": One(
        "MaxPool",
        [normal(1, 1, 1, 5)],
        lambda f, t: f.max_pool2d(*t, (1, 2), (1, 3), (0, 1), ceil_mode=True),
        {"kernel_shape": [1, 2], "strides": [1, 3], "pads": [0, 1, 0, 1], "ceil_mode": 1},
    ),
    "max-pool-same": One(
        "MaxPool",
        [-np.abs(X)],  # so that zeros in the padding would win
        lambda f, t: f.max_pool2d(f.pad(t[0], (0, 1, 0, 1), value=-np.inf), 2, 2),
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    **{
        f"average-pool-{ceil=}-{padding=}": One(
            "AveragePool",
            [X],
            lambda f, t, ceil=ceil, padding=padding: f.avg_pool2d(*t, 3, 2, 1, bool(ceil), bool(padding)),
            {
                "kernel_shape": [3, 3],
                "strides": [2, 2],
                "pads": [1] * 4,
                "ceil_mode": ceil,
                "count_include_pad": padding,
            },
        )
        for ceil in (0, 1)
        for padding in (0, 1)
    },
    "global-average-pool": One("GlobalAveragePool", [X], lambda f, t: f.adaptive_avg_pool2d(*t, 1)),
    "gemm": One(
        "Gemm",
        [normal(4, 3), normal(5, 4), normal(5)],
        lambda _, t: 2 * (t[0].T @ t[1].T) + 0.5 * t[2],
        {"alpha": 2.0, "beta": 0.5, "transA": 1, "transB": 1},
    ),
    "gemm-plain": One("Gemm", [normal(4, 3), normal(3, 4)], lambda _, t: t[0] @ t[1]),
    "matmul": One("MatMul", [normal(2, 1, 3, 4), normal(5, 4, 2)], lambda _, t: t[0] @ t[1]),
    "matmul-vector": One("MatMul", [normal(2, 3, 4), normal(4)], lambda _, t: t[0] @ t[1]),
    "einsum": One(
        "Einsum",
        [normal(2, 3, 4), normal(5, 4, 2)],
        lambda _, t: (t[0][:, None] @ t[1][None]).permute(0, 1, 3, 2),
        {"equation": "bij, kjl -> bkli"},
    ),
    "batch-norm": One(
        "BatchNormalization",
        [X, G, B, MEAN, VARIANCE],
        lambda f, t: f.batch_norm(t[0], t[3], t[4], t[1], t[2], eps=EPSILON),
        {"epsilon": 1e-3},
    ),
    "batch-norm-training": One(
        "BatchNormalization",
        [X, G, B, MEAN, VARIANCE],
        lambda f, t: (
            f.batch_norm(t[0], None, None, t[1], t[2], training=True, eps=EPSILON),
            MOMENTUM * t[3] + (1 - MOMENTUM) * t[0].mean((0, 2, 3)),
            MOMENTUM * t[4] + (1 - MOMENTUM) * t[0].var((0, 2, 3), unbiased=False),
        ),
        {"epsilon": 1e-3, "momentum": 0.8, "training_mode": 1},
        outputs=3,
    ),
    "layer-norm": One(
        "LayerNormalization",
        [X, normal(9, 7), normal(9, 7)],
        lambda f, t: f.layer_norm(t[0], (9, 7), t[1], t[2], EPSILON),
        {"axis": 2, "epsilon": 1e-3},
    ),
    "layer-norm-without-bias": One(
        "LayerNormalization",
        [X, normal(7)],
        lambda f, t: f.layer_norm(t[0], (7,), t[1], None, EPSILON),
        {"epsilon": 1e-3},
    ),
    "rms-norm": One(
        "RMSNormalization", [X, normal(7)], lambda f, t: f.rms_norm(t[0], (7,), t[1], EPSILON), {"epsilon": 1e-3}, 24
    ),
    "instance-norm": One(
        "InstanceNormalization",
        [X, G, B],
        lambda f, t: f.instance_norm(t[0], None, None, t[1], t[2], eps=EPSILON),
        {"epsilon": 1e-3},
    ),
    "group-norm": One(
        "GroupNormalization",
        [X, G, B],
        lambda f, t: f.group_norm(t[0], 2, t[1], t[2], EPSILON),
        {"num_groups": 2, "epsilon": 1e-3},
    ),
    "group-norm-of-opset-18": One(
        "GroupNormalization",
        [X, G[:2], B[:2]],
        lambda f, t: f.group_norm(t[0], 2, t[1].repeat_interleave(2), t[2].repeat_interleave(2), EPSILON),
        {"num_groups": 2, "epsilon": 1e-3},
        18,
    ),
    "dropout": One("Dropout", [X, np.array(0.25)], lambda _, t: (t[0], t[0] == t[0]), outputs=2),
    **{
        f"cross-entropy-{reduction}": One(
            "SoftmaxCrossEntropyLoss",
            [SCORES, LABELS, CLASSES],
            lambda f, t, reduction=reduction: (
                f.cross_entropy(*t, ignore_index=1, reduction=reduction),
                f.log_softmax(t[0], 1),
            ),
            {"reduction": reduction, "ignore_index": 1},
            outputs=2,
        )
        for reduction in ("none", "sum", "mean")
    },
    "negative-log-likelihood": One("NegativeLogLikelihoodLoss", [SCORES, LABELS], lambda f, t: f.nll_loss(*t)),
    "negative-log-likelihood-weighted": One(
        "NegativeLogLikelihoodLoss", [SCORES, LABELS, CLASSES], lambda f, t: f.nll_loss(*t)
    ),
    "attention": One("Attention", [Q, K, V], lambda f, t: f.scaled_dot_product_attention(*t), opset=24),
    "attention-masked": One(
        "Attention", [Q, K, V, MASK], lambda f, t: f.scaled_dot_product_attention(*t[:3], attn_mask=t[3]), opset=24
    ),
    "attention-causal": One(
        "Attention",
        [Q, K[:, :, :5], V[:, :, :5]],
        lambda f, t: f.scaled_dot_product_attention(*t, is_causal=True, scale=0.25),
        {"is_causal": 1, "scale": 0.25},
        24,
    ),
    "attention-of-rank-3": One(
        "Attention",
        [Q3, Q3, Q3],
        lambda f, t: f.scaled_dot_product_attention(*map(heads, t)).transpose(1, 2).reshape(2, 5, 8),
        {"q_num_heads": 2, "kv_num_heads": 2},
        24,
    ),
    "prelu": One("PRelu", [X, G.reshape(4, 1, 1)], lambda f, t: f.prelu(t[0], t[1].ravel())),
    "cumulative-sum": One("CumSum", [X, np.array(2)], lambda _, t: t[0].cumsum(2)),
    "cumulative-sum-reversed": One(
        "CumSum",
        [X, np.array(2)],
        lambda _, t: t[0].flip(2).cumsum(2).flip(2) - t[0],
        {"exclusive": 1, "reverse": 1},
    ),
    "lowest": One(
        "TopK",
        [X, np.array([3])],
        lambda _, t: t[0].topk(3, 2, largest=False),
        {"axis": 2, "largest": 0},
        outputs=2,
    ),
    "triangle": One("Trilu", [X, np.array(1)], lambda _, t: t[0].tril(1), {"upper": 0}),
    **{
        f"norm-pool-{p}": One(
            "LpPool",
            [X],
            lambda f, t, p=p: (
                f.conv2d(t[0].abs().view(8, 1, 9, 7) ** p, t[0].new_ones(1, 1, 2, 3), None, (1, 2), (1, 0))
                .pow(1 / p)
                .view(2, 4, 10, 3)
            ),
            {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 0, 1, 0], "p": p},
        )
        for p in (1, 2, 3)
    },
    "global-norm-pool": One(
        "GlobalLpPool", [X], lambda _, t: (t[0].abs() ** 3).sum((2, 3), keepdim=True) ** (1 / 3), {"p": 3}
    ),
    **{
        f"rows-by-norm-{p}": One(
            "LpNormalization", [X], lambda f, t, p=p: f.normalize(t[0], p, 1, eps=0.0), {"axis": 1, "p": p}
        )
        for p in (1, 2)
    },
    "nothing-by-its-norm": One("LpNormalization", [np.zeros((2, 3))], lambda _, t: t[0]),
    "mean-variance-norm": One(
        "MeanVarianceNormalization",
        [X],
        lambda _, t: (
            (t[0] - t[0].mean((0, 2, 3), keepdim=True)) / (t[0].std((0, 2, 3), unbiased=False, keepdim=True) + 1e-9)
        ),
    ),
    **{
        f"response-norm-{size}": One(
            "LRN",
            [X],
            lambda f, t, size=size: f.local_response_norm(t[0], size, float(np.float32(0.1)), 0.5, 2.0),
            {"size": size, "alpha": 0.1, "beta": 0.5, "bias": 2.0},
        )
        for size in (1, 3)
    },
    "padded-and-cut": One(
        "Pad",
        [X, np.array([0, -1, 2, -3, 0, 0, -1, 4]), np.array(2.5)],
        lambda f, t: f.pad(t[0], (-3, 4, 2, -1, -1, 0), value=2.5),
    ),
    **{
        f"padded-by-{mode}": One(
            "Pad",
            [X, np.array([-2, 3, -1, 1]), None, np.array([-1, 2])],
            lambda f, t, named=named: f.pad(t[0][:, :, :, 2:-1], (0, 0, 3, 1), mode=named),
            {"mode": mode},
        )
        for mode, named in (("reflect", "reflect"), ("edge", "replicate"), ("wrap", "circular"))
    },
    "cumulative-sum-along-a-list": One("CumSum", [X, np.array([-1])], lambda _, t: t[0].cumsum(-1)),
    "cumulative-sum-of-one": One("CumSum", [X[:1], np.array(0)], lambda _, t: 0 * t[0], {"exclusive": 1}),
    "cropped-about-the-centre": One(
        "CenterCropPad", [X, np.array([12, 2])], lambda f, t: f.pad(t[0][..., 2:4], (0, 0, 1, 2)), {"axes": [-2, 3]}
    ),
    "unpooled": One(
        "MaxUnpool",
        [normal(1, 1, 2), np.array([[[1, 2]]])],
        lambda f, t: f.max_unpool1d(t[0], t[1], 2),
        {"kernel_shape": [2], "strides": [2]},
    ),
    "columns-to-image": One(
        "Col2Im",
        [normal(2, 12, 9), np.array([5, 6]), np.array([2, 2])],
        lambda f, t: f.fold(t[0], (5, 6), 2, (2, 1), (1, 0), (2, 2)),
        {"dilations": [2, 1], "pads": [1, 0, 1, 0], "strides": [2, 2]},
    ),
    "power": One("Pow", [np.abs(X), np.array(2.5)], lambda _, t: t[0] ** 2.5),
    "power-of-integer": One("Pow", [X, np.array(3)], lambda _, t: t[0] ** 3),
    "product": One("ReduceProd", [X, np.array([2])], lambda _, t: t[0].prod(2), {"keepdims": 0}),
}

RESIZED = {
    "nearest": ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, {}),
    "nearest-exact": (
        {"mode": "nearest", "coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"},
        {},
    ),
    "bilinear": ({"mode": "linear", "coordinate_transformation_mode": "half_pixel"}, {}),
    "bilinear-corners": (
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"align_corners": True},
    ),
    "bicubic": ({"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": -0.75}, {}),
}

# Where onnx's reference does less: it works on a float32 copy, or takes a cubic's neighbours otherwise.
NOT_IN_REFERENCE = {"group-norm", "bicubic"} | {
    # it has no absolute value in a norm, takes the batch for the channels, is in float32
    *(name for name in CASES if name.startswith(("rows-by", "nothing-by", "response", "mean-variance", "global-norm"))),
    "cumulative-sum-along-a-list",
}


def model_of(one: One) -> tuple[bytes, dict[str, Any]]:
    inputs = {f"in{i}": array for i, array in enumerate(one.arrays) if array is not None}
    names = [f"in{i}" if array is not None else "" for i, array in enumerate(one.arrays)]
    node = helper.make_node(
        one.op_type, names, [f"out{i}" for i in range(one.outputs)], name="the-node", **(one.attributes or {})
    )
    typed = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape))
        for name, array in inputs.items()
    ]
    graph = helper.make_graph([node], "one", typed, [onnx.ValueInfoProto(name=name) for name in node.output])
    opsets = [helper.make_opsetid("", one.opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnx.shape_inference.infer_shapes(model).SerializeToString(), inputs


def assert_true(one: One, *, reference_too: bool = True) -> None:
    torch = pytest.importorskip("torch")
    truth = one.truth(
        torch.nn.functional, [torch.from_numpy(array.copy()) for array in one.arrays if array is not None]
    )
    truths = [np.asarray(each) for each in truth] if isinstance(truth, tuple) else [np.asarray(truth)]
    model, inputs = model_of(one)
    reevaluation = (
        [CorrectlyRoundedEvaluator(model).forward, reference(model)]
        if reference_too
        else [CorrectlyRoundedEvaluator(model).forward]
    )
    for forward in reevaluation:
        answers = forward(inputs)
        for i, expected in enumerate(truths):
            assert answers[f"out{i}"].shape == expected.shape
            np.testing.assert_allclose(answers[f"out{i}"], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_an_operator_has_its_true_value(name: str) -> None:
    assert_true(CASES[name], reference_too=name not in NOT_IN_REFERENCE)


@pytest.mark.parametrize("size", [(18, 21), (5, 4), (13, 3), (9, 1)])
@pytest.mark.parametrize("name", RESIZED)
def test_an_image_is_resized_as_torch_does(name: str, size: tuple[int, int]) -> None:
    attributes, options = RESIZED[name]

    def truth(f: Any, t: Any) -> Any:
        return f.interpolate(t[0], size=size, mode=name.removesuffix("-corners"), **options)

    reference_too = name not in NOT_IN_REFERENCE
    assert_true(One("Resize", [X, None, None, np.array([2, 4, *size])], truth, attributes), reference_too=reference_too)
    along = {**attributes, "axes": [-2, -1]}
    model, inputs = model_of(One("Resize", [X, None, None, np.array(size)], truth, along))
    whole, _ = model_of(One("Resize", [X, None, None, np.array([2, 4, *size])], truth, attributes))
    other = {"in0": X, "in3": np.array([2, 4, *size])}
    np.testing.assert_array_equal(
        CorrectlyRoundedEvaluator(model).forward(inputs)["out0"],
        CorrectlyRoundedEvaluator(whole).forward(other)["out0"],
    )


def test_an_image_is_resized_by_the_scale_that_is_given() -> None:
    scales = np.array([1.0, 1.0, 2.0, 0.6], np.float32)

    def truth(f: Any, t: Any) -> Any:
        factors = float(scales[2]), float(scales[3])
        return f.interpolate(t[0], scale_factor=factors, mode="bilinear", recompute_scale_factor=False)

    assert_true(One("Resize", [X, None, scales], truth, RESIZED["bilinear"][0]))


@pytest.mark.parametrize("size", [(4, 3), (16, 18), (12, 10)])
def test_both_witnesses_know_the_nearest_pixel_as_tf2onnx_spells_it(size: tuple[int, int]) -> None:
    attributes = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}
    image = normal(2, 3, 8, 6)  # halved, every pixel's middle is between two
    arrays = [image, None, None, np.array([2, 3, *size])]
    assert_true(
        One("Resize", arrays, lambda f, t: f.interpolate(t[0], size=size, mode="nearest-exact"), attributes, 15)
    )


CROP = np.array([0.1, 0.2, 0.25, -0.1, 0.9, 0.7, 1.0, 1.2])  # of axes of 2, 4, 9 and 7


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("exclude", [0, 1])
@pytest.mark.parametrize(
    "settings",
    [
        ({"antialias": 1}, [2, 4, 4, 3], []),
        ({"antialias": 1}, [2, 4, 20, 5], []),
        ({"antialias": 1, "coordinate_transformation_mode": "asymmetric"}, [], [1.0, 1.0, 0.55, 0.7]),
        ({"antialias": 1, "axes": [2, 3]}, [5, 2], []),
        ({"keep_aspect_ratio_policy": "not_larger"}, [2, 4, 5, 21], []),
        ({"keep_aspect_ratio_policy": "not_larger", "axes": [2, 3]}, [5, 21], []),
        ({"keep_aspect_ratio_policy": "not_smaller", "axes": [2, 3]}, [5, 21], []),
    ],
    ids=str,
)
def test_resize_does_as_onnx_says(
    mode: str, exclude: int, settings: tuple[dict[str, Any], list[int], list[float]]
) -> None:
    attributes, sizes, scales = settings
    if mode == "nearest" and "antialias" in attributes:
        pytest.skip("the standard knows it for linear and cubic alone")
    arrays = (
        [X, None, np.array(scales, np.float32), np.array(sizes)] if sizes else [X, None, np.array(scales, np.float32)]
    )
    named = {**attributes, "mode": mode, "exclude_outside": exclude if mode != "nearest" else 0}
    model, inputs = model_of(One("Resize", arrays, lambda _, t: t, named))
    expected = reference(model)(inputs)["out0"]
    got = CorrectlyRoundedEvaluator(model).forward(inputs)["out0"]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-5)  # onnx has its coordinates in float32


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("axes", [None, [2, 3]])
def test_a_part_of_an_image_is_resized_as_in_onnx_runtime(mode: str, axes: list[int] | None) -> None:
    runtime = pytest.importorskip("onnxruntime")
    crop = (
        np.concatenate([[0, 0], CROP[2:4], [1, 1], CROP[6:]]) if axes is None else np.concatenate([CROP[2:4], CROP[6:]])
    )
    sizes = [2, 4, 5, 6] if axes is None else [5, 6]
    settings = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": -2.5}
    arrays = [X.astype(np.float32), crop.astype(np.float32), None, np.array(sizes)]
    model, inputs = model_of(One("Resize", arrays, lambda _, t: t, settings | ({"axes": axes} if axes else {}), 18))
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    np.testing.assert_allclose(CorrectlyRoundedEvaluator(model).forward(inputs)["out0"], expected, rtol=1e-5, atol=1e-5)


def test_dropout_in_training_is_unsupported_but_not_where_it_drops_nothing() -> None:
    one = One("Dropout", [X, np.array(0.5), np.array(True)], lambda _, t: t)
    model, inputs = model_of(one)
    with pytest.raises(Unsupported, match="it draws random numbers"):
        CorrectlyRoundedEvaluator(model).forward(inputs)
    y = CorrectlyRoundedEvaluator(model).forward({**inputs, "in1": np.array(0.0)})["out0"]
    np.testing.assert_array_equal(y, X)


def test_an_output_that_no_operator_gives_is_unsupported() -> None:
    one = One("AveragePool", [X], lambda _, t: t, {"kernel_shape": [2, 2]}, outputs=2)
    model, inputs = model_of(one)
    with pytest.raises(Unsupported, match="knows 1 outputs of operator AveragePool"):
        CorrectlyRoundedEvaluator(model).forward(inputs)


def test_the_indices_of_max_pool_point_at_the_first_maximum_in_the_whole_tensor() -> None:
    x = np.round(np.random.default_rng(3).normal(size=(2, 3, 5, 6)))  # ties
    settings = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}
    model, inputs = model_of(One("MaxPool", [x], lambda _, t: t, settings, outputs=2))
    got = CorrectlyRoundedEvaluator(model).forward(inputs)
    y, places = torch.nn.functional.max_pool2d(torch.tensor(x), (3, 2), 2, (1, 0), return_indices=True)
    np.testing.assert_array_equal(got["out0"], y.numpy())
    np.testing.assert_array_equal(x.ravel()[got["out1"]], y.numpy())
    whole = places.numpy() + 30 * np.arange(6).reshape(2, 3, 1, 1)
    np.testing.assert_array_equal(got["out1"], whole)


def test_a_maximum_of_integers_is_one_and_nan_spreads() -> None:
    small = np.arange(-8, 8, dtype=np.int8).reshape(1, 1, 4, 4)
    model, inputs = model_of(One("MaxPool", [small], lambda _, t: t, {"kernel_shape": [3, 3], "pads": [1] * 4}))
    y = CorrectlyRoundedEvaluator(model).forward(inputs)["out0"]
    assert y.dtype == np.int8
    assert y[0, 0].tolist() == [[-3, -2, -1, -1], [1, 2, 3, 3], [5, 6, 7, 7], [5, 6, 7, 7]]
    holed = np.array([[[[1.0, np.nan, 3.0, 4.0]]]])
    model, inputs = model_of(One("MaxPool", [holed], lambda _, t: t, {"kernel_shape": [1, 2], "strides": [1, 2]}))
    np.testing.assert_array_equal(CorrectlyRoundedEvaluator(model).forward(inputs)["out0"], [[[[np.nan, 4.0]]]])


def test_sums_of_products_are_rounded_once() -> None:
    a, b = np.full((1, 3), 1, ml_dtypes.bfloat16), np.array([[256], [1], [1]], ml_dtypes.bfloat16)
    model, inputs = model_of(One("MatMul", [a, b], lambda _, t: t))
    assert onnx.load_from_string(model).graph.output[0].type.tensor_type.elem_type == TensorProto.BFLOAT16
    assert float(CorrectlyRoundedEvaluator(model).forward(inputs)["out0"][0, 0]) == 258.0  # 256 after each of two sums


def test_every_operator_of_layers_is_among_the_cases() -> None:
    modules = {layers.__name__, windows.__name__}
    own = {op_type for op_type, compute in OPERATIONS.items() if compute.__module__ in modules}
    assert own - {"Resize"} <= {one.op_type for one in CASES.values()}


def test_the_reference_takes_a_global_maximum_over_one_spatial_axis() -> None:
    x = normal(2, 3, 5)
    assert_true(One("GlobalMaxPool", [x], lambda _, t: t[0].amax(2, keepdim=True)))
