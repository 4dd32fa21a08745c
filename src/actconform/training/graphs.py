"""The two graphs of a user's training: that of a step, and that of the model in inference with its loss."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

import onnx
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data

from actconform.errors import GradientError, Unsupported, UnsupportedOperator, UsageError, near
from actconform.onnx.gates import deep
from actconform.onnx.nested_graphs import needed, reads
from actconform.onnx.step_graph import train_step, training_state
from actconform.onnx.strip_weights import restore_weights, strip_weights
from actconform.onnx.trainable import append_loss, output_for_loss, statistics_given, with_inputs
from actconform.text import one_line
from actconform.types.model import LOSS
from actconform.types.training_run import NEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from actconform.checking.source import Source
    from actconform.types.training import Optimizer


class TrainGraphs(NamedTuple):
    """What a runtime trains and evaluates, and the state before the first step."""

    step: bytes
    inference: bytes
    """Inputs: those of the model, "target", and the weights; outputs: "loss" and the output that it is of."""
    output: str
    parameters: tuple[str, ...]
    """What is trained by gradient."""
    state: dict[str, NDArray[np.float32]]
    """Weights, running statistics, and slots as "NAME/SLOT"."""
    weights: tuple[str, ...]
    """The state without slots: what becomes of the model."""
    opset: int


def train_graphs(
    source: Source, *, loss: str, optimizer: Optimizer, output: str | None, parameters: Sequence[str]
) -> TrainGraphs:
    """Return the graphs of a training. `parameters` are patterns of names, as "encoder.*"; without any all that can be trained is.

    Raises UsageError, naming the model's file, for a model that cannot be trained: quantized, without weights, larger than 2 GiB,
    with an operator without a gradient, or where output or parameters are not there.
    """
    shown = one_line(str(source.path))
    model = source.model
    large = next((tensor.name for tensor in model.graph.initializer if uses_external_data(tensor)), None)
    if large is not None:
        raise UsageError(
            f"{shown}: has more than 2 GiB with the data that lie beside it ({one_line(large)}); smaller models are trained"
        )
    try:
        of = output_for_loss(model.graph, output).name
        step = train_step(model, loss=loss, optimizer=optimizer, output=of)
        if parameters:
            chosen = _chosen(model, _trained(step, optimizer), parameters)
            step = train_step(model, loss=loss, optimizer=optimizer, output=of, parameters=chosen)
        state = training_state(model, step)
        initializers = {tensor.name for tensor in model.graph.initializer}
        weights = tuple(name for name in state if name in initializers)
        inference = _inference_graph(model, loss, of, weights)
    except (GradientError, UnsupportedOperator, Unsupported) as error:
        raise UsageError(f"{shown}: cannot be trained: {one_line(str(error))}") from error
    except UsageError as error:
        text = one_line(str(error)).replace("output=", "--output")
        option = "--" * text.startswith(("output: ", "parameters: "))
        raise UsageError(f"{shown}: {option}{text}") from error
    trained = tuple(_trained(step, optimizer))
    _drop_unread_inputs(step.graph)
    return TrainGraphs(step.SerializeToString(), inference, of, trained, state, weights, source.opset)


def _trained(step: onnx.ModelProto, optimizer: Optimizer) -> list[str]:
    """Return what the graph of a step changes by gradient: its state without slots and running statistics."""
    names = [value.name.removeprefix(NEXT) for value in step.graph.output if value.name.startswith(NEXT)]
    slots = {f"{name}/{slot}" for name in names for slot in optimizer.slots}
    statistics = statistics_given(step.graph, names)
    return [name for name in names if name not in slots and name not in statistics]


def _chosen(model: onnx.ModelProto, trainable: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return what the patterns name. Raises UsageError where one of them names nothing that can be trained."""
    initializers = [tensor.name for tensor in model.graph.initializer]
    chosen: list[str] = []
    for pattern in patterns:
        matching = [name for name in trainable if fnmatchcase(name, pattern)]
        if not matching and pattern in initializers:
            matching = [pattern]  # the graph of a step says why it is none
        if not matching:
            raise UsageError(
                f"--parameters: no weight that can be trained is {pattern!r}{near(pattern, list(trainable))}"
            )
        chosen += matching
    return list(dict.fromkeys(chosen))


def _inference_graph(model: onnx.ModelProto, loss: str, output: str, weights: Sequence[str]) -> bytes:
    light = strip_weights(model)  # as the graph of a step is: nodes of local functions train too
    graph = light.graph
    for node in deep(graph.node):
        if node.op_type == "Dropout":
            del node.input[2:]
        if node.op_type == "BatchNormalization":
            del node.output[1:]
            attributes = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
            del node.attribute[:]
            node.attribute.extend(attributes)
    append_loss(light, loss, output_for_loss(graph, output))
    restore_weights(light, model)
    with_inputs(graph, set(weights))
    outputs = [value for value in graph.output if value.name == output]
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, ()))
    graph.output.extend(outputs)
    nodes = needed(graph.node, [LOSS, output])
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread_inputs(graph)
    return bytes(light.SerializeToString())


def _drop_unread_inputs(graph: onnx.GraphProto) -> None:
    """Leave out inputs that nothing reads, such as the number of the step under sgd: some runtimes demand them, others refuse them."""
    read = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    inputs = [value for value in graph.input if value.name in read]
    del graph.input[:]
    graph.input.extend(inputs)
