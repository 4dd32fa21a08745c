"""Two witnesses of a graph: our ideal runtime, rounding each node's exact result to its dtype, and onnx's reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from actconform.compare.classify import classify
from actconform.compare.comparator import compare, joined, structure
from actconform.compare.elementwise import measure
from actconform.compare.layerwise import layerwise
from actconform.errors import Unsupported
from actconform.onnx.evaluate.evaluator import IdealRuntime
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.gates import io_names
from actconform.onnx.gradient_artifact import with_cotangents
from actconform.testdata.golden.model_goldens import LAYER
from actconform.types import NOWHERE, FindingClass
from actconform.workers.protocol import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actconform.compare.elementwise import Sample
    from actconform.compare.metamorphic import Claims
    from actconform.testdata.kernel_vectors import Exam
    from actconform.types import Artifact, Bundle, Finding
    from actconform.types.dtypes import FloatFormat
    from actconform.types.model import Model

WITHOUT_ANSWER = (Unsupported, DecodeError, ValueError, TypeError, KeyError, RuntimeError, IndexError)

SHOWN = {
    (True, True): "ideally and in onnx's reference",
    (True, False): "ideally, not in onnx's reference",
    (False, True): "in onnx's reference, not ideally",
    (False, False): "neither ideally nor in onnx's reference",
}

Testimony = Literal["wrong", "right", "disagree", "absent"]


class Seen(msgspec.Struct, frozen=True):
    """What one witness gives: its answers joined by (regime, tensor), and what is wrong with them."""

    samples: Mapping[tuple[str, str], Sample]
    findings: list[Finding]


class Witnesses:
    """Says whether the graph itself gives what was found. Evaluated at the first question, all inputs at once.

    Without `claims` findings of the class `property` are nobody's: no witness answers what they were asked.
    """

    def __init__(self, artifact: Artifact, exam: Exam, claims: Claims | None = None) -> None:
        self.artifact = artifact
        self._exam = exam
        self._claims = claims
        self._seen: list[Seen] | None = None
        self._absent = ""

    def testify(self, finding: Finding) -> tuple[Testimony, str]:
        """Return what both witnesses say of the finding, and as evidence their numbers at its worst input, or who shows it.

        "wrong": both break the limit too, at the worst input or in the same way elsewhere among the finding's inputs, or both
        have the same finding where it has no worst input (`names`, `shape`, `dtype`, `bias`, `property`); "right": neither
        does; "absent": the graph cannot be evaluated, or what was found is nothing that a graph was asked for.
        """
        if finding.class_ == FindingClass.PROPERTY and self._claims is None:
            return "absent", ""
        seen = self._evaluate()
        if not seen:
            return "absent", f"no second evaluation of the graph: {self._absent}"
        key = (finding.regime, finding.tensor)
        wrong = [any(self._alike(other, finding) for other in witness.findings) for witness in seen]
        if finding.worst is None:
            return _verdict(wrong), f"the graph itself shows it {SHOWN[wrong[0], wrong[1]]}"
        if any(key not in witness.samples for witness in seen):
            return "absent", f"no second evaluation of the graph: it gives no {finding.tensor} of this shape"
        at = np.array([finding.worst.index])
        parts = [witness.samples[key].part(at) for witness in seen]
        wrong = [alike or _breaks(part, finding, self._exam) for alike, part in zip(wrong, parts, strict=True)]
        first, second = (float(part.got[0]) for part in parts)
        numbers = (
            f"at x={finding.worst.input_hex} the graph gives {first:.9g} ideally, {second:.9g} in onnx's reference"
        )
        elsewhere = next((other for other in seen[0].findings if self._alike(other, finding)), None)
        if all(wrong) and elsewhere and elsewhere.worst:
            numbers += f"; at x={elsewhere.worst.input_hex} ideally {elsewhere.worst.got:.9g}"
        return _verdict(wrong), numbers

    def _alike(self, other: Finding, finding: Finding) -> bool:
        return finding.same(other, anywhere=not self._exam.rule.unary or finding.interval == NOWHERE)

    def _evaluate(self) -> list[Seen]:
        if self._seen is None:
            try:
                with np.errstate(all="ignore"):
                    runs = (IdealRuntime(self.artifact.model).forward, reference(self.artifact.model))
                    self._seen = [self._ask(forward) for forward in runs]
            except WITHOUT_ANSWER as error:
                self._absent, self._seen = f"{type(error).__name__}: {error}", []
        return self._seen

    def _ask(self, forward: Callable[[Bundle], Mapping[str, Any]]) -> Seen:
        names, _ = io_names(self.artifact.model)

        def answer(call: Call) -> Bundle:
            given = with_cotangents(call.inputs, call.cotangents)
            return {name: np.asarray(array) for name, array in forward({name: given[name] for name in names}).items()}

        questions = self._exam.questions
        answers = [answer(Call(one.regime, one.inputs, one.cotangents)) for one in questions]
        typed: list[Bundle] = [
            {name: array.astype(question.dtypes.get(name, array.dtype)) for name, array in outputs.items()}
            for question, outputs in zip(questions, answers, strict=True)
        ]
        found = structure(self._exam, answers) + compare(self._exam, typed)[1]
        if self._claims:
            found += self._claims.broken([answer(Call(*call)) for call in self._claims.calls()])
        return Seen(joined(self._exam, typed), found)


class LayerWitnesses:
    """Says whether a model's graph itself gives what was found at a layer, each layer fed with the witness's own values."""

    def __init__(self, artifact: Artifact, model: Model, tensors: Bundle, fmt: FloatFormat) -> None:
        self.artifact = artifact
        self._question = (model, tensors, fmt)
        self._found: list[dict[str, Finding]] | None = None
        self._absent = ""

    def testify(self, finding: Finding) -> tuple[Testimony, str]:
        """Return what both witnesses say of the finding's layer, as `Witnesses.testify` does, and how far off they are."""
        found = self._evaluate()
        if not found:
            return "absent", f"no second evaluation of the graph: {self._absent}"
        wrong = [finding.tensor in one for one in found]
        off = [_off(one.get(finding.tensor)) for one in found]
        said = f"layer {finding.tensor} of the graph is {off[0]} ideally, {off[1]} in onnx's reference"
        return _verdict(wrong), said

    def _evaluate(self) -> list[dict[str, Finding]]:
        if self._found is None:
            try:
                with np.errstate(all="ignore"):
                    runs = (IdealRuntime(self.artifact.model).forward, reference(self.artifact.model))
                    self._found = [self._ask(forward) for forward in runs]
            except WITHOUT_ANSWER as error:
                self._absent, self._found = f"{type(error).__name__}: {error}", []
        return self._found

    def _ask(self, forward: Callable[[Bundle], Mapping[str, Any]]) -> dict[str, Finding]:
        model, tensors, fmt = self._question
        names, _ = io_names(self.artifact.model)
        outputs = forward({name: tensors[name] for name in names})
        seen = {
            name.removeprefix(LAYER): np.asarray(value) for name, value in outputs.items() if name.startswith(LAYER)
        }
        _, findings = layerwise(model, tensors, seen, fmt, fused=False)
        return {finding.tensor: finding for finding in reversed(findings)}


def _verdict(wrong: Sequence[bool]) -> Testimony:
    return "wrong" if all(wrong) else "disagree" if any(wrong) else "right"


def _off(finding: Finding | None) -> str:
    if finding is None:
        return "within its bound"
    return f"off by {finding.magnitude:.3g} times its bound" if finding.magnitude else str(finding.class_)


def still(finding: Finding, exam: Exam, answers: Sequence[Bundle]) -> bool:
    """Tell whether other answers to the same questions break the limit at the finding's worst input too."""
    sample = joined(exam, answers).get((finding.regime, finding.tensor))
    assert finding.worst is not None  # the caller asks of elements
    return sample is None or _breaks(sample.part(np.array([finding.worst.index])), finding, exam)


def _breaks(part: Sample, finding: Finding, exam: Exam) -> bool:
    return bool(classify(part, exam.rule, measure(part, exam.rule), finding.regime, finding.tensor))
