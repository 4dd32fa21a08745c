"""The workers of a measurement, one a backend, and one trial after another on them: nothing else runs meanwhile."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from actconform.bench import calibration
from actconform.bench.flops import ITEM, flops
from actconform.bench.interleaved import Runner, Samples, in_turns
from actconform.bench.jobs import job_of
from actconform.bench.results import Calibration, Measured, NotTimed, calibrated, figure_of, with_ratios
from actconform.bench.tensors import REGIME, drawn, elements_and_bytes
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
    """Times trials; a context manager, at whose end the workers end."""

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
        """Return the facts of every process that has served, the calibration's among them."""
        hellos = {name: worker.hello for name, worker in self._workers.items()}
        return {name: {**facts_of(hello), "cpu": hello.cpu} for name, hello in hellos.items() if hello}

    def time(self, workload: Workload, routes: Sequence[str]) -> tuple[Measured | None, list[NotTimed]]:
        """Return the figures of those routes whose cases ran, and why the others have none; None where none has one."""
        found = {route: judged(workload, route, self._results) for route in routes}
        out = [
            NotTimed(workload, route, one.verdict, one.reason) for route, one in found.items() if one.verdict not in RAN
        ]
        running = [route for route in routes if found[route].verdict in RAN]
        if not running:
            return None, out
        names = [name for suffix in ("", AGAIN)[: 1 + self._twice] for name in (route + suffix for route in running)]
        subject = self._plan.catalog.subject(workload.subject)
        tensors = cache(lambda constants: drawn(subject, workload, constants=constants))
        runners = [self._calibration(workload), *(self._runner(workload, name, tensors) for name in names)]
        taken = in_turns(runners, self._rounds, self._plan.config.timeout)
        scale = taken.pop(calibration.NAME)
        stopped = {name: one.stopped or scale.stopped for name, one in taken.items() if one.stopped or scale.stopped}
        out += [NotTimed(workload, name, "stopped", why) for name, why in stopped.items()]
        if scale.stopped:
            return None, out
        scaled = self._calibrated(workload, scale)
        figures = [
            figure_of(
                found[route],
                taken[route],
                scaled,
                work=self._work(workload),
                device=self._device(workload, route),
                again=taken.get(route + AGAIN),
            )
            for route in running
            if route not in stopped
        ]
        return Measured(workload=workload, calibration=scaled, figures=with_ratios(figures)) if figures else None, out

    def _worker(self, backend: str) -> Worker:
        if backend not in self._workers:
            if backend == calibration.NAME:
                made = Worker(backend, threads=self._plan.config.threads, plugins=[calibration.PLUGIN])
            else:
                made = worker_for(self._plan, backend)
            self._workers[backend] = made
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
            x = np.ones(self._work(workload)[0], np.float32)
        else:
            kernel = calibration.MATMUL
            x = np.full((side, side), 0.5, np.float32)
        job = Job(Case(kernel.name, "value", "f32", calibration.NAME), None, [Call(REGIME, {"x": x})])
        return Runner(calibration.NAME, self._worker(calibration.NAME), lambda: job)

    def _kind(self, workload: Workload) -> Literal["copy", "matmul"]:
        return "matmul" if isinstance(self._plan.catalog.subject(workload.subject), Model) else "copy"

    def _work(self, workload: Workload) -> tuple[int, int]:
        """Return the elements of a kernel's x and the bytes of a call, or a model's samples and operations."""
        subject = self._plan.catalog.subject(workload.subject)
        if isinstance(subject, Model):
            return workload.size, flops(subject, workload.size, workload.direction)
        return elements_and_bytes(subject, workload)

    def _calibrated(self, workload: Workload, taken: Samples) -> Calibration:
        kind = self._kind(workload)
        amount = calibration.MATMUL_FLOPS if kind == "matmul" else 2 * ITEM * self._work(workload)[0]
        return calibrated(kind, amount, taken)

    def _device(self, workload: Workload, route: str) -> str:
        hello = self._worker(self._plan.catalog.worker(workload.case(route))).hello
        return hello.facts.get("device", "cpu") if hello else "cpu"
