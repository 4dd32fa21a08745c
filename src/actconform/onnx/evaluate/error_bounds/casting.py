"""Error bounds of casts between element types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ml_dtypes import iinfo
from onnx import TensorProto

from actconform.onnx.evaluate.element_types import STORAGE, held
from actconform.onnx.evaluate.error_bounds.blocks import in_blocks
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, lost, moved_by_ends, rounded
from actconform.oracle.rounding import round_to

if TYPE_CHECKING:
    from actconform.onnx.evaluate.computation import Array


@error_bound("Cast", "CastLike")
def _cast(context: BoundContext, x: Approximation, *_: Approximation) -> Approximation:
    """Of a float the number truncated, or rounded once; of booleans 0 and 1; integers wrap; to a boolean, whether it is not 0.

    Floats that an integer type does not reach, NaN among them, become anything: C leaves that open.
    """
    target = context.output_types[0]
    if context.fmt is not None:
        return _to_floats(context, x)
    if target == TensorProto.BOOL:
        crosses = None if x.error is None else np.where(np.abs(x.value) <= x.error, np.inf, 0.0)
        return Approximation(x.value != 0, crosses)
    if target not in STORAGE:
        return x
    dtype = STORAGE[target]
    if not dtype.name.startswith(("int", "uint")):
        return _to_small_floats(context, x)
    if x.value.dtype.kind != "f":
        return Approximation(held(x.value, target), x.error)
    return _to_integers(x, dtype)


def _to_small_floats(context: BoundContext, x: Approximation) -> Approximation:
    """Floats of 8 bits and fewer are stored quantities, and a number becomes a certain one of them."""

    def cast(array: Array) -> Array:
        return held(np.asarray(context.compute([array])[0]), context.output_types[0]).astype(np.float64)

    value = cast(x.value)
    return Approximation(value, moved_by_ends(cast, x, value))


def _to_floats(context: BoundContext, x: Approximation) -> Approximation:
    """One rounding, none of what the format holds: an exact number in it must come out as it is."""
    fmt = context.float_format
    value = x.value.astype(np.float64, copy=False)
    if fmt.bits == 64:
        return Approximation(value, x.error)
    if x.error is not None:
        return Approximation(value, rounded(value, fmt, passed_on=x.error))
    error = in_blocks(lambda v: np.where(round_to(v, fmt) == v, 0.0, fmt.unit_roundoff * np.abs(v) + lost(fmt)), value)
    return Approximation(value, error if error.any() else None)


def _to_integers(x: Approximation, dtype: np.dtype[Any]) -> Approximation:
    limits = iinfo(dtype)  # type: ignore[no-untyped-call]
    truncated = np.trunc(x.value)
    # the upper limits of the widest types are no float64 numbers; their successors are
    reached = (truncated - errors(x) >= float(limits.min)) & (truncated + errors(x) < float(limits.max) + 1.0)
    value = np.where(reached, truncated, 0.0).astype(np.int64 if limits.min < 0 else np.uint64).astype(dtype)
    error = moved_by_ends(np.trunc, x, truncated)
    if reached.all():
        return Approximation(value, error)
    return Approximation(value, np.where(reached, 0.0 if error is None else error, np.inf))
