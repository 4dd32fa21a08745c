"""Products of matrices and tensors: each factor's cotangent is the product of g with the other factors, transposed."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.grad.rules.registry import rule
from actconform.onnx.grad.rules.tensor_info import FIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Cotangents, Node


@rule("MatMul")
def matmul(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """MatMul, y = a w: da = g w^T and dw = a^T g, summed over the batch axes along which a factor was broadcast.

    A vector is a row on the left and a column on the right, as in numpy.matmul.
    """
    (a, w), (y,), (cotangent,) = node.inputs, node.outputs, g
    assert cotangent
    ranks = b.rank(a), b.rank(w)
    if ranks[0] > 2 and ranks[1] == 2:
        return _rows_by_matrix(b, node, cotangent)
    rows, columns = a, w
    if ranks[1] == 1:
        columns, cotangent = b.Unsqueeze(w, b.integers([1])), b.Unsqueeze(cotangent, b.integers([-1]))
    if ranks[0] == 1:
        rows, cotangent = b.Unsqueeze(a, b.integers([0])), b.Unsqueeze(cotangent, b.integers([-2]))
    da = b.MatMul(cotangent, _transposed(b, columns, max(ranks[1], 2))) if node.wants(0) else None
    dw = b.MatMul(_transposed(b, rows, max(ranks[0], 2)), cotangent) if node.wants(1) else None
    return [_over_batch(b, da, a, y, ranks[1]), _over_batch(b, dw, w, y, ranks[0])]


def _rows_by_matrix(b: GraphBuilder, node: Node, g: str) -> Cotangents:
    """MatMul of a batch and one matrix: all rows of the batch are rows of one matrix, and dw is one product."""
    a, w = node.inputs
    dw = None
    if node.wants(1):
        flat_a, flat_g = (b.Reshape(each, _rows(b, node, i)) for i, each in enumerate((a, g)))
        dw = b.MatMul(b.Transpose(flat_a, perm=[1, 0]), flat_g)
    return [b.MatMul(g, b.Transpose(w, perm=[1, 0])) if node.wants(0) else None, dw]


def _rows(b: GraphBuilder, node: Node, axis: int) -> str:
    """Return the shape (-1, size), with the size of the matrix along `axis`."""
    size = (b.shape(node.inputs[1]) or (None, None))[axis]
    if size is not None:
        return b.integers([-1, size])
    return b.Concat(b.integers([-1]), b.Gather(b.Shape(node.inputs[1]), b.integers([axis]), axis=0), axis=0)


def _transposed(b: GraphBuilder, x: str, rank: int) -> str:
    return b.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _over_batch(b: GraphBuilder, product: str | None, x: str, y: str, other_rank: int) -> str | None:
    """Return the product summed over the axes along which `x` was broadcast in `y`, in the shape of `x`.

    `other_rank` is the rank of the other factor. A vector meets every matrix of its batch; a matrix meets a vector but once.
    """
    if product is None or (other_rank == 1 and b.rank(x) > 1):
        return product
    if b.rank(x) == 1:
        return b.reshape_like(b.sum_over(product, range(other_rank - 2)), x)
    axes = b.broadcast_axes(x, y, but_last=2)
    if axes is None:
        return b.sum_to(product, x, product)
    return b.reshape_like(b.sum_over(product, axes), x) if axes else product


@rule("Gemm")
def gemm(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Gemm, y = alpha a' w' + beta c: da' = alpha g w'^T, dw' = alpha a'^T g, dc = beta g; ' transposes where transA, transB say so."""
    (y,), (cotangent,) = node.outputs, g
    a, w = node.inputs[:2]
    assert cotangent
    alpha, beta, turned_a, turned_w = (node.attributes[name] for name in ("alpha", "beta", "transA", "transB"))
    da = dw = dc = None
    if node.wants(0) and turned_a:
        da = b.Gemm(w, cotangent, alpha=alpha, transA=turned_w, transB=1)
    elif node.wants(0):
        da = b.Gemm(cotangent, w, alpha=alpha, transB=1 - turned_w)
    if node.wants(1) and turned_w:
        dw = b.Gemm(cotangent, a, alpha=alpha, transA=1, transB=turned_a)
    elif node.wants(1):
        dw = b.Gemm(a, cotangent, alpha=alpha, transA=1 - turned_a)
    if node.wants(2):
        dc = b.sum_to(cotangent if beta == 1 else b.Mul(cotangent, beta), node.inputs[2], y)
    return [da, dw, dc]


@rule("Einsum")
def einsum(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Einsum sums products over the letters that y lacks: each factor's cotangent is the Einsum of g and the others.

    A letter that stands in one factor alone was summed there: that cotangent repeats along it. Ellipses are letters as
    well; a factor is summed over those along which it was broadcast.
    """
    (cotangent,) = g
    assert cotangent
    written, result = _letters(b, node)
    terms = ["".join(dict.fromkeys(term)) for term in written]
    factors = [
        x if term == full else b.Einsum(x, equation=f"{full}->{term}")
        for x, full, term in zip(node.inputs, written, terms, strict=True)
    ]
    cotangents: list[str | None] = []
    for i, term in enumerate(terms):
        if not node.wants(i):
            cotangents.append(None)
            continue
        other_terms = [j for j in range(len(terms)) if j != i]
        letters = set(result).union(*(terms[j] for j in other_terms))
        spelled = "".join(letter for letter in term if letter in letters)
        equation = ",".join([result, *(terms[j] for j in other_terms)]) + "->" + spelled
        product = b.Einsum(cotangent, *(factors[j] for j in other_terms), equation=equation)
        lost = [axis for axis, letter in enumerate(term) if letter not in letters]
        x = factors[i]
        if lost:
            product = b.expand_like(b.Unsqueeze(product, b.integers(lost)), x)
        if term != written[i]:
            diagonal = b.Einsum(b.iota(node.inputs[i]), equation=f"{written[i]}->{term}")
            cotangents.append(b.scatter(node.inputs[i], diagonal, b.sum_to(product, x, product)))
        else:
            cotangents.append(product if _all_equal(b, node, terms, i) else b.sum_to(product, x, product))
    return cotangents


def _letters(b: GraphBuilder, node: Node) -> tuple[list[str], str]:
    """Return the terms of the equation and its result, with a letter in place of each axis of an ellipsis."""
    left, arrow, right = node.attributes["equation"].replace(" ", "").partition("->")
    terms = left.split(",")
    free = [letter for letter in string.ascii_letters if letter not in left]
    hidden = [b.rank(x) - len(term) + 3 if "..." in term else 0 for x, term in zip(node.inputs, terms, strict=True)]
    ellipsis = "".join(free[: max(hidden)])
    if not arrow:
        right = "..." + "".join(sorted(letter for letter in set(left) - set(".,") if left.count(letter) == 1))
    named = [term.replace("...", ellipsis[len(ellipsis) - n :]) for term, n in zip(terms, hidden, strict=True)]
    return named, right.replace("...", ellipsis)


def _all_equal(b: GraphBuilder, node: Node, terms: Sequence[str], i: int) -> bool:
    """Say whether factor `i` was broadcast along no letter: where it cannot be known the sum is decided at run time."""
    if "..." not in node.attributes["equation"]:
        return 1 not in (b.shape(node.inputs[i]) or ())
    sizes: dict[str, set[int | None]] = {}
    for x, term in zip(node.inputs, terms, strict=True):
        for letter, size in zip(term, b.shape(x) or (None,) * len(term), strict=True):
            sizes.setdefault(letter, set()).add(size)
    return all(len(sizes[letter]) == 1 and None not in sizes[letter] for letter in terms[i])


@rule("Det")
def determinant(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Det: dx is g times the cofactors, determinants of x without one row and column: right where x is singular too."""
    x, (cotangent,) = node.inputs[0], g
    assert cotangent
    size = (b.shape(x) or (None,))[-1]
    if size is None:
        raise node.refuse(f"the size of the matrices {x} must be known: {FIX}")
    batched = b.Unsqueeze(cotangent, b.integers([-2, -1]))
    if size == 1:
        return [batched]
    remaining = b.constant(np.array([[j for j in range(size) if j != i] for i in range(size)]))
    rows = b.Gather(x, remaining, axis=-2)  # (..., i, size - 1, size)
    minors = b.Gather(rows, remaining, axis=-1)  # (..., i, size - 1, j, size - 1)
    rank = b.rank(x) - 2
    by_pair = b.Transpose(minors, perm=[*range(rank), rank, rank + 2, rank + 1, rank + 3])
    signs = b.constant((-1.0) ** np.add.outer(np.arange(size), np.arange(size)))
    return [b.Mul(batched, b.Mul(signs, b.Det(by_pair)))]
