"""The vocabulary as data: what flows along the line, frozen, and importing nothing of ours."""

from __future__ import annotations

import math
import struct
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Bundle: TypeAlias = Mapping[str, NDArray[Any]]

INF = math.inf

Aspect = Literal["value", "gradient"]
Place: TypeAlias = tuple[str, str, str, tuple[str, str]]  # class, regime, tensor, interval of a finding
ASPECTS: tuple[Aspect, ...] = ("value", "gradient")

CONSTANTS = "@const"  # after an exporter's name in a route: parameters are constants of the graph
DRIVER_EXPORTER = "authored"  # the graphs that we write: no plugin's exporter bears this name


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
    """Inputs where other answers than the definition's limit are defensible, on every backend: shown, never a failure.

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
    defaults_only: bool = False

    def with_pieces(self) -> Kernel:
        """Return the kernel with the convention that at NaN its derivative is NaN or the slope of any of its pieces."""
        slopes = {*self.gradient_at_infinity, *(side for kink in self.kinks for side in (kink.left, kink.right))}
        answers = tuple(sorted(slope for slope in slopes if math.isfinite(slope)))
        at_nan = Convention("gradient", (math.nan,), DERIVATIVE_AT_NAN, answers)
        return msgspec.structs.replace(self, conventions=(*self.conventions, at_nan))

    def dims(self, name: str) -> tuple[str, ...]:
        """Return the dimensions of input `name`, all dynamic in a graph; those of one name are equal in one call.

        A unary kernel takes (n), a row kernel (b, n), or (b, n, m) where it works on axis 1; a further input is (n).
        """
        if self.form == "unary" or name != self.inputs[0]:
            return ("n",)
        return ("b", "n", "m") if self.axis == 1 else ("b", "n")


class Case(msgspec.Struct, frozen=True, order=True):
    """subject x aspect x dtype x route; `id` is safe in a shell, a file name and a URL."""

    subject: str
    aspect: Aspect
    dtype: str
    route: str

    @property
    def id(self) -> str:
        return f"{self.subject}/{self.aspect}/{self.dtype}/{self.route}"

    @property
    def backend(self) -> str:
        """What computes: the last part of the route."""
        return self.route.rsplit("+", 1)[-1]

    @property
    def worker(self) -> str:
        """The backend whose process does the case: `backend` without its variant. See also `Catalog.worker`."""
        return self.backend.partition("@")[0]

    @property
    def exporter(self) -> str | None:
        """What made the graph: the first part of the route without a variant, or None on a native one."""
        return self.route.rsplit("+", 1)[0].removesuffix(CONSTANTS) if "+" in self.route else None

    @property
    def constants(self) -> bool:
        """Whether the graph holds its parameters as initializers, as users export it."""
        return f"{CONSTANTS}+" in self.route


class Support(msgspec.Struct, frozen=True):
    """Whether a backend takes a case, and if not, why, in its own words."""

    yes: bool
    reason: str = ""


class Artifact(msgspec.Struct, frozen=True):
    """An exported graph: the bytes of a ModelProto, its opset, the path taken to it, and what the exporter warned of.

    Inputs bear the kernel's names, the output is "y". `ir_version` is 0 where nobody says.
    """

    model: bytes
    opset: int
    path: str
    warnings: tuple[str, ...] = ()
    ir_version: int = 0


class Verdict(StrEnum):
    """What became of a case. Never PASS for what did not run."""

    PASS = "PASS"  # noqa: S105  no password
    FAIL = "FAIL"
    XFAIL = "XFAIL"
    XPASS = "XPASS"
    UNSUPPORTED = "UNSUPPORTED"
    UNAVAILABLE = "UNAVAILABLE"
    CRASH = "CRASH"
    TIMEOUT = "TIMEOUT"
    ERROR = "ERROR"


RAN = (Verdict.PASS, Verdict.XFAIL, Verdict.FAIL, Verdict.XPASS)
BAD = (Verdict.FAIL, Verdict.XPASS, Verdict.CRASH, Verdict.TIMEOUT, Verdict.ERROR)


class Worst(msgspec.Struct, frozen=True):
    """The worst element of a finding; `index` is flat within the regime, numbers are as compared."""

    input_hex: str
    index: int
    truth: float
    got: float
    ulp: float
    scaled: float


class Finding(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """One classified way in which a measurement breaks its limit, over one interval of inputs.

    `magnitude` is what a cause's bound is held against: scaled error for scaled-error, kink and bias, ULP for
    tail and range, 0 for classes that are there or not. `severity` is "critical", "major", "minor" or "convention", as the
    table in severity.py has it; "" in reports of before there were any.
    """

    class_: str
    count: int
    regime: str
    tensor: str
    interval: tuple[str, str]
    worst: Worst | None
    magnitude: float
    deviation: str | None = None
    """The id of the registered cause that covers it, or "convention"."""
    blame: str = "undetermined"
    evidence: str = ""
    used: float = 0.0
    """How much of the cause's bound its worst element takes, from 0 to 1; 0 where the cause has none."""
    candidates: tuple[str, ...] = ()
    """Of a new finding the ids of causes of other routes that would explain every element: what `deviations adopt` writes."""
    severity: str = ""

    @property
    def place(self) -> Place:
        """What tells it from the other findings of its case."""
        return (self.class_, self.regime, self.tensor, self.interval)


class Profile(msgspec.Struct, frozen=True):
    """The error over the input domain: `share[i]` is the worst in group `at[i]`, as a share of the limit (in units where that is 0).

    Group 0 is x = 0; group +-k holds +-x in [2**(first + width (k - 1)), 2**(first + width k)); the group after the format's
    largest binade is infinity. Elements found to break a rule that has no magnitude (nan-lost, inf, flushes ...) are in none.
    """

    first: int
    width: int
    at: tuple[int, ...]
    share: tuple[float, ...]


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers from comparing one tensor in one regime with its golden; `margin` is limit / max(max_scaled, tiny).

    `unit` is what `max_scaled`, `bias` and `limit` are counted in: "ulp", "scaled" for u max(|f|, s, 2**emin), or "bound" for
    the bound that was computed from the data; "" where it is not known.

    Unary kernels have a `profile`.
    """

    tensor: str
    regime: str
    n: int
    max_ulp: float
    max_scaled: float
    bias: float
    limit: float
    margin: float
    histogram: tuple[int, ...]
    kinks: dict[str, str] = {}
    unit: Literal["", "ulp", "scaled", "bound"] = ""
    profile: Profile | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one case. Exactly one exists for every selected case.

    `findings` stand gravest first, new ones before known ones; `blame` is that of the first.
    """

    case: str
    subject: str
    aspect: str
    dtype: str
    route: str
    verdict: Verdict
    stage: str = "judge"
    reason: str = ""
    blame: str = ""
    implementation: str = ""
    placement: dict[str, tuple[str, ...]] = {}
    export: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    seconds: float = 0.0
    timings: dict[str, float] = {}
