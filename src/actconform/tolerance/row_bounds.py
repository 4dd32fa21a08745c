"""What rounding may do to a row, before anything has run: the absolute error allowed for each element, from the data alone.

u is the unit roundoff of the tensor's format, in which every intermediate result may have been rounded. E = 4 ULP is the
error of exp in f32, and 2 in 16 bits, where it is a wider exp rounded once or twice. A sum of n terms errs by S u of its
absolute terms: in f32 S = `dot_factor` / u, for whatever order of summation; in 16 bits S = 1 + log2(n), right for a
pairwise sum or a wider accumulator (one running sum in 16 bits stagnates, and breaks the bound, as it should).
`step` is what may be lost below the normal range: all of it in f32 and bf16, where hardware flushes, and one subnormal in
f16, where it does not. Derivations stand at the functions. Where the truth is not finite the bound is 0: infinities and NaN
are matched, not measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.oracle.float64.rows import pieces, probabilities, project
from actconform.tolerance.limits import SCALED_LIMITS, SUBNORMALS_KEPT
from actconform.tolerance.ulp import ulp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from actconform.oracle.rounding import F64
    from actconform.types import Kernel
    from actconform.types.dtypes import FloatFormat

EXP_ULP = {64: 4.0, 32: 4.0, 16: 2.0}
# lambda of the probabilistic bound for dot products: it fails once in 1e7 (2 exp(-lambda^2 / 2) for each element)
CONFIDENCE = 6.0


class _Case(NamedTuple):
    kernel: Kernel
    fmt: FloatFormat
    inputs: Mapping[str, F64]
    g: F64 | None
    truth: Mapping[str, F64]

    @property
    def x(self) -> F64:
        return self.inputs["x"]

    @property
    def u(self) -> float:
        return self.fmt.unit_roundoff

    @property
    def step(self) -> float:
        return self.fmt.smallest_normal if flushes(self.fmt) else self.fmt.smallest_subnormal


def row_bound(
    kernel: Kernel, fmt: FloatFormat, inputs: Mapping[str, F64], cotangent: F64 | None, truth: Mapping[str, F64]
) -> dict[str, F64]:
    """Return the allowed absolute error of each element of each tensor in `truth`, in its shape, finite and not negative.

    `inputs`, `cotangent` (None for values) and `truth` are float64 and hold what the format's own tensors hold. 0 where the
    output must be exact, and where the truth is not finite. At ties of a maximum and at x = 0 of prelu and reglu the bound
    of a gradient reaches every convention. Raises LookupError for a scaled kernel without a bound.
    """
    case = _Case(kernel, fmt, inputs, cotangent, truth)
    bound = _BOUNDS.get(kernel.name, _exact if kernel.tier == "exact" else None)
    if bound is None:
        message = f"row kernel {kernel.name} has no error bound: add one to actconform.tolerance.row_bounds"
        raise LookupError(message)
    with np.errstate(all="ignore"):
        return {name: np.where(np.isfinite(truth[name]), limit, 0.0) for name, limit in bound(case).items()}


def flushes(fmt: FloatFormat) -> bool:
    """Tell whether hardware may take subnormal numbers of the format for zero: not f16, whose conversions keep them."""
    return fmt.emin < SUBNORMALS_KEPT


def dot_factor(k: int, u: float) -> float:
    """Return the error of a dot product of length k in units of sum |a_i b_i|, in whatever order it is summed.

    The smaller of gamma_k = k u / (1 - k u), which always holds, and exp(6 sqrt(k) u + k u^2 / (1 - u)) - 1, which rounding
    errors of mean zero break less than once in 1e7 (Higham and Mary 2019).
    """
    certain = k * u / (1.0 - k * u) if k * u < 1.0 else np.inf
    likely = np.expm1(CONFIDENCE * np.sqrt(k) * u + k * u * u / (1.0 - u))
    return float(min(certain, likely))


def _sum_factor(n: int, fmt: FloatFormat) -> float:
    """Return S: the error of a sum of n terms in units of u times the sum of their absolute values."""
    return dot_factor(n, fmt.unit_roundoff) / fmt.unit_roundoff if fmt.bits > 16 else 1.0 + float(np.log2(n))


def _softmax_errors(case: _Case, x: F64) -> tuple[F64, F64]:
    """Return p = softmax(x) and the error that an implementation may have made of it.

    With a_i = m - x_i rounded twice, by the subtraction and in a fast exp, e_i = exp(-a_i) is off by u (2 a_i + 2 E) of itself,
    the sum by the p-weighted mean of that and S u, the quotient by u: together p_i (exp(u (2 a_i + 2 sum_j p_j a_j + 4 E + S +
    1)) - 1), and a step for each of e_i and p_i. Masked entries are exact.
    """
    axis = case.kernel.axis
    p = probabilities(x, axis)
    a = np.where(p > 0.0, np.max(x, axis=axis, keepdims=True) - x, 0.0)
    spread = np.sum(p * a, axis=axis, keepdims=True)
    s = _sum_factor(x.shape[axis], case.fmt)
    relative = case.u * (2.0 * (a + spread) + 4.0 * EXP_ULP[case.fmt.bits] + s + 1.0)
    return p, np.where(np.isneginf(x), 0.0, p * np.expm1(relative) + 2.0 * case.step)


def _softmax(case: _Case) -> dict[str, F64]:
    """Of p_i (g_i - D), D = sum_j p_j g_j: the error of p twice, of the sum, and two roundings of terms of size |g_i| + |D|."""
    x = -case.x if case.kernel.name == "softmin" else case.x
    p, error = _softmax_errors(case, x)
    if case.g is None:
        return {"y": error}
    axis, size = case.kernel.axis, np.abs(case.g)
    mean = np.sum(p * case.g, axis=axis, keepdims=True)
    mean_error = np.sum(error * size + case.step, axis=axis, keepdims=True)
    mean_error += (_sum_factor(x.shape[axis], case.fmt) + 2.0) * case.u * np.sum(p * size, axis=axis, keepdims=True)
    rounding = 2.0 * case.u * p * (size + np.abs(mean)) + case.step
    return {"d_x": error * np.abs(case.g - mean) + (p + error) * mean_error + rounding}


def _log_softmax(case: _Case) -> dict[str, F64]:
    """Of y_i = -a_i - lse: u (2 a_i + 2 |y_i| + 2 sum_j p_j a_j + 2 E + S + 2 lse), absolute; of x_i - (m + lse) u |m + lse| too.

    Of g_i - p_i G, G = sum_j g_j, with p_i = exp(y_i): the error of y_i and of another exp in p_i, the sum's, and twice two
    roundings.
    """
    x, u, axis = case.x, case.u, case.kernel.axis
    e = EXP_ULP[case.fmt.bits]
    s = _sum_factor(x.shape[axis], case.fmt)
    p = probabilities(x, axis)
    a = np.where(np.isneginf(x), 0.0, np.max(x, axis=axis, keepdims=True) - x)
    lse = np.log(np.sum(np.exp(-a), axis=axis, keepdims=True, where=~np.isneginf(x)))
    spread = np.sum(np.where(p > 0.0, p * a, 0.0), axis=axis, keepdims=True)
    size = np.abs(np.max(x, axis=axis, keepdims=True) + lse)
    y_error = u * (2.0 * (a + np.abs(a + lse) + spread + e + lse) + s + size) + case.step
    if case.g is None:
        return {"y": y_error}
    total = np.abs(np.sum(case.g, axis=axis, keepdims=True))
    # beyond an error of 1 no digit of p_i is left
    p_error = np.where(p > 0.0, p * np.expm1(np.minimum(y_error + (2.0 * e + 1.0) * u, 1.0)), 0.0) + case.step
    sum_error = (s + 1.0) * u * np.sum(np.abs(case.g), axis=axis, keepdims=True)
    rounding = 2.0 * u * (p * total + np.abs(case.truth["d_x"])) + case.step
    return {"d_x": p_error * total + (p + p_error) * sum_error + rounding}


def _sparsemax(case: _Case) -> dict[str, F64]:
    """Of max(0, x_i - tau): tau = (the sum of the k in the support - 1) / k, of size M = max(|max x|, |tau|) unless shifted.

    Its running sum errs by sqrt(k) u k M, and so does the test for membership; over k, with the roundings of the four other
    operations, tau is off by u M (2 sqrt k + 4), but by no more than 1/4: where that is passed one has to shift. What lies
    further below tau is 0 without error. Of the gradient g_i - mean: the sum's error and two roundings; where an entry lies so
    near to tau that rounding decides whether it is in the support, either of its terms, and in part the mean, may come or go.
    """
    x, axis = case.x, case.kernel.axis
    y, relative_tau = project(x, axis)
    top = np.max(x, axis=axis, keepdims=True)
    tau = relative_tau + top
    inside = y > 0.0
    k = np.maximum(np.sum(inside, axis=axis, keepdims=True), 1)
    size = np.maximum(np.abs(top), np.abs(tau))
    tau_error = np.minimum(case.u * size * (2.0 * np.sqrt(k) + 4.0), 0.25) + case.step
    distance = (x - top) - relative_tau
    if case.g is None:
        return {"y": np.where(distance < -tau_error, 0.0, tau_error + case.u * y)}
    near = np.abs(distance) <= tau_error
    either = inside | near
    largest = np.max(np.where(either, np.abs(case.g), 0.0), axis=axis, keepdims=True)
    undecided = np.where(np.any(near, axis=axis, keepdims=True), 3.0 * largest, 0.0)
    mean_size = np.sum(np.where(inside, np.abs(case.g), 0.0), axis=axis, keepdims=True) / k
    rounding = case.u * ((np.sqrt(k) + 2.0) * mean_size + 2.0 * (np.abs(case.g) + mean_size)) + case.step
    return {"d_x": np.where(either, undecided + rounding, 0.0)}


def _maximum(case: _Case) -> dict[str, F64]:
    """Values are selected, without error. Of g / t at each of t ties, anything from 0 to g; g elsewhere, without error."""
    if case.g is None:
        return {"y": np.zeros_like(case.truth["y"])}
    maxout = case.kernel.name == "maxout"
    x, axis = (pieces(case.x, case.kernel), -1) if maxout else (case.x, case.kernel.axis)
    if flushes(case.fmt):
        x = np.where(_near_zero(case, x), 0.0, x)
    ties = x == np.max(x, axis=axis, keepdims=True)
    count = np.maximum(np.sum(ties, axis=axis, keepdims=True), 1)
    # from g / t the far end is g, at g (1 - 1/t); splitting in 3 rounds
    reach = np.abs(np.expand_dims(case.g, axis)) * (1.0 - 1.0 / count + np.where(count > 1, case.u, 0.0))
    return {"d_x": np.where(ties, reach, 0.0).reshape(case.x.shape)}


def _near_zero(case: _Case, x: F64) -> NDArray[np.bool_]:
    """Tell where an implementation may take x for zero."""
    return np.abs(x) < case.fmt.smallest_normal if flushes(case.fmt) else x == 0.0


def _exact(case: _Case) -> dict[str, F64]:
    """The kernel's ULP of the result: `exact_ulp` in f32, 1 in 16 bits unless it is 0."""
    ulp = 1.0 if case.kernel.exact_ulp and case.fmt.bits == 16 else case.kernel.exact_ulp
    return {
        name: ulp * ulp_of(np.atleast_1d(truth).astype(np.float64), case.fmt).reshape(np.shape(truth))
        for name, truth in case.truth.items()
    }


def _prelu(case: _Case) -> dict[str, F64]:
    """One product where x <= 0, either side's gradient at 0; d_slope is a dot product of the length of the batch."""
    x = case.x
    bound = {name: np.where(x > 0.0, 0.0, limit) for name, limit in _exact(case).items() if name != "d_slope"}
    if case.g is None:
        return bound
    bound["d_x"] += np.where(_near_zero(case, x), np.abs(case.g * (1.0 - case.inputs["slope"])), 0.0)
    batch = tuple(range(x.ndim - 1))
    terms = np.sum(np.where(x > 0.0, 0.0, np.abs(case.g * x)), axis=batch)
    k = int(np.prod(x.shape[:-1]))
    bound["d_slope"] = dot_factor(k, case.u) * terms + case.u * np.abs(case.truth["d_slope"]) + k * case.step
    return bound


def _reglu(case: _Case) -> dict[str, F64]:
    """One product; at a = 0 the gradient of relu may be 0 or 1."""
    bound = _exact(case)
    if case.g is not None:
        a, b = np.split(case.x, 2, axis=case.kernel.axis)
        kink = np.where(_near_zero(case, a), np.abs(case.g * b), 0.0)
        bound["d_x"] += np.concatenate([kink, np.zeros_like(kink)], axis=case.kernel.axis)
    return bound


def _gated(case: _Case) -> dict[str, F64]:
    """The scaled limits of unary kernels, in units of u max(|y|, s), s the product of the factors' scales.

    A factor a or b counts |.|, sigmoid(b) 1, silu(a) and gelu(a) |a|, a derivative at x max(1, |x|), the cotangent |g|. A
    factor that falls below the normal range loses `step`, times the largest of the others.
    """
    a, b = np.split(case.x, 2, axis=case.kernel.axis)
    size_a, size_b = np.abs(a), np.abs(b)
    glu = case.kernel.name == "glu"
    if case.g is None:
        scales = {"y": size_a if glu else size_a * size_b}
        limit, g = SCALED_LIMITS["value", case.fmt.bits], np.ones_like(a)
    else:
        limit, g = SCALED_LIMITS["gradient", case.fmt.bits], np.abs(case.g)
        scale_a = g if glu else g * size_b * np.maximum(1.0, size_a)
        scale_b = g * size_a * np.maximum(1.0, size_b) if glu else g * size_a
        scales = {"d_x": np.concatenate([scale_a, scale_b], axis=case.kernel.axis)}
    ((name, scale),) = scales.items()
    largest_factor = np.maximum(np.maximum(size_a, size_b), np.maximum(1.0, g))
    if case.g is not None:
        largest_factor = np.concatenate([largest_factor, largest_factor], axis=case.kernel.axis)
    scale, largest_factor = (np.where(np.isfinite(v), v, 1.0) for v in (scale, largest_factor))
    return {name: limit * case.u * np.maximum(np.abs(case.truth[name]), scale) + 2.0 * case.step * largest_factor}


_BOUNDS: dict[str, Callable[[_Case], dict[str, F64]]] = {
    **dict.fromkeys(("softmax", "softmax-axis1", "softmin"), _softmax),
    **dict.fromkeys(("log-softmax", "log-softmax-axis1"), _log_softmax),
    **dict.fromkeys(("max", "maxout"), _maximum),
    **dict.fromkeys(("glu", "swiglu", "geglu"), _gated),
    "sparsemax": _sparsemax,
    "prelu": _prelu,
    "reglu": _reglu,
}
