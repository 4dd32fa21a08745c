"""One step of training, and many one after another, in float64: what a backend's own steps and losses are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from actconform.catalog.models.layer_kinds import kernel_of
from actconform.oracle.layers.model import gradients, statistics, values
from actconform.oracle.training.optimizers import updated
from actconform.types.model import LOSS

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.oracle.layers.registry import F64
    from actconform.types import Bundle, Kink
    from actconform.types.model import Model
    from actconform.types.training import Experiment, Forms
    from actconform.types.training_run import TrainingTask

    Touch = Callable[[str, F64], F64]


class Evaluated(NamedTuple):
    """What a model computes of one batch: every layer's value, the gradients by "d_NAME", and the running statistics after it."""

    layers: dict[str, F64]
    gradients: dict[str, F64]
    statistics: dict[str, F64]

    @property
    def loss(self) -> F64:
        return self.layers[LOSS]


def passed_through(
    model: Model, tensors: Bundle, touch: Callable[[str], Touch] = lambda _: lambda _, array: array
) -> Evaluated:
    """Return what a model computes of inputs and parameters, as `oracle.layers.model` does, by one pass there and back.

    On a kink itself, where biases of 0 meet inputs of 0, activations have the flatter of their slopes there, as frameworks have of relu.
    `touch("value")`, `touch("cotangent")`, `touch("gradient")` and `touch("statistics")` change what is computed.
    """
    kinks = kinks_of(model)

    def value(name: str, array: F64) -> F64:
        array = touch("value")(name, array)
        for kink in kinks.get(name, ()):
            array = np.where(array == kink.x, kink.x + _beside(kink), array)
        return array

    layers = values(model, tensors, value)
    pulled = gradients(model, tensors, layers, touch("cotangent"))
    left = statistics(model, tensors, layers)
    return Evaluated(
        layers,
        {f"d_{name}": touch("gradient")(name, array) for name, array in pulled.items()},
        {name: touch("statistics")(name, array) for name, array in left.items()},
    )


def kinks_of(model: Model) -> dict[str, list[Kink]]:
    """Return the kinks that the values of layers may lie on: by layer those of the activations that read it."""
    kinks: dict[str, list[Kink]] = {}
    for layer in model.layers:
        if layer.kind == "activation":
            bends = [kink for kink in kernel_of(layer).kinks if kink.left != kink.right]
            kinks.setdefault(layer.inputs[0], []).extend(bends)
    return kinks


def _beside(kink: Kink) -> float:
    """Return what leads from a kink to its flatter side, and changes no value."""
    nearest = max(abs(kink.x) * 2.0**-52, 2.0**-1070)
    return -nearest if abs(kink.left) < abs(kink.right) else nearest


def initial_slots(experiment: Experiment) -> dict[str, F64]:
    """Return the slots before the first step, zeros, as "NAME/SLOT"."""
    shapes = {parameter.name: parameter.shape for parameter in experiment.model.parameters}
    return {
        f"{name}/{slot}": np.zeros(shapes[name])
        for name in experiment.differentiable
        for slot in experiment.optimizer.slots
    }


def running(computed: Evaluated, forms: Forms) -> dict[str, F64]:
    """Return the running statistics after a step by the parameters that they replace, the variance in a backend's form."""
    statistics = dict(computed.statistics)
    for name in computed.statistics:
        layer, _, short = name.rpartition(".")
        if short == "unbiased":
            unbiased = statistics.pop(name)
            if forms.variance == "unbiased":
                statistics[f"{layer}.variance"] = unbiased
    return statistics


def after_step(experiment: Experiment, forms: Forms, step: int, state: Bundle, computed: Evaluated) -> dict[str, F64]:
    """Return parameters, slots and running statistics after a step, counted from 1, given those before it and what was computed."""
    following = {name: np.asarray(array, np.float64) for name, array in state.items()}
    for name in experiment.differentiable:
        slots = {slot: following[f"{name}/{slot}"] for slot in experiment.optimizer.slots}
        with np.errstate(all="ignore"):
            w, kept = updated(
                experiment.optimizer, forms, step, following[name], computed.gradients[f"d_{name}"], slots
            )
        following[name] = w
        following |= {f"{name}/{slot}": array for slot, array in kept.items()}
    following |= {name: array for name, array in running(computed, forms).items() if name in following}
    return following


def trajectory(
    task: TrainingTask,
    steps: int,
    forms: Forms,
    touch: Callable[[int], Touch] = lambda _: lambda _, array: array,
    rate: Callable[[int], float] = lambda _: 1.0,
    *,
    up_to_loss: bool = False,
) -> tuple[list[float], list[float], dict[str, F64]]:
    """Return the losses and the norms of all gradients together of the first steps, and the state after them.

    `touch(i)` may change the parameters that step i, from 0 on, begins with, and its learning rate is `rate(i)` times the experiment's.
    With `up_to_loss` the last step ends with its loss, which is cheaper: norms and state are those of the steps before it.
    """
    experiment, rule = task.experiment, task.experiment.optimizer
    state = {**{name: np.asarray(array, np.float64) for name, array in task.state.items()}, **initial_slots(experiment)}
    losses, norms = [], []
    for number in range(steps):
        for name in experiment.differentiable:
            state[name] = touch(number)(name, state[name])
        if up_to_loss and number == steps - 1:
            losses.append(float(values(experiment.model, {**task.batch(number), **state})[LOSS]))
            break
        computed = passed_through(experiment.model, {**task.batch(number), **state})
        losses.append(float(computed.loss))
        norms.append(
            float(np.sqrt(sum((computed.gradients[f"d_{name}"] ** 2).sum() for name in experiment.differentiable)))
        )
        slower = msgspec.structs.replace(rule, learning_rate=rule.learning_rate * rate(number))
        stepped = msgspec.structs.replace(experiment, optimizer=slower)
        state = after_step(stepped, forms, number + 1, state, computed)
    return losses, norms, state
