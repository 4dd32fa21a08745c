"""What a kernel is, as data: its definition, parameters, limits, kinks and conventions."""

from __future__ import annotations

import math
import struct
from typing import Literal, TypeAlias

import msgspec

INF = math.inf

Aspect: TypeAlias = Literal["value", "gradient", "training"]
ASPECTS: tuple[Aspect, ...] = ("value", "gradient")  # of kernels and models
TRAINING: Aspect = "training"  # of experiments, which have no other


def f32(value: float) -> float:
    """Return the float32 nearest to `value`: the parameter that every runtime receives."""
    single: float = struct.unpack("f", struct.pack("f", value))[0]
    return single


class Kink(msgspec.Struct, frozen=True):
    """A point where the derivative jumps; any value in [min(left, right), max(left, right)] is accepted there."""

    x: float
    left: float
    right: float


class Convention(msgspec.Struct, frozen=True):
    """Inputs where other results than the definition's limit are defensible, on every backend: shown, never a failure.

    `answers` are values, or slopes in a gradient; NaN among `inputs` or `answers` is meant. Where there are none, a difference at
    these inputs is only blamed on convention.
    """

    aspect: Aspect
    inputs: tuple[float, ...]
    why: str
    answers: tuple[float, ...] = ()


DERIVATIVE_AT_NAN = "no derivative is defined at NaN: a choice between pieces passes the slope of one of them"


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One activation function with its parameters; its formula, exact reference and graph are registered under its name.

    `form` is "unary" where each output element depends on one input element (then 16-bit inputs are exhaustive), else "row".
    `tier` is "exact" (at most `exact_ulp` ULP in f32, 1 in 16 bits when that is not 0) or "scaled".
    `scale` names the s of the scaled error |y-f| / (u max(|f|, s, 2**emin)): "one", or "input" for |x|;
    `gradient_scale` likewise, for max(1, |x|) or 1+|x|(1+0.134x^2). `gradient_roots` are where the derivative crosses zero.
    `range` leaves about 1 % beyond a minimum that is no number of every format, so that rounding is no breach.
    `at_infinity` holds the limits f(-inf), f(+inf); `gradient_at_infinity` those of the derivative. NaN in gives NaN out.
    `defaults_only` kernels call the framework's function without parameters: they show what its defaults are.
    """

    name: str
    definition: str
    source: str
    form: Literal["unary", "row"] = "unary"
    inputs: tuple[str, ...] = ("x",)
    parameters: dict[str, float] = {}
    axis: int = -1
    domain: str = "all reals"
    range: tuple[float, float] = (-INF, INF)
    tier: Literal["exact", "scaled"] = "scaled"
    exact_ulp: float = 0.0
    scale: Literal["one", "input"] = "one"
    gradient_scale: Literal["one-or-input", "gelu-tanh"] = "one-or-input"
    argument: Literal["", "x", "product", "square"] = ""
    """Of x times a factor that an exponential makes small: its argument is x, x times the one parameter, or x^2 / 2, as in erfc(x / sqrt 2)."""
    kinks: tuple[Kink, ...] = ()
    gradient_roots: tuple[float, ...] = ()
    at_infinity: tuple[float, float] = (math.nan, math.nan)
    gradient_at_infinity: tuple[float, float] = (math.nan, math.nan)
    zero_sign: str = "f(+-0) keeps the sign where f(0) = 0"
    signed_zero: bool = False
    """Whether the sign of its zeros belongs to the definition, as in odd functions; else it is a convention of every backend."""
    conventions: tuple[Convention, ...] = ()
    differentiable: bool = True
    output_dtype: Literal["same", "int64"] = "same"
    output_width: Literal["same", "half", "one"] = "same"
    """What a row of the input becomes: as long, half as long, or a single number."""
    defaults_only: bool = False

    def with_pieces(self) -> Kernel:
        """Return the kernel with the convention that at NaN its derivative is NaN or the slope of any of its pieces."""
        slopes = {*self.gradient_at_infinity, *(side for kink in self.kinks for side in (kink.left, kink.right))}
        answers = tuple(sorted(slope for slope in slopes if math.isfinite(slope)))
        at_nan = Convention("gradient", (math.nan,), DERIVATIVE_AT_NAN, answers)
        return msgspec.structs.replace(self, conventions=(*self.conventions, at_nan))

    def dims(self, name: str, rank: int | None = None) -> tuple[str, ...]:
        """Return the dimensions of input `name`, all dynamic in a graph; those of one name are equal in one call.

        A unary kernel takes (n), a row kernel (b, n), or (b, n, m) where it works on axis 1; a further input is (n). With `rank` the
        first input has that many axes.
        """
        if name != self.inputs[0]:
            return ("n",)
        if rank is None:
            return ("n",) if self.form == "unary" else ("b", "n", "m") if self.axis == 1 else ("b", "n")
        axes = [f"d{axis}" for axis in range(rank)]
        if self.form == "row":
            axes[self.axis] = "n"
        return tuple(axes)
