"""PyTorch on the first CUDA device: the same functions as on the CPU, and the facts of the device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from actconform import Unavailable
from actconform.machine.gpu import first_gpu
from actconform.plugin.framework import fate_of_subnormals
from actconform_torch.backend import TorchBackend
from actconform_torch.torch_module import import_torch

if TYPE_CHECKING:
    from actconform.types.trained import SourceKind

OVERRIDE = "NVIDIA_TF32_OVERRIDE"  # NVIDIA's libraries heed it, whatever torch says


class TorchCuda(TorchBackend):
    """torch.nn.functional and torch.autograd on the first CUDA device, eagerly, TF32 and cuDNN as torch sets them by default."""

    name: ClassVar[str] = "torch-cuda"
    device: ClassVar[str] = "cuda"
    optional: ClassVar[bool] = True
    opens: ClassVar[tuple[SourceKind, ...]] = ()  # users' models are opened by torch itself

    def facts(self) -> dict[str, str]:
        """Return versions, the device, TF32, cuDNN's search of algorithms and the fate of subnormals.

        Raises `Unavailable` with the cause: no driver or device, asked before torch is imported, a torch built without CUDA,
        or in torch's words whatever it cannot do with the device.
        """
        gpu = first_gpu()
        torch = import_torch()
        if torch.version.cuda is None:
            raise Unavailable(
                f"torch {torch.__version__} is built without CUDA: pip install torch from an index of PyTorch's CUDA builds, "
                "such as https://download.pytorch.org/whl/cu130"
            )
        try:
            torch.cuda.init()
            subnormals = fate_of_subnormals((torch.tensor([1e-40], device=self.device) + 0.0).item())
        except (RuntimeError, AssertionError) as error:
            words = str(error).strip().splitlines()[0]
            raise Unavailable(
                f"torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use {gpu['device']}: {words}"
            ) from error
        backends = torch.backends
        return {
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            **gpu,
            "cuda": str(torch.version.cuda),
            "cudnn": str(backends.cudnn.version()),
            "tf32_matmul": _switch(on=backends.cuda.matmul.allow_tf32),
            "tf32_cudnn": _switch(on=backends.cudnn.allow_tf32),
            "tf32_override": os.environ.get(OVERRIDE, "none"),
            "cudnn_benchmark": _switch(on=backends.cudnn.benchmark),
            "subnormals": subnormals,
            "threads": str(torch.get_num_threads()),
        }


def _switch(*, on: bool) -> str:
    return "on" if on else "off"
