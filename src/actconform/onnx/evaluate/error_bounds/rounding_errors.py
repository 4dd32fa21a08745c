"""What rules share: the error of a rounding, of a sum, of a function over the error of its input."""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.onnx.evaluate.error_bounds.blocks import in_blocks
from actconform.tolerance.row_bounds import CONFIDENCE, flushes
from actconform.tolerance.running_error import Bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.onnx.evaluate.computation import Array
    from actconform.onnx.evaluate.error_bounds.registry import Approximation
    from actconform.oracle.rounding import F64
    from actconform.types.dtypes import FloatFormat


def lost(fmt: FloatFormat) -> float:
    """Return what one rounding may lose below the normal range: all of it where hardware flushes, else one subnormal."""
    return fmt.smallest_normal if flushes(fmt) else fmt.smallest_subnormal


def lost_in_sum(terms: int, fmt: FloatFormat) -> float:
    """Return what a sum of products may lose below the normal range.

    All of every product where hardware flushes; else the roundings of products, half a subnormal number each and of mean
    zero, and one of the sum.
    """
    if flushes(fmt):
        return 2.0 * terms * fmt.smallest_normal
    return (0.5 * min(terms, CONFIDENCE * math.sqrt(terms)) + 1.0) * fmt.smallest_subnormal


def rounded(value: Array, fmt: FloatFormat, roundings: float = 1.0, passed_on: F64 | None = None) -> F64:
    """Return the error of `value` after that many roundings of it, in float64, given the error before."""
    unit, step = roundings * fmt.unit_roundoff, roundings * lost(fmt)
    if passed_on is None:
        return in_blocks(lambda v: np.abs(v) * unit + step, np.asarray(value))
    return in_blocks(lambda v, e: (np.abs(v) + e) * unit + (e + step), np.asarray(value), np.asarray(passed_on))


def errors(x: Approximation) -> F64:
    """Return the error of each element, in the shape of the value, 0 where there is none."""
    return np.broadcast_to(np.asarray(0.0 if x.error is None else x.error, np.float64), np.shape(x.value))


def as_bounded(x: Approximation, fmt: FloatFormat) -> Bounded:
    """Return a tensor for running error analysis."""
    return Bounded(np.asarray(x.value, np.float64), errors(x), fmt)


def moved_by_ends(function: Callable[[Any], Array], x: Approximation, y: Array) -> F64 | None:
    """Return how far a monotone function of each element moves from y over the error of its input; None where there is none."""
    if x.error is None:
        return None
    furthest: F64 = np.maximum(np.abs(function(x.value + x.error) - y), np.abs(function(x.value - x.error) - y))
    return furthest


def largest_error(inputs: Sequence[Approximation]) -> F64 | None:
    """Return the largest error of the inputs, broadcast; None where there is none. Of what chooses one of them."""
    present = [each.error for each in inputs if each.error is not None]
    return reduce(np.maximum, present) if present else None
