"""The elementary functions that torch computes activations with, over numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform_torch.torch_module import array_of, import_torch, refusal, tensor_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    Compute = Callable[..., NDArray[Any]]


def primitives(compiled: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] | None = None) -> dict[str, Compute]:
    """Return them by name, by way of `compiled` where it is given; `erf_gelu` is the erf of torch's gelu, as its results tell it."""
    torch = import_torch()
    functions: dict[str, Callable[..., Tensor]] = {
        name: getattr(torch, name)
        for name in ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf", "erfc", "sqrt", "rsqrt", "reciprocal")
    }
    functions |= {"softplus": torch.nn.functional.softplus, "division": torch.div}
    known = {name: _over_arrays(compiled(each) if compiled else each) for name, each in functions.items()}
    gelu = _over_arrays(compiled(torch.nn.functional.gelu) if compiled else torch.nn.functional.gelu)
    known["erf_gelu"] = lambda x: 2.0 * gelu(x).astype(np.float64) / x.astype(np.float64) - 1.0
    return known


def _over_arrays(function: Callable[..., Tensor]) -> Compute:
    def compute(*operands: NDArray[Any]) -> NDArray[Any]:
        tensors = [tensor_of(operand) for operand in operands]
        try:
            with import_torch().no_grad():
                return array_of(function(*tensors), {})
        except RuntimeError as error:
            raise refusal(error) from error

    return compute
