"""A training by graphs in a worker: what a runtime loads of it, and the state that goes in and out of each step."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.types.training_run import NEXT, RATE, STEP
from actconform.workers.protocol import aligned_copy
from actconform.workers.session import checked_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from actconform.plugin.interfaces import Backend, Program
    from actconform.types import Artifact, Bundle


class LoadedGraph:
    """A loaded graph, called with those of the tensors that it reads."""

    def __init__(self, program: Program, artifact: Artifact) -> None:
        from actconform.onnx.gates import io_names  # onnx, which takes long to import

        names, self.outputs = io_names(artifact.model)
        self.program, self._names = program, set(names)

    def __call__(self, tensors: Bundle) -> dict[str, NDArray[Any]]:
        outputs = self.program.forward({name: array for name, array in tensors.items() if name in self._names})
        return checked_arrays(outputs, "forward")


class LoadedStep:
    """The graph of a step and that of the model in inference, loaded in a runtime, with the state between two steps.

    `state` has parameters, running statistics, and slots as "NAME/SLOT", canonical float32. A context that closes both programs; the fault
    that ended it goes before one of closing. Raises what the backend raises, and leaves no program open then.
    """

    def __init__(self, backend: Backend, dtype: str, step: Artifact, inference: Artifact) -> None:
        self.state: dict[str, NDArray[Any]] = {}
        with ExitStack() as opened:
            graphs = []
            for artifact in (step, inference):
                graphs.append(LoadedGraph(backend.load(artifact, dtype), artifact))
                opened.callback(graphs[-1].program.close)
            self._opened = opened.pop_all()
        self._step, self._inference = graphs
        self._next = [name for name in self._step.outputs if name.startswith(NEXT)]
        self.implementation = self._step.program.implementation

    def take_up(self, state: Bundle) -> None:
        """Take copies of these tensors into the state, each in place of what has its name."""
        # where arrays lie must not tell a training that goes on from one that was never interrupted
        self.state = self.state | _copies(state)

    def step(self, batch: Bundle, number: int, rate: float) -> dict[str, NDArray[Any]]:
        """Make the step of this number, counted from 1; return all outputs of the graph. `state` is a new dict afterwards."""
        counted: dict[str, NDArray[Any]] = {STEP: np.asarray(number, np.int64), RATE: np.asarray(rate, np.float32)}
        outputs = self._step({**_copies(batch), **counted, **self.state})
        self.state = self.state | {
            name.removeprefix(NEXT): outputs[name] for name in self._next
        }  # aligned copies already
        return outputs

    def evaluate(self, batch: Bundle) -> dict[str, NDArray[Any]]:
        """Return the outputs of the graph of inference with the state."""
        return self._inference({**_copies(batch), **self.state})

    def close(self) -> None:
        """Close both programs, the second too where the first one raises."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(Exception):
            self.close()


def _copies(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: aligned_copy(array) for name, array in tensors.items()}
