"""A model as the flat list of nodes that one sample runs: functions inlined, each If its branch taken, Loop and Scan unrolled.

The flat graph is what is judged: any of its tensors can be marked as an output, and no name stands for two tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from actconform.checking.made_finite import finite_tensor, make_attributes_finite
from actconform.checking.nonfinite_origins import NonfiniteOrigins
from actconform.checking.ties import Tie, TieSearch, leading_to_steps
from actconform.errors import Unsupported
from actconform.onnx.evaluate.computation import Computation, attributes_of, computation
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE, held, output_types
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.onnx.gates import standard_opset
from actconform.onnx.nested_graphs import own_names, reads, subgraphs
from actconform.onnx.opset_conversion import inlined
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from actconform.types.case import Bundle

Array: TypeAlias = NDArray[Any]

MOST_NODES = 100_000  # once loops are unrolled
FLOW = ("If", "Loop", "Scan")


class FlatNode(NamedTuple):
    """One node of a flat graph."""

    proto: onnx.NodeProto
    """With the flat graph's tensor names, and a name of its own: the user's, after the nodes that held it."""
    types: tuple[int, ...]
    """Element types of the outputs; 0 where one is left out, or not known."""
    computation: Computation | None
    """None for an operator that cannot be evaluated."""
    unsupported: str = ""
    """Why not."""
    tie: Tie | None = None
    """Elements of its output that rounding decides in this sample, where there are any."""

    @property
    def name(self) -> str:
        return self.proto.name

    @property
    def inputs(self) -> list[str]:
        """The tensors that it reads, each once."""
        return [name for name in dict.fromkeys(self.proto.input) if name]

    @property
    def outputs(self) -> list[str]:
        return [name for name in self.proto.output if name]


# Of the model so far and names of its tensors: their values as a runtime computes them, None where it does not.
Answers: TypeAlias = "Callable[[onnx.ModelProto, Sequence[str]], Bundle | None]"


class Overflow(NamedTuple):
    """A node whose true values lie beyond the range of its format."""

    node: str
    op_type: str
    words: str


@dataclass
class FlatGraph:
    """A flat graph, and the values of its outputs in float64 for the sample that it was made with."""

    model: onnx.ModelProto
    """What a runtime gets: the same inputs and outputs as the user's model."""
    nodes: list[FlatNode] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    """Initializers, in their own dtypes."""
    types: dict[str, int] = field(default_factory=dict)
    """The element type of every tensor; tensors of unknown type are left out."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The shape of every tensor, for this sample."""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    truth: dict[str, Array] = field(default_factory=dict)
    """The outputs of the model, floats in float64 and unrounded; one that depends on an unknown value is left out."""
    answered: dict[str, Array] = field(default_factory=dict)
    """Tensors that no one here can evaluate: the value a runtime gave."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Tensors without a value, and why."""
    overflow: Overflow | None = None
    """The first node whose true values lie beyond the range of its format."""
    nonfinite: NonfiniteOrigins = field(default_factory=NonfiniteOrigins)
    """Of tensors that hold NaN or an infinity: where it comes from."""

    def nbytes(self, name: str) -> int:
        """Return the bytes of a tensor, 8 for each element: at least what any runtime needs."""
        return 8 * int(np.prod(self.shapes.get(name, ()), dtype=np.int64))

    def shares(self, other: FlatGraph) -> bool:
        """Take the model and constants of `other` in place of equal ones, so that weights are held once; return whether they are."""
        names = self.constants.keys()
        nodes = [[node.proto for node in graph.nodes] for graph in (self, other)]
        if self.inputs != other.inputs or names != other.constants.keys() or nodes[0] != nodes[1]:
            return False
        if not all(np.array_equal(array, other.constants[name]) for name, array in self.constants.items()):
            return False
        self.model, self.constants = other.model, other.constants
        return True

    def last_readers(self, kept_names: Iterable[str] = ()) -> list[list[str]]:
        """Return for each node the tensors that no later node reads, constants, outputs and `kept_names` aside."""
        held_on = {*self.outputs, *self.constants, *kept_names}
        last: dict[str, int] = {}
        for place, node in enumerate(self.nodes):
            last.update(dict.fromkeys((*node.inputs, *node.outputs), place))
        dead: list[list[str]] = [[] for _ in self.nodes]
        for name, place in last.items():
            if name not in held_on:
                dead[place].append(name)
        return dead


_COMPUTED = frozenset(STORAGE[element_type] for element_type in FORMATS)


def as_held(array: Array) -> Array:
    """Return an array as evaluators take it: floats of 16 bits and more in float64, all else as it is, smaller floats too."""
    return array.astype(np.float64, copy=False) if array.dtype in _COMPUTED else array


def wide(array: Array) -> Array:
    """Return floats of any format in float64, all else as it is."""
    if array.dtype == np.float64 or array.dtype.kind in "biuSUO":
        return array
    return array.astype(np.float64) if array.dtype.kind == "f" or _is_extended_float(array.dtype) else array


def _is_extended_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "V" and "float" in dtype.name


def flatten(
    model: onnx.ModelProto, sample: Bundle, answers: Answers | None = None, *, made_finite: Collection[str] = ()
) -> FlatGraph:
    """Return `model` flat as `sample` runs it, evaluated on the way.

    `answers` gives values of tensors that cannot be evaluated here, from a runtime. Initializers that `made_finite` names, and attributes
    of the nodes whose first output it names, have 0.5 in place of NaN and infinities. Raises Unsupported where the model has no
    opset, or becomes more than MOST_NODES nodes, and ValueError, naming the node, where one fails at these inputs.
    """
    flattenable = inlined(model) if model.functions else model
    return _Flattening(flattenable, sample, answers, made_finite).run()


class _FreshNames:
    """Names that are given once: one that is taken gets a number after a mark."""

    def __init__(self, taken: Iterable[str], mark: str) -> None:
        self._taken = set(taken)
        self._mark = mark
        self._counts: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        """Return `name` where it is free, else NAME, mark and the first free number from 2 on; it is taken then."""
        free = name
        while free in self._taken:
            count = self._counts[name] = self._counts.get(name, 1) + 1
            free = f"{name}{self._mark}{count}"
        self._taken.add(free)
        return free


class _Flattening:
    def __init__(
        self, model: onnx.ModelProto, sample: Bundle, answers: Answers | None, made_finite: Collection[str]
    ) -> None:
        self._source = model
        self._made_finite = made_finite
        self._opset = standard_opset(model)
        self._sample = sample
        self._answers = answers
        self._graph = FlatGraph(_without_graph(model))
        self._values: dict[str, Array] = {}
        self._ties = TieSearch((sample, self._graph.constants))
        self._constant_names: dict[tuple[int, str], str] = {}
        self._leading: dict[int, set[str]] = {}
        self._tensor_names = _FreshNames(own_names(model.graph), "'")
        self._node_names = _FreshNames((), "#")

    def run(self) -> FlatGraph:
        graph, source = self._graph, self._source.graph
        for name, array in self._sample.items():
            graph.types[name] = helper.np_dtype_to_tensor_dtype(array.dtype)
            self._settle(name, as_held(array))
            graph.nonfinite.given("input", name, array)
        graph.inputs = [value.name for value in source.input if value.name in self._sample]
        graph.outputs = [value.name for value in source.output]
        with np.errstate(all="ignore"):
            self._take_apart(source, "", {})
        graph.truth = {
            name: as_held(graph.constants[name]) if name in graph.constants else self._values[name]
            for name in graph.outputs
            if name in self._values or name in graph.constants
        }
        graph.model.graph.input.extend(value for value in source.input if value.name in self._sample)
        graph.model.graph.output.extend(source.output)
        graph.model.graph.node.extend(node.proto for node in graph.nodes)
        return graph

    def _settle(self, name: str, array: Array) -> None:
        self._values[name] = array
        self._graph.shapes[name] = array.shape

    def _value(self, name: str) -> Array | None:
        """Return a tensor's value; None for one that is left out, or whose value is unknown."""
        if name in self._graph.constants:
            return as_held(self._graph.constants[name])
        return self._values.get(name)

    def _take_apart(self, graph: onnx.GraphProto, prefix: str, outer: Mapping[str, str]) -> dict[str, str]:
        """Add the nodes of a graph, and return the flat name of each of its tensors."""
        names = dict(outer)
        for tensor in graph.initializer:
            if prefix or tensor.name not in self._sample:
                names[tensor.name] = self._constant(graph, tensor, prefix)
        if graph.sparse_initializer:
            raise Unsupported("sparse initializers are not taken: save the model with dense ones")
        last = {name: place for place, node in enumerate(graph.node) for name in reads(node)}
        results = {value.name for value in graph.output}
        leading = self._leading_to_steps(graph, is_body=bool(prefix))
        for place, original in enumerate(graph.node):
            self._add(original, prefix, names, followed=not leading.isdisjoint(original.output))
            for name in (*reads(original), *original.output):
                if name in names and name not in outer and last.get(name, -1) <= place and name not in results:
                    self._values.pop(names[name], None)
                    self._ties.drop(names[name])
        return names

    def _leading_to_steps(self, graph: onnx.GraphProto, *, is_body: bool) -> set[str]:
        """Return the tensors of a graph that are followed to where rounding may decide, worked out once, however often a loop runs it."""
        if id(graph) not in self._leading:
            self._leading[id(graph)] = leading_to_steps(graph, is_body=is_body)
        return self._leading[id(graph)]

    def _constant(self, graph: onnx.GraphProto, tensor: TensorProto, prefix: str) -> str:
        """Keep an initializer once, however often a loop runs its body; return its flat name."""
        place = id(graph), tensor.name
        if place not in self._constant_names:
            name = self._constant_names[place] = self._flat_name(prefix, tensor.name)
            initializer = self._graph.model.graph.initializer.add()
            initializer.CopyFrom(tensor)
            if tensor.name in self._made_finite:
                initializer.CopyFrom(finite_tensor(tensor))
            initializer.name = name
            self._keep_constant(name, tensor.data_type, numpy_helper.to_array(initializer))
        return self._constant_names[place]

    def _keep_constant(self, name: str, element_type: int, array: Array) -> None:
        self._graph.constants[name] = array
        self._graph.nonfinite.given("weight", name, array)
        self._graph.types[name] = element_type
        self._graph.shapes[name] = array.shape

    def _number(self, name: str, array: Array) -> str:
        """Add an initializer of the flattening itself, and return its name."""
        name = self._tensor_names.fresh(name)
        tensor = numpy_helper.from_array(array, name)
        self._graph.model.graph.initializer.append(tensor)
        self._keep_constant(name, tensor.data_type, array)
        return name

    def _flat_name(self, prefix: str, name: str) -> str:
        """Return what a tensor is called in the flat graph: those of the main graph keep their names."""
        return self._tensor_names.fresh(prefix + name) if prefix else name

    def _add(self, original: onnx.NodeProto, prefix: str, names: dict[str, str], *, followed: bool) -> None:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if original.output and original.output[0] in self._made_finite:
            make_attributes_finite(node)
        node.input[:] = [names.get(name, name) for name in original.input]
        node.name = self._node_name(prefix, original)
        names.update({name: self._flat_name(prefix, name) for name in original.output if name})
        node.output[:] = [names[name] if name else "" for name in original.output]
        standard = node.domain in STANDARD
        if standard and node.op_type == "Constant":
            self._add_constant(node)
        elif standard and node.op_type in FLOW:
            self._add_flow(node, names)
        else:
            self._add_plain(node, followed=followed)

    def _node_name(self, prefix: str, node: onnx.NodeProto) -> str:
        outputs = [name for name in node.output if name]
        return self._node_names.fresh(prefix + (node.name or f"{node.op_type}:{outputs[0] if outputs else ''}"))

    def _add_constant(self, node: onnx.NodeProto) -> None:
        (array,) = computation(node, self._opset).compute([])
        (element_type,) = output_types(node, self._opset, [])
        stored = np.asarray(array)
        tensor = self._graph.model.graph.initializer.add()
        attribute = node.attribute[0]
        tensor.CopyFrom(attribute.t if attribute.name == "value" else numpy_helper.from_array(stored, node.output[0]))
        tensor.name = node.output[0]
        self._keep_constant(node.output[0], element_type, numpy_helper.to_array(tensor))

    def _add_plain(self, node: onnx.NodeProto, *, followed: bool = True) -> None:
        if len(self._graph.nodes) >= MOST_NODES:
            raise Unsupported(f"once its loops are unrolled the model has more than {MOST_NODES:,} nodes")
        flat = self._flat_node(node)
        self._graph.nodes.append(flat)
        missing = [name for name in flat.inputs if self._value(name) is None]
        if missing:
            reason = self._graph.unknown.get(missing[0], f"{missing[0]} is not known")
            self._set_unknown(flat, reason)
        elif flat.computation is None:
            self._ask(flat)
        else:
            inputs = [self._value(name) for name in node.input]
            try:
                results = node_outputs(flat, flat.computation, inputs)
            except ValueError as error:
                if not isinstance(error.__cause__, Unsupported):
                    raise
                flat = self._graph.nodes[-1] = flat._replace(computation=None, unsupported=str(error.__cause__))
                self._ask(flat)  # the inputs decide that it cannot be evaluated, as a Dropout that is told to drop
            else:
                tie = self._ties.take(flat, inputs, results) if followed else None
                if tie is not None:
                    flat = self._graph.nodes[-1] = flat._replace(tie=tie)
                    results[0] = tie.settled(results[0])
                self._set(flat, results)

    def _flat_node(self, node: onnx.NodeProto) -> FlatNode:
        try:
            types = output_types(node, self._opset, [self._graph.types.get(name, 0) for name in node.input])
            flat = FlatNode(node, tuple(types), computation(node, self._opset))
        except Unsupported as error:
            return FlatNode(node, (0,) * len(node.output), None, str(error))
        self._graph.types.update({name: kind for name, kind in zip(node.output, types, strict=False) if name and kind})
        return flat

    def _set(self, flat: FlatNode, results: Sequence[Array]) -> None:
        for name, array, kind in zip(flat.proto.output, results, flat.types, strict=False):
            if name:
                self._settle(name, array)
                self._graph.nonfinite.computed(flat.proto, name, array)
                self._note_overflow(flat, array, kind)

    def _note_overflow(self, flat: FlatNode, array: Array, element_type: int) -> None:
        fmt = FORMATS.get(element_type)
        if self._graph.overflow or fmt is None or not array.size:
            return
        largest = max(np.fmax.reduce(array, axis=None), -np.fmin.reduce(array, axis=None))
        if fmt.overflow <= largest < np.inf:
            words = f"{flat.proto.op_type} {flat.name} gives {largest:,.6g}, and {fmt.name} ends at {fmt.largest:,.6g}"
            self._graph.overflow = Overflow(flat.name, flat.proto.op_type, words)

    def _set_unknown(self, flat: FlatNode, reason: str) -> None:
        self._graph.unknown.update(dict.fromkeys(flat.outputs, reason))

    def _ask(self, flat: FlatNode) -> None:
        """Take a runtime's answer for a node that cannot be evaluated here."""
        answers = self._answers(self._model_up_to(flat), flat.outputs) if self._answers else None
        if answers is None or any(name not in answers for name in flat.outputs):
            self._set_unknown(flat, flat.unsupported)
            return
        for name in flat.outputs:
            array = answers[name]
            self._graph.types[name] = helper.np_dtype_to_tensor_dtype(array.dtype)
            self._graph.answered[name] = array
            self._settle(name, as_held(array))
            self._graph.nonfinite.computed(flat.proto, name, array)

    def _model_up_to(self, last: FlatNode) -> onnx.ModelProto:
        """Return the flat model as far as it is made, which gives the outputs of its last node."""
        part = onnx.ModelProto()
        part.CopyFrom(self._graph.model)
        part.graph.input.extend(value for value in self._source.graph.input if value.name in self._sample)
        part.graph.node.extend(node.proto for node in self._graph.nodes)
        part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in last.outputs)
        return part

    # Control flow

    def _add_flow(self, node: onnx.NodeProto, names: Mapping[str, str]) -> None:
        captured = [names.get(name, name) for name in reads(node) if name]
        missing = [name for name in captured if name in self._graph.unknown]
        if missing:
            flat = FlatNode(node, (0,) * len(node.output), None, self._graph.unknown[missing[0]])
            self._graph.nodes.append(flat)
            self._set_unknown(flat, flat.unsupported)
        elif node.op_type == "If":
            self._add_branch(node, names)
        elif node.op_type == "Loop":
            self._unroll_loop(node, names)
        else:
            self._unroll_scan(node, names)

    def _identity(self, source: str, result: str) -> None:
        if result:
            self._add_plain(helper.make_node("Identity", [source], [result], name=f"Identity:{result}"))

    def _add_branch(self, node: onnx.NodeProto, names: Mapping[str, str]) -> None:
        condition = self._value(node.input[0])
        branch = "then_branch" if condition is not None and bool(np.all(condition)) else "else_branch"
        body = next(attribute.g for attribute in node.attribute if attribute.name == branch)
        inner = self._take_apart(body, f"{node.name}/", names)
        for value, result in zip(body.output, node.output, strict=True):
            self._identity(inner.get(value.name, value.name), result)

    def _unroll_loop(self, node: onnx.NodeProto, names: Mapping[str, str]) -> None:
        (body,) = subgraphs(node)
        limit = self._value(node.input[0]) if node.input[0] else None
        going = node.input[1] if len(node.input) > 1 else ""
        carried = list(node.input[2:])
        rows: list[list[str]] = []
        while (limit is None or len(rows) < int(np.ravel(limit)[0])) and (not going or self._holds(going)):
            prefix = f"{node.name}/{len(rows)}/"
            counter = self._number(f"{prefix}iteration", np.array(len(rows), np.int64))
            condition = going or self._number(f"{prefix}condition", np.array(True))  # noqa: FBT003  numpy takes a flag
            bound = dict(zip((value.name for value in body.input), (counter, condition, *carried), strict=True))
            inner = self._take_apart(body, prefix, {**names, **bound})
            going, *results = (inner.get(value.name, value.name) for value in body.output)
            carried, scanned = results[: len(carried)], results[len(carried) :]
            rows.append(scanned)
        outputs = list(node.output)
        for source, result in zip(carried, outputs, strict=False):
            self._identity(source, result)
        stacks = zip(outputs[len(carried) :], body.output[1 + len(carried) :], strict=True)
        for i, (result, value) in enumerate(stacks):
            self._stack([row[i] for row in rows], result, value, 0)

    def _holds(self, name: str) -> bool:
        value = self._value(name)
        return value is not None and bool(np.all(value))

    def _unroll_scan(self, node: onnx.NodeProto, names: Mapping[str, str]) -> None:
        (body,) = subgraphs(node)
        if self._opset < 9:
            raise Unsupported(f"Scan of opset {self._opset} at node {node.name}: export the model at opset 9 or newer")
        attributes = attributes_of(node, self._opset)
        count = int(attributes["num_scan_inputs"])
        states, sequences = list(node.input[: len(node.input) - count]), node.input[len(node.input) - count :]
        axes = [int(axis) for axis in attributes.get("scan_input_axes") or [0] * count]
        turned = list(attributes.get("scan_input_directions") or [0] * count)
        lengths = {self._graph.shapes[name][axis] for name, axis in zip(sequences, axes, strict=True)}
        rows: list[list[str]] = []
        for step in range(min(lengths, default=0)):
            prefix = f"{node.name}/{step}/"
            parts = []
            for name, axis, back in zip(sequences, axes, turned, strict=True):
                place = min(lengths) - 1 - step if back else step
                parts.append(self._slice(name, axis, place, prefix))
            bound = dict(zip((value.name for value in body.input), (*states, *parts), strict=True))
            inner = self._take_apart(body, prefix, {**names, **bound})
            results = [inner.get(value.name, value.name) for value in body.output]
            states = results[: len(states)]
            rows.append(results[len(states) :])
        for source, result in zip(states, node.output, strict=False):
            self._identity(source, result)
        written = list(node.output[len(states) :])
        output_axes = attributes.get("scan_output_axes") or [0] * len(written)
        backwards = attributes.get("scan_output_directions") or [0] * len(written)
        described = body.output[len(states) :]
        for i, (result, value, axis, back) in enumerate(zip(written, described, output_axes, backwards, strict=True)):
            column = [row[i] for row in rows]
            self._stack(column[::-1] if back else column, result, value, int(axis))

    def _slice(self, name: str, axis: int, place: int, prefix: str) -> str:
        """Add a node that takes one slice of a sequence, and return its output."""
        index = self._number(f"{prefix}place", np.array(place, np.int64))
        result = self._tensor_names.fresh(f"{prefix}{name}")
        node = helper.make_node("Gather", [name, index], [result], name=f"{prefix}Gather:{name}", axis=axis)
        self._add_plain(node)
        return result

    def _stack(self, column: Sequence[str], result: str, described: onnx.ValueInfoProto, axis: int) -> None:
        """Add the nodes that join what each round of a loop gave, and name the result."""
        if not result:
            return
        if not column:
            self._empty(result, described)
            return
        rows = []
        for i, name in enumerate(column):
            row = self._tensor_names.fresh(f"{result}/{i}")
            if self._opset >= 13:
                axes = self._number(f"{row}/axes", np.array([axis], np.int64))
                node = helper.make_node("Unsqueeze", [name, axes], [row], name=f"Unsqueeze:{row}")
            else:
                node = helper.make_node("Unsqueeze", [name], [row], name=f"Unsqueeze:{row}", axes=[axis])
            self._add_plain(node)
            rows.append(row)
        self._add_plain(helper.make_node("Concat", rows, [result], name=f"Concat:{result}", axis=axis))

    def _empty(self, result: str, described: onnx.ValueInfoProto) -> None:
        """Give a loop of no round at all its empty output, whose sizes its body states."""
        tensor = described.type.tensor_type
        sizes = [dim.dim_value for dim in tensor.shape.dim]
        empty = np.zeros((0, *sizes), helper.tensor_dtype_to_np_dtype(tensor.elem_type or TensorProto.FLOAT))
        self._identity(self._number(f"{result}/none", empty), result)


def node_outputs(node: FlatNode, by: Computation, inputs: Sequence[Array | None]) -> list[Array]:
    """Return the outputs of a node, each as its type holds it, unrounded; what rounding decides as it decides it where all is correctly rounded.

    Raises ValueError, naming the node, where it fails.
    """
    try:
        results = by.compute(inputs)
    except Exception as error:
        raise ValueError(f"{node.proto.op_type} at node {node.name} fails at these inputs: {error}") from error
    if any(node.proto.output[len(results) :]):
        raise ValueError(
            f"{node.proto.op_type} at node {node.name} gives {number_of(len(results), 'output')} here, and more are read"
        )
    arrays = [
        held(np.asarray(array), kind) if kind else np.asarray(array)
        for array, kind in zip(results, node.types, strict=False)
    ]
    if node.tie is not None:
        arrays[0] = node.tie.settled(arrays[0])
    return arrays


def _without_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the frame of a model: versions and domains, no graph."""
    frame = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    frame.opset_import.extend(model.opset_import)
    frame.graph.name = model.graph.name or "model"
    return frame
