"""The experiments as they are described: what the texts train, every optimizer, claims with the texts' numbers."""

from __future__ import annotations

import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.models.zoo import PUBLISHED
from actconform.plugin.validate import SAFE_NAME

EXPERIMENTS = experiments()
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
each = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=list(BY_NAME))


def test_names_are_safe_and_each_is_one_experiments():
    assert len(BY_NAME) == len(EXPERIMENTS)
    assert all(SAFE_NAME.fullmatch(name) for name in BY_NAME)


@each
def test_in_inference_the_network_is_the_same(experiment):
    assert {one.name: one.shape for one in experiment.model.parameters} == {
        one.name: one.shape for one in experiment.evaluation.parameters
    }
    assert not experiment.evaluation.training
    assert [layer.name for layer in experiment.model.layers] == [layer.name for layer in experiment.evaluation.layers]


@each
def test_sizes_fit(experiment):
    assert experiment.model.batch == experiment.batch <= experiment.examples
    assert experiment.evaluation.batch == experiment.validation
    assert 1 <= experiment.judged <= experiment.steps * experiment.epochs
    assert 1 <= experiment.free_steps <= experiment.steps * experiment.epochs


@each
def test_a_claim_has_a_limit_and_says_what_it_claims(experiment):
    for claim in experiment.claims:
        assert claim.text
        assert claim.at_least > float("-inf") or claim.at_most < float("inf")
    measures = [claim.measure for claim in experiment.claims]
    assert len(set(measures)) == len(measures)


def test_every_optimizer_of_the_issue_trains_in_a_small_experiment():
    rules = [experiment.optimizer for name, experiment in BY_NAME.items() if PUBLISHED not in name]
    assert {rule.kind for rule in rules} == {"sgd", "adam", "adamw", "rmsprop"}
    sgd = {(rule.momentum > 0.0, rule.nesterov) for rule in rules if rule.kind == "sgd"}
    assert sgd == {(False, False), (True, False), (True, True)}
    assert any(rule.decay != 1.0 for rule in rules)
    assert any(rule.weight_decay > 0.0 for rule in rules)


def test_the_texts_numbers_stand_beside_the_claims():
    def published(name):
        return {claim.measure: claim.published for claim in BY_NAME[name].claims}

    assert published("noise-softmax") == {"loss": "1.0020", "validation loss": "1.0271", "rank deficiency": ""}
    assert published("noise-relu" + PUBLISHED) == {"loss": "0.4808", "validation loss": "1.3290"}
    assert published("images-softmax1")["loss"] == "7.60"
    assert published("images-sigmoid") == {"accuracy": "0.98", "loss": "0.06"}
    assert published("blobs-adam") == {"accuracy": "1.00", "loss": "0.0020"}


def test_published_sizes_are_those_of_the_texts():
    noise, blobs = BY_NAME["noise-relu" + PUBLISHED], BY_NAME["blobs-adam" + PUBLISHED]
    assert (noise.examples, noise.validation, noise.batch, noise.epochs, noise.model.size) == (
        10_000,
        5_000,
        32,
        16,
        438_017,
    )
    assert (blobs.batch, blobs.epochs, blobs.optimizer.kind, blobs.optimizer.learning_rate) == (5, 30, "adam", 1e-3)
    stopping = BY_NAME["images-softmax1" + PUBLISHED].stopping
    assert stopping is not None
    assert (stopping.min_delta, stopping.patience) == (0.001, 30)
