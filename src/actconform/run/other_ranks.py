"""What a case is asked beside what its graph declares: our own graph again for inputs of other ranks; what was refused is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import onnx

from actconform.errors import Unsupported
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.gradient_artifact import vjp_artifact, with_cotangents
from actconform.text import number_of
from actconform.workers.protocol import Call, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actconform.comparison.varying import VaryingAnswers
    from actconform.testdata.kernel_vectors import TestVector, TestVectors
    from actconform.types import Artifact, Bundle, Case, Kernel
    from actconform.workers.protocol import JobResult


ROUGHLY = 0.1  # drawn rows are a few units in size, and rounding in 16 bits is not the matter here


class OtherRanks(NamedTuple):
    """The test vectors of other ranks that were answered, the answers, the graph of each rank, and why others were refused."""

    vectors: list[TestVector]
    outputs: list[Bundle]
    artifacts: dict[int, Artifact]
    refused: list[str]


def asking(vector: TestVector) -> Call:
    """Return the call of a test vector."""
    inputs, cotangents = vector.asked()
    return Call(vector.regime, inputs, cotangents, vector.layout, vector.first_plain, vector.may_refuse)


def without_refused(
    test_vectors: TestVectors, job: Job, outcome: JobResult, answers: VaryingAnswers
) -> tuple[TestVectors, Job, VaryingAnswers]:
    """Return the test vectors, the job and the answers without the calls that may be refused, and were."""
    dropped = _refused_calls(job, outcome)
    if not dropped:
        return test_vectors, job, answers
    count = len(test_vectors.vectors)
    vectors = [test_vectors.vectors[number] for number in range(count) if number not in dropped]
    calls = [call for number, call in enumerate(job.calls) if number not in dropped]
    answered = msgspec.structs.replace(test_vectors, vectors=vectors)
    return answered, msgspec.structs.replace(job, calls=calls, repeated=()), answers.without(dropped)


def _refused_calls(job: Job, outcome: JobResult) -> dict[int, str]:
    return {number: message for number, message in outcome.refused.items() if job.calls[number].may_refuse}


def refused_shapes(job: Job, outcome: JobResult, ranks: OtherRanks) -> str:
    """Return in words that calls of other shapes were refused, with the first message; empty where none was."""
    messages = [*_refused_calls(job, outcome).values(), *ranks.refused]
    calls = f"{number_of(len(messages), 'call')} of other shapes refused"
    return f"{calls}: {messages[0].splitlines()[0]}" if messages else ""


def at_other_ranks(
    kernel: Kernel,
    case: Case,
    graph: Artifact,
    by_rank: Mapping[int, Sequence[TestVector]],
    run: Callable[[Job], JobResult],
) -> OtherRanks:
    """Ask the graph that we write, declared for each rank; a rank that its nodes do not take, or that is refused, is left out.

    A runtime that dies raises its WorkerError.
    """
    answered = OtherRanks([], [], {}, [])
    for rank, vectors in by_rank.items():
        artifact = _declared(graph, kernel, case, rank)
        if artifact is None or (kernel.form == "row" and not _takes(artifact, vectors[0])):
            continue
        calls = [
            Call(call.regime, with_cotangents(call.inputs, call.cotangents), may_refuse=True)
            for call in map(asking, vectors)
        ]
        outcome = run(Job(case, artifact, calls))
        if outcome.failure is not None:
            answered.refused.append(outcome.failure.message)
            continue
        answered_calls = [number for number in range(len(vectors)) if number not in outcome.refused]
        answered.vectors.extend(vectors[number] for number in answered_calls)
        answered.outputs.extend(outcome.outputs[number] for number in answered_calls)
        answered.refused.extend(outcome.refused.values())
        answered.artifacts[rank] = artifact
    return answered


def _declared(graph: Artifact, kernel: Kernel, case: Case, rank: int) -> Artifact | None:
    """Return the graph of a case whose first input has that rank; None where its nodes do not give an output of the rank that is due."""
    model = onnx.load_from_string(graph.model)
    (output,) = model.graph.output
    output.type.tensor_type.ClearField("shape")
    declared = model.graph.input[0].type.tensor_type
    dims = [onnx.TensorShapeProto.Dimension(dim_param=name) for name in kernel.dims("x", rank)]
    declared.shape.CopyFrom(onnx.TensorShapeProto(dim=dims))
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        if len(model.graph.output[0].type.tensor_type.shape.dim) != rank - (kernel.output_width == "one"):
            return None
        artifact = msgspec.structs.replace(graph, model=model.SerializeToString())
        return vjp_artifact(artifact, kernel) if case.aspect == "gradient" else artifact
    except (Unsupported, onnx.shape_inference.InferenceError):
        return None


def _takes(artifact: Artifact, vector: TestVector) -> bool:
    """Tell whether the graph, correctly rounded, is right at a test vector: its nodes may name an axis that is another at this rank."""
    inputs = with_cotangents(vector.inputs, vector.cotangents)
    try:
        outputs = CorrectlyRoundedEvaluator(artifact.model).forward(inputs)
    except (Unsupported, ValueError, IndexError):
        return False
    return all(
        np.shape(outputs[name]) == truth.shape
        and np.allclose(np.asarray(outputs[name], np.float64), truth, rtol=ROUGHLY, atol=ROUGHLY)
        for name, truth in vector.truth.items()
    )
