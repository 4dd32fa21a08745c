"""A run on a Dask cluster: a task for the start of each line, then one for the cases of each subject; results are taken as they come."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from distributed import KilledWorker, as_completed

from actconform.cluster.opened import opened_on
from actconform.cluster.placement import START, LinePlacement, PlacedLine
from actconform.cluster.tasks import LineFacts, run_line_cases, start_line
from actconform.run.case import ended
from actconform.run.scheduler import LineStart, earlier_results, lines_of, remaining
from actconform.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from distributed import Future

    from actconform.cluster.connection import Cluster
    from actconform.run.scheduler import Line, Plan
    from actconform.types import Case, Result
    from actconform.workers.protocol import Handshake


def run_on_cluster(
    cluster: Cluster,
    plan: Plan,
    on_start: Callable[[str, Handshake | str, float], None],
    on_result: Callable[[Result], None],
) -> None:
    """Run the plan on the cluster; all else is as in `run.scheduler.run`.

    A task whose worker dies is run again on another; cases with which several workers died end as CRASH. Raises UsageError where the
    scheduler is gone, and where two workers have different facts of one backend: what came until then was handed to `on_result`.
    """
    lines = lines_of(plan)
    resources = {line.name: cluster.resources(line.name, line.backend, line.source) for line in lines}
    with opened_on(cluster, plan.config, plan.register, plan.plugins) as name:
        spread = _SpreadRun(cluster, name, plan, on_start, on_result)
        try:
            spread.run(lines, resources)
        finally:
            spread.cancel()


class _Task(NamedTuple):
    """A task on the cluster: no cases where it starts the line, no worker where Dask places it by resources."""

    line: PlacedLine
    cases: Sequence[Case]
    worker: str | None
    submitted: float


class _SpreadRun:
    """A run while it is on the cluster, where it is called `name`."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        plan: Plan,
        on_start: Callable[[str, Handshake | str, float], None],
        on_result: Callable[[Result], None],
    ) -> None:
        self._cluster, self._name, self._plan, self._on_start, self._on_result = (
            cluster,
            name,
            plan,
            on_start,
            on_result,
        )
        self._tasks: dict[Future[Any], _Task] = {}
        self._completed = as_completed(loop=cluster.client.loop)
        self._resources: Mapping[str, Mapping[str, float]] = {}
        self._facts: dict[str, LineFacts] = {}
        self._placement = LinePlacement(())

    def run(self, lines: Sequence[Line], resources: Mapping[str, Mapping[str, float]]) -> None:
        self._resources = resources
        for line in lines:
            if resources[line.name]:
                self._submit(PlacedLine(line), START, None)
        self._placement = LinePlacement(line for line in lines if not resources[line.name])
        self._place()
        for future in self._completed:
            results = self._take(future)
            try:
                self._place()
            finally:
                for result in results:
                    self._on_result(result)

    def cancel(self) -> None:
        """Take what has not run off the cluster."""
        for future in self._tasks:
            future.release()

    def _place(self) -> None:
        """Give each free thread a task; wait for a worker where there is nothing else to wait for."""
        while self._placement.waits:
            for worker, line, cases in self._placement.tasks(self._cluster.threads(wait=not self._tasks)):
                self._submit(line, cases, worker)
            if self._tasks:
                return

    def _submit(self, line: PlacedLine, cases: Sequence[Case], worker: str | None) -> None:
        of_line = {"run": self._name, "backend": line.line.backend, "source": line.line.source}
        task: dict[str, Any] = {"resources": self._resources[line.line.name] or None, "pure": False}
        if worker is not None:
            task |= {"workers": [worker], "allow_other_workers": True}  # another where this one dies
        submit = self._cluster.client.submit
        future = submit(run_line_cases, cases, **of_line, **task) if cases else submit(start_line, **of_line, **task)
        self._tasks[future] = _Task(line, cases, worker, time.perf_counter())
        self._completed.add(future)

    def _take(self, future: Future[Any]) -> Sequence[Result]:
        """Return the results of a task that has ended, and have wait what comes of it."""
        task = self._tasks.pop(future)
        if task.worker is not None:
            self._placement.ended(task.worker, task.line)
        try:
            outcome = future.result()
        except KilledWorker as error:
            return self._killed(task, error)
        if not task.cases:
            return self._started(task, *outcome)
        results: list[Result]
        results, facts = outcome
        line = task.line.line
        self._cluster.refuse_other_facts(line.name, facts, self._facts[line.name])
        task.line.ran(len(results), sum(result.seconds for result in results))
        return results

    def _started(self, task: _Task, start: LineStart, facts: LineFacts) -> list[Result]:
        line, seconds = task.line.line, time.perf_counter() - task.submitted
        self._facts[line.name] = facts
        self._on_start(line.backend, start.hello or start.reason, seconds)
        results = list(earlier_results(self._plan, line, facts))
        cases = remaining(self._plan, line.cases)
        if start.verdict:
            return results + [ended(case, start.verdict, "load", start.reason) for case in cases]
        subjects = [list(of_subject) for _, of_subject in groupby(cases, lambda case: case.subject)]
        subjects.reverse()  # trainings and models first: what takes long is not left to one worker at the end
        if task.worker is None:
            self._submit_all(task.line, subjects)
        else:
            task.line.started(seconds, subjects)
        return results

    def _killed(self, task: _Task, error: KilledWorker) -> list[Result]:
        """Run each case alone, so that only the one with which the workers die is lost."""
        if len(task.cases) > 1:
            self._submit_all(task.line, [[case] for case in task.cases])
            return []
        reason = f"{error.allowed_failures + 1} Dask workers died while they ran this, the last at {error.last_worker.address}"
        stage = "run" if task.cases else "load"
        return [ended(case, Verdict.CRASH, stage, reason) for case in task.cases or task.line.line.cases]

    def _submit_all(self, line: PlacedLine, tasks: Iterable[Sequence[Case]]) -> None:
        """Leave the tasks of a line to Dask, which places them by resources."""
        for cases in tasks:
            self._submit(line, cases, None)
