"""Error bounds of sums of products: matrix products and convolutions, summed in any order.

The bound is `dot_factor` of the number of terms, the bias one of them, times |A||B|, the same sums of absolute values
(Higham 2002, section 3.1). |A||B| is summed in float32 where its range allows: two digits of a bound are enough.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.evaluate.error_bounds.registry import Approximation
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors
from actconform.tolerance.row_bounds import CONFIDENCE, flushes
from actconform.tolerance.running_error import sum_factor

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.onnx.evaluate.computation import Array
    from actconform.oracle.rounding import F64
    from actconform.types.dtypes import FloatFormat

    Product = Callable[[Array, Array], Array]


def sums_of_products(
    fmt: FloatFormat,
    value: Array,
    product: Product,
    factors: tuple[Approximation, Approximation],
    terms: int,
    bias: Approximation | None = None,
) -> Approximation:
    """Return `value`, sums of `terms` products of the elements of two factors, with its error.

    `product` computes the sums from two arrays, without the bias; `value` has the bias in it, which broadcasts over it.
    """
    dtype, slack = _dtype_of_sizes(fmt, factors, terms)
    sizes = tuple(each.size.astype(dtype) for each in factors)
    reach = product(*sizes).astype(np.float64) * slack
    error = _passed_on(product, factors, sizes, slack)
    if bias is not None:
        terms += 1
        reach += bias.size
        if bias.error is not None:
            error = bias.error if error is None else error + bias.error
    product_rounding = fmt.unit_roundoff if fmt.bits == 16 else 0.0
    touched = (reach > 0.0) | (value != 0.0)
    rounding = (sum_factor(terms, fmt) + product_rounding) * reach + np.where(touched, lost_in_sum(terms, fmt), 0.0)
    return Approximation(value, rounding if error is None else rounding + error)


def sums_of_integers(value: Array, product: Product, factors: tuple[Approximation, Approximation]) -> Approximation:
    """Return `value`, sums of products of integers less their zero points: exact, but for what the factors' errors pass on."""
    sizes = tuple(np.asarray(each.size, np.float64) for each in factors)
    return Approximation(value, _passed_on(product, factors, sizes, 1.0))


def _passed_on(
    product: Product, factors: tuple[Approximation, Approximation], sizes: tuple[Array, ...], slack: float
) -> F64 | None:
    """Return e_A (|B| + e_B) + |A| e_B; None where the factors have no errors."""
    a, b = factors
    if a.error is None and b.error is None:
        return None
    passed_on = np.zeros(())
    if a.error is not None:
        passed_on = passed_on + product(errors(a).astype(sizes[0].dtype), sizes[1])
    if b.error is not None:
        passed_on = passed_on + product(sizes[0], errors(b).astype(sizes[1].dtype))
    return passed_on * slack


def _dtype_of_sizes(
    fmt: FloatFormat, factors: tuple[Approximation, Approximation], terms: int
) -> tuple[type[np.floating], float]:
    """Return the dtype for sums of absolute values, and a factor no smaller than the error of these sums.

    float64 where float32 might overflow, or underflow by more than `lost_in_sum`.
    """
    largest = float(terms)
    for each in factors:
        largest *= float(np.max(each.size, initial=0.0))
    if fmt.bits > 32 or not 1e-25 < largest < 1e37:
        return np.float64, 1.0 + 1e-5
    return np.float32, 1.0 + 1e-5 + terms * 2.0**-24


def lost_in_sum(terms: int, fmt: FloatFormat) -> float:
    """Return what a sum of products may lose below the normal range.

    All of every product where hardware flushes; else their roundings, half a subnormal number each and of mean zero, and one
    of the sum.
    """
    if flushes(fmt):
        return 2.0 * terms * fmt.smallest_normal
    return (0.5 * min(terms, CONFIDENCE * math.sqrt(terms)) + 1.0) * fmt.smallest_subnormal
