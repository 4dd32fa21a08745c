"""Operators of ONNX Runtime on integers of 8 bits: its own kernels stay within their bounds, a level off only at ties.

Weights of signed integers have 7 bits: kernels that add products of neighbours in 16 bits saturate beyond.
"""

from __future__ import annotations

import numpy as np
import pytest
from bounded_nodes import worst
from contrib_nodes import Case, bounded, evaluated, expect_within_bounds, run
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

RNG = np.random.default_rng(13)


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def u8(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def i8(*shape):
    return RNG.integers(-128, 128, shape).astype(np.int8)


def weights(dtype, *shape):
    return (
        RNG.integers(0, 256, shape).astype(dtype) if dtype == np.uint8 else RNG.integers(-63, 64, shape).astype(dtype)
    )


def number(value):
    return np.array(value, np.float32)


def steps(count):
    return RNG.uniform(0.01, 0.03, count).astype(np.float32)


def on(draw, level):
    """Return a zero point in the type of the drawn numbers, told as an unsigned one."""
    return np.array(level, np.uint8) if draw is u8 else np.array(level - 128, np.int8)


def quantized(draw, *shape, step, zero):
    return [draw(*shape), number(step), on(draw, zero)]


def elementwise(draw):
    a, row = quantized(draw, 20, 30, step=0.013, zero=120), quantized(draw, 30, step=0.027, zero=100)
    many = quantized(draw, 300, step=0.05, zero=120)
    pooled = [number(0.043), on(draw, 125)]
    image, last = (quantized(draw, *shape, step=0.05, zero=120) for shape in ((1, 3, 7, 7), (1, 7, 7, 3)))
    return [
        *(Case(op_type, [*a, *row, number(0.031), on(draw, 131)]) for op_type in ("QLinearAdd", "QLinearMul")),
        Case("QLinearSigmoid", [*many, number(1 / 256), on(draw, 0)]),
        Case("QLinearLeakyRelu", [*many, number(0.06), on(draw, 120)], {"alpha": 0.1}),
        Case("QLinearAveragePool", [*image, *pooled], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        Case(
            "QLinearAveragePool",
            [*image, *pooled],
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1, "strides": [2, 2]},
        ),
        Case(
            "QLinearAveragePool",
            [*last, *pooled],
            {"kernel_shape": [3, 2], "channels_last": 1, "ceil_mode": 1, "strides": [2, 2]},
        ),
        Case("QLinearGlobalAveragePool", [*image, *pooled]),
        Case("QLinearGlobalAveragePool", [*last, *pooled], {"channels_last": 1}),
        Case(
            "QLinearConcat", [number(0.1), on(draw, 120), *a, *quantized(draw, 2, 30, step=0.23, zero=90)], {"axis": 0}
        ),
        Case(
            "QLinearWhere",
            [RNG.integers(0, 2, (20, 30)).astype(np.bool_), *a, *row, number(0.031), on(draw, 111)],
        ),
        Case("NhwcMaxPool", [draw(1, 5, 6, 2)], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        Case("NhwcMaxPool", [draw(1, 5, 6, 2)], {"kernel_shape": [3, 2], "pads": [1, 1, 0, 1]}),
        Case("DequantizeLinear", quantized(draw, 3, 4, step=0.1, zero=120)),
        Case("DequantizeLinear", [draw(3, 4), steps(3), np.repeat(on(draw, 110), 3)], {"axis": 0}),
        Case("QuantizeLinear", [f32(30, 40) * 20, number(0.1), on(draw, 120)]),
        Case("QuantizeLinear", [f32(30, 40), steps(30), np.repeat(on(draw, 110), 30)], {"axis": 0}),
    ]


def softmax(draw):
    """The kernel takes a scale of 1 / n alone: it rounds 1 / scale down, so that 1 / 255 in float32 becomes 1 / 254."""
    x, y = quantized(draw, 5, 4, 20, step=0.05, zero=120), [number(1 / 256), on(draw, 0)]
    return [
        *(Case("QLinearSoftmax", [*x, *y], {"opset": opset, "axis": axis}) for opset in (12, 13) for axis in (-1, 1)),
        Case("QLinearSoftmax", [*x, number(1 / 100), on(draw, 10)], {"opset": 13}),
    ]


def products(draw, dtype):
    zero = np.array(130, np.uint8) if dtype == np.uint8 else np.array(0, np.int8)
    a, flat = quantized(draw, 3, 5, step=0.1, zero=120), quantized(draw, 5, 3, step=0.1, zero=120)
    sums = RNG.integers(-300, 300, 4).astype(np.int32)
    return [
        Case("QGemm", [*a, weights(dtype, 5, 4), number(0.02), zero], {"alpha": 0.5}),
        Case(
            "QGemm",
            [*flat, weights(dtype, 4, 5), steps(4), np.repeat(zero, 4), sums, number(0.3), on(draw, 120)],
            {"transA": 1, "transB": 1},
        ),
        Case("MatMulIntegerToFloat", [a[0], weights(dtype, 5, 4), a[1], number(0.02), a[2], zero, f32(4)]),
        Case("MatMulIntegerToFloat", [a[0], weights(dtype, 5, 4), a[1], steps(4), a[2], np.repeat(zero, 4)]),
        Case("MatMulIntegerToFloat", [draw(2, 3, 5), weights(dtype, 5, 4), a[1], number(0.02)]),
    ]


def convolutions():
    x, last = (quantized(u8, *shape, step=0.1, zero=120) for shape in ((1, 2, 6, 6), (1, 6, 6, 2)))
    kernel, y = weights(np.int8, 4, 1, 3, 3), [number(0.5), on(u8, 120)]
    zeros = np.zeros(4, np.int8)
    return [
        Case(
            "QLinearConv",
            [*x, kernel, number(0.02), np.array(0, np.int8), *y, RNG.integers(-300, 300, 4).astype(np.int32)],
            {"group": 2, "pads": [1, 1, 1, 1]},
        ),
        Case("QLinearConv", [*last, weights(np.int8, 4, 2, 3, 3), steps(4), zeros, *y], {"channels_last": 1}),
    ]


def dynamic(dtype):
    zero = np.array(130, np.uint8) if dtype == np.uint8 else np.array(0, np.int8)
    projected = [f32(12), number(0.02), number(0.01)]
    ends, past = np.array([2, 3], np.int32), f32(2, 2, 2, 5, 2)
    return [
        Case("DynamicQuantizeMatMul", [f32(2, 30, 50), weights(dtype, 50, 4), number(0.02), zero, f32(4)]),
        Case("DynamicQuantizeMatMul", [f32(30, 50), weights(dtype, 50, 4), steps(4)]),
        Case("DynamicQuantizeMatMul", [f32(30, 50), weights(dtype, 50, 4), steps(4), np.repeat(zero, 4)]),
        *(
            Case(
                "QAttention",
                [u8(2, 3, 4), weights(dtype, 4, 12), *projected, mask, on(u8, 120), zero, state],
                {"num_heads": 2, "unidirectional": causal},
                1 if state is None else 2,
            )
            for mask, state, causal in ((None, None, 0), (ends, None, 1), (None, past, 1), (ends, past, 0))
        ),
    ]


def embeddings(draw):
    words, segments = (RNG.integers(0, count, (2, 3)).astype(np.int32) for count in (5, 2))
    tables = [draw(5, 8), draw(6, 8), draw(2, 8), draw(8), draw(8)]
    scales, zeros = [number(scale) for scale in (0.01, 0.02, 0.03, 0.01, 0.02)], [on(draw, 125)] * 5
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)

    def without_segments(three):
        return [*three[:2], None, *three[3:]]

    return [
        Case("QEmbedLayerNormalization", [words, segments, *tables, mask, *scales, *zeros], outputs=2),
        Case(
            "QEmbedLayerNormalization",
            [words, None, *without_segments(tables), None, *without_segments(scales), *without_segments(zeros)],
            {"epsilon": 0.1},
            2,
        ),
    ]


CASES = [
    *(case for draw in (u8, i8) for case in embeddings(draw)),
    *(case for draw in (u8, i8) for case in (*elementwise(draw), *softmax(draw))),
    *(case for draw, dtype in ((u8, np.uint8), (u8, np.int8), (i8, np.int8)) for case in products(draw, dtype)),
    *convolutions(),
    *(case for dtype in (np.uint8, np.int8) for case in dynamic(dtype)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_onnx_runtime_stays_within_the_bounds(case):
    expect_within_bounds(case)


def lstm(dtype=np.int8, *, batch=1, hidden=5, by_gate=False, optional=(), lengths=None, **attributes):
    """Return a layer of four steps; `optional` names the inputs that it has: bias, states, peepholes."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    shape = (directions, 4 * hidden) if by_gate else (directions,)
    zero = np.full(shape, 128, np.uint8) if dtype == np.uint8 else np.zeros(shape, np.int8)
    scales = [RNG.uniform(0.005, 0.02, shape).astype(np.float32) for _ in range(2)]
    states = [f32(directions, batch, hidden) if "states" in optional else None for _ in range(2)]
    return Case(
        "DynamicQuantizeLSTM",
        [
            f32(4, batch, 6),
            weights(dtype, directions, 6, 4 * hidden),
            weights(dtype, directions, hidden, 4 * hidden),
            f32(directions, 8 * hidden) if "bias" in optional else None,
            None if lengths is None else np.array(lengths, np.int32),
            *states,
            f32(directions, 3 * hidden) if "peepholes" in optional else None,
            *(scales[0], zero, scales[1], zero),
        ],
        {"hidden_size": hidden, **attributes},
        3,
    )


LAYERS = [
    lstm(),
    lstm(np.uint8, by_gate=True, optional=("bias",)),
    lstm(optional=("bias", "states", "peepholes")),
    lstm(direction="reverse", lengths=[2]),
    lstm(direction="bidirectional", optional=("bias", "states")),
    lstm(clip=0.5, input_forget=1),
    lstm(batch=3, lengths=[2, 4, 3]),
    lstm(batch=5, hidden=40),
    lstm(batch=3, lengths=[1, 4, 2], direction="reverse", optional=("states",)),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", LAYERS, ids=range(len(LAYERS)))
def test_an_lstm_that_quantizes_its_states_stays_within_its_bounds(case, threads):
    """With two threads the batch is divided, and each part quantized over its own range."""
    expect_within_bounds(case, threads)


def test_an_lstm_with_faulty_weights_is_over_its_bound():
    sound = lstm(optional=("bias",))
    faulty = Case(sound.op_type, list(sound.inputs), sound.attributes, 3)
    faulty.inputs[8] = np.asarray(sound.inputs[8] * 1.001, np.float32)
    got = run(faulty)
    assert worst(got[0], bounded(sound, got)[0]) > 3.0


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case("MulInteger", [u8(5), on(u8, 120), u8(5), on(u8, 100)]), lambda a, z, b, y: (a - z) * (b - y)),
        (Case("ReduceSumInteger", [i8(3, 5)], {"axes": [1], "keepdims": 0}), lambda a: a.sum(axis=1)),
        (
            Case(
                "QLinearReduceMean",
                [*quantized(u8, 3, 5, step=0.5, zero=3), number(0.3), on(u8, 1)],
                {"axes": [1], "keepdims": 1},
            ),
            lambda a, s, z, t, y: np.clip(np.rint(((a - z) * s).mean(axis=1, keepdims=True) / t) + y, 0, 255),
        ),
    ],
    ids=lambda each: each.op_type if isinstance(each, Case) else "",
)
def test_operators_that_the_cpu_lacks_give_what_their_formulas_do(case, expected):
    (y,) = evaluated(case)
    np.testing.assert_array_equal(y, expected(*(x.astype(np.float64) for x in case.inputs)))
    with pytest.raises((NoKernel, Fail)):
        run(case)


def test_zero_points_that_are_left_out_are_zero():
    """ONNX Runtime's type inference takes no sum without them."""
    a, b = i8(20), i8(20)
    case = Case("QLinearAdd", [a, number(0.1), None, b, number(0.2), None, number(0.25)])
    zero = np.array(0, np.int8)
    stated = Case("QLinearAdd", [a, number(0.1), zero, b, number(0.2), zero, number(0.25), zero])
    np.testing.assert_array_equal(evaluated(case)[0], evaluated(stated)[0])
    with pytest.raises(Fail, match="TypeInferenceError"):
        run(case)
    assert evaluated(Case("QuantizeLinear", [f32(4), number(0.1)]))[0].dtype == np.uint8


@pytest.mark.parametrize(
    ("sound", "faulty"),
    [
        (
            Case(
                "QLinearLeakyRelu",
                [*quantized(u8, 300, step=0.05, zero=120), number(0.06), on(u8, 120)],
                {"alpha": 0.1},
            ),
            {"alpha": 0.11},
        ),
        (
            Case(
                "QGemm", [*quantized(u8, 3, 5, step=0.1, zero=120), weights(np.int8, 5, 4), number(0.02), on(i8, 128)]
            ),
            {"alpha": 1.00001},
        ),
    ],
    ids=["slope", "scale"],
)
def test_a_fault_is_over_the_bound(sound, faulty):
    (bound,) = bounded(sound)
    (got,) = run(Case(sound.op_type, sound.inputs, {**sound.attributes, **faulty}))
    assert worst(got, bound) > 1.0
