"""What a framework answers on a user's trained model: outputs, layers, gradients, weights and exports, from a worker of its own."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from actconform.checking.runs import RunFailure, failure_of_worker, run_failure
from actconform.checking.trained.model_runs import NATIVE, ModelRuns
from actconform.errors import WorkerError
from actconform.types.trained import RunMode
from actconform.workers.protocol import TrainedJob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from actconform.types import Artifact
    from actconform.types.trained import LayerCall, OpenedModel, TrainedSource
    from actconform.workers.protocol import Handshake, TrainedResult

    Arrays = Mapping[str, NDArray[Any]]


class TrainedWorker(Protocol):
    """What does the jobs of a trained model: a worker, or the framework in this process."""

    def start(self) -> Handshake:
        """Return what it is and has; raise WorkerError where it cannot be started."""

    def trained(self, job: TrainedJob, timeout: float) -> TrainedResult:
        """Do a job; raise WorkerError where no answer comes."""

    def close(self) -> None:
        """End it."""


class TrainedRuns(ModelRuns):
    """A trained model in the process of its framework, which is replaced after a crash, a timeout or Ctrl-C.

    No method raises for a fault of the framework or of the model: it is a RunFailure, of kind "source" where the user must change something,
    of kind "refused" where the model is none of this framework or cannot do what is asked.
    """

    def __init__(
        self,
        name: str,
        source: TrainedSource,
        worker: TrainedWorker,
        timeout: float,
        reproductions: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = name
        """The backend's."""
        self.source = source
        self.facts: Mapping[str, str] = {}
        """Versions, threads, device, once it is open."""
        self.executable = ""
        """The interpreter of the framework, once it is open; "" for a model of this process."""
        self.reproductions = reproductions
        """By exporter the source of `Exporter.layer_reproduction`."""
        self._worker = worker
        self._timeout = timeout
        self._opened: OpenedModel | None = None

    def open(self) -> OpenedModel | RunFailure:
        """Open the model, unless it is open, and return what it is."""
        if self._opened is not None:
            return self._opened
        try:
            hello = self._worker.start()
        except WorkerError as error:
            return failure_of_worker(error)
        if hello.unavailable:
            return RunFailure("unavailable", hello.unavailable)
        self.facts = hello.facts
        self.executable = hello.executable
        result = self._result(TrainedJob(source=self.source, action="open"))
        if isinstance(result, RunFailure):
            return result
        self._opened = result.opened
        return result.opened or RunFailure("error", f"{self.name} does not say what the model is")

    def run(
        self, inputs: Arrays, mode: RunMode = NATIVE, *, layers: bool = False, twice: bool = False
    ) -> TrainedResult | RunFailure:
        """Return the outputs for `inputs`, with `layers` the values of all layers, with `twice` what differed in a second run."""
        return self._result(
            TrainedJob(source=self.source, action="run", inputs=inputs, mode=mode, layers=layers, twice=twice)
        )

    def gradients(self, inputs: Arrays, cotangents: Arrays, mode: RunMode = NATIVE) -> Arrays | RunFailure:
        """Return the gradients of float inputs and parameters as "d_NAME"; `cotangents` are by output name."""
        result = self._result(
            TrainedJob(source=self.source, action="gradients", inputs=inputs, cotangents=cotangents, mode=mode)
        )
        return result if isinstance(result, RunFailure) else result.arrays

    def parameters(self) -> Arrays | RunFailure:
        """Return all weights and buffers by name."""
        result = self._result(TrainedJob(source=self.source, action="parameters"))
        return result if isinstance(result, RunFailure) else result.arrays

    def export(self, exporter: str, inputs: Arrays, *, training: bool = False) -> Artifact | RunFailure:
        """Return the graph that an exporter makes of the model; `inputs` are examples."""
        mode = RunMode(training=training)
        result = self._result(
            TrainedJob(source=self.source, action="export", inputs=inputs, exporter=exporter, mode=mode)
        )
        if isinstance(result, RunFailure):
            return result
        return result.artifact or RunFailure("error", f"{exporter} gave no graph")

    def layer_call(self, inputs: Arrays, layer: str) -> LayerCall | RunFailure:
        """Return the call of a layer in the run for `inputs`: see `TrainedModel.layer_call`."""
        result = self._result(TrainedJob(source=self.source, action="layer call", inputs=inputs, layer=layer))
        if isinstance(result, RunFailure):
            return result
        return result.layer_call or RunFailure("error", f"{self.name} shows no call of {layer}")

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def _result(self, job: TrainedJob) -> TrainedResult | RunFailure:
        try:
            result = self._worker.trained(job, self._timeout)
        except WorkerError as error:
            return failure_of_worker(error)
        return run_failure(result.failure) if result.failure else result
