"""The numbers of an experiment: its data, the order of its batches, its noise and its initial parameters, the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.testdata.datasets import draw_rows
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.testdata.regimes import raw
from actconform.types.training_run import TrainingTask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.types.model import Model
    from actconform.types.training import Experiment

NOISE_STEPS = 32  # after which masks and Gumbel noise come again


def training_task(experiment: Experiment, *, keep: int | None = None) -> TrainingTask:
    """Return what a backend needs to train; `keep` is how many steps leave their state, by default those that are judged.

    Examples, validation, order and parameters are drawn from streams that bear the experiment's seed; the parameters of one model are
    the same in all its experiments of one seed.
    """
    model, seed = experiment.model, experiment.seed
    named = msgspec.structs.replace(model, name=f"{_network(model)}/seed {seed}", batch=experiment.batch)
    kept = min(experiment.judged, experiment.steps * experiment.epochs) if keep is None else keep
    return TrainingTask(
        experiment=experiment,
        state=_initial(draw_parameters(named), model),
        examples=draw_rows(experiment.data, f"examples/{seed}", experiment.examples, model),
        validation=draw_rows(experiment.data, f"validation/{seed}", experiment.validation, model),
        order=_order(experiment),
        noise=_noise(named),
        keep=kept,
    )


def _initial(drawn: dict[str, NDArray[np.float32]], model: Model) -> dict[str, NDArray[np.float32]]:
    """Return parameters as training begins with them: biases 0, scales 1, running means 0 and variances 1."""
    usual = {"bias": 0.0, "beta": 0.0, "gamma": 1.0, "mean": 0.0, "variance": 1.0}
    kinds = {layer.name: layer.kind for layer in model.layers}
    initial = {}
    for name, array in drawn.items():
        layer, _, short = name.rpartition(".")
        value = usual.get("bias" if short.endswith("bias") else short)
        initial[name] = array if value is None or not kinds[layer] else np.full_like(array, value)
    return initial


def _network(model: Model) -> str:
    return model.name.replace("@training", "")


def _order(experiment: Experiment) -> NDArray[np.int64]:
    """Return the rows of each batch, (epochs, steps, batch)."""
    used = experiment.steps * experiment.batch
    epochs = []
    for epoch in range(experiment.epochs):
        stream = f"{experiment.data}/order/{experiment.seed}/{epoch}"
        rows = (
            np.argsort(raw(stream, experiment.examples), kind="stable")
            if experiment.shuffled
            else np.arange(experiment.examples)
        )
        epochs.append(rows[:used].reshape(experiment.steps, experiment.batch))
    return np.stack(epochs)


def _noise(named: Model) -> dict[str, NDArray[np.float32]]:
    names = [one.name for one in named.inputs if one.role == "noise"]
    if not names:
        return {}
    steps = [
        draw_inputs(
            msgspec.structs.replace(
                named,
                name=f"{named.name}/noise {number}",
                inputs=tuple(one for one in named.inputs if one.role == "noise"),
            )
        )
        for number in range(NOISE_STEPS)
    ]
    return {name: np.stack([step[name] for step in steps]) for name in names}
