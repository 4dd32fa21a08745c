"""A user's trained model in the worker of its framework: opened once, run, differentiated and exported; faults become Failures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from actconform.plugin.trained_model import TrainedModel
from actconform.types import Artifact
from actconform.types.trained import TrainedRun
from actconform.workers.captured_warnings import capture_warnings
from actconform.workers.garbage import collected_garbage
from actconform.workers.protocol import TrainedResult, aligned_copy
from actconform.workers.session import (
    StoppedError,
    checked_arrays,
    differing_names,
    same_bytes,
    stage,
    type_name,
)

if TYPE_CHECKING:
    from actconform.types.trained import TrainedSource
    from actconform.workers.protocol import TrainedJob
    from actconform.workers.session import Session


class TrainedSession:
    """The trained model that is open in this worker: another one takes its place when a job names it.

    A model that lives in this process may be given as `live`; then it is that of every job.
    """

    def __init__(self, session: Session, live: TrainedModel | None = None) -> None:
        self._session = session
        self._live = live
        self._source: TrainedSource | None = None
        self._model: TrainedModel | None = None

    def run(self, job: TrainedJob) -> TrainedResult:
        """Do a job; faults of model and framework are not raised."""
        started = time.perf_counter()
        result = TrainedResult()
        try:
            model = self._opened(job.source)
            match job.action:
                case "open":
                    with stage("open"):
                        result.opened = model.about
                case "run":
                    _run(model, job, result)
                case "gradients":
                    with stage("run"):
                        arrays = {name: aligned_copy(array) for name, array in job.inputs.items()}
                        result.arrays = checked_arrays(
                            model.gradients(arrays, dict(job.cotangents), job.mode), "gradients"
                        )
                case "parameters":
                    with stage("run"):
                        result.arrays = checked_arrays(model.parameters(), "parameters")
                case "layer call":
                    with stage("run"):
                        result.layer_call = model.layer_call(job.inputs, job.layer)
                case "export":
                    result.artifact = self._export(model, job)
        except StoppedError as stopped:
            result.failure = stopped.failure
        result.seconds = time.perf_counter() - started
        return result

    def _opened(self, source: TrainedSource) -> TrainedModel:
        if self._live is not None:
            return self._live
        if self._model is not None and source == self._source:
            return self._model
        self._session.require_available()
        with stage("open"):
            if self._model is not None:
                self._model.close()
            self._model = self._source = None
            model = self._session.backend.open_trained(source)
            if not isinstance(model, TrainedModel):
                raise TypeError(f"open_trained returned {type_name(model)}: wanted an actconform.TrainedModel")
        self._model, self._source = model, source
        return model

    def _export(self, model: TrainedModel, job: TrainedJob) -> Artifact:
        with stage("export"), collected_garbage(), capture_warnings() as captured:
            exporter = self._session.exporter_of(job.exporter)
            artifact = exporter.export_trained(model, job.inputs, training=job.mode.training)
            if not isinstance(artifact, Artifact):
                raise TypeError(f"export_trained returned {type_name(artifact)}: wanted an actconform.Artifact")
        return msgspec.structs.replace(artifact, warnings=(*artifact.warnings, *captured))


def _run(model: TrainedModel, job: TrainedJob, result: TrainedResult) -> None:
    with stage("run", 0):
        inputs = {name: aligned_copy(array) for name, array in job.inputs.items()}
        run = model.run(dict(inputs), job.mode, layers=job.layers)
        if not isinstance(run, TrainedRun):
            raise TypeError(f"run returned {type_name(run)}: wanted an actconform.TrainedRun")
        run.outputs = checked_arrays(run.outputs, "run")
        result.run = run
        result.mutated = [name for name, array in inputs.items() if not same_bytes(array, job.inputs[name])]
        if job.twice:
            inputs = {name: aligned_copy(array) for name, array in job.inputs.items()}
            again = checked_arrays(model.run(inputs, job.mode).outputs, "run")
            result.unsteady = differing_names(run.outputs, again)
            result.second = again if result.unsteady else {}
