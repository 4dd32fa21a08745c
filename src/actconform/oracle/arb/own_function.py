"""A function of the user's own, defined in Arb's balls: its values and derivatives proven like those of the kernels.

At each input the precision is raised until both ends of the ball round to one number; where none up to LAST_BITS decides, there is
no truth. Nothing is guessed: at an infinity the definition is evaluated there, and at NaN only NaN is taken from it.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from actconform.errors import UsageError
from actconform.oracle.arb.correctly_rounded import nearest
from actconform.oracle.arb.flint import python_flint

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    F64 = NDArray[np.float64]
    Definition: TypeAlias = "Callable[[Any], Any]"

LAST_BITS = 1 << 12  # at 65,536 points of a definition that has no number there, more would take minutes
MOST_NANS = 3  # of a ball that holds a pole Arb knows nothing, until it has shrunk; of what is not defined, ever
NO_NUMBER = (ArithmeticError, ValueError)  # what a definition may raise where it is not defined
_PRECISION = threading.RLock()  # the precision of python-flint is one of the process


class OwnTruth(NamedTuple):
    """The truth at each input, correctly rounded to binary64, and whether it is decided there; NaN where it is not."""

    values: F64
    decided: NDArray[np.bool_]


def own_values(definition: Definition, points: F64) -> OwnTruth:
    """Return the truth of a definition at `points`, one dimension of binary64 numbers of any kind.

    A result that rounds to zero has no sign: it is +0. Raises UsageError without python-flint, and where the definition returns what is no real number.
    """
    try:
        python_flint()
    except ImportError as error:
        raise UsageError(f"truth= is computed with python-flint: {error}") from error
    values, decided = np.full(points.shape, np.nan), np.zeros(points.shape, np.bool_)
    with _PRECISION:
        for place, point in enumerate(points.tolist()):
            value = _at_nan(definition) if math.isnan(point) else _nearest(definition, point)
            if value is not None:
                values[place], decided[place] = value, True
    return OwnTruth(values, decided)


def derivative_by_series(definition: Definition) -> Definition:
    """Return f' of a definition f, from Arb's power series f(x + t) = f(x) + f'(x) t.

    It raises UsageError where the definition cannot be applied to a series: series have no branches, no abs and no tanh.
    """

    def derivative(x: Any) -> Any:
        from flint import arb, arb_series

        try:
            series = definition(arb_series([x, 1], prec=2))
        except (TypeError, AttributeError) as error:
            raise UsageError(
                f"truth= cannot be differentiated by itself ({error}): give its derivative as truth_gradient="
            ) from error
        return series[1] if isinstance(series, arb_series) else arb(0)  # a constant

    return derivative


def _nearest(definition: Definition, point: float) -> float | None:
    nans = 0

    def value(x: Any) -> Any:
        nonlocal nans
        result = _real(definition(x))
        nans += math.isnan(result) if isinstance(result, float) else result.is_nan()
        if nans == MOST_NANS:
            raise ArithmeticError("no number")
        return result

    try:
        return nearest(value, point, _without_sign_of_zero, LAST_BITS)
    except NO_NUMBER:
        return None
    except UsageError:
        raise
    except Exception as error:
        error.add_note(f"actconform.measure: raised by truth= at x = {point!r}")
        raise


def _without_sign_of_zero(end: Any) -> float:
    """Return the binary64 number nearest to an exact arb; a ball around a result that vanishes reaches to both sides of zero."""
    return float(end) + 0.0


def _at_nan(definition: Definition) -> float | None:
    """Return NaN where the definition hands a NaN on; else None: what a choice between pieces makes of it is no truth."""
    from flint import arb

    try:
        value = _real(definition(arb("nan")))
    except (*NO_NUMBER, TypeError):
        return None
    return math.nan if (value.is_nan() if isinstance(value, arb) else math.isnan(value)) else None


def _real(value: Any) -> Any:
    from flint import acb, arb

    if isinstance(value, acb):
        if not value.imag.contains(0):
            raise ArithmeticError(f"{value} is not real")
        return value.real
    if isinstance(value, arb):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"truth= returned {type(value).__name__}: wanted a flint.arb, as from lambda x: x.erf()")
    return float(value) + 0.0
