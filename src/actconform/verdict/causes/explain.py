"""Which findings of a kernel's case are explained by a registered cause: every element that they count, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from actconform.comparison.comparator import comparison_of
from actconform.testdata.kernel_vectors import TestVectors, truth_of
from actconform.testdata.sizes import OF_SIZES
from actconform.tolerance.limits import unary_tolerance
from actconform.tolerance.row_bounds import flushes
from actconform.tolerance.ulp import to_hex, ulp_of
from actconform.types import Finding, FindingClass, Interval, Kernel, Worst
from actconform.verdict.causes.arithmetic import Arithmetic, Number, admits
from actconform.verdict.causes.conventions import accepted
from actconform.verdict.causes.evaluation import WITHOUT_VALUE, Evaluation, Part, Piece, exactly
from actconform.verdict.causes.graph import GraphFormula

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.comparison.comparator import Comparison
    from actconform.elements.elementwise import Sample
    from actconform.types import Case, Place
    from actconform.types.cause import Cause, LibraryAccuracy, Register

    Mask = NDArray[np.bool_]

CONVENTION = "convention"  # what covers a finding that a kernel's conventions allow, on every backend
NEGLIGIBLE = 0.05  # of its rounding error: a graph that computed exactly is so near the definition is the definition
CAP = 4.0  # units u max(1, |x|) |g|, or 100 % of the truth: no formula excuses more than the limits' classes know
FLUSHED = "subnormals-flushed"  # what covers a finding that the stated fact explains, on every backend
KINK_ULP = 4.0


NOTHING = np.empty(0, np.int64)
STRUCTURAL = (FindingClass.NAMES, FindingClass.SHAPE, FindingClass.DTYPE)


class Situation(NamedTuple):
    """What a case is explained with: the case as the register knows it, facts of its route, kernels by name, its graph if any."""

    case: Case
    register: Register
    active: Sequence[Cause]
    facts: Mapping[str, str]
    kernels: Mapping[str, Kernel]
    graph: bytes | None

    def library(self, cause: Cause) -> LibraryAccuracy | None:
        """Return the library that a cause computes with: its own, or on a route through a graph the runtime's."""
        graph_libraries = (each.library for each in self.active if each.graph)
        name = cause.library or next(graph_libraries, "")
        return self.register.library(name, self.facts) if name else None

    def of(self, case: Case) -> Situation:
        """Return the same for another case of the route."""
        return self._replace(case=case, active=self.register.active(case, self.facts))


class Coverage(NamedTuple):
    """Why a finding is known: the cause, whose fault it is where the cause says, how much of its bound was used, in words."""

    cause: str
    blame: str
    used: float
    evidence: str


class Explanation(NamedTuple):
    """What covers each finding, by its place, and the findings of elements outside their formulas."""

    covers: dict[Place, Coverage]
    outside: list[Finding]


class _Excuse(NamedTuple):
    """One way to have computed a part: by which cause, and for each element: is it admitted, lies it inside the bound, how much of it is used.

    What lies inside is what the implementation can have given; what is admitted it may give: within the cap, and a graph only where
    it is the definition. `tests`: every element must lie inside.
    """

    cause: str
    blame: str
    text: str
    admitted: Mask
    inside: Mask
    used: NDArray[np.float64]
    tests: bool


def plainly(findings: Sequence[Finding], case: Case, causes: Sequence[Cause]) -> dict[Place, Coverage]:
    """Return what covers the findings by causes without a formula, by their place."""
    covers: dict[Place, Coverage] = {}
    for finding in findings:
        for cause in causes:
            cover = next((cover for cover in cause.covers if cover.matches(case, finding)), None)
            if cover and finding.place not in covers:
                used = finding.magnitude / cover.bound if 0 < cover.bound < np.inf else 0.0
                covers[finding.place] = Coverage(cause.id, cause.blame, used, "")
    return covers


class Explainer:
    """Holds the findings of one case of a kernel against the register and the kernel's conventions."""

    def __init__(self, kernel: Kernel, test_vectors: TestVectors, situation: Situation) -> None:
        self._kernel, self._test_vectors, self._situation = kernel, test_vectors, situation
        self._case, self._facts = situation.case, situation.facts
        self._evaluation = Evaluation(situation.case, kernel, test_vectors, situation.facts)

    def explain(self, compared: Comparison, findings: Sequence[Finding]) -> Explanation:
        """Return what covers each of `findings`, and what lies outside the formulas, found or not by a limit."""
        covers = plainly(findings, self._case, self._situation.active)
        outside: list[Finding] = []
        counting = [finding for finding in findings if finding.place in compared.elements]
        for tensor in dict.fromkeys(tensor for _, tensor in compared.samples):
            tensor_findings = [finding for finding in counting if finding.tensor == tensor]
            testing = self._testing(tensor)
            if not testing and all(finding.place in covers for finding in tensor_findings):
                continue
            counted = _counted(tensor, tensor_findings, compared)
            pieces = []
            for regime, elements in counted.items():
                sample = compared.samples[regime, tensor]
                # other sizes hold the inputs of other regimes again
                tests = testing and regime not in OF_SIZES
                tested = np.union1d(elements, self._misrounded(sample)) if tests else elements
                if tested.size:
                    pieces.append(Piece(regime, sample, tested))
            if not pieces:
                continue
            part = Part.of(tensor, pieces)
            left = any(finding.place not in covers for finding in tensor_findings)
            counts = np.concatenate([np.isin(piece.elements, counted[piece.regime]) for piece in pieces])
            excuses = _sufficient(self._excuses(part, self._situation.active, excusing=left), counts & left)
            for finding in tensor_findings:
                at = part.positions(finding.regime, compared.elements[finding.place])
                cover = _cover(at, self._healthy(finding, tensor_findings, compared), excuses)
                if cover and finding.place not in covers:
                    covers[finding.place] = cover
            if testing:
                outside += self._outside(part, excuses, counted)
        return Explanation(self._as_another_kernel(compared, findings, covers), outside)

    def _healthy(self, finding: Finding, tensor_findings: Sequence[Finding], compared: Comparison) -> Mask:
        """Tell which elements of a finding are right: of the outputs at one input that depend on the place some are."""
        elements = compared.elements[finding.place]
        if finding.class_ != FindingClass.POSITION_DEPENDENT:
            return np.zeros(elements.size, np.bool_)
        deviant = [
            compared.elements[each.place]
            for each in tensor_findings
            if each.class_ != FindingClass.POSITION_DEPENDENT and each.regime == finding.regime
        ]
        return ~np.isin(elements, np.concatenate([NOTHING, *deviant]))

    def _as_another_kernel(
        self, compared: Comparison, findings: Sequence[Finding], covers: dict[Place, Coverage]
    ) -> dict[Place, Coverage]:
        """Return the covers with those of `same_as`: all numbers, where the other kernel's own judgement knows every finding."""
        for cause in self._situation.active:
            kernel = self._situation.kernels.get(cause.same_as.get(self._kernel.name, ""))
            left = [finding for finding in findings if finding.place not in covers and finding.tensor]
            if kernel is None or not left:
                continue
            test_vectors, samples = _judged_as(kernel, self._case, self._test_vectors, compared.samples)
            again = comparison_of(samples, test_vectors.tolerance)
            case = msgspec.structs.replace(self._case, subject=kernel.name)
            explained = Explainer(kernel, test_vectors, self._situation.of(case)).explain(again, again.findings)
            if all(finding.place in explained.covers for finding in again.findings):
                numeric = [finding for finding in left if finding.class_ not in STRUCTURAL]
                reason = f"judged as {kernel.name}, it is within the limits, or known"
                covers = covers | {finding.place: Coverage(cause.id, cause.blame, 0.0, reason) for finding in numeric}
        return covers

    def candidates(self, compared: Comparison, finding: Finding) -> tuple[str, ...]:
        """Return the causes of the whole register, of any route, that would explain every element of the finding."""
        elements = compared.elements.get(finding.place)
        if elements is None:
            return ()
        sample = compared.samples[finding.regime, finding.tensor]
        part = Part.of(finding.tensor, [Piece(finding.regime, sample, elements)])
        healthy = np.zeros(elements.size, np.bool_)
        causes = [cause for cause in self._situation.register.causes if cause not in self._situation.active]
        ids = [
            excuse.cause
            for excuse in self._excuses(part, causes)
            if _cover(np.arange(elements.size), healthy, [excuse]) and excuse.cause not in (CONVENTION, FLUSHED)
        ]
        return tuple(dict.fromkeys(ids))

    def _testing(self, tensor: str) -> bool:
        """Tell whether every element of the tensor is held against a formula: where one is stated, and no other kernel computed.

        Not graphs in 16 bits: inside an operator a runtime rounds each step, or none, as its processor has it.
        """
        if self._situation.graph and self._test_vectors.tolerance.fmt.bits == 16:
            return False
        if any(self._kernel.name in cause.same_as for cause in self._situation.active):
            return False
        return any(
            cause.test and ((cause.graph and self._situation.graph) or cause.texts(self._case, tensor))
            for cause in self._situation.active
        )

    def _misrounded(self, sample: Sample) -> NDArray[np.int64]:
        """Return the elements whose output is not the truth, correctly rounded: the others need no formula."""
        with np.errstate(all="ignore"):
            got, truth = sample.got.astype(np.float64), sample.truth
            rounded = np.abs(got - truth) <= 0.5 * ulp_of(np.ascontiguousarray(truth), self._test_vectors.tolerance.fmt)
            right = rounded | (got == truth) | (np.isnan(got) & np.isnan(truth))
        return np.flatnonzero(~right)

    def _excuses(self, part: Part, causes: Sequence[Cause], *, excusing: bool = True) -> Iterator[_Excuse]:
        """Yield the kernel's conventions, then each formula of the causes; without `excusing` only as tests of the elements."""
        with np.errstate(invalid="ignore"):  # a signalling NaN
            got, truth = part.sample.got.astype(np.float64), part.sample.truth
        allowed = accepted(self._kernel, self._case.aspect, self._test_vectors.tolerance.fmt, part.sample)
        yield _Excuse(CONVENTION, CONVENTION, "", allowed, allowed, np.zeros(got.size), tests=False)
        capped = self._within_cap(part.sample, got, truth) if excusing else np.zeros(got.shape, np.bool_)
        for cause in causes:
            library = self._situation.library(cause)
            if library is None:
                continue
            for text in cause.texts(self._case, part.tensor):
                number = self._number(lambda t=text, lib=library: self._evaluation.by_text(t, lib, part))
                if number is not None:
                    inside = admits(number, got, zero_sign=self._test_vectors.tolerance.zero_sign)
                    admitted = inside & (capped | _is_other(number, truth))
                    yield _Excuse(
                        cause.id, cause.blame, " ".join(text.split()), admitted, inside, _used(number, got), cause.test
                    )
            if cause.graph and self._situation.graph is not None:
                yield from self._by_graph(cause, library, part, got, truth, capped)
        if self._facts.get("subnormals") == "flushed" and flushes(self._test_vectors.tolerance.fmt):
            flushed = self._number(lambda: self._evaluation.flushed(part))
            if flushed is None:
                return
            inside = admits(flushed, got, zero_sign=False)
            words = "the definition, subnormal numbers taken for 0, as the backend states"
            yield _Excuse(FLUSHED, "", words, inside, inside, np.zeros(got.size), tests=False)

    def _by_graph(
        self,
        cause: Cause,
        library: LibraryAccuracy,
        part: Part,
        got: NDArray[np.float64],
        truth: NDArray[np.float64],
        capped: Mask,
    ) -> Iterator[_Excuse]:
        """Yield the graph's own arithmetic, where computed exactly it is the definition; in 16 bits also in float32."""
        assert self._situation.graph is not None
        try:
            graph = GraphFormula(self._situation.graph, library.operators)
        except WITHOUT_VALUE:
            return
        arithmetic = Arithmetic.of(library, self._test_vectors.tolerance.fmt, self._facts)
        double = library.steps.get(self._test_vectors.tolerance.fmt.name) == "double"
        plain = None
        if double or capped.any():  # else nothing is to be excused, and the exact graph is not needed
            plain = self._number(lambda: self._evaluation.by_graph(graph, exactly(arithmetic), part))
            if plain is None:
                return
        computed = [plain.rounded_to(arithmetic)] if double and plain else self._as_computed(graph, arithmetic, part)
        for number in computed:
            inside = admits(number, got, zero_sign=self._test_vectors.tolerance.zero_sign)
            definition = np.zeros(got.shape, np.bool_)
            if plain:
                # a factor of infinity that even float64 cannot tell from 0: NaN is then no sign of another graph
                zero_by_infinity = np.isnan(plain.error) & np.isnan(got)
                definition = _is_definition(plain, truth, number.error) | zero_by_infinity
            admitted = inside & capped & definition
            yield _Excuse(cause.id, cause.blame, "the graph", admitted, inside, _used(number, got), cause.test)

    def _as_computed(self, graph: GraphFormula, arithmetic: Arithmetic, part: Part) -> Iterator[Number]:
        """Yield what the graph gives as its runtime computes: each node rounded, in 16 bits perhaps only the end."""
        for wide in (False, True) if arithmetic.fmt.bits == 16 else (False,):
            number = self._number(lambda w=wide: self._evaluation.by_graph(graph, arithmetic, part, wide=w))
            if number is not None:
                yield number

    def _number(self, evaluate: object) -> Number | None:
        try:
            number: Number = evaluate()  # type: ignore[operator]
        except WITHOUT_VALUE:
            return None
        return number

    def _within_cap(self, sample: Sample, got: NDArray[np.float64], truth: NDArray[np.float64]) -> Mask:
        """Tell where the error is within what no formula may exceed: a few units, or all of the truth."""
        fmt, x = self._test_vectors.tolerance.fmt, sample.x
        if not self._test_vectors.tolerance.unary:
            return np.ones(got.shape, np.bool_)
        cotangent = 1.0 if sample.cotangent is None else np.abs(sample.cotangent)
        with np.errstate(invalid="ignore"):
            # what is rounded on the way may be subnormal where the cotangent is small
            size = np.where(np.isinf(x), 1.0, np.maximum(1.0, np.abs(x)))
            unit = np.maximum(fmt.unit_roundoff * cotangent, fmt.smallest_subnormal) * size
            off = np.abs(got - truth)
        near_kink = np.zeros(got.shape, np.bool_)
        for kink in self._kernel.kinks:  # where rounding turns a comparison, the error is the whole jump
            near_kink |= np.abs(x - kink.x) <= KINK_ULP * ulp_of(np.full(1, kink.x), fmt)
        return near_kink | ~(off > np.maximum(np.abs(truth), CAP * unit)) | ~np.isfinite(got) | ~np.isfinite(truth)

    def _outside(
        self, part: Part, excuses: Sequence[_Excuse], counted: Mapping[str, NDArray[np.int64]]
    ) -> list[Finding]:
        """Return the elements that no formula under test admits and no other finding counts, one finding for each regime."""
        tests = [excuse for excuse in excuses if excuse.tests]
        if not tests:
            return []
        free = ~np.any([excuse.inside for excuse in tests], axis=0) & ~excuses[0].admitted
        words = "outside " + " and ".join(excuse.text for excuse in tests)
        times = np.min([np.where(excuse.used > 0, excuse.used, np.inf) for excuse in tests], axis=0)
        findings = []
        for piece in part.pieces:
            at = piece.elements[free[part.positions(piece.regime, piece.elements)]]
            at = at[~np.isin(at, counted[piece.regime])]
            if at.size:
                beyond = times[part.positions(piece.regime, at)]
                findings.append(self._outlier(part.tensor, piece, at, beyond, words))
        return findings

    def _outlier(
        self, tensor: str, piece: Piece, at: NDArray[np.int64], beyond: NDArray[np.float64], words: str
    ) -> Finding:
        """Return the finding of elements that are `beyond` times as far from the nearest formula as it allows."""
        fmt, part = self._test_vectors.tolerance.fmt, piece.sample.part(at)
        got, x = part.got.astype(np.float64), part.x
        with np.errstate(all="ignore"):
            off = np.abs(got - part.truth) / ulp_of(np.ascontiguousarray(part.truth), fmt)
        worst = int(np.argmax(beyond))
        numbers = x if np.isnan(x).all() else x[~np.isnan(x)]
        return Finding(
            class_=FindingClass.FORMULA,
            count=int(at.size),
            regime=piece.regime,
            tensor=tensor,
            interval=Interval(to_hex(float(numbers.min()), fmt), to_hex(float(numbers.max()), fmt)),
            worst=Worst(
                input_hex=to_hex(float(x[worst]), fmt),
                index=int(at[worst]),
                truth=float(part.truth[worst]),
                got=float(got[worst]),
                ulp=float(off[worst]),
                scaled=float(beyond[worst]),
            ),
            magnitude=float(beyond[worst]),
            evidence=words,
        )


def _sufficient(excuses: Iterator[_Excuse], counts: Mask) -> list[_Excuse]:
    """Return the first excuses that leave nothing open: all that is counted admitted, of the rest all inside. The others are not evaluated."""
    sufficient, left = [], np.ones(counts.shape, np.bool_)
    for excuse in excuses:
        sufficient.append(excuse)
        left &= ~(excuse.admitted | (excuse.inside & excuse.tests & ~counts))
        if not left.any():
            break
    return sufficient


def _counted(tensor: str, findings: Sequence[Finding], compared: Comparison) -> dict[str, NDArray[np.int64]]:
    """Return the elements of a tensor that findings count, by regime, ascending."""
    return {
        regime: np.unique(
            np.concatenate(
                [NOTHING, *(compared.elements[finding.place] for finding in findings if finding.regime == regime)]
            )
        )
        for regime, name in compared.samples
        if name == tensor
    }


def _cover(elements: NDArray[np.int64], healthy: Mask, excuses: Sequence[_Excuse]) -> Coverage | None:
    """Return the cause that admits most of a finding's elements, where all causes together admit every one."""
    masks = [excuse.admitted[elements] for excuse in excuses]
    if not np.any([healthy, *masks], axis=0).all():
        return None
    if not any(mask.any() for mask in masks):
        return None
    best = max(range(len(excuses)), key=lambda number: int(masks[number].sum()))
    used = max(float(excuse.used[elements][mask].max(initial=0.0)) for excuse, mask in zip(excuses, masks, strict=True))
    chosen = excuses[best]
    evidence = f"explained by {chosen.text}, {used:.2g} of its bound" if chosen.text else ""
    return Coverage(chosen.cause, chosen.blame, used, evidence)


def _used(number: Number, got: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        share = np.abs(got - number.value) / number.error
    return np.where(np.isfinite(share), share, 0.0)


def _is_definition(plain: Number, truth: NDArray[np.float64], rounding: NDArray[np.float64]) -> Mask:
    """Tell where the graph in float64 is the truth, but for float64's own rounding and a negligible part of the format's."""
    with np.errstate(all="ignore"):
        slack = plain.error + NEGLIGIBLE * np.where(np.isfinite(rounding), rounding, 0.0) + 1e-13 * np.abs(truth)
        same: Mask = (np.abs(plain.value - truth) <= slack) | (plain.value == truth)
    return same | (np.isnan(plain.value) & np.isnan(truth))


def _is_other(number: Number, truth: NDArray[np.float64]) -> Mask:
    """Tell where the formula is another function than the definition, beyond its own error: then no cap of rounding holds."""
    with np.errstate(all="ignore"):
        differs: Mask = np.abs(number.value - truth) > number.error
    return differs


def _judged_as(
    kernel: Kernel, case: Case, test_vectors: TestVectors, samples: dict[tuple[str, str], Sample]
) -> tuple[TestVectors, dict[tuple[str, str], Sample]]:
    """Return a unary case's tolerance and outputs beside the truth of another kernel, at the same inputs."""
    gradient = case.aspect == "gradient"
    tolerance = unary_tolerance(
        kernel, case.aspect, test_vectors.tolerance.fmt, float(truth_of(kernel, np.zeros(1), gradient=gradient)[0])
    )
    moved = {}
    for key, sample in samples.items():
        truths = truth_of(kernel, sample.x, gradient=gradient)
        if sample.cotangent is not None:
            with np.errstate(invalid="ignore"):
                truths = truths * sample.cotangent
        moved[key] = msgspec.structs.replace(sample, truth=truths)
    return TestVectors(tolerance, test_vectors.vectors), moved
