"""Error bounds of matrix products: sums of k products in any order, `sum_factor(k)` of |A| |B|.

|A| |B| is computed in float32, whose two or three right digits are enough, and enlarged by 1e-5 for them; in float64 where
it overflows there. What underflows there is less than a step of the format. Winograd's and Strassen's products are not covered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lu

from actconform.onnx.evaluate.error_bounds.blocks import in_blocks
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, lost, lost_in_sum
from actconform.tolerance.row_bounds import dot_factor
from actconform.tolerance.running_error import sum_factor

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.onnx.evaluate.computation import Array
    from actconform.oracle.rounding import F64
    from actconform.types.dtypes import FloatFormat

ENLARGED = 1.0 + 1e-5


def product_errors(
    multiply: Callable[..., Array], factors: tuple[Approximation, ...], terms: int, fmt: FloatFormat
) -> F64:
    """Return the error of sums of `terms` products of `factors`, which `multiply` computes, linear in each of them.

    `multiply` of sizes must give sums of sizes. One more rounding of the products in 16 bits, one for each factor beyond two.
    """
    reach = _of_sizes(multiply, [each.value for each in factors], fmt)
    unit = fmt.unit_roundoff
    factor = sum_factor(terms, fmt) + (unit if fmt.bits == 16 else 0.0) + (len(factors) - 2) * unit
    passed_on = None
    for i, each in enumerate(factors):
        if each.error is None:
            continue
        # earlier factors as large as they may be, later ones as they are: the differences of the products telescope
        sizes = [earlier.size for earlier in factors[:i]] + [errors(each)] + [x.value for x in factors[i + 1 :]]
        moved = _of_sizes(multiply, sizes, fmt)
        passed_on = moved if passed_on is None else passed_on + moved
    if passed_on is not None:
        reach = reach + passed_on
    error = reach * (factor * ENLARGED)
    error += lost_in_sum(terms, fmt)
    return error if passed_on is None else error + passed_on * ENLARGED


def _of_sizes(multiply: Callable[..., Array], factors: list[F64], fmt: FloatFormat) -> F64:
    """Return the product of the factors' sizes."""
    if fmt.bits <= 32:
        product = multiply(*(in_blocks(np.abs, each, dtype=np.float32) for each in factors))
        if np.all(np.isfinite(product)):
            return product.astype(np.float64)
    return np.asarray(multiply(*(np.abs(each) for each in factors)), np.float64)


@error_bound("MatMul")
def _matmul(context: BoundContext, a: Approximation, b: Approximation) -> Approximation:
    (value,) = context.values((a, b))
    if context.fmt is None:
        return Approximation(value, doubt_of_integers(np.matmul, a, b))
    return Approximation(value, product_errors(np.matmul, (a, b), a.value.shape[-1], context.fmt))


def doubt_of_integers(multiply: Callable[..., Array], a: Approximation, b: Approximation) -> F64 | None:
    """Return the error of a product of integers, which is exact but for what it gets."""
    if a.error is None and b.error is None:
        return None
    sizes = [np.abs(np.asarray(each.value, np.float64)) for each in (a, b)]
    return np.asarray(multiply(errors(a), sizes[1] + errors(b)) + multiply(sizes[0], errors(b)), np.float64)


@error_bound("Gemm")
def _gemm(context: BoundContext, a: Approximation, b: Approximation, c: Approximation | None = None) -> Approximation:
    """Of alpha A B + beta C, C one more term of the sums; each factor that is not 1 rounds, and 16 bits round it."""
    (value,) = context.values((a, b, c))
    attributes = context.node.attributes
    alpha, beta = abs(attributes["alpha"]), abs(attributes["beta"])

    def multiply(x: Array, y: Array) -> Array:
        product: Array = (x.T if attributes["transA"] else x) @ (y.T if attributes["transB"] else y)
        return product

    if context.fmt is None:
        doubt = doubt_of_integers(multiply, a, b)
        return Approximation(value, doubt if doubt is None else alpha * doubt)
    fmt = context.fmt
    terms = a.value.shape[0 if attributes["transA"] else 1] + (c is not None) + 2 * (alpha != 1 or beta != 1)
    error = product_errors(multiply, (a, b), terms, fmt)
    if alpha != 1:
        error *= alpha
        error += lost(fmt)
    if c is not None and beta:
        bias = beta * c.size
        error = error + sum_factor(terms, fmt) * bias + (0.0 if c.error is None else beta * c.error)
    return Approximation(value, error)


@error_bound("Einsum")
def _einsum(context: BoundContext, *inputs: Approximation) -> Approximation:
    """As many terms as there are places along the letters that are summed over, in whichever order operands are contracted."""
    (value,) = context.values(inputs)

    def multiply(*factors: Array) -> Array:
        return np.asarray(context.compute(factors)[0])

    if context.fmt is None:
        doubtful = any(each.error is not None for each in inputs)
        return Approximation(value, np.full(np.shape(value), np.inf) if doubtful else None)
    terms = _summed_places(context.node.attributes["equation"], [each.value for each in inputs])
    return Approximation(value, product_errors(multiply, inputs, terms, context.fmt))


def _summed_places(equation: str, operands: list[Array]) -> int:
    left, arrow, right = equation.replace(" ", "").partition("->")
    lengths: dict[str, int] = {}
    for labels, operand in zip(left.split(","), operands, strict=True):
        before, _, after = labels.partition("...")
        named = [*zip(before, operand.shape, strict=False)]
        named += zip(after[::-1], operand.shape[::-1], strict=False) if "..." in labels else []
        for label, length in named:
            lengths[label] = max(length, lengths.get(label, 1))
    stays = right if arrow else [label for label in lengths if left.count(label) == 1]
    return int(np.prod([length for label, length in lengths.items() if label not in stays], dtype=int))


@error_bound("Det")
def _determinant(context: BoundContext, x: Approximation) -> Approximation:
    """Of an elimination with pivots: that of a matrix off by gamma_n |L| |U| (Higham 2002, theorem 9.3), and the pivots' product.

    A determinant is linear in its rows, so it moves by no more than Hadamard's bound of what the rows' errors add.
    Pivots that rounding makes others where they are nearly equal are not in the account.
    """
    (value,) = context.values((x,))
    fmt, n = context.float_format, x.value.shape[-1]
    error = errors(x) + dot_factor(n, fmt.unit_roundoff) * _sizes_of_factors(x.value) + lost(fmt)
    rows = np.linalg.norm(x.value, axis=-1)
    moved = np.prod(rows + np.linalg.norm(error, axis=-1), axis=-1) - np.prod(rows, axis=-1)
    return Approximation(value, moved + n * fmt.unit_roundoff * (np.abs(value) + moved) + lost(fmt))


def _sizes_of_factors(matrices: F64) -> F64:
    """Return P |L| |U| of each matrix."""
    sizes = np.full_like(matrices, np.inf)
    for at in np.ndindex(matrices.shape[:-2]):
        if np.isfinite(matrices[at]).all():
            lower, upper = lu(matrices[at], permute_l=True)
            sizes[at] = np.abs(lower) @ np.abs(upper)
    return sizes
