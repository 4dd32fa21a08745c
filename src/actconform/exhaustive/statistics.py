"""What a sweep counts over inputs: the worst errors by binade, a histogram, bias, correct roundings, findings; parts add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.types import Finding, Interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    F64 = NDArray[np.float64]

BINS = 64
FIRST_EXPONENT = -30  # bin 2 holds [2**-30, 2**-29) ULP, the last one 2**31 and more
NO_INPUT = ""
INFINITY = 0x7F800000


class WorstError(msgspec.Struct, frozen=True):
    """The largest of some errors, and the pattern of the input where it is; -1 where there is none."""

    error: float = -1.0
    input_hex: str = NO_INPUT
    place: str = ""
    """Where an output depends on more numbers than that: the pair, or the place in a sample."""

    @property
    def at(self) -> str:
        """What to call the program with to see the error again."""
        return self.place or self.input_hex

    def larger(self, than: WorstError) -> WorstError:
        """Return the larger of two, this one where they are equal."""
        return than if than.error > self.error else self


class BinadeErrors(msgspec.Struct, frozen=True):
    """The worst errors in a binade, `binade` being the first nine bits of its patterns: in ULP, and in the unit of the limit."""

    binade: int
    ulp: WorstError = WorstError()
    scaled: WorstError = WorstError()


class CountedInputs(msgspec.Struct, frozen=True):
    """How many inputs show something, and the least and the greatest of their patterns."""

    count: int = 0
    first: str = NO_INPUT
    last: str = NO_INPUT

    @classmethod
    def of(cls, bits: NDArray[np.uint32]) -> CountedInputs:
        """Return the count of patterns, which ascend."""
        return cls(bits.size, f"0x{bits[0]:08x}", f"0x{bits[-1]:08x}") if bits.size else cls()

    def with_(self, further: CountedInputs) -> CountedInputs:
        """Return both as one."""
        patterns = sorted(filter(None, (self.first, self.last, further.first, further.last)))
        return CountedInputs(self.count + further.count, patterns[0], patterns[-1]) if patterns else self


class SweepStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep counted over some inputs.

    Errors are |output - truth|, of finite numbers alone; a NaN or infinity that is right has error 0 in the histogram, one that is
    wrong stands in its last bin. `histogram` counts errors in ULP: 0; below 2**-30; [2**-30, 2**-29) ...; 2**31 and more.
    `signed_sum` is that of the errors in the unit of the limit over the `within` elements that are plainly within their limit.
    `correctly_rounded` outputs are the float32 nearest to the truth; of the truths `near_midway` lay too near to midway between two for float64, and Arb
    decided; `undecided` of these it did not, for want of python-flint or a definition, and they count as float64 says. `hard` are the patterns nearest to midway.
    `flushed` results, 0 where the nearest float32 is not, are counted where limits forgive them too. `findings` are what breaks a limit, with first and last input: NaN made or lost, infinities, signs of zeros, flushed subnormals ...
    """

    inputs: int = 0
    binades: tuple[BinadeErrors, ...] = ()
    histogram: tuple[int, ...] = (0,) * BINS
    signed_sum: float = 0.0
    within: int = 0
    correctly_rounded: int = 0
    near_midway: int = 0
    undecided: int = 0
    hard: tuple[str, ...] = ()
    flushed: CountedInputs = CountedInputs()
    findings: tuple[Finding, ...] = ()

    @property
    def bias(self) -> float:
        """Mean signed error in the unit of the limit over what is within it; 0 where nothing is."""
        return self.signed_sum / self.within if self.within else 0.0

    @property
    def ulp(self) -> WorstError:
        """The worst error in ULP."""
        return _worst(each.ulp for each in self.binades)

    @property
    def scaled(self) -> WorstError:
        """The worst error in the unit of the limit."""
        return _worst(each.scaled for each in self.binades)

    def below(self, ulp: int) -> int:
        """Return how many outputs err by less than `ulp`, a power of two up to 2**31."""
        return sum(self.histogram[: 2 - FIRST_EXPONENT + ulp.bit_length() - 1])


def added_up(parts: Iterable[SweepStatistics]) -> SweepStatistics:
    """Return the statistics of disjoint sets of inputs as those of all; findings of a class and binade become one."""
    listed = list(parts)
    flushed = CountedInputs()
    for each in listed:
        flushed = flushed.with_(each.flushed)
    return SweepStatistics(
        inputs=sum(each.inputs for each in listed),
        binades=tuple(sorted((binade for each in listed for binade in each.binades), key=lambda each: each.binade)),
        histogram=tuple(int(count) for count in np.sum([(0,) * BINS, *(each.histogram for each in listed)], axis=0)),
        signed_sum=sum(each.signed_sum for each in listed),
        within=sum(each.within for each in listed),
        correctly_rounded=sum(each.correctly_rounded for each in listed),
        near_midway=sum(each.near_midway for each in listed),
        undecided=sum(each.undecided for each in listed),
        hard=tuple(pattern for each in listed for pattern in each.hard),
        flushed=flushed,
        findings=tuple(finding for each in listed for finding in each.findings),
    )


def _worst(errors: Iterable[WorstError]) -> WorstError:
    worst = WorstError()
    for each in errors:
        worst = worst.larger(each)
    return worst


def joined_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings of one binade, those of a class and tensor as one: counts added, from the least input to the greatest, the worst of all.

    Those at NaN, at an infinity and at zero stay apart from those at other numbers.
    """
    joined: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        key = (finding.class_, finding.tensor, _kind(finding.interval.first))
        joined[key] = _both(joined[key], finding) if key in joined else finding
    return tuple(joined.values())


def joined_binades(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings with those of one class, tensor and cause in neighbouring binades as one, ascending by pattern; NaN, infinities and zeros stay apart."""
    joined: list[Finding] = []
    for finding in sorted(findings, key=lambda each: (*_together(each), _binade(min(each.interval)))):
        near = joined and _binade(min(finding.interval)) - _binade(max(joined[-1].interval)) <= 1
        if near and _together(joined[-1]) == _together(finding):
            joined[-1] = _both(joined[-1], finding)
        else:
            joined.append(finding)
    return tuple(sorted(joined, key=lambda each: min(each.interval)))


def _together(finding: Finding) -> tuple[str, str, str, str, bool]:
    """Return what joined findings have in common: class, tensor, cause, kind of number, sign."""
    least = min(finding.interval)
    return finding.class_, finding.tensor, finding.deviation or "", _kind(least), least >= "0x8"


def _binade(pattern: str) -> int:
    return int(pattern, 16) >> 23


def _both(first: Finding, second: Finding) -> Finding:
    """Return two findings as the worse one of them, over all inputs of both."""
    worst = second if second.magnitude > first.magnitude else first
    ends = sorted({*first.interval, *second.interval})
    interval = Interval(ends[0], ends[-1]) if ends[0] < "0x8" else Interval(ends[-1], ends[0])
    return msgspec.structs.replace(worst, count=first.count + second.count, interval=interval)


def _kind(pattern: str) -> str:
    """Return what apart from an ordinary number a pattern is: "zero", "inf", "nan", "" for none of them."""
    size = int(pattern, 16) & 0x7FFFFFFF
    return "zero" if size == 0 else "inf" if size == INFINITY else "nan" if size > INFINITY else ""


def error_histogram(ulp: F64) -> NDArray[np.int64]:
    """Return how many errors in ULP, none of them negative or NaN, lie in each of the 64 bins."""
    return binned(np.bincount(ulp.view(np.int64) >> 52, minlength=0x800), ulp.size - int(np.count_nonzero(ulp)))


def binned(by_exponent: NDArray[np.int64], exact: int) -> NDArray[np.int64]:
    """Return the 64 bins of errors of which `exact` are 0, from how many have each biased exponent of float64."""
    first = 1023 + FIRST_EXPONENT
    last = first + BINS - 3
    ends = [exact, by_exponent[:first].sum() - exact], [by_exponent[last:].sum()]
    return np.concatenate([ends[0], by_exponent[first:last], ends[1]])
