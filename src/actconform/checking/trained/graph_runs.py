"""An ONNX file in the role of the trained model: outputs, layers, gradients and weights by the evaluator, or by a runtime."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from actconform.checking.flatten import flatten
from actconform.checking.judge import PIECE_BYTES
from actconform.checking.model_file import ModelFile
from actconform.checking.runs import Marks, RunFailure
from actconform.checking.trained.model_runs import NATIVE, ModelRuns
from actconform.checking.truth import CorrectRounding, evaluated
from actconform.errors import GradientError, Unsupported, UnsupportedOperator, UsageError, near
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.text import number_of, one_line
from actconform.types.trained import LayerRecord, OpenedModel, RunMode, TensorSpec, TrainedRun, TrainedSource
from actconform.workers.protocol import TrainedResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.checking.flatten import Array, FlatGraph, FlatNode
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.source import Source
    from actconform.types import Artifact

    Arrays = Mapping[str, NDArray[Any]]

COTANGENT, GRADIENT = "ct_", "d_"


class GraphRuns(ModelRuns):
    """A graph in the role of the trained model, evaluated in this process.

    float64 is the truth of the graph, its inputs unrounded. native is each node rounded once to its format, or what `runtime` gives.
    Layers are the nodes of the flat graph, and of their tensors those of floats. No method raises for a fault of the model or of the
    runtime: it is a RunFailure.
    """

    def __init__(self, source: Source, runtime: RuntimeRuns | None = None) -> None:
        self.name = runtime.name if runtime else "onnx"
        """What gives `native`: a runtime, or "onnx" for the rounding of each node as the standard defines it."""
        path = source.path
        self.source = TrainedSource("onnx", str(path), str(path.parent))
        self.facts: Mapping[str, str] = {}
        """Versions, threads, device, once it is open."""
        self._graph_source = source
        self._runtime = runtime
        self._opened: OpenedModel | None = None
        self._last: tuple[dict[str, Array], FlatGraph] | None = None
        """The inputs of the last call, and the graph as it is flat for them."""

    def open(self) -> OpenedModel | RunFailure:
        """Return what the graph is; start the runtime where there is one."""
        if self._opened is None:
            facts = self._runtime.start() if self._runtime else {"onnx": onnx.__version__}
            if isinstance(facts, RunFailure):
                return facts
            try:
                self._opened = self._described()
            except UsageError as error:
                return RunFailure("source", str(error))
            self.facts = facts
        return self._opened

    def run(
        self, inputs: Arrays, mode: RunMode = NATIVE, *, layers: bool = False, twice: bool = False
    ) -> TrainedResult | RunFailure:
        """Return the outputs for `inputs`, with `layers` the values of all layers, with `twice` what differed in a second run.

        Float inputs of another format than the graph declares are rounded to it, in float64 not at all.
        """
        started = time.perf_counter()
        if mode.training:
            return RunFailure("refused", "a graph runs as it was exported: it has no training mode")
        if mode.precision not in ("native", "float64"):
            return RunFailure("refused", f"a graph runs in its own formats, or in float64: not in {mode.precision}")
        try:
            arrays = self._converted(inputs, exact=mode.precision == "float64")
            result = self._run(arrays, mode, layers=layers, twice=twice)
        except (Unsupported, UsageError, ValueError) as error:
            return _failure(error)
        if isinstance(result, TrainedResult):
            result.seconds = time.perf_counter() - started
        return result

    def gradients(self, inputs: Arrays, cotangents: Arrays, mode: RunMode = NATIVE) -> Arrays | RunFailure:
        """Return the gradients of float inputs and float weights as "d_NAME", of a graph extended by them; `cotangents` are by output name.

        An output without a cotangent counts as one of zeros. Float64 and native are those of `run`, the latter without the runtime.
        """
        if mode.training or mode.precision not in ("native", "float64"):
            return RunFailure(
                "refused", f"a graph has no gradients in {'training' if mode.training else mode.precision}"
            )
        source = self._graph_source
        exact = mode.precision == "float64"
        try:
            arrays = self._converted(inputs, exact=exact)
            if unknown := [name for name in cotangents if name not in source.outputs]:
                raise UsageError(f"there is no output {one_line(unknown[0])!r}{near(unknown[0], list(source.outputs))}")
            floats = [name for name, tensor in source.inputs.items() if tensor.element_type in FORMATS]
            weights = [each.name for each in source.model.graph.initializer if each.data_type in FORMATS]
            outputs = [name for name in source.outputs if name in cotangents]
            model = add_gradients(
                source.model, [*floats, *weights], outputs, cotangent=COTANGENT, gradient=GRADIENT, keep_outputs=False
            )
            for name in outputs:
                arrays[COTANGENT + name] = _as_type(cotangents[name], source.outputs[name].element_type, exact=exact)
            graph = flatten(model, arrays)
            values = graph.truth if exact else evaluated(graph, arrays, CorrectRounding())
        except (GradientError, UnsupportedOperator, Unsupported, UsageError, ValueError) as error:
            return _failure(error)
        return {name: array if exact else _stored(graph, name, array) for name, array in values.items()}

    def parameters(self) -> Arrays | RunFailure:
        """Return the initializers of the main graph by name, in the dtypes in which they are stored."""
        source = self._graph_source
        return {
            tensor.name: source.array(tensor)
            for tensor in source.model.graph.initializer
            if tensor.data_type in STORAGE
        }

    def export(self, exporter: str, inputs: Arrays, *, training: bool = False) -> Artifact | RunFailure:  # noqa: ARG002
        """Return the failure that a graph is exported already."""
        return RunFailure("refused", f"{exporter}: {one_line(self.source.text)} is an ONNX graph already")

    def close(self) -> None:
        """Free what it holds; the runtime belongs to whom opened it."""
        self._last = None

    def _described(self) -> OpenedModel:
        source = self._graph_source
        specs = [
            TensorSpec(tensor.name, STORAGE[tensor.data_type].name, tuple(tensor.dims))
            for tensor in source.model.graph.initializer
            if tensor.data_type in STORAGE
        ]
        weights = sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in source.model.graph.initializer)
        return OpenedModel(
            framework=self.name,
            about=f"{one_line(source.path.name, 80)} (ONNX, opset {source.opset}, {number_of(source.nodes, 'node')}), {number_of(weights, 'weight')}",
            inputs=tuple(TensorSpec(name, each.dtype.name, each.dims) for name, each in source.inputs.items()),
            parameters=tuple(specs),
            precisions=("native", "float64"),
            differentiable=True,
            notes=source.notes,
        )

    def _converted(self, inputs: Arrays, *, exact: bool) -> dict[str, Array]:
        """Return the inputs in the dtypes of the graph, floats as they are where `exact`. Raises UsageError for other ones."""
        declared = {**self._graph_source.inputs, **self._graph_source.optional_inputs}
        if missing := [name for name in self._graph_source.inputs if name not in inputs]:
            raise UsageError(f"input {one_line(missing[0])!r} is missing{near(missing[0], list(inputs))}")
        if unknown := [name for name in inputs if name not in declared]:
            raise UsageError(f"there is no input {one_line(unknown[0])!r}{near(unknown[0], list(declared))}")
        return {name: _as_type(array, declared[name].element_type, exact=exact) for name, array in inputs.items()}

    def _run(self, inputs: dict[str, Array], mode: RunMode, *, layers: bool, twice: bool) -> TrainedResult | RunFailure:
        graph = self._flat(inputs)
        if mode.precision == "native" and self._runtime:
            return _run_by_runtime(self._runtime, graph, inputs, layers=layers, twice=twice)
        exact = mode.precision == "float64"
        record = _Record(graph, inputs, exact=exact) if layers else None
        values = graph.truth
        if layers or not exact:
            observe = record.node if record else None
            values = evaluated(graph, inputs, None if exact else CorrectRounding(), observe)
        if missing := [name for name in graph.outputs if name not in values]:
            reason = graph.unknown.get(missing[0], "it depends on a value that is not known")
            return RunFailure("refused", f"output {one_line(missing[0], 80)} cannot be evaluated: {reason}")
        outputs = {name: array if exact else _stored(graph, name, array) for name, array in values.items()}
        return TrainedResult(run=record.run(outputs) if record else TrainedRun(outputs=outputs))

    def _flat(self, inputs: dict[str, Array]) -> FlatGraph:
        """Return the flat graph for these inputs, which is kept for the next call with the same."""
        if self._last is None or not _same(self._last[0], inputs):
            self._last = None
            graph = flatten(self._graph_source.model, inputs)
            if not self._runtime:
                graph.model = onnx.ModelProto()  # a copy of all weights, which only a runtime needs
            self._last = inputs, graph
        return self._last[1]


class _Record:
    """Takes the nodes of an evaluation as layers, with their float tensors, in float64 or in the formats of the graph."""

    def __init__(self, graph: FlatGraph, inputs: Arrays, *, exact: bool) -> None:
        self._graph = graph
        self._exact = exact
        self._layers: list[LayerRecord] = []
        self._tensors: list[Array] = []
        self._places: dict[str, int] = {}
        for name in graph.inputs:
            if graph.types.get(name) in FORMATS:
                self.take(name, inputs[name].astype(np.float64) if exact else inputs[name])

    def take(self, name: str, array: Array) -> None:
        """Keep a tensor."""
        self._places[name] = len(self._tensors)
        self._tensors.append(array)

    def node(self, node: FlatNode, results: Sequence[Array]) -> None:
        """Take a node with its outputs."""
        for name, array, kind in zip(node.proto.output, results, node.types, strict=False):
            if name and kind in FORMATS:
                self.take(name, array if self._exact else _stored(self._graph, name, array))
        self._layers.append(_layer(self._graph, node, self._places))

    def run(self, outputs: dict[str, Array]) -> TrainedRun:
        """Return the run, the graph itself as the last layer."""
        return TrainedRun(
            outputs=outputs, layers=[*self._layers, _all(self._graph, self._places)], tensors=self._tensors
        )


def _layer(graph: FlatGraph, node: FlatNode, places: Mapping[str, int]) -> LayerRecord:
    return LayerRecord(
        node.name,
        node.proto.op_type,
        tuple(places[name] for name in node.inputs if name in places),
        tuple(places[name] for name in node.outputs if name in places),
        tuple(name for name in node.inputs if name in graph.constants),
    )


def _all(graph: FlatGraph, places: Mapping[str, int]) -> LayerRecord:
    """Return the record of the graph itself, whose name is empty."""
    inputs, outputs = (
        tuple(places[name] for name in names if name in places) for names in (graph.inputs, graph.outputs)
    )
    return LayerRecord("", "ONNX graph", inputs, outputs)


def _run_by_runtime(
    runs: RuntimeRuns, graph: FlatGraph, inputs: dict[str, Array], *, layers: bool, twice: bool
) -> TrainedResult | RunFailure:
    """Return what a runtime gives, layers from a run at the level that optimizes least, all their tensors marked as outputs."""
    with ModelFile(graph.model) as file:
        answer = runs.outputs(file, inputs)
        if answer.failure:
            return answer.failure
        run = TrainedRun(outputs=dict(answer.outputs))
        if layers:
            names = [name for node in graph.nodes for name in node.outputs if graph.types.get(name) in FORMATS]
            marks = Marks(names, graph.types, {name: graph.nbytes(name) for name in names})
            level = runs.levels[0] if runs.levels else ""
            shown = {name: array for name, array in inputs.items() if graph.types.get(name) in FORMATS}
            for piece in runs.marked(file, inputs, marks, budget_bytes=PIECE_BYTES, level=level):
                shown.update(piece.values)
            places = {name: place for place, name in enumerate(shown)}
            run.tensors = list(shown.values())
            run.layers = [*(_layer(graph, node, places) for node in graph.nodes), _all(graph, places)]
    result = TrainedResult(run=run, mutated=list(answer.mutated))
    if twice:
        result.unsteady, result.second = list(answer.unsteady), dict(answer.second)
    return result


def _as_type(array: Array, element_type: int, *, exact: bool) -> Array:
    """Return an array as the type that a graph declares; floats are rounded to it unless `exact`. Raises UsageError for another kind."""
    dtype = STORAGE.get(element_type)
    kinds = [_kind(np.dtype(each)) for each in (array.dtype, dtype or array.dtype)]
    if kinds[0] != kinds[1]:
        raise UsageError(f"an input is of {array.dtype}, and the graph takes {dtype}")
    if dtype is None or array.dtype == dtype or (exact and kinds[0] == "float"):
        return array
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _kind(dtype: np.dtype[Any]) -> str:
    return "float" if "float" in dtype.name else "integer" if dtype.kind in "iu" else dtype.kind


def _stored(graph: FlatGraph, name: str, array: Array) -> Array:
    """Return rounded values in the dtype of their tensor."""
    return array.astype(STORAGE[graph.types[name]]) if graph.types.get(name) in STORAGE else array


def _same(before: Arrays, inputs: Arrays) -> bool:
    return before.keys() == inputs.keys() and all(
        before[name].dtype == array.dtype and np.array_equal(before[name], array) for name, array in inputs.items()
    )


def _failure(error: Exception) -> RunFailure:
    """Return the failure that an exception means: what is not evaluated or differentiated, or inputs that do not fit."""
    refused = isinstance(error, (Unsupported, UnsupportedOperator, GradientError))
    return RunFailure("refused" if refused else "source", one_line(str(error), 400))
