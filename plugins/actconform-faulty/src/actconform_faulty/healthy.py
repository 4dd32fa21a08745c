"""Healthy but unusual: kernels computed otherwise than frameworks do, as accurately; nobody may accuse them."""
# ruff: noqa: D103  one function a way to compute; what it is stands in its registration

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Program
from actconform_faulty.injected import healthy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform import Kernel
    from actconform.oracle.float64.registry import KernelFormula
    from actconform.types import Bundle

    Array = NDArray[Any]
    Sum = Callable[[Array], Array]

ONE = np.float32(1)
# scipy, and what needs it, is slow to import, and every worker imports this module.


def _formula(kernel: str) -> KernelFormula:
    from actconform.oracle.float64.registry import FORMULAS

    return FORMULAS[kernel]


class Computing(Program):
    """A kernel of x alone, by two functions of arrays: its value, and its slope or what pulls a cotangent back."""

    def __init__(self, value: Callable[[Array], Array], pull: Callable[[Array, Array], Array]) -> None:
        self._value, self._pull = value, pull
        self.implementation = "actconform_faulty.healthy"

    def forward(self, inputs: Bundle) -> Bundle:
        x = inputs["x"]
        with np.errstate(all="ignore"):
            return {"y": np.asarray(self._value(x)).astype(x.dtype)}

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        x = inputs["x"]
        with np.errstate(all="ignore"):
            return {"d_x": np.asarray(self._pull(x, cotangents["y"])).astype(x.dtype)}


def by_slope(slope: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    """Return what multiplies a cotangent by the slope at x, in float64."""
    return lambda x, g: slope(x).astype(np.float64) * g.astype(np.float64)


def computes(
    name: str,
    words: str,
    *cases: str,
    value: Callable[[Array], Array] = lambda x: x,
    pull: Callable[[Array, Array], Array] = lambda _, g: g,
) -> None:
    """Register a way to compute a kernel."""
    healthy("torch", name, words, *cases)(lambda _, __: Computing(value, pull))


@healthy(
    "torch", "in-float64", "all in float64, rounded once",
    "gelu-erf/value/f32", "gelu-erf/gradient/f32", "mish/gradient/f32", "selu/value/f32", "softplus/value/f32",
)  # fmt: skip
@healthy("torch", "bf16-in-float64", "bfloat16 in float64, rounded once", "gelu-erf/value/bf16", "mish/gradient/bf16")
@healthy("torch", "f16-in-float64", "float16 in float64, rounded once", "gelu-erf/value/f16", "silu/gradient/f16")
def in_float64(_: Program, kernel: Kernel) -> Program:
    formula = _formula(kernel.name)
    return Computing(
        lambda x: formula.value(x.astype(np.float64), kernel.parameters),
        by_slope(lambda x: formula.derivative(x.astype(np.float64), kernel.parameters)),
    )


def flushed(array: Array) -> Array:
    small = np.abs(array) < np.finfo(np.float32).tiny
    return np.where(small, np.copysign(np.float32(0), array), array).astype(np.float32)


@healthy(
    "flushing", "in-float64", "numbers below the smallest normal one are taken and given as 0, as the facts say",
    "silu/value/f32", "gelu-erf/gradient/f32", "relu/value/f32", "sigmoid/gradient/f32", "leaky-relu/value/f32",
)  # fmt: skip
def flushing(_: Program, kernel: Kernel) -> Program:
    formula = _formula(kernel.name)

    def pull(x: Array, g: Array) -> Array:
        slope = formula.derivative(flushed(x).astype(np.float64), kernel.parameters)
        return flushed((slope * flushed(g)).astype(np.float32))

    return Computing(
        lambda x: flushed(formula.value(flushed(x).astype(np.float64), kernel.parameters).astype(np.float32)), pull
    )


@healthy("torch", "bf16-in-float32", "bfloat16 in float32, rounded once", "sigmoid/value/bf16", "tanh/value/bf16")
@healthy("torch", "f16-in-float32", "float16 in float32, rounded once", "sigmoid/value/f16", "tanh/value/f16")
def in_float32(_: Program, kernel: Kernel) -> Program:
    from scipy import special

    formula = {"sigmoid": special.expit, "tanh": np.tanh}[kernel.name]
    return Computing(lambda x: formula(x.astype(np.float32)), lambda _, g: g)


def erfc(x: Array) -> Array:
    from scipy import special

    result: Array = special.erfc(x)
    return result


def gelu_by_erfc(x: Array) -> Array:
    half = np.float32(0.5) * erfc(-x * np.float32(np.sqrt(0.5)))
    return np.where(np.isneginf(x), np.float32(-0.0), x * half)


def slope_of_gelu(x: Array) -> Array:
    density = np.exp(np.float32(-0.5) * x * x) * np.float32(1 / np.sqrt(2 * np.pi))
    slope = np.float32(0.5) * erfc(-x * np.float32(np.sqrt(0.5))) + x * density
    return np.where(np.isinf(x), (x > 0).astype(np.float32), slope)


computes(
    "gelu-by-erfc", "x/2 erfc(-x / sqrt 2), all in float32", "gelu-erf/value/f32", "gelu-erf/gradient/f32",
    value=gelu_by_erfc, pull=lambda x, g: slope_of_gelu(x) * g,
)  # fmt: skip


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(np.isnan(x), x, np.where(x >= 0, ONE, e) / (ONE + e))


computes(
    "softplus-by-log1p", "max(x, 0) + log1p(exp(-|x|))", "softplus/value/f32", "softplus/gradient/f32",
    value=lambda x: np.maximum(x, np.float32(0)) + np.log1p(np.exp(-np.abs(x))), pull=lambda x, g: sigmoid(x) * g,
)  # fmt: skip
computes(
    "log-sigmoid-by-log1p", "min(x, 0) - log1p(exp(-|x|))", "log-sigmoid/value/f32",
    value=lambda x: np.minimum(x, np.float32(0)) - np.log1p(np.exp(-np.abs(x))),
)  # fmt: skip
computes(
    "sigmoid-by-tanh", "1/2 + tanh(x/2)/2 where that loses nothing, exp(x) / (1 + exp(x)) below", "sigmoid/value/f32",
    value=lambda x: np.where(x < -1, sigmoid(x), np.float32(0.5) + np.float32(0.5) * np.tanh(x / np.float32(2))),
)  # fmt: skip


def tanh_by_expm1(x: Array) -> Array:
    e = np.expm1(-2 * np.abs(x))
    return np.copysign(np.where(np.isnan(x), x, -e / (e + 2)), x)


computes("tanh-by-expm1", "-expm1(-2|x|) / (2 + expm1(-2|x|)), of x's sign", "tanh/value/f32", value=tanh_by_expm1)


computes("swish-by-quotient", "x / (1 + exp(-x))", "silu/value/f32", value=lambda x: np.where(np.isneginf(x), np.float32(-0.0), x / (ONE + np.exp(-x))))  # fmt: skip
computes(
    "elu-by-expm1", "max(x, 0) + expm1(min(x, 0))", "elu/value/f32",
    value=lambda x: np.maximum(x, np.float32(0)) + np.expm1(np.minimum(x, np.float32(0))),
)  # fmt: skip


def in_threads(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return the function, computed in parts of 1000 by four threads that are started once."""
    pool = ThreadPoolExecutor(4)

    def compute(x: Array) -> Array:
        parts = pool.map(function, [x[start : start + 1000] for start in range(0, len(x), 1000)])
        return np.concatenate([*parts, x[:0]])

    return compute


@healthy("torch", "four-threads", "in parts of 1000 elements, by four threads", "softsign/value/f32")
def four_threads(_: Program, __: object) -> Program:
    return Computing(in_threads(lambda x: np.where(np.isinf(x), np.sign(x), x / (ONE + np.abs(x)))), lambda _, g: g)


def reversed_sum(terms: Array) -> Array:
    return running_sum(terms[..., ::-1])


def running_sum(terms: Array) -> Array:
    return np.cumsum(terms, axis=-1, dtype=terms.dtype)[..., -1:]


def permuted_sum(terms: Array) -> Array:
    order = np.random.default_rng(0).permutation(terms.shape[-1])
    return running_sum(terms[..., order])


def pairwise_sum(terms: Array) -> Array:
    while terms.shape[-1] > 1:
        odd = terms[..., 2 * (terms.shape[-1] // 2) :]
        terms = np.concatenate([terms[..., :-1:2] + terms[..., 1::2], odd], axis=-1)
    return terms


def split_sum(terms: Array, ways: int = 4) -> Array:
    return running_sum(
        np.concatenate([running_sum(terms[..., k::ways]) for k in range(min(ways, terms.shape[-1]))], -1)
    )


def kahan_sum(terms: Array) -> Array:
    total, lost = np.zeros_like(terms[..., :1]), np.zeros_like(terms[..., :1])
    for k in range(terms.shape[-1]):
        term = terms[..., k : k + 1] - lost
        wider = total + term
        lost, total = (wider - total) - term, wider
    return total


def softmax(x: Array, add: Sum, top: Array | None = None) -> Array:
    """Return the softmax over the last axis, its sum by `add`; a row without a finite number is NaN."""
    e = np.exp(x - (x.max(axis=-1, keepdims=True) if top is None else top))
    return e / add(e)


def softmax_pulled(x: Array, g: Array, add: Sum) -> Array:
    p = softmax(x, add)
    return p * (g - add(p * g))


for name, words, add in (
    ("sums-reversed", "sums from the last term to the first", reversed_sum),
    ("sums-running", "sums one term after another", running_sum),
    ("sums-permuted", "sums in an order that looks random, and is fixed", permuted_sum),
    ("sums-pairwise", "sums of pairs of pairs", pairwise_sum),
    ("sums-split", "sums in four strides, added last", split_sum),
    ("sums-compensated", "sums by Kahan", kahan_sum),
):
    computes(
        f"softmax-{name}", words, "softmax/value/f32", "softmax/gradient/f32",
        value=partial(softmax, add=add), pull=partial(softmax_pulled, add=add),
    )  # fmt: skip


def online_softmax(x: Array) -> Array:
    """Keep a maximum and a sum as the row is read in blocks, as flash attention does."""
    top = np.full_like(x[..., :1], -np.inf)
    total = np.zeros_like(top)
    for start in range(0, x.shape[-1], 16):
        block = x[..., start : start + 16]
        higher = np.maximum(top, block.max(axis=-1, keepdims=True))
        shrunk = np.where(np.isneginf(higher), ONE, np.exp(top - higher))
        terms = np.where(np.isneginf(block) & np.isneginf(higher), np.float32(0), np.exp(block - higher))
        total, top = total * shrunk + running_sum(terms), higher
    return np.exp(x - top) / total


computes("softmax-online", "a maximum and a sum, block by block", "softmax/value/f32", value=online_softmax)
computes(
    "softmax-by-reciprocal", "exponentials times the reciprocal of their sum", "softmax/value/f32",
    value=lambda x: (e := np.exp(x - x.max(axis=-1, keepdims=True))) * (ONE / pairwise_sum(e)),
)  # fmt: skip


def log_sum_exp(x: Array) -> Array:
    top = x.max(axis=-1, keepdims=True)
    return top + np.log(np.exp(x - top).sum(axis=-1, keepdims=True))


computes(
    "log-softmax-by-difference", "x - logsumexp(x)", "log-softmax/value/f32", "log-softmax/gradient/f32",
    value=lambda x: x - log_sum_exp(x),
    pull=lambda x, g: g - np.exp(x - log_sum_exp(x)) * g.sum(axis=-1, keepdims=True),
)  # fmt: skip
