"""What happens on a Dask worker: its lines are opened once, and tasks run cases on them as a local run does."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import msgspec
from distributed import WorkerPlugin, get_worker

from actconform.cluster.installation import installation, named_difference
from actconform.cluster.memory import keep_freed_memory
from actconform.errors import UsageError
from actconform.plugin.loader import GROUP, installed, load_plugins
from actconform.run.case import VectorCache
from actconform.run.scheduler import Line, LineStart, OpenLine, Plan, close_lines, plan_of
from actconform.workers.from_settings import configured, with_environments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distributed import Worker

    from actconform.settings import Config
    from actconform.types import Case, Result
    from actconform.types.cause import Register

LineFacts = dict[str, dict[str, str]]


class PortablePlan(msgspec.Struct, frozen=True):
    """What of a plan goes to other machines; the rest of it, catalog and goldens, is there, and `versions` say that it is the same."""

    config: Config
    register: Register
    plugins: Sequence[str]
    versions: dict[str, str]


class OpenRun(WorkerPlugin):
    """A run on one Dask worker: the catalog, the test vectors, and each line with its processes, from its first task to the run's end."""

    def __init__(self, plan: PortablePlan) -> None:
        self._portable = plan

    def setup(self, worker: Worker) -> None:
        """Get ready. A worker that came after the run had begun, and has other versions, is refused by each task."""
        keep_freed_memory()
        self._lock = threading.Lock()
        self._opened: tuple[Plan, VectorCache] | None = None
        self._lines: dict[tuple[str, str], tuple[OpenLine, threading.Lock]] = {}
        here = installation().versions
        self._problem = named_difference(f"the worker {worker.address}", here, "the run", self._portable.versions)

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002  Dask's signature
        """End the processes of the run, at once where a case runs."""
        close_lines([line for line, _ in list(self._lines.values())])

    def line(self, backend: str, source: str) -> tuple[OpenLine, threading.Lock]:
        """Return a line of the run, opened where it was not, and the lock under which its cases run, one after another."""
        if self._problem:
            raise UsageError(f"{self._problem}: install the same on both")
        with self._lock:
            plan, vector_cache = self._opened = self._opened or self._open()
            if (backend, source) not in self._lines:
                config = with_environments(plan.config, filter(None, (backend, source)), lambda _: None)
                plan = msgspec.structs.replace(plan, config=config)
                line = OpenLine(plan, Line(backend, source, []), vector_cache)
                self._lines[backend, source] = line, threading.Lock()
            return self._lines[backend, source]

    def _open(self) -> tuple[Plan, VectorCache]:
        portable = self._portable
        points = [*installed(), *(EntryPoint(spec, spec, GROUP) for spec in portable.plugins)]
        catalog = configured(load_plugins(entry_points=points), portable.config)
        plan = plan_of(catalog, portable.config)
        plan = msgspec.structs.replace(plan, register=portable.register, plugins=portable.plugins)
        return plan, VectorCache(plan.folder, plan.manifest)


@contextmanager
def open_line(run: str, backend: str, source: str = "") -> Iterator[OpenLine]:
    """Yield a line of a run that is open on this worker, for a task alone. Raises UsageError where the versions are not the run's."""
    plugin = get_worker().plugins[run]
    assert isinstance(plugin, OpenRun)
    line, lock = plugin.line(backend, source)
    with lock:
        yield line


def start_line(run: str, backend: str, source: str = "") -> tuple[LineStart, LineFacts]:
    """Start a line of a run on this worker; return how it started, and what its results depend on."""
    with open_line(run, backend, source) as line:
        return line.start(), line.facts()


def run_line_cases(cases: Sequence[Case], run: str, backend: str, source: str) -> tuple[list[Result], LineFacts]:
    """Run these cases of a line; return their results, and what they depend on."""
    with open_line(run, backend, source) as line:
        return list(line.results(cases)), line.facts()
