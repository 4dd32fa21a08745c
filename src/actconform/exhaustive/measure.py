"""One pass over a chunk: the program is called, and its outputs compared with the truth in blocks that stay in cache."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.elements.classify import locate
from actconform.elements.elementwise import (
    BLOCK,
    COMPILED_FROM,
    ErrorStatistics,
    Sample,
    block_errors,
    compiled_code,
)
from actconform.errors import Unsupported
from actconform.exhaustive.midpoints import DROPPED, FORMULA_PLACES, from_midpoint, nearest_float32, undecided
from actconform.exhaustive.output_bits import calls_of_chunk, same_nans
from actconform.exhaustive.patterns import binades_of, swept_inputs
from actconform.exhaustive.statistics import (
    BINS,
    BinadeErrors,
    CountedInputs,
    SweepStatistics,
    WorstError,
    added_up,
    binned,
    error_histogram,
    joined_findings,
)
from actconform.oracle.float64.registry import FORMULAS
from actconform.tolerance.limits import unary_tolerance
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import NDArray

    from actconform.exhaustive.patterns import Extent
    from actconform.oracle.float64.registry import Function
    from actconform.tolerance.limits import Tolerance
    from actconform.types import Aspect, Finding, Kernel

    F32Array: TypeAlias = NDArray[np.float32]
    F64: TypeAlias = NDArray[np.float64]
    Call: TypeAlias = Callable[[F32Array], F32Array]

F32 = DTYPES["f32"]
HARD = 4  # patterns nearest to midway that are kept of a binade


class SweptFunction(NamedTuple):
    """A unary kernel's value or derivative: its truth in float64, and how it is judged."""

    kernel: Kernel
    aspect: Aspect
    formula: Function
    tolerance: Tolerance

    @classmethod
    def of(cls, kernel: Kernel, aspect: Aspect) -> SweptFunction:
        """Return the function; raise Unsupported where it is not elementwise in one input, or has no formula or gradient."""
        if kernel.form != "unary" or kernel.inputs != ("x",):
            raise Unsupported(f"{kernel.name} is not elementwise: it depends on {_depends_on(kernel)}")
        if aspect == "gradient" and not kernel.differentiable:
            raise Unsupported(f"{kernel.name} has no gradient, by declaration")
        if kernel.name not in FORMULAS:
            raise Unsupported(
                f"kernel {kernel.name} has no float64 formula: register one with oracle.float64.registry.formula"
            )
        formula = FORMULAS[kernel.name][aspect == "gradient"]
        at_zero = float(formula(np.zeros(1), kernel.parameters)[0])
        return cls(kernel, aspect, formula, unary_tolerance(kernel, aspect, F32, at_zero))

    @property
    def tensor(self) -> str:
        """The output that is swept."""
        return "y" if self.aspect == "value" else "d_x"


def _depends_on(kernel: Kernel) -> str:
    return f"the inputs {' and '.join(kernel.inputs)}" if len(kernel.inputs) > 1 else "whole rows"


def measured_chunk(function: SweptFunction, chunk: int, extent: Extent, call: Call) -> tuple[SweepStatistics, str]:
    """Return what a chunk counts, and the SHA-256 of its outputs as little-endian float32 in the order of patterns, every NaN alike.

    `call` gets float32 inputs, 2**20 of a whole binade and 2**15 of a sampled one, and returns as many float32; what it raises is raised.
    """
    digest = hashlib.sha256()
    code = compiled_code() if swept_inputs(chunk, extent) >= COMPILED_FROM else None
    parts = {binade: _BinadePass(function, binade, code) for binade in binades_of(chunk)}
    for binade, bits in calls_of_chunk(chunk, extent):
        part = parts[binade]
        got = call(bits.view(np.float32))
        with np.errstate(all="ignore"):
            for start in range(0, bits.size, BLOCK):
                block = slice(start, start + BLOCK)
                digest.update(same_nans(got[block]).astype("<f4", copy=False).data)
                part.add(bits[block], got[block])
    return added_up(part.statistics() for part in parts.values()), digest.hexdigest()


class _BinadePass:
    """Counts blocks of one binade: what needs no second look by compiled `code`, where there is any, with equal results."""

    def __init__(self, function: SweptFunction, binade: int, code: Any) -> None:
        self._function, self._binade = function, binade
        self._plain = code.PlainBlocks(function.tolerance, BLOCK) if code else None
        self._ulp, self._scaled = WorstError(), WorstError()
        self._histogram = np.zeros(BINS, np.int64)
        self._inputs = self._within = self._right = self._near_midway = self._undecided = 0
        self._signed_sum = 0.0
        self._hard: list[tuple[float, str]] = []
        self._flushed = CountedInputs()
        self._findings: tuple[Finding, ...] = ()

    def add(self, bits: NDArray[np.uint32], got: F32Array) -> None:
        """Count a block: its input patterns and outputs."""
        x = bits.view(np.float32).astype(np.float64)
        truth = self._function.formula(x, self._function.kernel.parameters)
        sample = Sample(got, truth, x)
        self._inputs += bits.size
        plain = self._plain.add(sample, DROPPED, FORMULA_PLACES) if self._plain else None
        if plain is None:
            self._add_each(sample, bits)
        else:
            self._within += bits.size
            self._right += plain.right
            self._ulp = self._ulp.larger(_worst(plain.ulp, bits))
            self._scaled = self._scaled.larger(_worst(np.abs(plain.signed), bits))
            self._signed_sum += float(plain.signed.sum())

    def _add_each(self, sample: Sample, bits: NDArray[np.uint32]) -> None:
        got, truth, x = sample.got, sample.truth, sample.x
        ulp, signed, scaled, within, _ = block_errors(sample, self._function.tolerance)
        nearest = self._rounded(bits, x, truth)
        right = got == nearest
        if not got.all():
            self._flushed = self._flushed.with_(CountedInputs.of(bits[(got == 0) & (nearest != 0)]))
        self._within += int(np.count_nonzero(within))
        if not within.all():
            self._add_suspects(sample, ~within)
            signed = signed[within]
            finite = np.isfinite(got) & np.isfinite(truth)
            right |= np.isnan(got) & np.isnan(truth)
            scaled = np.where(finite, scaled, -1.0)
            self._ulp = self._ulp.larger(_worst(np.where(finite, ulp, -1.0), bits))
            ulp = np.where(finite, ulp, np.where(right, 0.0, np.inf))
        else:
            self._ulp = self._ulp.larger(_worst(ulp, bits))
        self._scaled = self._scaled.larger(_worst(scaled, bits))
        self._signed_sum += float(signed.sum())
        self._right += int(np.count_nonzero(right))
        self._histogram += error_histogram(ulp)

    def _rounded(self, bits: NDArray[np.uint32], x: F64, truth: F64) -> F32Array:
        """Return the float32 nearest to the truth, and count how many of them float64 does not decide."""
        rounded = truth.astype(np.float32)
        unsure = undecided(truth)
        if not unsure.size:
            return rounded
        rounded[unsure], proven = nearest_float32(
            self._function.kernel, self._function.aspect, x[unsure], truth[unsure]
        )
        self._near_midway += unsure.size
        self._undecided += 0 if proven else unsure.size
        distances = from_midpoint(truth[unsure])
        self._hard += zip(distances.tolist(), (f"0x{pattern:08x}" for pattern in bits[unsure].tolist()), strict=True)
        self._hard = sorted(self._hard)[:HARD]
        return rounded

    def _add_suspects(self, sample: Sample, suspects: NDArray[np.bool_]) -> None:
        errors = ErrorStatistics(n=sample.got.size, suspects=np.flatnonzero(suspects))
        located = locate(sample, self._function.tolerance, errors, "sweep", self._function.tensor)
        self._findings = joined_findings((*self._findings, *(each.finding for each in located)))

    def statistics(self) -> SweepStatistics:
        """Return what was counted."""
        histogram = self._histogram
        if self._plain:
            histogram = histogram + binned(self._plain.by_exponent, int(self._plain.by_exponent[0]))
        return SweepStatistics(
            inputs=self._inputs,
            binades=(BinadeErrors(self._binade, self._ulp, self._scaled),),
            histogram=tuple(histogram.tolist()),
            signed_sum=self._signed_sum,
            within=self._within,
            correctly_rounded=self._right,
            near_midway=self._near_midway,
            undecided=self._undecided,
            hard=tuple(pattern for _, pattern in self._hard),
            flushed=self._flushed,
            findings=self._findings,
        )


def _worst(errors: F64, bits: NDArray[np.uint32]) -> WorstError:
    at = int(errors.argmax())
    return WorstError(float(errors[at]), f"0x{int(bits[at]):08x}")
