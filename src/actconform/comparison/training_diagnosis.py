"""What the first wrong part of a step looks like: usual mistakes, each computed and held against what the backend gave, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec
import numpy as np

from actconform.comparison.optimizer_alternatives import Situated, alternatives, healthy_step
from actconform.comparison.wrong_elements import beyond
from actconform.oracle.training.trajectory import passed_through, running
from actconform.testdata.training_vectors import (
    GRADIENT,
    LOSS_PART,
    OPTIMIZER,
    STATISTICS,
    VALIDATION_LOSS,
    bounded_step,
    inference_vectors,
    statistic_key,
)
from actconform.tolerance.running_error import Bounded, exact_inputs
from actconform.types.model import LOSS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from actconform.comparison.wrong_elements import FirstWrong
    from actconform.oracle.training.trajectory import Evaluated
    from actconform.testdata.kernel_vectors import TestVector
    from actconform.testdata.training_vectors import JudgedStep
    from actconform.types import Bundle
    from actconform.types.dtypes import FloatFormat
    from actconform.types.training import Experiment, Forms
    from actconform.types.training_run import TrainingRecord, TrainingTask

    F64 = NDArray[np.float64]

Limited: TypeAlias = "Mapping[str, tuple[F64, F64]]"  # value and allowed error by tensor
Guess: TypeAlias = "tuple[str, Callable[[], Limited | None]]"

LIKE = "it looks like: "
ALIKE = 2  # guesses that are named where several fit
NEAR, NEAR_BOUNDS = 2.0**-10, 64.0  # of a tensor's largest number, and of the largest bound of the step as it should be


class _Wrong(NamedTuple):
    """The wrong part of a step: what was expected, with bounds, and what came instead."""

    task: TrainingTask
    record: TrainingRecord
    step: JudgedStep
    truth: Evaluated
    bounds: Mapping[str, F64]
    fmt: FloatFormat
    part: str
    outputs: Bundle
    off: tuple[str, ...]
    """The tensors of the part that are wrong."""

    @property
    def experiment(self) -> Experiment:
        return self.task.experiment

    @property
    def number(self) -> int:
        """The number of the step, from 1 on."""
        return self.step.number + 1

    def right(self, name: str, forms: Forms | None = None) -> tuple[F64, F64]:
        """Return what a tensor must be and its bound, with the running variance in the backend's form or another."""
        forms = forms or self.record.forms
        everything = {LOSS: self.truth.loss, **self.truth.gradients, **running(self.truth, forms)}
        return np.asarray(everything[name]), np.asarray(self.bounds[statistic_key(name, forms)])

    def got(self, name: str) -> F64:
        return np.asarray(self.outputs[name], np.float64)


def diagnosed(
    task: TrainingTask,
    record: TrainingRecord,
    step: JudgedStep,
    first: FirstWrong,
    computed: tuple[Evaluated, Mapping[str, F64]],
    off: Mapping[str, NDArray[np.generic]],
    fmt: FloatFormat,
) -> str:
    """Return what the wrong tensors of a step look like, in words, or "" where they are like none of the usual mistakes.

    `off` are the tensors of the first wrong part that are beyond their bounds, as the backend gave them, `computed` what
    `bounded_step` returns for the step. A mistake is named where all of these lie within its own bounds.
    """
    wrong = _Wrong(task, record, step, *computed, fmt, first.part, off, tuple(off))
    if not all(np.isfinite(wrong.got(name)).all() for name in off):
        return ""
    guesses = {LOSS_PART: _of_loss, GRADIENT: _of_gradient, STATISTICS: _of_statistics, OPTIMIZER: _of_optimizer}
    fitting: list[str] = []
    with np.errstate(all="ignore"):
        for words, guess in guesses[first.part](wrong):
            if len(fitting) < ALIKE and _fits(wrong, guess()):
                fitting.append(words)
        if not fitting:
            fitting = [words for words in _estimated(wrong) if words][:1]
    return f"{LIKE}{' or '.join(fitting)}" if fitting else ""


def _fits(wrong: _Wrong, limited: Limited | None) -> bool:
    return limited is not None and all(
        name in limited and np.isfinite(limited[name]).all() and not beyond(wrong.outputs[name], *limited[name]).any()
        for name in wrong.off
    )


def _resembles(wrong: _Wrong, limited: Limited) -> bool:
    """Tell whether all wrong tensors are so near to these values that bounds of their own may hold them."""
    for name in wrong.off:
        if name not in limited:
            return False
        value, bound = limited[name]
        if not np.abs(wrong.got(name) - value).max() <= NEAR * np.abs(value).max() + NEAR_BOUNDS * np.max(bound):
            return False
    return True


def _of_loss(wrong: _Wrong) -> Iterator[Guess]:
    yield from _of_other_inputs(wrong, lambda computed, bounds: {LOSS: (computed.loss, bounds[LOSS])})
    yield from _of_factors(wrong)


def _of_gradient(wrong: _Wrong) -> Iterator[Guess]:
    yield "no gradient: all 0", lambda: {name: (np.zeros(wrong.got(name).shape),) * 2 for name in wrong.off}
    before = _before(wrong)
    if before:
        yield (
            f"that of step {wrong.number - 1} added to it: accumulated and not cleared",
            lambda: {name: _added(wrong.right(name), before[name]) for name in wrong.off},
        )
        yield f"the gradient of step {wrong.number - 1}", lambda: {name: _exact(before[name]) for name in wrong.off}
    yield from _of_factors(wrong)
    yield from _of_other_inputs(
        wrong,
        lambda computed, bounds: {name: (array, bounds[name]) for name, array in computed.gradients.items()},
    )
    for name, dtype in (("float16", np.float16), ("bfloat16", None)):
        yield f"rounded to {name}", lambda dtype=dtype: _narrow(wrong, dtype)  # type: ignore[misc]


def _of_statistics(wrong: _Wrong) -> Iterator[Guess]:
    shares = {
        layer.name: float(layer.settings["momentum"])  # type: ignore[arg-type]
        for layer in wrong.experiment.model.layers
        if layer.kind == "batch-norm"
    }

    def moved(by: Callable[[float], float]) -> Limited:
        limited = {}
        for name in wrong.off:
            value, bound = wrong.right(name)
            times = by(shares[name.rpartition(".")[0]])
            old = np.asarray(wrong.step.before[name], np.float64)
            limited[name] = old + times * (value - old), max(times, 1.0) * bound
        return limited

    yield "updated twice", lambda: moved(lambda share: 1.0 + share)
    yield "not updated", lambda: moved(lambda _: 0.0)
    if 1.0 not in shares.values():
        yield "those of the batch alone: nothing is kept", lambda: moved(lambda share: 1.0 / (1.0 - share))
        yield (
            "momentum taken for the share that is replaced, and not the one that is kept",
            lambda: moved(lambda share: share / (1.0 - share)),
        )
    variance = "biased" if wrong.record.forms.variance == "unbiased" else "unbiased"
    forms = msgspec.structs.replace(wrong.record.forms, variance=variance)
    words = f"the {variance} variance of the batch, where the backend says {wrong.record.forms.variance}"
    yield words, lambda: {name: wrong.right(name, forms) for name in wrong.off}
    yield from _of_other_inputs(
        wrong,
        lambda computed, bounds: {
            name: (array, bounds[statistic_key(name, wrong.record.forms)])
            for name, array in running(computed, wrong.record.forms).items()
        },
    )


def _of_other_inputs(wrong: _Wrong, of_part: Callable[[Evaluated, Mapping[str, F64]], Limited]) -> Iterator[Guess]:
    """Yield what comes of other batches, noise or parameters than the step's own, or of the model in inference."""
    experiment, step, task = wrong.experiment, wrong.step, wrong.task

    def of(changed: Bundle, changed_experiment: Experiment = experiment) -> Limited | None:
        return _of_tensors(wrong, of_part, changed_experiment, {**step.batch, **step.before, **changed})

    noise = task.noise.keys()
    for number in dict.fromkeys((step.number - 1, 0, step.number + 1)):
        if number < 0 or number == step.number or number >= task.order.shape[0] * task.order.shape[1]:
            continue
        batch = task.batch(number)
        rows = {name: array for name, array in batch.items() if name not in noise}
        drawn = {name: array for name, array in batch.items() if name in noise}
        yield f"computed of the batch of step {number + 1}", lambda rows=rows: of(rows)  # type: ignore[misc]
        if drawn:
            yield f"computed of the noise (the dropout mask) of step {number + 1} again", lambda drawn=drawn: of(drawn)  # type: ignore[misc]
            yield f"computed of batch and noise of step {number + 1}", lambda batch=batch: of(batch)  # type: ignore[misc]
    if step.number:
        earlier = {name: array[step.number - 1] for name, array in wrong.record.states.items()}
        yield "computed of the parameters before the step before", lambda: of(earlier)
        for name, array in earlier.items():
            if name in experiment.differentiable:
                yield f"computed of {name} as it was before the step before", lambda n=name, a=array: of({n: a})  # type: ignore[misc]
    yield "computed of the parameters after the step", lambda: of(step.after)
    inference = msgspec.structs.replace(experiment, model=experiment.evaluation)
    quiet = task.evaluated_on({name: array for name, array in step.batch.items() if name not in noise})
    if experiment.evaluation.layers != experiment.model.layers or experiment.model.training:
        yield "computed by the model in inference", lambda: of(quiet, inference)
    if experiment.batch > 1:
        short = {name: array[:-1] for name, array in step.batch.items()}
        yield "computed of all rows of the batch but the last", lambda: of(short)


def _of_tensors(
    wrong: _Wrong,
    of_part: Callable[[Evaluated, Mapping[str, F64]], Limited],
    experiment: Experiment,
    tensors: Bundle,
) -> Limited | None:
    """Return what a model gives of these tensors, with bounds of its own; None where it is far off, without these, which take long."""
    if not _resembles(wrong, of_part(passed_through(experiment.model, tensors), wrong.bounds)):
        return None
    return of_part(*bounded_step(experiment, tensors, wrong.fmt))


def _of_factors(wrong: _Wrong) -> Iterator[Guess]:
    batch = wrong.experiment.batch
    model = wrong.experiment.model
    target = next(model_input.shape for model_input in model.inputs if model_input.name == model.layers[-1].inputs[1])
    width = int(np.prod(target))
    factors = {
        -1.0: "of the opposite sign",
        float(batch): f"summed over the {batch} rows of the batch, and not averaged",
        float(width): f"summed over the {width} numbers of each output, and not averaged",
        float(batch * width): f"summed over all {batch * width} numbers, and not averaged",
        1.0 / batch: f"divided by the {batch} rows of the batch once more",
        1.0 / width: f"divided by the {width} numbers of each output once more",
        2.0: "doubled",
        0.5: "halved",
    }
    for factor, words in factors.items():
        if factor != 1.0:
            yield words, lambda factor=factor: {name: _times(factor, wrong.right(name)) for name in wrong.off}  # type: ignore[misc]


def _of_optimizer(wrong: _Wrong) -> Iterator[Guess]:
    for words, formula in alternatives(wrong.experiment.optimizer, wrong.record.forms, wrong.number):

        def guess(formula: Callable[[Situated], tuple[Bounded, dict[str, Bounded]] | None] = formula) -> Limited | None:
            limited: dict[str, tuple[F64, F64]] = {}
            for name in _parameters(wrong):
                moved = formula(_situated(wrong, name))
                if moved is None:
                    return None
                w, slots = moved
                limited[name] = w.value, w.error
                limited |= {f"{name}/{slot}": (number.value, number.error) for slot, number in slots.items()}
            return limited

        yield words, guess
    for kind, dtype in (("float16", np.float16), ("bfloat16", None)):
        yield f"the result is rounded to {kind}", lambda dtype=dtype: _narrow(wrong, dtype)  # type: ignore[misc]


def _parameters(wrong: _Wrong) -> list[str]:
    return list(dict.fromkeys(name.partition("/")[0] for name in wrong.off))


def _situated(wrong: _Wrong, name: str) -> Situated:
    fmt, before = wrong.fmt, wrong.step.before
    shown = wrong.step.gradients.get(f"d_{name}")
    value, bound = wrong.right(f"d_{name}")
    earlier = _before(wrong).get(f"d_{name}")
    return Situated(
        rule=wrong.experiment.optimizer,
        forms=wrong.record.forms,
        step=wrong.number,
        parameter=exact_inputs(np.asarray(before[name], np.float64), fmt),
        gradient=Bounded(value, bound, fmt) if shown is None else exact_inputs(np.asarray(shown, np.float64), fmt),
        slots={
            slot: exact_inputs(np.asarray(before[f"{name}/{slot}"], np.float64), fmt)
            for slot in wrong.experiment.optimizer.slots
        },
        earlier=None if earlier is None else exact_inputs(earlier, fmt),
    )


def _before(wrong: _Wrong) -> dict[str, F64]:
    """Return the gradients of the step before, where there was one and the backend shows them."""
    if not wrong.step.number:
        return {}
    return {
        name: np.asarray(array[wrong.step.number - 1], np.float64) for name, array in wrong.record.gradients.items()
    }


def _estimated(wrong: _Wrong) -> Iterator[str]:
    """Yield guesses with a number that is taken from the outcome itself, where they fit."""
    if wrong.part == OPTIMIZER:
        yield _length_of_step(wrong)
        return
    if wrong.part == LOSS_PART:  # one number is always some multiple of another
        return
    factor = _ratio([(wrong.got(name), wrong.right(name)[0]) for name in wrong.off])
    if _fits(wrong, {name: _times(factor, wrong.right(name)) for name in wrong.off}):
        words = f"multiplied by {factor:.6g}"
        if wrong.part == GRADIENT and factor < 1.0:
            norm = np.sqrt(sum((wrong.got(name) ** 2).sum() for name in wrong.off))
            words += f", to a norm of {norm:.6g}: clipped"
        yield words
    if wrong.part != GRADIENT:
        return
    yield _clipped(wrong)
    weights = {name: np.asarray(wrong.step.before[name.removeprefix("d_")], np.float64) for name in wrong.off}
    share = _ratio([(wrong.got(name) - wrong.right(name)[0], weights[name]) for name in wrong.off])
    added = {name: _added(wrong.right(name), share * weights[name]) for name in wrong.off}
    if _fits(wrong, added):
        yield f"{share:.6g} times the parameter added to it: a weight decay in the gradient (L2)"


def _clipped(wrong: _Wrong) -> str:
    most = max(float(np.abs(wrong.got(name)).max()) for name in wrong.off)
    limited = {}
    for name in wrong.off:
        value, bound = wrong.right(name)
        limited[name] = np.clip(value, -most, most), bound
    return f"clipped to {most:.6g}" if _fits(wrong, limited) else ""


def _length_of_step(wrong: _Wrong) -> str:
    """Return by which learning rate a step was made, if it went the right way; slots must be right."""
    if any("/" in name for name in wrong.off):
        return ""
    healthy = {name: healthy_step(_situated(wrong, name))[0] for name in wrong.off}
    before = {name: np.asarray(wrong.step.before[name], np.float64) for name in wrong.off}
    factor = _ratio([(wrong.got(name) - before[name], healthy[name].value - before[name]) for name in wrong.off])
    limited = {}
    for name in wrong.off:
        at = _situated(wrong, name)
        rate = at.rule.learning_rate * factor
        moved = healthy_step(at._replace(rule=msgspec.structs.replace(at.rule, learning_rate=rate)))[0]
        # the factor is known from the outcome alone: to a few units in the last place of what moved
        rounding = np.abs(moved.value - before[name]) * 2.0**-12
        limited[name] = moved.value, moved.error + rounding
    if not _fits(wrong, limited):
        return ""
    rate = wrong.experiment.optimizer.rate(wrong.number) * factor
    return f"the step is {factor:.6g} times as long: by the learning rate {rate:.6g}"


def _ratio(pairs: list[tuple[F64, F64]]) -> float:
    """Return the number times which the second of each pair comes nearest to the first."""
    below = sum(float((second * second).sum()) for _, second in pairs)
    return sum(float((first * second).sum()) for first, second in pairs) / below if below else 0.0


def _narrow(wrong: _Wrong, dtype: type[np.floating] | None) -> Limited | None:
    """Return what is right with the error of a narrower format, where all that came are numbers of it."""
    if not all(_representable(np.asarray(wrong.outputs[name], np.float32), dtype) for name in wrong.off):
        return None
    unit = 2.0**-11 if dtype is not None else 2.0**-8
    limited = {}
    for name in wrong.off:
        if wrong.part == OPTIMIZER:
            parameter, _, slot = name.partition("/")
            w, slots = healthy_step(_situated(wrong, parameter))
            number = slots[slot] if slot else w
            value, bound = number.value, number.error
        else:
            value, bound = wrong.right(name)
        limited[name] = value, bound + 2.0 * unit * np.abs(value) + 2.0**-24
    return limited


def _representable(array: NDArray[np.float32], dtype: type[np.floating] | None) -> bool:
    if dtype is None:  # bfloat16: the upper half of a float32
        return not (np.ascontiguousarray(array).view(np.uint32) & 0xFFFF).any()
    return bool((array == array.astype(dtype).astype(np.float32)).all())


def _times(factor: float, limited: tuple[F64, F64]) -> tuple[F64, F64]:
    value, bound = limited
    return factor * value, abs(factor) * bound


def _added(limited: tuple[F64, F64], more: F64) -> tuple[F64, F64]:
    value, bound = limited
    total = value + more
    return total, bound + 2.0**-22 * (np.abs(total) + np.abs(more))


def _exact(array: F64) -> tuple[F64, F64]:
    return array, np.zeros(array.shape)


def diagnosed_end(
    task: TrainingTask,
    record: TrainingRecord,
    epoch: int,
    validation: TestVector,
    off: Mapping[str, NDArray[np.generic]],
    fmt: FloatFormat,
) -> str:
    """Return what the end of a training looks like where the tensors `off` of regime "inference" are wrong, or "".

    `epoch`, from 1 on, is the one whose parameters the final ones must be, `validation` the test vector of the validation examples.
    """
    losses = np.asarray(record.validation_losses, np.float64)
    if set(off) == {VALIDATION_LOSS}:
        truth, bound = validation.truth[VALIDATION_LOSS], validation.bounds[VALIDATION_LOSS]
        alike = np.flatnonzero(~beyond(losses, truth, bound)) + 1
        if alike.size:
            nearest = losses.size if losses.size in alike else int(alike[0])
            name = "the last epoch" if nearest == losses.size else "epoch"
            return f"{LIKE}the parameters of {name}, {nearest}, kept, and not those of the best, {epoch}"
    if task.noise or not task.experiment.model.training:
        return ""
    inference = msgspec.structs.replace(task.experiment, evaluation=task.experiment.model)
    vectors, outputs = inference_vectors(
        msgspec.structs.replace(task, experiment=inference), record, losses[epoch - 1], fmt
    )
    fitting = (
        name not in off or not beyond(array, vector.truth[name], vector.bounds[name]).any()
        for vector, bundle in zip(vectors, outputs, strict=True)
        for name, array in bundle.items()
    )
    return f"{LIKE}the model in training: batch statistics, and not the running ones" if all(fitting) else ""
