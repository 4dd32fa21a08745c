"""What a caller gives as an array, as one of NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.accuracy.function.arrays import numpy_array
from actconform.errors import UsageError
from actconform.text import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLAIN = (int, float, bool, str, list, tuple)


def array_of(value: Any, argument: str) -> NDArray[Any]:
    """Return an array of NumPy, a framework's tensor, a number or a list of numbers as an array; raise UsageError, naming the `argument`, for others."""
    try:
        array = np.asarray(value) if isinstance(value, PLAIN) else numpy_array(value)
    except Exception as error:  # a tensor of a framework may raise anything
        kind = one_line(type(value).__name__, 80)
        raise UsageError(
            f"{one_line(argument)} is of type {kind}; expected an array of NumPy or a tensor of torch, JAX or TensorFlow"
        ) from error
    if array.dtype == object and not all(isinstance(entry, str | bytes) for entry in array.flat):
        raise UsageError(f"{one_line(argument)} holds objects; expected numbers")
    return array
