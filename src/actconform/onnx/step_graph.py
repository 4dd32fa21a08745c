"""One step of training as one ONNX graph: forward pass, loss, gradients and the optimizer's update, state in and state out.

Its nodes are standard `ai.onnx` operators, so that any ONNX runtime trains. The update is that of oracle/training/optimizers.py, written
by the same function that defines it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actconform.errors import UsageError, near
from actconform.onnx.batch_statistics import append_statistics
from actconform.onnx.constants import constant_tensor, tensor_of
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.onnx.nested_graphs import fresh_prefix, needed, own_names, reads
from actconform.onnx.strip_weights import restore_weights, strip_weights
from actconform.onnx.trainable import (
    append_loss,
    depends_on,
    expect_float_model,
    expect_free,
    expect_loss,
    expect_optimizer,
    likely_weights,
    named_weights,
    output_for_loss,
    statistics_given,
    with_inputs,
)
from actconform.onnx.update_nodes import UpdateNodes
from actconform.oracle.training.optimizers import updated
from actconform.types.model import LOSS
from actconform.types.training import Forms, Optimizer
from actconform.types.training_run import NEXT, RATE, STEP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.onnx.update_nodes import Expression
    from actconform.types.training import Experiment

GRADIENT = "d_"


def train_step(
    model: onnx.ModelProto,
    *,
    loss: str,
    optimizer: Optimizer,
    output: str | None = None,
    parameters: Sequence[str] | None = None,
    gradients: bool = False,
) -> onnx.ModelProto:
    """Return the graph of a training step of `model`, whose weights are initializers: state goes in, and comes out.

    Inputs: those of the model; "target", of the shape of the output that the loss is of; each trained initializer by its name, each
    slot of the optimizer as "NAME/SLOT" of the same shape, zeros before the first step; "step", int64, the number of the step from 1 on;
    "learning_rate", float32, that of the step (`Optimizer.rate`), both scalars. Outputs: "loss", of the batch, before the update, a
    scalar; "next/NAME" and "next/NAME/SLOT", of the same shapes; with `gradients` "d_NAME". All else is float32. Running statistics
    of a BatchNormalization that the model has in training mode are state too, without slots; its variance is the biased one.
    `training_state` has the state of the first step, `model_of_state` puts what was trained back.

    loss: a kind of `actconform.catalog.models.layer_kinds.LOSSES`, a mean over all elements, of categorical ones over all rows. output:
    the output that it is of, which can be left out where there is one. parameters: the initializers to train, by default all float32
    ones from which a gradient path leads to the loss, but scalars (an epsilon), single numbers of any shape that Mul, Clip and the like
    read (a factor, a bound), those that hold infinities or NaN (masks), and running statistics and sizes by the place where a node reads
    them. Biases of zeros may be none of them: some exporters drop these. NaN and infinities go where the arithmetic takes them.

        >>> import numpy as np, onnx
        >>> from onnx.reference import ReferenceEvaluator
        >>> from actconform.onnx import train_step, training_state
        >>> from actconform.types.training import Optimizer
        >>> model = onnx.parser.parse_model('''<ir_version: 10, opset_import: ["" : 20]> g (float[b, 2] x) => (float[b, 1] y)
        ...     <float[2, 1] w = {1, 2}> { y = MatMul(x, w) }''')
        >>> step = train_step(model, loss="mean-squared-error", optimizer=Optimizer(kind="sgd", learning_rate=0.5))
        >>> batch = {"x": np.eye(2, dtype=np.float32), "target": np.zeros((2, 1), np.float32)}
        >>> counted = {"step": np.int64(1), "learning_rate": np.float32(0.5)}
        >>> feed = {**batch, **training_state(model, step), **counted}
        >>> loss, w = ReferenceEvaluator(step).run(["loss", "next/w"], {name: np.asarray(x) for name, x in feed.items()})
        >>> float(loss), w.ravel().tolist()
        (2.5, [0.5, 1.0])

    Raises UsageError where a name or the loss is not known, several outputs leave the choice open, the model is quantized, has no
    float32 weights, or a tensor's name is taken; UnsupportedOperator for a node without a gradient; GradientError as `add_gradients`.
    """
    expect_loss(loss)
    expect_optimizer(optimizer)
    light = strip_weights(model)
    expect_float_model(light.graph)
    of = output_for_loss(light.graph, output)
    names = named_weights(model, parameters) if parameters is not None else likely_weights(model)
    append_loss(light, loss, of)
    chosen = _with_path(light, model, names)
    if parameters is not None and chosen != names:
        without = next(name for name in names if name not in chosen)
        raise UsageError(f"parameters: no gradient path leads from {without!r} to output {of.name!r}: leave it out")
    if not chosen:
        raise UsageError(f"no gradient path leads from any of the model's weights to output {of.name!r}")
    restore_weights(light, model)
    initializers = {tensor.name for tensor in light.graph.initializer}
    with_inputs(light.graph, {*chosen, *statistics_given(light.graph, initializers)})
    return _with_update(light, chosen, optimizer, gradients=gradients)


def training_graph(forward: bytes, experiment: Experiment) -> bytes:
    """Return the graph of a step of an experiment, made of the forward graph of its model in training, which has a "loss".

    Its inputs are the model's, its parameters, slots, "step" and "learning_rate", its outputs those of `train_step` with gradients.
    A trainable parameter that an exporter left out is an input of gradient zero. Raises as `add_gradients`.
    """
    model = onnx.load_from_string(forward)
    stated = {value.name for value in model.graph.input}
    for parameter in experiment.model.parameters:
        if parameter.trainable and parameter.name not in stated:
            value = helper.make_tensor_value_info(parameter.name, TensorProto.FLOAT, parameter.shape)
            model.graph.input.append(value)
    computed = append_statistics(model, experiment.model)
    step = _with_update(model, experiment.differentiable, experiment.optimizer, gradients=True, computed=computed)
    return bytes(step.SerializeToString())


def training_state(model: onnx.ModelProto, step: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Return the state before the first step that `step`, by `train_step`, has of `model`: its weights, and slots of zeros.

    Raises UsageError where the model holds no tensor of that name and shape.
    """
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    state = {}
    for name, shape in _state_shapes(step).items():
        weight, _, slot = name.rpartition("/")
        if name in arrays:
            state[name] = np.array(numpy_helper.to_array(arrays[name]))
        elif slot and weight in arrays:
            state[name] = np.zeros(shape, np.float32)
        else:
            raise UsageError(
                f"the step trains {name!r}, which is no initializer of the model{near(name, list(arrays))}"
            )
        if state[name].shape != shape:
            raise UsageError(
                f"the step trains {name!r} of shape {list(shape)}; the model's has {list(state[name].shape)}"
            )
    return state


def model_of_state(model: onnx.ModelProto, state: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """Return a copy of a model with the weights and running statistics of a state in place of its own; slots are passed over.

    Raises UsageError where a tensor has another shape or dtype than the model's.
    """
    trained = onnx.ModelProto()
    trained.CopyFrom(model)
    for tensor in trained.graph.initializer:
        if tensor.name not in state:
            continue
        array = np.asarray(state[tensor.name])
        if array.dtype != np.float32 or array.shape != tuple(tensor.dims) or tensor.data_type != TensorProto.FLOAT:
            dtype_and_shape = f"{array.dtype} of shape {list(array.shape)}"
            raise UsageError(
                f"the state has {tensor.name!r} as {dtype_and_shape}; the model's has shape {list(tensor.dims)}, float32"
            )
        tensor.CopyFrom(tensor_of(array, tensor.name))
    return trained


def _state_shapes(step: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the state of a step, in the order of its outputs."""
    return {
        value.name.removeprefix(NEXT): tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in step.graph.output
        if value.name.startswith(NEXT)
    }


def _with_path(light: onnx.ModelProto, model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """Return those of `names` from which a gradient path leads to the loss; light, a model without large initializers, has one."""
    complete = onnx.ModelProto()
    complete.CopyFrom(light)
    restore_weights(complete, model)
    cotangent, gradient = (fresh_prefix(prefix, set(own_names(complete.graph))) for prefix in ("ct_", GRADIENT))
    both = add_gradients(complete, names, [LOSS], cotangent=cotangent, gradient=gradient, keep_outputs=False)
    reached = depends_on(both.graph, cotangent + LOSS)
    return [name for name in names if gradient + name in reached]


def _with_update(
    model: onnx.ModelProto,
    parameters: Sequence[str],
    optimizer: Optimizer,
    *,
    gradients: bool,
    computed: Sequence[str] = (),
) -> onnx.ModelProto:
    """Return the graph of a step of a model that has "loss" among its outputs and its parameters as inputs.

    It has the next values of the running statistics `computed` already.
    """
    names = set(own_names(model.graph))
    statistics = statistics_given(model.graph, {value.name for value in model.graph.input})
    shaped_as = {
        state: name for name in parameters for state in (name, *(f"{name}/{slot}" for slot in optimizer.slots))
    }
    shaped_as |= {name: name for name in (*statistics, *computed)}
    slots = [state for state, name in shaped_as.items() if state != name]
    shown = [GRADIENT + name for name in parameters] if gradients else []
    expect_free(names, [STEP, RATE, *slots, *(NEXT + state for state in shaped_as if state not in computed), *shown])
    cotangent = fresh_prefix("ct_", names)
    gradient = GRADIENT if gradients else fresh_prefix(GRADIENT, names)
    differentiated = add_gradients(model, parameters, [LOSS], cotangent=cotangent, gradient=gradient)
    graph = differentiated.graph
    _set_constant(graph, cotangent + LOSS)
    _append_updates(graph, parameters, optimizer, gradient)
    _give_statistics(graph, list(statistics))
    shapes = {value.name: value for value in graph.input}
    graph.input.extend(_like(shapes[shaped_as[slot]], slot) for slot in slots)
    graph.input.append(helper.make_tensor_value_info(STEP, TensorProto.INT64, ()))
    graph.input.append(helper.make_tensor_value_info(RATE, TensorProto.FLOAT, ()))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, ()))
    graph.output.extend(_like(shapes[name], NEXT + state) for state, name in shaped_as.items())
    graph.output.extend(_like(shapes[name], GRADIENT + name) for name in parameters if gradients)
    _drop_unused(graph)
    onnx.checker.check_model(differentiated)
    return differentiated


def _append_updates(graph: onnx.GraphProto, parameters: Sequence[str], optimizer: Optimizer, gradient: str) -> None:
    """Add what the optimizer makes of parameters and slots, as tensors "next/...", of gradients called by a prefix."""
    updates = UpdateNodes(fresh_prefix("update_", set(own_names(graph))))
    step: Any = updates.scalar(STEP)
    rule: Any = _AtRate(optimizer, updates.scalar(RATE))
    for name in parameters:
        before = {slot: updates.tensor(f"{name}/{slot}") for slot in optimizer.slots}
        w, after = updated(
            rule, Forms(), step, updates.tensor(name), updates.tensor(gradient + name), before, lambda number: number
        )
        updates.rename(w.name, NEXT + name)
        for slot, number in after.items():
            updates.rename(number.name, f"{NEXT}{name}/{slot}")
    graph.node.extend(updates.nodes)
    graph.initializer.extend(updates.initializers)


class _AtRate:
    """An optimizer whose learning rate in each step is an input of the graph."""

    def __init__(self, optimizer: Optimizer, rate: Expression) -> None:
        self._optimizer, self._rate = optimizer, rate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def rate(self, step: Expression) -> Expression:  # noqa: ARG002  the signature of Optimizer
        return self._rate


def _set_constant(graph: onnx.GraphProto, name: str) -> None:
    """Make an input the number 1."""
    inputs = [value for value in graph.input if value.name != name]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.initializer.append(constant_tensor(1.0, TensorProto.FLOAT, name))


def _give_statistics(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Name what nodes BatchNormalization make of running statistics as outputs of a step."""
    for name, (node, place) in statistics_given(graph, names).items():
        if node.output[place]:
            graph.node.append(helper.make_node("Identity", [node.output[place]], [NEXT + name], name=NEXT + name))
        else:
            node.output[place] = NEXT + name


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Leave out the nodes and initializers that no output depends on; inputs stay."""
    outputs = [value.name for value in graph.output]
    nodes = needed(graph.node, outputs)
    used = {name for node in nodes for name in reads(node)}.union(outputs)
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    written = {name for node in nodes for name in node.output}
    infos = [value for value in graph.value_info if value.name in written]
    for field, values in ((graph.node, nodes), (graph.initializer, initializers), (graph.value_info, infos)):
        del field[:]
        field.extend(values)


def _like(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    described = onnx.ValueInfoProto()
    described.CopyFrom(value)
    described.name = name
    return described
