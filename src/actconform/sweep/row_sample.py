"""Kernels of rows or of two inputs at a stated sample: made for each chunk, compared with the truth of the definition here."""

from __future__ import annotations

import hashlib
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform.comparison.comparator import join, joined, structure
from actconform.elements.classify import locate
from actconform.elements.elementwise import Sample, block_errors, elementwise_errors
from actconform.errors import SweepError, Unsupported, WorkerError
from actconform.exhaustive.midpoints import undecided
from actconform.exhaustive.output_bits import same_nans
from actconform.exhaustive.patterns import BINADES, MANTISSAS, binades_of, patterns
from actconform.exhaustive.statistics import (
    BinadeErrors,
    CountedInputs,
    SweepStatistics,
    WorstError,
    error_histogram,
    joined_findings,
)
from actconform.run.subject import subject_of
from actconform.sweep.journal import SweptChunk
from actconform.sweep.sample_places import SamplePlaces, is_of_pairs
from actconform.testdata.kernel_vectors import TestVectors, unstored_vector
from actconform.testdata.regimes import row_inputs, signed_powers
from actconform.tolerance.limits import row_tolerance
from actconform.types.dtypes import DTYPES
from actconform.workers.protocol import Call, Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.tolerance.limits import Tolerance
    from actconform.types import Artifact, Aspect, Bundle, Case, Finding, Kernel
    from actconform.workers.client import Worker

    F32Array = NDArray[np.float32]
    F64 = NDArray[np.float64]

F32 = DTYPES["f32"]
REGIME = "sweep"
OF_BINADE = 32  # numbers of each binade of a chunk
ROW_LENGTHS = (2, 17, 256)
SPECIAL = (0x00000000, 0x80000000, 0x7F800000, 0xFF800000)
GOLDEN = 0x9E3779B1  # 2**32 divided by the golden ratio: its multiples spread evenly


def is_sampled(kernel: Kernel) -> bool:
    """Tell whether a kernel is swept at a sample: its outputs depend on more than one number."""
    return kernel.form == "row" or kernel.inputs != ("x",)


def sample_in_words(kernel: Kernel, aspect: Aspect) -> str:
    """Return what the sample of a kernel is: "32 rows of 2 ...". Raises Unsupported where there is none, with the reason."""
    if aspect == "gradient" and not kernel.differentiable:
        raise Unsupported(f"{kernel.name} has no gradient, by declaration")
    if kernel.output_dtype == "int64":
        raise Unsupported(f"{kernel.name} gives indices, which have no error in ULP: actconform run compares them")
    if kernel.axis not in {-1, 1} or kernel.inputs not in {("x",), ("x", "slope")}:
        raise Unsupported(
            f"{kernel.name} has no stated sample: one is made for rows of the last axis or of axis 1, and for x and slope"
        )
    try:
        row_vectors(kernel, aspect, 63)
    except LookupError as error:
        raise Unsupported(f"{kernel.name}: {error.args[0]}") from error
    if is_of_pairs(kernel):
        further = "zeros" if "slope" in kernel.inputs else "zeros and infinities"
        size = f"all pairs of {OF_BINADE} numbers of every binade with 1 of every binade, {further}"
    else:
        beside = ", each beside half of another and its own negative" if kernel.axis == 1 else ""
        size = f"{OF_BINADE} rows of 2, of 17 and of 256 numbers for every binade{beside}"
    return f"{size}; cotangents from 1/8 to 1" if aspect == "gradient" else size


def row_vectors(kernel: Kernel, aspect: Aspect, chunk: int) -> TestVectors:
    """Return the calls of a chunk's sample with their truth and bounds.

    Of two numbers: each of 32 of both binades beside one of every binade, the zeros, and the infinities if that is no slope. Of rows: one of
    2, of 17 and of 256 numbers for each of these 64; the first number of a row is that, the others are that times fixed fractions of 1, in
    every second row with changing signs. Along axis 1 half of another row and its own negative stand beside each. Cotangents are signed
    powers of two from 1/8 to 1, the same in every chunk: no product of an input and one overflows.
    """
    first = np.concatenate(
        [part[np.linspace(0, part.size - 1, OF_BINADE).astype(np.int64)] for part in _both(chunk)]
    ).view(np.float32)
    cotangents = partial(_cotangents, kernel) if aspect == "gradient" else None
    with np.errstate(invalid="ignore"):  # a signalling NaN
        if is_of_pairs(kernel):
            calls = [_pairs(kernel, aspect, first)]
        else:
            calls = [row_inputs(kernel, _rows(first, length)) for length in ROW_LENGTHS]
        vectors = [unstored_vector(kernel, F32, _regime(call), call, cotangents) for call in calls]
    return TestVectors(row_tolerance(kernel, aspect, F32), vectors)


def _cotangents(kernel: Kernel, shape: tuple[int, ...]) -> F64:
    drawn = signed_powers(f"{kernel.name}/sweep/{shape[1:]}", math.prod(shape)).astype(np.float64)
    return drawn.reshape(shape) / 4.0


def _regime(inputs: dict[str, F32Array]) -> str:
    """Return the regime by which causes know a call: that of special inputs where infinities or NaN are among its."""
    return REGIME if all(np.isfinite(array).all() for array in inputs.values()) else "special"


def _both(chunk: int) -> list[NDArray[np.uint32]]:
    return [patterns(binade, "sample") for binade in binades_of(chunk)]


def _pairs(kernel: Kernel, aspect: Aspect, first: F32Array) -> dict[str, F32Array]:
    binades = np.arange(BINADES, dtype=np.uint64)
    spread = (binades * MANTISSAS + (binades + 1) * GOLDEN % MANTISSAS).astype(np.uint32)
    second = np.concatenate([spread, np.array(SPECIAL, np.uint32)]).view(np.float32)
    if "slope" in kernel.inputs:  # of an infinite slope definitions differ at x = 0
        second = second[np.isfinite(second)]
    x = np.repeat(first[:, None], second.size, axis=1)
    if "slope" in kernel.inputs:
        if aspect == "gradient":  # one row: a slope's gradient is that of its pair, no sum over a batch
            return {"x": x.reshape(1, -1), "slope": np.tile(second, first.size)}
        return {"x": x, "slope": second}
    return {"x": np.concatenate([x, np.repeat(second[None], first.size, axis=0)], axis=1)}


def _rows(first: F32Array, length: int) -> F32Array:
    place = np.arange(first.size * length, dtype=np.uint64).reshape(first.size, length)
    fractions = ((place * GOLDEN >> np.uint64(8)) % (1 << 24)).astype(np.float32) / np.float32(1 << 24)
    fractions[:, 0] = 1.0
    fractions[1::2, 1::2] *= -1.0
    with np.errstate(all="ignore"):  # infinity by 0
        return (first[:, None] * fractions).astype(np.float32)


def swept_rows(
    worker: Worker, kernel: Kernel, case: Case, artifact: Artifact | None, chunk: int, timeout: float
) -> SweptChunk:
    """Return one chunk of a row kernel, whose program runs in the worker. Raises SweepError where it cannot be done."""
    vectors = row_vectors(kernel, case.aspect, chunk)
    outputs, seconds = answered_rows(worker, kernel, case, artifact, vectors, chunk, timeout)
    # calls of a chunk are of one regime
    samples = {tensor: sample for (_, tensor), sample in joined(vectors, outputs).items()}
    places = SamplePlaces(kernel, vectors, chunk)
    sample = join(list(samples.values()))
    with np.errstate(all="ignore"):
        digest = hashlib.sha256(same_nans(sample.got).astype("<f4", copy=False).data).hexdigest()
        findings = _findings(samples, vectors.tolerance, places)
        statistics = _statistics(sample, vectors.tolerance, places, findings)
    return SweptChunk(chunk=chunk, sha256=digest, statistics=statistics, seconds=seconds)


def answered_rows(
    worker: Worker,
    kernel: Kernel,
    case: Case,
    artifact: Artifact | None,
    vectors: TestVectors,
    chunk: int,
    timeout: float,
) -> tuple[list[Bundle], float]:
    """Return the outputs of the calls and the seconds of the worker. Raises SweepError where the program fails, or gives no such tensors."""
    line = subject_of(kernel)
    calls = [Call(vector.regime, vector.inputs, vector.cotangents) for vector in vectors.vectors]
    job = Job(case, artifact, [line.call_for(call, artifact) for call in calls] if artifact else calls, repeated=())
    where = f"{case.id}, chunk {chunk}"
    try:
        result = worker.run(job, timeout)
    except WorkerError as error:
        raise SweepError(f"{where}: {error}") from error
    if result.failure is not None:
        raise SweepError(f"{where}: {result.failure.message}", refused=result.failure.kind == "unsupported")
    for finding in structure(vectors, result.outputs):
        raise SweepError(f"{where}: {finding.evidence}")
    return result.outputs, sum(result.timings.values())


def _statistics(
    sample: Sample, tolerance: Tolerance, places: SamplePlaces, findings: tuple[Finding, ...]
) -> SweepStatistics:
    got, truth = sample.got, sample.truth
    nearest = truth.astype(np.float32)
    right = (got == nearest) | (np.isnan(got) & np.isnan(nearest))
    finite = np.isfinite(got) & np.isfinite(truth)
    ulp, signed, scaled, within, _ = block_errors(sample, tolerance)
    within &= finite & ~np.isnan(signed)  # a bound of 0 that is kept
    bits = sample.x.astype(np.float32).view(np.uint32)
    counted = finite & ~np.isnan(scaled)
    by_unit = [np.where(finite, ulp, -1.0), np.where(counted, scaled, -1.0)]
    binades = [
        BinadeErrors(binade, *(_worst(errors, elements, bits, places) for errors in by_unit))
        for binade, elements in places.by_binade()
    ]
    unsure = int(undecided(truth).size)
    return SweepStatistics(
        inputs=got.size,
        binades=tuple(binades),
        histogram=tuple(error_histogram(np.where(finite, ulp, np.where(right, 0.0, np.inf))).tolist()),
        signed_sum=float(signed[within].sum()),
        within=int(np.count_nonzero(within)),
        correctly_rounded=int(np.count_nonzero(right)),
        near_midway=unsure,
        undecided=unsure,
        flushed=CountedInputs.of(np.sort(bits[(got == 0) & (nearest != 0)])),
        findings=findings,
    )


def _findings(samples: dict[str, Sample], tolerance: Tolerance, places: SamplePlaces) -> tuple[Finding, ...]:
    """Return what breaks a limit, by tensor and the sign of the input beside each element."""
    findings: list[Finding] = []
    for tensor, sample in samples.items():
        for sign in (False, True):
            chosen = np.flatnonzero(np.signbit(sample.x) == sign)
            part = sample.part(chosen)
            for each in locate(part, tolerance, elementwise_errors(part, tolerance), REGIME, tensor):
                assert each.finding.worst is not None  # `locate` gives one
                place = places.of(int(chosen[each.finding.worst.index]), tensor)
                findings.append(msgspec.structs.replace(each.finding, evidence=place))
    return joined_findings(findings)


def _worst(errors: F64, elements: NDArray[np.int64], bits: NDArray[Any], places: SamplePlaces) -> WorstError:
    at = int(elements[errors[elements].argmax()])
    return WorstError(float(errors[at]), f"0x{int(bits[at]):08x}", places.of(at)) if errors[at] >= 0 else WorstError()
