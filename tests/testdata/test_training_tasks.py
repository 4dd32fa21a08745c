"""The numbers of an experiment: each example once an epoch, noise of its own in every step, usual first values, all by the seed."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.models.zoo import PUBLISHED
from actconform.testdata.training_tasks import NOISE_STEPS, training_task

SMALL = {experiment.name: experiment for experiment in experiments() if PUBLISHED not in experiment.name}


@pytest.mark.parametrize("name", SMALL)
def test_an_epoch_reads_every_example_once_but_what_is_left_over(name):
    experiment = SMALL[name]
    order = training_task(experiment).order
    assert order.shape == (experiment.epochs, experiment.steps, experiment.batch)
    for epoch in order:
        assert len(np.unique(epoch)) == epoch.size
    assert not np.array_equal(order[0], order[1])
    assert experiment.examples - order[0].size < experiment.batch


def test_an_order_that_is_not_shuffled_is_that_of_the_examples():
    still = msgspec.structs.replace(SMALL["blobs-adam"], shuffled=False)
    order = training_task(still).order
    assert np.array_equal(order[3].ravel(), np.arange(order[3].size))


def test_a_batch_is_rows_of_the_examples_and_noise_of_its_step():
    task = training_task(SMALL["map-dropout"])
    steps = task.order.shape[1]
    batch = task.batch(steps + 1)
    assert np.array_equal(batch["x"], task.examples["x"][task.order[1, 1]])
    assert np.array_equal(batch["target"], task.examples["target"][task.order[1, 1]])
    assert np.array_equal(batch["mask1"], task.noise["mask1"][steps + 1])
    assert not np.array_equal(task.batch(0)["mask1"], task.batch(1)["mask1"])
    assert np.array_equal(task.batch(0)["mask1"], task.batch(NOISE_STEPS)["mask1"])
    assert abs(task.noise["mask1"].mean() - 0.7) < 0.02


def test_in_inference_noise_is_0_and_masks_are_gone():
    latent, dropout = training_task(SMALL["bits-latent"]), training_task(SMALL["map-dropout"])
    assert not latent.evaluated_on(latent.validation)["noise"].any()
    assert dropout.evaluated_on(dropout.validation).keys() == {"x", "target"}


def test_training_begins_with_biases_0_scales_1_and_statistics_of_a_standard_normal():
    state = training_task(SMALL["images-sigmoid"]).state
    assert not any(state[name].any() for name in ("conv1.bias", "dense2.bias", "norm1.beta", "norm2.mean"))
    assert all((state[name] == 1.0).all() for name in ("norm1.gamma", "norm2.variance"))
    assert np.unique(state["conv1.kernel"]).size > 100
    attention = training_task(SMALL["map-attention"]).state
    assert not any(array.any() for name, array in attention.items() if name.endswith("bias"))


def test_one_model_begins_alike_in_all_its_experiments_and_otherwise_with_another_seed():
    first, second = (training_task(SMALL[name]).state for name in ("blobs-adam", "blobs-sgd"))
    other = training_task(msgspec.structs.replace(SMALL["blobs-adam"], seed=1))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["dense1.kernel"], other.state["dense1.kernel"])
    assert not np.array_equal(training_task(SMALL["blobs-adam"]).examples["x"], other.examples["x"])


def test_only_the_judged_steps_leave_their_state():
    assert training_task(SMALL["blobs-adam"]).keep == 20
    assert training_task(SMALL["blobs-adam"], keep=0).keep == 0
    short = msgspec.structs.replace(SMALL["blobs-sgd"], epochs=1, examples=64)
    assert training_task(short).keep == 4
