"""Training as most frameworks leave it to their users: a loop over batches, with early stopping, that keeps what is judged."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.types.training import Forms
from actconform.types.training_run import TrainingRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.types import Bundle
    from actconform.types.training import EarlyStopping
    from actconform.types.training_run import TrainingTask


class Trainer(ABC):
    """A model with its optimizer, ready to make one step after another; arrays are canonical, by name."""

    implementation: str = ""
    forms: Forms = Forms()

    @abstractmethod
    def step(self, batch: Bundle, number: int) -> float:
        """Make a step, counted from 0, and return the loss of the batch before it."""

    @abstractmethod
    def state(self) -> Bundle:
        """Return copies of the parameters, running statistics among them, and of the slots as "NAME/SLOT"."""

    @abstractmethod
    def restore(self, state: Bundle) -> None:
        """Take up the parameters of an earlier `state`; slots may stay."""

    @abstractmethod
    def evaluate(self, inputs: Bundle) -> tuple[float, NDArray[Any]]:
        """Return loss and "y" of the model in inference."""

    def gradients(self) -> Bundle:
        """Return the gradients of the last step as "d_NAME"; nothing where they are not shown, as here."""
        return {}


class Stopping:
    """Early stopping after its definition in `EarlyStopping`, epoch by epoch.

    `best`, the lowest validation loss that counts, and `waited`, the epochs since then, are all that it goes on from.
    """

    def __init__(self, stopping: EarlyStopping, best: float = float("inf"), waited: int = 0) -> None:
        self._stopping = stopping
        self.best, self.waited = best, waited

    @property
    def ended(self) -> bool:
        """Whether training ends after the last epoch."""
        return self.waited >= self._stopping.patience

    def improves(self, validation_loss: float) -> bool:
        """Take up the validation loss of an epoch, and tell whether the epoch is the best so far; one of NaN never is."""
        if validation_loss < self.best - self._stopping.min_delta:
            self.best, self.waited = validation_loss, 0
            return True
        self.waited += 1
        return False


def train(trainer: Trainer, task: TrainingTask) -> TrainingRecord:
    """Train through all epochs, or until early stopping ends them, and return the record."""
    experiment = task.experiment
    stopping = Stopping(experiment.stopping) if experiment.stopping else None
    best_state: Bundle | None = None
    losses: list[float] = []
    validation_losses: list[float] = []
    kept: list[tuple[Bundle, Bundle]] = []
    initial = trainer.state() if task.keep else {}
    seconds = 0.0
    for _ in range(experiment.epochs):
        for _ in range(experiment.steps):
            number = len(losses)
            batch = task.batch(number)
            started = time.perf_counter()
            losses.append(trainer.step(batch, number))
            seconds += time.perf_counter() - started
            if number < task.keep:
                kept.append((trainer.state(), trainer.gradients()))
        validation_losses.append(trainer.evaluate(task.evaluated_on(task.validation))[0])
        if stopping and stopping.improves(validation_losses[-1]):
            best_state = trainer.state()
        if stopping and stopping.ended:
            break
    if best_state is not None:
        trainer.restore(best_state)
    parameters = {parameter.name for parameter in experiment.model.parameters}
    return TrainingRecord(
        losses=np.asarray(losses, np.float32),
        states=stacked_bundles([initial, *(state for state, _ in kept)]) if task.keep else {},
        gradients=stacked_bundles([gradients for _, gradients in kept]),
        final={name: array for name, array in trainer.state().items() if name in parameters},
        predictions={
            name: trainer.evaluate(task.evaluated_on(rows))[1]
            for name, rows in (("examples", task.examples), ("validation", task.validation))
        },
        validation_losses=np.asarray(validation_losses, np.float32),
        forms=trainer.forms,
        implementation=trainer.implementation,
        seconds=seconds,
    )


def stacked_bundles(bundles: list[Bundle]) -> dict[str, NDArray[Any]]:
    """Return arrays by name with the bundles, which have the same names, along a new first axis; nothing of none."""
    names = bundles[0] if bundles else {}
    return {name: np.stack([bundle[name] for bundle in bundles]) for name in names}
