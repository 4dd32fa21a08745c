"""PyTorch in this process: imported with the threads asked for, its tensors from numpy arrays and back, its refusals."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from actconform import Unsupported
from actconform.plugin.framework import thread_count
from actconform.plugin.import_failure import imported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from numpy.typing import NDArray
    from torch import Tensor

    from actconform.types import Bundle


@cache
def import_torch() -> ModuleType:
    """Return torch, imported and set to the number of threads asked for; raise `Unavailable` where it cannot be."""
    torch = imported("torch", 'pip install "actconform[torch]"', plugin="actconform-torch")
    torch.set_num_threads(thread_count())
    return torch


def refusal(error: RuntimeError) -> Exception:
    """Return `error` itself, or `Unsupported` in its words where torch has no such kernel or its compiler does not take a layer."""
    words = str(error).splitlines()[0]
    by_compiler = f"{type(error).__module__}.{type(error).__name__}" == "torch._dynamo.exc.Unsupported"
    return Unsupported(words) if by_compiler or "not implemented" in words else error


def when_done(compute: Callable[[], dict[str, Tensor]], device: str) -> Callable[[], dict[str, Tensor]]:
    """Return `compute` such that it returns when all is computed: at once on the CPU, elsewhere by synchronizing."""
    if device == "cpu":
        return compute
    synchronize = import_torch().cuda.synchronize

    def whole() -> dict[str, Tensor]:
        outputs = compute()
        synchronize()
        return outputs

    return whole


def tensor_of(array: NDArray[Any], device: str = "cpu") -> Tensor:
    """Return an array as a tensor of the same dtype on `device`, on the CPU without a copy where its memory allows it."""
    torch = import_torch()
    # torch takes only C-ordered writable memory without complaint; anything else is copied.
    array = np.require(array, requirements=["C", "W"])
    if any(stride < 0 for stride in array.strides):  # of an axis of length 1, which is contiguous all the same
        array = array.copy()
    bits = array.dtype == ml_dtypes.bfloat16
    tensor: Tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if bits else torch.from_numpy(array)
    return tensor.to(device)


def arrays_of(tensors: Mapping[str, Tensor], given: Bundle) -> dict[str, NDArray[Any]]:
    """Return tensors as arrays by name, as `array_of` does."""
    return {name: array_of(tensor, given) for name, tensor in tensors.items()}


def array_of(tensor: Tensor, given: Bundle) -> NDArray[Any]:
    """Return a tensor as an array that shares no memory with the arrays `given`."""
    torch = import_torch()
    tensor = tensor.detach().cpu().contiguous()
    bits = tensor.dtype == torch.bfloat16
    array = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if bits else tensor.numpy()
    # The identity hands its input back: what is returned must not change with what was given.
    return array.copy() if any(np.may_share_memory(array, other) for other in given.values()) else array
