"""An experiment with another kernel in a role differs in that kernel alone."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.kernels import KERNELS
from actconform.errors import Unsupported
from actconform.study.variants import ROLES, hidden_activations, kernel_names, study_variant
from actconform.testdata.training_tasks import training_task

EXPERIMENTS = {experiment.name: experiment for experiment in experiments()}
NOISE, BLOBS, SIGNALS = (EXPERIMENTS[name] for name in ("noise-relu", "blobs-adam", "signals-relu"))
SMALL = [experiment for experiment in EXPERIMENTS.values() if "@" not in experiment.name]


def kernels_of(model):
    return [layer.settings["kernel"] for layer in model.layers if layer.kind == "activation"]


@pytest.mark.parametrize("model", ["model", "evaluation"])
def test_the_hidden_role_is_every_activation_but_the_outputs(model):
    before, after = getattr(SIGNALS, model), getattr(study_variant(SIGNALS, "hidden", KERNELS["tanh"], 0), model)
    assert kernels_of(before) == ["relu"] * 7
    assert kernels_of(after) == ["tanh"] * 6 + ["relu"]
    assert msgspec.structs.replace(after, layers=before.layers) == before


def test_the_output_role_is_the_outputs_activation_alone():
    variant = study_variant(SIGNALS, "output", KERNELS["sigmoid"], 0)
    assert kernels_of(variant.model) == ["relu"] * 6 + ["sigmoid"]


def test_an_output_without_activation_gets_one():
    variant = study_variant(NOISE, "output", KERNELS["tanh"], 0)
    added = variant.model.layer(variant.model.output)
    assert (added.kind, added.settings["kernel"], added.inputs) == ("activation", "tanh", (NOISE.model.output,))
    assert variant.model.layers[-1].inputs[0] == added.name
    assert variant.model.parameters == NOISE.model.parameters


def test_an_output_of_logits_is_studied_with_the_loss_of_probabilities():
    variant = study_variant(BLOBS, "output", KERNELS["softmax"], 0)
    assert BLOBS.model.layers[-1].kind == "categorical-cross-entropy-from-logits"
    assert variant.model.layers[-1].kind == "categorical-cross-entropy"
    assert kernel_names(BLOBS.model, "output") == "softmax"
    assert kernel_names(BLOBS.model, "hidden") == "relu"
    assert kernel_names(NOISE.model, "output") == "none"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kernel", ["maxout", "glu"])
def test_a_kernel_that_halves_the_width_has_twice_as_many_units_before_it(role, kernel):
    variant = study_variant(NOISE, role, KERNELS[kernel], 0)
    for layer in hidden_activations(NOISE.model):
        assert variant.model.shapes[layer.name] == NOISE.model.shapes[layer.name]
        doubled = 2 if role == "hidden" else 1
        assert variant.model.shapes[layer.inputs[0]][-1] == doubled * NOISE.model.shapes[layer.name][-1]
    assert variant.model.shapes[variant.model.output] == NOISE.model.shapes[NOISE.model.output]
    assert variant.model.size > NOISE.model.size


def test_a_kernel_in_place_of_one_that_halves_the_width_has_half_as_many_units_before_it():
    maxout = EXPERIMENTS["classes-maxout"]
    assert study_variant(maxout, "hidden", KERNELS["maxout"], 0).model == maxout.model
    relu = study_variant(maxout, "hidden", KERNELS["relu"], 0).model
    for layer in hidden_activations(maxout.model):
        assert relu.shapes[layer.inputs[0]] == relu.shapes[layer.name] == maxout.model.shapes[layer.name]


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        ("prelu", "takes slope beside x"),
        ("hardmax", "has no gradient"),
        ("max", "makes one number of a row"),
        ("softmax-axis1", "works along axis 1"),
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_what_cannot_be_there_is_refused_with_the_reason(role, kernel, reason):
    with pytest.raises(Unsupported, match=reason):
        study_variant(NOISE, role, KERNELS[kernel], 0)


def test_a_wider_layer_that_cannot_be_is_refused():
    latent = EXPERIMENTS["bits-latent"]
    with pytest.raises(Unsupported, match="needs another width than warm before it has"):
        study_variant(latent, "hidden", KERNELS["glu"], 0)


def test_all_but_the_kernel_is_the_same_and_another_seed_draws_anew():
    tasks = [training_task(study_variant(NOISE, "hidden", KERNELS[name], 0), keep=0) for name in ("relu", "tanh")]
    for bundle in ("state", "examples", "validation"):
        first, second = (getattr(task, bundle) for task in tasks)
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)
    assert np.array_equal(tasks[0].order, tasks[1].order)
    other = training_task(study_variant(NOISE, "hidden", KERNELS["relu"], 1), keep=0)
    assert not np.array_equal(other.examples["x"], tasks[0].examples["x"])
    assert not np.array_equal(other.state["dense1.kernel"], tasks[0].state["dense1.kernel"])
    assert not np.array_equal(other.order, tasks[0].order)


@pytest.mark.parametrize("experiment", SMALL, ids=lambda experiment: experiment.name)
@pytest.mark.parametrize("role", ROLES)
def test_softmax_can_be_in_each_role_of_every_small_experiment(experiment, role):
    variant = study_variant(experiment, role, KERNELS["softmax"], 0)
    assert variant.claims == ()
    assert variant.model.shapes[variant.model.layers[-1].inputs[0]] == experiment.model.shapes[experiment.model.output]


def test_a_kernel_of_a_plugin_is_there_itself():
    kernel = msgspec.structs.replace(KERNELS["tanh"], name="someones-tanh")
    variant = study_variant(NOISE, "hidden", kernel, 0)
    assert kernels_of(variant.model) == [kernel] * 5
