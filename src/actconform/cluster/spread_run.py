"""A run on a Dask cluster: a task for the start of each line, then one for the cases of each subject; results are taken as they come."""

from __future__ import annotations

import contextlib
import time
import uuid
from concurrent.futures import CancelledError
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from distributed import KilledWorker, as_completed

from actconform.cluster.installation import installation, named_difference
from actconform.cluster.tasks import LineFacts, OpenRun, PortablePlan, run_line_cases, start_line
from actconform.errors import UsageError
from actconform.run.case import ended
from actconform.run.scheduler import Line, LineStart, earlier_results, lines_of, remaining
from actconform.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    spread = _SpreadRun(cluster, plan, on_start, on_result)
    try:
        spread.run()
    except CancelledError:
        raise UsageError(
            f"--cluster {cluster.address}: the scheduler is gone, or dropped this run; what came until then is kept: start it and run "
            "again with --resume"
        ) from None
    finally:
        spread.end()


class _SpreadRun:
    """A run while it is on the cluster, where it is called `name`."""

    def __init__(
        self,
        cluster: Cluster,
        plan: Plan,
        on_start: Callable[[str, Handshake | str, float], None],
        on_result: Callable[[Result], None],
    ) -> None:
        self._cluster, self._plan, self._on_start, self._on_result = cluster, plan, on_start, on_result
        self._name = f"actconform-{uuid.uuid4().hex}"
        self._began = time.perf_counter()
        self._tasks: dict[Future[Any], tuple[Line, Sequence[Case]]] = {}  # no cases: it starts the line
        self._completed = as_completed(loop=cluster.client.loop)
        self._resources: dict[str, dict[str, float]] = {}
        self._facts: dict[str, LineFacts] = {}

    def run(self) -> None:
        lines = lines_of(self._plan)
        self._resources = {line.name: self._cluster.resources(line) for line in lines}
        self._cluster.client.register_plugin(OpenRun(_portable(self._plan)), name=self._name)
        for line in lines:
            self._submit(line, [])
        for future in self._completed:
            self._take(future)

    def end(self) -> None:
        """Take what has not run off the cluster, and have the workers end the run's processes."""
        client = self._cluster.client
        if client.status == "running":
            with contextlib.suppress(OSError, TimeoutError, CancelledError):
                client.cancel(list(self._tasks))
                client.unregister_worker_plugin(self._name)

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
        results, facts, worker = outcome
        if unequal := _unequal(facts, self._facts[line.name]):
            raise UsageError(
                f"--cluster {self._cluster.address}: results of {line.name} would depend on who computed them: {unequal} (worker "
                f'{worker}); start the workers of one kind with --resources "{line.backend}=1"'
            )
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


def _portable(plan: Plan) -> PortablePlan:
    # The register has the files of the settings already; what is named relative to the settings is found beside them.
    config = msgspec.structs.replace(plan.config, deviations=(), path=str(Path(plan.config.path).resolve()))
    return PortablePlan(config, plan.register, tuple(plan.plugins), installation().versions)


def _unequal(facts: LineFacts, first: LineFacts) -> str:
    differences = (
        named_difference(f"now {name}", of_backend, "before it", first.get(name, {}))
        for name, of_backend in facts.items()
    )
    return next(filter(None, differences), "")
