"""The correctly rounded evaluator: a graph evaluated node by node in accurate float64, each result rounded once to its element type.

It is the evaluation that tells faults of a graph from faults of a runtime. Where its output breaks a limit the graph itself
is wrong or ill-conditioned at its precision; where its output is right and a runtime's is not, the runtime is at fault.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from actconform._renamed import old_class_names
from actconform.errors import Unsupported
from actconform.onnx.evaluate.computation import Array, attributes_of, computation
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE, element_type_name, held, output_types
from actconform.onnx.evaluate.node_label import STANDARD, node_label
from actconform.onnx.gates import io_names, operators, standard_opset
from actconform.onnx.nested_graphs import graphs, reads, subgraphs
from actconform.onnx.opset_conversion import OLDEST, inlined
from actconform.onnx.size_limits import READ, expect_sane_output
from actconform.oracle.rounding import round_to
from actconform.plugin.interfaces import Program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform.types import Bundle

__getattr__ = old_class_names(__name__)

__all__ = ["CorrectlyRoundedEvaluator", "operators"]

Values: TypeAlias = MutableMapping[str, Array]
# of a node's inputs, None where one is left out, and of all tensors in scope, which a graph inside it may capture
Compute: TypeAlias = Callable[[list[Array | None], "ChainMap[str, Array]"], Sequence[Array]]

MOST_ROUNDS = 10_000  # of a loop
BATCHED_SCAN = 8  # the opset whose Scan has a batch axis


class _Step(NamedTuple):
    node: onnx.NodeProto
    input_types: list[int]
    output_types: list[int]
    compute: Compute
    last_read: list[str]
    """Tensors of this graph that nothing reads after this step."""


class _Body(NamedTuple):
    """A graph in its scope, ready to run."""

    inputs: list[str]
    outputs: list[str]
    described: Sequence[onnx.ValueInfoProto]
    output_types: list[int]
    constants: dict[str, Array]
    steps: list[_Step]


class CorrectlyRoundedEvaluator(Program):
    """A graph of standard operators, evaluated by the operators' true values.

    `model` is a serialized ModelProto at opset 7 or newer, evaluated at its own opset; functions in it are inlined. Every
    float32, float16 and bfloat16 tensor is rounded to nearest, once, with gradual underflow; float64 ones stay. With
    `rounding=False` nothing is rounded: the same graph in float64, a second evaluation, that tells lack of precision from a
    wrong formula. A tensor is freed after the last node that reads it.
    Raises Unsupported, naming operator, domain, opset and node, for what it does not know: other domains, strings, sequences,
    complex numbers, random numbers, sparse initializers.
    """

    implementation = "actconform.onnx.evaluate.evaluator"

    def __init__(self, model: bytes, *, rounding: bool = True) -> None:
        proto = inlined(onnx.load_from_string(model))
        self._rounding = rounding
        self._opset = standard_opset(proto)
        if self._opset < OLDEST:
            raise Unsupported(f"the correctly rounded evaluator knows opset {OLDEST} and newer, not {self._opset}")
        if any(graph.sparse_initializer for graph in graphs(proto.graph)):
            raise Unsupported("the correctly rounded evaluator takes no sparse initializers")
        self._inputs, _ = io_names(model)
        self._types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.input}
        for name in self._inputs:
            if self._types[name] not in STORAGE:
                raise Unsupported(
                    f"the correctly rounded evaluator does not take {name}, a tensor of {element_type_name(self._types[name])}"
                )
        self._body = self._prepared(proto.graph, ChainMap(self._types))

    def forward(self, inputs: Bundle) -> Bundle:
        """Return the outputs by name, in their dtypes (all floats float64 without rounding), `inputs` untouched.

        Raises ValueError where the inputs' names or dtypes are not the graph's, or a node fails at these shapes.
        """
        if set(inputs) != set(self._inputs):
            raise ValueError(f"inputs {sorted(inputs)} given, but the graph takes {sorted(self._inputs)}")
        values: dict[str, Array] = {}
        for name, array in inputs.items():
            if array.dtype != STORAGE[self._types[name]]:
                raise ValueError(f"input {name} is {array.dtype}, but the graph takes {STORAGE[self._types[name]]}")
            values[name] = self._settled(array, self._types[name])
        with np.errstate(all="ignore"):
            results = self._run(self._body, values, ChainMap({}))
        return {
            name: self._handed_out(array, element_type)
            for name, array, element_type in zip(self._body.outputs, results, self._body.output_types, strict=True)
        }

    def _run(self, body: _Body, values: Mapping[str, Array], outer: ChainMap[str, Array]) -> list[Array]:
        """Return the outputs of a graph of its inputs and what lies around it."""
        local = {**body.constants, **values}
        scope = outer.new_child(local)
        for step in body.steps:
            local |= self._results(step, scope)
            for name in step.last_read:
                del local[name]
        return [scope[name] for name in body.outputs]

    def _results(self, step: _Step, scope: ChainMap[str, Array]) -> dict[str, Array]:
        arguments = [scope[name] if name else None for name in step.node.input]
        try:
            self._expect_sane_output(step, arguments)
            results = step.compute(arguments, scope)
        except Unsupported as error:
            raise Unsupported(f"{node_label(step.node, self._opset)}: {error}") from error
        except Exception as error:
            raise ValueError(f"{node_label(step.node, self._opset)} fails at these inputs: {error}") from error
        if any(step.node.output[len(results) :]):
            raise Unsupported(
                f"the correctly rounded evaluator knows {len(results)} outputs of {node_label(step.node, self._opset)}"
            )
        named = zip(step.node.output, results, step.output_types, strict=False)  # trailing outputs may be left out
        return {name: self._settled(np.asarray(result), element_type) for name, result, element_type in named if name}

    def _expect_sane_output(self, step: _Step, arguments: list[Array | None]) -> None:
        """Raise Unsupported where the node would make more than is evaluated here, before it does."""
        # Of large ones the shape alone is looked at, and a view costs nothing.
        typed = {
            name: array.astype(STORAGE[element_type])
            if array.size <= READ
            else np.broadcast_to(np.zeros((), STORAGE[element_type]), array.shape)
            for name, array, element_type in zip(step.node.input, arguments, step.input_types, strict=True)
            if array is not None
        }
        expect_sane_output(step.node, typed, self._opset)

    def _settled(self, array: Array, element_type: int) -> Array:
        """Return the array as a tensor of that type is held: floats rounded, in float64; all else in its own dtype."""
        exact = held(array, element_type)
        narrow = element_type in FORMATS and element_type != TensorProto.DOUBLE
        return round_to(exact, FORMATS[element_type]) if narrow and self._rounding else exact

    def _handed_out(self, array: Array, element_type: int) -> Array:
        wide = element_type in FORMATS and not self._rounding
        return array.astype(np.float64 if wide else STORAGE[element_type])

    def _prepared(self, graph: onnx.GraphProto, types: ChainMap[str, int]) -> _Body:
        """Return a graph ready to run; `types` has the element types of its inputs, and of all around it."""
        constants = {}
        for tensor in graph.initializer:
            if tensor.data_type not in STORAGE:
                raise Unsupported(
                    f"the correctly rounded evaluator does not take {tensor.name}, a tensor of {element_type_name(tensor.data_type)}"
                )
            types[tensor.name] = tensor.data_type
            constants[tensor.name] = self._settled(numpy_helper.to_array(tensor), tensor.data_type)
        outputs = [value.name for value in graph.output]
        last_reads = _last_reads(graph)
        steps = []
        for node, last_read in zip(graph.node, last_reads, strict=True):
            input_types = [_type_of(name, types, node, self._opset) if name else 0 for name in node.input]
            compute, given_types = self._compute(node, input_types, types)
            for name, element_type in zip(node.output, given_types, strict=True):
                if name and element_type not in STORAGE:
                    what = f"{node_label(node, self._opset)} gives {name}"
                    raise Unsupported(f"{what}, a tensor of {element_type_name(element_type)}")
                types[name] = element_type
            if node.op_type == "Constant" and node.domain in STANDARD:
                constants |= self._results(_Step(node, [], given_types, compute, []), ChainMap({}))
                continue
            steps.append(_Step(node, input_types, given_types, compute, last_read))
        names = [value.name for value in graph.input]
        return _Body(names, outputs, graph.output, [types[name] for name in outputs], constants, steps)

    def _compute(
        self, node: onnx.NodeProto, input_types: list[int], types: ChainMap[str, int]
    ) -> tuple[Compute, list[int]]:
        """Return what computes a node, and the element types of its outputs."""
        flow = {"If": self._choice, "Loop": self._loop, "Scan": self._scan}.get(node.op_type)
        if flow and node.domain in STANDARD:
            return flow(node, input_types, types)
        compute = computation(node, self._opset).compute
        return lambda arguments, _: compute(arguments), output_types(node, self._opset, input_types)

    def _loop(
        self, node: onnx.NodeProto, input_types: list[int], types: ChainMap[str, int]
    ) -> tuple[Compute, list[int]]:
        """Return what runs the body until its limit, or while its condition holds, each node in it rounded as any other."""
        (graph,) = subgraphs(node)
        body_types = (TensorProto.INT64, TensorProto.BOOL, *input_types[2:])
        body = self._prepared(graph, _with_inputs(graph, body_types, types))

        def compute(arguments: list[Array | None], outer: ChainMap[str, Array]) -> Sequence[Array]:
            trips, going, *initial = arguments
            limit = None if trips is None else int(np.ravel(trips)[0])
            carried = cast("list[Array]", initial)
            rows: list[Sequence[Array]] = []
            if limit is not None and limit > MOST_ROUNDS and going is None:
                raise Unsupported(f"a loop of {limit:,} rounds; at most {MOST_ROUNDS:,} are taken")
            while (going is None or bool(going)) and (limit is None or len(rows) < limit):
                if len(rows) == MOST_ROUNDS:
                    raise Unsupported(f"a loop of more than {MOST_ROUNDS:,} rounds")
                body_inputs = (np.array(len(rows)), np.array(True), *carried)  # noqa: FBT003
                going, *results = self._run(body, dict(zip(body.inputs, body_inputs, strict=True)), outer)
                rows.append(results[len(carried) :])
                carried = results[: len(carried)]
            return [*carried, *_stacked(rows, body.described[1 + len(carried) :])]

        return compute, _outer_types(body.output_types[1:], node)

    def _choice(self, node: onnx.NodeProto, _: list[int], types: ChainMap[str, int]) -> tuple[Compute, list[int]]:
        """Return what runs the branch that the condition chooses."""
        branches = {
            attribute.name: self._prepared(attribute.g, types.new_child())
            for attribute in node.attribute
            if attribute.HasField("g")
        }

        def compute(arguments: list[Array | None], outer: ChainMap[str, Array]) -> Sequence[Array]:
            (condition,) = arguments
            return self._run(branches["then_branch" if np.all(condition) else "else_branch"], {}, outer)

        kinds = {tuple(branch.output_types) for branch in branches.values()}
        if len(kinds) > 1:
            raise Unsupported(f"{node_label(node, self._opset)} has branches that give tensors of different types")
        return compute, _outer_types(next(iter(kinds)), node)

    def _scan(
        self, node: onnx.NodeProto, input_types: list[int], types: ChainMap[str, int]
    ) -> tuple[Compute, list[int]]:
        """Return what runs the body for each slice of the sequences."""
        (graph,) = subgraphs(node)
        attributes = attributes_of(node, self._opset)
        batched = self._opset <= BATCHED_SCAN
        body_types = input_types[1:] if batched else input_types
        body = self._prepared(graph, _with_inputs(graph, body_types, types))
        n_read = attributes["num_scan_inputs"]
        n_states = len(body_types) - n_read
        n_written = len(body.outputs) - n_states
        axes = [attributes.get(f"scan_{end}_axes") or [0] * n for end, n in (("input", n_read), ("output", n_written))]
        turns = [
            attributes.get(f"scan_{end}_directions") or [0] * n for end, n in (("input", n_read), ("output", n_written))
        ]
        if batched:
            turns[0] = attributes.get("directions") or turns[0]

        def compute(arguments: list[Array | None], outer: ChainMap[str, Array]) -> list[Array]:
            states = cast("list[Array]", arguments[:n_states])
            read = [
                np.flip(np.moveaxis(each, axis, 0), 0) if turned else np.moveaxis(each, axis, 0)
                for each, axis, turned in zip(cast("list[Array]", arguments[n_states:]), axes[0], turns[0], strict=True)
            ]
            rows: list[Sequence[Array]] = []
            for slices in zip(*read, strict=True):
                results = self._run(body, dict(zip(body.inputs, (*states, *slices), strict=True)), outer)
                states = results[:n_states]
                rows.append(results[n_states:])
            written = [
                np.moveaxis(np.flip(each, 0) if turned else each, 0, axis)
                for each, axis, turned in zip(_stacked(rows, body.described[n_states:]), axes[1], turns[1], strict=True)
            ]
            return [*states, *written]

        def each_of_batch(arguments: list[Array | None], outer: ChainMap[str, Array]) -> Sequence[Array]:
            """Scan each batch item to its own length; behind it the outputs are 0."""
            lengths, *others = arguments
            given = cast("list[Array]", others)
            steps = given[n_states].shape[1]
            results = []
            for item in range(len(given[n_states])):
                length = steps if lengths is None else int(lengths[item])
                sequences = [sequence[item][:length] for sequence in given[n_states:]]
                (*ends,) = compute([*(state[item] for state in given[:n_states]), *sequences], outer)
                for i, rows in enumerate(ends[n_states:], n_states):
                    ends[i] = np.concatenate([rows, np.zeros((steps - length, *rows.shape[1:]), rows.dtype)])
                results.append(ends)
            return [np.stack(column) for column in zip(*results, strict=True)]

        return each_of_batch if batched else compute, _outer_types(body.output_types, node)


def _last_reads(graph: onnx.GraphProto) -> list[list[str]]:
    """Return for each node the tensors of this graph, constants apart, that are not needed after it."""
    kept = {value.name for value in graph.output} | {tensor.name for tensor in graph.initializer}
    kept |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    own = {name for node in graph.node for name in node.output if name} | {value.name for value in graph.input}
    dead: list[list[str]] = []
    for node in reversed(graph.node):
        names = {name for name in (*reads(node), *node.output) if name in own and name not in kept}
        kept |= names
        dead.append(sorted(names))
    return dead[::-1]


def _with_inputs(graph: onnx.GraphProto, input_types: Sequence[int], types: ChainMap[str, int]) -> ChainMap[str, int]:
    """Return the scope of a graph inside a node, of what lies around it and the types of its inputs."""
    return types.new_child({value.name: kind for value, kind in zip(graph.input, input_types, strict=True)})


def _outer_types(body_types: Sequence[int], node: onnx.NodeProto) -> list[int]:
    return [kind if name else 0 for name, kind in zip(node.output, body_types, strict=False)]


def _type_of(name: str, types: ChainMap[str, int], node: onnx.NodeProto, opset: int) -> int:
    if name not in types:
        raise Unsupported(f"{node_label(node, opset)} reads {name}, which nothing before it gives")
    return types[name]


def _stacked(rows: Sequence[Sequence[Array]], described: Sequence[onnx.ValueInfoProto]) -> list[Array]:
    """Return each output of the rounds of a loop, one row a round; `described` tells their sizes where there was no round."""
    if rows:
        return [np.stack(column) for column in zip(*rows, strict=True)]
    dims = [value.type.tensor_type.shape.dim for value in described]
    if not all(each.HasField("dim_value") for sizes in dims for each in sizes):
        raise Unsupported("a loop of no round at all, whose body does not state the sizes of what it gives")
    return [np.zeros((0, *(each.dim_value for each in sizes))) for sizes in dims]
