"""Training otherwise, and well: other orders of sums, other forms of the same update, wider arithmetic, other forms that are told."""
# ruff: noqa: D101, D103  one class or function each; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import helper

from actconform.types.training import Forms
from actconform_faulty.graphs import on_model
from actconform_faulty.injected import healthy
from actconform_faulty.training import HandWritten, Stepping, adam, by, sgd, with_optimizer
from actconform_torch.torch_module import import_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from onnx import ModelProto
    from torch import Tensor

    from actconform.types import Bundle
    from actconform.types.training import Optimizer
    from actconform.types.training_run import TrainingRecord, TrainingTask

BLOBS = ("blobs-adam", "blobs-adamw", "blobs-momentum", "blobs-nesterov")


def trained_well(
    name: str, what: str, *subjects: str
) -> Callable[[Callable[[TrainingTask], TrainingRecord]], Callable[[TrainingTask], TrainingRecord]]:
    """Register what trains otherwise in some experiments, and has no fault."""
    return healthy("torch", name, what, *(f"{subject}/training/f32" for subject in subjects), on_training=True)


def for_each(optim: Any, parameters: Iterable[Any], rule: Optimizer) -> Any:
    made = adam(foreach=True) if rule.kind.startswith("adam") else sgd(foreach=True)
    return made(optim, parameters, rule)


def fused(optim: Any, parameters: Iterable[Any], rule: Optimizer) -> Any:
    made = adam(fused=True) if rule.kind.startswith("adam") else sgd(fused=True)
    return made(optim, parameters, rule)


# Not of Nesterov's momentum: there torch writes over the gradients, which are then no more what they are shown as.
trained_well("foreach", "the optimizer updates all parameters at once", *BLOBS[:3])(with_optimizer(for_each))
trained_well("fused", "the optimizer is one fused kernel, with fused multiply-adds", *BLOBS)(with_optimizer(fused))


@trained_well(
    "rows-turned", "the rows of each batch are summed from the last to the first", "blobs-adam", "images-softmax2"
)
@by
class Turned(Stepping):
    def batch(self, batch: Bundle, number: int) -> Bundle:  # noqa: ARG002
        return {name: array[::-1].copy() for name, array in batch.items()}


@trained_well(
    "halves", "gradients are summed over both halves of a batch, one after the other", "blobs-adam", "blobs-sgd"
)
@by
class Halves(Stepping):
    def loss(self, tensors: dict[str, Tensor]) -> Tensor:
        half = len(tensors["x"]) // 2
        first = self._loss({name: tensor[:half] for name, tensor in tensors.items()})
        second = self._loss({name: tensor[half:] for name, tensor in tensors.items()})
        loss: Tensor = (first + second) / 2.0
        return loss


@trained_well("logsumexp", "the loss is written with logsumexp", "blobs-adam", "blobs-sgd")
@by
class Logsumexp(Stepping):
    def loss(self, tensors: dict[str, Tensor]) -> Tensor:
        logits = self._module(tensors)[self._experiment.model.layers[-1].inputs[0]]
        loss: Tensor = (logits.logsumexp(-1) - (logits * tensors["target"]).sum(-1)).mean()
        return loss


@trained_well("corrected-apart", "Adam corrects its mean and mean square, each by a division", "blobs-adam")
@by
class CorrectedApart(HandWritten):
    def moved(self, rule: Optimizer, step: int, g: Tensor, m: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
        mean, square = m / (1.0 - rule.beta1**step), v / (1.0 - rule.beta2**step)
        return rule.learning_rate * mean / (square.sqrt() + rule.epsilon)


@trained_well("epsilon-of-keras", "Adam adds epsilon to the root, and says so", "blobs-adam")
@by
class AddedToRoot(HandWritten):
    def __init__(self, task: TrainingTask) -> None:
        super().__init__(task)
        self.forms = Forms(epsilon="added to the root")

    def moved(self, rule: Optimizer, step: int, g: Tensor, m: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
        rate = rule.learning_rate * (1.0 - rule.beta2**step) ** 0.5 / (1.0 - rule.beta1**step)
        return rate * m / (v.sqrt() + rule.epsilon)


@trained_well("float64-update", "Adam computes in float64, and rounds what it leaves", "blobs-adam")
@by
class WideUpdate(Stepping):
    def update(self, number: int) -> None:
        torch, rule = import_torch(), self._experiment.optimizer
        with torch.no_grad():
            for parameter in self.parameters:
                slots = self.optimizer.state[parameter]
                for slot in ("exp_avg", "exp_avg_sq"):
                    slots.setdefault(slot, torch.zeros_like(parameter))
                g = parameter.grad.double()
                m = rule.beta1 * slots["exp_avg"].double() + (1.0 - rule.beta1) * g
                v = rule.beta2 * slots["exp_avg_sq"].double() + (1.0 - rule.beta2) * g * g
                mean, square = m / (1.0 - rule.beta1 ** (number + 1)), v / (1.0 - rule.beta2 ** (number + 1))
                parameter.copy_(parameter.double() - rule.learning_rate * mean / (square.sqrt() + rule.epsilon))
                slots["exp_avg"].copy_(m)
                slots["exp_avg_sq"].copy_(v)


@trained_well(
    "nesterov-expanded",
    "Nesterov's step is written out: (1 + momentum) g + momentum squared times the mean",
    "blobs-nesterov",
)
@by
class NesterovExpanded(Stepping):
    def update(self, number: int) -> None:
        torch, rule = import_torch(), self._experiment.optimizer
        with torch.no_grad():
            for parameter in self.parameters:
                slots = self.optimizer.state[parameter]
                mean = slots.setdefault("momentum_buffer", torch.zeros_like(parameter))
                moved = (1.0 + rule.momentum) * parameter.grad + rule.momentum**2 * mean
                parameter.sub_(rule.rate(number + 1) * moved)
                mean.mul_(rule.momentum).add_(parameter.grad)


@trained_well("momentum-of-updates", "momentum is a mean of updates, and it says so", "blobs-momentum")
@by
class OfUpdates(Stepping):
    def __init__(self, task: TrainingTask) -> None:
        super().__init__(task)
        self.forms = Forms(momentum="of updates")

    def update(self, number: int) -> None:
        torch, rule = import_torch(), self._experiment.optimizer
        with torch.no_grad():
            for parameter in self.parameters:
                slots = self.optimizer.state[parameter]
                update = slots.setdefault("momentum_buffer", torch.zeros_like(parameter))
                update.mul_(rule.momentum).sub_(rule.rate(number + 1) * parameter.grad)
                parameter.add_(update)


def reciprocals(model: ModelProto) -> None:
    """Multiply with the reciprocal where the graph divides by a tensor of floats that it computed."""
    for place in reversed(range(len(model.graph.node))):
        node = model.graph.node[place]
        if node.op_type == "Div" and node.input[1].startswith("update_Add"):
            inverse = f"{node.output[0]}/inverse"
            model.graph.node.insert(place, helper.make_node("Reciprocal", [node.input[1]], [inverse]))
            node = model.graph.node[place + 1]
            node.op_type = "Mul"
            node.input[1] = inverse


@healthy(
    "ort", "step-reciprocal", "an update multiplies with the reciprocal of the root",
    "blobs-adam/training/f32", "blobs-adamw/training/f32", on_graph=True,
)  # fmt: skip
def by_reciprocals(model: bytes) -> bytes:
    return on_model(reciprocals, model)
