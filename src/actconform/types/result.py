"""What became of a case: its verdict, what was measured, what was found."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from actconform.types.finding import Finding  # noqa: TC001  msgspec reads annotations
from actconform.types.training import Claim  # noqa: TC001  as above


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


class Profile(msgspec.Struct, frozen=True):
    """The error over the input domain: `share[i]` is the worst in group `at[i]`, as a share of the limit (in units where that is 0).

    Group 0 is x = 0; group +-k holds +-x in [2**(first + width (k - 1)), 2**(first + width k)); the group after the format's
    largest binade is infinity. Elements of findings that have no magnitude (nan-lost, inf, flushes ...) are in none.
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


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """How a training went: the loss of each of the first steps, the mean loss of each epoch's steps, the validation loss after it.

    `measures` are what `claims` are about, by name; `epoch` is whose weights were kept, counted from 1, where training chose.
    `about` says what trained, on which data and how, `steps` how many steps an epoch has. `wrong_step` is the first step, from 1 on, that is
    beyond its bound or comes to no numbers; 0 where no step is.
    """

    first: tuple[float, ...]
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    measures: dict[str, float] = {}
    epoch: int = 0
    about: str = ""
    steps: int = 0
    claims: tuple[Claim, ...] = ()
    wrong_step: int = 0


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
    curve: Curve | None = None
    """Of a training."""
    seconds: float = 0.0
    timings: dict[str, float] = {}
