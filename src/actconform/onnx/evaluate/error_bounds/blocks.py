"""Elementwise and row by row computation in pieces that stay in the processor's cache: large temporaries cost more than arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.onnx.evaluate.computation import Array
    from actconform.oracle.rounding import F64

BLOCK = 1 << 14  # elements


def in_blocks(function: Callable[..., Array], *arrays: Array, dtype: Any = np.float64) -> Array:
    """Return function(*arrays) for a function that works elementwise on arrays that broadcast; an array of `dtype`."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    size = int(np.prod(shape, dtype=int))
    if size <= BLOCK:
        return np.asarray(function(*arrays), dtype)
    if all(array.size == 1 or (array.shape == shape and array.flags.c_contiguous) for array in arrays):
        flat = [array.reshape(-1) for array in arrays]
        return _along_first_axis(function, flat, np.empty(size, dtype), BLOCK).reshape(shape)
    aligned = [array.reshape((1,) * (len(shape) - array.ndim) + array.shape) for array in arrays]
    axis = next(i for i, length in enumerate(shape) if length > 1)
    turned = [np.moveaxis(array, axis, 0) for array in aligned]
    result = np.empty(shape, dtype)
    _along_first_axis(function, turned, np.moveaxis(result, axis, 0), max(1, BLOCK * shape[axis] // size))
    return result


def in_rows(function: Callable[..., F64], *matrices: F64, columns: int | None = None) -> F64:
    """Return function(*matrices) for a function of matrices of one shape that works on each row by itself.

    Its results have `columns`, or as many as the matrices.
    """
    length = matrices[0].shape[1]
    if matrices[0].size <= BLOCK:
        return function(*matrices)
    result = np.empty((len(matrices[0]), length if columns is None else columns))
    return _along_first_axis(function, list(matrices), result, max(1, BLOCK // length))


def _along_first_axis(function: Callable[..., Array], arrays: list[Array], result: Array, step: int) -> Array:
    for first in range(0, len(result), step):
        cut = slice(first, first + step)
        result[cut] = function(*(array if len(array) == 1 else array[cut] for array in arrays))
    return result


def any_in_blocks(test: Callable[[Array], bool], array: Array) -> bool:
    """Tell whether `test` holds of some piece of the array."""
    flat = array.reshape(-1)
    return any(test(flat[first : first + BLOCK]) for first in range(0, flat.size, BLOCK))
