"""Small experiments of the catalog, trained as the definition does and with faults, and compared: nothing here needs a framework."""

from __future__ import annotations

from functools import cache

import msgspec
import numpy as np

from actconform.catalog.experiments import experiments
from actconform.comparison.steps import compare_training
from actconform.oracle.layers.model import values
from actconform.oracle.training.trajectory import after_step, initial_slots, passed_through
from actconform.plugin.training_loop import Trainer, train
from actconform.testdata.training_tasks import training_task
from actconform.testdata.training_vectors import free_running
from actconform.types.dtypes import DTYPES
from actconform.types.model import LOSS

F32 = DTYPES["f32"]


@cache
def task_of(name, **changes):
    """Return the task of an experiment, made short: by default two epochs, of which four steps are judged."""
    experiment = next(one for one in experiments() if one.name == name)
    return training_task(msgspec.structs.replace(experiment, **{"epochs": 2, "judged": 4, **changes}))


@cache
def _free(name, forms, changes):
    return free_running(task_of(name, **dict(changes)), forms, F32)


class FaultyTrainer(Trainer):
    """The definition in float64, rounded to float32 after each step. Faults override `read`, `pulled`, `moved` or `left`."""

    def __init__(self, task):
        self.task, self.experiment = task, task.experiment
        self.values = {**task.state, **initial_slots(task.experiment)}
        self.values = {name: np.array(array, np.float32) for name, array in self.values.items()}
        self.pulled_last = {}

    def read(self, batch, number):
        return batch

    def pulled(self, computed, number):
        return computed.gradients

    def moved(self, computed, number):
        return after_step(self.experiment, self.forms, number + 1, self.values, computed)

    def left(self, before, after, number):
        return after

    def loss(self, computed, batch):
        return float(computed.loss)

    def step(self, batch, number):
        batch = self.read(batch, number)
        with np.errstate(all="ignore"):
            computed = passed_through(self.experiment.model, {**batch, **self.values})
            gradients = {name: array.astype(np.float32) for name, array in self.pulled(computed, number).items()}
            computed = computed._replace(gradients={name: array.astype(float) for name, array in gradients.items()})
            after = self.left(self.values, self.moved(computed, number), number)
            self.values = {name: np.asarray(after[name], np.float32) for name in self.values}
        self.pulled_last = computed.gradients
        return self.loss(computed, batch)

    def gradients(self):
        names = [f"d_{name}" for name in self.experiment.differentiable]
        return {name: np.asarray(self.pulled_last[name], np.float32) for name in names}

    def state(self):
        return dict(self.values)

    def restore(self, state):
        self.values.update({parameter.name: state[parameter.name] for parameter in self.experiment.model.parameters})

    def evaluate(self, inputs):
        model = self.experiment.evaluation
        layers = values(model, {**inputs, **self.values})
        return float(layers[LOSS]), layers[model.output].astype(np.float32)


def trained(name, trainer=FaultyTrainer, **changes):
    """Return the task and the record of a training."""
    task = task_of(name, **changes)
    return task, train(trainer(task), task)


def compared(name, record, **changes):
    """Return how a record compares."""
    key = tuple(changes.items())
    return compare_training(task_of(name, **changes), record, _free(name, record.forms, key), F32)


def compared_training(name, trainer=FaultyTrainer, **changes):
    return compared(name, trained(name, trainer, **changes)[1], **changes)
