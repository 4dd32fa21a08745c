"""The calibrations as a worker serves them: they compute what they say, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.bench import calibration
from actconform.bench.calibration import COPY, MATMUL, CalibrationBackend
from actconform.errors import Unsupported
from actconform.plugin.loader import load_plugins
from actconform.types import Case
from actconform.workers.client import Worker
from actconform.workers.protocol import Call, Job
from actconform.workers.timing import Prepare, TakeSample


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_copying_writes_all_of_x(monkeypatch, threads, size):
    monkeypatch.setenv("ACTCONFORM_THREADS", threads)
    written = []
    monkeypatch.setattr(calibration.np, "copyto", lambda y, x: written.append((y, x)))
    program = CalibrationBackend().build(COPY, "f32")
    x = np.arange(size, dtype=np.float32)
    once = program.prepare_call({"x": x})
    once()
    assert np.array_equal(np.sort(np.concatenate([part for _, part in written])), x)
    assert sum(y.size for y, _ in written) == size
    assert len(written) == (3 if (threads, size) == ("3", 1 << 20) else 1)
    program.close()


def test_a_worker_serves_both_and_states_its_facts():
    x = np.full((calibration.SIDE, calibration.SIDE), 0.5, np.float32)
    with Worker(calibration.NAME, threads=2, plugins=[calibration.PLUGIN]) as worker:
        for kernel in (COPY, MATMUL):
            job = Job(Case(kernel.name, "value", "f32", calibration.NAME), None, [Call("throughput", {"x": x})])
            outcome = worker.run(job, 60)
            assert outcome.failure is None
            assert np.allclose(outcome.outputs[0]["y"], x if kernel is COPY else x @ x)
            prepared = worker.prepare(Prepare(kernel.name, job), 60)
            assert prepared.failure is None
            assert worker.sample(TakeSample(kernel.name, 1), 60).seconds > 0
        facts = worker.hello.facts
    assert facts["threads"] == "2"
    assert facts["numpy"] == np.__version__
    assert facts["blas"]


def test_nobody_else_has_them():
    catalog = load_plugins()
    assert calibration.NAME not in catalog.backends
    assert COPY.name not in catalog.kernels
    with pytest.raises(Unsupported):
        CalibrationBackend().build(catalog.kernels["relu"], "f32")
