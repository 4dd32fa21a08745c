"""A run on a Dask cluster: a task for the start of each line, then one for the cases of each subject; results are taken as they come."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING, Any

from distributed import KilledWorker, as_completed

from actconform.cluster.opened import opened_on
from actconform.cluster.tasks import LineFacts, run_line_cases, start_line
from actconform.run.case import ended
from actconform.run.scheduler import Line, LineStart, earlier_results, lines_of, remaining
from actconform.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distributed import Future

    from actconform.cluster.connection import Cluster
    from actconform.run.scheduler import Plan
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
    resources = {line.name: cluster.resources(line) for line in lines}
    with opened_on(cluster, plan.config, plan.register, plan.plugins) as name:
        spread = _SpreadRun(cluster, name, plan, on_start, on_result)
        try:
            spread.run(lines, resources)
        finally:
            spread.cancel()


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
        self._began = time.perf_counter()
        self._tasks: dict[Future[Any], tuple[Line, Sequence[Case]]] = {}  # no cases: it starts the line
        self._completed = as_completed(loop=cluster.client.loop)
        self._resources: Mapping[str, Mapping[str, float]] = {}
        self._facts: dict[str, LineFacts] = {}

    def run(self, lines: Sequence[Line], resources: Mapping[str, Mapping[str, float]]) -> None:
        self._resources = resources
        for line in lines:
            self._submit(line, [])
        for future in self._completed:
            self._take(future)

    def cancel(self) -> None:
        """Take what has not run off the cluster."""
        for future in self._tasks:
            future.release()

    def _submit(self, line: Line, cases: Sequence[Case]) -> None:
        of_line = {"run": self._name, "backend": line.backend, "source": line.source}
        task = {"resources": self._resources[line.name] or None, "pure": False}
        submit = self._cluster.client.submit
        future = submit(run_line_cases, cases, **of_line, **task) if cases else submit(start_line, **of_line, **task)
        self._tasks[future] = line, cases
        self._completed.add(future)

    def _take(self, future: Future[Any]) -> None:
        line, cases = self._tasks.pop(future)
        try:
            outcome = future.result()
        except KilledWorker as error:
            self._killed(line, cases, error)
            return
        if not cases:
            self._started(line, *outcome)
            return
        results, facts = outcome
        self._cluster.refuse_other_facts(line, facts, self._facts[line.name])
        for result in results:
            self._on_result(result)

    def _started(self, line: Line, start: LineStart, facts: LineFacts) -> None:
        self._facts[line.name] = facts
        self._on_start(line.backend, start.hello or start.reason, time.perf_counter() - self._began)
        for result in earlier_results(self._plan, line, facts):
            self._on_result(result)
        cases = remaining(self._plan, line.cases)
        if start.verdict:
            for case in cases:
                self._on_result(ended(case, start.verdict, "load", start.reason))
            return
        for _, of_subject in groupby(cases, lambda case: case.subject):
            self._submit(line, list(of_subject))

    def _killed(self, line: Line, cases: Sequence[Case], error: KilledWorker) -> None:
        """Run each case alone, so that only the one with which the workers die is lost."""
        if len(cases) > 1:
            for case in cases:
                self._submit(line, [case])
            return
        reason = f"{error.allowed_failures + 1} Dask workers died while they ran this, the last at {error.last_worker.address}"
        for case in cases or line.cases:
            self._on_result(ended(case, Verdict.CRASH, "run" if cases else "load", reason))
