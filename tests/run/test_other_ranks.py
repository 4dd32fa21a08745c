"""Our own graph for inputs of other ranks, and calls that were refused."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.comparison.varying import VaryingAnswers
from actconform.onnx.author.exporter import author
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.run.other_ranks import OtherRanks, asking, at_other_ranks, refused_shapes, without_refused
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import generate
from actconform.testdata.sizes import with_sizes
from actconform.types import Case
from actconform.workers.protocol import Failure, Job, JobResult

BY_NAME = {kernel.name: kernel for kernel in (*UNARY, *ROWS)}


def evaluated(job: Job) -> JobResult:
    """Run a job in the evaluator, whose inputs have the ranks that the graph declares."""
    graph = onnx.load_from_string(job.artifact.model).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.input}
    forward = CorrectlyRoundedEvaluator(job.artifact.model).forward
    for call in job.calls:
        assert {name: array.ndim for name, array in call.inputs.items()} == ranks
    return JobResult(outputs=[dict(forward(call.inputs)) for call in job.calls])


def asked(name: str, aspect: str, run=evaluated) -> OtherRanks:
    kernel = BY_NAME[name]
    golden = load(golden_dir(), read_manifest(golden_dir()), name)
    test_vectors = with_sizes(kernel, aspect, "f32", generate(kernel, aspect, "f32", golden))
    case = Case(name, aspect, "f32", "authored+evaluator")
    return at_other_ranks(
        kernel, case, author(kernel, "f32"), test_vectors.of_other_ranks(compiles_per_shape=False), run
    )


@pytest.mark.parametrize(
    ("name", "aspect"), [("relu", "value"), ("softmax", "value"), ("relu", "gradient"), ("prelu", "gradient")]
)
def test_the_graph_answers_at_every_rank(name, aspect):
    ranks = asked(name, aspect)
    assert len(ranks.vectors) == len(ranks.outputs) > 1
    assert set(ranks.artifacts) >= {3} | ({0} if name == "relu" else {1, 4})
    for vector, outputs in zip(ranks.vectors, ranks.outputs, strict=True):
        for tensor, truth in vector.truth.items():
            assert outputs[tensor].shape == truth.shape
            finite = np.isfinite(truth) & (vector.input_at[tensor] != 0)  # at a kink any slope between is right
            np.testing.assert_allclose(outputs[tensor][finite], truth[finite], rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("name", ["maxout", "sparsemax"])
def test_a_graph_whose_nodes_hold_its_rank_is_not_asked(name):
    assert not asked(name, "value").artifacts.keys() - {1}


def test_a_rank_that_is_refused_is_told():
    failed = JobResult(failure=Failure("load", "unsupported", "no such rank"))
    ranks = asked("relu", "value", lambda _: failed)
    assert (ranks.vectors, ranks.outputs, ranks.artifacts) == ([], [], {})
    nothing = Job(Case("relu", "value", "f32", "authored+evaluator"), None, [])
    words = f"{len(ranks.refused)} calls of other shapes refused: no such rank"
    assert refused_shapes(nothing, JobResult(), ranks) == words
    assert refused_shapes(nothing, JobResult(), OtherRanks([], [], {}, [])) == ""


def test_calls_that_were_refused_are_left_out():
    golden = load(golden_dir(), read_manifest(golden_dir()), "relu")
    test_vectors = generate(BY_NAME["relu"], "value", "f32", golden)
    test_vectors.vectors[3:] = []
    calls = [asking(vector) for vector in test_vectors.vectors]
    calls[1:3] = [
        msgspec.structs.replace(calls[1], may_refuse=True),
        msgspec.structs.replace(calls[2], layout="offset"),
    ]
    relation = calls[0]
    job = Job(Case("relu", "value", "f32", "torch"), None, [*calls, relation])
    outcome = JobResult(outputs=[{"y": np.full(1, n)} for n in range(4)], refused={1: "no", 2: "misaligned"})
    answers = VaryingAnswers(outcome.outputs, outcome.outputs)
    answered, of_answered, remaining = without_refused(test_vectors, job, outcome, answers)
    assert [id(vector) for vector in answered.vectors] == [id(test_vectors.vectors[n]) for n in (0, 2)]
    assert [id(call) for call in of_answered.calls] == [id(calls[0]), id(calls[2]), id(relation)]
    assert [output["y"].item() for output in remaining.nearest] == [0, 2, 3]
    assert not remaining.vary
