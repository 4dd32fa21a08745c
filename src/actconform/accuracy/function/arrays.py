"""Which arrays a function takes: NumPy's, or a framework's that this process has imported already; there and back."""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np

from actconform.errors import UsageError, near
from actconform.workers.session import type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    Give: TypeAlias = "Callable[[NDArray[Any]], Any]"
    Take: TypeAlias = "Callable[[Any], NDArray[Any]]"

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# The packages whose functions take arrays of the framework that is imported by the second name.
FRAMEWORKS = {"torch": "torch", "jax": "jax", "jaxlib": "jax", "tensorflow": "tensorflow"}
KINDS = ("numpy", "torch", "jax", "tensorflow")


class ArrayKind(NamedTuple):
    """How an array of NumPy is given to a function, and how one is taken from what it returned."""

    name: str
    give: Give
    take: Take


def array_kind(arrays: str | tuple[Give, Take] | None, functions: Iterable[object]) -> ArrayKind:
    """Return the kind of arrays that `functions` take: the one that `arrays` says, else that of the package they come from.

    `arrays` is one of KINDS, "torch:DEVICE", or two functions, to and from an array of NumPy. Raises UsageError for another, and
    where its framework is not imported: a function that takes its arrays has imported it.
    """
    if isinstance(arrays, tuple):
        if len(arrays) != 2 or not all(callable(convert) for convert in arrays):
            raise UsageError(
                "arrays= is a tuple of something else: wanted two functions, to and from an array of NumPy"
            )
        return ArrayKind("", *arrays)
    kind = arrays or next((name for name in map(_framework_of_function, functions) if name), "numpy")
    name, _, device = kind.partition(":")
    if name not in KINDS or (device and name != "torch"):
        raise UsageError(
            f"arrays={kind!r} is no kind of arrays{near(name, list(KINDS))}; or give two functions, to and from NumPy"
        )
    if name != "numpy" and name not in sys.modules:
        raise UsageError(
            f"arrays={kind!r}: {name} is not imported in this process, so the function cannot take its arrays"
        )
    return ArrayKind(kind, _giving(name, device), numpy_array)


def numpy_array(returned: Any) -> NDArray[Any]:
    """Return what a function returned as an array of NumPy; raise UsageError for what is no array of NumPy or of a framework."""
    if isinstance(returned, np.ndarray | np.generic):
        return np.asarray(returned)
    framework = _package(type(returned))
    if framework == "torch" and hasattr(returned, "detach"):
        return _from_torch(returned)
    if framework in ("jax", "tensorflow") and hasattr(returned, "__array__"):
        return np.asarray(returned)
    raise UsageError(
        f"it returned {type_name(returned)}: wanted an array of NumPy or a tensor of torch, JAX or TensorFlow"
    )


def _giving(name: str, device: str) -> Give:
    if name == "torch":
        return lambda array: _to_torch(array, device)
    if name == "jax":
        give: Give = sys.modules["jax"].numpy.asarray
        return give
    if name == "tensorflow":
        give = sys.modules["tensorflow"].constant
        return give
    return lambda array: array


def _to_torch(array: NDArray[Any], device: str) -> Any:
    """Return a tensor that shares the array's memory, so that a write to it is seen; on another device a copy."""
    torch = sys.modules["torch"]
    if array.dtype == BFLOAT16:  # which torch does not read from NumPy
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array)
    return tensor.to(device) if device else tensor


def _from_torch(tensor: Any) -> NDArray[Any]:
    torch = sys.modules["torch"]
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        bits: NDArray[Any] = plain.view(torch.int16).numpy()
        return bits.view(BFLOAT16)
    array: NDArray[Any] = plain.numpy()
    return array


def _framework_of_function(function: object) -> str:
    """Return the framework that a function comes from, "" where that does not show: one's own functions live in modules of one's own."""
    return next((name for part in _parts(function) if (name := _package(part))), "")


def _parts(function: object) -> Iterator[object]:
    """Yield what a callable consists of: itself, what it is bound to, what `functools.partial` wraps, and the types of these."""
    while isinstance(function, functools.partial):
        function = function.func
    for part in (function, getattr(function, "__self__", None), getattr(function, "__objclass__", None)):
        if part is not None:
            yield part
            yield from (part if isinstance(part, type) else type(part)).__mro__
    name = getattr(function, "__name__", None)
    for framework in dict.fromkeys(FRAMEWORKS.values()):  # torch.tanh does not say where it comes from
        module = sys.modules.get(framework)
        if module is not None and isinstance(name, str) and vars(module).get(name) is function:
            yield module


def _package(part: object) -> str:
    """Return the framework whose package a module, or the module of a function or type, belongs to; "" for none."""
    module = part.__name__ if isinstance(part, ModuleType) else getattr(part, "__module__", None)
    return FRAMEWORKS.get(module.partition(".")[0], "") if isinstance(module, str) else ""
