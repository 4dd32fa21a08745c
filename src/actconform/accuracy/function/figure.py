"""A measurement as a figure of matplotlib: the error over the input, both signs, every binade as wide as another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.accuracy.function.measurement import FunctionMeasurement
    from actconform.types.dtypes import FloatFormat

    F64 = NDArray[np.float64]

LEAST = 2.0**-12  # of the limit: smaller errors, and none, are drawn here
TICKS = 4  # on each side of zero
NAMES = {"value": "values", "gradient": "gradients"}


def draw(measurement: FunctionMeasurement, ax: Any = None) -> Any:
    """Draw every element's error as a share of its limit, and return the Axes; raise ImportError without matplotlib.

    The x axis counts binades from the smallest number of the format, to the left for negative inputs. Where NaN or an infinity is
    wrong, a cross stands at the upper edge; inputs that are NaN or infinite have no place.
    """
    fmt = DTYPES[measurement.dtype]
    if ax is None:
        try:
            from matplotlib import pyplot as plt
        except ImportError as error:
            raise ImportError(
                "plot() needs matplotlib: pip install matplotlib; columns() gives what it draws as arrays"
            ) from error
        _, ax = plt.subplots(figsize=(9, 4))
    columns = measurement.columns()
    finite = np.isfinite(columns["input"])
    top = 2.0 * max(1.0, float(np.max(columns["share"], where=np.isfinite(columns["share"]), initial=1.0)))
    for aspect in measurement.aspects:
        chosen = finite & (columns["aspect"] == aspect.aspect)
        at, share = binades(columns["input"][chosen], fmt), columns["share"][chosen]
        is_finite = np.isfinite(share)
        points = ax.plot(at[is_finite], np.maximum(share[is_finite], LEAST), ",", label=NAMES[aspect.aspect])
        if not is_finite.all():
            ax.plot(at[~is_finite], np.full(np.count_nonzero(~is_finite), top), "x", color=points[0].get_color())
    ax.axhline(1.0, color="black", linewidth=1.0, label="limit")
    ax.set_yscale("log")
    ax.set_ylim(LEAST / 2.0, 1.5 * top)
    exponents = np.linspace(fmt.emin, fmt.emax, TICKS + 1)[1:].round().astype(int).tolist()
    ends = [float(binades(np.array([2.0**exponent]), fmt)[0]) for exponent in exponents]
    ax.set_xticks(
        [*(-end for end in reversed(ends)), 0.0, *ends],
        [
            *(f"$-2^{{{exponent}}}$" for exponent in reversed(exponents)),
            "0",
            *(f"$2^{{{exponent}}}$" for exponent in exponents),
        ],
    )
    ax.set_xlabel("x")
    ax.set_ylabel("|error| / limit")
    ax.set_title(f"{measurement.function} as {measurement.kernel} in {measurement.dtype}")
    ax.legend()
    return ax


def binades(x: F64, fmt: FloatFormat) -> F64:
    """Return where a finite number stands: binades above the smallest number of the format, at least 1, with its sign; 0 for zero."""
    with np.errstate(divide="ignore"):
        above = np.log2(np.abs(x)) - (fmt.emin - fmt.precision + 1) + 1.0
    return np.where(x == 0, 0.0, np.copysign(above, x))
