"""The framework's backward pass against the gradients that are added to the graph: of inputs, and of weights that are the same in both."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.checking.gradients import COTANGENT, GRADIENT
from actconform.checking.runs import RunFailure
from actconform.checking.trained.names import arrays_in_trained_layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.checking.flatten import FlatGraph
    from actconform.checking.trained.model_runs import ModelRuns
    from actconform.checking.trained.names import NamedPair
    from actconform.checking.trained.weights import WeightsComparison
    from actconform.types.case import Bundle
    from actconform.types.trained import RunMode

    Array = NDArray[Any]


def has_gradients(sample: Bundle) -> bool:
    """Return whether the inputs have cotangents."""
    return any(name.startswith(COTANGENT) for name in sample)


def forward_part(graph: FlatGraph) -> FlatGraph:
    """Return the graph without what computes gradients alone: layers are none of its tensors."""
    outputs = [name for name in graph.outputs if not name.startswith(GRADIENT)]
    if outputs == graph.outputs:
        return graph
    needed, nodes = set(outputs), []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
            nodes.append(node)
    inputs = [name for name in graph.inputs if not name.startswith(COTANGENT)]
    return replace(graph, nodes=nodes[::-1], inputs=inputs, outputs=outputs)


def inputs_of(graph: FlatGraph, sample: Bundle) -> dict[str, Array]:
    """Return the arrays that are inputs of a graph, or of its forward part."""
    return {name: array for name, array in sample.items() if name in graph.inputs}


def backward(
    runs: ModelRuns,
    pairs: tuple[Sequence[NamedPair], Sequence[NamedPair]],
    graph: FlatGraph,
    sample: Bundle,
    mode: RunMode,
    weights: WeightsComparison | None,
) -> dict[str, Array] | RunFailure:
    """Return the framework's gradients under the names that the graph has for them, those of the last layers first.

    `pairs` are those of inputs and outputs. A weight takes part where the graph holds it to the last bit, transposed or not.
    """
    inputs, outputs = pairs
    cotangents = {
        pair.trained: pair.to_trained(sample[COTANGENT + pair.graph])
        for pair in outputs
        if COTANGENT + pair.graph in sample
    }
    gradients = runs.gradients(arrays_in_trained_layout(inputs, sample), cotangents, mode)
    if isinstance(gradients, RunFailure):
        return gradients
    named = dict(_of_weights(graph, gradients, weights))
    order = {name: place for place, node in enumerate(graph.nodes) for name in reversed(node.inputs)}
    of_weights = sorted(named, key=lambda name: -order.get(name.removeprefix(GRADIENT), 0))
    of_inputs = {
        GRADIENT + pair.graph: pair.to_graph(gradients[GRADIENT + pair.trained])
        for pair in inputs
        if GRADIENT + pair.trained in gradients and GRADIENT + pair.graph in graph.outputs
    }
    return {name: named[name] for name in of_weights} | of_inputs


def _of_weights(
    graph: FlatGraph, gradients: Mapping[str, Array], weights: WeightsComparison | None
) -> Iterator[tuple[str, Array]]:
    checks = weights.checks if weights else ()
    holders = Counter(name for check in checks for name in check.initializers)
    for check in checks:
        gradient = gradients.get(GRADIENT + check.parameter)
        if gradient is None or not check.exact or len(check.initializers) != 1 or holders[check.initializers[0]] > 1:
            continue
        (name,) = check.initializers
        constant = graph.constants[name]
        if GRADIENT + name not in graph.outputs or (constant.size > 1 and (constant == constant.flat[0]).all()):
            continue  # exporters let one constant stand for all weights of zeros: its gradient is the sum of theirs
        if check.state == "identical":
            yield GRADIENT + name, gradient
        elif check.state == "transposed" and gradient.ndim == 2:
            yield GRADIENT + name, np.ascontiguousarray(gradient.T)


def without_padding_row(gradient: Array, truth: Array) -> tuple[Array, int | None]:
    """Return the gradient of an embedding with the row of the padding index as the graph has it, and that row; None where there is none.

    A framework gives the row no gradient by definition, and ONNX has no such thing: so one row of zeros where the graph has others is a
    convention.
    """
    if gradient.ndim != 2 or gradient.shape != truth.shape or len(gradient) < 2:
        return gradient, None
    rows = np.flatnonzero(~gradient.any(axis=1) & truth.any(axis=1))
    if len(rows) != 1:
        return gradient, None
    filled = gradient.copy()
    filled[rows[0]] = truth[rows[0]]
    return filled, int(rows[0])
