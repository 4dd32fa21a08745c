"""Trainings step by step: a healthy one is not accused, a wrong one is named at its first wrong step, with what it looks like."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from faulty_training import F32, FaultyTrainer, compared, compared_training, task_of, trained

from actconform.comparison.steps import compare_training
from actconform.plugin.training_loop import train
from actconform.testdata.training_vectors import bounded_step, free_running
from actconform.types import FindingClass
from actconform.types.training import EarlyStopping, Forms

IMAGES = {"epochs": 1, "judged": 2, "examples": 32, "validation": 16}
DROPOUT = {"epochs": 1, "judged": 3, "examples": 96}
KERNEL = "dense1.kernel"


def changed_rule(**changes):
    class Changed(FaultyTrainer):
        def __init__(self, task):
            super().__init__(task)
            rule = msgspec.structs.replace(task.experiment.optimizer, **changes)
            self.experiment = msgspec.structs.replace(task.experiment, optimizer=rule)

    return Changed


class Stale(FaultyTrainer):
    def read(self, batch, number):
        return self.task.batch(max(number - 1, 0))


class Next(FaultyTrainer):
    def read(self, batch, number):
        return self.task.batch(min(number + 1, 7))


class WithoutLastRow(FaultyTrainer):
    def read(self, batch, number):
        return {name: array[:-1] for name, array in batch.items()}


class OneMask(FaultyTrainer):
    def read(self, batch, number):
        masks = {name: array for name, array in self.task.batch(0).items() if name.startswith("mask")}
        return {**batch, **masks}


class LossSummed(FaultyTrainer):
    def loss(self, computed, batch):
        return float(computed.loss) * self.experiment.batch


class LossAfterwards(FaultyTrainer):
    def loss(self, computed, batch):
        return float("nan")  # replaced in `step`, which knows the parameters after it

    def step(self, batch, number):
        super().step(batch, number)
        again = FaultyTrainer(self.task)
        again.values = dict(self.values)
        return again.step(batch, number)


def changed_gradients(change):
    class Changed(FaultyTrainer):
        def pulled(self, computed, number):
            before = self.pulled_last
            return {name: change(name, array, before, self, number) for name, array in computed.gradients.items()}

    return Changed


def turned(name, g, before, trainer, number):
    return g if number else -g  # in the first step: others after it would lead to infinity


def changed_step(change):
    class Changed(FaultyTrainer):
        def left(self, before, after, number):
            return {name: change(name, before[name], after[name], number) for name in before}

    return Changed


class SteppedByEarlier(FaultyTrainer):
    """Shows the gradients of each step, and steps by those of the step before."""

    shown = None

    def moved(self, computed, number):
        earlier, self.shown = self.shown, computed.gradients
        return super().moved(computed._replace(gradients=earlier or computed.gradients), number)


def halved_rate_from_4(name, before, after, number):
    return (before + after) / 2.0 if number >= 3 and "/" not in name else after


CASES = {
    "stale batch": ("blobs-adam", Stale, {}, 2, "loss", "computed of the batch of step 1"),
    "next batch": ("blobs-adam", Next, {}, 1, "loss", "computed of the batch of step 2"),
    "a row left out": ("blobs-sgd", WithoutLastRow, {}, 1, "loss", "of all rows of the batch but the last"),
    "dropout mask reused": ("map-dropout", OneMask, DROPOUT, 2, "loss", "the dropout mask) of step 1 again"),
    "loss summed": ("blobs-sgd", LossSummed, {}, 1, "loss", "summed over the 16 rows of the batch, and not averaged"),
    "loss after the update": ("blobs-sgd", LossAfterwards, {}, 1, "loss", "computed of the parameters after the step"),
    "gradient accumulated": (
        "blobs-sgd", changed_gradients(lambda name, g, before, *_: g + before.get(name, 0.0)), {}, 2, "gradient",
        "that of step 1 added to it: accumulated and not cleared",
    ),
    "gradient of the step before": (
        "blobs-sgd", changed_gradients(lambda name, g, before, *_: before.get(name, g)), {}, 2, "gradient",
        "the gradient of step 1",
    ),
    "gradient turned": ("blobs-sgd", changed_gradients(turned), {}, 1, "gradient", "of the opposite sign"),
    "gradient lost": (
        "blobs-sgd", changed_gradients(lambda name, g, *_: 0.0 * g if KERNEL in name else g), {}, 1, "gradient", "no gradient: all 0",
    ),
    "gradient clipped": ("blobs-sgd", changed_gradients(lambda name, g, *_: 0.01 * g), {}, 1, "gradient", "multiplied by 0.01, to a norm of"),
    "gradient clipped each": (
        "blobs-sgd", changed_gradients(lambda name, g, *_: np.clip(g, -0.03125, 0.03125)), {}, 1, "gradient", "clipped to 0.03125",
    ),
    "gradient in float16": (
        "blobs-sgd", changed_gradients(lambda name, g, *_: g.astype(np.float16).astype(float)), {}, 1, "gradient", "rounded to float16",
    ),
    "gradient with decay": (
        "blobs-sgd",
        changed_gradients(lambda name, g, before, trainer, number: g + 0.125 * trainer.values.get(name[2:], 0.0)),
        {}, 1, "gradient", "times the parameter added to it: a weight decay in the gradient",
    ),
    "beta2": ("blobs-adam", changed_rule(beta2=0.99), {}, 1, "optimizer", "beta1 and beta2 are 0.9 and 0.99, and not 0.9 and 0.999"),
    "betas exchanged": ("blobs-adam", changed_rule(beta1=0.999, beta2=0.9), {}, 1, "optimizer", "beta1 and beta2 are exchanged"),
    "epsilon": ("blobs-adam", changed_rule(epsilon=1e-3), {}, 1, "optimizer", "epsilon is 0.001, and not 1e-07"),
    "no decay": ("blobs-adamw", changed_rule(weight_decay=0.0), {}, 1, "optimizer", "weight decay is left out"),
    "plain momentum": ("blobs-nesterov", changed_rule(nesterov=False), {}, 1, "optimizer", "plain momentum, and not Nesterov's"),
    "other momentum": ("blobs-momentum", changed_rule(momentum=0.5), {}, 2, "optimizer", "momentum is 0.5, and not 0.9"),
    "rate not decayed": (
        "blobs-decayed", changed_rule(decay=1.0), {"judged": 6}, 5, "optimizer", "the learning rate is 0.01, that of step 4, and not 0.005",
    ),
    "rate of the step after": (
        "blobs-decayed", changed_rule(decay_steps=3), {"judged": 6}, 4, "optimizer", "the learning rate is 0.005, that of step 5, and not 0.01",
    ),
    "rate": ("blobs-sgd", changed_rule(learning_rate=0.007), {}, 1, "optimizer", "by the learning rate 0.007"),
    "from step 4 on": ("blobs-sgd", changed_step(halved_rate_from_4), {}, 4, "optimizer", "the step is 0.5 times as long"),
    "never updated": (
        "blobs-sgd", changed_step(lambda name, before, after, _: before if name == "dense2.bias" else after),
        {}, 1, "optimizer", "the parameter is left as it was",
    ),
    "step made twice": (
        "blobs-sgd", changed_step(lambda name, before, after, _: after + (after - before)), {}, 1, "optimizer", "the step is made twice",
    ),
    "gradient of before in the step": ("blobs-sgd", SteppedByEarlier, {}, 2, "optimizer", "it steps by the gradient of step 1"),
    "update in float16": (
        "blobs-sgd", changed_step(lambda name, before, after, _: after.astype(np.float16)), {}, 1, "optimizer", "rounded to float16",
    ),
    "statistics updated twice": (
        "images-sigmoid",
        changed_step(lambda name, old, new, _: old + 1.99 * (new - old) if name.endswith((".mean", ".variance")) else new),
        IMAGES, 1, "batch statistics", "updated twice",
    ),
    "statistics not updated": (
        "images-sigmoid", changed_step(lambda name, before, after, _: before if name.endswith(".mean") else after),
        IMAGES, 1, "batch statistics", "not updated",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_first_wrong_step_is_named_with_its_part_and_what_it_looks_like(case):
    name, trainer, changes, step, part, words = CASES[case]
    result = compared_training(name, trainer, **changes)
    assert (result.first.step, result.first.part, result.wrong_step) == (step, part, step)
    named = [finding for finding in result.findings if finding.regime == part and finding.tensor == result.first.tensor]
    assert named
    assert all(f"first at step {step}, {part}: {result.first.tensor}" in finding.evidence for finding in named)
    assert all("it looks like: " in finding.evidence for finding in named)
    assert all(words in finding.evidence for finding in named)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("blobs-adam", {}),
        ("blobs-adamw", {}),
        ("blobs-nesterov", {}),
        ("blobs-rmsprop", {}),
        ("blobs-decayed", {"judged": 6}),
        ("blobs-stopped", {"epochs": 20}),
        ("map-dropout", DROPOUT),
        ("images-sigmoid", IMAGES),
    ],
)
def test_a_training_by_the_definition_is_not_accused(name, changes):
    result = compared_training(name, **changes)
    assert (result.findings, result.first, result.sound, result.finite) == ([], None, True, True)
    regimes = {measurement.regime for measurement in result.measurements}
    assert {"initial state", "loss", "gradient", "optimizer", "free running", "inference"} <= regimes


def test_a_step_that_is_like_no_usual_mistake_is_named_without_a_guess():
    odd = changed_step(lambda name, before, after, _: after + np.arange(after.size).reshape(after.shape) ** 2 * 1e-3)
    result = compared_training("blobs-sgd", odd)
    assert (result.first.step, result.first.part) == (1, "optimizer")
    assert not any("looks like" in finding.evidence for finding in result.findings)


def test_a_beginning_of_its_own_is_found_before_the_first_step():
    class Own(FaultyTrainer):
        def __init__(self, task):
            super().__init__(task)
            self.values[KERNEL] = self.values[KERNEL] * np.float32(1.25)

    result = compared_training("blobs-sgd", Own)
    assert (result.first.step, result.first.part, result.first.tensor) == (0, "initial state", KERNEL)
    assert {finding.regime for finding in result.findings} == {"initial state", "free running"}


def test_a_step_without_gradients_shown_is_judged_by_the_true_ones():
    class Silent(FaultyTrainer):
        def gradients(self):
            return {}

    assert compared_training("blobs-adam", Silent).findings == []

    class Ascending(Silent):
        def pulled(self, computed, number):
            return {name: turned(name, array, {}, self, number) for name, array in computed.gradients.items()}

    result = compared_training("blobs-sgd", Ascending)
    assert (result.first.step, result.first.part) == (1, "optimizer")
    assert "it goes up the gradient, not down" in result.findings[0].evidence


def test_forms_that_are_told_are_held_against_what_is_done():
    class OfUpdates(FaultyTrainer):
        forms = Forms(momentum="of updates")

    assert compared_training("blobs-momentum", OfUpdates).findings == []
    _, record = trained("blobs-momentum", OfUpdates)
    record.forms = Forms()
    result = compared("blobs-momentum", record)
    assert result.first.part == "optimizer"
    assert "momentum is a mean of updates, where the backend says of gradients" in result.findings[0].evidence


def test_a_running_variance_of_the_other_form_is_named_as_such():
    _, record = trained("images-sigmoid", **IMAGES)
    record.forms = Forms(variance="unbiased")
    result = compared("images-sigmoid", record, **IMAGES)
    assert result.first.part == "batch statistics"
    assert result.first.tensor.endswith(".variance")
    assert "the biased variance of the batch, where the backend says unbiased" in result.findings[0].evidence


def test_weights_of_the_last_epoch_in_place_of_the_best_are_found():
    class LastKept(FaultyTrainer):
        def restore(self, state):
            pass

    result = compared_training("blobs-stopped", LastKept, epochs=20)
    assert [(finding.regime, finding.tensor) for finding in result.findings] == [("inference", "validation loss")]
    assert "it looks like: the parameters of the last epoch" in result.findings[0].evidence


def test_normalization_in_the_wrong_mode_is_found_where_the_model_is_evaluated():
    class Training(FaultyTrainer):
        def evaluate(self, inputs):
            inference = self.experiment
            self.experiment = msgspec.structs.replace(inference, evaluation=inference.model)
            try:
                return super().evaluate(inputs)
            finally:
                self.experiment = inference

    result = compared_training("images-sigmoid", Training, **IMAGES)
    assert result.first.part == "inference"
    assert {finding.tensor for finding in result.findings} == {"examples y", "validation y", "validation loss"}
    assert all("it looks like: the model in training" in finding.evidence for finding in result.findings)


@pytest.mark.parametrize("patience", [1, 3])
def test_training_that_ends_at_another_epoch_than_its_own_losses_ask_is_found(patience):
    task = task_of("blobs-stopped", epochs=20)
    stopping = msgspec.structs.replace(task.experiment.stopping, patience=patience)
    experiment = msgspec.structs.replace(task.experiment, stopping=stopping)
    altered = msgspec.structs.replace(task, experiment=experiment)
    result = compared("blobs-stopped", train(FaultyTrainer(altered), altered), epochs=20)
    finding = next(finding for finding in result.findings if finding.regime == "early stopping")
    assert (finding.class_, finding.tensor) == (FindingClass.PROPERTY, "epochs")
    assert ("must go on" if patience == 1 else "must end after epoch") in finding.evidence


def test_a_gradient_that_becomes_nan_is_named_and_nothing_is_called_learned():
    def change(name, g, before, trainer, number):
        g = np.array(g)
        if number == 2 and name == f"d_{KERNEL}":
            g[1, 3] = np.nan
        return g

    result = compared_training("blobs-adam", changed_gradients(change))
    assert (result.first.step, result.first.part, result.first.tensor, result.first.place) == (
        3,
        "gradient",
        f"d_{KERNEL}",
        (1, 3),
    )
    assert (result.finite, result.wrong_step) == (False, 3)
    finding = next(finding for finding in result.findings if finding.regime == "not finite")
    assert (finding.class_, finding.tensor) == (FindingClass.PROPERTY, f"d_{KERNEL}")
    assert f"the first NaN is at step 3, gradient: d_{KERNEL} [1, 3]" in finding.evidence
    assert "the loss is no number from step 4 on" in finding.evidence
    assert "nothing is called learned, none of its 2 claims judged" in finding.evidence
    assert any(finding.class_ == FindingClass.NAN_MADE and finding.regime == "gradient" for finding in result.findings)


def test_a_loss_that_becomes_infinite_after_the_judged_steps_is_found_too():
    _, record = trained("blobs-sgd")
    record.losses = record.losses.copy()
    record.losses[30] = np.inf
    result = compared("blobs-sgd", record)
    assert not result.finite
    assert any("the first infinity is at step 31, loss: loss" in finding.evidence for finding in result.findings)


def test_of_steps_that_are_not_judged_that_which_comes_to_no_number_is_the_wrong_one():
    _, record = trained("blobs-sgd")
    broken = msgspec.structs.replace(record, losses=np.where(np.arange(record.losses.size) == 6, np.nan, record.losses))
    result = compared("blobs-sgd", broken)
    assert (result.first, result.wrong_step, result.finite) == (None, 7, False)


def test_a_training_that_rightly_ends_before_the_judged_steps_is_judged_as_far_as_it_went():
    changes = {"epochs": 12, "judged": 20, "batch": 160, "stopping": EarlyStopping(min_delta=10.0, patience=2)}
    task, record = trained("blobs-sgd", **changes)
    assert len(record.losses) < task.keep == 20
    assert compared("blobs-sgd", record, **changes).findings == []


def test_a_wrong_step_of_a_batch_of_one_row_is_named_too():
    half_more = changed_gradients(lambda name, g, *_: g * 1.5)
    result = compared_training("blobs-sgd", half_more, batch=1, examples=8)
    assert "first at step 1, gradient" in result.findings[0].evidence


def test_the_truth_of_a_first_step_that_was_computed_before_serves_where_it_begins_with_the_tasks_own_state():
    task, record = trained("blobs-adam", judged=2)
    truth, bounds = bounded_step(task.experiment, {**task.batch(0), **task.state}, F32)
    free = free_running(task, record.forms, F32)
    plain = compare_training(task, record, free, F32)
    assert compare_training(task, record, free, F32, (truth, bounds)) == plain
    absurd = truth._replace(gradients={name: array + 1.0 for name, array in truth.gradients.items()}), bounds
    assert compare_training(task, record, free, F32, absurd).wrong_step == 1
    record.states[KERNEL][0, 0, 0] += 1.0
    assert compare_training(task, record, free, F32, absurd) == compare_training(task, record, free, F32)
