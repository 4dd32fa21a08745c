"""One training of an experiment, as data: the numbers that it begins with and reads, and the record of what it left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from actconform.types.training import Experiment, Forms

Bundle: TypeAlias = Mapping[str, NDArray[Any]]

NEXT = "next/"  # before the name of what the graph of a step makes of a parameter or slot
STEP, RATE = (
    "step",
    "learning_rate",
)  # inputs of that graph: the number of the step, from 1 on, int64, and its learning rate


class TrainingTask(msgspec.Struct, frozen=True, kw_only=True):
    """All that a backend needs to train: the experiment with its numbers.

    `state` are the initial parameters, canonical float32; `examples` and `validation` the inputs of the model, all rows, without noise.
    Step i, from 0 on, reads the rows `order[i // steps, i % steps]` and the noise `noise[name][i % len(noise[name])]`.
    `keep` is how many steps leave their state in the record, and whether they leave gradients is the backend's choice.
    """

    experiment: Experiment
    state: Bundle
    examples: Bundle
    validation: Bundle
    order: NDArray[Any]
    noise: Bundle = {}
    keep: int = 0

    def batch(self, step: int) -> dict[str, NDArray[Any]]:
        """Return what a step, counted from 0, reads by input: rows of the examples, and its noise."""
        epoch, place = divmod(step, self.order.shape[1])
        rows = self.order[epoch, place]
        noise = {name: arrays[step % len(arrays)] for name, arrays in self.noise.items()}
        return {**{name: array[rows] for name, array in self.examples.items()}, **noise}

    def evaluated_on(self, rows: Bundle) -> dict[str, NDArray[Any]]:
        """Return examples or validation as the model in inference reads them: noise that it reads there too is 0."""
        count = len(next(iter(rows.values())))
        quiet = {
            one.name: np.zeros((count, *one.shape), np.float32)
            for one in self.experiment.evaluation.inputs
            if one.role == "noise"
        }
        return {**rows, **quiet}


class TrainingRecord(msgspec.Struct, kw_only=True):
    """What one training left behind.

    losses: of every step, before its update. states: by parameter, running statistic ("norm1.mean") or slot ("dense1.kernel/m") the
    values before the first step and after each of the first `keep` ones, stacked. gradients: "d_NAME", of the same steps, or empty.
    validation_losses: after each epoch, with the loss of a batch of all validation examples. final: the parameters at the end, restored
    where the experiment says so. predictions: what the final parameters give in inference, "examples" and "validation".
    """

    losses: NDArray[Any]
    states: Bundle
    final: Bundle
    predictions: Bundle
    validation_losses: NDArray[Any]
    gradients: Bundle = {}
    forms: Forms = Forms()
    implementation: str = ""
    seconds: float = 0.0
    """Of the steps alone, without compilation and evaluation, as far as the backend can tell them apart."""
