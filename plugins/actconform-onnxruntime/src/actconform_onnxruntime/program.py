"""The program that runs a loaded graph, alike for all execution providers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform import Program
from actconform_onnxruntime.placement import Placement, placed
from actconform_onnxruntime.session import refused_late
from actconform_onnxruntime.tensors import BY_BITS, from_ort, to_ort

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform import Artifact
    from actconform.types import Bundle


class GraphProgram(Program):
    """A loaded graph. Tensors go in and out as numpy arrays in main memory; the inputs are read, never written."""

    def __init__(self, session: Any, artifact: Artifact, provider: str) -> None:
        self._session = session
        self._device = "cuda" if provider == "CUDAExecutionProvider" else "cpu"
        self._outputs = [output.name for output in session.get_outputs()]
        types = [value.type for value in (*session.get_inputs(), *session.get_outputs())]
        self._by_bits = not BY_BITS.keys().isdisjoint(types)
        where = placed(session, artifact.file or artifact.model, provider)
        self.placement = where.computed
        self.implementation = _implementation(artifact.path, where)

    def forward(self, inputs: Bundle) -> Bundle:
        """Return every output by name; ONNX Runtime raises where names, ranks or types of `inputs` are wrong.

        Raises `Unsupported` where it loaded the graph, and refuses an operator only now: pooling over four dimensions.
        """
        with refused_late():
            if self._by_bits:
                feeds = {name: to_ort(array) for name, array in inputs.items()}
                values = self._session.run_with_ort_values(self._outputs, feeds)
                return dict(zip(self._outputs, map(from_ort, values), strict=True))
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    def prepare_call(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], object]:
        """Return one run by I/O binding: inputs lie on the device beforehand, outputs stay there, in the same memory each time.

        In main memory the inputs are used as they lie. A graph of gradients has its cotangents among the inputs; `cotangents`
        are for what has a `vjp`.
        """
        if cotangents is not None:
            return super().prepare_call(inputs, cotangents)
        return BoundRun(self._session, inputs, self._outputs, self._device)


class BoundRun:
    """One run of a session on tensors that stay where they are; `outputs` has OrtValues on the device, as of the last call."""

    def __init__(self, session: Any, inputs: Bundle, outputs: Sequence[str], device: str) -> None:
        self._session = session
        self._inputs = {name: to_ort(array) for name, array in inputs.items()}  # the binding does not keep them alive
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            # This copies, where it must, to the device whose nodes read the input: main memory for a shape.
            self._binding.bind_ortvalue_input(name, value)
        self._binding.synchronize_inputs()
        for name in outputs:
            self._binding.bind_output(name, device)
        self()
        self.outputs = dict(zip(outputs, self._binding.get_outputs(), strict=True))
        for name, value in self.outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def __call__(self) -> None:
        """Run, and return when all is computed."""
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()


def _implementation(path: str, where: Placement) -> str:
    operators = ", ".join(name for names in where.computed.values() for name in names)
    told = path if not operators or path.endswith(f": {operators}") else f"{path}; run as {operators}"
    return f"{told}; shapes on the CPU: {', '.join(where.shapes)}" if where.shapes else told
