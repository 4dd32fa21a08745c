"""A framework that trains as the definition does, in float64, rounded to float32 after each step; with faults on demand.

ACTCONFORM_TEST_STUDY has what becomes of kernels: "refuse=elu die=tanh".
"""

from __future__ import annotations

import os

import numpy as np

from actconform import Backend, Support, hookimpl
from actconform.catalog.models.layer_kinds import kernel_of
from actconform.oracle.layers.model import values
from actconform.oracle.training.trajectory import after_step, initial_slots, passed_through
from actconform.plugin.training_loop import Trainer, train
from actconform.types.model import LOSS


class DefinitionTrainer(Trainer):
    implementation = "the definition"

    def __init__(self, task):
        self._experiment = task.experiment
        state = {**task.state, **initial_slots(task.experiment)}
        self._state = {name: array.astype(np.float32) for name, array in state.items()}

    def step(self, batch, number):
        with np.errstate(all="ignore"):
            computed = passed_through(self._experiment.model, {**batch, **self._state})
            after = after_step(self._experiment, self.forms, number + 1, self._state, computed)
            self._state = {name: array.astype(np.float32) for name, array in after.items()}
        return float(computed.loss)

    def state(self):
        return dict(self._state)

    def restore(self, state):
        self._state.update(state)

    def evaluate(self, inputs):
        with np.errstate(all="ignore"):
            layers = values(self._experiment.evaluation, {**inputs, **self._state})
        return float(layers[LOSS]), layers[self._experiment.evaluation.output].astype(np.float32)


class StudyTrainer(Backend):
    name = "study-trainer"
    kind = "framework"

    def facts(self):
        return {"study-trainer": "1.0"}

    def supports(self, case):
        return Support(True)

    def train(self, task):
        faults = dict(word.split("=") for word in os.environ.get("ACTCONFORM_TEST_STUDY", "").split())
        layers = task.experiment.model.layers
        kernels = {kernel_of(layer).name for layer in layers if layer.kind == "activation"}
        if faults.get("refuse") in kernels:
            raise ValueError("this loss takes no such output")
        if faults.get("die") in kernels:
            os.abort()
        return train(DefinitionTrainer(task), task)


class Plugin:
    @hookimpl
    def actconform_backends(self):
        return [StudyTrainer]
