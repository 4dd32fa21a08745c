"""Re-evaluates a graph twice: by our correctly rounded evaluator, which rounds each node's exact result to its dtype, and by onnx's reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from actconform.comparison.comparator import compare, comparison_of, joined, structure
from actconform.comparison.layerwise import layerwise
from actconform.elements.classify import classify
from actconform.elements.elementwise import elementwise_errors
from actconform.errors import Unsupported
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.gates import io_names
from actconform.onnx.gradient_artifact import with_cotangents
from actconform.testdata.golden.model_goldens import LAYER
from actconform.testdata.metamorphic import REGIME as PROPERTY
from actconform.types import NOWHERE, FindingClass
from actconform.workers.protocol import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.comparison.comparator import Comparison
    from actconform.comparison.metamorphic import RelationChecks
    from actconform.elements.elementwise import Sample
    from actconform.testdata.kernel_vectors import TestVector, TestVectors
    from actconform.types import Artifact, Bundle, Finding
    from actconform.types.dtypes import FloatFormat
    from actconform.types.model import Model

EVALUATION_ERRORS = (Unsupported, DecodeError, ValueError, TypeError, KeyError, RuntimeError, IndexError)

SHOWN = {
    (True, True): "correctly rounded and in onnx's reference",
    (True, False): "correctly rounded, not in onnx's reference",
    (False, True): "in onnx's reference, not correctly rounded",
    (False, False): "neither correctly rounded nor in onnx's reference",
}

Agreement = Literal["wrong", "right", "disagree", "absent"]


class GraphOutputs(msgspec.Struct, frozen=True):
    """What one evaluator gives: its outputs joined by (regime, tensor), and what is wrong with them."""

    samples: Mapping[tuple[str, str], Sample]
    findings: list[Finding]


class Reevaluation:
    """Says whether the graph itself shows a finding. The inputs of a regime are evaluated when it is first needed.

    With `compared`, the comparison that the findings are of, test vectors of unary kernels of which no finding counts an element
    are taken to give their truth: special inputs are many small ones, of which few deviate. Without `relation_checks` findings of
    the class `property` are nobody's: no evaluator has the outputs that they need. `of_ranks` are the graphs of the inputs that
    have another rank than `artifact` takes.
    """

    def __init__(
        self,
        artifact: Artifact,
        test_vectors: TestVectors,
        relation_checks: RelationChecks | None = None,
        of_ranks: Mapping[int, Artifact] | None = None,
        compared: Comparison | None = None,
    ) -> None:
        self.artifact = artifact
        self._compared = compared
        self._test_vectors = test_vectors
        self._relation_checks = relation_checks
        self._of_ranks = of_ranks or {}
        self._evaluations: dict[str, list[GraphOutputs]] = {}
        self._evaluators: dict[tuple[str, int], tuple[Callable[[Bundle], Mapping[str, Any]], Sequence[str]]] = {}
        """Of each evaluator and rank of the inputs the graph's function, and the names of its inputs."""
        self._absent: dict[str, str] = {}
        """Of regimes in which an evaluator fails, why."""

    def agreement(self, finding: Finding) -> tuple[Agreement, str]:
        """Return what both evaluators say of the finding, and as evidence their numbers at its worst input, or which of them shows it.

        "wrong": both break the limit too, at the worst input or in the same way elsewhere among the finding's inputs, or both
        have the same finding where it has no worst input (`names`, `shape`, `dtype`, `bias`, `property`); "right": neither
        does; "absent": the graph cannot be evaluated, or the finding is about nothing that a graph computes.
        """
        if finding.class_ == FindingClass.PROPERTY and self._relation_checks is None:
            return "absent", ""
        evaluations = self._evaluate(finding.regime)
        if not evaluations:
            return "absent", f"no second evaluation of the graph: {self._absent[finding.regime]}"
        key = (finding.regime, finding.tensor)
        alike = [self._alike(evaluation, finding) for evaluation in evaluations]
        wrong = [violation is not None for violation in alike]
        if finding.worst is None:
            return _verdict(wrong), f"the graph itself shows it {SHOWN[wrong[0], wrong[1]]}"
        if any(key not in evaluation.samples for evaluation in evaluations):
            return "absent", f"no second evaluation of the graph: it gives no {finding.tensor} of this shape"
        at = np.array([finding.worst.index])
        parts = [evaluation.samples[key].part(at) for evaluation in evaluations]
        wrong = [shown or _breaks(part, finding, self._test_vectors) for shown, part in zip(wrong, parts, strict=True)]
        first, second = (float(part.got[0]) for part in parts)
        numbers = f"at x={finding.worst.input_hex} the graph gives {first:.9g} correctly rounded, {second:.9g} in onnx's reference"
        elsewhere = alike[0]
        if all(wrong) and elsewhere and elsewhere.worst:
            numbers += f"; at x={elsewhere.worst.input_hex} correctly rounded {elsewhere.worst.got:.9g}"
        return _verdict(wrong), numbers

    def _alike(self, evaluation: GraphOutputs, finding: Finding) -> Finding | None:
        """Return the first finding of an evaluation that shows the same: of single elements like it, or of all together like it."""
        anywhere = not self._test_vectors.tolerance.unary or finding.interval == NOWHERE
        sample = evaluation.samples.get((finding.regime, finding.tensor))
        single = _of_single_elements(finding, sample, self._test_vectors)
        same = (violation for violation in evaluation.findings if finding.same(violation, anywhere=anywhere))
        return next((it for it in same if _of_single_elements(it, sample, self._test_vectors) == single), None)

    def _evaluate(self, regime: str) -> list[GraphOutputs]:
        if regime not in self._evaluations:
            try:
                with np.errstate(all="ignore"):
                    self._evaluations[regime] = [
                        self._run(evaluator, regime) for evaluator in (_correctly_rounded, reference)
                    ]
            except EVALUATION_ERRORS as error:
                self._absent[regime], self._evaluations[regime] = f"{type(error).__name__}: {error}", []
        return self._evaluations[regime]

    def _run(self, evaluator: Callable[[bytes], Callable[[Bundle], Mapping[str, Any]]], regime: str) -> GraphOutputs:
        def outputs_of(call: Call) -> Bundle:
            inputs = with_cotangents(call.inputs, call.cotangents)
            rank = next(iter(call.inputs.values())).ndim
            artifact, key = self._of_ranks.get(rank, self.artifact), (evaluator.__name__, rank)
            if key not in self._evaluators:
                self._evaluators[key] = evaluator(artifact.model), io_names(artifact.model)[0]
            forward, names = self._evaluators[key]
            return {name: np.asarray(array) for name, array in forward({name: inputs[name] for name in names}).items()}

        vectors, all_outputs = [], []
        by_tensors: dict[tuple[int, int], Bundle] = {}  # layouts have these in common
        of_regime = [vector for vector in self._test_vectors.vectors if vector.regime == regime]
        for vector, deviates in zip(of_regime, self._deviating(regime, of_regime), strict=True):
            tensors = (id(vector.inputs), id(vector.cotangents))
            if deviates and tensors not in by_tensors:
                by_tensors[tensors] = outputs_of(Call(vector.regime, vector.inputs, vector.cotangents))
            agreeing = {name: array.astype(vector.dtypes[name]) for name, array in vector.truth.items()}
            all_outputs.append(by_tensors[tensors] if deviates else agreeing)
            # one period is enough of what is repeated
            vectors.append(msgspec.structs.replace(vector, rows=0) if vector.rows else vector)
        test_vectors = msgspec.structs.replace(self._test_vectors, vectors=vectors)
        typed: list[Bundle] = [
            {name: array.astype(vector.dtypes.get(name, array.dtype)) for name, array in outputs.items()}
            for vector, outputs in zip(vectors, all_outputs, strict=True)
        ]
        findings = structure(test_vectors, all_outputs) + compare(test_vectors, typed)[1]
        if self._relation_checks and regime == PROPERTY:
            findings += self._relation_checks.violations(
                [outputs_of(Call(*call)) for call in self._relation_checks.calls()]
            )
        return GraphOutputs(joined(test_vectors, typed), findings)

    def _deviating(self, regime: str, vectors: Sequence[TestVector]) -> NDArray[np.bool_]:
        """Tell of which test vectors of a regime a finding counts elements: of all, where one counts no single elements."""
        every, compared = np.ones(len(vectors), np.bool_), self._compared
        if compared is None or not self._test_vectors.tolerance.unary:
            return every
        deviating = np.zeros(len(vectors), np.bool_)
        for finding in compared.findings:
            if finding.regime != regime:
                continue
            if finding.place not in compared.elements or any(finding.tensor not in vector.truth for vector in vectors):
                return every
            ends = np.cumsum([vector.truth[finding.tensor].size for vector in vectors])
            if ends[-1] != compared.samples[regime, finding.tensor].got.size:  # outputs of another shape are left out
                return every
            deviating[np.searchsorted(ends, compared.elements[finding.place], side="right")] = True
        return deviating


def _correctly_rounded(model: bytes) -> Callable[[Bundle], Mapping[str, Any]]:
    return CorrectlyRoundedEvaluator(model).forward


class LayerReevaluation:
    """Says whether a model's graph itself shows a finding at a layer, each layer fed with the evaluator's own values."""

    def __init__(self, artifact: Artifact, model: Model, tensors: Bundle, fmt: FloatFormat) -> None:
        self.artifact = artifact
        self._vector = (model, tensors, fmt)
        self._findings: list[dict[str, Finding]] | None = None
        self._absent = ""

    def agreement(self, finding: Finding) -> tuple[Agreement, str]:
        """Return what both evaluators say of the finding's layer, as `Reevaluation.agreement` does, and how far off they are."""
        evaluations = self._evaluate()
        if not evaluations:
            return "absent", f"no second evaluation of the graph: {self._absent}"
        wrong = [finding.tensor in by_layer for by_layer in evaluations]
        off = [_off(by_layer.get(finding.tensor)) for by_layer in evaluations]
        evidence = f"layer {finding.tensor} of the graph is {off[0]} correctly rounded, {off[1]} in onnx's reference"
        return _verdict(wrong), evidence

    def _evaluate(self) -> list[dict[str, Finding]]:
        if self._findings is None:
            try:
                with np.errstate(all="ignore"):
                    runs = (CorrectlyRoundedEvaluator(self.artifact.model).forward, reference(self.artifact.model))
                    self._findings = [self._run(forward) for forward in runs]
            except EVALUATION_ERRORS as error:
                self._absent, self._findings = f"{type(error).__name__}: {error}", []
        return self._findings

    def _run(self, forward: Callable[[Bundle], Mapping[str, Any]]) -> dict[str, Finding]:
        model, tensors, fmt = self._vector
        names, _ = io_names(self.artifact.model)
        outputs = forward({name: tensors[name] for name in names})
        layer_values = {
            name.removeprefix(LAYER): np.asarray(value) for name, value in outputs.items() if name.startswith(LAYER)
        }
        _, findings = layerwise(model, tensors, layer_values, fmt, fused=False)
        return {finding.tensor: finding for finding in reversed(findings)}


def _verdict(wrong: Sequence[bool]) -> Agreement:
    return "wrong" if all(wrong) else "disagree" if any(wrong) else "right"


def _off(finding: Finding | None) -> str:
    if finding is None:
        return "within its bound"
    return f"off by {finding.magnitude:.3g} times its bound" if finding.magnitude else str(finding.class_)


def still(finding: Finding, test_vectors: TestVectors, outputs: Sequence[Bundle]) -> bool:
    """Tell whether other outputs for the same test vectors show the finding too: they break the limit at its worst input.

    Where that input breaks no limit by itself, the finding is one of many elements, and so must the other outputs' be.
    """
    key = (finding.regime, finding.tensor)
    sample = joined(test_vectors, outputs).get(key)
    assert finding.worst is not None  # callers pass findings of elements alone
    if sample is None:
        return True
    if _of_single_elements(finding, sample, test_vectors):
        return _breaks(sample.part(np.array([finding.worst.index])), finding, test_vectors)
    return any(map(finding.same, comparison_of({key: sample}, test_vectors.tolerance).findings))


def _of_single_elements(finding: Finding, sample: Sample | None, test_vectors: TestVectors) -> bool:
    """Tell whether the worst element of a finding breaks a limit by itself; `sample` has the inputs and the truth."""
    worst = finding.worst
    if sample is None or worst is None:
        return False
    part = sample.part(np.array([worst.index]))
    answered = msgspec.structs.replace(part, got=np.array([worst.got], part.got.dtype))
    return _breaks(answered, finding, test_vectors)


def _breaks(part: Sample, finding: Finding, test_vectors: TestVectors) -> bool:
    return bool(
        classify(
            part,
            test_vectors.tolerance,
            elementwise_errors(part, test_vectors.tolerance),
            finding.regime,
            finding.tensor,
        )
    )
