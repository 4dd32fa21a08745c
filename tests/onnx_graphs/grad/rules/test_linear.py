"""Gradients of MatMul, Gemm and Einsum against torch's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actconform.errors import UnsupportedOperator
from actconform.onnx.grad.reverse_mode import add_gradients

torch = pytest.importorskip("torch")

RANKS = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((1, 6, 2, 3), (5, 1, 3, 4)),
    ((1, 2, 1), (5, 1, 1)),
    ((6, 5, 2, 3), (1, 1, 3, 1)),
]


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize("free", [(), (0,), (0, 1, 2, 3)], ids=["static", "batch", "all"])
@pytest.mark.parametrize(("a", "w"), RANKS, ids=str)
def test_matmul_of_all_ranks(agrees, a, w, free):
    agrees("MatMul", [normal(*a), normal(*w)], torch.matmul, free={0: free, 1: free})


@settings(max_examples=40, deadline=None)
@given(
    turned=st.tuples(st.booleans(), st.booleans()),
    alpha=st.sampled_from([1.0, 0.5, -1.5]),
    beta=st.sampled_from([1.0, 0.25, -2.0]),
    bias=st.sampled_from([None, (), (1,), (4,), (1, 4), (2, 1), (2, 4)]),
    free=st.sampled_from([(), (0, 1)]),
)
def test_gemm(agrees, turned, alpha, beta, bias, free):
    a, w = normal(3, 2) if turned[0] else normal(2, 3), normal(4, 3) if turned[1] else normal(3, 4)

    def gemm(a, w, *c):
        product = alpha * (a.T if turned[0] else a) @ (w.T if turned[1] else w)
        return product + beta * c[0] if c else product

    inputs = [a, w] if bias is None else [a, w, normal(*bias)]
    attributes = {"alpha": alpha, "beta": beta, "transA": int(turned[0]), "transB": int(turned[1])}
    agrees("Gemm", inputs, gemm, free={0: free}, **attributes)


EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 2, 5)),
    ("ij->ji", (2, 3)),
    ("ij->i", (2, 3)),
    ("ij->", (2, 3)),
    ("i,i->", (3,), (3,)),
    ("i,j", (3,), (4,)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ijk,jl->il", (2, 3, 4), (3, 5)),
    ("i,ij,jk->k", (2,), (2, 3), (3, 4)),
    ("...ij,...jk->...ik", (5, 2, 3), (3, 4)),
    ("...ij,...jk->...ik", (5, 1, 2, 3), (4, 3, 2)),
    ("...i,...i", (4, 2), (4, 2)),
    ("...ij->...", (4, 2, 3)),
]


@pytest.mark.parametrize(("equation", "shapes"), [(first, rest) for first, *rest in EQUATIONS], ids=str)
def test_einsum(agrees, equation, shapes):
    runs = (
        "," not in equation or "..." not in equation or shapes[0][:-2] == shapes[1][:-2]
    )  # ONNX Runtime has no broadcast
    inputs = [normal(*shape) for shape in shapes]
    agrees("Einsum", inputs, lambda *x: torch.einsum(equation, *x), runs=runs, equation=equation)


DIAGONALS = [
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("iii->i", (3, 3, 3)),
    ("bii,ij->bj", (2, 3, 3), (3, 4)),
    ("iij,jkk->ik", (3, 3, 2), (2, 4, 4)),
    ("ii,ii->i", (3, 3), (3, 3)),
    ("...ii->...i", (2, 3, 3)),
]


@pytest.mark.parametrize(("equation", "shapes"), [(first, rest) for first, *rest in DIAGONALS], ids=str)
def test_a_diagonal_of_einsum(agrees, equation, shapes):
    agrees("Einsum", [normal(*shape) for shape in shapes], lambda *x: torch.einsum(equation, *x), equation=equation)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_determinant(agrees, size):
    agrees("Det", [normal(2, size, size)], torch.linalg.det, free={0: (0,)})


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_determinant_of_a_singular_matrix(agrees, rank):
    def forward(x):  # by Leibniz' formula, of which torch's gradient is right where there is no inverse
        a, b, c = x
        return (a * torch.linalg.cross(b, c)).sum()

    agrees("Det", [normal(3, rank) @ normal(rank, 3)], forward)


def test_determinant_of_a_size_that_is_not_known_is_refused(graph_of):
    model = graph_of("Det", [normal(3, 3)], [0], free={0: (0, 1)})
    with pytest.raises(UnsupportedOperator, match=r"Det .*size of the matrices.*--shape"):
        add_gradients(model, ["x0"])
