"""Products of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.suite.drawn.drawer import DIMS, FLOATS, MODERATE, Drawer, ValueRange
from actconform.suite.drawn.registry import drawn_operator

if TYPE_CHECKING:
    from actconform.suite.drawn.node import DrawnNode


def _inner(d: Drawer) -> int:
    return 0 if d.seldom(16) else 5_000 if d.seldom(24) else d.choice(DIMS)


def _factors(d: Drawer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of factors: vectors, matrices, and stacks of them that broadcast."""
    k = _inner(d)
    left, right = (d.choice(DIMS), k), (k, d.choice(DIMS))
    kind = d.choice(("matrices", "stacks", "left vector", "right vector", "vectors"))
    if kind == "stacks":
        stack = d.shape(low=1, high=2)
        stacks = [stack, d.broadcast(stack)]
        order = d.permutation(2)
        return (*stacks[order[0]], *left), (*stacks[order[1]], *right)
    return left[1:] if kind in ("left vector", "vectors") else left, right[
        :1
    ] if "right" in kind or kind == "vectors" else right


@drawn_operator("MatMul")
def _matmul(d: Drawer) -> DrawnNode:
    dtype = d.dtype((*FLOATS, "int32", "int64"))
    values = ValueRange(most=64) if dtype in FLOATS else ValueRange(most=9)
    left, right = _factors(d)
    return d.node([d.array(left, dtype, values), d.array(right, dtype, values)])


@drawn_operator("MatMulInteger")
def _matmul_integer(d: Drawer) -> DrawnNode:
    kinds = d.choice((("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8"), ("int8", "uint8")))
    left, right = _factors(d)
    zeros = [d.array((), kind) if d.flag() else None for kind in kinds]
    return d.node([d.array(left, kinds[0]), d.array(right, kinds[1]), *zeros])


@drawn_operator("Gemm")
def _gemm(d: Drawer) -> DrawnNode:
    dtype = d.dtype((*FLOATS, "int32", "int64"))
    values = MODERATE if dtype in FLOATS else ValueRange(most=9)
    m, k, n = d.choice(DIMS), _inner(d) or 1, d.choice(DIMS)
    flips = [d.choice((None, 0, 1)) for _ in range(2)]
    left, right = (k, m) if flips[0] else (m, k), (n, k) if flips[1] else (k, n)
    addend = d.array(d.choice(((n,), (m, n), (1, n), (m, 1), (1,), ())), dtype, values) if d.flag() else None
    scales = [d.number(-2.0, 2.0) if d.flag() and dtype in FLOATS else None for _ in range(2)]
    attributes = {"transA": flips[0], "transB": flips[1], "alpha": scales[0], "beta": scales[1]}
    return d.node([d.array(left, dtype, values), d.array(right, dtype, values), addend], attributes)


EQUATIONS = (
    ("ij,jk->ik", ((2, 3), (3, 4))),
    ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
    ("ij->ji", ((3, 4),)),
    ("ii->i", ((4, 4),)),
    ("ij->", ((3, 5),)),
    ("i,j->ij", ((3,), (4,))),
    ("...ij,...jk->...ik", ((2, 3, 4), (2, 4, 2))),
    ("bqhd,bkhd->bhqk", ((1, 3, 2, 4), (1, 5, 2, 4))),
    ("ij,jk", ((2, 3), (3, 2))),
)


@drawn_operator("Einsum")
def _einsum(d: Drawer) -> DrawnNode:
    equation, shapes = d.choice(EQUATIONS)
    dtype = d.dtype(FLOATS)
    return d.node([d.array(shape, dtype, MODERATE) for shape in shapes], {"equation": equation})


@drawn_operator("Det")
def _determinant(d: Drawer) -> DrawnNode:
    size = d.choice((2, 1, 3, 4))
    array = d.array(
        (*d.shape(high=2, empty=False), size, size),
        d.dtype(FLOATS),
        ValueRange(most=4, nan=False, infinite=False, tiny=False),
    )
    return d.node([(array + np.eye(size, dtype=array.dtype) * np.array(2, array.dtype)).astype(array.dtype)])
