"""What answers for a trained model: its framework, or an ONNX file in that role."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from actconform.checking.runs import RunFailure
from actconform.types.trained import RunMode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from actconform.types.trained import OpenedModel, TrainedRun
    from actconform.workers.protocol import TrainedResult

    Arrays = Mapping[str, NDArray[Any]]

NATIVE = RunMode()


class ModelRuns(ABC):
    """A trained model that is run; no method raises for a fault of the model or of what runs it: that is a RunFailure."""

    name: str
    """Of what runs it: a backend, or "onnx" for the evaluator."""
    facts: Mapping[str, str]
    """Versions, threads, device, once it is open."""

    @abstractmethod
    def open(self) -> OpenedModel | RunFailure:
        """Open the model, unless it is open, and return what it is."""

    @abstractmethod
    def run(
        self, inputs: Arrays, mode: RunMode = NATIVE, *, layers: bool = False, twice: bool = False
    ) -> TrainedResult | RunFailure:
        """Return the outputs for `inputs`, with `layers` the values of all layers, with `twice` what differed in a second run."""

    @abstractmethod
    def gradients(self, inputs: Arrays, cotangents: Arrays, mode: RunMode = NATIVE) -> Arrays | RunFailure:
        """Return the gradients of float inputs and weights as "d_NAME"; `cotangents` are by output name."""

    @abstractmethod
    def parameters(self) -> Arrays | RunFailure:
        """Return all weights by name."""

    @abstractmethod
    def close(self) -> None:
        """Free what it holds."""

    def layers(self, inputs: Arrays, mode: RunMode = NATIVE) -> TrainedRun | RunFailure:
        """Return one run with the values of all layers."""
        result = self.run(inputs, mode, layers=True)
        if isinstance(result, RunFailure):
            return result
        return result.run or RunFailure("error", f"{self.name} gave no run")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
