"""Calling the user's function with test vectors, as a worker calls a program: on copies, the first call again at the end.

Errors of the function are its own: they pass through, with a note that says at which inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.errors import UsageError
from actconform.text import number_of, one_line
from actconform.tolerance.ulp import to_hex
from actconform.workers.protocol import JobResult, aligned_copy
from actconform.workers.session import differing_names, same_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from actconform.accuracy.function.arrays import ArrayKind
    from actconform.types import Bundle, Kernel
    from actconform.types.dtypes import FloatFormat

COTANGENT = "cotangent y"  # as a worker names it
WRONG_ARRAYS = (TypeError, AttributeError)


class Caller:
    """Calls `function(*inputs)` of a kernel, or with cotangents `gradient(*inputs, cotangent)`; both take arrays of `arrays`."""

    def __init__(
        self,
        function: Callable[..., Any],
        gradient: Callable[..., Any] | None,
        kernel: Kernel,
        fmt: FloatFormat,
        arrays: ArrayKind,
    ) -> None:
        self._function, self._gradient = function, gradient
        self._kernel, self._fmt, self._arrays = kernel, fmt, arrays

    def all(self, calls: Sequence[tuple[str, Bundle, Bundle | None]]) -> JobResult:
        """Return the outputs of each call (regime, inputs, cotangents), which inputs were changed, and what the first one gives again."""
        outcome = JobResult()
        for number, call in enumerate(calls):
            outputs, changed = self._call(*call)
            outcome.outputs.append(outputs)
            outcome.mutated.extend((number, name) for name in changed)
        again, _ = self._call(*calls[0])
        outcome.unsteady.extend((0, name) for name in differing_names(outcome.outputs[0], again))
        return outcome

    def _call(
        self, regime: str, inputs: Bundle, cotangents: Bundle | None
    ) -> tuple[dict[str, NDArray[Any]], list[str]]:
        function = self._function if cotangents is None else self._gradient
        assert function is not None
        tensors = {name: inputs[name] for name in self._kernel.inputs}
        if cotangents is not None:
            tensors[COTANGENT] = cotangents["y"]
        arguments = {name: self._arrays.give(aligned_copy(array)) for name, array in tensors.items()}
        try:
            returned = self._silently(function, list(arguments.values()))
        except Exception as error:
            self._annotate(error, function, tensors, regime)
            raise
        try:
            outputs = self._outputs(returned, gradient=cotangents is not None)
            changed = [
                name for name, array in tensors.items() if not same_bytes(self._arrays.take(arguments[name]), array)
            ]
        except UsageError as error:
            raise UsageError(f"{function_name(function)}, called with {_sizes(tensors)}: {error}") from None
        return outputs, changed

    def _silently(self, function: Callable[..., Any], arguments: list[Any]) -> Any:
        with np.errstate(all="ignore"):  # overflow and NaN are among the inputs on purpose
            return function(*arguments)

    def _outputs(self, returned: Any, *, gradient: bool) -> dict[str, NDArray[Any]]:
        """Return copies of what came: y, or d_NAME of each input, which may be a dict, a tuple or, of one input, an array."""
        if not gradient:
            return {"y": np.array(self._arrays.take(returned), order="C")}
        names = [f"d_{name}" for name in self._kernel.inputs]
        if isinstance(returned, tuple | list):
            if len(returned) != len(names):
                raise UsageError(
                    f"it returned {number_of(len(returned), 'gradient')}: wanted {len(names)}, {', '.join(names)}"
                )
            returned = dict(zip(names, returned, strict=True))
        elif not isinstance(returned, dict):
            if len(names) > 1:
                raise UsageError(f"it returned one gradient: wanted a tuple of {len(names)}, {', '.join(names)}")
            returned = {names[0]: returned}
        return {str(name): np.array(self._arrays.take(array), order="C") for name, array in returned.items()}

    def _annotate(
        self, error: Exception, function: Callable[..., Any], tensors: dict[str, NDArray[Any]], regime: str
    ) -> None:
        """Add to the function's own error at which inputs it was raised, searched by halving the arrays."""
        x = tensors["x"]
        sliced = [name for name in tensors if name in ("x", COTANGENT) or (self._kernel.form == "unary")]

        def raises(start: int, stop: int) -> bool:
            part = {name: array[start:stop] if name in sliced else array for name, array in tensors.items()}
            try:
                self._silently(function, [self._arrays.give(aligned_copy(array)) for array in part.values()])
            except type(error):
                return True
            except Exception:  # noqa: BLE001  another fault, of the shorter array
                return False
            return False

        start, stop = 0, len(x)
        while stop - start > 1:
            middle = (start + stop) // 2
            if raises(start, middle):
                stop = middle
            elif raises(middle, stop):
                start = middle
            else:
                break
        everywhere = stop - start == 1 < len(x) and all(raises(n, n + 1) for n in {0, len(x) // 3, len(x) - 1})
        where = "no single part of them raises" if stop - start == len(x) > 1 else self._where(x, start, stop)
        if everywhere:
            where = "every part of them raises"
        error.add_note(
            f"actconform.measure: raised by {function_name(function)}, called with {_sizes(tensors)} (regime {regime}): {where}"
        )
        if everywhere and self._arrays.name == "numpy" and isinstance(error, WRONG_ARRAYS):
            error.add_note(
                'It was given arrays of NumPy: for a function of tensors say arrays="torch", "jax" or "tensorflow".'
            )

    def _where(self, x: NDArray[Any], start: int, stop: int) -> str:
        if self._kernel.form == "row":
            return f"x[{start}] raises alone" if stop - start == 1 else f"x[{start}:{stop}] raises, no half of it"
        first, last = (f"{float(x[at]):.9g} ({to_hex(float(x[at]), self._fmt)})" for at in (start, stop - 1))
        if stop - start == 1:
            return f"x[{start}] = {first} raises alone"
        return f"x[{start}:{stop}], {first} to {last}, raises, no half of it"


def function_name(function: object) -> str:
    """Return what a callable is called, on one line: its name, else that of what `functools.partial` wraps, else of its type."""
    function = getattr(function, "func", function)
    name = getattr(function, "__name__", None) or type(function).__name__
    return one_line("lambda" if name == "<lambda>" else str(name), 80)


def _sizes(tensors: dict[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in tensors.items())
