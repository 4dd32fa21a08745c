"""PyTorch as a backend: what it is and where it runs, and its functions as programs over numpy arrays."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import ml_dtypes
import numpy as np

from actconform import Backend, Library, Program, Support, Unsupported
from actconform.machine.onednn import onednn_in_torch
from actconform.plugin.import_failure import imported
from actconform.types.dtypes import DTYPES
from actconform_torch.kernels import Implementation, implement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from numpy.typing import NDArray
    from torch import Tensor

    from actconform import Case, Kernel, Model
    from actconform.types import Bundle


class TorchBackend(Backend):
    """torch.nn.functional and torch.autograd on the CPU, eagerly, as users call them."""

    name: ClassVar[str] = "torch"
    kind: ClassVar[Literal["framework", "runtime"]] = "framework"
    device: ClassVar[str] = "cpu"

    def facts(self) -> dict[str, str]:
        """Return versions, CPU capability, oneDNN, threads and the fate of subnormals; raise `Unavailable` without torch."""
        torch = _torch()
        return {
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            **_versions("onnx", "onnxscript"),
            "device": "cpu",
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            **onednn_in_torch(torch),
            "subnormals": "kept" if (torch.tensor([1e-40]) + 0.0).item() != 0.0 else "flushed",
            "threads": str(torch.get_num_threads()),
        }

    def library(self) -> Library:
        """Return torch's own functions: SLEEF's where they are vectorized, oneDNN's within gelu."""
        from actconform_torch.primitives import primitives

        return Library("torch", ("torch",), primitives())

    def supports(self, case: Case) -> Support:
        """Say no to dtypes that are none of ours; a kernel or model that torch has not is refused when it is built."""
        if case.dtype not in DTYPES:
            return Support(yes=False, reason=f"{self.name} runs {', '.join(DTYPES)} here, not {case.dtype}")
        return Support(yes=True)

    def build(self, kernel: Kernel, dtype: str) -> Program:  # noqa: ARG002  torch follows its input
        """Return the kernel as a program; a dtype that torch lacks it in shows at the first call, as `Unsupported`."""
        _torch()
        return TorchProgram(kernel, implement(kernel), self.device)

    def build_model(self, model: Model, dtype: str) -> Program:  # noqa: ARG002  torch follows its input
        """Return the model of torch.nn's layers; raise `Unsupported` where torch has none of a kind."""
        _torch()
        from actconform_torch.models import TorchModel

        return TorchModel(model, self.device)


class TorchProgram(Program):
    """One kernel: numpy arrays to tensors of the device, on the CPU without copying where they allow it, the function, and back."""

    def __init__(self, kernel: Kernel, implementation: Implementation, device: str = "cpu") -> None:
        self.implementation, self._function = implementation
        self._kernel, self._device = kernel, device

    def forward(self, inputs: Bundle) -> Bundle:
        """Return `y`, in whatever dtype torch returns it; raise `Unsupported` where torch lacks the dtype."""
        with _torch().no_grad():
            outputs = self.ready(inputs)()
        return _arrays(outputs, inputs)

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>` of every input by torch.autograd; raise `Unsupported` where the kernel has no gradient."""
        return _arrays(self.ready(inputs, cotangents)(), {**inputs, **cotangents})

    def ready(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], dict[str, Tensor]]:
        """Return what computes "y", or with cotangents forward and torch.autograd.grad, "d_<name>" of every input, as tensors.

        Without cotangents no tensor asks for a gradient, so nothing is recorded, as under torch.no_grad; entering that in every
        call would take longer than a small kernel. On CUDA a call returns when the device is done.
        """
        tensors = [_tensor(inputs[name], self._device) for name in self._kernel.inputs]
        if cotangents is None:
            return when_done(lambda: {"y": self._call(*tensors)}, self._device)
        if not self._kernel.differentiable:
            raise Unsupported(f"kernel {self._kernel.name} has no gradient, by declaration")
        names = [f"d_{name}" for name in self._kernel.inputs]
        cotangent = _tensor(cotangents["y"], self._device)
        grad = _torch().autograd.grad
        for tensor in tensors:
            tensor.requires_grad_()

        def gradients() -> dict[str, Tensor]:
            y = self._call(*tensors)
            try:
                return dict(zip(names, grad(y, tensors, cotangent), strict=True))
            except RuntimeError as error:
                raise _refusal(error) from error

        return when_done(gradients, self._device)

    def _call(self, *tensors: Tensor) -> Tensor:
        try:
            return self._function(*tensors)
        except RuntimeError as error:
            raise _refusal(error) from error


def _refusal(error: RuntimeError) -> Exception:
    """Return `error` itself, or `Unsupported` in its words where torch says that it has no such kernel."""
    words = str(error).splitlines()[0]
    return Unsupported(words) if "not implemented" in words else error


def when_done(compute: Callable[[], dict[str, Tensor]], device: str) -> Callable[[], dict[str, Tensor]]:
    """Return `compute` such that it returns when all is computed: at once on the CPU, elsewhere by synchronizing."""
    if device == "cpu":
        return compute
    synchronize = _torch().cuda.synchronize

    def whole() -> dict[str, Tensor]:
        outputs = compute()
        synchronize()
        return outputs

    return whole


def _tensor(array: NDArray[Any], device: str = "cpu") -> Tensor:
    torch = _torch()
    # torch takes only C-ordered writable memory without complaint; anything else is copied.
    array = np.require(array, requirements=["C", "W"])
    bits = array.dtype == ml_dtypes.bfloat16
    tensor: Tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if bits else torch.from_numpy(array)
    return tensor.to(device)


def _arrays(tensors: Mapping[str, Tensor], given: Bundle) -> dict[str, NDArray[Any]]:
    return {name: _array(tensor, given) for name, tensor in tensors.items()}


def _array(tensor: Tensor, given: Bundle) -> NDArray[Any]:
    torch = _torch()
    tensor = tensor.detach().cpu().contiguous()
    bits = tensor.dtype == torch.bfloat16
    array = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if bits else tensor.numpy()
    # The identity hands its input back: what is returned must not change with what was given.
    return array.copy() if any(np.may_share_memory(array, other) for other in given.values()) else array


@cache
def _torch() -> ModuleType:
    """Return torch, imported and set to the number of threads asked for; raise `Unavailable` where it cannot be."""
    torch = imported("torch", "pip install actconform[torch]", plugin="actconform-torch")
    torch.set_num_threads(_threads())
    return torch


def _versions(*packages: str) -> dict[str, str]:
    """Return the version of each package that is installed: what the exporters' graphs depend on. Nothing is imported."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _threads() -> int:
    text = os.environ.get("ACTCONFORM_THREADS", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"ACTCONFORM_THREADS is {text!r}: give the number of threads, 1 or more")
    return int(text)
