"""The definitions of the optimizers, against torch's own in float64, and against the forms that other frameworks give them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from actconform.oracle.training.optimizers import updated
from actconform.types.training import Forms, Optimizer

STEPS = 6
USUAL = Forms()
SHARES = st.floats(0.05, 0.999)
RATES = st.floats(1e-4, 0.5)


def by_torch(rule: Optimizer):
    rate, betas = rule.learning_rate, (rule.beta1, rule.beta2)
    optim = torch.optim
    return {
        "sgd": lambda w: optim.SGD(w, rate, momentum=rule.momentum, nesterov=rule.nesterov),
        "adam": lambda w: optim.Adam(w, rate, betas, rule.epsilon),
        "adamw": lambda w: optim.AdamW(w, rate, betas, rule.epsilon, rule.weight_decay),
        "rmsprop": lambda w: optim.RMSprop(w, rate, rule.beta2, rule.epsilon),
    }[rule.kind]


def gradients(seed=0):
    """Gradients of several sizes, a zero among them."""
    drawn = np.random.default_rng(seed).normal(size=(STEPS, 5)) * np.array([1.0, 1e-3, 1e-6, 1e3, 0.0])
    return drawn, np.linspace(-1.0, 2.0, 5)


def trained(rule, forms=USUAL, **others):
    """Return the parameters after each step of `updated`."""
    steps, w = gradients()
    slots = {slot: np.zeros_like(w) for slot in rule.slots}
    path = []
    for number, g in enumerate(steps, 1):
        w, slots = updated(rule, forms, number, w, g, slots, **others)
        path.append(w)
    return np.array(path)


def trained_by_torch(rule):
    steps, start = gradients()
    w = torch.tensor(start, requires_grad=True)
    optimizer = by_torch(rule)([w])
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, rule.decay_steps, rule.decay)
    path = []
    for g in steps:
        w.grad = torch.tensor(g)
        optimizer.step()
        schedule.step()
        path.append(w.detach().numpy().copy())
    return np.array(path)


@st.composite
def rules(draw):
    kind = draw(st.sampled_from(["sgd", "adam", "adamw", "rmsprop"]))
    momentum = draw(st.sampled_from([0.0, 0.5, 0.9]))
    return Optimizer(
        kind=kind,
        learning_rate=draw(RATES),
        momentum=momentum if kind == "sgd" else 0.0,
        nesterov=draw(st.booleans()) and kind == "sgd" and momentum > 0.0,
        beta1=draw(SHARES),
        beta2=draw(SHARES),
        epsilon=draw(st.sampled_from([1e-8, 1e-7, 1e-3])),
        weight_decay=draw(st.sampled_from([0.0, 0.01, 0.5])),
        decay=draw(st.sampled_from([1.0, 0.5])),
        decay_steps=draw(st.integers(1, 3)),
    )


@settings(max_examples=60, deadline=None)
@given(rules())
def test_every_optimizer_is_torchs_in_float64(rule):
    assert_allclose(trained(rule), trained_by_torch(rule), rtol=1e-9, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(rate=RATES, kept=st.sampled_from([0.5, 0.9]), nesterov=st.booleans())
def test_momentum_of_updates_is_that_of_gradients_while_the_learning_rate_stays(rate, kept, nesterov):
    rule = Optimizer(kind="sgd", learning_rate=rate, momentum=kept, nesterov=nesterov)
    assert_allclose(trained(rule, Forms(momentum="of updates")), trained(rule), rtol=1e-9, atol=1e-12)


def test_momentum_of_updates_is_another_where_the_learning_rate_changes():
    rule = Optimizer(kind="sgd", learning_rate=0.1, momentum=0.9, decay=0.5, decay_steps=2)
    apart = np.abs(trained(rule, Forms(momentum="of updates")) - trained(rule)).max(axis=1)
    assert (apart[:2] < 1e-12).all()
    assert apart[2] > 1e-3


@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_the_place_of_epsilon_matters_where_gradients_are_small(kind):
    rule = Optimizer(kind=kind, learning_rate=0.1, epsilon=1e-3)
    form = {"adam": "added to the root", "rmsprop": "inside the root"}[kind]
    ours, theirs = trained(rule), trained(rule, Forms(epsilon=form))
    assert_allclose(ours[:, 3], theirs[:, 3], rtol=5e-3)  # a gradient of 1000
    assert np.abs(ours[:, 2] - theirs[:, 2]).max() > 1e-6  # one of 1e-6


def test_adams_epsilon_added_to_the_root_is_divided_by_the_roots_correction():
    """Kingma and Ba 2015, the formula before section 2.1: with epsilon times sqrt(1 - beta2^t) both forms are one."""
    rule = Optimizer(kind="adam", learning_rate=0.1, epsilon=1e-4)
    w, g = np.array([1.0]), np.array([1e-3])
    slots = {"m": np.array([2e-4]), "v": np.array([3e-7])}
    scaled = Optimizer(kind="adam", learning_rate=0.1, epsilon=1e-4 * (1.0 - 0.999**3) ** 0.5)
    ours = updated(rule, Forms(), 3, w, g, slots)[0]
    theirs = updated(scaled, Forms(epsilon="added to the root"), 3, w, g, slots)[0]
    assert_allclose(ours, theirs, rtol=1e-12)


def test_a_learning_rate_falls_after_each_whole_number_of_decay_steps():
    rule = Optimizer(kind="sgd", learning_rate=1.0, decay=0.5, decay_steps=3)
    assert [rule.rate(step) for step in range(1, 8)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]


def test_nan_in_a_gradient_reaches_parameter_and_slots():
    rule = Optimizer(kind="adam", learning_rate=0.1)
    zeros = {"m": np.zeros(2), "v": np.zeros(2)}
    w, slots = updated(rule, Forms(), 1, np.ones(2), np.array([np.nan, 1.0]), zeros)
    assert np.isnan([w[0], slots["m"][0], slots["v"][0]]).all()
    assert np.isfinite([w[1], slots["m"][1], slots["v"][1]]).all()
