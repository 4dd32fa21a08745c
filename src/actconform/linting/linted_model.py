"""A model as rules read it: its graphs, what trained it and by which loss, targets, and what sample inputs showed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx

from actconform.checking.malformed import Malformed, malformed_nodes
from actconform.checking.nonfinite_weights import NonfiniteWeight, nonfinite_weights
from actconform.checking.trained.source_names import SourceNames, scopes
from actconform.linting.activations import GraphActivation, graph_activations
from actconform.linting.linted_graph import LintedGraph, name_of
from actconform.onnx.inference import infer
from actconform.onnx.nested_graphs import subgraphs
from actconform.text import one_line
from actconform.types.lint import LintObservation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.checking.source import Source
    from actconform.linting.unit_statistics import UnitStatistics
    from actconform.types.lint import Severity, TrainingLoss
    from actconform.types.trained import Dims

# What stands in a model's producer_name, by the framework whose defaults such a model has.
PRODUCERS = {
    "pytorch": "torch",
    "torch": "torch",
    "tf2onnx": "keras",
    "keras": "keras",
    "jax": "jax",
    "jax2onnx": "jax",
}


MOST_STEPS = 4  # from an activation back to the weights of its layer


class RuntimeAnswer(NamedTuple):
    """What a runtime said when it was asked to load something."""

    runtime: str
    version: str
    refusal: str
    """Of a graph of one Identity with the model's opset and IR version; "" where it loads it."""


class LintedModel:
    """Everything that rules may ask of one model."""

    def __init__(
        self,
        source: Source,
        *,
        framework: str = "",
        layers: Sequence[str] = (),
        weight_layers: Mapping[str, str] | None = None,
        losses: Sequence[TrainingLoss] = (),
        targets: Mapping[str, NDArray[Any]] | None = None,
        runtimes: Sequence[RuntimeAnswer] = (),
    ) -> None:
        self.source = source
        self.losses = tuple(losses)
        self.targets = targets or {}
        """By output, floats and integers; examples along the first axis."""
        self.units: tuple[UnitStatistics, ...] = ()
        """What sample inputs showed of each activation; empty where there are none."""
        self.runtimes = tuple(runtimes)
        self.weights = {tensor.name: tensor for tensor in source.model.graph.initializer}
        self._framework = framework
        self._names = SourceNames(layers) if layers else None
        self._weight_layers = weight_layers

    @property
    def opset(self) -> int:
        """The version of the standard's operators."""
        return self.source.opset

    @property
    def framework(self) -> str:
        """Where the model comes from: "torch", "keras", "jax"; "" where nothing says so."""
        producer = self.source.model.producer_name.lower()
        return self._framework or next((name for word, name in PRODUCERS.items() if word in producer), "")

    @property
    def proto(self) -> onnx.ModelProto:
        """The model, functions inlined, large weights left out: they are inputs here."""
        return self.source.light

    @cached_property
    def malformed(self) -> list[Malformed]:
        """The nodes that the standard does not have as they are written, or not at the stated opset."""
        return list(malformed_nodes(self.source.model))

    @property
    def is_readable(self) -> bool:
        """Whether every node has the form of its operator, which all rules but that on the form rely on."""
        return all(each.readable for each in self.malformed)

    @cached_property
    def graphs(self) -> list[LintedGraph]:
        """The main graph, and those that its nodes hold, at any depth."""
        try:
            inferred = infer(self.proto)
        except onnx.shape_inference.InferenceError:
            inferred = self.proto.graph
        return list(self._linted(self.proto.graph, inferred, None, {}))

    @property
    def main(self) -> LintedGraph:
        """The main graph."""
        return self.graphs[0]

    @cached_property
    def activations(self) -> list[GraphActivation]:
        """Softmax, sigmoid, tanh, relu and their like in all graphs, written by one node or by several."""
        return [activation for graph in self.graphs for activation in graph_activations(graph, self.opset)]

    @cached_property
    def by_result(self) -> dict[str, GraphActivation]:
        """The activations by the tensor that they give."""
        return {activation.result: activation for activation in self.activations}

    @cached_property
    def nonfinite_weights(self) -> list[NonfiniteWeight]:
        """The weights that are NaN or infinite where that spoils what is computed with them. Reads all weights of floats."""
        return nonfinite_weights(self.source)

    def of_output(self, output: str) -> GraphActivation | None:
        """Return the activation that gives an output of the model; None where there is none."""
        return self.by_result.get(self.main.origin(output))

    def layer(self, node: onnx.NodeProto) -> str:
        """Return the path of the layer that a node belongs to; "" where nothing says so."""
        if self._weight_layers is not None and self.is_readable:
            return one_line(self._layer_by_weights(node, self._weight_layers), 200)
        if self._names is not None:
            return one_line(self._names.layer(node), 200)
        path = scopes(node)[:-1]
        if path:
            return one_line(path[-1], 200)
        return one_line(node.name.strip("/").rpartition("/")[0], 200) if "/" in node.name else ""

    def _layer_by_weights(self, node: onnx.NodeProto, layers: Mapping[str, str]) -> str:
        """Return the layer whose weights a node reads, or those of the nearest node before it that reads any."""
        for _ in range(MOST_STEPS):
            named = next((layers[name] for name in node.input if name in layers), "")
            giver = next((self.main.givers[name] for name in node.input if name in self.main.givers), None)
            if named or giver is None:
                return named
            node = giver
        return ""

    def at(
        self,
        node: onnx.NodeProto,
        message: str,
        numbers: Mapping[str, int | float | str] | None = None,
        severity: Severity | None = None,
    ) -> LintObservation:
        """Return an observation at a node."""
        return LintObservation(
            message=message,
            node=one_line(name_of(node), 200),
            operator=one_line(node.op_type, 80),
            layer=self.layer(node),
            numbers=dict(numbers or {}),
            severity=severity,
        )

    def _linted(
        self,
        body: onnx.GraphProto,
        inferred: onnx.GraphProto,
        outer: LintedGraph | None,
        around: Mapping[str, tuple[int, Dims | None]],
    ) -> Iterator[LintedGraph]:
        shapes = {**around, **_shapes(inferred)}
        for name, tensor in self.weights.items() if outer is None else ():
            shapes[name] = (tensor.data_type, tuple(tensor.dims))
        graph = LintedGraph(body, self.weights, shapes, outer)
        yield graph
        for node, twin in zip(body.node, inferred.node, strict=True):
            for inner, described in zip(subgraphs(node), subgraphs(twin), strict=True):
                yield from self._linted(inner, described, graph, shapes)


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, Dims | None]]:
    shapes: dict[str, tuple[int, Dims | None]] = {
        tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer
    }
    for value in (*graph.input, *graph.value_info, *graph.output):
        described = value.type.tensor_type
        if not described.HasField("shape"):
            shapes[value.name] = (described.elem_type, None)
            continue
        dims = (dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in described.shape.dim)
        shapes[value.name] = (described.elem_type, tuple(dims))
    return shapes
