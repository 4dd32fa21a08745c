"""The goldens of experiments: the state that training begins with, and the first losses and gradient norms of its true path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.catalog.models.zoo import PUBLISHED
from actconform.errors import GoldenError
from actconform.oracle.training.trajectory import trajectory
from actconform.testdata.golden.model_goldens import VERIFIED, distance, sampled
from actconform.testdata.golden.store import Golden
from actconform.testdata.regimes import TensorGroup
from actconform.testdata.training_tasks import training_task
from actconform.types.training import Forms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from actconform.types.training import Experiment
    from actconform.types.training_run import TrainingTask

LOSSES, NORMS = "losses", "gradient_norms"
GOLDEN_STEPS = 20
REGIME = "training"


def experiment_golden(experiment: Experiment) -> Golden:
    """Return what is stored of an experiment: initial parameters, float32; true losses and gradient norms of 20 steps, float64.

    The path is that of the default forms of the optimizer; a norm is that of all gradients of a step together. Of published sizes, whose
    steps take seconds, there is no path, and of each parameter its Euclidean norm and 256 elements, as of models.
    """
    task = training_task(experiment, keep=0)
    tensors = dict(_stored_state(task))
    if PUBLISHED not in experiment.name:
        losses, norms, _ = trajectory(task, min(GOLDEN_STEPS, experiment.steps * experiment.epochs), Forms())
        tensors |= {LOSSES: np.asarray(losses), NORMS: np.asarray(norms)}
    group = TensorGroup(REGIME, {name: array.shape for name, array in tensors.items()})
    return Golden((group,), {name: array.ravel() for name, array in tensors.items()})


def check_initial_state(task: TrainingTask, golden: Golden) -> None:
    """Raise GoldenError naming the parameters that training would begin with other bits of than the golden holds."""
    name = task.experiment.name
    state = _stored_state(task)
    stored = golden.tensors.keys() - {LOSSES, NORMS}
    if stored != state.keys():
        wrong = ", ".join(sorted(stored ^ state.keys()))
        raise GoldenError(f"{name}: the golden has other parameters than the experiment ({wrong}): mint it again")
    moved = [key for key, array in state.items() if not _alike(array, golden.tensors[key])]
    if moved:
        raise GoldenError(f"{name}: the stored {', '.join(moved)} are not what training begins with: mint it again")


def verify_experiment(experiment: Experiment, golden: Golden) -> float:
    """Return by how much losses and gradient norms differ from the golden, relative to the largest of each.

    Raises GoldenError where that is more than 1e-12, naming the first step that is off, or where the initial state has other bits.
    """
    check_initial_state(training_task(experiment, keep=0), golden)
    fresh = experiment_golden(experiment)
    worst = 0.0
    for name in fresh.tensors.keys() & {LOSSES, NORMS}:
        got, stored = fresh.tensors[name], golden.tensors.get(name, np.empty(0))
        if got.shape != stored.shape:
            message = f"{experiment.name}: the golden has {stored.size} {name}, expected {got.size}: mint it again"
            raise GoldenError(message)
        moved_by = distance(got, stored, 0.0)
        if not moved_by <= VERIFIED:
            step = int(np.argmax(~(np.abs(got - stored) <= VERIFIED * np.abs(stored).max())))
            message = (
                f"{experiment.name}: {name} of step {step + 1} is {float(got[step])!r}, the golden holds "
                f"{float(stored[step])!r}, more than {VERIFIED:g} of the largest apart: the formulas or the golden are wrong"
            )
            raise GoldenError(message)
        worst = max(worst, moved_by)
    return worst


def _stored_state(task: TrainingTask) -> Mapping[str, NDArray[Any]]:
    if PUBLISHED not in task.experiment.name:
        return task.state
    return {name: sampled(np.asarray(array, np.float64)) for name, array in task.state.items()}


def _alike(fresh: NDArray[Any], stored: NDArray[Any]) -> bool:
    """Tell whether a parameter has the bits that are stored; a sample its norm within 1e-12, as sums differ between machines."""
    if fresh.dtype == np.float32:
        return fresh.tobytes() == stored.tobytes()
    return fresh[1:].tobytes() == stored[1:].tobytes() and distance(fresh[:1], stored[:1], 0.0) <= VERIFIED
