"""The steps of a training as test vectors: for each step the truth from the state that the backend itself began it with.

So nothing accumulates, and each part of a step has a limit of its own: the loss, the gradients and the batch statistics how far the truth moves
by roundings, as for models; what the optimizer makes of the gradients a running error bound of its arithmetic.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from actconform.catalog.models.layer_kinds import kernel_of
from actconform.oracle.layers.model import values
from actconform.oracle.training.optimizers import updated
from actconform.oracle.training.trajectory import initial_slots, passed_through, running, trajectory
from actconform.testdata.kernel_vectors import TestVector, TestVectors
from actconform.testdata.model_vectors import model_limit, signs, spread_limit, touched_by_rounding
from actconform.testdata.undecided import flips
from actconform.tolerance.limits import Tolerance
from actconform.tolerance.running_error import Bounded, constant_number, exact_inputs
from actconform.types.model import LOSS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from actconform.oracle.training.trajectory import Evaluated, Touch
    from actconform.types import Bundle, Kernel
    from actconform.types.dtypes import FloatFormat
    from actconform.types.model import Model
    from actconform.types.training import Experiment, Forms, Optimizer
    from actconform.types.training_run import TrainingRecord, TrainingTask

    F64 = NDArray[np.float64]
    BoundedStep: TypeAlias = tuple[Evaluated, dict[str, F64]]

LOSS_PART, GRADIENT, STATISTICS, OPTIMIZER = PARTS = ("loss", "gradient", "batch statistics", "optimizer")
"""The parts of a step, in the order of the computation: regimes of its test vectors."""
STEP_RUNS = 4  # of perturbed evaluations, each of a step
OF_MODELS = 2.0  # times the limit of models, which have twice as many evaluations to see how far an element moves
INFERENCE_RUNS = (
    8  # hundreds of thousands of elements are judged: the spread of some is small in four evaluations by chance alone
)
LOGARITHM_ROUNDINGS = 4.0  # of 1: of the probability, twice where it is one less others, and of its logarithm
INITIAL = "initial state"
INFERENCE = "inference"
VALIDATION_LOSS = "validation loss"
FREE_RUNNING = "free running"
FREE_RUNS = 4
FREE_LIMIT = 64.0  # spreads: paths part, and a healthy one may part earlier than those that were drawn


class JudgedStep:
    """One step of a record: the state before and after it, the gradients where the backend shows them."""

    def __init__(self, task: TrainingTask, record: TrainingRecord, number: int) -> None:
        self.number = number
        """From 0 on."""
        self.before = {name: array[number] for name, array in record.states.items()}
        self.after = {name: array[number + 1] for name, array in record.states.items()}
        self.gradients = {name: array[number] for name, array in record.gradients.items()}
        self.loss = np.asarray(record.losses[number])
        self.batch = task.batch(number)


def step_vectors(
    task: TrainingTask,
    forms: Forms,
    step: JudgedStep,
    fmt: FloatFormat,
    computed: BoundedStep | None = None,
) -> tuple[list[TestVector], list[Bundle]]:
    """Return the test vectors of a step, one for each of its parts, and what the backend gave for each.

    `computed` is what `bounded_step` returns for the step, where that is known already.
    """
    experiment = task.experiment
    truth, bounds = computed or bounded_step(experiment, {**step.batch, **step.before}, fmt)
    gradients = {f"d_{name}": truth.gradients[f"d_{name}"] for name in experiment.differentiable}
    statistics = {name: array for name, array in running(truth, forms).items() if name in step.after}
    bounds = {**bounds, **{name: bounds[statistic_key(name, forms)] for name in statistics}}
    parts: dict[str, tuple[Mapping[str, F64], Mapping[str, F64], Bundle]] = {
        LOSS_PART: ({LOSS: truth.loss}, bounds, {LOSS: step.loss})
    }
    if step.gradients:
        parts[GRADIENT] = gradients, bounds, step.gradients
    if statistics:
        parts[STATISTICS] = statistics, bounds, {name: step.after[name] for name in statistics}
    moved = optimized(experiment, forms, step, gradients, bounds, fmt)
    parts[OPTIMIZER] = (
        {name: number.value for name, number in moved.items()},
        {name: number.error for name, number in moved.items()},
        {name: step.after[name] for name in moved if name in step.after},
    )
    vectors = [_vector(part, *parts[part][:2], step.batch) for part in PARTS if part in parts]
    return vectors, [parts[part][2] for part in PARTS if part in parts]


def loss_rounding(model: Model, fmt: FloatFormat) -> float:
    """Return what a cross-entropy may lose however small it is: the logarithm of a probability near 1 is off by the rounding of that."""
    return LOGARITHM_ROUNDINGS * fmt.unit_roundoff if "cross-entropy" in model.layers[-1].kind else 0.0


def statistic_key(name: str, forms: Forms) -> str:
    """Return what the truth calls a running statistic in a backend's form."""
    return name.replace(".variance", ".unbiased") if forms.variance == "unbiased" else name


def bounded_step(experiment: Experiment, tensors: Bundle, fmt: FloatFormat) -> BoundedStep:
    """Return what a model computes of a batch in training, and the allowed error of its loss, gradients and running statistics.

    Where rounding decides on which side of a kink a number is, or which of two is the largest of a pool, either is allowed.
    """
    model = experiment.model
    truth = passed_through(model, tensors)
    moved = [passed_through(model, *_moved(model, tensors, fmt, run)) for run in range(STEP_RUNS)]
    judged = {LOSS: truth.loss, **truth.gradients, **truth.statistics}
    runs = [{LOSS: run.loss, **run.gradients, **run.statistics} for run in moved]
    bounds = spread_limit(judged, runs, step_limit(model), fmt)
    bounds[LOSS] = bounds[LOSS] + loss_rounding(model, fmt)
    for flip in flips(model, tensors, truth.layers, [run.layers for run in moved]):
        flipped = passed_through(model, tensors, flip.touch)
        for name, gradient in truth.gradients.items():
            bounds[name] = bounds[name] + flip.factor * np.abs(flipped.gradients[name] - gradient)
    return truth, bounds


def step_limit(model: Model) -> float:
    """Return the limit of a step's loss, gradients and statistics in spreads: 32, in published sizes 128, of which healthy routes use 39.

    There a value is a sum of 2,304 terms, which moves by more than the one rounding that each number is off by.
    """
    return OF_MODELS * model_limit(model)


def _moved(model: Model, tensors: Bundle, fmt: FloatFormat, run: int) -> tuple[dict[str, F64], Callable[[str], Touch]]:
    """Return what `touched_by_rounding` does, where what cancels on the way back is off by the roundings of its terms too.

    An activation's derivative is computed of its rounded value, such as y (1 - y), and is off by a rounding of 1, not of itself;
    softmax's products with it likewise, and so is a probability less its target, the gradient by logits. A parameter's gradient, a sum of
    k terms over the batch and its pixels, is off by sqrt(k) roundings, as its partial sums are by one each.
    """
    moved, touch = touched_by_rounding(model, tensors, fmt.unit_roundoff, run)
    activations = {layer.name: layer for layer in model.layers if layer.kind == "activation"}
    loss = model.layers[-1]
    computed: dict[str, F64] = {}
    terms: dict[str, F64] = {}

    def touched(of: str) -> Touch:
        def off(name: str, array: F64) -> F64:
            array = touch(of)(name, array)
            if of == "value":
                computed[name] = array
            if of == "gradient":
                roundings = math.sqrt(_summed(model, name)) * fmt.unit_roundoff
                return array * (1.0 + roundings * signs(f"{model.name}/sum/{name}/{run}", array.shape))
            if of != "cotangent":
                return array
            if name == LOSS and loss.kind.endswith("from-logits"):
                shape = computed[loss.inputs[0]].shape
                rows = math.prod(shape if loss.kind.startswith("binary") else shape[:-1])
                terms[loss.inputs[0]] = np.full(shape, 1.0 / rows)
            if name in terms:
                array = array + fmt.unit_roundoff * terms[name] * signs(f"{model.name}/terms/{name}/{run}", array.shape)
            if name in activations and kernel_of(activations[name]).tier == "scaled":
                terms[activations[name].inputs[0]] = _terms(kernel_of(activations[name]), computed[name], np.abs(array))
            return array

        return off

    return moved, touched


def _summed(model: Model, name: str) -> int:
    """Return how many terms the gradient of a parameter is a sum of: the rows and pixels that its layer has."""
    return model.batch * math.prod(model.shapes.get(name.rpartition(".")[0], (1,))[:-1])


def _terms(kernel: Kernel, y: F64, g: F64) -> F64:
    """Return the size of the terms of which a cotangent behind an activation is made."""
    if kernel.name == "softmax":
        size: F64 = y * (g + (g * y).sum(axis=-1, keepdims=True))
        return size
    return g if kernel.form == "unary" else np.zeros_like(g)


def optimized(
    experiment: Experiment,
    forms: Forms,
    step: JudgedStep,
    gradients: Mapping[str, F64],
    bounds: Mapping[str, F64],
    fmt: FloatFormat,
) -> dict[str, Bounded]:
    """Return what the optimizer makes of parameters and slots: of the backend's own gradients, or of the true ones with their error."""
    following: dict[str, Bounded] = {}
    for name in experiment.differentiable:
        shown = step.gradients.get(f"d_{name}")
        true = gradients[f"d_{name}"]
        gradient = Bounded(true, bounds[f"d_{name}"], fmt) if shown is None else exact_inputs(_wide(shown), fmt)
        slots = {slot: exact_inputs(_wide(step.before[f"{name}/{slot}"]), fmt) for slot in experiment.optimizer.slots}
        parameter = exact_inputs(_wide(step.before[name]), fmt)
        with np.errstate(all="ignore"):
            w, kept = updated(
                experiment.optimizer,
                forms,
                step.number + 1,
                parameter,
                gradient,
                slots,
                lambda x: constant_number(x, fmt),
            )
        following[name] = w
        following |= {f"{name}/{slot}": number for slot, number in kept.items()}
    return following


def _vector(part: str, truth: Mapping[str, F64], bounds: Mapping[str, F64], inputs: Bundle) -> TestVector:
    return TestVector(
        regime=part,
        inputs=inputs,
        cotangents=None,
        truth=dict(truth),
        input_at=dict(truth),
        dtypes=dict.fromkeys(truth, np.dtype(np.float32)),
        bounds={name: np.broadcast_to(bounds[name], array.shape) for name, array in truth.items()},
    )


def initial_vectors(task: TrainingTask, record: TrainingRecord) -> tuple[list[TestVector], list[Bundle]]:
    """Return the state before the first step as a test vector, which allows no error, and what the backend began with."""
    if not task.keep:
        return [], []
    state = {**{name: _wide(array) for name, array in task.state.items()}, **initial_slots(task.experiment)}
    vector = _vector(INITIAL, state, {name: np.zeros(array.shape) for name, array in state.items()}, {})
    return [vector], [{name: record.states[name][0] for name in state}]


def inference_vectors(
    task: TrainingTask, record: TrainingRecord, validation_loss: float, fmt: FloatFormat
) -> tuple[list[TestVector], list[Bundle]]:
    """Return what the final parameters give in inference, regime "inference", with the limits of models, and what the backend gave.

    Tensors are "examples y", "validation y" and "validation loss"; `validation_loss` is what the backend reported for these parameters.
    Of the examples of a large model the first ones are judged.
    """
    model = task.experiment.evaluation
    vectors: list[TestVector] = []
    outputs: list[Bundle] = []
    count = judged_rows(model)
    first = {name: array[:count] for name, array in task.examples.items()}
    for name, rows in (("examples", first), ("validation", task.validation)):
        tensors = {**task.evaluated_on(rows), **record.final}
        keys = {f"{name} y": model.output, VALIDATION_LOSS: LOSS}
        if name == "examples":
            del keys[VALIDATION_LOSS]
        layers = values(model, tensors)
        truth = {key: _wide(layers[layer]) for key, layer in keys.items()}
        runs = []
        for run in range(INFERENCE_RUNS):
            moved, touch = touched_by_rounding(model, tensors, fmt.unit_roundoff, run)
            of_run = values(model, moved, touch("value"))
            runs.append({key: _wide(of_run[layer]) for key, layer in keys.items()})
        bounds = spread_limit(truth, runs, step_limit(model), fmt)
        if VALIDATION_LOSS in bounds:
            bounds[VALIDATION_LOSS] = bounds[VALIDATION_LOSS] + loss_rounding(model, fmt)
        vectors.append(_vector(INFERENCE, truth, bounds, {}))
        outputs.append({f"{name} y": record.predictions[name][: len(truth[f"{name} y"])]})
    outputs[-1] = {**outputs[-1], VALIDATION_LOSS: np.asarray(validation_loss, np.float32)}
    return vectors, outputs


def judged_rows(model: Model) -> int:
    """Return how many examples of a model are evaluated: as many as 2^24 numbers of its layers are, 16 at least."""
    return max(16, (1 << 24) // sum(math.prod(shape) for shape in model.shapes.values()))


def step_tolerance(fmt: FloatFormat) -> Tolerance:
    """Return the tolerance of steps: every element has a bound of its own."""
    return Tolerance(fmt=fmt, limit=1.0, exact=False, unary=False)


def free_running(task: TrainingTask, forms: Forms, fmt: FloatFormat) -> TestVectors:
    """Return the losses of the first `free_steps` steps, each from where the steps before it led, regime "free running", with limits.

    The limit of each is 64 times how far the true loss moves when all parameters are off by a rounding before each step, or those of
    the steps before it, and the learning rate by the roundings of a bias correction, and a loss's own rounding.
    """
    experiment = task.experiment
    steps = experiment.free_steps
    losses, _, _ = trajectory(task, steps, forms, up_to_loss=True)
    truth = np.asarray(losses)

    def off(run: int) -> Any:
        return lambda number: (
            lambda name, array: (
                array * (1.0 + fmt.unit_roundoff * signs(f"{experiment.name}/{name}/{number}/{run}", array.shape))
            )
        )

    def hurried(run: int) -> Callable[[int], float]:
        side = float(signs(f"{experiment.name}/bias correction/{run}", (1,))[0])
        return lambda number: 1.0 + side * _of_bias_correction(experiment.optimizer, number + 1, fmt)

    runs = [trajectory(task, steps, forms, off(run), hurried(run), up_to_loss=True) for run in range(FREE_RUNS)]
    moved = [np.asarray(of_run) for of_run, _, _ in runs]
    spread = np.maximum.accumulate(np.sqrt(np.mean([(run - truth) ** 2 for run in moved], axis=0)))
    bound = FREE_LIMIT * (spread + fmt.unit_roundoff * np.abs(truth)) + loss_rounding(experiment.model, fmt)
    return TestVectors(step_tolerance(fmt), [_vector(FREE_RUNNING, {LOSS: truth}, {LOSS: bound}, {})])


def _of_bias_correction(rule: Optimizer, step: int, fmt: FloatFormat) -> float:
    """Return by which share sqrt(1 - beta2^step) is off where beta2 and its power are rounded: 3e-5 at the first step."""
    return fmt.unit_roundoff / (1.0 - rule.beta2**step) if rule.kind in ("adam", "adamw") else 0.0


def _wide(array: NDArray[Any]) -> F64:
    return np.asarray(array, np.float64)
