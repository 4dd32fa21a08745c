"""What the benchmark of training steps times: the experiments themselves, with fewer steps."""

from __future__ import annotations

import msgspec

from actconform.catalog.experiments import experiments
from actconform.testdata.training_tasks import training_task
from benchmarks.training import TIMED, shortened


def test_an_experiment_is_shortened_to_its_steps_and_nothing_else() -> None:
    (experiment,) = (each for each in experiments() if each.name == "map-attention")
    short = shortened(experiment, 3)
    task = training_task(short)
    assert task.order.shape == (1, 3, experiment.batch)
    assert task.keep == 0
    assert short.optimizer == experiment.optimizer
    changed = {name: getattr(experiment, name) for name in ("examples", "validation", "epochs", "stopping", "judged")}
    assert msgspec.structs.replace(short, **changed) == experiment


def test_what_is_timed_is_in_the_catalog() -> None:
    assert TIMED.keys() <= {experiment.name for experiment in experiments()}
