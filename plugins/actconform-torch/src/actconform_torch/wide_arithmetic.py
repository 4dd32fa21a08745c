"""A model of narrower formats computed in float64: what `forward` converts to a narrower format, or makes in one, stays wide."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from actconform import Unsupported

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
# Within it no function of torch is seen by a mode; it has no public name.
_UNSEEN = torch._C.DisableTorchFunction  # noqa: SLF001
_BIT_OPERATORS = (torch.ops.aten.view.dtype,)


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


class WideOperators(TorchDispatchMode):
    """Gives every operator float64 in place of a narrower floating dtype: also those that TorchScript calls, which no mode of functions sees.

    Raises Unsupported where one is to write to a narrower tensor, which would round what it is given; TorchScript loses its words.
    """

    refusal = ""
    """What was raised."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call an operator."""
        arguments = func._schema.arguments  # noqa: SLF001  it has no public name
        named = dict(zip((argument.name for argument in arguments), args, strict=False)) | dict(kwargs or {})
        for argument in arguments:
            tensor = named.get(argument.name)
            if argument.is_write and isinstance(tensor, torch.Tensor) and tensor.dtype in WIDE:
                dtype = str(tensor.dtype).removeprefix("torch.")
                self.refusal = f"it does not run in float64: {func} writes to a tensor that is kept in {dtype}"
                raise Unsupported(self.refusal)
        with _UNSEEN():
            if func in _BIT_OPERATORS:
                return func(*args, **(kwargs or {}))
            args, kwargs = tree_map(_wide, (tuple(args), dict(kwargs or {})))
            return tree_map(_wide, func(*args, **kwargs))


@contextmanager
def wide_arithmetic(native: torch.dtype | None, *, scripted: bool = False) -> Iterator[None]:
    """Compute in float64 within, with `scripted` in TorchScript too.

    What a model asks of its format (`torch.finfo`) is said of `native`, the one that it was trained in.
    """
    default, finfo = torch.get_default_dtype(), torch.finfo
    of_model = native or default

    def finfo_of_model(dtype: torch.dtype | None = None) -> torch.finfo:
        return finfo(of_model if dtype in (None, torch.float64) else dtype)

    torch.finfo = finfo_of_model  # type: ignore[misc,assignment]
    torch.set_default_dtype(torch.float64)
    try:
        with WideArithmetic(), _wide_scripts() if scripted else nullcontext():
            yield
    finally:
        torch.set_default_dtype(default)
        torch.finfo = finfo  # type: ignore[misc]


@contextmanager
def _wide_scripts() -> Iterator[None]:
    # With optimizations constants may have been computed in float32 before.
    operators = WideOperators()
    try:
        with operators, torch.jit.optimized_execution(should_optimize=False):  # type: ignore[no-untyped-call]
            yield
    except Exception as error:
        if operators.refusal:
            raise Unsupported(operators.refusal) from error
        raise


def _wide_dtype(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return WIDE.get(value, value)
    return _NAMES.get(value, value) if isinstance(value, str) else value


def _wide(value: Any) -> Any:
    return _wide_tensor(value) if isinstance(value, torch.Tensor) else _wide_dtype(value)


def _wide_tensor(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return result.to(WIDE[result.dtype]) if result.dtype in WIDE else result
    if type(result) in (tuple, list):
        return type(result)(_wide_tensor(part) for part in result)
    return result
