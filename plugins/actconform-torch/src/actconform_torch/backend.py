"""PyTorch as a backend: what it is and where it runs, and its functions as programs over numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from actconform import Library, Program
from actconform.machine.onednn import onednn_in_torch
from actconform.plugin.framework import (
    FrameworkBackend,
    Implementation,
    fate_of_subnormals,
    refuse_without_gradient,
    versions,
)
from actconform.plugin.training_loop import train
from actconform_torch.kernels import implement
from actconform_torch.models import TorchModel
from actconform_torch.torch_module import arrays_of, import_torch, refusal, tensor_of, when_done
from actconform_torch.training import TorchTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from actconform import Kernel, Model, TrainedModel
    from actconform.types import Bundle
    from actconform.types.trained import SourceKind, TrainedSource
    from actconform.types.training_run import TrainingRecord, TrainingTask


class TorchBackend(FrameworkBackend):
    """torch.nn.functional and torch.autograd on the CPU, eagerly, as users call them."""

    name: ClassVar[str] = "torch"
    device: ClassVar[str] = "cpu"
    opens: ClassVar[tuple[SourceKind, ...]] = ("factory", "pt2", "torchscript")

    def facts(self) -> dict[str, str]:
        """Return versions, CPU capability, oneDNN, threads and the fate of subnormals; raise `Unavailable` without torch."""
        torch = import_torch()
        return {
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            **versions("onnx", "onnxscript"),
            "device": "cpu",
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            **onednn_in_torch(torch),
            "subnormals": fate_of_subnormals((torch.tensor([1e-40]) + 0.0).item()),
            "threads": str(torch.get_num_threads()),
        }

    def library(self) -> Library:
        """Return torch's own functions: SLEEF's where they are vectorized, oneDNN's within gelu."""
        from actconform_torch.primitives import primitives

        return Library("torch", ("torch",), primitives())

    def build(self, kernel: Kernel, dtype: str) -> Program:  # noqa: ARG002  torch follows its input
        """Return the kernel as a program; a dtype that torch lacks it in shows at the first call, as `Unsupported`."""
        import_torch()
        return TorchProgram(kernel, implement(kernel), self.device)

    def build_model(self, model: Model, dtype: str) -> Program:  # noqa: ARG002  torch follows its input
        """Return the model of torch.nn's layers; raise `Unsupported` where torch has none of a kind."""
        import_torch()
        return TorchModel(model, self.device)

    def train(self, task: TrainingTask) -> TrainingRecord:
        """Train with torch.optim in a loop of one's own, eagerly; raise `Unsupported` where torch has none of a layer."""
        import_torch()
        return train(TorchTrainer(task, self.device), task)

    def open_trained(self, source: TrainedSource) -> TrainedModel:
        """Return a factory's module, a program of torch.export, or a trusted module of TorchScript."""
        import_torch()
        from actconform_torch.trained_model import TorchTrainedModel
        from actconform_torch.trained_source import opened_source

        return TorchTrainedModel(opened_source(source), source.folder)

    def adopt_trained(self, model: object, example: object | None) -> TrainedModel:
        """Return a module of this process, with example inputs as a factory gives them."""
        import_torch()
        from actconform_torch.trained_model import TorchTrainedModel
        from actconform_torch.trained_source import opened_object

        return TorchTrainedModel(opened_object(model, example))


class TorchProgram(Program):
    """One kernel: numpy arrays to tensors of the device, on the CPU without copying where they allow it, the function, and back."""

    def __init__(self, kernel: Kernel, implementation: Implementation, device: str = "cpu") -> None:
        self.implementation, self._function, _ = implementation
        self._kernel, self._device = kernel, device

    def forward(self, inputs: Bundle) -> Bundle:
        """Return `y`, in whatever dtype torch returns it; raise `Unsupported` where torch lacks the dtype."""
        with import_torch().no_grad():
            outputs = self.prepare_call(inputs)()
        return arrays_of(outputs, inputs)

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>` of every input by torch.autograd; raise `Unsupported` where the kernel has no gradient."""
        return arrays_of(self.prepare_call(inputs, cotangents)(), {**inputs, **cotangents})

    def prepare_call(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], dict[str, Tensor]]:
        """Return what computes "y", or with cotangents forward and torch.autograd.grad, "d_<name>" of every input, as tensors.

        Without cotangents no tensor asks for a gradient, so nothing is recorded, as under torch.no_grad; entering that in every
        call would take longer than a small kernel. On CUDA a call returns when the device is done.
        """
        tensors = [tensor_of(inputs[name], self._device) for name in self._kernel.inputs]
        if cotangents is None:
            return when_done(lambda: {"y": self._call(*tensors)}, self._device)
        refuse_without_gradient(self._kernel)
        names = [f"d_{name}" for name in self._kernel.inputs]
        cotangent = tensor_of(cotangents["y"], self._device)
        grad = import_torch().autograd.grad
        for tensor in tensors:
            tensor.requires_grad_()

        def gradients() -> dict[str, Tensor]:
            y = self._call(*tensors)
            try:
                return dict(zip(names, grad(y, tensors, cotangent), strict=True))
            except RuntimeError as error:
                raise refusal(error) from error

        return when_done(gradients, self._device)

    def _call(self, *tensors: Tensor) -> Tensor:
        try:
            y: Tensor = self._function(*tensors)
        except RuntimeError as error:
            raise refusal(error) from error
        return y
