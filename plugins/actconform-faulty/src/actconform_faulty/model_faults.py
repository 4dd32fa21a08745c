"""Faults of a runtime that computes a user's own model: each changes one node of whatever ONNX graph it is given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from actconform_faulty.graphs import replace_operator, set_attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from onnx import GraphProto, ModelProto
    from onnx.onnx_ml_pb2 import AttributeProto

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
EPSILON = 1e-5  # the standard's default
SMALL = 0.01  # a constant below is taken for an epsilon
BIAS = 2  # the input of Conv and Gemm


class Place:
    """One node of a graph, nested ones included, with all constants that it may read."""

    def __init__(self, graphs: Sequence[GraphProto], node: NodeProto) -> None:
        self.node = node
        self._graphs = graphs

    def attribute(self, name: str) -> AttributeProto | None:
        return next((attribute for attribute in self.node.attribute if attribute.name == name), None)

    def constant(self, position: int) -> Any:
        """Return the value of an input that is a constant; None for others, and where there is no such input."""
        if position >= len(self.node.input):
            return None
        name = self.node.input[position]
        for graph in reversed(self._graphs):
            for tensor in graph.initializer:
                if tensor.name == name:
                    return numpy_helper.to_array(tensor)
            for node in graph.node:
                if name in node.output:
                    given = node.op_type == "Constant" and node.attribute[0].name == "value"
                    return numpy_helper.to_array(node.attribute[0].t) if given else None
        return None

    def floats(self) -> Iterator[tuple[int, Any]]:
        """Yield the inputs that are constants of floating-point numbers: position and value."""
        for position in range(len(self.node.input)):
            value = self.constant(position)
            if value is not None and helper.np_dtype_to_tensor_dtype(value.dtype) in FLOATS:
                yield position, value

    def set_constant(self, position: int, value: Any) -> None:
        """Give this node alone another constant."""
        old = self.constant(position)
        fresh = np.asarray(value).astype(old.dtype)
        self.node.input[position] = self.add_constant(f"{self.node.output[0]}/fault-{position}", fresh)

    def add_constant(self, name: str, value: Any) -> str:
        self._graphs[-1].initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def before(self, position: int, *nodes: NodeProto) -> None:
        """Put nodes in front of this one, the last of which gives its input."""
        self._insert(0, nodes)
        self.node.input[position] = nodes[-1].output[0]

    def behind(self, *nodes: NodeProto) -> None:
        """Put nodes behind this one: the first reads "raw", which this one gives from now on, the last gives the output."""
        output = self.node.output[0]
        raw = f"{output}/raw"
        self.node.output[0] = raw
        for node in nodes:
            node.input[:] = [raw if name == "raw" else name for name in node.input]
        nodes[-1].output[0] = output
        self._insert(1, nodes)

    def _insert(self, after: int, nodes: Sequence[NodeProto]) -> None:
        graph = self._graphs[-1]
        place = next(i for i, node in enumerate(graph.node) if node.output == self.node.output)
        kept = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
        kept[place + after : place + after] = nodes
        del graph.node[:]
        graph.node.extend(kept)
        self.node = graph.node[place + (0 if after else len(nodes))]


class ModelFault(NamedTuple):
    """A fault: what it does, of which operators, and the function that changes the node; False where this one cannot have it."""

    what: str
    operators: tuple[str, ...]
    change: Callable[[Place], bool]


MODEL_FAULTS: dict[str, ModelFault] = {}


def inject_into(model: ModelProto, name: str, tensor: str = "") -> bool:
    """Change the node that gives `tensor`, or the first one that the fault can have; return whether there was one.

    In a graph that was unrolled or taken out of another one, the name may follow those of the nodes that held it.
    """
    fault = MODEL_FAULTS[name]
    places = [place for place in _places([model.graph]) if place.node.op_type in fault.operators]
    wanted = [place for place in places if not tensor or tensor in place.node.output]
    wanted = wanted or [place for place in places if any(name.endswith(f"/{tensor}") for name in place.node.output)]
    return any(fault.change(place) for place in wanted)


def _places(graphs: Sequence[GraphProto]) -> Iterator[Place]:
    for node in list(graphs[-1].node):
        yield Place(graphs, node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _places([*graphs, attribute.g])


def _model_fault(name: str, what: str, *operators: str) -> Callable[[Callable[[Place], bool]], Callable[[Place], bool]]:
    def register(change: Callable[[Place], bool]) -> Callable[[Place], bool]:
        if name in MODEL_FAULTS:
            raise ValueError(f"two faults are called {name}")
        MODEL_FAULTS[name] = ModelFault(what, operators, change)
        return change

    return register


def _half(value: Any) -> Any:
    return np.asarray(value).astype(np.float16).astype(np.asarray(value).dtype)


def _changed(place: Place, position: int, change: Callable[[Any], Any]) -> bool:
    """Change a constant input; return whether there is one, and it is another afterwards."""
    value = place.constant(position)
    if value is None:
        return False
    fresh = change(value)
    if np.array_equal(fresh, value):
        return False
    place.set_constant(position, fresh)
    return True


def _largest(place: Place) -> int | None:
    """Return the input that holds the weights: the constant of most elements."""
    sizes = {position: value.size for position, value in place.floats()}
    return max(sizes, key=sizes.__getitem__) if sizes else None


# Attributes


@_model_fault(
    "epsilon", "epsilon is ten times as large", "BatchNormalization", "LayerNormalization", "InstanceNormalization"
)
def _epsilon(place: Place) -> bool:
    attribute = place.attribute("epsilon")
    set_attribute(place.node, "epsilon", 10 * (attribute.f if attribute else EPSILON))
    return True


@_model_fault("alpha", "alpha is a sixth less", "HardSigmoid", "LeakyRelu", "Elu")
def _alpha(place: Place) -> bool:
    attribute = place.attribute("alpha")
    default = {"HardSigmoid": 0.2, "LeakyRelu": 0.01, "Elu": 1.0}[place.node.op_type]
    set_attribute(place.node, "alpha", (attribute.f if attribute else default) * 5 / 6)
    return True


@_model_fault("axis", "the axis before the right one", "Softmax", "LogSoftmax", "ReduceMean", "ReduceSum", "Concat")
def _axis(place: Place) -> bool:
    if place.attribute("axes") is not None:
        axes = place.attribute("axes")
        set_attribute(place.node, "axes", [axis - 1 for axis in axes.ints] if axes else [])
        return True
    if place.node.op_type.startswith("Reduce"):
        return _changed(place, 1, lambda axes: axes - 1)
    attribute = place.attribute("axis")
    set_attribute(place.node, "axis", (attribute.i if attribute else -1) - 1)
    return True


@_model_fault("pads-shifted", "the window lies one place further", "Conv", "AveragePool", "MaxPool")
def _pads_shifted(place: Place) -> bool:
    attribute = place.attribute("pads")
    pads = list(attribute.ints) if attribute else []
    half = len(pads) // 2
    axis = next((i for i in range(half) if pads[half + i] > 0), None)
    if axis is None:
        return False
    pads[axis] += 1
    pads[half + axis] -= 1
    set_attribute(place.node, "pads", pads)
    return True


@_model_fault("pad-sides", "begin and end are exchanged", "Pad")
def _pad_sides(place: Place) -> bool:
    attribute = place.attribute("pads")
    if attribute is not None:
        half = len(attribute.ints) // 2
        set_attribute(place.node, "pads", [*attribute.ints[half:], *attribute.ints[:half]])
        return True
    return _changed(place, 1, lambda pads: np.concatenate([pads[pads.size // 2 :], pads[: pads.size // 2]]))


@_model_fault("ceil-mode", "sizes are rounded up", "MaxPool", "AveragePool")
def _ceil_mode(place: Place) -> bool:
    set_attribute(place.node, "ceil_mode", 1)
    return True


@_model_fault("resize-linear", "linear instead of nearest", "Resize", "Upsample")
def _resize_linear(place: Place) -> bool:
    set_attribute(place.node, "mode", "linear")
    return True


@_model_fault("resize-corners", "corners are aligned", "Resize")
def _resize_corners(place: Place) -> bool:
    set_attribute(place.node, "coordinate_transformation_mode", "align_corners")
    return True


@_model_fault("clip-bound", "the upper bound is a percent less", "Clip")
def _clip_bound(place: Place) -> bool:
    attribute = place.attribute("max")
    if attribute is not None:
        set_attribute(place.node, "max", attribute.f * 0.99)
        return True
    return _changed(place, 2, lambda bound: bound * 0.99)


# Constants


@_model_fault(
    "weight-f16", "weights in half precision", "Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN"
)
def _weight_f16(place: Place) -> bool:
    position = _largest(place)
    return position is not None and _changed(place, position, _half)


@_model_fault("bias-f16", "a bias in half precision", "Add", "Conv", "Gemm", "LSTM")
def _bias_f16(place: Place) -> bool:
    position = {"LSTM": 3, "Conv": BIAS, "Gemm": BIAS}.get(place.node.op_type, _largest(place))
    return position is not None and _changed(place, position, _half)


@_model_fault("bias-element", "one element of a bias is 0.001 more", "Add", "Conv", "Gemm")
def _bias_element(place: Place) -> bool:
    position = _largest(place) if place.node.op_type == "Add" else BIAS

    def moved(bias: Any) -> Any:
        fresh = bias.copy()
        fresh.reshape(-1)[bias.size // 2] += 0.001
        return fresh

    return position is not None and _changed(place, position, moved)


@_model_fault("weight-transposed", "a square weight is transposed", "MatMul", "Gemm")
def _weight_transposed(place: Place) -> bool:
    position = _largest(place)
    shape = place.constant(position).shape if position is not None else ()
    if position is None or len(shape) < 2 or shape[-1] != shape[-2]:
        return False
    return _changed(place, position, lambda weight: weight.swapaxes(-1, -2))


@_model_fault("constant", "a constant is 0.1 % more", "Mul", "Div", "Add", "Sub", "Pow")
def _constant(place: Place) -> bool:
    position = _largest(place)
    return position is not None and _changed(place, position, lambda value: value * 1.001)


@_model_fault("epsilon-written-out", "an epsilon that is added is ten times as large", "Add")
def _epsilon_written_out(place: Place) -> bool:
    small = [position for position, value in place.floats() if value.size == 1 and 0 < abs(value.item()) < SMALL]
    return bool(small) and _changed(place, small[0], lambda value: value * 10)


@_model_fault("gates-swapped", "input and forget gates are exchanged in R", "LSTM")
def _gates_swapped(place: Place) -> bool:
    def swapped(weights: Any) -> Any:
        i, o, f, c = np.split(weights, 4, axis=1)
        return np.concatenate([f, o, i, c], axis=1)

    return _changed(place, 2, swapped)


@_model_fault("recurrent-bias", "the recurrent bias is left out", "LSTM", "GRU", "RNN")
def _recurrent_bias(place: Place) -> bool:
    def without(bias: Any) -> Any:
        fresh = bias.copy()
        fresh[:, bias.shape[1] // 2 :] = 0
        return fresh

    return _changed(place, 3, without)


@_model_fault(
    "scale", "the scale of a quantization is a percent more", "QuantizeLinear", "DequantizeLinear", "QLinearConv"
)
def _scale(place: Place) -> bool:
    return _changed(place, 1, lambda scale: scale * 1.01)


@_model_fault("zero-point", "the zero point of the weights is one more", "MatMulInteger", "ConvInteger")
def _zero_point(place: Place) -> bool:
    return _changed(place, 3, lambda zero: zero + 1)


# Operators


@_model_fault("relu-leaky", "LeakyRelu instead of Relu", "Relu")
def _relu_leaky(place: Place) -> bool:
    replace_operator(place.node, "LeakyRelu", alpha=0.01)
    return True


@_model_fault("sigmoid-hard", "HardSigmoid instead of Sigmoid", "Sigmoid")
def _sigmoid_hard(place: Place) -> bool:
    replace_operator(place.node, "HardSigmoid")
    return True


@_model_fault("tanh-softsign", "Softsign instead of Tanh", "Tanh")
def _tanh_softsign(place: Place) -> bool:
    replace_operator(place.node, "Softsign")
    return True


@_model_fault("gelu-tanh", "erf by the tanh that approximates it in gelu", "Erf", "Gelu")
def _gelu_tanh(place: Place) -> bool:
    if place.node.op_type == "Gelu":
        set_attribute(place.node, "approximate", "tanh")
        return True
    replace_operator(place.node, "Tanh")
    (x, y), size = (place.node.input[0], place.node.output[0]), 2 / math.sqrt(math.pi)
    cubic = place.add_constant(f"{y}/cubic", np.float32(2 * 0.044715 * size))
    linear = place.add_constant(f"{y}/linear", np.float32(size))
    place.before(
        0,
        helper.make_node("Mul", [x, x], [f"{y}/square"]),
        helper.make_node("Mul", [f"{y}/square", cubic], [f"{y}/scaled"]),
        helper.make_node("Add", [f"{y}/scaled", linear], [f"{y}/factor"]),
        helper.make_node("Mul", [f"{y}/factor", x], [f"{y}/argument"]),
    )
    return True


@_model_fault("cast-dropped", "no cast: what it cut off stays", "Cast")
def _cast_dropped(place: Place) -> bool:
    """Of a cast to integers or fewer digits, whose reader casts back; the node then gives what is near its type."""
    to = place.attribute("to")
    if to is None or to.i not in FLOATS:
        return False
    replace_operator(place.node, "Identity")
    return True


# Precision


@_model_fault(
    "through-f16", "the result goes through half precision", "Mul", "Add", "Conv", "MatMul", "Gemm", "Sigmoid"
)
def _through_f16(place: Place) -> bool:
    place.behind(*_rounded("raw", "", f"{place.node.output[0]}/half"))
    return True


def _rounded(source: str, result: str, half: str) -> tuple[NodeProto, NodeProto]:
    """Return the casts to half precision and back; beside an operator in half precision ONNX Runtime would take them out."""
    return (
        helper.make_node("Cast", [source], [half], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [result], to=TensorProto.FLOAT),
    )


@_model_fault("product-f16", "a product of two halves, added up in half precision", "MatMul")
def _product_f16(place: Place) -> bool:
    """Split the sum in two, and round each part to half precision before both are added."""
    weight = place.constant(1)
    if weight is None or weight.ndim != 2 or weight.shape[0] < 2:
        return False
    x, y = place.node.input[0], place.node.output[0]
    first, second = weight.copy(), weight.copy()
    first[weight.shape[0] // 2 :] = 0
    second[: weight.shape[0] // 2] = 0
    place.set_constant(1, first)
    rest = place.add_constant(f"{y}/rest", second)
    place.behind(
        helper.make_node("MatMul", [x, rest], [f"{y}/second"]),
        *_rounded("raw", f"{y}/first-rounded", f"{y}/first-half"),
        *_rounded(f"{y}/second", f"{y}/second-rounded", f"{y}/second-half"),
        helper.make_node("Add", [f"{y}/first-rounded", f"{y}/second-rounded"], [f"{y}/sum"]),
        *_rounded(f"{y}/sum", "", f"{y}/sum-half"),
    )
    return True
