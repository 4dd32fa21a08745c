"""The correctly rounded evaluator: a graph evaluated node by node in accurate float64, each result rounded once to its element type.

It is the evaluation that tells faults of a graph from faults of a runtime. Where its output breaks a limit the graph itself
is wrong or ill-conditioned at its precision; where its output is right and a runtime's is not, the runtime is at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actconform._renamed import old_class_names
from actconform.errors import Unsupported
from actconform.onnx.evaluate.computation import STANDARD, Array, attributes_of, computation, node_label
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE
from actconform.onnx.gates import deep, io_names, operators, standard_opset
from actconform.onnx.nested_graphs import graphs, subgraphs
from actconform.onnx.opset_conversion import inlined
from actconform.onnx.size_limits import READ, expect_sane_output
from actconform.oracle.rounding import round_to
from actconform.plugin.interfaces import Program

if TYPE_CHECKING:
    from actconform.types import Bundle

__getattr__ = old_class_names(__name__)

__all__ = ["CorrectlyRoundedEvaluator", "operators"]

# of a node's inputs, None where one is left out, and of everything known before it, which the body of a loop may capture
Compute: TypeAlias = Callable[[list[Array | None], Mapping[str, Array]], Sequence[Array]]

MOST_ROUNDS = 10_000  # of a loop
FIRST_OPSET = 13  # before it Softmax flattened its input, and squeezes and sums took axes otherwise


class _Step(NamedTuple):
    node: onnx.NodeProto
    compute: Compute


class CorrectlyRoundedEvaluator(Program):
    """A graph of standard operators, evaluated by the operators' true values.

    `model` is a serialized ModelProto at opset 13 or newer; functions in it are inlined. Every float32, float16 and
    bfloat16 tensor is rounded to nearest, once, with gradual underflow; float64 ones stay. With `rounding=False` nothing is
    rounded: the same graph in float64, a second evaluation, that tells lack of precision from a wrong formula.
    Raises Unsupported, naming operator, domain, opset and node, for what it does not know: other domains, elements that are not real numbers, tensors whose element type onnx cannot infer.
    """

    implementation = "actconform.onnx.evaluate.evaluator"

    def __init__(self, model: bytes, *, rounding: bool = True) -> None:
        proto = inlined(onnx.load_from_string(model))
        self._rounding = rounding
        self._opset = standard_opset(proto)
        if self._opset < FIRST_OPSET:
            raise Unsupported(f"the correctly rounded evaluator knows opset {FIRST_OPSET} and newer, not {self._opset}")
        self._inputs, self._outputs = io_names(model)
        self._steps = self._steps_of(proto.graph)
        self._types = _element_types(proto, self._opset)
        if any(graph.sparse_initializer for graph in graphs(proto.graph)):
            raise Unsupported("the correctly rounded evaluator takes no sparse initializers")
        self._constants = {
            tensor.name: self._settled(numpy_helper.to_array(tensor), tensor.data_type)
            for graph in graphs(proto.graph)
            for tensor in graph.initializer
        }

    def forward(self, inputs: Bundle) -> Bundle:
        """Return the outputs by name, in their declared dtypes (all floats float64 without rounding), `inputs` untouched.

        Raises ValueError where the inputs' names or dtypes are not the graph's, or a node fails at these shapes.
        """
        if set(inputs) != set(self._inputs):
            raise ValueError(f"inputs {sorted(inputs)} given, but the graph takes {sorted(self._inputs)}")
        values: dict[str, Array] = dict(self._constants)
        for name, array in inputs.items():
            if array.dtype != STORAGE[self._types[name]]:
                raise ValueError(f"input {name} is {array.dtype}, but the graph takes {STORAGE[self._types[name]]}")
            values[name] = self._settled(array, self._types[name])
        with np.errstate(all="ignore"):
            self._run(self._steps, values)
        return {name: self._handed_out(values[name], self._types[name]) for name in self._outputs}

    def _run(self, steps: Sequence[_Step], values: dict[str, Array]) -> None:
        for step in steps:
            values |= self._results(step, values)

    def _results(self, step: _Step, values: Mapping[str, Array]) -> dict[str, Array]:
        arguments = [values[name] if name else None for name in step.node.input]
        try:
            self._expect_sane_output(step.node, values)
            results = step.compute(arguments, values)
        except Unsupported as error:
            raise Unsupported(f"{node_label(step.node, self._opset)}: {error}") from error
        except Exception as error:
            raise ValueError(f"{node_label(step.node, self._opset)} fails at these inputs: {error}") from error
        if any(step.node.output[len(results) :]):
            raise Unsupported(
                f"the correctly rounded evaluator knows {len(results)} outputs of {node_label(step.node, self._opset)}"
            )
        named = zip(step.node.output, results, strict=False)  # trailing outputs may be left out
        return {name: self._settled(np.asarray(result), self._types[name]) for name, result in named if name}

    def _expect_sane_output(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> None:
        """Raise Unsupported where the node would make more than is evaluated here, before it does."""
        read = {name: (values[name], STORAGE[self._types[name]]) for name in node.input if name}
        # Of large ones the shape alone is looked at, and a view costs nothing.
        typed = {
            name: array.astype(dtype) if array.size <= READ else np.broadcast_to(np.zeros((), dtype), array.shape)
            for name, (array, dtype) in read.items()
        }
        expect_sane_output(node, typed, self._opset)

    def _settled(self, array: Array, element_type: int) -> Array:
        """Return the array as a tensor of that type is held: floats rounded, in float64; all else in its own dtype."""
        if element_type not in FORMATS:
            return array.astype(STORAGE[element_type])
        with np.errstate(invalid="ignore"):  # a signalling NaN is one of the patterns
            wide = array.astype(np.float64)
        return round_to(wide, FORMATS[element_type]) if self._rounding else wide

    def _handed_out(self, array: Array, element_type: int) -> Array:
        wide = element_type in FORMATS and not self._rounding
        return array.astype(np.float64 if wide else STORAGE[element_type])

    def _steps_of(self, graph: onnx.GraphProto) -> list[_Step]:
        return [_Step(node, self._compute(node)) for node in graph.node]

    def _compute(self, node: onnx.NodeProto) -> Compute:
        flow = {"If": self._choice, "Loop": self._loop, "Scan": self._scan}.get(node.op_type)
        if flow and node.domain in STANDARD:
            return flow(node)
        compute = computation(node, self._opset).compute
        return lambda arguments, _: compute(arguments)

    def _loop(self, node: onnx.NodeProto) -> Compute:
        """Return what runs the body until its limit, or while its condition holds, each node in it rounded as any other."""
        (body,) = subgraphs(node)
        steps = self._steps_of(body)
        takes, gives = [value.name for value in body.input], [value.name for value in body.output]

        def compute(arguments: list[Array | None], outer: Mapping[str, Array]) -> Sequence[Array]:
            limit, going, *initial = arguments
            carried = cast("list[Array]", initial)
            rows: list[Sequence[Array]] = []
            if limit is not None and limit > MOST_ROUNDS and going is None:
                raise Unsupported(f"a loop of {int(limit):,} rounds; at most {MOST_ROUNDS:,} are taken")
            while (going is None or bool(going)) and (limit is None or len(rows) < limit):
                if len(rows) == MOST_ROUNDS:
                    raise Unsupported(f"a loop of more than {MOST_ROUNDS:,} rounds")
                body_inputs = (np.array(len(rows)), np.array(True), *carried)  # noqa: FBT003
                values = {**outer, **dict(zip(takes, body_inputs, strict=True))}
                self._run(steps, values)
                going, *results = (values[name] for name in gives)
                rows.append(results[len(carried) :])
                carried = results[: len(carried)]
            return [*carried, *_stacked(rows, body.output[1 + len(carried) :])]

        return compute

    def _choice(self, node: onnx.NodeProto) -> Compute:
        """Return what runs the branch that the condition chooses."""
        branches = {
            attribute.name: (self._steps_of(attribute.g), [value.name for value in attribute.g.output])
            for attribute in node.attribute
        }

        def compute(arguments: list[Array | None], outer: Mapping[str, Array]) -> Sequence[Array]:
            (condition,) = arguments
            steps, gives = branches["then_branch" if np.all(condition) else "else_branch"]
            values = dict(outer)
            self._run(steps, values)
            return [values[name] for name in gives]

        return compute

    def _scan(self, node: onnx.NodeProto) -> Compute:
        """Return what runs the body for each slice of the sequences."""
        (body,) = subgraphs(node)
        steps, attributes = self._steps_of(body), attributes_of(node, self._opset)
        takes, gives = [value.name for value in body.input], [value.name for value in body.output]
        n_read = attributes["num_scan_inputs"]
        n_states, n_written = len(node.input) - n_read, len(node.output) - (len(node.input) - n_read)
        axes = [attributes.get(f"scan_{end}_axes") or [0] * n for end, n in (("input", n_read), ("output", n_written))]
        turns = [
            attributes.get(f"scan_{end}_directions") or [0] * n for end, n in (("input", n_read), ("output", n_written))
        ]

        def compute(arguments: list[Array | None], outer: Mapping[str, Array]) -> Sequence[Array]:
            states = cast("list[Array]", arguments[:n_states])
            read = [
                np.flip(np.moveaxis(each, axis, 0), 0) if turned else np.moveaxis(each, axis, 0)
                for each, axis, turned in zip(cast("list[Array]", arguments[n_states:]), axes[0], turns[0], strict=True)
            ]
            rows: list[Sequence[Array]] = []
            for slices in zip(*read, strict=True):
                values = {**outer, **dict(zip(takes, (*states, *slices), strict=True))}
                self._run(steps, values)
                results = [values[name] for name in gives]
                states = results[:n_states]
                rows.append(results[n_states:])
            written = [
                np.moveaxis(np.flip(each, 0) if turned else each, 0, axis)
                for each, axis, turned in zip(_stacked(rows, body.output[n_states:]), axes[1], turns[1], strict=True)
            ]
            return [*states, *written]

        return compute


def _stacked(rows: Sequence[Sequence[Array]], described: Sequence[onnx.ValueInfoProto]) -> list[Array]:
    """Return each output of the rounds of a loop, one row a round; `described` tells their sizes where there was no round."""
    if rows:
        return [np.stack(column) for column in zip(*rows, strict=True)]
    dims = [value.type.tensor_type.shape.dim for value in described]
    if not all(each.HasField("dim_value") for sizes in dims for each in sizes):
        raise Unsupported("a loop of no round at all, whose body does not state the sizes of what it gives")
    return [np.zeros((0, *(each.dim_value for each in sizes))) for sizes in dims]


def _element_types(proto: onnx.ModelProto, opset: int) -> dict[str, int]:
    """Return the element type of every tensor: of inputs and outputs as declared, between them as onnx infers it."""
    types: dict[str, int] = {}
    for graph in graphs(_inferred(proto).graph):
        values = (*graph.value_info, *graph.input, *graph.output)
        graph_types = {value.name: value.type.tensor_type.elem_type for value in values}
        graph_types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        if twice := types.keys() & graph_types.keys():
            raise Unsupported(
                f"the correctly rounded evaluator takes no two graphs with tensors of one name: {', '.join(twice)}"
            )
        types |= graph_types
    for node in deep(proto.graph.node):
        for name in node.output:
            if name and types.get(name, 0) not in STORAGE:
                raise Unsupported(f"{node_label(node, opset)} gives {name}, {_spelled(types.get(name, 0))}")
    for value in (tensor for graph in graphs(proto.graph) for tensor in (*graph.input, *graph.initializer)):
        if types[value.name] not in STORAGE:
            raise Unsupported(
                f"the correctly rounded evaluator does not take {value.name}, {_spelled(types[value.name])}"
            )
    return types


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for graph in graphs(bare.graph):
        del graph.value_info[:]  # what an exporter noted there is not needed, and may be wrong
        for value in graph.output:  # types alone matter, and onnx infers some shapes wrongly
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
    for node in deep(bare.graph.node):
        if node.op_type == "GroupNormalization":  # of which onnx infers nothing: typed as its input
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output))
    try:
        inferred = onnx.shape_inference.infer_shapes(bare)
        while _types_of_resized(inferred):  # of which with a keep_aspect_ratio_policy onnx infers nothing either
            inferred = onnx.shape_inference.infer_shapes(inferred)
    except onnx.shape_inference.InferenceError as error:
        raise Unsupported(f"onnx cannot infer the element types: {error}") from error
    return inferred


def _types_of_resized(proto: onnx.ModelProto) -> bool:
    """Note the type of each output of Resize that has none though its input has; say whether there was one."""
    graph = proto.graph
    values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    types = {name: value.type.tensor_type.elem_type for name, value in values.items()}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    noted = False
    for node in graph.node:
        kind = types.get(node.input[0], 0) if node.op_type == "Resize" else 0
        if kind and not types.get(node.output[0]):
            value = values.get(node.output[0]) or graph.value_info.add(name=node.output[0])
            value.type.tensor_type.elem_type = kind
            noted = True
    return noted


def _spelled(element_type: int) -> str:
    return f"a tensor of {TensorProto.DataType.Name(element_type)}" if element_type else "whose type cannot be inferred"
