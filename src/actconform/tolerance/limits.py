"""The limits: which unit each element's error is counted in, and how many units are allowed. Stated once, for all kernels.

Tier exact: error in ULP, 0 or `exact_ulp` in f32 (1 in 16 bits where it is not 0). Tier scaled: |y-f| / (u max(|f|, s, 2**emin)),
at most 8 for f32 values, 16 for f32 gradients, 5 and 10 in 16 bits; where |f| < s/8 and away from roots also at most 8 ULP,
counted between numbers contracted by what hardware may flush, in f16 by nothing (tier tail), and more where roundings of an
argument weigh: see `Tolerance.tail_condition`. Rows: |y-f| / bound, at most 1, the bound computed from the data a priori.
The constants were chosen above what healthy kernels show (5.9 at most in f32) and far below what defects show (1e3 and more).
"""

from __future__ import annotations

from math import inf, log
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform.types import Aspect, Kernel, Kink
    from actconform.types.dtypes import FloatFormat

    F64 = NDArray[np.float64]

SCALED_LIMITS = {("value", 32): 8.0, ("gradient", 32): 16.0, ("value", 16): 5.0, ("gradient", 16): 10.0}
TAIL_LIMIT = 8.0
BIAS_LIMIT = 1.0
BIAS_POINTS = 256  # fewer points have no mean worth judging
ROOT_RADIUS = 0.3
# Over all numbers of a 16-bit format, against the nearest numbers: see comparison/nearest.py. Truncation has a bias of 0.5 and
# half of its results not nearest; of what computes in float32 and rounds once, fewer than 6 % are not, and no bias is seen.
NEAREST_SHARE_LIMIT = 0.1
GRADIENT_SHARE_LIMIT = (
    0.6  # products of several factors, each rounded, as the chain rule has them: up to 54 % in frameworks
)
NEAREST_BIAS_LIMIT = 0.4
OUTLIER_LIMIT = 2.0  # healthy kernels reach 1.5
END_ULP = 2.0**-10  # from the value that a function saturates at: nothing is left to round
BINADE_POINTS = 64  # of a binade: bfloat16 has 128

SUBNORMALS_KEPT = -100  # the exponent from which on no hardware flushes: float16's

SCALES: dict[str, Callable[[F64], F64]] = {
    "one": np.ones_like,
    "input": np.abs,
    "one-or-input": lambda x: np.maximum(1.0, np.abs(x)),
    "gelu-tanh": lambda x: 1.0 + np.abs(x) * (1.0 + 0.134 * x * x),
}


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """How one tensor is judged.

    The unit of error is u max(|f|, s, 2**emin) with the s that `scale` names; without a scale it is the ULP where `exact`,
    else the bound given with the sample. `at_zero` is the truth at x = 0, which a flushed subnormal input may give.
    """

    fmt: FloatFormat
    limit: float
    scale: str | None = None
    exact: bool = False
    unary: bool = True
    tail_limit: float = TAIL_LIMIT
    roots: tuple[float, ...] = ()
    kinks: tuple[Kink, ...] = ()
    range: tuple[float, float] = (-inf, inf)
    at_zero: float = 0.0
    zero_sign: bool = False
    bias_limit: float = inf
    argument: str = ""
    argument_factor: float = 1.0

    @property
    def tail(self) -> bool:
        """Whether relative accuracy counts where the function is small."""
        return self.scale is not None

    def scales(self, x: F64) -> F64:
        """Return s(x), a new array; 1 at an infinity, where results are limits and nothing is rounded."""
        scales = SCALES[self.scale or "one"](x)
        scales[np.isinf(x)] = 1.0
        return scales

    def tail_condition(self, x: F64) -> F64:
        """Return by what the tail's limit grows at x: what roundings of an exponential's argument do to it.

        A relative error of d in z is one of |z| d in exp(z), and of 2 t^2 d in erfc(t). A product is rounded once: |z| u, at
        most |z| ULP beside the limit of 8. x / sqrt 2 is rounded as a product and has a rounded constant: 2 x^2 u. No z counts
        beyond which exp(-z) is 0.
        """
        if self.fmt.bits == 16:  # where arguments are float32's
            return np.ones(x.shape)
        if self.argument == "product":
            return 1.0 + np.minimum(np.abs(self.argument_factor * x), self._deepest) / self.tail_limit
        if self.argument == "square":
            return 1.0 + 4.0 * np.minimum(x * x / 2.0, self._deepest) / self.tail_limit
        return np.ones(x.shape)

    def tail_lost(self, x: F64) -> F64:
        """Return the absolute error of a product of x where its other factor falls below the normal range and may be flushed."""
        if not self.argument or self.fmt.emin >= SUBNORMALS_KEPT:
            return np.zeros(x.shape)
        return np.minimum(np.abs(x), self._deepest) * self.fmt.smallest_normal

    @property
    def _deepest(self) -> float:
        return -log(self.fmt.smallest_subnormal)

    def near_root(self, x: F64) -> NDArray[np.bool_]:
        """Tell where relative error means nothing because the derivative crosses zero."""
        near = np.zeros(x.shape, bool)
        for root in self.roots:
            near |= np.abs(x - root) < ROOT_RADIUS
        return near


def unary_tolerance(kernel: Kernel, aspect: Aspect, fmt: FloatFormat, at_zero: float) -> Tolerance:
    """Return the tolerance of a unary kernel in a format; `at_zero` is the truth at x = 0."""
    value = aspect == "value"
    exact = kernel.tier == "exact"
    return Tolerance(
        fmt=fmt,
        limit=_exact_limit(kernel, fmt) if exact else SCALED_LIMITS[aspect, fmt.bits],
        scale=None if exact else kernel.scale if value else kernel.gradient_scale,
        exact=exact,
        roots=() if value else kernel.gradient_roots,
        kinks=() if value else kernel.kinks,
        range=kernel.range if value else (-inf, inf),
        at_zero=at_zero,
        zero_sign=value,
        bias_limit=inf if exact else BIAS_LIMIT,
        argument=kernel.argument,
        argument_factor=next(iter(kernel.parameters.values()), 1.0),
    )


def row_tolerance(kernel: Kernel, aspect: Aspect, fmt: FloatFormat) -> Tolerance:
    """Return the tolerance of a row kernel in a format: ULP for exact ones, else units of the a-priori bound."""
    exact = kernel.tier == "exact"
    return Tolerance(
        fmt=fmt,
        limit=_exact_limit(kernel, fmt) if exact else 1.0,
        exact=exact,
        unary=False,
        range=kernel.range if aspect == "value" else (-inf, inf),
    )


def _exact_limit(kernel: Kernel, fmt: FloatFormat) -> float:
    return 1.0 if kernel.exact_ulp and fmt.bits == 16 else kernel.exact_ulp
