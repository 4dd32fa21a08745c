"""The losses against complex steps, torch in float64, and worked values at the ends of the clip and of saturation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import actconform.oracle.layers.losses  # noqa: F401  registers its kinds
from actconform.catalog.models.layer_kinds import CLIP, LOSSES
from actconform.oracle.layers.registry import Reading, formula_of
from actconform.types.model import Layer

NAN = np.nan
LOW, HIGH = CLIP
PROBABILITIES = ("binary-cross-entropy", "categorical-cross-entropy")


def read(kind, p, t):
    layer = Layer(name="loss", kind=kind, inputs=("p", "t"))
    return Reading(layer, [np.asarray(p), np.asarray(t, float)], {}, training=True)


def value(kind, p, t):
    reading = read(kind, p, t)
    return formula_of(reading.layer).forward(reading)


def gradient(kind, p, t, g=1.0):
    reading = read(kind, p, t)
    inputs, parameters = formula_of(reading.layer).vjp(reading, value(kind, p, t), np.asarray(g))
    assert inputs[1] is None
    assert parameters == {}
    return inputs[0]


def steps(kind, p, t):
    found = np.zeros(p.shape)
    for where in np.ndindex(p.shape):
        moved = p.astype(complex)
        moved[where] += 1e-30j
        found[where] = value(kind, moved, t).imag / 1e-30
    return found


@st.composite
def predictions(draw):
    """Return (kind, prediction, target), probabilities where the kind takes them, some beyond the clip."""
    kind = draw(st.sampled_from(LOSSES))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=3)))
    p, t = rng.normal(0, draw(st.sampled_from([1.0, 10.0])), shape), rng.normal(size=shape)
    if kind in PROBABILITIES:
        p = rng.uniform(0.01, 0.99, shape)
        p[rng.uniform(size=shape) < 0.1] = draw(st.sampled_from([1e-9, LOW / 2, 1 - 1e-8]))
    if kind.startswith("binary"):
        t = rng.integers(0, 2, shape) if draw(st.booleans()) else rng.uniform(size=shape)
    if kind.startswith("categorical"):
        soft = rng.uniform(size=shape)
        t = np.eye(shape[-1])[soft.argmax(-1)] if draw(st.booleans()) else soft / soft.sum(-1, keepdims=True)
    return kind, p, np.asarray(t, float)


def torch_loss(torch, kind, p, t):
    F = torch.nn.functional
    match kind:
        case "mean-squared-error":
            return F.mse_loss(p, t)
        case "mean-absolute-error":
            return F.l1_loss(p, t)
        case "binary-cross-entropy":
            return F.binary_cross_entropy(p.clamp(LOW, HIGH), t)
        case "binary-cross-entropy-from-logits":
            return F.binary_cross_entropy_with_logits(p, t)
        case "categorical-cross-entropy":
            share = (p / p.sum(-1, keepdim=True)).clamp(LOW, HIGH)
            return -(t * share.log()).sum(-1).mean()
        case _:
            return F.cross_entropy(p.movedim(-1, 1), t.movedim(-1, 1))


@settings(max_examples=150, deadline=None)
@given(predictions())
def test_losses_agree_with_torch_and_complex_steps(prediction):
    torch = pytest.importorskip("torch")
    kind, p, t = prediction
    leaf = torch.tensor(p, requires_grad=True)
    theirs = torch_loss(torch, kind, leaf, torch.tensor(t))
    ours = value(kind, p, t)
    assert ours.shape == ()
    assert_allclose(ours, theirs.item(), rtol=1e-12, atol=1e-15)

    theirs.backward()
    d = gradient(kind, p, t)
    scale = np.abs(d).max()
    assert_allclose(d, steps(kind, p, t), rtol=1e-11, atol=1e-11 * scale)
    # where the prediction is nearly certain, torch subtracts numbers near 1
    assert_allclose(d, leaf.grad.numpy(), rtol=1e-11, atol=1e-11 * scale + 1e-15)
    assert_array_equal(gradient(kind, p, t, 2.0), 2 * d)


def test_worked_losses():
    p, t = [[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [5.0, 1.0]]
    assert value("mean-squared-error", p, t) == (0 + 1 + 4 + 9) / 4
    assert value("mean-absolute-error", p, t) == (0 + 1 + 2 + 3) / 4
    assert_allclose(value("binary-cross-entropy", [[0.25], [0.5]], [[1.0], [0.0]]), np.log(8) / 2, rtol=1e-15)
    assert_allclose(value("binary-cross-entropy-from-logits", [[0.0]], [[0.3]]), np.log(2), rtol=1e-15)
    rows = [[2.0, 1.0, 1.0], [1.0, 1.0, 6.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert_allclose(value("categorical-cross-entropy", *rows), (np.log(2) + np.log(8)) / 2, rtol=1e-15)
    logs = np.log(rows[0])
    assert_allclose(value("categorical-cross-entropy-from-logits", logs, rows[1]), np.log(16) / 2, rtol=1e-15)


def test_the_absolute_error_is_flat_where_it_is_zero():
    assert_array_equal(gradient("mean-absolute-error", [[1.0, 2.0, 3.0]], [[1.0, 3.0, 2.0]]), [[0, -1 / 3, 1 / 3]])


def test_the_clip_has_slope_1_at_its_ends_and_0_beyond():
    beyond_low, beyond_high = np.nextafter(LOW, 0), np.nextafter(HIGH, 1)
    p = np.array([[LOW, beyond_low, 0.0, HIGH, beyond_high, 1.0]])
    ones = np.ones_like(p)
    d = gradient("binary-cross-entropy", p, ones) * p.size
    assert_allclose(d, [[-1 / LOW, 0, 0, -1 / HIGH, 0, 0]], rtol=1e-12)
    for end, outer in ((LOW, 0.0), (HIGH, 1.0)):
        assert value("binary-cross-entropy", [[outer]], [[1.0]]) == value("binary-cross-entropy", [[end]], [[1.0]])


def test_certain_and_wrong_probabilities_cost_what_the_clip_leaves():
    """Keras in float32: log(2^-23) and log(1e-7), never infinity, and no NaN of 0 log 0."""
    assert_allclose(value("binary-cross-entropy", [[1.0]], [[0.0]]), 23 * np.log(2), rtol=1e-14)
    assert_allclose(value("binary-cross-entropy", [[0.0]], [[1.0]]), -np.log(LOW), rtol=1e-14)
    assert_allclose(value("categorical-cross-entropy", [[1.0, 0.0]], [[0.0, 1.0]]), -np.log(LOW), rtol=1e-14)
    for p in (0.0, 1.0):
        assert 0 < value("binary-cross-entropy", [[p]], [[p]]) < 2e-7


def test_categorical_probabilities_are_divided_by_their_sum():
    p, t = np.array([[0.2, 0.6, 0.4]]), np.array([[0.0, 1.0, 0.0]])
    kind = "categorical-cross-entropy"
    assert_allclose(value(kind, 7 * p, t), value(kind, p, t), rtol=1e-15)
    assert abs(np.sum(p * gradient(kind, p, t))) < 1e-15


def test_from_logits_is_from_the_probabilities_of_the_logits():
    rng = np.random.default_rng(0)
    z, t = rng.normal(size=(4, 3)), np.eye(3)[[0, 2, 1, 1]]
    e = np.exp(z)
    p = e / e.sum(-1, keepdims=True)
    logits, probabilities = "categorical-cross-entropy-from-logits", "categorical-cross-entropy"
    assert_allclose(value(logits, z, t), value(probabilities, p, t), rtol=1e-14)
    assert_allclose(gradient(logits, z, t), (p - t) / 4, atol=1e-15)
    p = e / (1 + e)
    logits, probabilities = "binary-cross-entropy-from-logits", "binary-cross-entropy"
    assert_allclose(value(logits, z, t), value(probabilities, p, t), rtol=1e-14)
    assert_allclose(gradient(logits, z, t), (p - t) / 12, atol=1e-16)


def test_confident_logits_keep_their_digits_and_do_not_overflow():
    e = np.exp(-40)
    binary, categorical = "binary-cross-entropy-from-logits", "categorical-cross-entropy-from-logits"
    for z, t in ((40.0, 1.0), (-40.0, 0.0)):
        assert_allclose(value(binary, [[z]], [[t]]), e, rtol=1e-14)
        assert_allclose(gradient(binary, [[z]], [[t]]), [[-np.sign(z) * e]], rtol=1e-14)
    assert_allclose(value(categorical, [[40.0, 0.0]], [[1.0, 0.0]]), e, rtol=1e-14)
    assert_allclose(gradient(categorical, [[40.0, 0.0]], [[1.0, 0.0]]), [[-e, e]], rtol=1e-14)
    assert value(binary, [[1e300]], [[0.0]]) == 1e300
    assert value(categorical, [[1e300, 0.0]], [[0.0, 1.0]]) == 1e300


@pytest.mark.parametrize("kind", LOSSES)
def test_a_nan_is_never_lost(kind):
    p, t = np.array([[0.5, NAN], [0.25, 0.75]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    assert np.isnan(value(kind, p, t))
    d = gradient(kind, p, t)
    assert np.isnan(d[0, 1])
    assert np.isfinite(d[1]).all()
