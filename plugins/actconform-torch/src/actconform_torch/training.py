"""Training in torch: a module of torch.nn, an optimizer of torch.optim and its scheduler, in a loop as torch's users write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform import Unsupported
from actconform.plugin.training_loop import Trainer
from actconform.types.model import LOSS
from actconform.types.training import Forms
from actconform_torch.models import Network
from actconform_torch.torch_module import import_torch, tensor_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor
    from torch.optim import Optimizer as TorchOptimizer

    from actconform.types import Bundle
    from actconform.types.training import Optimizer
    from actconform.types.training_run import TrainingTask

# What torch.optim calls the slots that a step keeps.
ADAM_SLOTS = {"m": "exp_avg", "v": "exp_avg_sq"}
SLOT_NAMES: dict[str, dict[str, str]] = {
    "sgd": {"momentum": "momentum_buffer"},
    "adam": ADAM_SLOTS,
    "adamw": ADAM_SLOTS,
    "rmsprop": {"v": "square_avg"},
}


class Placed(NamedTuple):
    """Where a part of a canonical parameter stands in a tensor of torch.nn: flat indices of both, element by element."""

    place: str
    indices: NDArray[np.int64]
    canonical: NDArray[np.int64]


class TorchTrainer(Trainer):
    """The module with its own parameters, trained on `device`; `transform` is what becomes of the function of the loss."""

    def __init__(
        self,
        task: TrainingTask,
        device: str = "cpu",
        transform: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
    ) -> None:
        experiment = task.experiment
        self._experiment, self._device = experiment, device
        self._network, self._inference = Network(experiment.model), Network(experiment.evaluation)
        self._module = self._network.module
        tensors = {name: tensor_of(array, device).clone() for name, array in task.state.items()}
        self._module.load_state_dict(self._network.state(tensors), assign=True)
        self._places = _places(self._network, task.state)
        self._refuse_others()
        self.optimizer = self.make_optimizer(self._module.parameters(), experiment.optimizer)
        scheduler = import_torch().optim.lr_scheduler
        rule = experiment.optimizer
        self._schedule = scheduler.StepLR(self.optimizer, rule.decay_steps, rule.decay) if rule.decay != 1.0 else None
        self._loss = transform(self._loss_of)
        self.forms = Forms(variance="unbiased")
        self.implementation = f"{self._network.text}; torch.optim.{type(self.optimizer).__name__}"

    def make_optimizer(self, parameters: Iterable[Any], rule: Optimizer) -> TorchOptimizer:
        """Return the optimizer of torch.optim for a rule."""
        optim = import_torch().optim
        rate, betas = rule.learning_rate, (rule.beta1, rule.beta2)
        optimizer: TorchOptimizer
        match rule.kind:
            case "sgd":
                optimizer = optim.SGD(parameters, lr=rate, momentum=rule.momentum, nesterov=rule.nesterov)
            case "adam":
                optimizer = optim.Adam(parameters, lr=rate, betas=betas, eps=rule.epsilon)
            case "adamw":
                optimizer = optim.AdamW(
                    parameters, lr=rate, betas=betas, eps=rule.epsilon, weight_decay=rule.weight_decay
                )
            case "rmsprop":
                optimizer = optim.RMSprop(parameters, lr=rate, alpha=rule.beta2, eps=rule.epsilon)
        return optimizer

    def step(self, batch: Bundle, number: int) -> float:  # noqa: ARG002  torch's optimizer counts by itself
        self.optimizer.zero_grad()
        loss = self._loss({name: tensor_of(array, self._device) for name, array in batch.items()})
        loss.backward()
        self.optimizer.step()
        if self._schedule:
            self._schedule.step()
        return float(loss.detach())

    def gradients(self) -> Bundle:
        shown = {name: parameter.grad for name, parameter in self._module.named_parameters()}
        return {f"d_{name}": array for name, array in self._canonical(shown, self._experiment.differentiable).items()}

    def state(self) -> Bundle:
        names = [parameter.name for parameter in self._experiment.model.parameters]
        state = self._canonical(self._module.state_dict(), names)
        for slot in self._experiment.optimizer.slots:
            slots = {name: self._slot(parameter, slot) for name, parameter in self._module.named_parameters()}
            state |= {
                f"{name}/{slot}": array
                for name, array in self._canonical(slots, self._experiment.differentiable).items()
            }
        return state

    def restore(self, state: Bundle) -> None:
        tensors = {
            parameter.name: tensor_of(state[parameter.name], self._device)
            for parameter in self._experiment.model.parameters
        }
        self._module.load_state_dict(self._network.state(tensors))

    def evaluate(self, inputs: Bundle) -> tuple[float, NDArray[Any]]:
        tensors = {name: tensor_of(array, self._device) for name, array in inputs.items()}
        state = {name: tensor.detach() for name, tensor in self._module.state_dict().items()}
        with import_torch().no_grad():
            values = self._inference.values(tensors, state)
        y = values[self._experiment.evaluation.output]
        return float(values[LOSS]), y.detach().cpu().numpy().copy()

    def _loss_of(self, inputs: Mapping[str, Tensor]) -> Tensor:
        loss: Tensor = self._module(inputs)[LOSS]
        return loss

    def _slot(self, parameter: Any, slot: str) -> Tensor:
        name = SLOT_NAMES[self._experiment.optimizer.kind][slot]
        slot_tensor: Tensor | None = self.optimizer.state.get(parameter, {}).get(name)
        return import_torch().zeros_like(parameter) if slot_tensor is None else slot_tensor

    def _canonical(self, tensors: Mapping[str, Tensor | None], names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return what torch.nn holds of these parameters in the canonical layout; zeros where there is no gradient."""
        flat = {
            place: tensor.detach().cpu().contiguous().numpy().reshape(-1)
            for place, tensor in tensors.items()
            if tensor is not None
        }
        shapes = {parameter.name: parameter.shape for parameter in self._experiment.model.parameters}
        arrays = {}
        for name in names:
            array = np.zeros(int(np.prod(shapes[name])), np.float32)
            for place, indices, canonical in self._places[name]:
                if place in flat:
                    array[canonical] = flat[place][indices]
            arrays[name] = array.reshape(shapes[name])
        return arrays

    def _refuse_others(self) -> None:
        """Raise `Unsupported` where torch would train what is no parameter of the model."""
        placed: dict[str, int] = {}
        for parts in self._places.values():
            for place, indices, _ in parts:
                placed[place] = placed.get(place, 0) + indices.size
        for name, parameter in self._module.named_parameters():
            if placed.get(name) != parameter.numel():
                raise Unsupported(f"torch trains {name}, which the model does not have")


def _places(network: Network, state: Bundle) -> dict[str, list[Placed]]:
    """Return by canonical parameter where its elements stand: what becomes of their numbers when the module's state is made of them."""
    torch = import_torch()
    numbered, first = {}, 1
    for name, array in state.items():
        numbered[name] = torch.arange(first, first + array.size, dtype=torch.float64).reshape(array.shape)
        first += array.size
    laid_out = {place: tensor.numpy().reshape(-1).astype(np.int64) for place, tensor in network.state(numbered).items()}
    places: dict[str, list[Placed]] = {}
    for name, ids in numbered.items():
        low = int(ids.reshape(-1)[0])
        parts = []
        for place, numbers in laid_out.items():
            indices = np.flatnonzero((numbers >= low) & (numbers < low + ids.numel()))
            if indices.size:
                parts.append(Placed(place, indices, numbers[indices] - low))
        places[name] = parts
    return places
