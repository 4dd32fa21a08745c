"""A model that lives in this process, a torch module, a Keras or a JAX model, beside its graphs: no worker, no copy."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from actconform._version import __version__
from actconform.checking.trained.runs import TrainedRuns
from actconform.errors import SourceError, Unavailable, Unsupported, UsageError
from actconform.text import one_line
from actconform.types.trained import TrainedSource
from actconform.workers.protocol import Handshake
from actconform.workers.session import Session
from actconform.workers.trained_session import TrainedSession

if TYPE_CHECKING:
    from actconform.plugin.interfaces import Backend
    from actconform.plugin.loader import Catalog
    from actconform.plugin.trained_model import TrainedModel
    from actconform.workers.protocol import TrainedJob, TrainedResult

NO_MODELS = ("builtins", "numpy", "onnx", "pathlib")  # packages whose objects no framework takes


class LiveWorker:
    """The framework of this process in the role of a worker: it does the jobs here, one after another, without a time limit."""

    def __init__(self, backend: Backend, model: TrainedModel, catalog: Catalog) -> None:
        self._name = backend.name
        self._facts = backend.facts()
        self._session = TrainedSession(Session(backend, catalog), model)

    def start(self) -> Handshake:
        """Return the facts of the framework."""
        return Handshake(actconform=__version__, plugins={}, backend=self._name, facts=dict(self._facts))

    def trained(self, job: TrainedJob, timeout: float) -> TrainedResult:  # noqa: ARG002  nobody can end this process
        """Do a job; what the framework raises is a failure of the result."""
        return self._session.run(job)

    def close(self) -> None:
        """Leave the model to the user."""


def live_runs(model: object, example: object | None, catalog: Catalog, timeout: float) -> TrainedRuns:
    """Return the runs of a model of this process; `example` are inputs as a factory gives them.

    Raises UsageError for what no installed framework takes, in the words of the frameworks.
    """
    shown = f"{one_line(type(model).__name__, 80)} of this process"
    reasons = []
    for name in _frameworks(model, catalog):
        try:
            backend = catalog.backends[name]()
            worker = LiveWorker(backend, backend.adopt_trained(model, example), catalog)
        except (Unsupported, Unavailable, SourceError) as error:
            reasons.append(f"{name}: {one_line(str(error))}")
            continue
        return TrainedRuns(name, TrainedSource("factory", shown), worker, timeout)
    words = "is no model; expected a path, package.module:factory, an onnx.ModelProto, a torch module, a Keras or a JAX model"
    raise UsageError(f"{shown}: {'; '.join(reasons) or words}")


def _frameworks(model: object, catalog: Catalog) -> list[str]:
    """Return the backends that may take a model: those of the packages that its class comes from, else all that are imported here."""
    packages = {parent.__module__.partition(".")[0] for parent in type(model).__mro__}
    names = [name for name, backend in catalog.backends.items() if _opens(backend)]
    fitting = [name for name in names if name in packages]
    if fitting or type(model).__module__.partition(".")[0] in NO_MODELS:
        return fitting
    return [name for name in names if name in sys.modules]


def _opens(backend: type[Any]) -> bool:
    return "factory" in backend.opens
