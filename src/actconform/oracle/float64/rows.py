"""Float64 formulas of the row kernels: values and vector-Jacobian products, without cancellation where the result is small.

Rows run along `kernel.axis`; the other axes are batch. NaN anywhere in a row makes the whole row NaN, for values and for
gradients (maxout: the piece; the gated units: the elements that it enters). A row without a finite maximum is NaN for the
softmax family and for sparsemax; -inf beside a finite maximum is a masked entry: probability 0, log-probability -inf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from actconform.oracle.float64.registry import FORMULAS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from numpy.typing import NDArray

    from actconform.oracle.rounding import F64
    from actconform.types import Kernel

Value: TypeAlias = "Callable[[Mapping[str, F64], Kernel], NDArray[Any]]"
Vjp: TypeAlias = "Callable[[Mapping[str, F64], F64, Kernel], dict[str, F64]]"


class RowFormula(NamedTuple):
    """`value(inputs, kernel)` is y; `vjp(inputs, cotangent of y, kernel)` is {"d_x": ...}, None without a derivative."""

    value: Value
    vjp: Vjp | None


ROW_FORMULAS: dict[str, RowFormula] = {}


def row_formula(*names: str, vjp: Vjp | None = None) -> Callable[[Value], Value]:
    """Register the decorated value, and its `vjp`, as the truth of the kernels with these names.

    Raises ValueError where a name has a formula already.
    """

    def register(value: Value) -> Value:
        for name in names:
            if name in ROW_FORMULAS:
                message = f"row kernel {name} has a formula already: give the new one a name of its own"
                raise ValueError(message)
            ROW_FORMULAS[name] = RowFormula(value, vjp)
        return value

    return register


def first_maximum(x: F64, axis: int) -> NDArray[np.int64]:
    """Return the index of the first maximum along `axis`, that axis kept at length 1; a NaN counts as the maximum."""
    index: NDArray[np.int64] = np.expand_dims(np.argmax(x, axis=axis), axis)
    return index


def probabilities(x: F64, axis: int) -> F64:
    """Return exp(x - max) / sum exp(x - max); accurate to a few ULP plus one for each unit of max - x."""
    # inf - inf is NaN and spreads through the sum: rows without a finite maximum need no case of their own
    e: F64 = np.exp(x - np.max(x, axis=axis, keepdims=True))
    p: F64 = e / np.sum(e, axis=axis, keepdims=True)
    return p


def log_probabilities(x: F64, axis: int) -> F64:
    """Return (x - m) - log1p(the sum without one maximum m): relative accuracy even where a probability is nearly 1."""
    a = x - np.max(x, axis=axis, keepdims=True)
    e = np.exp(a)
    k = first_maximum(x, axis)
    # a row that is NaN must stay so, though its peak is taken out
    np.put_along_axis(e, k, 0.0 * np.take_along_axis(a, k, axis), axis)
    y: F64 = a - np.log1p(np.sum(e, axis=axis, keepdims=True))
    return y


def _softmax_vjp(inputs: Mapping[str, F64], g: F64, kernel: Kernel) -> dict[str, F64]:
    """p_i (g_i - sum_j p_j g_j), with g counted from its value at the peak: a saturated row loses no digits."""
    p = probabilities(inputs["x"], kernel.axis)
    d = g - np.take_along_axis(g, first_maximum(inputs["x"], kernel.axis), kernel.axis)
    return {"d_x": p * (d - np.sum(p * d, axis=kernel.axis, keepdims=True))}


@row_formula("softmax", "softmax-axis1", vjp=_softmax_vjp)
def _softmax(inputs: Mapping[str, F64], kernel: Kernel) -> F64:
    return probabilities(inputs["x"], kernel.axis)


def _softmin_vjp(inputs: Mapping[str, F64], g: F64, kernel: Kernel) -> dict[str, F64]:
    return {"d_x": -_softmax_vjp({"x": -inputs["x"]}, g, kernel)["d_x"]}


@row_formula("softmin", vjp=_softmin_vjp)
def _softmin(inputs: Mapping[str, F64], kernel: Kernel) -> F64:
    return probabilities(-inputs["x"], kernel.axis)


def _log_softmax_vjp(inputs: Mapping[str, F64], g: F64, kernel: Kernel) -> dict[str, F64]:
    """g_i - p_i sum_j g_j; at the peak k as g_k (1 - p_k) - p_k sum_{j != k} g_j, for p_k may be nearly 1."""
    axis = kernel.axis
    p = probabilities(inputs["x"], axis)
    k = first_maximum(inputs["x"], axis)
    others_p, others_g = p.copy(), g.copy()
    np.put_along_axis(others_p, k, 0.0, axis)
    np.put_along_axis(others_g, k, 0.0, axis)
    d = g - p * np.sum(g, axis=axis, keepdims=True)
    at_peak = np.take_along_axis(g, k, axis) * np.sum(others_p, axis=axis, keepdims=True)
    at_peak -= np.take_along_axis(p, k, axis) * np.sum(others_g, axis=axis, keepdims=True)
    np.put_along_axis(d, k, at_peak, axis)
    return {"d_x": d}


@row_formula("log-softmax", "log-softmax-axis1", vjp=_log_softmax_vjp)
def _log_softmax(inputs: Mapping[str, F64], kernel: Kernel) -> F64:
    return log_probabilities(inputs["x"], kernel.axis)


def project(x: F64, axis: int) -> tuple[F64, F64]:
    """Return sparsemax of `x`, and tau - max(x) with `axis` kept at length 1, both NaN in rows without a finite maximum.

    Sorted in descending order, the support is the k largest z with 1 + k z_k > z_1 + ... + z_k (Martins and Astudillo 2016).
    Absolute error: about k ULP of 1, k the size of the support.
    """
    top = np.max(x, axis=axis, keepdims=True)
    z = x - top
    # sorted in descending order a NaN comes first: it is in every sum, and so in tau
    ordered = np.flip(np.sort(np.moveaxis(z, axis, -1), axis=-1), axis=-1)
    sums = np.cumsum(ordered, axis=-1)
    inside = 1.0 + np.arange(1, ordered.shape[-1] + 1) * ordered > sums
    count = np.maximum(np.sum(inside, axis=-1, keepdims=True), 1)
    tau = np.moveaxis((np.take_along_axis(sums, count - 1, -1) - 1.0) / count, -1, axis)
    return np.maximum(z - tau, 0.0), tau


def _sparsemax_vjp(inputs: Mapping[str, F64], g: F64, kernel: Kernel) -> dict[str, F64]:
    """On the support, g less its mean there; else 0."""
    y, tau = project(inputs["x"], kernel.axis)
    s = y > 0.0
    count = np.maximum(np.sum(s, axis=kernel.axis, keepdims=True), 1)
    mean = np.sum(np.where(s, g, 0.0), axis=kernel.axis, keepdims=True) / count
    return {"d_x": np.where(np.isnan(tau), np.nan, np.where(s, g - mean, 0.0))}


@row_formula("sparsemax", vjp=_sparsemax_vjp)
def _sparsemax(inputs: Mapping[str, F64], kernel: Kernel) -> F64:
    return project(inputs["x"], kernel.axis)[0]


def pieces(x: F64, kernel: Kernel) -> F64:
    """Return `x` of width k n as (..., n, k): the k pieces of maxout's n units, side by side."""
    return x.reshape(*x.shape[:-1], -1, int(kernel.parameters["pieces"]))


def _split_over_ties(x: F64, g: F64, axis: int) -> F64:
    """Give `g` to the maximum along `axis`, in equal parts where several are equal to it."""
    top = np.max(x, axis=axis, keepdims=True)
    ties = x == top
    share = np.expand_dims(g, axis) / np.maximum(np.sum(ties, axis=axis, keepdims=True), 1)
    return np.where(np.isnan(top), np.nan, np.where(ties, share, 0.0))


def _max_vjp(inputs: Mapping[str, F64], g: F64, kernel: Kernel) -> dict[str, F64]:
    return {"d_x": _split_over_ties(inputs["x"], g, kernel.axis)}


@row_formula("max", vjp=_max_vjp)
def _max(inputs: Mapping[str, F64], kernel: Kernel) -> F64:
    top: F64 = np.max(inputs["x"], axis=kernel.axis)
    return top


def _maxout_vjp(inputs: Mapping[str, F64], g: F64, kernel: Kernel) -> dict[str, F64]:
    return {"d_x": _split_over_ties(pieces(inputs["x"], kernel), g, -1).reshape(inputs["x"].shape)}


@row_formula("maxout", vjp=_maxout_vjp)
def _maxout(inputs: Mapping[str, F64], kernel: Kernel) -> F64:
    top: F64 = np.max(pieces(inputs["x"], kernel), axis=-1)
    return top


@row_formula("argmax")
def _argmax(inputs: Mapping[str, F64], kernel: Kernel) -> NDArray[np.int64]:
    index: NDArray[np.int64] = np.argmax(inputs["x"], axis=kernel.axis).astype(np.int64)
    return index


@row_formula("hardmax")
def _hardmax(inputs: Mapping[str, F64], kernel: Kernel) -> F64:
    y = np.zeros_like(inputs["x"])
    np.put_along_axis(y, first_maximum(inputs["x"], kernel.axis), 1.0, kernel.axis)
    return y


def _prelu_vjp(inputs: Mapping[str, F64], g: F64, kernel: Kernel) -> dict[str, F64]:  # noqa: ARG001  every vjp takes it
    """d_x is g, times the slope where x <= 0; d_slope sums g x there, over all axes but the last."""
    x, slope = inputs["x"], inputs["slope"]
    d_x = np.where(x > 0.0, g, np.where(np.isnan(x), np.nan, slope * g))
    d_slope = np.sum(np.where(x > 0.0, 0.0, g * x), axis=tuple(range(x.ndim - 1)))
    return {"d_x": d_x, "d_slope": d_slope}


@row_formula("prelu", vjp=_prelu_vjp)
def _prelu(inputs: Mapping[str, F64], kernel: Kernel) -> F64:  # noqa: ARG001  every value takes it
    x = inputs["x"]
    return np.where(x > 0.0, x, inputs["slope"] * x)


class _Factor(NamedTuple):
    value: Callable[[F64], F64]
    derivative: Callable[[F64], F64]


def _kernel_factor(name: str) -> _Factor:
    return _Factor(lambda x: FORMULAS[name].value(x, {}), lambda x: FORMULAS[name].derivative(x, {}))


_IDENTITY = _Factor(lambda x: x, np.ones_like)
_RELU = _Factor(
    lambda x: np.where(np.isnan(x), x, np.where(x > 0.0, x, 0.0)),
    lambda x: np.where(np.isnan(x), x, np.where(x > 0.0, 1.0, 0.0)),
)


def _register_gated(name: str, first: _Factor, second: _Factor) -> None:
    """Register first(a) second(b), (a, b) the halves of the axis; infinities multiply as IEEE numbers do."""

    def vjp(inputs: Mapping[str, F64], g: F64, kernel: Kernel) -> dict[str, F64]:
        a, b = np.split(inputs["x"], 2, axis=kernel.axis)
        d_a = g * second.value(b) * first.derivative(a)
        d_b = g * first.value(a) * second.derivative(b)
        return {"d_x": np.concatenate([d_a, d_b], axis=kernel.axis)}

    @row_formula(name, vjp=vjp)
    def value(inputs: Mapping[str, F64], kernel: Kernel) -> F64:
        a, b = np.split(inputs["x"], 2, axis=kernel.axis)
        return first.value(a) * second.value(b)


_register_gated("glu", _IDENTITY, _kernel_factor("sigmoid"))
_register_gated("reglu", _RELU, _IDENTITY)
_register_gated("swiglu", _kernel_factor("silu"), _IDENTITY)
_register_gated("geglu", _kernel_factor("gelu-erf"), _IDENTITY)
