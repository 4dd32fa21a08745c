"""Times workloads one after another, with one worker a backend: nothing else runs meanwhile."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from actconform.bench import calibration
from actconform.bench.flops import ITEM, flops
from actconform.bench.interleaved import Runner, Samples, interleaved_rounds
from actconform.bench.jobs import job_of
from actconform.bench.results import Calibration, Measured, NotTimed, benchmark_result, calibrated, with_ratios
from actconform.bench.tensors import REGIME, elements_and_bytes, generate_tensors
from actconform.bench.verdicts import judged
from actconform.run.case import CaseContext, VectorCache
from actconform.run.export_cache import Exports, cache_folder
from actconform.run.scheduler import facts_of, worker_for
from actconform.types import RAN, Case
from actconform.types.model import Model
from actconform.workers.client import Worker
from actconform.workers.protocol import Call, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from actconform.bench.workloads import Workload
    from actconform.run.scheduler import Plan
    from actconform.types import Bundle, Result

AGAIN = " again"  # after a route's name: its second program


class BenchmarkRunner:
    """Times workloads; a context manager that closes its workers at the end."""

    def __init__(self, plan: Plan, results: Mapping[str, Result], *, rounds: int, twice: bool) -> None:
        self._plan = plan
        self._results = results
        self._rounds = rounds
        self._twice = twice
        self._vector_cache = VectorCache(plan.folder, plan.manifest)
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def facts(self) -> dict[str, dict[str, str]]:
        """Return the facts of every worker that was started, the calibration's among them."""
        hellos = {name: worker.hello for name, worker in self._workers.items()}
        return {name: {**facts_of(hello), "cpu": hello.cpu} for name, hello in hellos.items() if hello}

    def time(self, workload: Workload, routes: Sequence[str]) -> tuple[Measured | None, list[NotTimed]]:
        """Return the results of the routes whose cases ran, None where there are none, and the reason for every other route."""
        verdicts = {route: judged(workload, route, self._results) for route in routes}
        out = [
            NotTimed(workload, route, judgement.verdict, judgement.reason)
            for route, judgement in verdicts.items()
            if judgement.verdict not in RAN
        ]
        running = [route for route in routes if verdicts[route].verdict in RAN]
        if not running:
            return None, out
        names = [name for suffix in ("", AGAIN)[: 1 + self._twice] for name in (route + suffix for route in running)]
        subject = self._plan.catalog.subject(workload.subject)
        tensors = cache(lambda constants: generate_tensors(subject, workload, constants=constants))
        runners = [self._calibration(workload), *(self._runner(workload, name, tensors) for name in names)]
        samples = interleaved_rounds(runners, self._rounds, self._plan.config.timeout)
        scale = samples.pop(calibration.NAME)
        stopped = {name: run.stopped or scale.stopped for name, run in samples.items() if run.stopped or scale.stopped}
        out += [NotTimed(workload, name, "stopped", reason) for name, reason in stopped.items()]
        if scale.stopped:
            return None, out
        scaled = self._calibrated(workload, scale)
        figures = [
            benchmark_result(
                verdicts[route],
                samples[route],
                scaled,
                counts=self._counts(workload),
                device=self._device(workload, route),
                again=samples.get(route + AGAIN),
            )
            for route in running
            if route not in stopped
        ]
        return Measured(workload=workload, calibration=scaled, figures=with_ratios(figures)) if figures else None, out

    def _worker(self, backend: str) -> Worker:
        if backend not in self._workers:
            if backend == calibration.NAME:
                worker = Worker(backend, threads=self._plan.config.threads, plugins=[calibration.PLUGIN])
            else:
                worker = worker_for(self._plan, backend)
            self._workers[backend] = worker
        return self._workers[backend]

    def _runner(self, workload: Workload, name: str, tensors: Callable[[bool], tuple[Bundle, Bundle | None]]) -> Runner:
        plan, route = self._plan, name.removesuffix(AGAIN)
        case = workload.case(route)
        exporter = plan.catalog.exporter(case)
        exports = Exports(self._worker(exporter.source), cache_folder()) if exporter else None
        worker = self._worker(plan.catalog.worker(case))
        context = CaseContext(plan.catalog, plan.register, plan.config.timeout, self._vector_cache, worker, exports, {})
        return Runner(name, worker, partial(job_of, workload, route, context, tensors))

    def _calibration(self, workload: Workload) -> Runner:
        side, kernel = calibration.SIDE, calibration.COPY
        if self._kind(workload) == "copy":
            x = np.ones(self._counts(workload)[0], np.float32)
        else:
            kernel = calibration.MATMUL
            x = np.full((side, side), 0.5, np.float32)
        job = Job(Case(kernel.name, "value", "f32", calibration.NAME), None, [Call(REGIME, {"x": x})])
        return Runner(calibration.NAME, self._worker(calibration.NAME), lambda: job)

    def _kind(self, workload: Workload) -> Literal["copy", "matmul"]:
        return "matmul" if isinstance(self._plan.catalog.subject(workload.subject), Model) else "copy"

    def _counts(self, workload: Workload) -> tuple[int, int]:
        """Return the elements of a kernel's x and the bytes of a call, or a model's samples and floating-point operations."""
        subject = self._plan.catalog.subject(workload.subject)
        if isinstance(subject, Model):
            return workload.size, flops(subject, workload.size, workload.direction)
        return elements_and_bytes(subject, workload)

    def _calibrated(self, workload: Workload, samples: Samples) -> Calibration:
        kind = self._kind(workload)
        amount = calibration.MATMUL_FLOPS if kind == "matmul" else 2 * ITEM * self._counts(workload)[0]
        return calibrated(kind, amount, samples)

    def _device(self, workload: Workload, route: str) -> str:
        hello = self._worker(self._plan.catalog.worker(workload.case(route))).hello
        return hello.facts.get("device", "cpu") if hello else "cpu"
