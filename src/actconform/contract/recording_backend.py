"""In the worker: the backend under test, watched. It does what the backend does, and notes its side effects."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.plugin.hookspecs import hookimpl
from actconform.plugin.interfaces import Backend, Program
from actconform.plugin.loader import GROUP, installed, load_plugins
from actconform.types import Kernel, Support, base_name
from actconform.workers.process_state import FRESH, changes, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actconform.types import Artifact, Bundle, Case
    from actconform.types.model import Model

WATCHED = "contract-watched"
PLUGIN = "actconform.contract.recording_backend:Plugin"
# The environment says which backend is watched, and which further plugins may give it.
BACKEND, PLUGINS = "ACTCONFORM_CONTRACT_BACKEND", "ACTCONFORM_CONTRACT_PLUGINS"

NOTES = Kernel(name="contract-notes", definition="gives the notes that were taken", source="actconform")
UNKNOWN = Kernel(name="contract-unknown", definition="a kernel that no backend can know", source="actconform")
INSIST = "contract-insist"
"""As a variant: the backend is made to build what it says that it does not support."""


def waiting() -> float:
    """Return the seconds in which this thread could have run and others did; 0 where the system does not tell."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0


class Notes(msgspec.Struct):
    """What was noted since notes were last taken."""

    facts: list[str] = []
    seconds: float = 0.0
    changed: list[str] = []


class Watch:
    """Holds the notes, and the process's state as of the last look."""

    def __init__(self) -> None:
        self.notes = Notes()
        self._last = dict(FRESH)

    @contextmanager
    def over(self, step: str, *, drawing: bool = False) -> Iterator[None]:
        """Note what `step` changes. Only where `drawing` may it not draw from a global stream of random numbers."""
        try:
            yield
        finally:
            now = snapshot()
            self.notes.changed += [f"{step}: {change}" for change in changes(self._last, now, drawing=drawing)]
            self._last = {**FRESH, **now}

    def take(self) -> Notes:
        """Return the notes, and begin anew."""
        notes, self.notes = self.notes, Notes()
        return notes


class Watched(Backend):
    """Passes everything on to the backend under test; gives its notes to whoever builds the kernel NOTES."""

    name = WATCHED
    inner: type[Backend]

    def __init__(self, inner: Backend | None = None, watch: Watch | None = None, *, insist: bool = False) -> None:
        self._watch = watch or Watch()
        with self._watch.over("making the backend"):
            self._inner = inner or self.inner()
        self._insist = insist

    def variant(self, name: str) -> Backend:
        if name != INSIST:
            return super().variant(name)
        return type(self)(self._inner, self._watch, insist=True)

    def facts(self) -> dict[str, str]:
        with self._watch.over("facts"):
            facts = self._inner.facts()
        if isinstance(facts, dict):
            wrong = {
                key: value for key, value in facts.items() if not (isinstance(key, str) and isinstance(value, str))
            }
            self._watch.notes.facts += [f"{key!r} is {value!r}: wanted str to str" for key, value in wrong.items()]
        return facts

    def supports(self, case: Case) -> Support:
        if self._insist or case.subject == NOTES.name:
            return Support(yes=True)
        case = msgspec.structs.replace(case, route=case.route.replace(WATCHED, self._inner.name))
        started, waited = time.perf_counter(), waiting()
        with self._watch.over("supports"):
            support = self._inner.supports(case)
        self._watch.notes.seconds = time.perf_counter() - started - (waiting() - waited)
        return support

    def build(self, kernel: Kernel, dtype: str) -> Program:
        if kernel.name == NOTES.name:
            return NotesProgram(self._watch)
        with self._watch.over("build"):
            return self._watched(self._inner.build(kernel, dtype))

    def build_model(self, model: Model, dtype: str) -> Program:
        with self._watch.over("build_model"):
            return self._watched(self._inner.build_model(model, dtype))

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        if artifact.path == NOTES.name:
            return NotesProgram(self._watch)
        with self._watch.over("load"):
            return self._watched(self._inner.load(artifact, dtype, *([level] if level else [])))

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:
        with self._watch.over("surviving_tensors"):
            return self._inner.surviving_tensors(artifact, dtype, *([level] if level else []))

    def _watched(self, program: Program) -> Program:
        return WatchedProgram(program, self._watch) if isinstance(program, Program) else program


class WatchedProgram(Program):
    """Passes everything on to a program, whose calls may change nothing at all."""

    def __init__(self, inner: Program, watch: Watch) -> None:
        self.implementation, self.placement = inner.implementation, inner.placement
        self._inner, self._watch = inner, watch

    def forward(self, inputs: Bundle) -> Bundle:
        with self._watch.over("forward", drawing=True):
            return self._inner.forward(inputs)

    def expect(self, calls: Sequence[Bundle]) -> None:
        with self._watch.over("expect", drawing=True):
            self._inner.expect(calls)

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        with self._watch.over("vjp", drawing=True):
            return self._inner.vjp(inputs, cotangents)

    def intermediates(self, inputs: Bundle) -> Bundle:
        with self._watch.over("intermediates", drawing=True):
            return self._inner.intermediates(inputs)

    def statistics(self, inputs: Bundle) -> Bundle:
        with self._watch.over("statistics", drawing=True):
            return self._inner.statistics(inputs)

    def close(self) -> None:
        with self._watch.over("close", drawing=True):
            self._inner.close()


class NotesProgram(Program):
    """Returns the notes as its output."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def forward(self, inputs: Bundle) -> Bundle:  # noqa: ARG002  it needs none
        return {"notes": np.frombuffer(msgspec.json.encode(self._watch.notes), np.uint8)}

    def close(self) -> None:
        self._watch.take()  # not in forward, which a worker calls twice


class Plugin:
    """What the worker of a contract loads beside all that is installed."""

    @hookimpl
    def actconform_kernels(self) -> tuple[Kernel, ...]:
        return NOTES, UNKNOWN

    @hookimpl
    def actconform_backends(self) -> tuple[type[Backend], ...]:
        further = [EntryPoint(spec, spec, GROUP) for spec in os.environ[PLUGINS].split()]
        backends = load_plugins(entry_points=[*installed(), *further]).backends
        name = os.environ[BACKEND]
        inner_class = backends[name if name in backends else base_name(name)]

        class OfItsKind(Watched):
            kind = inner_class.kind
            loads_files = inner_class.loads_files
            thread_safe = inner_class.thread_safe
            process_per_case = inner_class.process_per_case
            inner = inner_class

        return (OfItsKind,)
