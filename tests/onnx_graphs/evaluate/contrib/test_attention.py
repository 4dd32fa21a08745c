"""Attention as ONNX Runtime has it: its own kernels stay within their error bounds, in all forms that the CPU takes."""

from __future__ import annotations

import numpy as np
import pytest
from bounded_nodes import worst
from contrib_nodes import Case, bounded, evaluated, expect_within_bounds, run
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument, RuntimeException

from actconform import Unsupported

RNG = np.random.default_rng(11)


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def i32(*values):
    return np.array(values, np.int32)


def kept(*shape):
    """Return a mask that hides some keys, never all of a row."""
    mask = RNG.integers(0, 2, shape)
    mask[..., 0] = 1
    return mask.astype(np.int32)


TWO = {"num_heads": 2}
CAUSAL = {"num_heads": 2, "unidirectional": 1}
X, W, B = f32(2, 3, 4), f32(4, 12), f32(12)
PAST = f32(2, 2, 2, 5, 2)
MASKS = [i32(2, 3), i32(2, 3, 1, 0), kept(2, 3), kept(2, 3, 3), i32([1], [1]), i32(0, 1)]
# Without a bias ONNX Runtime 1.31 ends with a segmentation fault.
ATTENTION = [
    Case("Attention", [X, W, B], TWO),
    Case("Attention", [X, W, B], {**CAUSAL, "scale": 0.3}),
    *(Case("Attention", [X, W, B, mask], TWO) for mask in MASKS),
    *(Case("Attention", [X, W, B, mask], {**CAUSAL, "mask_filter_value": -50.0}) for mask in MASKS),
    Case("Attention", [X, W, B, None, None, f32(1, 2, 3, 3)], TWO),
    Case("Attention", [X, W, B, kept(2, 3), None, f32(2, 1, 3, 3)], CAUSAL),
    Case("Attention", [X, W, B, None, PAST], TWO, outputs=2),
    Case("Attention", [X, W, B, kept(2, 8), PAST], CAUSAL, outputs=2),
    Case("Attention", [f32(2, 1, 4), W, B, None, PAST], CAUSAL, outputs=2),
    Case("Attention", [X, f32(4, 14), f32(14)], {**TWO, "qkv_hidden_sizes": [4, 4, 6]}),
]
Q, K, V = f32(2, 3, 4), f32(2, 5, 4), f32(2, 5, 6)
KEYS, VALUES = f32(2, 2, 4, 2), f32(2, 2, 4, 2)
MULTI_HEAD = [
    Case("MultiHeadAttention", [Q, K, V], TWO),
    Case("MultiHeadAttention", [Q, K, V, f32(14), i32(2, 4)], TWO),
    Case("MultiHeadAttention", [Q, K, V, None, kept(2, 5)], TWO),
    Case("MultiHeadAttention", [Q, K, V, None, kept(2, 3, 5)], {**TWO, "scale": 0.2}),
    Case("MultiHeadAttention", [Q, K, V, None, None, f32(1, 2, 3, 5)], TWO, outputs=3),
    Case("MultiHeadAttention", [Q, K, V, f32(14)], TWO, outputs=["y", "", "", "scores"]),
    Case("MultiHeadAttention", [Q, f32(2, 3, 4), f32(2, 3, 4)], CAUSAL, outputs=3),
    Case("MultiHeadAttention", [Q, f32(2, 3, 4), f32(2, 3, 4), None, None, None, KEYS, VALUES], TWO, outputs=4),
    Case(
        "MultiHeadAttention",
        [Q, f32(2, 3, 4), f32(2, 3, 4), None, kept(2, 7), f32(2, 1, 3, 7), KEYS, VALUES],
        CAUSAL,
        outputs=3,
    ),
    Case("MultiHeadAttention", [Q, f32(2, 2, 5, 2), f32(2, 2, 5, 2)], TWO),
]
GROUPED = {"num_heads": 4, "kv_num_heads": 2}
NOTHING = f32(2, 2, 0, 16)
ANGLES = f32(16, 8)
CACHES = [np.cos(ANGLES), np.sin(ANGLES)]


def grouped(batch, new, past, totals, *optional, outputs=3, **attributes):
    tensors = [f32(batch, new, 64), f32(batch, new, 32), f32(batch, new, 32), *past]
    lengths = [i32(*(total - 1 for total in totals)), i32(max(totals)).reshape(())]
    return Case("GroupQueryAttention", [*tensors, *lengths, *optional], {**GROUPED, **attributes}, outputs=outputs)


def cached(batch, room):
    return [f32(batch, 2, room, 16), f32(batch, 2, room, 16)]


GROUP_QUERY = [
    grouped(2, 3, [None, None], [3, 3]),
    grouped(2, 3, [NOTHING] * 2, [3, 3], scale=0.1, outputs=1),
    Case(
        "GroupQueryAttention", [f32(2, 3, 128), None, None, NOTHING, NOTHING, i32(2, 2), i32(3).reshape(())], GROUPED, 3
    ),
    *(grouped(2, 3, [NOTHING] * 2, [3, 3], *CACHES, do_rotary=1, rotary_interleaved=turn) for turn in (0, 1)),
    *(grouped(1, 1, cached(1, 5), [total], *CACHES, do_rotary=1) for total in (6, 4)),
    *(grouped(2, 1, cached(2, room), [4, 6], *CACHES, do_rotary=1) for room in (5, 8)),
    *(
        grouped(1, 3, cached(1, 5), [8], *CACHES, places, do_rotary=1)
        for places in (None, np.array([[5, 6, 7]]), np.array([[1, 9, 3]]))
    ),
    grouped(2, 3, [NOTHING] * 2, [3, 3], *CACHES, np.array([[1, 9, 3], [2, 3, 4]]), do_rotary=1),
    *(grouped(2, 3, [NOTHING] * 2, [3, 3], local_window_size=size) for size in (1, 2, 3)),
    grouped(1, 3, cached(1, 5), [8], local_window_size=2),
    grouped(2, 3, [NOTHING] * 2, [3, 3], softcap=0.5),
    grouped(2, 3, [NOTHING] * 2, [3, 3], smooth_softmax=1),
    grouped(2, 3, [NOTHING] * 2, [3, 3], None, None, None, f32(1, 4, 3, 3), softcap=0.5),
    grouped(2, 1, cached(2, 8), [4, 6], None, None, None, f32(2, 1, 1, 6)),
    grouped(2, 3, [NOTHING] * 2, [3, 3], None, None, None, None, f32(4), local_window_size=2, softcap=2.0),
    grouped(1, 3, cached(1, 5), [8], causal=0),
]
SMALL = f32(16, 4)
ROTARY = [np.cos(SMALL), np.sin(SMALL)]
PLACES = np.array([[2, 5, 7], [1, 2, 3]])
ROTATIONS = [
    Case("RotaryEmbedding", [x, places, *ROTARY], {"interleaved": turn, **attributes})
    for turn in (0, 1)
    for x, places, attributes in (
        (f32(2, 3, 16), np.array([2]), {}),
        (f32(2, 2, 3, 8), PLACES, {}),
        (f32(2, 3, 24), PLACES, {"num_heads": 2, "rotary_embedding_dim": 8}),
        (f32(2, 2, 3, 12), PLACES, {"num_heads": 2, "rotary_embedding_dim": 8}),
    )
]


@pytest.mark.parametrize("case", [*ATTENTION, *MULTI_HEAD, *GROUP_QUERY, *ROTATIONS], ids=str)
def test_onnx_runtime_stays_within_the_bounds(case):
    expect_within_bounds(case)


def test_of_padding_behind_a_prompt_anything_may_be_given():
    case = grouped(2, 3, [NOTHING] * 2, [2, 3], *CACHES, do_rotary=1)
    expect_within_bounds(case)
    unknown = [np.isinf(result.error) for result in bounded(case)]
    np.testing.assert_array_equal(unknown[0].all(axis=2), [[False, False, True], [False] * 3])
    np.testing.assert_array_equal(unknown[1].all(axis=(1, 3)), [[False, False, True], [False] * 3])
    assert not any(each[:, ..., :2, :].any() for each in unknown)


def test_the_cpu_takes_no_past_beside_a_bias_of_the_scores():
    case = Case("Attention", [X, W, B, None, PAST, f32(1, 2, 3, 8)], TWO, outputs=2)
    assert np.isfinite(evaluated(case)[0]).all()
    with pytest.raises(InvalidArgument, match="past and attention_bias"):
        run(case)


def test_without_a_bias_of_the_projection_it_is_zero():
    np.testing.assert_allclose(
        evaluated(Case("Attention", [X, W], TWO))[0], evaluated(Case("Attention", [X, W, 0 * B], TWO))[0], atol=1e-15
    )


def test_packed_heads_are_the_same_as_separate_ones():
    query, key, value = (f32(2, 3, 2, 4) for _ in range(3))
    flat = [x.reshape(2, 3, 8) for x in (query, key, value)]
    (expected,) = evaluated(Case("MultiHeadAttention", flat, TWO))
    packed = Case("MultiHeadAttention", [np.stack([query, key, value], 3)], TWO)
    half = Case("MultiHeadAttention", [flat[0], np.stack([key, value], 3)], TWO)
    for case in (packed, half):
        np.testing.assert_array_equal(evaluated(case)[0], expected)
        with pytest.raises(RuntimeException, match="not implemented for CPU"):
            run(case)


def test_queries_and_keys_are_normalized_before_they_are_rotated():
    plain = grouped(1, 3, [None, None], [3])
    weights = f32(16), f32(16)
    case = Case("GroupQueryAttention", [*plain.inputs, *[None] * 7, *weights], GROUPED)
    with pytest.raises(InvalidArgument, match="not supported"):
        run(case)
    for i, count, weight in ((0, 4, weights[0]), (1, 2, weights[1])):
        heads = plain.inputs[i].reshape(1, 3, count, 16).astype(np.float64)
        scaled = heads / np.sqrt(np.square(heads).mean(-1, keepdims=True) + 1e-6) * weight
        plain.inputs[i] = scaled.reshape(1, 3, -1)
    np.testing.assert_allclose(evaluated(case)[0], evaluated(plain)[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case("Attention", [X, W, B], {**TWO, "do_rotary": 1}), "do_rotary = 1"),
        (Case("Attention", [X, W, B, kept(2, 1, 3, 3)], TWO), r"mask of shape \(2, 1, 3, 3\)"),
        (Case("MultiHeadAttention", [Q, K, K], CAUSAL), "3 queries that see no later key"),
        (Case("MultiHeadAttention", [Q], TWO), "without a key"),
        (grouped(2, 3, cached(2, 5), [2, 4]), r"3 new places for sequences of \[2, 4\]"),
        (grouped(2, 3, [NOTHING] * 2, [3, 3], qk_output=1), "qk_output = 1"),
        (grouped(1, 1, cached(1, 5), [6], sliding_window_cache=1), "sliding_window_cache = 1"),
        (Case("RotaryEmbedding", [f32(2, 3, 16), PLACES, *ROTARY], {"scale": 2.0}), "scale = 2"),
    ],
    ids=lambda each: each.op_type if isinstance(each, Case) else "",
)
def test_forms_without_a_definition_are_refused_in_words(case, words):
    with pytest.raises(Unsupported, match=words):
        evaluated(case)


@pytest.mark.parametrize(
    ("sound", "faulty"),
    [
        (Case("Attention", [X, W, B], CAUSAL), Case("Attention", [X, W, B], TWO)),
        (Case("Attention", [X, W, B], {**TWO, "scale": 0.7}), Case("Attention", [X, W, B], {**TWO, "scale": 0.7005})),
        (Case("Attention", [X, W, B, i32(2, 3)], TWO), Case("Attention", [X, W, B, i32(3, 3)], TWO)),
    ],
    ids=["causal mask lost", "scale", "padding seen"],
)
def test_a_fault_is_over_the_bound(sound, faulty):
    (bound,), (got,) = bounded(sound), run(faulty)
    assert worst(got, bound) > 3.0
    assert np.max(bound.error) < 1e-3 * np.abs(bound.value).max()
