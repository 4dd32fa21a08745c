"""Training: optimizers, batches, masks, schedules, statistics and records that are other than the experiment asks, each in torch's loop."""
# ruff: noqa: D101, D103  one class or function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform.plugin.training_loop import train
from actconform.types.model import LOSS
from actconform_faulty.injected import fault
from actconform_torch.torch_module import import_torch, tensor_of
from actconform_torch.training import TorchTrainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from actconform.types import Bundle
    from actconform.types.training import Optimizer
    from actconform.types.training_run import TrainingRecord, TrainingTask

FAMILY = "training"
ADAM, ADAMW, SGD, STOPPED = "blobs-adam", "blobs-adamw", "blobs-sgd", "blobs-stopped"
MOMENTUM, NESTEROV, RMSPROP, DECAYED = "blobs-momentum", "blobs-nesterov", "blobs-rmsprop", "blobs-decayed"
IMAGES, DROPOUT = "images-sigmoid", "map-dropout"
KERNEL, GRADIENT = "dense1.kernel", "d_dense1.kernel"


def trained_wrongly(
    name: str, what: str, subject: str, tensor: str, findings: str = "scaled-error"
) -> Callable[[Callable[[TrainingTask], TrainingRecord]], Callable[[TrainingTask], TrainingRecord]]:
    """Register what trains with a fault in an experiment; the finding is to be at `tensor`."""
    return fault(
        "torch",
        name,
        FAMILY,
        what,
        f"{subject}/training/f32",
        findings=findings,
        blames="framework",
        tensor=tensor,
        on_training=True,
    )


def by(trainer: type[TorchTrainer]) -> Callable[[TrainingTask], TrainingRecord]:
    return lambda task: train(trainer(task), task)


class Stepping(TorchTrainer):
    """torch's training with places to step in: before the gradients, between gradients and update, and after it."""

    def step(self, batch: Bundle, number: int) -> float:
        batch = self.batch(batch, number)
        self.clear()
        loss = self.loss({name: tensor_of(array, self._device) for name, array in batch.items()})
        loss.backward()
        self.pulled(number)
        self.update(number)
        if self._schedule:
            self._schedule.step()
        return self.reported(float(loss.detach()), batch)

    def batch(self, batch: Bundle, number: int) -> Bundle:  # noqa: ARG002
        return batch

    def clear(self) -> None:
        self.optimizer.zero_grad()

    def loss(self, tensors: dict[str, Tensor]) -> Tensor:
        loss: Tensor = self._loss(tensors)
        return loss

    def pulled(self, number: int) -> None:
        """Do something to the gradients."""

    def update(self, number: int) -> None:  # noqa: ARG002
        self.optimizer.step()

    def reported(self, loss: float, batch: Bundle) -> float:  # noqa: ARG002
        return loss

    @property
    def parameters(self) -> list[Any]:
        return list(self._module.parameters())


# Optimizers


def with_optimizer(make: Callable[[Any, Iterable[Any], Optimizer], Any]) -> Callable[[TrainingTask], TrainingRecord]:
    """Return a training whose optimizer `make` makes of torch.optim, the parameters and the rule."""

    class Made(TorchTrainer):
        def make_optimizer(self, parameters: Iterable[Any], rule: Optimizer) -> Any:
            return make(import_torch().optim, parameters, rule)

    return by(Made)


def adam(**changed: Any) -> Callable[[Any, Iterable[Any], Optimizer], Any]:
    def make(optim: Any, parameters: Iterable[Any], rule: Optimizer) -> Any:
        kind = optim.Adam if rule.kind == "adam" else optim.AdamW
        decay = {"weight_decay": rule.weight_decay} if rule.kind == "adamw" else {}
        settings = {"lr": rule.learning_rate, "betas": (rule.beta1, rule.beta2), "eps": rule.epsilon, **decay}
        return kind(parameters, **{**settings, **changed})

    return make


def sgd(**changed: Any) -> Callable[[Any, Iterable[Any], Optimizer], Any]:
    def make(optim: Any, parameters: Iterable[Any], rule: Optimizer) -> Any:
        settings = {"lr": rule.learning_rate, "momentum": rule.momentum, "nesterov": rule.nesterov}
        return optim.SGD(parameters, **{**settings, **changed})

    return make


def coupled(optim: Any, parameters: Iterable[Any], rule: Optimizer) -> Any:
    betas, decay = (rule.beta1, rule.beta2), rule.weight_decay
    return optim.Adam(parameters, lr=rule.learning_rate, betas=betas, eps=rule.epsilon, weight_decay=decay)


def kernels_alone(optim: Any, parameters: Iterable[Any], rule: Optimizer) -> Any:
    """Decay what has two axes, as many a recipe does."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": rule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return adam()(optim, groups, rule)


def centered(optim: Any, parameters: Iterable[Any], rule: Optimizer) -> Any:
    return optim.RMSprop(parameters, lr=rule.learning_rate, alpha=rule.beta2, eps=rule.epsilon, centered=True)


def rate_float16(optim: Any, parameters: Iterable[Any], rule: Optimizer) -> Any:
    return optim.SGD(parameters, lr=float(np.float16(rule.learning_rate)))


def without_one(optim: Any, parameters: Iterable[Any], rule: Optimizer) -> Any:
    return adam()(optim, [p for number, p in enumerate(parameters) if number != 3], rule)


for name, what, subject, tensor, make in (
    ("coupled-decay", "AdamW adds its weight decay to the gradient, as Adam with L2 does", ADAMW, KERNEL, coupled),
    ("no-decay", "AdamW without its weight decay", ADAMW, KERNEL, adam(weight_decay=0.0)),
    ("decay-of-kernels", "biases do not decay", ADAMW, "dense1.bias", kernels_alone),
    ("dampened", "momentum with dampening", MOMENTUM, KERNEL, sgd(dampening=0.9)),
    ("nesterov-plain", "plain momentum for Nesterov's", NESTEROV, KERNEL, sgd(nesterov=False)),
    ("momentum-lost", "momentum is not used", NESTEROV, KERNEL, sgd(momentum=0.0, nesterov=False)),
    ("beta2", "beta2 is 0.99", ADAM, f"{KERNEL}/v", adam(betas=(0.9, 0.99))),
    ("betas-exchanged", "beta1 and beta2 are exchanged", ADAM, f"{KERNEL}/m", adam(betas=(0.999, 0.9))),
    ("epsilon-large", "epsilon is 0.001", ADAM, KERNEL, adam(eps=1e-3)),
    ("amsgrad", "Adam divides by the largest mean square so far", ADAM, KERNEL, adam(amsgrad=True)),
    ("centered", "RMSprop is centred", RMSPROP, KERNEL, centered),
    ("ascends", "it goes up the gradient", SGD, KERNEL, sgd(maximize=True)),
    ("rate-float16", "the learning rate is rounded to float16", SGD, "dense1.bias", rate_float16),
    ("never-updated", "one bias is left out of what is optimized", ADAM, "dense2.bias", without_one),
):
    trained_wrongly(name, what, subject, tensor)(with_optimizer(make))  # type: ignore[arg-type]


class HandWritten(Stepping):
    """Adam by hand, in torch's slots."""

    def update(self, number: int) -> None:
        torch, rule = import_torch(), self._experiment.optimizer
        with torch.no_grad():
            for parameter in self.parameters:
                kept = self.optimizer.state[parameter]
                for slot in ("exp_avg", "exp_avg_sq"):
                    kept.setdefault(slot, torch.zeros_like(parameter))
                g, m, v = parameter.grad, kept["exp_avg"], kept["exp_avg_sq"]
                m.mul_(rule.beta1).add_((1.0 - rule.beta1) * g)
                v.mul_(rule.beta2).add_((1.0 - rule.beta2) * g * g)
                parameter.sub_(self.moved(rule, number + 1, g, m, v))

    def moved(self, rule: Optimizer, step: int, g: Tensor, m: Tensor, v: Tensor) -> Tensor:
        """Return how far a parameter goes back."""
        raise NotImplementedError


@trained_wrongly("adam-uncorrected", "Adam does not correct its bias", ADAM, KERNEL)
@by
class Uncorrected(HandWritten):
    def moved(self, rule: Optimizer, step: int, g: Tensor, m: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
        return rule.learning_rate * m / (v.sqrt() + rule.epsilon)


@trained_wrongly("epsilon-inside", "Adam adds epsilon inside the root", ADAM, KERNEL)
@by
class EpsilonInside(HandWritten):
    def moved(self, rule: Optimizer, step: int, g: Tensor, m: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
        root = (v / (1.0 - rule.beta2**step) + rule.epsilon).sqrt()
        return rule.learning_rate / (1.0 - rule.beta1**step) * m / root


@trained_wrongly("bias-step-late", "Adam corrects its bias as of the step after", ADAM, KERNEL)
@by
class LateCorrection(HandWritten):
    def moved(self, rule: Optimizer, step: int, g: Tensor, m: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
        of_mean, of_square = 1.0 - rule.beta1 ** (step + 1), 1.0 - rule.beta2 ** (step + 1)
        return rule.learning_rate / of_mean * m / ((v / of_square).sqrt() + rule.epsilon)


@trained_wrongly("gradient-for-mean", "Adam moves by the gradient, not by its mean", ADAM, KERNEL)
@by
class WithoutMean(HandWritten):
    def moved(self, rule: Optimizer, step: int, g: Tensor, m: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
        return rule.learning_rate * g / ((v / (1.0 - rule.beta2**step)).sqrt() + rule.epsilon)


@trained_wrongly("rate-doubled-later", "the learning rate doubles at step 7", ADAM, KERNEL)
@by
class LaterFaster(Stepping):
    def update(self, number: int) -> None:
        if number == 6:
            self.optimizer.param_groups[0]["lr"] *= 2.0
        super().update(number)


class OtherRate(Stepping):
    """The learning rate of another step, and no scheduler."""

    later = 0

    def __init__(self, task: TrainingTask) -> None:
        super().__init__(task)
        self._schedule = None

    def update(self, number: int) -> None:
        of_step = max(number + 1 + self.later, 1)
        self.optimizer.param_groups[0]["lr"] = self._experiment.optimizer.rate(of_step)
        super().update(number)


@trained_wrongly("rate-early", "the learning rate is that of the step after", DECAYED, KERNEL)
@by
class EarlyRate(OtherRate):
    later = 1


@trained_wrongly("rate-late", "the learning rate is that of the step before", DECAYED, KERNEL)
@by
class LateRate(OtherRate):
    later = -1


@trained_wrongly("updated-twice", "each step is made twice", SGD, KERNEL)
@by
class Twice(Stepping):
    def update(self, number: int) -> None:
        super().update(number)
        super().update(number)


@trained_wrongly("gradient-of-before", "the update takes the gradient of the step before", SGD, KERNEL)
@by
class Asynchronous(Stepping):
    def update(self, number: int) -> None:
        fresh = [parameter.grad.clone() for parameter in self.parameters]
        for parameter, gradient in zip(self.parameters, self._before if number else fresh, strict=True):
            parameter.grad = gradient.clone()
        super().update(number)
        for parameter, gradient in zip(self.parameters, fresh, strict=True):
            parameter.grad = gradient
        self._before = fresh


@trained_wrongly("update-float16", "parameters are rounded to float16 after each step", ADAM, KERNEL)
@by
class Narrow(Stepping):
    def update(self, number: int) -> None:
        super().update(number)
        with import_torch().no_grad():
            for parameter in self.parameters:
                parameter.copy_(parameter.half().float())


@trained_wrongly("slots-bfloat16", "mean squares are rounded to bfloat16", ADAM, f"{KERNEL}/v")
@by
class NarrowSlots(Stepping):
    def update(self, number: int) -> None:
        super().update(number)
        for kept in self.optimizer.state.values():
            kept["exp_avg_sq"].copy_(kept["exp_avg_sq"].bfloat16().float())


# Batches, losses and gradients


@trained_wrongly("stale-batch", "each step reads the batch of the step before", ADAM, LOSS)
@by
class Stale(Stepping):
    _last: Bundle | None = None

    def batch(self, batch: Bundle, number: int) -> Bundle:  # noqa: ARG002
        last, self._last = self._last, batch
        return last or batch


@trained_wrongly("last-row-left-out", "the last row of each batch is left out", ADAM, LOSS)
@by
class Shorter(Stepping):
    def batch(self, batch: Bundle, number: int) -> Bundle:  # noqa: ARG002
        return {name: array[:-1] for name, array in batch.items()}


@trained_wrongly("mask-reused", "the dropout masks of the first step are used in all", DROPOUT, LOSS)
@by
class OneMask(Stepping):
    _first: Bundle | None = None

    def batch(self, batch: Bundle, number: int) -> Bundle:  # noqa: ARG002
        self._first = self._first or {name: array for name, array in batch.items() if name.startswith("mask")}
        return {**batch, **self._first}


@trained_wrongly("training-loss-summed", "the loss is summed over the batch, not averaged", ADAM, LOSS)
@by
class Summed(Stepping):
    def loss(self, tensors: dict[str, Tensor]) -> Tensor:
        return super().loss(tensors) * len(tensors["x"])


@trained_wrongly(
    "gradient-summed", "gradients are summed over the batch, the loss that is told is the mean", SGD, GRADIENT
)
@by
class GradientSummed(Stepping):
    def loss(self, tensors: dict[str, Tensor]) -> Tensor:
        return super().loss(tensors) * len(tensors["x"])

    def reported(self, loss: float, batch: Bundle) -> float:
        return loss / len(batch["x"])


@trained_wrongly("loss-after", "the loss that is told is that after the update", ADAM, LOSS)
@by
class After(Stepping):
    def reported(self, loss: float, batch: Bundle) -> float:  # noqa: ARG002
        with import_torch().no_grad():
            return float(self._loss({name: tensor_of(array, self._device) for name, array in batch.items()}))


@trained_wrongly("accumulated", "gradients are not cleared: each is added to those before", SGD, GRADIENT)
@by
class Accumulated(Stepping):
    def clear(self) -> None:
        pass


@trained_wrongly("clipped-norm", "gradients are clipped to a norm of 0.5", SGD, GRADIENT)
@by
class ClippedNorm(Stepping):
    def pulled(self, number: int) -> None:  # noqa: ARG002
        import_torch().nn.utils.clip_grad_norm_(self.parameters, 0.5)


@trained_wrongly("clipped-value", "gradients are clipped to 0.01 each", SGD, GRADIENT)
@by
class ClippedValue(Stepping):
    def pulled(self, number: int) -> None:  # noqa: ARG002
        import_torch().nn.utils.clip_grad_value_(self.parameters, 0.01)


@trained_wrongly("gradient-float16", "gradients are rounded to float16", SGD, GRADIENT)
@by
class GradientNarrow(Stepping):
    def pulled(self, number: int) -> None:  # noqa: ARG002
        for parameter in self.parameters:
            parameter.grad.copy_(parameter.grad.half().float())


@trained_wrongly("gradient-decayed", "gradients hold a weight decay that was not asked for", SGD, GRADIENT)
@by
class Decaying(Stepping):
    def pulled(self, number: int) -> None:  # noqa: ARG002
        for parameter in self.parameters:
            parameter.grad.add_(parameter.detach(), alpha=0.01)


@trained_wrongly("layer-detached", "no gradient comes to the first layer", SGD, GRADIENT)
@by
class Detached(Stepping):
    def pulled(self, number: int) -> None:  # noqa: ARG002
        for parameter in self.parameters[:2]:
            parameter.grad.zero_()


@trained_wrongly("nan-at-step-5", "one number of a gradient is NaN at step 5", ADAM, GRADIENT, "nan-made")
@by
class NotANumber(Stepping):
    def pulled(self, number: int) -> None:
        if number == 4:
            self.parameters[0].grad.view(-1)[3] = float("nan")


# Statistics and inference


@trained_wrongly(
    "statistics-twice", "each step goes forward twice, and updates the running statistics twice", IMAGES, "norm1.mean"
)
@by
class TwiceForward(Stepping):
    def loss(self, tensors: dict[str, Tensor]) -> Tensor:
        with import_torch().no_grad():
            super().loss(tensors)
        return super().loss(tensors)


def with_norms(change: Callable[[Any], None]) -> Callable[[TrainingTask], TrainingRecord]:
    class Normed(TorchTrainer):
        def __init__(self, task: TrainingTask) -> None:
            super().__init__(task)
            for module in self._module.modules():
                if hasattr(module, "running_mean"):
                    change(module)

    return by(Normed)


def exchange_momentum(norm: Any) -> None:
    norm.momentum = 1.0 - norm.momentum


def stop_tracking(norm: Any) -> None:
    norm.momentum = 0.0


NORMS = "running statistics keep the share that is to be replaced"
trained_wrongly("statistics-momentum", NORMS, IMAGES, "norm1.mean")(with_norms(exchange_momentum))
trained_wrongly("statistics-still", "running statistics stay as they are", IMAGES, "norm1.variance")(
    with_norms(stop_tracking)
)


@trained_wrongly(
    "validation-in-training", "batches are normalized by themselves in inference too", IMAGES, "validation y"
)
@by
class ValidatedInTraining(TorchTrainer):
    def evaluate(self, inputs: Bundle) -> tuple[float, Any]:
        inference, self._inference = self._inference, self._network
        try:
            return super().evaluate(inputs)
        finally:
            self._inference = inference


@trained_wrongly(
    "last-restored", "the weights of the last epoch stay, and not those of the best", STOPPED, "validation loss"
)
@by
class LastKept(TorchTrainer):
    def restore(self, state: Bundle) -> None:
        pass


def with_stopping(**changed: Any) -> Callable[[TrainingTask], TrainingRecord]:
    def trained(task: TrainingTask) -> TrainingRecord:
        stopping = msgspec.structs.replace(task.experiment.stopping, **changed)
        experiment = msgspec.structs.replace(task.experiment, stopping=stopping)
        altered = msgspec.structs.replace(task, experiment=experiment)
        return train(TorchTrainer(altered), altered)

    return trained


for name, what, settings in (
    ("patience-longer", "training goes on for one epoch more than patience allows", {"patience": 3}),
    ("stopped-at-once", "training ends at the first epoch that is no better", {"patience": 1}),
    ("min-delta-large", "what counts as better is 100 times as much", {"min_delta": 0.1}),
):
    trained_wrongly(name, what, STOPPED, "epochs", "property")(with_stopping(**settings))


# Records


def recorded(change: Callable[[TrainingRecord], dict[str, Any]]) -> Callable[[TrainingTask], TrainingRecord]:
    """Return a training that is right, and some fields of its record others."""

    def trained(task: TrainingTask) -> TrainingRecord:
        record = train(TorchTrainer(task), task)
        return msgspec.structs.replace(record, **change(record))

    return trained


def half(array: Any) -> Any:
    return array.astype(np.float16).astype(np.float32)


def double(bundle: Bundle) -> Bundle:
    return {name: array.astype(np.float64) for name, array in bundle.items()}


def one_epoch_less(record: TrainingRecord) -> dict[str, Any]:
    return {"losses": record.losses[:-20], "validation_losses": record.validation_losses[:-1]}


def reversed_rows(record: TrainingRecord) -> dict[str, Any]:
    return {"predictions": {name: array[::-1].copy() for name, array in record.predictions.items()}}


def infinite_loss(record: TrainingRecord) -> dict[str, Any]:
    losses = record.losses.copy()
    losses[30] = np.inf
    return {"losses": losses}


for name, what, tensor, findings, change in (
    ("predictions-missing", "there are no predictions", "validation", "names", lambda _: {"predictions": {}}),
    ("slots-missing", "no slots are shown", f"{KERNEL}/momentum", "names",
     lambda record: {"states": {name: array for name, array in record.states.items() if "/" not in name}}),
    ("epoch-missing", "the last epoch is left out", "validation loss", "shape", one_epoch_less),
    ("state-transposed", "the kernels of states are transposed", KERNEL, "shape",
     lambda record: {"states": {**record.states, KERNEL: record.states[KERNEL].swapaxes(1, 2).copy()}}),
    ("final-float64", "the final parameters are float64", KERNEL, "dtype", lambda record: {"final": double(record.final)}),
    ("final-rounded", "the final parameters that are told are rounded to float16", "validation y", "scaled-error",
     lambda record: {"final": {name: half(array) for name, array in record.final.items()}}),
    ("predictions-reversed", "predictions come in another order", "validation y", "scaled-error", reversed_rows),
    ("loss-infinite", "the loss of step 31 is infinite", LOSS, "property", infinite_loss),
):  # fmt: skip
    trained_wrongly(name, what, MOMENTUM, tensor, findings)(recorded(change))  # type: ignore[arg-type]


@trained_wrongly("own-beginning", "training begins with parameters of its own", ADAM, KERNEL)
def own_beginning(task: TrainingTask) -> TrainingRecord:
    """Begin with kernels that are a tenth larger."""
    state = {**task.state, KERNEL: task.state[KERNEL] * np.float32(1.1)}
    other = msgspec.structs.replace(task, state=state)
    return train(TorchTrainer(other), other)
