"""What a program did beside its answers: one finding for each thing done wrong, none where nothing was."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.comparison.side_effects import behaviour
from actconform.testdata.kernel_vectors import TestVector, TestVectors
from actconform.tolerance.limits import Tolerance
from actconform.types.dtypes import DTYPES
from actconform.workers.protocol import JobResult

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def vector(regime: str) -> TestVector:
    x = np.ones(1, np.float32)
    wide = {"y": x.astype(np.float64)}
    return TestVector(regime=regime, inputs={"x": x}, cotangents=None, truth=wide, input_at=wide, dtypes={"y": x.dtype})


TEST_VECTORS = TestVectors(Tolerance(fmt=DTYPES["f32"], limit=1.0, exact=False), [vector("ordinary"), vector("huge")])


def test_nothing_done_is_nothing_found():
    assert behaviour(TEST_VECTORS, JobResult(), "", {}) == []
    assert behaviour(TEST_VECTORS, JobResult(placement={CUDA: ("Relu",)}), CUDA, {}) == []


def test_what_changed_and_what_wavered_is_named_with_its_regime():
    mutates, unsteady = behaviour(TEST_VECTORS, JobResult(mutated=[(1, "x")], unsteady=[(0, "y"), (1, "y")]), "", {})
    assert (mutates.class_, mutates.tensor, mutates.regime, mutates.count) == ("mutates-input", "x", "huge", 1)
    assert (unsteady.class_, unsteady.tensor, unsteady.regime) == ("nondeterministic", "y", "ordinary")
    assert unsteady.count == 2
    both = behaviour(TEST_VECTORS, JobResult(mutated=[(0, "slope"), (0, "x"), (7, "x")]), "", {})
    assert sorted(finding.tensor for finding in both) == ["slope", "x"]


def test_what_is_left_behind_is_one_finding_that_names_it():
    (finding,) = behaviour(TEST_VECTORS, JobResult(leaks=["3 more open files at every call", "1 more threads"]), "", {})
    assert (finding.class_, finding.count) == ("memory-growth", 2)
    assert finding.evidence == "3 more open files at every call; 1 more threads"


def test_answers_that_other_programs_or_threads_change_are_a_finding_for_each_output():
    entangled = [("a second program gives other bits", "y"), ("a thread", "y"), ("a thread raises", "")]
    whole, of_y = behaviour(TEST_VECTORS, JobResult(entangled=entangled), "", {})
    assert (whole.class_, whole.tensor, whole.evidence) == ("nondeterministic", "", "a thread raises")
    assert (of_y.tensor, of_y.evidence) == ("y", "a second program gives other bits; a thread")


@pytest.mark.parametrize(("facts", "count"), [({}, 2), ({"subnormals": "kept"}, 2), ({"subnormals": "flushed"}, 1)])
def test_a_process_that_is_changed_is_a_finding_but_for_flushing_that_is_declared(facts, count):
    changed = [("subnormal results", "a call changes the process: flushed"), ("rounding", "a call changes it: up")]
    (finding,) = behaviour(TEST_VECTORS, JobResult(changed=changed), "", facts)
    assert (finding.class_, finding.count) == ("nondeterministic", count)
    assert "up" in finding.evidence
    assert behaviour(TEST_VECTORS, JobResult(changed=changed[:1]), "", {"subnormals": "flushed"}) == []


@pytest.mark.parametrize("given", [{CPU: ("Mish", "Round")}, {CUDA: ("Relu",), CPU: ("Mish", "Round")}])
def test_a_node_at_another_provider_is_named(given):
    (finding,) = behaviour(TEST_VECTORS, JobResult(placement=given), CUDA, {})
    assert (finding.class_, finding.count) == ("placement", 2)
    assert finding.evidence == f"Mish, Round on {CPU}: asked for {CUDA}"


def test_where_no_provider_is_promised_any_will_do():
    assert behaviour(TEST_VECTORS, JobResult(placement={CPU: ("Relu",)}), "", {}) == []
