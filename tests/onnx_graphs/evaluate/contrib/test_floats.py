"""Operators of ONNX Runtime on floats, but attention: ONNX Runtime's own kernels stay within their error bounds, and faults do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.special
from bounded_nodes import worst
from contrib_nodes import Case, bounded, evaluated, expect_within_bounds, run
from onnx import TensorProto
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

from actconform import Unsupported
from actconform.errors import TooLargeError
from actconform.onnx.evaluate.error_bounds.composed import BoundedOperators

RNG = np.random.default_rng(7)


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def i32(*values):
    return np.array(values, np.int32)


X = f32(2, 3, 8)
WEIGHTS, BIAS = f32(8, 5), f32(8)
IMAGE, KERNEL = f32(1, 2, 6, 5), f32(4, 1, 3, 3)
ACTIVATIONS = [
    Case("BiasGelu", [X, BIAS]),
    Case("Gelu", [X]),
    Case("FastGelu", [X]),
    Case("FastGelu", [X, BIAS]),
    Case("QuickGelu", [X]),
    Case("QuickGelu", [X], {"alpha": 1.0}),
    Case("ScaledSiLU", [X], {"alpha": 2.0}),
    Case("ScaledSiLU", [X, np.array(0.3, np.float32)]),
    Case("GatedAdd", [X, f32(2, 3, 8), f32(2, 3, 1)]),
]
PRODUCTS = [
    *(
        Case("FusedMatMul", [f32(2, 3, *a), f32(2, 3, *b)], {"transA": a[0] == 5, "transB": b[1] == 5, "alpha": 0.3})
        for a in ((4, 5), (5, 4))
        for b in ((5, 6), (6, 5))
    ),
    Case("FusedMatMul", [f32(4, 2, 3, 5), f32(2, 3, 5, 6)], {"transBatchA": 1}),
    Case("FusedMatMul", [f32(5, 2, 3, 4), f32(2, 3, 5, 6)], {"transBatchA": 1, "transA": 1}),
    Case("FusedMatMul", [f32(2, 3, 4, 5), f32(5, 2, 3, 6)], {"transBatchB": 1}),
    Case("FusedMatMul", [f32(2, 3, 4, 5), f32(6, 2, 3, 5)], {"transBatchB": 1, "transB": 1}),
    Case("FusedMatMul", [f32(5), f32(5, 3)], {"transA": 1}),
    Case("FusedMatMul", [f32(2, 3, 5), f32(5)], {"transB": 1}),
    Case("TransposeMatMul", [f32(3, 4), f32(3, 5)], {"transA": 1}),
    *(
        Case("FusedGemm", [f32(2, 3), f32(3, 4), f32(4)], {"activation": name, "alpha": 0.7, "beta": 0.2, **parameters})
        for name, parameters in {
            "Relu": {},
            "Sigmoid": {},
            "Tanh": {},
            "Softplus": {},
            "Softsign": {},
            "LeakyRelu": {"activation_alpha": 0.2},
            "Elu": {"activation_alpha": 0.5},
            "ThresholdedRelu": {"activation_alpha": 0.3},
            "HardSigmoid": {"activation_alpha": 0.2, "activation_beta": 0.4},
            "Selu": {"activation_alpha": 0.3, "activation_gamma": 2.0},
        }.items()
    ),
    Case("FusedGemm", [f32(3, 2), f32(4, 3)], {"activation": "Relu", "transA": 1, "transB": 1}),
    *(
        Case("FusedConv", [IMAGE, KERNEL, f32(4)], {"activation": name, "group": 2, "pads": [1, 1, 1, 1], **parameters})
        for name, parameters in {
            "Relu": {},
            "Sigmoid": {},
            "Tanh": {},
            "HardSwish": {},
            "LeakyRelu": {"activation_params": [0.2]},
            "HardSigmoid": {"activation_params": [0.2, 0.4]},
            "Clip": {"activation_params": [-0.5, 0.7]},
        }.items()
    ),
    Case("FusedConv", [IMAGE, KERNEL], {"group": 2, "strides": [2, 1], "activation": "Relu"}),
    Case("FusedConv", [IMAGE, KERNEL, f32(4), f32(1, 4, 4, 3)], {"group": 2, "activation": "Relu"}),
    Case(
        "ConvTransposeWithDynamicPads", [f32(1, 2, 4, 4), f32(2, 3, 3, 3), np.array([1, 1, 0, 1])], {"strides": [2, 2]}
    ),
    Case(
        "ConvTransposeWithDynamicPads",
        [f32(1, 2, 4, 4), f32(2, 3, 3, 3), np.array([1, 1, 0, 1]), f32(3)],
        {"strides": [2, 2], "output_padding": [1, 1]},
    ),
]
WORDS, SEGMENTS = RNG.integers(0, 5, (2, 3)).astype(np.int32), RNG.integers(0, 2, (2, 3)).astype(np.int32)
TABLES = [f32(5, 8), f32(6, 8), f32(2, 8), f32(8), f32(8)]
RESULT_AND_SUM = ["y", "", "", "sum"]
NORMALIZATIONS = [
    Case("SkipLayerNormalization", [X, f32(2, 3, 8), f32(8)], outputs=4),
    Case("SkipLayerNormalization", [X, f32(3, 8), f32(8), f32(8), f32(8)], {"epsilon": 1e-5}, outputs=RESULT_AND_SUM),
    Case("SkipLayerNormalization", [X, f32(1, 3, 8), f32(8), None, f32(8)], {"epsilon": 0.1}),
    Case("SkipSimplifiedLayerNormalization", [X, f32(2, 3, 8), f32(8)], outputs=["y", "", "inverse", "sum"]),
    Case("SkipSimplifiedLayerNormalization", [X, f32(3, 8), f32(8), f32(8)], {"epsilon": 0.1}, outputs=RESULT_AND_SUM),
    Case("SimplifiedLayerNormalization", [X, f32(8)], outputs=2, domain=""),
    Case("SimplifiedLayerNormalization", [X, f32(3, 8)], {"axis": 1, "epsilon": 0.1}, domain=""),
    Case("LayerNormalization", [X, f32(8), f32(8)], outputs=3, domain="", opset=12),
    Case("EmbedLayerNormalization", [WORDS, SEGMENTS, *TABLES, i32([1, 1, 0], [1, 1, 1])], outputs=2),
    Case("EmbedLayerNormalization", [WORDS, SEGMENTS, *TABLES], {"epsilon": 0.1}, outputs=3),
    *(
        Case("EmbedLayerNormalization", [WORDS, None, *TABLES[:2], None, *TABLES[3:], None, places], outputs=3)
        for places in (i32([2, 1, 0]), i32([2, 1, 0], [3, 4, 5]))
    ),
]
BOXES = np.array([[0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], [-0.2, 0.1, 0.5, 1.3], [0.85, 0.8, 0.15, 0.2]], np.float32)
TENSORS = [
    *(
        Case("Trilu", [f32(2, 3, 4), k], {"upper": upper})
        for upper in (0, 1)
        for k in (None, np.array(1), np.array(-1))
    ),
    Case("GatherND", [f32(3, 4, 5), i32([1, 2], [0, 3])]),
    *(Case("ExpandDims", [f32(3, 4), np.array(axis, np.int32)]) for axis in (0, -1, 2)),
    Case("Pad", [f32(3, 4), np.array([0, 1, 2, 3])]),
    Case("Pad", [f32(3, 4), np.array([[0, -1, 2, 3]]), f32(1)]),
    *(Case("Pad", [f32(3, 4), np.array([1, 1, 1, 1])], {"mode": mode}) for mode in ("reflect", "edge")),
    Case("Unique", [np.array([2, 1, 2, 3, 1, 0.5], np.float32)], outputs=3),
    Case("Range", [np.array([1], np.float32), np.array([5], np.float32), np.array([0.7], np.float32)]),
    Case("Range", [np.array(1), np.array(9)]),
    Case("UnfoldTensor", [f32(3, 7, 2)], {"dim": 1, "size": 3, "step": 2}),
    *(
        Case("NGramRepeatBlock", [np.array([[1, 2, 3, 1, 2], [1, 1, 1, 1, 1]]), f32(2, 6)], {"ngram_size": size})
        for size in (1, 2, 3, 6)
    ),
    *(Case("CDist", [f32(5, 7), f32(4, 7)], {"metric": metric}) for metric in ("euclidean", "sqeuclidean")),
    Case("CDist", [X[0], X[0]], {"metric": "euclidean"}),
    Case("Inverse", [f32(4, 5, 5)]),
]
RESAMPLING = [
    *(
        Case(
            "GridSample",
            [f32(1, 2, 4, 5), f32(1, 3, 3, 2)],
            {"mode": mode, "padding_mode": padding, "align_corners": a},
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding, a in (("zeros", 0), ("border", 1), ("reflection", 0))
    ),
    *(
        Case(
            "CropAndResize",
            [f32(2, 3, 6, 5), BOXES, i32(0, 1, 1, 0), i32(4, 3)],
            {"mode": mode, "extrapolation_value": 0.5},
        )
        for mode in ("bilinear", "nearest")
    ),
    Case("CropAndResize", [f32(2, 3, 6, 5), BOXES[:2], i32(0, 1), i32(1, 1)]),
]
CASES = [*ACTIVATIONS, *PRODUCTS, *NORMALIZATIONS, *TENSORS, *RESAMPLING]


def halved(case):
    """Return the case with its floats in 16 bits."""
    inputs = [x.astype(np.float16) if x is not None and x.dtype == np.float32 else x for x in case.inputs]
    return replace(case, inputs=inputs)


IN_16_BITS = [
    *(halved(case) for case in ACTIVATIONS if case.op_type in {"BiasGelu", "FastGelu", "Gelu", "QuickGelu"}),
    *(halved(case) for case in NORMALIZATIONS if case.op_type != "LayerNormalization"),
    halved(Case("FusedMatMul", [X, WEIGHTS], {"alpha": 0.3})),
    halved(Case("FusedConv", [IMAGE, KERNEL], {"activation": "Relu", "group": 2})),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_onnx_runtime_stays_within_the_bounds(case):
    expect_within_bounds(case)


@pytest.mark.parametrize("case", IN_16_BITS, ids=str)
def test_and_in_16_bits(case):
    expect_within_bounds(case)


def gelu(x):
    return x * scipy.special.ndtr(x)


def silu(x):
    return x * scipy.special.expit(x)


def softmax(x, axis=-1):
    return scipy.special.softmax(x, axis=axis)


def normalized(x, axes, epsilon=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def grouped(x, groups):
    """Return (n, h, w, c) with each group of channels normalized."""
    n, h, w, c = x.shape
    return normalized(x.reshape(n, h, w, groups, c // groups), (1, 2, 4)).reshape(x.shape)


D = [x.astype(np.float64) for x in (X, f32(2, 3, 8), f32(2, 3, 8), BIAS, WEIGHTS)]
PICTURE, SKIP, SCALE, SHIFT = (x.astype(np.float64) for x in (f32(2, 3, 4, 8), f32(2, 8), f32(8), f32(8)))
SPECTRUM = np.stack([np.fft.rfft(D[0]).real, np.fft.rfft(D[0]).imag], -1)
PAIRS = f32(5, 2).astype(np.float64), f32(5, 2).astype(np.float64)
COMPLEX = [pairs @ [1, 1j] for pairs in PAIRS]
# operators without a kernel on the CPU: inputs, and what they should give
ELSEWHERE = {
    "BiasAdd": ([D[0], D[3], D[1]], {}, D[0] + D[3] + D[1]),
    "BiasSplitGelu": ([D[0], D[3]], {}, (D[0] + D[3])[..., :4] * gelu((D[0] + D[3])[..., 4:])),
    "BiasSoftmax": (D[:2], {"axis": 2, "is_inner_broadcast": 0}, softmax(D[0] + D[1])),
    "BiasDropout": ([D[0], D[3], D[1]], {}, D[0] + D[3] + D[1]),
    "BitmaskBiasDropout": ([D[0], D[3], D[1]], {}, D[0] + D[3] + D[1]),
    "BitmaskDropout": (D[:1], {}, D[0]),
    "ComplexMul": (list(PAIRS), {}, np.stack([np.real(np.prod(COMPLEX, 0)), np.imag(np.prod(COMPLEX, 0))], -1)),
    "FusedMatMulActivation": ([D[0], D[4]], {"activation": "Relu", "alpha": 0.5}, np.maximum(0.5 * D[0] @ D[4], 0)),
    "GemmFastGelu": (
        [D[0], D[4]],
        {},
        D[0] @ D[4] * scipy.special.expit(1.5957691216057308 * (D[0] @ D[4] + 0.044715 * (D[0] @ D[4]) ** 3)),
    ),
    "GroupNorm": ([PICTURE, SCALE, SHIFT], {"groups": 2, "activation": 1}, silu(grouped(PICTURE, 2) * SCALE + SHIFT)),
    "SkipGroupNorm": (
        [PICTURE, SCALE, SHIFT, SKIP, D[3]],
        {"groups": 4, "activation": 0},
        grouped(PICTURE + SKIP[:, None, None] + D[3], 4) * SCALE + SHIFT,
    ),
    "Rfft": (D[:1], {}, SPECTRUM),
    "Irfft": ([SPECTRUM], {"signal_ndim": 1}, D[0]),
    "IsAllFinite": ([D[0], np.array([np.nan])], {}, np.array(False)),
}


@pytest.mark.parametrize("op_type", ELSEWHERE)
def test_operators_that_the_cpu_lacks_give_what_their_formulas_do(op_type):
    inputs, attributes, expected = ELSEWHERE[op_type]
    (y, *_) = evaluated(Case(op_type, inputs, attributes, outputs=2 if "Dropout" in op_type else 1))
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)
    narrow = [x.astype(np.float32) for x in inputs]
    with pytest.raises(NoKernel, match="Could not find an implementation"):
        run(Case(op_type, narrow, attributes))


def test_channels_last_and_first_are_the_same():
    attributes = {"activation": "Relu", "group": 2, "pads": [0, 1, 1, 0]}
    inputs = [IMAGE, KERNEL, f32(4), f32(1, 4, 5, 4)]
    (first,) = evaluated(Case("FusedConv", inputs, attributes))
    turned = [x.transpose(0, 2, 3, 1) if x.shape[0] == 1 else x for x in inputs]
    (last,) = evaluated(Case("NhwcFusedConv", turned, attributes))
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), first)
    attributes = {"groups": 2, "activation": 0, "channels_last": 0}
    (y,) = evaluated(Case("GroupNorm", [PICTURE.transpose(0, 3, 1, 2), SCALE, SHIFT], attributes))
    np.testing.assert_allclose(y.transpose(0, 2, 3, 1), grouped(PICTURE, 2) * SCALE + SHIFT, rtol=1e-6, atol=1e-7)


def test_dropout_keeps_everything_in_inference_and_is_refused_in_training():
    _, mask = evaluated(Case("BitmaskDropout", [f32(5, 7)], outputs=2))
    assert mask.tolist() == [2**32 - 1, 2**3 - 1]
    assert mask.dtype == np.uint32
    training = Case("BiasDropout", [X, BIAS, None, np.array(0.5, np.float32), np.array(True)], outputs=2)
    with pytest.raises(Unsupported, match="draws random numbers"):
        evaluated(training)


@pytest.mark.parametrize(
    ("case", "error"),
    [
        (Case("FusedGemm", [f32(2, 3), f32(3, 4)], {"activation": "Elu"}), Fail),
        (Case("ConvTransposeWithDynamicPads", [f32(1, 2, 4, 4), f32(2, 3, 3, 3)]), InvalidArgument),
    ],
    ids=["defaults", "no pads"],
)
def test_what_the_cpu_kernel_refuses_though_the_schema_allows_it_is_evaluated(case, error):
    assert np.isfinite(evaluated(case)[0]).all()
    with pytest.raises(error):
        run(case)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case("FusedConv", [IMAGE, KERNEL], {"activation": "Swoosh", "group": 2}), "fused activation Swoosh"),
        (Case("CDist", [f32(2, 3), f32(2, 3)], {"metric": "cosine"}), "metric = cosine"),
        (Case("GroupNorm", [f32(1, 2, 2, 4), f32(4), f32(4)], {"groups": 2, "activation": 7}), "activation = 7"),
        (Case("Rfft", [f32(4, 4)], {"signal_ndim": 2}), "several axes"),
    ],
    ids=lambda each: each.op_type if isinstance(each, Case) else "",
)
def test_what_has_no_definition_is_refused_in_words(case, words):
    with pytest.raises(Unsupported, match=words):
        evaluated(case)


@pytest.mark.parametrize(
    "case",
    [
        Case("FusedMatMul", [f32(100_000, 1), f32(1, 100_000)]),
        Case("CropAndResize", [f32(1, 1, 4, 4), BOXES[:1], i32(0), i32(10**6, 10**6)]),
        Case("UnfoldTensor", [f32(10**6)], {"size": 500_000}),
    ],
    ids=str,
)
def test_what_is_larger_than_memory_is_refused_before_it_is_made(case):
    for compute in (evaluated, bounded):
        with pytest.raises(TooLargeError, match="at most"):
            compute(case)


def test_a_constant_of_a_definition_is_as_exact_as_its_format_holds_it():
    in_32, in_16 = BoundedOperators(TensorProto.FLOAT), BoundedOperators(TensorProto.FLOAT16)
    assert in_32.approximation(0.1).error == 2.0**-24 * 0.1
    assert in_32.approximation(1.7020000219345093).error is None
    assert in_16.approximation(1.7020000219345093).error == 2.0**-11 * 1.7020000219345093
    assert in_16.approximation(np.arange(5)).error is None
    assert in_16.approximation(-np.inf).error is None


# (what the graph says, what a runtime would compute that has the fault)
FAULTS = {
    "tanh in place of erf": (Case("BiasGelu", [X, BIAS]), Case("FastGelu", [X, BIAS])),
    "alpha": (Case("QuickGelu", [X]), Case("QuickGelu", [X], {"alpha": 1.7})),
    "epsilon": (
        Case("SkipLayerNormalization", [X, X, BIAS], {"epsilon": 1e-5}),
        Case("SkipLayerNormalization", [X, X, BIAS], {"epsilon": 1e-4}),
    ),
    "scale of the product": (
        Case("FusedMatMul", [X, WEIGHTS], {"alpha": 0.125}),
        Case("FusedMatMul", [X, WEIGHTS], {"alpha": 0.1251}),
    ),
    "slope": (
        Case("FusedConv", [IMAGE, KERNEL], {"group": 2, "activation": "LeakyRelu", "activation_params": [0.1]}),
        Case("FusedConv", [IMAGE, KERNEL], {"group": 2, "activation": "LeakyRelu", "activation_params": [0.1001]}),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_over_the_bound(fault):
    sound, faulty = FAULTS[fault]
    bound, got = bounded(sound)[0], run(faulty)[0]
    assert worst(got, bound) > 10.0
    assert np.max(bound.error) < 1e-3 * np.abs(bound.value).max()
