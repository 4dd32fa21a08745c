"""Where the values of a graph's inputs flow: through which nodes that only move, scale or shift them, and into what others."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from actconform.onnx.grad.rules.tensor_info import constant_of
from actconform.onnx.strip_weights import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Array: TypeAlias = NDArray[Any]

# The inputs of an operator whose elements are passed on as they are, in whatever order; None where all are.
PASSED: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(
        """
        Cast CastLike Compress DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND Identity Pad Reshape
        ReverseSequence Slice SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze
        """.split(),  # noqa: SIM905  a list to read
        (0,),
    ),
    "Concat": None,
    "Where": (1, 2),
}  # fmt: skip
# Of constants: what has the same elements.
_KEPT_CONSTANT = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Flatten")


class Affine(NamedTuple):
    """How a tensor follows from an input: scale * input + offset, the offset between two numbers where it differs by element."""

    scale: float = 1.0
    low: float = 0.0
    high: float = 0.0


class Use(NamedTuple):
    """A node that reads a tensor, in whatever graph it stands; tensors are numbered, as names may be used twice."""

    node: onnx.NodeProto
    operands: tuple[int | None, ...]
    outputs: tuple[int, ...]


class Arrival(NamedTuple):
    """Values of an input that come to an operand of a node."""

    use: Use
    position: int
    """Of the operand among the node's inputs."""
    affine: Affine
    is_truth: bool
    """Whether they were cast to bool on the way."""


@dataclass
class ValueFlow:
    """All nodes of a model, those in bodies of control flow among them, and the tensors between them by number."""

    uses: dict[int, list[Use]] = field(default_factory=dict)
    constants: dict[int, Array] = field(default_factory=dict)
    dims: dict[int, Sequence[int]] = field(default_factory=dict)
    """Of initializers, large ones too, and Constant nodes."""
    stored: dict[int, tuple[str, TensorProto]] = field(default_factory=dict)
    """Initializers, and what Constant nodes give, with their names: as they lie in the model."""
    sparse: dict[int, tuple[str, SparseTensorProto]] = field(default_factory=dict)
    """Likewise those that are stored sparse."""
    names: dict[int, str] = field(default_factory=dict)
    """Of the tensors of the main graph."""
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    """Of the main graph."""
    aliases: dict[int, list[int]] = field(default_factory=dict)
    """What an operand of control flow is called inside its body, and the body's outputs outside, and in the next round of a loop."""

    def arrivals(self, name: str) -> Iterator[Arrival]:
        """Yield where the values of an input come to, beyond the nodes that move, shift or scale them by constants."""
        start = self.inputs[name]
        waiting = deque([(start, Affine(), False)])
        visited = {start}

        def go_on(tensor: int, affine: Affine, is_truth: bool) -> None:
            if tensor not in visited:
                visited.add(tensor)
                waiting.append((tensor, affine, is_truth))

        while waiting:
            tensor, affine, is_truth = waiting.popleft()
            for alias in self.aliases.get(tensor, ()):
                go_on(alias, affine, is_truth)
            for use in self.uses.get(tensor, ()):
                for position in (i for i, operand in enumerate(use.operands) if operand == tensor):
                    follows = self._passed_on(use, position, affine)
                    if follows is None:
                        yield Arrival(use, position, affine, is_truth)
                        continue
                    if use.node.op_type in {"Add", "Sub", "Mul", "Div"}:
                        yield Arrival(use, position, affine, is_truth)
                    truth = is_truth or (use.node.op_type == "Cast" and _cast_to(use.node) == TensorProto.BOOL)
                    for output in use.outputs:
                        go_on(output, follows, truth)

    def needed(self) -> set[int]:
        """Return the tensors on which an output of the model depends."""
        givers = {output: use for uses in self.uses.values() for use in uses for output in use.outputs}
        origins: dict[int, list[int]] = {}
        for tensor, aliases in self.aliases.items():
            for alias in aliases:
                origins.setdefault(alias, []).append(tensor)
        waiting = list(self.outputs)
        needed = set(waiting)
        while waiting:
            tensor = waiting.pop()
            behind = list(origins.get(tensor, ()))
            if tensor in givers:
                behind += _read_itself(givers[tensor])
            waiting += (new := set(behind) - needed)
            needed |= new
        return needed

    def constant(self, use: Use, position: int) -> Array | None:
        """Return the value of a node's operand where it is a small constant."""
        operand = use.operands[position] if position < len(use.operands) else None
        return None if operand is None else self.constants.get(operand)

    def _passed_on(self, use: Use, position: int, affine: Affine) -> Affine | None:
        """Return how the outputs of a node follow from the input; None where they do not so simply."""
        operator = use.node.op_type
        if operator in PASSED:
            positions = PASSED[operator]
            return affine if positions is None or position in positions else None
        if operator == "Neg":
            return Affine(-affine.scale, -affine.high, -affine.low)
        if operator not in {"Add", "Sub", "Mul", "Div"} or len(use.operands) != 2:
            return None
        constant = self.constant(use, 1 - position)
        if constant is None or constant.dtype.kind not in "iuf" or not constant.size:
            return None
        low, high = float(constant.min()), float(constant.max())
        return _combined(operator, affine, low, high, constant_first=position == 1)


def value_flow(model: onnx.ModelProto) -> ValueFlow:
    """Return the flow of values in a model whose functions are inlined, weights or not."""
    flow = ValueFlow()
    scope: dict[str, int] = {}
    numbers = _Numbers()
    for value in model.graph.input:
        flow.inputs[value.name] = scope[value.name] = numbers.next()
    flow.outputs = [number for number in _enter(flow, model.graph, scope, numbers) if number is not None]
    flow.names = {number: name for name, number in scope.items()}
    for value in model.graph.input:  # weights that were left out
        shape = value.type.tensor_type.shape
        if all(dim.HasField("dim_value") for dim in shape.dim):
            flow.dims.setdefault(scope[value.name], [dim.dim_value for dim in shape.dim])
    return flow


class _Numbers:
    """The numbers of tensors: one after another."""

    def __init__(self) -> None:
        self.last = -1

    def next(self) -> int:
        self.last += 1
        return self.last


def _enter(flow: ValueFlow, graph: onnx.GraphProto, scope: dict[str, int], numbers: _Numbers) -> list[int | None]:
    """Take the nodes of a graph into `flow`; `scope` has what the names around it stand for, and gets its own. Return its outputs."""
    for tensor in graph.initializer:
        number = scope.setdefault(tensor.name, numbers.next())
        flow.dims[number] = list(tensor.dims)
        flow.stored[number] = tensor.name, tensor
        if math.prod(tensor.dims) <= SMALL and not uses_external_data(tensor):
            flow.constants[number] = numpy_helper.to_array(tensor)
    for sparse in graph.sparse_initializer:
        number = scope[sparse.values.name] = numbers.next()
        flow.dims[number] = list(sparse.dims)
        flow.sparse[number] = sparse.values.name, sparse
    for node in graph.node:
        operands = tuple(scope.get(name) if name else None for name in node.input)
        outputs = tuple(numbers.next() for _ in node.output)
        use = Use(node, operands, outputs)
        for operand in dict.fromkeys(operands):
            if operand is not None:
                flow.uses.setdefault(operand, []).append(use)
        _enter_bodies(flow, use, scope, numbers)
        _note_constant(flow, use)
        scope.update(zip(node.output, outputs, strict=True))
    return [scope.get(value.name) for value in graph.output]


def _enter_bodies(flow: ValueFlow, use: Use, scope: dict[str, int], numbers: _Numbers) -> None:
    for attribute in use.node.attribute:
        if not attribute.HasField("g"):
            continue
        inner = dict(scope)
        body_inputs = [numbers.next() for _ in attribute.g.input]
        inner.update(zip((value.name for value in attribute.g.input), body_inputs, strict=True))
        body_outputs = _enter(flow, attribute.g, inner, numbers)
        carried = use.operands
        if use.node.op_type == "Loop":  # count, condition, carried; the body gives the condition before the carried
            carried, body_inputs, body_outputs = carried[2:], body_inputs[2:], body_outputs[1:]
        for operand, body_input in zip(carried, body_inputs, strict=False):
            if operand is not None:
                flow.aliases.setdefault(operand, []).append(body_input)
        _carry(flow, use.node, body_inputs, body_outputs)
        for body_output, output in zip(body_outputs, use.outputs, strict=False):
            if body_output is not None:
                flow.aliases.setdefault(body_output, []).append(output)


def _read_itself(use: Use) -> list[int]:
    """Return what a node reads; of control flow what it reads itself, which its bodies do not."""
    own = {"If": 1, "Loop": 2, "Scan": 0}.get(use.node.op_type)
    return [operand for operand in use.operands[:own] if operand is not None]


def _carry(flow: ValueFlow, node: onnx.NodeProto, body_inputs: list[int], body_outputs: list[int | None]) -> None:
    """Note what a round of a loop gives to the next."""
    states = len(body_inputs) if node.op_type == "Loop" else 0
    if node.op_type == "Scan":
        scanned = next((attribute.i for attribute in node.attribute if attribute.name == "num_scan_inputs"), 0)
        states = len(body_inputs) - scanned
    for body_output, body_input in zip(body_outputs[:states], body_inputs, strict=False):
        if body_output is not None:
            flow.aliases.setdefault(body_output, []).append(body_input)


def _note_constant(flow: ValueFlow, use: Use) -> None:
    """Note the value of what a node makes of constants alone, its elements kept."""
    if use.node.op_type == "Constant" and use.node.attribute[0].name == "sparse_value":
        sparse = use.node.attribute[0].sparse_tensor
        flow.dims[use.outputs[0]] = list(sparse.dims)
        flow.sparse[use.outputs[0]] = use.node.output[0], sparse
    elif use.node.op_type == "Constant":
        try:
            tensor = constant_of(use.node)
        except (
            TypeError,
            ValueError,
            AttributeError,
            IndexError,
        ):  # no constant that the standard knows: a run will tell
            tensor = None
        if tensor is not None:
            flow.dims[use.outputs[0]] = list(tensor.dims)
            flow.stored[use.outputs[0]] = use.node.output[0], tensor
            if math.prod(tensor.dims) <= SMALL:
                flow.constants[use.outputs[0]] = numpy_helper.to_array(tensor)
    elif use.node.op_type in _KEPT_CONSTANT and use.operands and use.operands[0] in flow.constants:
        value = flow.constants[use.operands[0]]
        to = _cast_to(use.node) if use.node.op_type == "Cast" else None
        flow.constants[use.outputs[0]] = value if to is None else value.astype(helper.tensor_dtype_to_np_dtype(to))


def _cast_to(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)


def _combined(operator: str, affine: Affine, low: float, high: float, *, constant_first: bool) -> Affine | None:
    """Return an affine function after a node with a constant between `low` and `high`."""
    if operator == "Add":
        return Affine(affine.scale, affine.low + low, affine.high + high)
    if operator == "Sub" and not constant_first:
        return Affine(affine.scale, affine.low - high, affine.high - low)
    if operator == "Sub":
        return Affine(-affine.scale, low - affine.high, high - affine.low)
    middle = math.sqrt(low * high) if low * high > 0 else 0.0
    if not middle or not np.isfinite(middle) or (operator == "Div" and constant_first):
        return None
    factor = math.copysign(middle, low) if operator == "Mul" else 1 / math.copysign(middle, low)
    ends = sorted((affine.low * factor, affine.high * factor))
    return Affine(affine.scale * factor, *ends)
