"""Short trainings of the catalog's experiments, for the tests of a backend that trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actconform.catalog.experiments import experiments
from actconform.comparison.steps import compare_training
from actconform.testdata.training_tasks import training_task
from actconform.testdata.training_vectors import free_running
from actconform.types.dtypes import DTYPES
from actconform.types.training import Optimizer

if TYPE_CHECKING:
    from actconform.comparison.steps import ComparedTraining
    from actconform.types.training import Forms
    from actconform.types.training_run import TrainingRecord, TrainingTask

SHORT_OPTIMIZERS = {
    "sgd": Optimizer(kind="sgd", learning_rate=0.01),
    "momentum": Optimizer(kind="sgd", learning_rate=0.01, momentum=0.9),
    "nesterov": Optimizer(kind="sgd", learning_rate=0.01, momentum=0.9, nesterov=True),
    "adam": Optimizer(kind="adam", learning_rate=0.01),
    "adamw": Optimizer(kind="adamw", learning_rate=0.01, weight_decay=0.1),
    "rmsprop": Optimizer(kind="rmsprop", learning_rate=0.001, beta2=0.9),
    "decayed": Optimizer(kind="sgd", learning_rate=0.01, momentum=0.9, decay=0.5, decay_steps=2),
}
"""Each optimizer, and a learning rate that falls."""


def short_task(name: str = "blobs-adam", **changes: Any) -> TrainingTask:
    """Return the task of an experiment: two epochs of three batches, of which 5 steps are judged, unless the changes say otherwise."""
    experiment = next(experiment for experiment in experiments() if experiment.name == name)
    sizes = {"examples": 3 * experiment.batch, "epochs": 2, "judged": 5, "free": 5}
    return training_task(msgspec.structs.replace(experiment, **(sizes | changes)))


def compared_record(task: TrainingTask, record: TrainingRecord, forms: Forms | None = None) -> ComparedTraining:
    """Return how the record of a training in float32 compares, by other forms of an optimizer where they are given."""
    record.forms = forms or record.forms
    return compare_training(task, record, free_running(task, record.forms, DTYPES["f32"]), DTYPES["f32"])


def first_wrong_part(compared: ComparedTraining) -> tuple[int, str]:
    """Return the first wrong step, from 1 on, and its part; raise AssertionError where nothing is wrong."""
    assert compared.findings, "no finding"
    assert compared.first is not None, "no first wrong element"
    return compared.first.step, compared.first.part
