"""Error bounds of products, reductions, softmax, normalizations, losses and attention."""

from __future__ import annotations

import numpy as np
import pytest
from bounded_nodes import BF16, DTYPES, F16, F32, bounds, moved, rounded_to, run, values, wide, worst
from onnx import TensorProto

INT64 = TensorProto.INT64


def normal(*shape, seed=1, scale=1.0):
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype(np.float32)


def hard(*shape, seed=1):
    """Return numbers of all sizes, such that sums cancel."""
    rng = np.random.default_rng([seed, *shape])
    x = rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 4, shape)
    half = x.shape[-1] // 2
    x[..., :half] = -x[..., half : 2 * half] * (1 + 1e-6 * rng.standard_normal(x[..., :half].shape))
    return x.astype(np.float32)


def offset(*shape, seed=1, by=30.0):
    return normal(*shape, seed=seed) + np.float32(by)


def near_one(*shape):
    return (1 + 0.2 * normal(*shape)).astype(np.float32)


LABELS = np.random.default_rng(1).integers(0, 10, (6, 4))
NORM = [near_one(6), normal(6), normal(6, seed=3) + 30, np.abs(normal(6, seed=4)) + np.float32(0.1)]
AXIS = np.array([1])
MASK = (normal(6, 7) > 0) | (np.arange(7) == 0)
GQA = {"q_num_heads": 4, "kv_num_heads": 2}

# operator, inputs, attributes, opset, element types of the outputs
CASES = [
    ("MatMul", [normal(9, 300), normal(300, 5)], {}, 22, (F32,)),
    ("MatMul", [hard(9, 300), hard(300, 5)], {}, 22, (F32,)),
    ("MatMul", [normal(2, 3, 4, 40), normal(3, 40, 2)], {}, 22, (F32,)),
    ("MatMul", [normal(40), normal(40, 2)], {}, 22, (F32,)),
    ("MatMul", [np.full((2, 2), 1e-25, np.float32), np.full((2, 2), 3e-15, np.float32)], {}, 22, (F32,)),
    ("Gemm", [hard(9, 300), hard(300, 5)], {}, 22, (F32,)),
    ("Gemm", [hard(300, 9), normal(5, 300), normal(5)], {"transA": 1, "transB": 1, "alpha": 0.3, "beta": -2.5}, 22, (F32,)),
    ("Gemm", [normal(9, 3), normal(3, 5), 1e3 * normal(9, 5)], {}, 22, (F32,)),
    ("Einsum", [normal(2, 3, 40), normal(2, 40, 5)], {"equation": "bij,bjk->bik"}, 22, (F32,)),
    ("Einsum", [normal(2, 3, 40), normal(2, 3, 40)], {"equation": "...ij,...ij->..."}, 22, (F32,)),
    ("ReduceSum", [hard(9, 500), AXIS], {}, 22, (F32,)),
    ("ReduceSum", [hard(3, 4, 50), np.array([0, -1])], {"keepdims": 0}, 22, (F32,)),
    ("ReduceSum", [hard(9, 50)], {"noop_with_empty_axes": 1}, 22, (F32,)),
    ("ReduceL1", [hard(9, 50)], {"noop_with_empty_axes": 1}, 22, (F32,)),
    ("ReduceL2", [hard(9, 50)], {"noop_with_empty_axes": 1}, 22, (F32,)),
    ("ReduceSumSquare", [hard(9, 50)], {"noop_with_empty_axes": 1}, 22, (F32,)),
    ("ReduceLogSum", [np.abs(hard(9, 50))], {"noop_with_empty_axes": 1}, 22, (F32,)),
    ("ReduceLogSumExp", [normal(9, 50)], {"noop_with_empty_axes": 1}, 22, (F32,)),
    ("ReduceMax", [hard(9, 50)], {"noop_with_empty_axes": 1}, 22, (F32,)),
    ("ReduceMean", [hard(9, 500)], {}, 22, (F32,)),
    ("ReduceMean", [hard(9, 5, 7)], {"axes": [1, 2]}, 13, (F32,)),
    ("ReduceL1", [hard(9, 500), AXIS], {}, 22, (F32,)),
    ("ReduceL2", [hard(9, 500), AXIS], {}, 22, (F32,)),
    ("ReduceSumSquare", [hard(9, 500), AXIS], {}, 22, (F32,)),
    ("ReduceProd", [near_one(9, 50), AXIS], {}, 22, (F32,)),
    ("ReduceLogSum", [np.abs(hard(9, 50)), AXIS], {}, 22, (F32,)),
    ("ReduceLogSumExp", [normal(9, 500, scale=5), AXIS], {}, 22, (F32,)),
    ("ReduceMax", [hard(9, 50), AXIS], {}, 22, (F32,)),
    ("ReduceMin", [hard(9, 50), AXIS], {}, 22, (F32,)),
    ("CumSum", [hard(9, 50), np.array(1)], {}, 22, (F32,)),
    ("CumSum", [hard(9, 50), np.array(-1)], {"reverse": 1, "exclusive": 1}, 22, (F32,)),
    ("Softmax", [normal(9, 300)], {}, 22, (F32,)),
    ("Softmax", [normal(9, 300, scale=40)], {}, 22, (F32,)),
    ("Softmax", [normal(4, 30, 5, scale=9)], {"axis": 1}, 22, (F32,)),
    ("LogSoftmax", [normal(9, 300, scale=40)], {}, 22, (F32,)),
    ("LogSoftmax", [normal(4, 30, 5)], {"axis": 1}, 22, (F32,)),
    ("Softmax", [normal(4, 30, 5, scale=9)], {"axis": 1}, 11, (F32,)),
    ("LogSoftmax", [normal(4, 30, 5, scale=9)], {"axis": -1}, 11, (F32,)),
    ("BatchNormalization", [offset(3, 6, 5), *NORM], {}, 22, (F32,)),
    ("BatchNormalization", [offset(3, 6, 5, by=0), *NORM], {"epsilon": 1e-3}, 13, (F32,)),
    ("LayerNormalization", [offset(9, 300), near_one(300), normal(300)], {}, 22, (F32, F32, F32)),
    ("LayerNormalization", [normal(3, 4, 5, scale=1e-3), near_one(4, 5)], {"axis": 1}, 22, (F32,)),
    ("InstanceNormalization", [offset(3, 6, 50), near_one(6), normal(6)], {}, 22, (F32,)),
    ("GroupNormalization", [offset(3, 6, 50), near_one(6), normal(6)], {"num_groups": 3}, 22, (F32,)),
    ("RMSNormalization", [offset(9, 300), near_one(300)], {}, 23, (F32,)),
    ("MeanVarianceNormalization", [offset(3, 6, 5, 5, by=3)], {}, 22, (F32,)),
    ("LpNormalization", [hard(9, 50)], {"axis": 1}, 22, (F32,)),
    ("LpNormalization", [hard(9, 50)], {"axis": -1, "p": 1}, 22, (F32,)),
    ("LRN", [normal(2, 9, 4, 4, scale=20)], {"size": 5}, 22, (F32,)),
    ("SoftmaxCrossEntropyLoss", [normal(6, 10, 4, scale=5), LABELS], {}, 22, (F32, F32)),
    ("SoftmaxCrossEntropyLoss", [normal(6, 10, 4), LABELS, np.abs(normal(10))], {"ignore_index": 3}, 22, (F32, F32)),
    ("NegativeLogLikelihoodLoss", [normal(6, 10, 4), LABELS], {"reduction": "sum"}, 22, (F32,)),
    ("NegativeLogLikelihoodLoss", [normal(6, 10, 4), LABELS, np.abs(normal(10))], {"reduction": "none"}, 22, (F32,)),
    ("Attention", [normal(2, 4, 6, 8), normal(2, 4, 7, 8), normal(2, 4, 7, 8)], {}, 24, (F32,)),
    ("Attention", [normal(2, 4, 6, 8, scale=9), normal(2, 4, 7, 8), normal(2, 4, 7, 8)], {"is_causal": 1, "softcap": 2.0}, 24, (F32,)),
    ("Attention", [normal(2, 6, 32), normal(2, 7, 16), normal(2, 7, 16), normal(6, 7)], GQA, 24, (F32,)),
    ("Attention", [normal(2, 6, 32), normal(2, 7, 16), normal(2, 7, 16), MASK], {**GQA, "is_causal": 1}, 24, (F32,)),
    ("RotaryEmbedding", [normal(2, 4, 6, 8), normal(50, 4), normal(50, 4), LABELS[:2, :1].repeat(6, 1)], {}, 23, (F32,)),
    ("ScatterElements", [normal(9), np.array([1, 1, 1, 2]), normal(4)], {"reduction": "add"}, 22, (F32,)),
    ("ScatterND", [normal(9), np.array([[1], [1], [2]]), normal(3)], {"reduction": "mul"}, 22, (F32,)),
    ("Range", [np.float32(0), np.float32(3), np.float32(0.1)], {}, 22, (F32,)),
]  # fmt: skip
named = [pytest.param(*case, id=f"{case[0]}-{i}") for i, case in enumerate(CASES)]


@pytest.mark.parametrize(("op_type", "inputs", "attributes", "opset", "kinds"), named)
def test_onnx_runtime_stays_within(op_type, inputs, attributes, opset, kinds):
    bound = bounds(op_type, *inputs, kinds=kinds, opset=opset, **attributes)
    got = run(op_type, *inputs, kinds=kinds, opset=opset, **attributes)
    assert [worst(*pair) <= 1.0 for pair in zip(got, bound, strict=True)] == [True] * len(kinds)


@pytest.mark.parametrize("kind", [F16, BF16], ids=["f16", "bf16"])
@pytest.mark.parametrize(("op_type", "inputs", "attributes", "opset", "kinds"), named)
def test_a_wider_computation_rounded_once_stays_within(op_type, inputs, attributes, opset, kinds, kind):
    narrow = [rounded_to(kind, x.clip(-60, 60)) if x.dtype == np.float32 else x for x in inputs]
    kinds = [kind for _ in kinds]
    for bound in bounds(op_type, *narrow, kinds=kinds, opset=opset, **attributes):
        representable = np.abs(bound.value) < 6e4
        value = np.where(representable, bound.value, 0)
        assert worst(rounded_to(kind, value), bound._replace(value=value)) <= 1.0


@pytest.mark.parametrize("size", [1e-7, 1e-4, 1e-2])
@pytest.mark.parametrize(("op_type", "inputs", "attributes", "opset", "kinds"), named)
def test_inputs_moved_within_their_errors_stay_within(op_type, inputs, attributes, opset, kinds, size):
    rng = np.random.default_rng(7)
    errors = [size * rng.random(x.shape) * (1 + np.abs(x)) if x.dtype == np.float32 else None for x in inputs]
    if op_type == "Range":
        errors = [None] * 3
    bound = bounds(op_type, *inputs, errors=errors, kinds=kinds, opset=opset, **attributes)
    finite = np.mean([np.isfinite(each.error if each.error is not None else 0.0).mean() for each in bound])
    assert finite > 0.9 or size > 1e-3 or op_type == "ScatterND" or (op_type == "ReduceLogSum" and size > 1e-5)
    for _ in range(5):
        there = [wide(x) if e is None else moved(rng, wide(x), e) for x, e in zip(inputs, errors, strict=True)]
        got = values(op_type, *there, outputs=len(kinds), opset=opset, **attributes)
        for each, moved_value in zip(bound, got, strict=False):
            apart = np.abs(np.nan_to_num(moved_value, nan=np.inf) - each.value)
            size_of_rounding = 2.0**-50 * np.max(np.abs(each.value), initial=0.0)  # float64 rounds too
            assert (apart <= (0.0 if each.error is None else each.error) * (1 + 2.0**-50) + size_of_rounding).all()


def shuffled_sum(terms, dtype, rng, kind):
    """Return the sum along the last axis in one of several orders, each step rounded."""
    terms = terms[..., rng.permutation(terms.shape[-1])].astype(dtype)
    if kind == "running":
        return np.cumsum(terms, axis=-1, dtype=dtype)[..., -1]
    while terms.shape[-1] > 1:
        if terms.shape[-1] % 2:
            terms = np.concatenate([terms, np.zeros_like(terms[..., :1])], -1)
        half = terms.shape[-1] // 2
        terms = terms[..., :half] + terms[..., half:]
    return terms[..., 0]


@pytest.mark.parametrize(
    ("kind", "order"), [(F32, "running"), (F32, "pairwise"), (F16, "pairwise"), (BF16, "pairwise")]
)
@pytest.mark.parametrize("numbers", ["normal", "cancelling", "positive"])
def test_sums_and_products_in_any_order_stay_within(kind, order, numbers):
    rng, dtype = np.random.default_rng(2), DTYPES[kind]
    make = {"normal": normal, "cancelling": hard, "positive": lambda *s, **k: np.abs(normal(*s, **k))}[numbers]
    a, b = (rounded_to(kind, make(*shape).clip(-50, 50)) for shape in ((6, 256), (256, 4)))
    for _ in range(5):
        (bound,) = bounds("MatMul", a, b, kinds=(kind,))
        got = shuffled_sum(a[:, None, :] * b.T[None], dtype, rng, order)
        assert worst(got, bound) <= 1.0
        (bound,) = bounds("ReduceSum", a, AXIS, kinds=(kind,), keepdims=0)
        assert worst(shuffled_sum(a, dtype, rng, order), bound) <= 1.0


def test_one_running_sum_in_16_bits_exceeds_it():
    x = np.ones((1, 4096), np.float16)
    (bound,) = bounds("ReduceSum", x, AXIS, kinds=(F16,), keepdims=0)
    assert worst(np.cumsum(x, axis=-1, dtype=np.float16)[:, -1], bound) > 1.0


def normalized_in(dtype, x, scale, bias, epsilon, how):
    """Return a layer normalization with every step rounded, as it is written or with the variance by squares, or folded."""
    one = dtype(1)
    mean = shuffled_sum(x, dtype, np.random.default_rng(1), "pairwise")[..., None] / dtype(x.shape[-1])
    squares = x * x if how == "squares" else (x - mean) * (x - mean)
    mean_square = shuffled_sum(squares, dtype, np.random.default_rng(1), "pairwise")[..., None] / dtype(x.shape[-1])
    variance = np.maximum(mean_square - mean * mean, dtype(0)) if how == "squares" else mean_square
    inverse = one / np.sqrt((variance + dtype(epsilon)).astype(np.float32)).astype(dtype)
    if how == "folded":
        return x * (inverse * scale) + (bias - mean * (inverse * scale))
    return (x - mean) * inverse * scale + bias


@pytest.mark.parametrize("how", ["written", "squares", "folded"])
@pytest.mark.parametrize(("kind", "by"), [(F32, 0.0), (F32, 30.0), (F32, 1000.0), (F16, 0.0), (F16, 3.0), (BF16, 1.0)])
def test_a_layer_normalization_stays_within_however_it_is_written(kind, by, how):
    x, scale, bias = (rounded_to(kind, v) for v in (offset(9, 64, by=by), near_one(64), normal(64)))
    (bound,) = bounds("LayerNormalization", x, scale, bias, kinds=(kind,))
    assert worst(normalized_in(DTYPES[kind], x, scale, bias, 1e-5, how), bound) <= 1.0


def test_a_batch_normalization_stays_within_folded_or_not():
    for by in (0.0, 30.0):
        x = offset(3, 6, 50, by=by)
        scale, bias, mean, variance = (v[:, None] for v in NORM)
        (bound,) = bounds("BatchNormalization", x, *NORM)
        inverse = np.float32(1) / np.sqrt(variance + np.float32(1e-5))
        assert worst(x * (scale * inverse) + (bias - mean * (scale * inverse)), bound) <= 1.0
        assert worst((x - mean) / np.sqrt(variance + np.float32(1e-5)) * scale + bias, bound) <= 1.0


def test_batch_normalization_in_training_stays_within():
    x, parameters = offset(4, 6, 50, by=3), [near_one(6), normal(6), normal(6), np.abs(normal(6))]
    bound = bounds("BatchNormalization", x, *parameters, kinds=(F32, F32, F32), training_mode=1)
    mean = x.mean((0, 2), dtype=np.float32)
    variance = ((x - mean[:, None]) ** 2).mean((0, 2), dtype=np.float32)
    y = (x - mean[:, None]) / np.sqrt(variance[:, None] + np.float32(1e-5)) * parameters[0][:, None] + parameters[1][
        :, None
    ]
    momentum = np.float32(0.9)
    running = [old * momentum + new * (1 - momentum) for old, new in zip(parameters[2:], (mean, variance), strict=True)]
    assert [worst(*pair) <= 1.0 for pair in zip([y, *running], bound, strict=True)] == [True] * 3


def evaluated(op_type, *inputs, opset=22, **attributes):
    return values(op_type, *map(wide, inputs), opset=opset, **attributes)[0]


def narrowed(x):
    return x.astype(np.float16).astype(np.float32)


FAULTS = {
    "a weight of MatMul in f16": ("MatMul", [normal(9, 300), normal(300, 5)], {}, lambda a, b: (a, narrowed(b)), {}),
    "a weight of Gemm in f16": ("Gemm", [normal(9, 300), normal(300, 5)], {}, lambda a, b: (a, narrowed(b)), {}),
    "a bias 1e-3 off": ("Gemm", [normal(9, 30), normal(30, 5), normal(5)], {}, lambda a, b, c: (a, b, c + 1e-3), {}),
    "an operand of Einsum in f16": (
        "Einsum", [normal(9, 30), normal(30, 5)], {"equation": "ij,jk->ik"}, lambda a, b: (narrowed(a), b), {}
    ),
    "a mean over one more": ("ReduceMean", [offset(9, 500), AXIS], {}, lambda x, a: (x * 500 / 501, a), {}),
    "a sum of four 30 roundings off": ("ReduceSum", [offset(9, 4), AXIS], {}, lambda x, a: (x.astype(float) * (1 + 2e-6), a), {}),
    "a sum in f16": ("ReduceSum", [offset(9, 50), AXIS], {}, lambda x, a: (narrowed(x), a), {}),
    "a norm of f16": ("ReduceL2", [normal(9, 50), AXIS], {}, lambda x, a: (narrowed(x), a), {}),
    "a warmer softmax": ("Softmax", [normal(9, 30)], {}, lambda x: (x * 1.00005,), {}),
    "softmax along another axis": ("Softmax", [normal(9, 9)], {}, lambda x: (x,), {"axis": 0}),
    "a warmer log-softmax": ("LogSoftmax", [normal(9, 30)], {}, lambda x: (x * 1.00005,), {}),
    "epsilon of BatchNormalization": ("BatchNormalization", [normal(3, 6, 5), *NORM], {}, lambda *xs: xs, {"epsilon": 1.1e-5}),
    "epsilon of LayerNormalization": (
        "LayerNormalization", [normal(9, 30), near_one(30), normal(30)], {}, lambda *xs: xs, {"epsilon": 3e-5}
    ),
    "epsilon of InstanceNormalization": (
        "InstanceNormalization", [normal(3, 6, 50), near_one(6), normal(6)], {}, lambda *xs: xs, {"epsilon": 5e-5}
    ),
    "scale of GroupNormalization": (
        "GroupNormalization", [normal(3, 6, 50), near_one(6), normal(6)], {"num_groups": 3}, lambda x, s, b: (x, narrowed(s), b), {}
    ),
    "alpha of LRN": ("LRN", [normal(2, 9, 4, 4, scale=20)], {"size": 5}, lambda x: (x,), {"alpha": 1.01e-4}),
    "weights of a loss": (
        "NegativeLogLikelihoodLoss", [normal(6, 10, 4), LABELS], {}, lambda x, y: (narrowed(x) * 1.001, y), {}
    ),
    "CumSum of f16": ("CumSum", [normal(9, 50), np.array(1)], {}, lambda x, a: (narrowed(x), a), {}),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_exceeds_it(fault):
    op_type, inputs, attributes, change, changed = FAULTS[fault]
    (bound,) = bounds(op_type, *inputs, **attributes)
    got = evaluated(op_type, *change(*inputs), **{**attributes, **changed})
    assert worst(got, bound) > 1.0


def test_scale_of_attention_is_seen():
    inputs = [normal(2, 4, 6, 8), normal(2, 4, 7, 8), normal(2, 4, 7, 8)]
    (bound,) = bounds("Attention", *inputs, opset=24)
    assert worst(evaluated("Attention", *inputs, opset=24, scale=8**-0.5 * 1.001), bound) > 1.0
    (bound,) = bounds("RotaryEmbedding", inputs[0], normal(2, 6, 4), normal(2, 6, 4), opset=23)
    got = evaluated("RotaryEmbedding", inputs[0], narrowed(normal(2, 6, 4)), normal(2, 6, 4), opset=23)
    assert worst(got, bound) > 1.0


def test_weights_of_a_mean_move_both_ends_of_the_quotient():
    x, labels = np.zeros((4, 4), np.float32), np.arange(4)
    x[0, 0] = -10
    errors = np.full(4, 1e-2)
    (bound,) = bounds("NegativeLogLikelihoodLoss", x, labels, np.ones(4, np.float32), errors=(None, None, errors))
    there = np.array([1.01, 0.99, 0.99, 0.99])
    (got,) = values("NegativeLogLikelihoodLoss", wide(x), labels, there)
    assert worst(got, bound) <= 1


def linear_attention(dtype, query, key, value, decay, beta):
    """Return what the recurrence gives with every step rounded; all (steps, width)."""
    state, outputs = np.zeros((key.shape[1], value.shape[1]), dtype), []
    for q, k, v, g, b in zip(query, key, value, decay, beta, strict=True):
        state = state * np.exp(g.astype(np.float32)).astype(dtype)[:, None]
        state = state + k[:, None] * (b * (v - k @ state))[None]
        outputs.append((q @ state) * dtype(key.shape[1] ** -0.5))
    return np.array(outputs), state


@pytest.mark.parametrize("kind", [F32, F16], ids=["f32", "f16"])
def test_linear_attention_stays_within_and_an_omitted_decay_does_not(kind):
    q, k, v = (rounded_to(kind, normal(1, 12, 4, seed=seed, scale=0.5)) for seed in (1, 2, 3))
    decay, beta = rounded_to(kind, -np.abs(normal(1, 12, 4))), rounded_to(kind, np.abs(normal(1, 12, 1)))
    inputs = (q, k, v, None, decay, beta)
    attributes = {"q_num_heads": 1, "kv_num_heads": 1, "update_rule": "gated_delta"}
    bound = bounds("LinearAttention", *inputs, kinds=(kind, kind), opset=27, **attributes)
    y, state = linear_attention(DTYPES[kind], q[0], k[0], v[0], decay[0], beta[0])
    assert worst(y[None], bound[0]) <= 1
    assert worst(state[None, None], bound[1]) <= 1
    y, _ = linear_attention(DTYPES[kind], q[0], k[0], v[0], 0 * decay[0], beta[0])
    assert worst(y[None], bound[0]) > 1


def test_a_causal_convolution_stays_within_and_another_activation_does_not():
    x, w, b = normal(1, 4, 9), normal(4, 1, 3), normal(4)
    bound, _ = bounds("CausalConvWithState", x, w, b, kinds=(F32, F32), opset=27, activation="silu")
    padded = np.pad(x, [(0, 0), (0, 0), (2, 0)])
    y = sum(padded[:, :, i : i + 9] * w[None, :, 0, i : i + 1] for i in range(3)) + b[:, None]
    assert worst(y / (1 + np.exp(-y)), bound) <= 1
    assert worst(y * np.clip(0.2 * y + 0.5, 0, 1), bound) > 1


def test_a_constant_row_in_doubt_may_have_a_large_variance():
    x, errors = np.ones((1, 8), np.float32), np.full((1, 8), 1.0)
    bound = bounds("LayerNormalization", x, np.ones(8, np.float32), kinds=(F32, F32, F32), errors=(errors,))
    there = np.float32([[2, 0, 2, 0, 2, 0, 2, 0]])
    got = values("LayerNormalization", wide(there), np.ones(8), outputs=3)
    assert [worst(*pair) <= 1 for pair in zip(got, bound, strict=True)] == [True] * 3


def test_masked_scores_leave_a_softmax_certain():
    x = np.array([[1.0, 2.0, -np.inf], [1.0, 2.0, -3.4e38]])
    for size in (1e-6, 1e-2):
        errors = size * np.abs(x)
        (bound,) = bounds("Softmax", x, errors=(errors,))
        assert bound.error.max() < 4 * size
        (bound,) = bounds("LogSoftmax", x, errors=(errors,))
        assert bound.error[:, :2].max() < 6 * size
        assert np.isneginf(bound.value[0, 2])


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4)])
def test_tensors_without_elements_have_bounds_without_elements(shape):
    x, channels = np.zeros(shape, np.float32), np.ones(shape[1], np.float32)
    others = {"LayerNormalization": [np.ones(4, np.float32)], "InstanceNormalization": [channels, channels]}
    for op_type in ("LayerNormalization", "InstanceNormalization", "Softmax", "LogSoftmax", "Exp", "Relu"):
        (bound,) = bounds(op_type, x, *others.get(op_type, []))
        assert bound.value.shape == shape
    assert bounds("ReduceSum", x)[0].value == 0
    assert np.isneginf(bounds("ReduceLogSumExp", x)[0].value)
    (bound,) = bounds("MatMul", np.ones((2, 0), np.float32), np.ones((0, 3), np.float32))
    np.testing.assert_array_equal(bound.value, np.zeros((2, 3)))


def test_sums_of_integers_are_exact_but_for_what_they_get():
    x = np.array([[1, 2, 3]])
    (bound,) = bounds("ReduceSum", x, AXIS, kinds=(INT64,))
    assert bound.error is None
    (bound,) = bounds("MatMul", x, x.T, kinds=(INT64,), errors=(np.ones((1, 3)),))
    np.testing.assert_array_equal(bound.error, 6)


def test_products_that_leave_the_range_on_the_way_may_be_anything():
    x = np.float32([[1e30, 1e30, 1e-30], [1.0, 0.0, 2.0], [1e-30, 1e-30, 1e30]])
    (bound,) = bounds("ReduceProd", x, AXIS)
    assert np.isinf(bound.error[0])
    assert bound.error[1] == 0
    assert bound.error[2] >= 1e-30


def test_float32_overflow_of_sizes_does_not_make_the_bound_infinite():
    a, b = np.full((2, 2), 1e30, np.float32), np.full((2, 2), 1e20, np.float32)
    (bound,) = bounds("MatMul", a, b)
    assert np.isfinite(bound.error).all()
