"""What was measured of a function: its errors element by element, the findings that a run would have, and what to look at first."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from actconform.accuracy.function.element_errors import ElementErrors, correctly_rounded, element_errors
from actconform.elements.elementwise import HISTOGRAM_BINS
from actconform.tolerance.ulp import to_hex
from actconform.types.dtypes import from_hex
from actconform.verdict.severity import severity_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.elements.elementwise import Sample
    from actconform.tolerance.limits import Tolerance
    from actconform.types import Aspect, Finding, Measurement

REPEATED = "special"  # a regime whose few inputs stand in arrays of many lengths: it counts in no mean


class UlpBin(NamedTuple):
    """How many elements, `n`, have an error |got - truth| of `low` <= ULP < `high`; the first bin, of no error, has both 0."""

    low: float
    high: float
    n: int


class WorstInput(NamedTuple):
    """The input at which an output is worst: of a row kernel the element's own, or the largest of its row."""

    aspect: Aspect
    tensor: str
    regime: str
    input_hex: str
    """The bit pattern of the input in the format."""
    input: float
    got: float
    truth: float
    ulp: float
    """|got - truth| in ULP of the truth."""
    share: float
    """The error as a multiple of the limit; infinite where the limit is 0 or NaN was made or lost."""


class AspectMeasurement(msgspec.Struct, frozen=True, kw_only=True, eq=False, dict=True):
    """The values of a function, or its gradients, held against the truth. Made by `measure`."""

    aspect: Aspect
    findings: tuple[Finding, ...]
    """As a run has them, gravest first; `deviation` is "convention" where both answers are defensible."""
    measurements: tuple[Measurement, ...]
    """The numbers of each tensor in each regime, as in report.json."""
    not_judged: str = ""
    """At which inputs there is no truth, in words; "" where all are judged."""
    samples: dict[tuple[str, str], Sample] = {}
    """The judged elements by (regime, tensor)."""
    tolerance: Tolerance

    @property
    def conforms(self) -> bool:
        """Whether nothing was found that is not a convention."""
        return all(finding.deviation is not None for finding in self.findings)

    @cached_property
    def errors(self) -> dict[tuple[str, str], ElementErrors]:
        """The errors of `samples`."""
        return {place: element_errors(sample, self.tolerance) for place, sample in self.samples.items()}

    @property
    def n(self) -> int:
        """How many elements count in the means: those of all regimes but the repeated special inputs."""
        return sum(self.samples[place].x.size for place in self._counting)

    @cached_property
    def max_ulp(self) -> float:
        """The largest error in ULP where output and truth are both finite."""
        numbers = (
            self.errors[place].ulp[np.isfinite(sample.truth) & np.isfinite(_wide(sample.got))]
            for place, sample in self.samples.items()
        )
        return max((float(ulp.max(initial=0.0)) for ulp in numbers), default=0.0)

    @cached_property
    def correctly_rounded(self) -> float:
        """The share of outputs that are the number nearest to the truth, from 0 to 1; NaN where nothing is judged."""
        right = [correctly_rounded(self.samples[place], self.tolerance) for place in self._counting]
        return float(np.concatenate(right).mean()) if self.n else np.nan

    @cached_property
    def bias(self) -> float:
        """The mean signed error, in the unit of `measurements`, over the elements within their limit."""
        within = [self.errors[place].signed[self.errors[place].share <= 1.0] for place in self._counting]
        numbers = np.concatenate([np.empty(0), *within])
        numbers = numbers[np.isfinite(numbers)]  # equal NaNs have no sign
        return float(numbers.mean()) if numbers.size else 0.0

    @property
    def histogram(self) -> tuple[UlpBin, ...]:
        """The elements by their error in ULP: exact, below 2**-8, then by powers of two; the last bin has no end."""
        counts = np.zeros(HISTOGRAM_BINS, np.int64)
        for measurement in self.measurements:
            if (measurement.regime, measurement.tensor) in self._counting:
                counts += measurement.histogram
        edges = [0.0, 0.0, *(2.0**exponent for exponent in range(-8, HISTOGRAM_BINS - 10)), np.inf]
        return tuple(
            UlpBin(low, high, int(count)) for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        )

    @property
    def worst(self) -> WorstInput | None:
        """The worst input of the gravest new finding that has one, else the one nearest to its limit; None where nothing is judged."""
        new = (finding for finding in self.findings if finding.worst is not None and finding.deviation is None)
        finding = next(new, None)
        if finding is not None and finding.worst is not None:
            place = (finding.regime, finding.tensor)
            return self._at(place, finding.worst.index)
        nearest = [
            (float(np.where(errors.share <= 1.0, errors.share, -1.0).max()), place)
            for place, errors in self.errors.items()
            if errors.share.size
        ]
        if not nearest:
            return None
        place = max(nearest)[1]
        share = self.errors[place].share
        return self._at(place, int(np.argmax(np.where(share <= 1.0, share, -1.0))))

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return one row an element, as arrays by name: aspect, tensor, regime, input, cotangent, got, truth, ulp, share."""
        parts: dict[str, list[NDArray[Any]]] = {}
        for (regime, tensor), sample in self.samples.items():
            n, errors = sample.x.size, self.errors[regime, tensor]
            part = {
                "aspect": np.full(n, self.aspect),
                "tensor": np.full(n, tensor),
                "regime": np.full(n, regime),
                "input": sample.x,
                "cotangent": np.full(n, np.nan) if sample.cotangent is None else sample.cotangent,
                "got": _wide(sample.got),
                "truth": sample.truth,
                "ulp": errors.ulp,
                "share": errors.share,
            }
            for name, array in part.items():
                parts.setdefault(name, []).append(array)
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    @cached_property
    def _counting(self) -> tuple[tuple[str, str], ...]:
        places = tuple(place for place, sample in self.samples.items() if sample.x.size)
        return tuple(place for place in places if place[0] != REPEATED) or places

    def _at(self, place: tuple[str, str], element: int) -> WorstInput:
        sample, errors = self.samples[place], self.errors[place]
        pattern = to_hex(float(sample.x[element]), self.tolerance.fmt)
        return WorstInput(
            aspect=self.aspect,
            tensor=place[1],
            regime=place[0],
            input_hex=pattern,
            input=from_hex(pattern, self.tolerance.fmt),
            got=float(_wide(sample.got)[element]),
            truth=float(sample.truth[element]),
            ulp=float(errors.ulp[element]),
            share=float(errors.share[element]),
        )


class FunctionMeasurement(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The accuracy of one function in one format. Made by `actconform.measure`.

    `max_ulp`, `correctly_rounded`, `bias` and `histogram` are those of the values; those of the gradients stand in `gradient`.
    """

    function: str
    """What the function is called."""
    kernel: str
    definition: str
    parameters: dict[str, float]
    """Of the kernel: the numbers that the function has to compute with."""
    dtype: str
    """One of f32, f16 and bf16."""
    value: AspectMeasurement
    gradient: AspectMeasurement | None = None
    """None where no gradient= was given."""

    @property
    def aspects(self) -> tuple[AspectMeasurement, ...]:
        """The values, and the gradients where they were measured."""
        return (self.value,) if self.gradient is None else (self.value, self.gradient)

    @property
    def conforms(self) -> bool:
        """Whether neither values nor gradients have a finding that is not a convention."""
        return all(aspect.conforms for aspect in self.aspects)

    def __bool__(self) -> bool:
        return self.conforms

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of values and gradients, gravest first; the `tensor` of a gradient is "d_" and its input."""
        return tuple(sorted((f for aspect in self.aspects for f in aspect.findings), key=severity_order))

    @property
    def worst(self) -> WorstInput | None:
        """The worst input of all: of what does not conform, else the one nearest to its limit."""
        failing = [aspect for aspect in self.aspects if not aspect.conforms]
        candidates = [worst for aspect in failing or self.aspects if (worst := aspect.worst) is not None]
        return max(candidates, key=lambda worst: worst.share, default=None)

    @property
    def not_judged(self) -> str:
        """At which inputs an own `truth=` decides nothing, in words; "" where all are judged."""
        return "; ".join(dict.fromkeys(aspect.not_judged for aspect in self.aspects if aspect.not_judged))

    @property
    def max_ulp(self) -> float:
        return self.value.max_ulp

    @property
    def correctly_rounded(self) -> float:
        return self.value.correctly_rounded

    @property
    def bias(self) -> float:
        return self.value.bias

    @property
    def histogram(self) -> tuple[UlpBin, ...]:
        return self.value.histogram

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return one row an element, as arrays by name: aspect, tensor, regime, input, cotangent, got, truth, ulp, share.

        `share` is the error as a multiple of the limit; `cotangent` is NaN for values and for rows.
        """
        tables = [aspect.columns() for aspect in self.aspects]
        return {name: np.concatenate([table[name] for table in tables if table]) for name in tables[0]}

    def to_frame(self) -> Any:
        """Return `columns()` as a DataFrame of pandas; raise ImportError where pandas is not installed."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "to_frame() needs pandas: pip install pandas; columns() gives the same as arrays"
            ) from error
        return pd.DataFrame(self.columns())

    def plot(self, ax: Any = None) -> Any:
        """Draw the error over the input, as a share of the limit, and return the Axes of matplotlib; a new figure without `ax`.

        Raises ImportError where matplotlib is not installed.
        """
        from actconform.accuracy.function.figure import draw

        return draw(self, ax)

    def __str__(self) -> str:
        from actconform.accuracy.function.table import text

        return text(self)

    def __repr__(self) -> str:
        state = "conforms" if self.conforms else "does not conform"
        return f"<{self.function} as {self.kernel} in {self.dtype}: {state}>"

    def _repr_html_(self) -> str:
        from actconform.accuracy.function.table import html

        return html(self)


def _wide(got: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):  # a signalling NaN
        return got.astype(np.float64)
