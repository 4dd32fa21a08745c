"""Training by graphs: a runtime that changes the graph of a step, or feeds it with what it was fed with before."""
# ruff: noqa: D103  one class or function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from actconform import Program
from actconform.types.model import LOSS
from actconform.types.training_run import NEXT, RATE, STEP
from actconform_faulty.graphs import change_constants, graph_fault
from actconform_faulty.injected import fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto, NodeProto

    from actconform.types import Bundle

FAMILY = "training"
ADAM, ADAMW, SGD, DROPOUT, IMAGES = "blobs-adam", "blobs-adamw", "blobs-sgd", "map-dropout", "images-softmax2"
KERNEL = "dense1.kernel"


def step_fault(
    name: str, what: str, subject: str, tensor: str
) -> Callable[[Callable[[ModelProto], None]], Callable[[bytes], bytes]]:
    """Register what changes the graph of a step and leaves that of the model in inference alone."""

    def register(change: Callable[[ModelProto], None]) -> Callable[[bytes], bytes]:
        def of_step(model: ModelProto) -> None:
            if any(value.name.startswith(NEXT) for value in model.graph.output):
                change(model)

        case = f"{subject}/training/f32"
        return graph_fault("ort", name, what, case, family=FAMILY, findings="scaled-error", tensor=tensor)(of_step)

    return register


def constant(model: ModelProto, name: str, value: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def read_instead(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def behind(model: ModelProto, tensor: str, *nodes: NodeProto) -> None:
    """Put nodes behind what gives a tensor: the first reads it as "raw", the last gives it."""
    place = next(number for number, node in enumerate(model.graph.node) if tensor in node.output)
    before = model.graph.node[place]
    before.output[:] = [f"{tensor}/raw" if name == tensor else name for name in before.output]
    for node in nodes:
        node.input[:] = [f"{tensor}/raw" if name == "raw" else name for name in node.input]
    nodes[-1].output[0] = tensor
    for number, node in enumerate(nodes):
        model.graph.node.insert(place + 1 + number, node)


@step_fault("step-uncorrected", "the number of the step is taken for a large one: no bias is corrected", ADAM, KERNEL)
def uncorrected(model: ModelProto) -> None:
    read_instead(model, STEP, constant(model, "large", np.int64(10**6)))


@step_fault("step-late", "the number of the step is that of the step after", ADAM, KERNEL)
def late(model: ModelProto) -> None:
    read_instead(model, STEP, "later")
    model.graph.node.insert(0, helper.make_node("Add", [STEP, constant(model, "one more", np.int64(1))], ["later"]))


@step_fault("rate-halved", "the learning rate is halved", SGD, KERNEL)
def halved(model: ModelProto) -> None:
    read_instead(model, RATE, "half")
    model.graph.node.insert(0, helper.make_node("Mul", [RATE, constant(model, "0.5", np.float32(0.5))], ["half"]))


@step_fault("bias-still", "one bias is never updated", ADAM, "dense2.bias")
def still(model: ModelProto) -> None:
    behind(model, f"{NEXT}dense2.bias", helper.make_node("Identity", ["dense2.bias"], [""]))


@step_fault("gradient-through-float16", "one gradient is cast through float16", SGD, f"d_{KERNEL}")
def narrow(model: ModelProto) -> None:
    narrowed = helper.make_node("Cast", ["raw"], ["narrow"], to=TensorProto.FLOAT16)
    behind(model, f"d_{KERNEL}", narrowed, helper.make_node("Cast", ["narrow"], [""], to=TensorProto.FLOAT))


@step_fault("step-beta2", "beta2 is 0.99", ADAM, f"{KERNEL}/v")
def other_share(model: ModelProto) -> None:
    def change(value: Any) -> Any:
        return {0.999: 0.99, 0.001: 0.01}.get(round(float(value), 6), value) if value.size == 1 else value

    change_constants(model.graph, change)


@step_fault("step-epsilon-inside", "epsilon is moved into the root", ADAM, KERNEL)
def inside(model: ModelProto) -> None:
    epsilon = next(
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and np.all(numpy_helper.to_array(tensor) == np.float32(1e-7))
    )
    for node in [each for each in model.graph.node if each.op_type == "Add" and epsilon in each.input]:
        root = next(name for name in node.input if name != epsilon)
        total = node.output[0]
        node.input[:] = [f"{root}/square", epsilon]
        node.output[0] = f"{total}/square"
        place = list(model.graph.node).index(node)
        model.graph.node.insert(place + 1, helper.make_node("Sqrt", [f"{total}/square"], [total]))
        model.graph.node.insert(place, helper.make_node("Mul", [root, root], [f"{root}/square"]))


@step_fault("step-decay-lost", "the weight decay is folded to 0", ADAMW, KERNEL)
def undecayed(model: ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE and np.all(numpy_helper.to_array(tensor) == 0.01):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tuple(tensor.dims)), tensor.name))


@step_fault("loss-doubled", "the loss that comes out is doubled, the gradients are right", ADAM, LOSS)
def doubled(model: ModelProto) -> None:
    behind(model, LOSS, helper.make_node("Add", ["raw", "raw"], [""]))


class Feeding(Program):
    """A graph that is fed with other tensors than it was given: `fed` gets them and those of the call before, {} at first."""

    def __init__(self, healthy: Program, fed: Callable[[Bundle, Bundle], Bundle]) -> None:
        self._healthy, self._fed = healthy, fed
        self.implementation, self.placement = healthy.implementation, healthy.placement
        self._before: Bundle = {}

    def forward(self, inputs: Bundle) -> Bundle:
        fed = self._fed(inputs, self._before)
        self._before = {name: np.array(array) for name, array in inputs.items()}
        return self._healthy.forward(fed)


def fed_wrongly(name: str, what: str, subject: str, tensor: str, fed: Callable[[Bundle, Bundle], Bundle]) -> None:
    """Register what feeds a graph wrongly."""
    register = fault(
        "ort",
        name,
        FAMILY,
        what,
        f"{subject}/training/f32",
        findings="scaled-error",
        blames="runtime",
        tensor=tensor,
    )
    register(lambda program, _: Feeding(program, fed))


def batch_of_before(inputs: Bundle, before: Bundle) -> Bundle:
    return {**inputs, **{name: before[name] for name in ("x", "target") if before and STEP in inputs}}


def masks_of_before(inputs: Bundle, before: Bundle) -> Bundle:
    return {**inputs, **{name: before[name] for name in before if name.startswith("mask") and STEP in inputs}}


def kernel_of_before(inputs: Bundle, before: Bundle) -> Bundle:
    return {**inputs, **{name: before[name] for name in (KERNEL,) if before and STEP in inputs}}


def inference_of_before(inputs: Bundle, before: Bundle) -> Bundle:
    """Take the parameters of the call before, and not those that were restored or trained since."""
    names = set(inputs) - {"x", "target"} if before and STEP not in inputs else set()
    return {**inputs, **{name: before[name] for name in names}}


fed_wrongly("stale-batch-ort", "a step reads the batch of the step before", ADAM, LOSS, batch_of_before)
fed_wrongly("mask-of-before", "a step reads the dropout masks of the step before", DROPOUT, LOSS, masks_of_before)
fed_wrongly("weight-cached", "a step reads one weight of the step before", SGD, LOSS, kernel_of_before)
fed_wrongly(
    "inference-cached",
    "inference reads the parameters of the call before",
    SGD,
    "validation loss",
    inference_of_before,
)
