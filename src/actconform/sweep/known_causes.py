"""Which findings of a sweep are explained: the program is called again at a sample of their inputs, and held against registered causes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.comparison.comparator import Comparison, joined
from actconform.elements.classify import locate
from actconform.elements.elementwise import Sample, elementwise_errors
from actconform.errors import SweepError, WorkerError
from actconform.exhaustive.measure import SweptFunction
from actconform.run.subject import subject_of
from actconform.sweep.journal import CoveredFinding
from actconform.sweep.row_sample import answered_rows, is_sampled, row_vectors
from actconform.testdata.kernel_vectors import TestVector, TestVectors
from actconform.verdict.causes.explain import Explainer, Situation
from actconform.workers.protocol import Call, Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.plugin.loader import Catalog
    from actconform.sweep.journal import Sweep, SweptChunk
    from actconform.types import Artifact, Case, Finding, Place
    from actconform.types.cause import Register
    from actconform.verdict.causes.explain import Coverage
    from actconform.workers.client import Worker

REGIME = "sweep"
SAMPLED = 512  # inputs of a finding, beside its worst
AFTER = 64  # inputs more, whose outputs are not looked at: vector code leaves the last of an array to scalar code, which is another


class Explanations(NamedTuple):
    """What findings are explained with: the catalog, the register of causes, and the seconds that a worker has to answer."""

    catalog: Catalog
    register: Register
    timeout: float

    def of_sweep(self, sweep: Sweep, artifact: Artifact | None, worker: Worker) -> list[CoveredFinding]:
        """Return the findings of a complete sweep that are explained. Raises SweepError where the program fails at their inputs."""
        case, facts = sweep.identity.case, sweep.identity.facts
        if is_sampled(self.catalog.kernels[case.subject]):
            return self.explained_rows(case, artifact, sweep.chunks.values(), worker, facts)
        return self.explained(case, artifact, sweep.statistics.findings, worker, facts)

    def explained(
        self,
        case: Case,
        artifact: Artifact | None,
        findings: Sequence[Finding],
        worker: Worker,
        facts: Mapping[str, str],
    ) -> list[CoveredFinding]:
        """Return the findings that a cause of the register, or a convention of the kernel, explains.

        Asked are a finding's worst input and up to 512 others, evenly spread over its interval of patterns. It is explained where
        everything that breaks the same limit among them is. Raises SweepError where the program fails at them.
        """
        if not findings:
            return []
        function = SweptFunction.of(self.catalog.kernels[case.subject], case.aspect)
        inputs = [_inputs(finding) for finding in findings]
        bits = np.unique(np.concatenate(inputs))
        vector, sample = self._answered(case, artifact, function, bits.view(np.float32), worker)
        errors = elementwise_errors(sample, function.tolerance)
        located = locate(sample, function.tolerance, errors, REGIME, function.tensor)
        elements = {each.finding.place: each.elements for each in located}
        compared = Comparison([], [each.finding for each in located], {(REGIME, function.tensor): sample}, elements)
        covers = self._covers(case, artifact, TestVectors(function.tolerance, [vector]), compared, facts)
        covered = []
        for finding, asked in zip(findings, inputs, strict=True):
            same = [
                each.finding.place
                for each in located
                if each.finding.class_ == finding.class_ and np.isin(bits[each.elements], asked).any()
            ]
            if same and all(place in covers for place in same):
                covered.append(CoveredFinding(finding.class_, finding.tensor, finding.interval, covers[same[0]].cause))
        return covered

    def explained_rows(
        self,
        case: Case,
        artifact: Artifact | None,
        chunks: Iterable[SweptChunk],
        worker: Worker,
        facts: Mapping[str, str],
    ) -> list[CoveredFinding]:
        """Return the findings of chunks of a sample that are explained: the calls of the chunk are made again. All else is as in `explained`."""
        covered = []
        for chunk in chunks:
            if not chunk.statistics.findings:
                continue
            kernel = self.catalog.kernels[case.subject]
            vectors = row_vectors(kernel, case.aspect, chunk.chunk)
            outputs, _ = answered_rows(worker, kernel, case, artifact, vectors, chunk.chunk, self.timeout)
            samples = joined(vectors, outputs)
            located = []
            for (regime, tensor), sample in samples.items():
                errors = elementwise_errors(sample, vectors.tolerance)
                located += locate(sample, vectors.tolerance, errors, regime, tensor)
            elements = {each.finding.place: each.elements for each in located}
            compared = Comparison([], [each.finding for each in located], samples, elements)
            covers = self._covers(case, artifact, vectors, compared, facts)
            causes = {(each.finding.class_, each.finding.tensor): covers.get(each.finding.place) for each in located}
            covered += [
                CoveredFinding(finding.class_, finding.tensor, finding.interval, cover.cause, chunk.chunk)
                for finding in chunk.statistics.findings
                if (cover := causes.get((finding.class_, finding.tensor))) is not None
            ]
        return covered

    def _covers(
        self,
        case: Case,
        artifact: Artifact | None,
        vectors: TestVectors,
        compared: Comparison,
        facts: Mapping[str, str],
    ) -> Mapping[Place, Coverage]:
        registered = self.catalog.registered(case)
        active = self.register.active(registered, facts)
        graph = artifact.model if artifact else None
        situation = Situation(registered, self.register, active, facts, self.catalog.kernels, graph)
        explainer = Explainer(self.catalog.kernels[case.subject], vectors, situation)
        return explainer.explain(compared, compared.findings).covers

    def _answered(
        self, case: Case, artifact: Artifact | None, function: SweptFunction, x: NDArray[np.float32], worker: Worker
    ) -> tuple[TestVector, Sample]:
        asked = np.concatenate([x, np.resize(x, AFTER)])
        call = Call(REGIME, {"x": asked}, {"y": np.ones_like(asked)} if case.aspect == "gradient" else None)
        job = Job(case, artifact, [subject_of(function.kernel).call_for(call, artifact) if artifact else call])
        try:
            outcome = worker.run(job, self.timeout)
        except WorkerError as error:
            raise SweepError(f"{case.id}, at the inputs of its findings: {error}") from error
        if outcome.failure is not None:
            raise SweepError(f"{case.id}, at the inputs of its findings: {outcome.failure.message}")
        with np.errstate(invalid="ignore"):  # a signalling NaN
            wide = x.astype(np.float64)
        truth = function.formula(wide, function.kernel.parameters)
        cotangents = None if call.cotangents is None else {"y": np.ones_like(x)}
        cotangent = None if cotangents is None else np.ones_like(wide)
        tensor = function.tensor
        vector = TestVector(
            regime=REGIME,
            inputs={"x": x},
            cotangents=cotangents,
            truth={tensor: truth},
            input_at={tensor: wide},
            dtypes={tensor: x.dtype},
        )
        return vector, Sample(got=outcome.outputs[0][tensor][: x.size], truth=truth, x=wide, cotangent=cotangent)


def _inputs(finding: Finding) -> NDArray[np.uint32]:
    """Return the patterns at which a finding is looked at again."""
    first, last = sorted(int(pattern, 16) for pattern in finding.interval)
    spread = np.linspace(first, last, min(SAMPLED, last - first + 1)).astype(np.int64)
    worst = [int(finding.worst.input_hex, 16)] if finding.worst else []
    return np.unique(np.concatenate([spread, np.array(worst, np.int64)])).astype(np.uint32)
