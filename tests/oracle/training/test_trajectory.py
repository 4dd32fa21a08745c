"""A training in float64, against the same one in torch in float64, and what it does on kinks and with running statistics."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from actconform.catalog.experiments import experiments
from actconform.catalog.models.builder import describe, layer
from actconform.oracle.layers.model import values
from actconform.oracle.training.trajectory import after_step, initial_slots, passed_through, running, trajectory
from actconform.testdata.training_tasks import training_task
from actconform.types.model import Input
from actconform.types.training import Forms

BY_NAME = {experiment.name: experiment for experiment in experiments()}
STEPS = 8


def torch_losses(task):
    """The blobs in torch, float64, written without the project's torch plugin."""
    experiment = task.experiment
    w = {
        name: torch.tensor(task.state[name].astype(np.float64), requires_grad=True)
        for name in experiment.differentiable
    }
    rule = experiment.optimizer
    optimizer = torch.optim.Adam(w.values(), rule.learning_rate, (rule.beta1, rule.beta2), rule.epsilon)
    losses, norms = [], []
    for step in range(STEPS):
        batch = {name: torch.tensor(array.astype(np.float64)) for name, array in task.batch(step).items()}
        h = torch.relu(batch["x"] @ w["dense1.kernel"] + w["dense1.bias"])
        h = torch.relu(h @ w["dense2.kernel"] + w["dense2.bias"])
        loss = torch.nn.functional.cross_entropy(h @ w["dense3.kernel"] + w["dense3.bias"], batch["target"])
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.sqrt(sum((tensor.grad**2).sum() for tensor in w.values()))))
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, norms, {name: tensor.detach().numpy() for name, tensor in w.items()}


def test_a_trajectory_is_torchs_in_float64():
    task = training_task(BY_NAME["blobs-adam"])
    losses, norms, state = trajectory(task, STEPS, Forms())
    expected = torch_losses(task)
    assert_allclose(losses, expected[0], rtol=1e-10)
    assert_allclose(norms, expected[1], rtol=1e-10)
    for name, array in expected[2].items():
        assert_allclose(state[name], array, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("form", ["biased", "unbiased"])
def test_running_statistics_have_the_variance_of_the_backends_form(form):
    task = training_task(BY_NAME["images-softmax2"])
    model = task.experiment.model
    tensors = {**task.batch(0), **task.state}
    computed = passed_through(model, tensors)
    norm = torch.nn.BatchNorm2d(6, eps=1e-3, momentum=0.01).double()
    norm(torch.tensor(computed.layers["pool1"]).permute(0, 3, 1, 2))
    statistics = running(computed, Forms(variance=form))
    assert set(statistics) == {"norm1.mean", "norm1.variance", "norm2.mean", "norm2.variance"}
    assert_allclose(statistics["norm1.mean"], norm.running_mean.numpy(), rtol=1e-12)
    n = computed.layers["pool1"][..., 0].size
    unbiased = norm.running_var.numpy()
    biased = 0.99 + (unbiased - 0.99) * (n - 1) / n
    assert_allclose(statistics["norm1.variance"], unbiased if form == "unbiased" else biased, rtol=1e-12)


def kinked(kernel):
    layers = [
        layer("dense", "dense", "x", units=2),
        layer("act", "activation", "dense", kernel=kernel),
        layer("loss", "mean-squared-error", "act", "target"),
    ]
    inputs = [
        Input(name="x", shape=(2,), draw="normal"),
        Input(name="target", shape=(2,), draw="normal", role="target"),
    ]
    return describe("kinked", "a test", inputs, layers, output="act", batch=1)


@pytest.mark.parametrize(
    ("kernel", "at", "slope"), [("relu", 0.0, 0.0), ("relu6", 6.0, 0.0), ("leaky-relu", 0.0, 0.01)]
)
def test_on_a_kink_the_flatter_slope_is_taken(kernel, at, slope):
    tensors = {
        "x": np.zeros((1, 2)),
        "target": np.full((1, 2), 10.0),
        "dense.kernel": np.eye(2),
        "dense.bias": np.array([at, 1.0]),
    }
    model = kinked(kernel)
    computed = passed_through(model, tensors)
    y = computed.layers["act"][0]
    assert_allclose(computed.layers["act"], values(model, tensors)["act"])
    assert_allclose(computed.gradients["d_dense.bias"], [slope * (y[0] - 10.0), y[1] - 10.0], rtol=1e-6, atol=1e-12)


def test_a_step_leaves_alone_what_no_gradient_changes():
    experiment = BY_NAME["images-sigmoid"]
    task = training_task(experiment)
    state = {**{name: array.astype(np.float64) for name, array in task.state.items()}, **initial_slots(experiment)}
    following = after_step(experiment, Forms(), 1, state, passed_through(experiment.model, {**task.batch(0), **state}))
    assert following.keys() == state.keys()
    assert all(following[name].shape == state[name].shape for name in state)
    changed = {name for name in state if not np.array_equal(state[name], following[name])}
    assert {"conv1.kernel", "conv1.kernel/m", "norm1.mean", "norm2.variance"} <= changed
    frozen = msgspec.structs.replace(
        experiment.model,
        parameters=tuple(msgspec.structs.replace(one, trainable=False) for one in experiment.model.parameters),
    )
    still = msgspec.structs.replace(experiment, model=frozen)
    after = after_step(still, Forms(), 1, state, passed_through(experiment.model, {**task.batch(0), **state}))
    assert {name for name in state if not np.array_equal(state[name], after[name])} == {
        f"norm{number}.{short}" for number in (1, 2) for short in ("mean", "variance")
    }
