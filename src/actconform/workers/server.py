"""One backend in a process of its own: `python -m actconform.workers.server --backend NAME`.

It writes a Handshake on its standard output, then reads one request after another from its standard input and answers each,
until the input ends. Nothing but frames reaches that output: what libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import platform
import signal
import sys
import threading
import time
from importlib.metadata import EntryPoint
from io import FileIO
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from actconform._version import __version__
from actconform.errors import PluginError, Unavailable, near
from actconform.machine.cpu import cpu_features, cpu_name
from actconform.plugin.loader import GROUP, installed, load_plugins, plugin_versions
from actconform.text import shortened
from actconform.types import base_name
from actconform.workers.code import code_digest
from actconform.workers.graph_session import GraphJob, run_graphs
from actconform.workers.protocol import (
    ExportJob,
    Handshake,
    Job,
    TrainedJob,
    TrainingJob,
    read_message,
    write_message,
)
from actconform.workers.session import Session, fault_message, type_name
from actconform.workers.step_session import StepJob, StepSession
from actconform.workers.sweep_session import SweepJob, SweepSession
from actconform.workers.timing import Prepare, TakeSample, Timers
from actconform.workers.trained_session import TrainedSession
from actconform.workers.training_session import do_training

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.plugin.interfaces import Backend
    from actconform.plugin.loader import Catalog

Request: TypeAlias = Job | ExportJob | TrainedJob | TrainingJob | StepJob | GraphJob | SweepJob | Prepare | TakeSample
REQUEST: Any = Request  # a union is no type to mypy

WATCH_SECONDS = 0.5
ENVIRONMENT = "ACTCONFORM_ENVIRONMENT"  # the packages of the worker's environment that the driver does not have


def open_session(name: str, plugins: Sequence[str] = ()) -> tuple[Handshake, Session | None]:
    """Return the handshake of backend `name`, and a session unless `Handshake.problem` is set.

    Where no plugin gives "BASE@LABEL", it is BASE under another name. $ACTCONFORM_ENVIRONMENT becomes a fact.
    """
    handshake = Handshake(
        actconform=__version__,
        plugins=plugin_versions(),
        backend=name,
        python=platform.python_version(),
        executable=sys.executable,
        platform=platform.platform(),
        machine=platform.machine(),
        cpu=cpu_name(),
        cpu_features=" ".join(cpu_features()) or "none",
        pid=os.getpid(),
    )
    points = [*installed(), *(EntryPoint(spec, spec, GROUP) for spec in plugins)]
    try:
        catalog = load_plugins(entry_points=points, judging=False)
    except PluginError as error:
        return msgspec.structs.replace(handshake, problem=str(error)), None
    base = name if name in catalog.backends else base_name(name)
    if base not in catalog.backends:
        return msgspec.structs.replace(handshake, problem=_no_backend(name, catalog)), None
    handshake = msgspec.structs.replace(
        handshake, kind=catalog.backends[base].kind, provider=catalog.backend_plugin[base]
    )
    try:
        backend = catalog.backends[base]()
    except Exception as error:  # noqa: BLE001  any fault of a plugin is reported, not raised
        return msgspec.structs.replace(handshake, problem=fault_message(error)), None
    try:
        facts = _facts(backend)
    except (Unavailable, ImportError) as error:
        handshake = msgspec.structs.replace(handshake, unavailable=fault_message(error))
        return handshake, Session(backend, catalog, handshake.unavailable, name)
    except Exception as error:  # noqa: BLE001
        return msgspec.structs.replace(handshake, problem=f"facts: {fault_message(error)}"), None
    exports = any(exporter.source == base for exporter in catalog.exporters.values())
    # Of actconform only what is loaded counts, so that a change of a report costs no export.
    modules = [point.module for point in points if point.module.partition(".")[0] != "actconform"]
    code = code_digest(modules) if exports else ""
    return msgspec.structs.replace(handshake, facts=facts, code=code), Session(backend, catalog, name=name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one backend until standard input ends; return 0, or 1 where the backend has no session."""
    parser = argparse.ArgumentParser(prog="python -m actconform.workers.server", description=__doc__)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE:ATTRIBUTE", help="one more plugin")
    options = parser.parse_args(arguments)
    requests, answers = _claim_pipes()
    faulthandler.enable(all_threads=False)
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, all_threads=False)  # the driver asks where a call hangs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends its workers
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()

    handshake, session = open_session(options.backend, options.plugin)
    try:
        write_message(answers, handshake)
        if session is None:
            return 1
        kept = _Kept(Timers(session), TrainedSession(session), StepSession(session), SweepSession(session))
        while True:
            write_message(answers, _answer(session, kept, read_message(requests, REQUEST)))
    except (EOFError, BrokenPipeError):
        return 0


class _Kept(NamedTuple):
    """What stays loaded in the worker between requests."""

    timers: Timers
    trained: TrainedSession
    steps: StepSession
    sweeps: SweepSession


def _answer(session: Session, kept: _Kept, request: Request) -> object:  # noqa: PLR0911  a line for each kind of request
    """Return the answer, of the type that `Worker` expects for the request."""
    match request:
        case Job():
            return session.run(request)
        case ExportJob():
            return session.export(request)
        case TrainedJob():
            return kept.trained.run(request)
        case TrainingJob():
            return do_training(session, request)
        case StepJob():
            return kept.steps.run(request)
        case GraphJob():
            return run_graphs(session, request)
        case SweepJob():
            return kept.sweeps.run(request)
        case Prepare():
            return kept.timers.prepare(request)
        case TakeSample():
            return kept.timers.sample(request)


def _facts(backend: Backend) -> dict[str, str]:
    facts = backend.facts()
    if not isinstance(facts, dict):
        raise TypeError(f"facts returned {type_name(facts)}: wanted a dict of str to str")
    environment_packages = os.environ.get(ENVIRONMENT)
    return {shortened(str(fact)): shortened(str(value)) for fact, value in facts.items()} | (
        {"environment": environment_packages} if environment_packages else {}
    )


def _no_backend(name: str, catalog: Catalog) -> str:
    names = catalog.backend_names()
    broken = "".join(f"; {failure.message}" for failure in catalog.broken)
    return f"no installed plugin gives a backend {name!r} for {sys.executable}{near(name, names)}{broken}"


def _claim_pipes() -> tuple[FileIO, FileIO]:
    """Keep standard input and output for frames: what libraries read there is empty, what they print goes to stderr."""
    requests, answers = FileIO(os.dup(0), "r"), FileIO(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _exit_with_parent(parent: int) -> None:
    """End the process when its parent is gone, even in the midst of a call: nobody is left to kill it."""
    # Linux's PDEATHSIG would not do: it fires when the thread ends that started the worker.
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
