"""Layers with an external memory against torch in float64, complex steps, worked values, and the numbers where naive ones fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import actconform.oracle.layers.memory  # noqa: F401  registers the kinds
from actconform.catalog.models.layer_kinds import KINDS
from actconform.oracle.layers.registry import Reading, formula_of
from actconform.types.model import Layer

B, N, W, R = 2, 6, 4, 3  # examples, slots, numbers a slot, heads

# kind, settings, shapes beside the batch; the spelled-out id says which case of the kind it is
CASES = {
    "cosine-similarity-one-key": ("cosine-similarity", {}, [(N, W), (W,)]),
    "cosine-similarity-keys": ("cosine-similarity", {}, [(N, W), (R, W)]),
    "interpolate-one-gate": ("interpolate", {}, [(1,), (N,), (N,)]),
    "interpolate-gates": ("interpolate", {}, [(N,), (N,), (N,)]),
    "interpolate-one-slot": ("interpolate", {}, [(1,), (1,), (1,)]),
    "circular-shift-3": ("circular-shift", {}, [(N,), (3,)]),
    "circular-shift-5": ("circular-shift", {}, [(N,), (5,)]),
    "circular-shift-all": ("circular-shift", {}, [(5,), (5,)]),
    "circular-shift-1": ("circular-shift", {}, [(N,), (1,)]),
    "sharpen": ("sharpen", {}, [(N,), (1,)]),
    "read-one-head": ("read", {}, [(N,), (N, W)]),
    "read-heads": ("read", {}, [(R, N), (N, W)]),
    "write": ("write", {}, [(N, W), (N,), (W,), (W,)]),
    "retention": ("retention", {}, [(R,), (R, N)]),
    "retention-one-head": ("retention", {}, [(1,), (1, N)]),
    "usage": ("usage", {}, [(N,), (N,), (N,)]),
    "allocation": ("allocation", {}, [(N,)]),
    "allocation-one-slot": ("allocation", {}, [(1,)]),
    "link": ("link", {}, [(N, N), (N,), (N,)]),
    "precedence": ("precedence", {}, [(N,), (N,)]),
    "directional": ("directional", {}, [(N, N), (R, N)]),
    "directional-transposed": ("directional", {"transposed": 1}, [(N, N), (R, N)]),
    "mix": ("mix", {}, [(R, 3), (R, N), (R, N), (R, N)]),
}
MEMORY_KINDS = """cosine-similarity interpolate circular-shift sharpen read write retention usage allocation link precedence
directional mix"""


each = pytest.mark.parametrize("case", CASES)


def layer_of(kind, **settings):
    return Layer(name="one", kind=kind, inputs=(), settings={**KINDS[kind].settings, **settings})


def forward(kind, *inputs, **settings):
    layer = layer_of(kind, **settings)
    return formula_of(layer).forward(Reading(layer, inputs, {}, False))


def pulled(kind, g, *inputs, **settings):
    """Return the cotangents of the inputs, given that of the value; there are no parameters."""
    layer = layer_of(kind, **settings)
    reading = Reading(layer, inputs, {}, False)
    found = formula_of(layer).vjp(reading, formula_of(layer).forward(reading), g)
    assert found.parameters == {}
    return found.inputs


def drawn(case):
    """Return the kind, its settings, inputs in (0, 1), as weights, gates and usages are, gamma above 1, and a cotangent."""
    kind, settings, shapes = CASES[case]
    rng = np.random.default_rng(len(case))
    inputs = [rng.uniform(0.05, 0.95, (B, *shape)) for shape in shapes]
    if kind == "sharpen":
        inputs[1] += 1.5
    if kind in ("cosine-similarity", "read", "write"):
        inputs = [x * rng.choice([-1.0, 1.0], x.shape) for x in inputs]
    return kind, settings, inputs, rng.normal(0, 1, forward(kind, *inputs, **settings).shape)


def torch_value(torch, kind, settings, *x):
    F = torch.nn.functional

    def cosine(memory, key):
        keys = key if key.dim() == 3 else key[:, None]
        found = F.cosine_similarity(keys[:, :, None], memory[:, None], dim=-1, eps=0.0)
        return found if key.dim() == 3 else found[:, 0]

    def shift(w, s):
        # a convolution over a circle; conv1d correlates, so the taps are flipped
        half = s.shape[1] // 2
        circle = F.pad(w[None], (half, half), mode="circular")
        return F.conv1d(circle, s.flip(1)[:, None], groups=len(w))[0]

    def allocation(u):
        ascending, order = torch.sort(u, dim=-1, stable=True)
        before = torch.cumprod(F.pad(ascending[:, :-1], (1, 0), value=1.0), dim=-1)
        return torch.zeros_like(u).scatter(1, order, (1 - ascending) * before)

    def link(links, w, p):
        ones = torch.ones_like(w)
        lost = torch.einsum("bi,bj->bij", w, ones) + torch.einsum("bi,bj->bij", ones, w)
        found = (1 - lost) * links + torch.einsum("bi,bj->bij", w, p)
        return found * (1 - torch.eye(w.shape[1], dtype=w.dtype))

    def write(memory, w, erase, add):
        return memory * (1 - torch.einsum("bn,bm->bnm", w, erase)) + torch.einsum("bn,bm->bnm", w, add)

    return {
        "cosine-similarity": cosine,
        "interpolate": lambda gate, a, b: torch.lerp(b, a, gate),
        "circular-shift": shift,
        "sharpen": lambda w, gamma: F.normalize(w.pow(gamma), p=1.0, dim=-1),
        "read": lambda w, memory: torch.einsum("brn,bnm->brm" if w.dim() == 3 else "bn,bnm->bm", w, memory),
        "write": write,
        "retention": lambda free, w: (1 - free.unsqueeze(2) * w).prod(1),
        "usage": lambda u, w, retention: (u + w - u * w) * retention,
        "allocation": allocation,
        "link": link,
        "precedence": lambda p, w: (1 - w.sum(-1, keepdim=True)) * p + w,
        "directional": lambda links, w: torch.einsum("bij,bri->brj" if settings else "bij,brj->bri", links, w),
        "mix": lambda modes, a, b, c: torch.einsum("brk,kbrn->brn", modes, torch.stack([a, b, c])),
    }[kind](*x)


def test_every_kind_has_a_case():
    assert {kind for kind, _, _ in CASES.values()} == set(MEMORY_KINDS.split())


@each
def test_a_value_has_the_shape_that_its_kind_promises(case: str):
    kind, settings, shapes = CASES[case]
    *_, g = drawn(case)
    assert g.shape == (B, *KINDS[kind].shape(layer_of(kind, **settings), shapes))


@each
def test_values_and_gradients_are_those_of_torch(case: str):
    torch = pytest.importorskip("torch")
    kind, settings, inputs, g = drawn(case)
    tensors = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    y = torch_value(torch, kind, settings, *tensors)
    assert_allclose(forward(kind, *inputs, **settings), y.detach().numpy(), rtol=1e-12, atol=1e-14)
    wanted = torch.autograd.grad(y, tensors, torch.tensor(g))
    for found, gradient in zip(pulled(kind, g, *inputs, **settings), wanted, strict=True):
        assert_allclose(found, gradient.numpy(), rtol=1e-12, atol=1e-13)


@each
def test_gradients_are_those_of_complex_steps(case: str):
    kind, settings, inputs, g = drawn(case)
    for number, found in enumerate(pulled(kind, g, *inputs, **settings)):
        wanted = np.empty(inputs[number].shape)
        for index in np.ndindex(wanted.shape):
            stepped = [x.astype(complex) for x in inputs]
            stepped[number][index] += 1e-30j
            wanted[index] = np.sum(g * forward(kind, *stepped, **settings).imag) / 1e-30
        assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


@each
def test_gradients_are_worked_out_of_the_inputs_whatever_value_is_given(case: str):
    # a value that was changed on the way, as blame does, must not mix with what the inputs say
    kind, settings, inputs, g = drawn(case)
    layer = layer_of(kind, **settings)
    found = formula_of(layer).vjp(Reading(layer, inputs, {}, False), np.full_like(g, np.nan), g)
    for one, wanted in zip(found.inputs, pulled(kind, g, *inputs, **settings), strict=True):
        assert_array_equal(one, wanted)


@each
def test_examples_of_a_batch_do_not_meet(case: str):
    kind, settings, inputs, g = drawn(case)
    whole = [forward(kind, *inputs, **settings), *pulled(kind, g, *inputs, **settings)]
    last = [x[1:] for x in inputs]
    alone = [forward(kind, *last, **settings), *pulled(kind, g[1:], *last, **settings)]
    for one, other in zip(whole, alone, strict=True):
        assert_allclose(one[1:], other, rtol=1e-13, atol=1e-15)


def row(*numbers):
    return np.array([numbers], float)


@pytest.mark.parametrize(
    ("s", "shifted"),
    [((0, 1, 0), (1, 2, 3, 4)), ((0, 0, 1), (4, 1, 2, 3)), ((1, 0, 0), (2, 3, 4, 1)), ((0.5, 0, 0.5), (3, 2, 3, 2))],
)
def test_the_last_element_of_a_shift_moves_forward(s, shifted):
    assert_array_equal(forward("circular-shift", row(1, 2, 3, 4), row(*s)), row(*shifted))


def test_cosine_similarity_of_worked_vectors():
    memory = np.array([[[3.0, 4.0], [-4.0, 3.0], [-30.0, -40.0], [1.0, 0.0]]])
    assert_allclose(forward("cosine-similarity", memory, row(6, 8)), row(1, 0, -1, 0.6), atol=1e-16)


def test_cosine_similarity_is_nan_for_a_slot_or_key_without_direction_and_only_there():
    memory = np.array([[[0.0, 0.0], [1.0, 1.0]]])
    assert_array_equal(np.isnan(quiet("cosine-similarity", memory, row(1, 2))), [[True, False]])
    assert np.isnan(quiet("cosine-similarity", memory, row(0, 0))).all()


def quiet(kind, *inputs):
    with np.errstate(all="ignore"):
        return forward(kind, *inputs)


@pytest.mark.parametrize("size", [1e-38, 3e38])
def test_cosine_similarity_holds_over_the_range_of_float32(size: float):
    memory, key, g = np.array([[[3.0, 4.0], [-4.0, 3.0]]]), row(1, 1), row(1, 2)
    assert_allclose(forward("cosine-similarity", memory * size, key * size), forward("cosine-similarity", memory, key))
    small, plain = (
        pulled("cosine-similarity", g, memory * size, key * size),
        pulled("cosine-similarity", g, memory, key),
    )
    for found, wanted in zip(small, plain, strict=True):
        assert_allclose(found * size, wanted, rtol=1e-13, atol=1e-15)


def test_sharpened_weights_neither_overflow_nor_all_vanish():
    for w in (row(1e-30, 2e-30, 1e-30), row(1e30, 2e30, 1e30)):
        y = forward("sharpen", w, row(50))
        assert_allclose(y, row(2.0**-50, 1, 2.0**-50), rtol=1e-12)
        d_w, d_gamma = pulled("sharpen", row(1, 2, 3), w, row(50))
        # at the outer ones gamma y / w (g - 2), at the middle one what is left of them: with no digit lost
        assert_allclose(d_w, 50 * 2.0**-50 / w * row(-1, 1e-99, 1), rtol=1e-12, atol=1e-20 / w.max())
        assert_allclose(d_gamma, row(0), atol=1e-25)


def test_sharpening_a_weight_of_zero():
    w, g = row(0, 1, 3), row(5, -1, 2)
    y = forward("sharpen", w, row(2))
    assert y[0, 0] == 0.0
    assert_allclose(y, row(0, 0.1, 0.9), rtol=1e-15)
    d_w, d_gamma = pulled("sharpen", g, w, row(2))
    assert d_w[0, 0] == 0.0
    assert_allclose(d_gamma, [[0.1 * 0.9 * 3 * np.log(3)]])  # only the other two count
    assert_allclose(
        pulled("sharpen", g, w, row(1))[0], row(5 - 1.25, -1 - 1.25, 2 - 1.25) / 4
    )  # a plain division by the sum
    with np.errstate(divide="ignore"):
        d_w, d_gamma = pulled("sharpen", g, w, row(0.5))
    assert d_w[0, 0] == np.inf  # the slope of a root at 0
    assert np.isfinite(d_gamma).all()
    assert np.isfinite(d_w[0, 1:]).all()
    assert np.isnan(quiet("sharpen", row(0, 0), row(2))).all()


def test_gradients_of_a_gamma_of_nearly_one_weight_lose_no_digits():
    # weights 1 - 1e-20 and 1e-20: the plain g - sum y g would round to 0 or to g's own error
    w, g = row(1, 1e-10), row(0.3, 0.7)
    d_w, d_gamma = pulled("sharpen", g, w, row(2))
    assert_allclose(d_w, row(-2 * 1e-20 * 0.4, 2 * 1e-10 * 0.4), rtol=1e-12)
    assert_allclose(d_gamma, [[1e-20 * 0.4 * np.log(1e-10)]], rtol=1e-12)


def test_retention_with_factors_of_zero_has_the_gradient_of_its_polynomial():
    free = row(1, 1, 0.5)
    w = np.array([[[1.0, 0.5], [0.25, 1.0], [0.5, 0.5]]])
    assert_array_equal(forward("retention", free, w), row(0, 0))
    d_free, d_w = pulled("retention", row(1, 1), free, w)
    # factors (0, 3/4, 3/4) and (1/2, 0, 3/4): only a factor of zero has a derivative, the product of the others
    assert_array_equal(d_free, row(-(0.75 * 0.75) * 1, -(0.5 * 0.75) * 1, 0))
    assert_array_equal(d_w, [[[-(0.75 * 0.75), 0], [0, -(0.5 * 0.75)], [0, 0]]])


def test_retention_with_two_factors_of_zero_has_none():
    for part in pulled("retention", row(1), row(1, 1), np.ones((1, 2, 1))):
        assert_array_equal(part, np.zeros_like(part))


def test_allocation_fills_the_freest_slot_first():
    assert_array_equal(forward("allocation", row(0.5, 0.25, 1.0, 0.75)), row(0.125, 0.75, 0, 0.03125))


def test_allocation_among_equals_goes_to_the_first():
    assert_array_equal(forward("allocation", row(0.5, 0.25, 0.5)), row(0.125, 0.75, 0.0625))
    assert_array_equal(forward("allocation", row(0, 0.5, 0)), row(1, 0, 0))


def test_allocation_with_free_slots_has_the_gradient_of_its_polynomial():
    # in order u0, u2, u1, at u0 = u2 = 0: a = (1 - u0, u0 u2 (1 - u1), u0 (1 - u2))
    assert_array_equal(pulled("allocation", row(1, 10, 100), row(0, 0.5, 0))[0], row(-1 + 100, 0, 0))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).map(lambda u: np.array([u])))
def test_allocation_shares_out_one_less_what_is_used_of_all(u: np.ndarray):
    y = forward("allocation", u)
    assert_allclose(y.sum(), 1 - u.prod(), rtol=1e-12, atol=1e-12)
    # d (1 - prod u) / d u, however usages tie
    others = [[np.prod(np.delete(u[0], i)) for i in range(u.shape[1])]]
    assert_allclose(pulled("allocation", np.ones_like(u), u)[0], -np.array(others), rtol=1e-10, atol=1e-12)


def test_links_have_an_empty_diagonal_through_which_nothing_flows():
    kind, settings, inputs, g = drawn("link")
    diagonal = np.eye(N, dtype=bool)
    assert not forward(kind, *inputs, **settings)[:, diagonal].any()
    assert not pulled(kind, g, *inputs)[0][:, diagonal].any()
    other = np.where(diagonal, np.nan, inputs[0])
    assert_array_equal(forward(kind, other, *inputs[1:]), forward(kind, *inputs))
    for found, wanted in zip(pulled(kind, g, other, *inputs[1:]), pulled(kind, g, *inputs), strict=True):
        assert_array_equal(found, wanted)


def test_a_link_points_from_the_later_to_the_earlier_write():
    # slot 2 is written now, slot 0 was before: link (2, 0); ahead of 0 is 2, behind 2 is 0
    links = forward("link", np.zeros((1, 3, 3)), row(0, 0, 1), row(1, 0, 0))
    assert_array_equal(links, [[[0, 0, 0], [0, 0, 0], [1, 0, 0]]])
    assert_array_equal(forward("directional", links, np.array([[[1.0, 0, 0]]])), [[[0, 0, 1]]])
    assert_array_equal(forward("directional", links, np.array([[[0, 0, 1.0]]]), transposed=1), [[[1, 0, 0]]])


def test_a_gate_takes_all_of_one_side_at_its_ends():
    a, b = row(1, 2), row(30, 40)
    assert_array_equal(forward("interpolate", row(1), a, b), a)
    assert_array_equal(forward("interpolate", row(0), a, b), b)


def test_writing_with_full_weight_replaces_and_precedence_forgets():
    memory = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    assert_array_equal(forward("write", memory, row(1, 0), row(1, 1), row(7, 8)), [[[7, 8], [3, 4]]])
    assert_array_equal(forward("precedence", row(0.25, 0.75), row(1, 0)), row(1, 0))
    assert_array_equal(forward("usage", row(0.5, 0.5), row(1, 0), row(1, 0.5)), row(1, 0.25))
