"""The inputs: the same bits on every machine, and in them every exponent, neighbourhood, special and shape that is promised."""

from __future__ import annotations

import hashlib
from math import inf, isinf

import ml_dtypes
import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.oracle import truth
from actconform.testdata.regimes import (
    FILLERS,
    OVERFLOW_EDGES,
    SPECIAL_LENGTHS,
    SPECIALS,
    WORKED_ROWS,
    long_row,
    normal,
    raw,
    row_cotangent,
    row_draws,
    signed_powers,
    special_placements,
    unary_regimes,
    uniform,
)

BY_NAME = {kernel.name: kernel for kernel in UNARY + ROWS}
REGIMES = {"ordinary", "tail", "edge", "huge", "subnormal", "kink", "special"}
LENGTHS = {1, 2, 3, 17, 1000, 4096}
HALVED = {"glu", "reglu", "swiglu", "geglu", "maxout"}
MASKED_FAMILY = (
    "softmax",
    "softmax-axis1",
    "log-softmax",
    "log-softmax-axis1",
    "softmin",
    "sparsemax",
    "max",
    "argmax",
    "hardmax",
)

each_unary = pytest.mark.parametrize("kernel", UNARY, ids=[kernel.name for kernel in UNARY])
each_row = pytest.mark.parametrize("kernel", ROWS, ids=[kernel.name for kernel in ROWS])


def sha256(*arrays: np.ndarray) -> str:
    return hashlib.sha256(
        b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)
    ).hexdigest()


def bits_of(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).view(np.uint32)


@pytest.mark.parametrize(
    ("name", "regime", "digest"),
    [
        ("sigmoid", "ordinary", "cd83ef7d3220f8db0b1fb38c633c0962d8b6a4dd18fcc813a5a4b40f4f4a628f"),
        ("relu6", "kink", "2bc20c7a1b5395acd3e299060d496e898599f3f1768cd25545ddb15ee5ece8b7"),
        ("gelu-erf", "edge", "6060882155fbcaefd1b587598042c85d2cfe95a3d9f6e3920db25d7df144c79a"),
        ("tanh", "subnormal", "3aa8e54b02a677cca631639e23f3eeb7df286467429f25fc1202012f91613a77"),
        ("mish", "special", "209c1dab81f8cf2dcf286c0c7947fbc2f32def741092eda5a9504c97af963335"),
    ],
)
def test_regimes_have_the_same_bits_on_every_machine(name: str, regime: str, digest: str):
    assert sha256(unary_regimes(BY_NAME[name])[regime]) == digest


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("softmax", "34a299936d012725cadf27cc8819aab9805d3e6ebb9245c54b597df4286f64c0"),
        ("prelu", "240a768819ca37843b41a11cf71d216ca3177d0c7ce13f103118db5ffec87813"),
        ("glu", "9ef14313ae2ceba168b5df0beec31f482bb836e06809cc4f770078867572b578"),
    ],
)
def test_rows_and_their_cotangents_have_the_same_bits_on_every_machine(name: str, digest: str):
    kernel = BY_NAME[name]
    arrays = []
    for number, draw in enumerate(row_draws(kernel)):
        shape = truth(kernel, draw.inputs)["y"].shape
        arrays += [*draw.inputs.values(), row_cotangent(kernel, number, draw, shape)]
    assert sha256(*arrays) == digest


def test_streams_are_set_by_their_name_and_a_longer_one_begins_like_a_shorter():
    assert raw("a", 4).tolist() == raw("a", 6)[:4].tolist()
    assert raw("a", 4).tolist() != raw("b", 4).tolist()
    assert normal("n", 8, 3.0).tolist() == normal("n", 9, 3.0)[:8].tolist()


def test_uniform_and_normal_numbers_are_as_spread_as_they_say():
    flat = uniform("spread", 1 << 14, -8, 8).astype(np.float64)
    assert -8 <= flat.min() < -7.9
    assert 7.9 < flat.max() <= 8
    assert abs(flat.mean()) < 0.2
    bell = normal("spread", 1 << 14, 3.0).astype(np.float64)
    assert abs(bell.mean()) < 0.1
    assert abs(bell.std() - 3) < 0.1


def test_signed_powers_are_powers_of_two_of_both_signs_and_exact_in_every_format():
    drawn = signed_powers("powers", 4096)
    assert set(drawn.tolist()) == {sign * size for sign in (-1.0, 1.0) for size in (0.5, 1.0, 2.0, 4.0)}
    assert drawn.dtype == np.float32
    assert drawn.astype(ml_dtypes.bfloat16).astype(np.float32).tolist() == drawn.tolist()


@each_unary
def test_about_ten_thousand_points_reach_every_exponent_of_both_signs(kernel):
    regimes = unary_regimes(kernel)
    assert regimes.keys() == REGIMES
    assert all(points.dtype == np.float32 for points in regimes.values())
    assert 8_000 < sum(points.size for points in regimes.values()) < 12_000
    bits = bits_of(np.concatenate([points for regime, points in regimes.items() if regime != "special"]))
    seen = {(int(b) >> 31, int(b) >> 23 & 0xFF) for b in np.unique(bits)}
    assert seen >= {(sign, exponent) for sign in (0, 1) for exponent in range(255)}
    sizes, counts = np.unique(bits >> 23 & 0xFF, return_counts=True)
    assert counts[(sizes > 0) & (sizes < 255)].min() >= 16  # eight of each sign
    subnormal = regimes["subnormal"]
    assert np.all(np.abs(subnormal) < 2.0**-126)
    assert {int(b).bit_length() for b in bits_of(np.abs(subnormal))} == set(range(1, 24))


@each_unary
def test_joints_and_overflow_edges_come_with_their_neighbours(kernel):
    regimes = unary_regimes(kernel)
    kinks = set(bits_of(regimes["kink"]).tolist())
    for point in [0.0, 1.0, -1.0, *(kink.x for kink in kernel.kinks), *kernel.gradient_roots]:
        below = above = np.float32(point)
        for _ in range(8):
            below, above = np.nextafter(below, np.float32(-inf)), np.nextafter(above, np.float32(inf))
            assert {*bits_of(np.array([below, above])).tolist()} <= kinks
    edges = set(bits_of(regimes["edge"]).tolist())
    for edge in OVERFLOW_EDGES:
        for x in (np.float32(edge), np.float32(-edge)):
            inward = np.nextafter(x, np.float32(0))
            assert {*bits_of(np.array([x, inward])).tolist()} <= edges
    assert not any(isinf(x) for x in regimes["edge"].tolist())


def test_the_overflow_edge_of_exp_is_between_two_drawn_points():
    points = np.sort(unary_regimes(BY_NAME["exponential"])["edge"].astype(np.float64))
    overflow = (2 - 2.0**-24) * 2.0**127
    finite = points[np.exp(np.clip(points, None, 700)) < overflow].max()
    assert np.float32(finite) == np.float32(88.72283)
    assert np.nextafter(np.float32(finite), np.float32(inf)) in points.astype(np.float32)


def test_specials_are_nan_infinities_zeros_subnormals_and_the_ends_of_the_range():
    wanted = [inf, -inf, 0.0, -0.0, 2.0**-149, -(2.0**-149), 2.0**-126, -(2.0**-126)]
    wanted += [float(np.finfo(np.float32).max), float(np.finfo(np.float32).min)]
    have = bits_of(SPECIALS).tolist()
    assert set(bits_of(np.array(wanted)).tolist()) <= set(have)
    assert np.isnan(SPECIALS).sum() == 1
    assert len(set(have)) == len(have)


def test_every_special_stands_once_in_body_and_tail_at_each_length():
    start = 1000
    specials = range(start, start + len(SPECIALS))
    met = {(length, special): [] for length in SPECIAL_LENGTHS for special in specials}
    for index in special_placements(start):
        assert index.min() >= start
        assert index.max() < start + len(SPECIALS) + FILLERS
        there = [int(i) for i in index if i in specials]
        assert len(set(there)) == 1, "one special a call"
        met[len(index), there[0]].append(np.flatnonzero(np.isin(index, specials)).tolist())
    for (length, _), calls in met.items():
        (places,) = calls
        assert places[-1] == length - 1
        assert len(places) == min(length, 2)
        if length >= 17:
            assert places[0] < length // 16 * 16 <= places[-1], "in a whole vector of 16 lanes, and after the last one"
    assert SPECIAL_LENGTHS == (1, 8, 17, 67)


def test_a_kink_stands_where_a_special_stands():
    calls = [index.tolist() for index in special_placements(1000, [7]) if 7 in index]
    assert [len(index) for index in calls] == list(SPECIAL_LENGTHS)
    assert [np.flatnonzero(np.array(index) == 7).tolist() for index in calls] == [[0], [2, 7], [5, 16], [22, 66]]


def test_the_points_beside_specials_are_ordinary():
    fillers = unary_regimes(BY_NAME["tanh"])["special"][len(SPECIALS) :]
    assert fillers.size == FILLERS >= max(SPECIAL_LENGTHS)
    assert np.all(np.abs(fillers) <= 4)


@each_row
def test_row_lengths_run_from_one_to_4096_on_the_axis_of_the_kernel(kernel):
    lengths = {draw.inputs["x"].shape[kernel.axis] for draw in row_draws(kernel) if draw.regime == "ordinary"}
    wanted = {n * 2 if kernel.name in HALVED and n % 2 else n for n in LENGTHS}
    assert wanted <= lengths
    assert all(draw.inputs["x"].ndim == (3 if kernel.axis == 1 else 2) for draw in row_draws(kernel))
    assert all(array.dtype == np.float32 for draw in row_draws(kernel) for array in draw.inputs.values())


@each_row
def test_what_reduces_a_row_has_one_whose_length_float16_cannot_hold(kernel):
    row = long_row(kernel)
    reduces = kernel.name.removesuffix("-axis1") not in {*HALVED, "prelu", "sparsemax"}
    assert (row is not None) == (reduces and kernel.axis == -1)
    assert row is None or row["x"].shape[-1] > 65_504


def rows_of(kernel, regime: str) -> list[list[float]]:
    draws = [draw.inputs["x"] for draw in row_draws(kernel) if draw.regime == regime]
    return [row for x in draws for row in np.moveaxis(x, kernel.axis, -1).reshape(-1, x.shape[kernel.axis]).tolist()]


@pytest.mark.parametrize("name", MASKED_FAMILY)
def test_rows_hold_masks_nan_infinities_ties_huge_and_tiny_numbers(name: str):
    kernel = BY_NAME[name]
    special = np.array(rows_of(kernel, "special"))
    assert special.shape[1] == 4
    masked, everything = np.isneginf(special), np.isneginf(special).all(axis=1)
    assert (masked.any(axis=1) & ~everything & np.isfinite(special).any(axis=1)).any(), "a row with masked entries"
    assert everything.any(), "a row that is all masked"
    assert np.isnan(special).any(), "NaN"
    assert np.isposinf(special).any(), "inf"
    assert ((special == 0).all(axis=1) & np.signbit(special).any(axis=1)).any(), "zeros of both signs"
    tied = [row for row in rows_of(kernel, "kink") if row.count(max(row)) > 1]
    assert tied, "ties of the maximum"
    assert max(abs(x) for row in rows_of(kernel, "huge") for x in row) > 1e38
    tiny = [abs(x) for row in rows_of(kernel, "subnormal") for x in row]
    assert 0 < max(tiny) < 1e-29
    assert any(0 < x < 2.0**-126 for x in tiny)


def test_the_worked_examples_of_the_textbooks_are_among_the_rows():
    rows = rows_of(BY_NAME["softmax"], "ordinary")
    for row in WORKED_ROWS:
        assert np.array(row, np.float32).tolist() in rows


@each_row
def test_short_rows_come_with_every_one_hot_cotangent(kernel):
    hot = [(number, draw) for number, draw in enumerate(row_draws(kernel)) if draw.one_hot is not None]
    if kernel.name in {*HALVED, "max", "argmax"}:
        assert not hot  # the output is shorter than the input
        return
    positions = sorted((draw.inputs["x"].shape[kernel.axis], draw.one_hot) for _, draw in hot)
    assert positions == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    for number, draw in hot:
        x = draw.inputs["x"]
        g = np.moveaxis(row_cotangent(kernel, number, draw, x.shape), kernel.axis, -1)
        assert np.array_equal(g, np.broadcast_to(np.eye(g.shape[-1])[draw.one_hot], g.shape))


@each_row
def test_drawn_cotangents_are_exact_in_every_format_and_differ_from_draw_to_draw(kernel):
    seen = set()
    for number, draw in enumerate(row_draws(kernel)):
        if draw.one_hot is None:
            g = row_cotangent(kernel, number, draw, (5, 7))
            for narrow in (np.float16, ml_dtypes.bfloat16):
                assert np.array_equal(g.astype(narrow).astype(np.float32), g)
            assert np.all((g != 0) & (np.abs(g) < 2))
            seen.add(g.tobytes())
    assert len(seen) == sum(draw.one_hot is None for draw in row_draws(kernel))


def test_slopes_have_the_length_of_the_last_axis_and_both_signs():
    for draw in row_draws(BY_NAME["prelu"]):
        assert draw.inputs["slope"].shape == draw.inputs["x"].shape[-1:]
    slopes = np.concatenate([draw.inputs["slope"] for draw in row_draws(BY_NAME["prelu"])])
    assert slopes.min() < 0 < slopes.max()
