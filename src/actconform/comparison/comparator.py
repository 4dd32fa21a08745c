"""All outputs of a case against all its test vectors: structure first, then numbers regime by regime."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.comparison.bias import locate_bias, unreached_ends
from actconform.comparison.nearest import locate_inexact
from actconform.comparison.repeats import furthest, locate_moved
from actconform.elements.classify import Located, locate
from actconform.elements.elementwise import Sample, elementwise_errors
from actconform.testdata.sizes import OF_SIZES
from actconform.tolerance.ulp import to_hex
from actconform.types import NOWHERE, Finding, FindingClass, Interval, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from actconform.elements.elementwise import ErrorStatistics
    from actconform.testdata.kernel_vectors import TestVector, TestVectors
    from actconform.tolerance.limits import Tolerance
    from actconform.types import Bundle, Place


class Comparison(NamedTuple):
    """The outputs of a case beside the truth: what was measured and what breaks a limit.

    `samples` holds the joined elements by (regime, tensor); `elements` the flat indices in them that a finding counts, by
    `Finding.place`, for findings of single elements.
    """

    measurements: list[Measurement]
    findings: list[Finding]
    samples: dict[tuple[str, str], Sample]
    elements: dict[Place, NDArray[np.int64]]


def compare(test_vectors: TestVectors, outputs: Sequence[Bundle]) -> tuple[list[Measurement], list[Finding]]:
    """Return the measurements and findings of a case, as `comparison` does."""
    compared = comparison(test_vectors, outputs)
    return compared.measurements, compared.findings


def comparison(test_vectors: TestVectors, outputs: Sequence[Bundle]) -> Comparison:
    """Return how the outputs of a case compare: each regime's tensors joined, special inputs compared between positions.

    `outputs` holds one bundle a test vector, in order; raises ValueError when there are more or fewer. A missing, extra, wrongly
    shaped or wrongly typed output is a finding (`names`, `shape`, `dtype`); what can still be compared is.
    """
    compared = comparison_of(joined(test_vectors, outputs), test_vectors.tolerance)
    return compared._replace(findings=structure(test_vectors, outputs) + compared.findings)


def comparison_of(samples: dict[tuple[str, str], Sample], tolerance: Tolerance) -> Comparison:
    """Return how joined outputs compare, tensor by tensor of each regime.

    An input of a unary kernel that is off in another regime is not told again for other sizes.
    """
    measurements, findings, elements = [], [], {}
    deviating: dict[str, list[NDArray[np.uint64]]] = defaultdict(lambda: [np.empty(0, np.uint64)])
    for (regime, tensor), sample in sorted(samples.items(), key=lambda item: item[0][0] in OF_SIZES):
        errors = elementwise_errors(sample, tolerance)
        elsewhere = np.concatenate(deviating[tensor])
        if regime in OF_SIZES and tolerance.unary:
            errors.suspects = errors.suspects[~np.isin(sample.x.view(np.uint64)[errors.suspects], elsewhere)]
        located = locate(sample, tolerance, errors, regime, tensor)
        measurements.append(measurement(sample, tolerance, errors, [item.finding for item in located], regime, tensor))
        if regime in OF_SIZES:
            located += locate_moved(sample, tolerance, elsewhere, regime, tensor)
        else:
            located += locate_bias(sample, tolerance, errors, regime, tensor)
            located += locate_inexact(sample, tolerance, errors, regime, tensor)
            located += _position(sample, tolerance, regime, tensor)
            deviating[tensor] += [sample.x.view(np.uint64)[item.elements] for item in located]
        elements.update({item.finding.place: item.elements for item in located})
        findings += [item.finding for item in located]
        findings += unreached_ends(sample, tolerance, errors, regime, tensor)
    return Comparison(measurements, findings, samples, elements)


def structure(test_vectors: TestVectors, outputs: Sequence[Bundle]) -> list[Finding]:
    """Return what is wrong before any number is read, `names`, `shape` and `dtype`: one finding for each tensor of a regime."""
    findings: dict[tuple[FindingClass, str, str], Finding] = {}
    for vector, bundle in zip(test_vectors.vectors, outputs, strict=True):
        for class_, tensor, evidence in _structure(vector, bundle):
            earlier = findings.get((class_, vector.regime, tensor))
            findings[class_, vector.regime, tensor] = structural(
                class_, vector.regime, tensor, evidence, count=earlier.count + 1 if earlier else 1
            )
    return list(findings.values())


def joined(test_vectors: TestVectors, outputs: Sequence[Bundle]) -> dict[tuple[str, str], Sample]:
    """Return the outputs beside their truth, joined by (regime, tensor); those of a wrong name, shape or kind are left out."""
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for vector, bundle in zip(test_vectors.vectors, outputs, strict=True):
        for tensor, sample in _samples(vector, bundle):
            samples[vector.regime, tensor].append(sample)
    return {key: join(parts) for key, parts in samples.items()}


def _structure(vector: TestVector, bundle: Bundle) -> Iterator[tuple[FindingClass, str, str]]:
    """Yield (class, tensor, evidence) for all that is wrong before any number is read."""
    for name in vector.truth.keys() - bundle.keys():
        yield FindingClass.NAMES, name, f"output {name!r} is missing; got {sorted(bundle)}"
    for name in bundle.keys() - vector.truth.keys():
        yield FindingClass.NAMES, name, f"output {name!r} was not asked for; expected {sorted(vector.truth)}"
    for name in vector.truth.keys() & bundle.keys():
        got, wanted = bundle[name], vector.shape_of(vector.truth[name])
        if got.shape != wanted:
            yield FindingClass.SHAPE, name, f"shape {list(got.shape)}, expected {list(wanted)}"
        dtype = vector.dtypes[name]
        if got.dtype != dtype:
            yield FindingClass.DTYPE, name, f"dtype {got.dtype}, expected {dtype}"


def _samples(vector: TestVector, bundle: Bundle) -> Iterator[tuple[str, Sample]]:
    for name, truth in vector.truth.items():
        got = bundle.get(name)
        if got is None or got.shape != vector.shape_of(truth) or got.dtype.kind in "cSUmM":
            continue
        if vector.rows:
            got = furthest(got, truth)
        cotangent = None
        if vector.cotangents is not None and not vector.bounds:
            cotangent = vector.cotangents["y"].astype(np.float64).ravel()
        bound = vector.bounds.get(name)
        yield (
            name,
            Sample(
                got=got.ravel(),
                truth=truth.ravel(),
                x=vector.input_at[name].ravel(),
                cotangent=cotangent,
                bound=None if bound is None else bound.ravel(),
            ),
        )


def join(parts: Sequence[Sample]) -> Sample:
    """Return samples of one tensor one after another."""

    def joined(arrays: list[NDArray[Any] | None]) -> NDArray[Any] | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present else None

    return Sample(
        got=np.concatenate([part.got for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
        x=np.concatenate([part.x for part in parts]),
        cotangent=joined([part.cotangent for part in parts]),
        bound=joined([part.bound for part in parts]),
    )


def measurement(
    sample: Sample, tolerance: Tolerance, errors: ErrorStatistics, findings: Sequence[Finding], regime: str, tensor: str
) -> Measurement:
    """Return the numbers of a tensor in a regime; what was accepted at a kink or as a flush is in no maximum."""
    worst = [finding.worst for finding in findings if finding.worst is not None]
    scaled = max([errors.max_scaled, *(w.scaled for w in worst if np.isfinite(w.scaled))])
    return Measurement(
        tensor=tensor,
        regime=regime,
        n=errors.n,
        max_ulp=max([errors.max_ulp, *(w.ulp for w in worst if np.isfinite(w.ulp))]),
        max_scaled=scaled,
        bias=errors.bias,
        limit=tolerance.limit,
        margin=tolerance.limit / scaled if scaled else np.inf,
        histogram=tuple(errors.histogram.tolist()),
        kinks=_kinks(sample, tolerance),
        unit="scaled" if tolerance.scale is not None else "ulp" if tolerance.exact or sample.bound is None else "bound",
        profile=errors.worst.profile() if errors.worst is not None else None,
    )


def _kinks(sample: Sample, tolerance: Tolerance) -> dict[str, str]:
    """Return which one-sided derivative was given at each kink where they differ: left, right, other."""
    sides = {}
    for kink in tolerance.kinks:
        at = np.flatnonzero(sample.x == kink.x)
        if not at.size or kink.left == kink.right:
            continue
        got = float(sample.got[at[0]])
        ct = 1.0 if sample.cotangent is None else float(sample.cotangent[at[0]])
        near = {
            side: abs(got - value * ct) <= 2.0 ** (2 - tolerance.fmt.precision)
            for side, value in (("left", kink.left), ("right", kink.right))
        }
        sides[to_hex(kink.x, tolerance.fmt)] = next((side for side, is_near in near.items() if is_near), "other")
    return sides


def _position(sample: Sample, tolerance: Tolerance, regime: str, tensor: str) -> Iterator[Located]:
    """Yield a finding for each input of a unary kernel that gives different outputs at different places of arrays.

    At special inputs the outputs must be of one class (NaN, an infinity, a sign, zero); at kinks of one value too, but for
    rounding: each may lie anywhere between the slopes of both sides.
    """
    kinks = [kink.x for kink in tolerance.kinks]
    candidates = np.flatnonzero(np.isin(sample.x, kinks)) if regime != "special" else np.arange(sample.x.size)
    if not tolerance.unary or not candidates.size:
        return
    order = candidates[np.argsort(sample.x[candidates].view(np.uint64), kind="stable")]
    x = sample.x[order]
    patterns = x.view(np.uint64)
    starts = np.flatnonzero(np.diff(patterns, prepend=~patterns[:1]))
    with np.errstate(all="ignore"):
        slope = sample.got[order].astype(np.float64)  # a signalling NaN warns
        slope = slope if sample.cotangent is None else slope / sample.cotangent[order]
        classes = np.where(np.isnan(slope), 5, np.sign(slope) * (1 + np.isinf(slope)))
        differs = np.maximum.reduceat(classes, starts) > np.minimum.reduceat(classes, starts)
        low, high = np.minimum.reduceat(slope, starts), np.maximum.reduceat(slope, starts)
        rounding = tolerance.limit * tolerance.fmt.unit_roundoff * np.maximum(1.0, np.abs(high))
        differs |= np.isin(x[starts], kinks) & (high - low > rounding)
    places = "in arrays of lengths 1, 8, 17, 67" if regime == "special" else "of one array"
    for number in np.flatnonzero(differs):
        group = slice(starts[number], starts[number + 1] if number + 1 < starts.size else None)
        hex_ = to_hex(float(x[group][0]), tolerance.fmt)
        values = ", ".join(f"{value:g}" for value in np.unique(slope[group])[:4])
        finding = Finding(
            class_=FindingClass.POSITION_DEPENDENT,
            count=int(x[group].size),
            regime=regime,
            tensor=tensor,
            interval=Interval(hex_, hex_),
            worst=None,
            magnitude=0.0,
            evidence=f"the same input gave {values} at different places {places}",
        )
        yield Located(finding, order[group])


def structural(
    class_: FindingClass, regime: str, tensor: str, evidence: str, count: int = 1, *, relation: str = ""
) -> Finding:
    """Return a finding that no number shows."""
    return Finding(
        class_=class_,
        count=count,
        regime=regime,
        tensor=tensor,
        interval=NOWHERE,
        worst=None,
        magnitude=0.0,
        evidence=evidence,
        relation=relation,
    )
