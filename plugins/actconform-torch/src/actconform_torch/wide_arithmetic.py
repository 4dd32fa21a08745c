"""A model of narrower formats computed in float64: what `forward` converts to a narrower format, or makes in one, stays wide."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
_NAMES = {"torch.FloatTensor": "torch.DoubleTensor", "torch.HalfTensor": "torch.DoubleTensor"}
_CONVERSIONS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)
# A view under another dtype reads bits, and converts nothing.
_OF_BITS = (torch.Tensor.view,)


class WideArithmetic(TorchFunctionMode):
    """Gives every function of torch float64 in place of a narrower floating dtype, and widens what yet comes out narrow."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch."""
        if func in _CONVERSIONS:
            return torch.Tensor.double(*args)
        if func in _OF_BITS:
            return func(*args, **(kwargs or {}))
        args = tuple(_wide_dtype(value) for value in args)
        return _wide_tensor(func(*args, **{name: _wide_dtype(value) for name, value in (kwargs or {}).items()}))


@contextmanager
def wide_arithmetic(native: torch.dtype | None) -> Iterator[None]:
    """Compute in float64 within; what a model asks of its format (`torch.finfo`) is said of `native`, the one that it was trained in."""
    default, finfo = torch.get_default_dtype(), torch.finfo
    of_model = native or default

    def finfo_of_model(dtype: torch.dtype | None = None) -> torch.finfo:
        return finfo(of_model if dtype in (None, torch.float64) else dtype)

    torch.finfo = finfo_of_model  # type: ignore[misc,assignment]
    torch.set_default_dtype(torch.float64)
    try:
        with WideArithmetic():
            yield
    finally:
        torch.set_default_dtype(default)
        torch.finfo = finfo  # type: ignore[misc]


def _wide_dtype(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return WIDE.get(value, value)
    return _NAMES.get(value, value) if isinstance(value, str) else value


def _wide_tensor(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return result.to(WIDE[result.dtype]) if result.dtype in WIDE else result
    if type(result) in (tuple, list):
        return type(result)(_wide_tensor(part) for part in result)
    return result
