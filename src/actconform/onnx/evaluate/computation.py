"""One node as a function of its inputs: the real function of its operator, in float64, nothing rounded."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import actconform.onnx.evaluate.indexing
import actconform.onnx.evaluate.layers
import actconform.onnx.evaluate.quantized
import actconform.onnx.evaluate.recurrent
import actconform.onnx.evaluate.regions
import actconform.onnx.evaluate.resizing
import actconform.onnx.evaluate.sampling
import actconform.onnx.evaluate.signals
import actconform.onnx.evaluate.states
import actconform.onnx.evaluate.windows  # noqa: F401  they register operators
from actconform.errors import Unsupported
from actconform.onnx.constants import operator_node
from actconform.onnx.evaluate.contrib.registry import ADDED_TO_STANDARD, BODY_OPSET, CONTRIB, Operators
from actconform.onnx.evaluate.element_types import held
from actconform.onnx.evaluate.elementwise import OPERATIONS, PASSED_ON, OperatorNode
from actconform.onnx.evaluate.node_label import STANDARD, node_label
from actconform.onnx.size_limits import expect_sane_output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Array: TypeAlias = NDArray[Any]

LARGEST_KEPT_NODE = 1 << 10  # bytes: a Constant may hold weights


class Computation(NamedTuple):
    """A node without graphs inside it, ready to be computed."""

    node: OperatorNode
    """The operator with its attributes, the standard's defaults where the graph is silent."""
    compute: Callable[[Sequence[Array | None]], Sequence[Array]]
    """Of the inputs, None where one is left out: the outputs, in order; floats in float64, integers and booleans in any dtype."""


def computation(node: onnx.NodeProto, opset: int) -> Computation:
    """Return what computes `node` at that opset of the standard's domain; raise Unsupported, naming it, for an unknown operator."""
    domain, outputs = "" if node.domain in STANDARD else node.domain, tuple(node.output)
    if (domain, node.op_type) in CONTRIB:
        define, defaults, _ = CONTRIB[domain, node.op_type]
        composed = OperatorNode(node.op_type, {**defaults, **_stated(node)}, opset, domain, outputs)
        return Computation(composed, lambda inputs: _several(define(composed, ArrayOperators(), *inputs)))
    if domain or (node.op_type not in PASSED_ON and node.op_type not in OPERATIONS):
        raise Unsupported(f"the correctly rounded evaluator does not know {node_label(node, opset)}")
    operator_node = OperatorNode(node.op_type, attributes_of(node, opset), opset, outputs=outputs)
    if "sparse_value" in operator_node.attributes:
        raise Unsupported(f"the correctly rounded evaluator takes no sparse tensor, as of {node_label(node, opset)}")
    if node.op_type in PASSED_ON:
        return Computation(operator_node, passed_on(node, opset))
    operation = OPERATIONS[node.op_type]
    return Computation(operator_node, lambda inputs: _several(operation(operator_node, *inputs)))


class DefinitionStep(NamedTuple):
    """A standard operator in the definition of another."""

    node: onnx.NodeProto
    computation: Computation


def definition_step(
    op_type: str, inputs: Sequence[Array | None], outputs: int, attributes: dict[str, Any]
) -> DefinitionStep:
    """Return a standard operator of a definition, None for inputs left out; raise TooLargeError where it makes more than is held."""
    listed = {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}
    step = _made_step(op_type, tuple(each is not None for each in inputs), outputs, tuple(sorted(listed.items())))
    read = {name: each for name, each in zip(step.node.input, inputs, strict=True) if each is not None}
    expect_sane_output(step.node, read, BODY_OPSET)
    return step


@lru_cache(maxsize=4096)
def _made_step(
    op_type: str, present: tuple[bool, ...], outputs: int, attributes: tuple[tuple[str, Any], ...]
) -> DefinitionStep:
    inputs = [f"in{i}" if each else "" for i, each in enumerate(present)]
    node = operator_node(op_type, inputs, [f"out{i}" for i in range(outputs)], "", **dict(attributes))
    return DefinitionStep(node, computation(node, BODY_OPSET))


class ArrayOperators(Operators):
    """The standard's operators on arrays: what computes the operators that are defined by them."""

    float_type = TensorProto.FLOAT

    def apply(self, op_type: str, inputs: Sequence[Any], outputs: int, attributes: dict[str, Any]) -> Any:
        arrays = [None if each is None else np.asarray(each) for each in inputs]
        results = definition_step(op_type, arrays, outputs, attributes).computation.compute(arrays)
        if op_type == "Cast":
            return held(np.asarray(results[0]), attributes["to"])
        return results[0] if outputs == 1 else tuple(results[:outputs])

    def array(self, tensor: Any) -> Array:
        return np.asarray(tensor)

    def within(self, tensor: Any, error: Array) -> Any:  # noqa: ARG002  the real function has none
        return tensor


def attributes_of(node: onnx.NodeProto, opset: int) -> dict[str, Any]:
    """Return a node's attributes, the standard's defaults where it is silent. Raises Unsupported for no standard operator."""
    try:
        defaults = _default_attributes(node.op_type, max(opset, ADDED_TO_STANDARD.get(node.op_type, 0)))
    except onnx.defs.SchemaError as error:
        raise Unsupported(f"{node_label(node, opset)} is not in the standard") from error
    return {**defaults, **_stated(node)}


@lru_cache(maxsize=4096)  # a schema takes longer to read than a small node to compute
def _default_attributes(op_type: str, opset: int) -> dict[str, Any]:
    schema = onnx.defs.get_schema(op_type, opset, "")
    return _values([each.default_value for each in schema.attributes.values() if each.default_value.type])


def passed_on(node: onnx.NodeProto, opset: int) -> Callable[[Sequence[Array | None]], Sequence[Array]]:
    """Return onnx's own implementation of one node."""
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    alone.domain = alone.name = alone.doc_string = ""
    alone.input[:] = [f"in{node.input[:].index(name)}" if name else "" for name in node.input]
    alone.output[:] = [f"out{i}" if name else "" for i, name in enumerate(node.output)]
    serialized = alone.SerializeToString(deterministic=True)
    small = len(serialized) <= LARGEST_KEPT_NODE
    evaluator = _kept_evaluator(serialized, opset) if small else _reference_evaluator(serialized, opset)

    def compute(inputs: Sequence[Array | None]) -> Sequence[Array]:
        named = {name: array for name, array in zip(alone.input, inputs, strict=True) if name}
        results = iter(evaluator.run(None, named))
        return [next(results) if name else np.empty(0) for name in alone.output]

    return compute


def _reference_evaluator(serialized: bytes, opset: int) -> ReferenceEvaluator:
    node = onnx.NodeProto.FromString(serialized)
    inputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input) if name]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    return ReferenceEvaluator(helper.make_graph([node], "node", inputs, outputs), opsets={"": opset})


_kept_evaluator = lru_cache(maxsize=4096)(_reference_evaluator)  # making one takes longer than running it


def _several(results: Array | tuple[Array, ...]) -> Sequence[Array]:
    return results if isinstance(results, tuple) else [results]


def _stated(node: onnx.NodeProto) -> dict[str, Any]:
    return _values(node.attribute)


def _values(attributes: Sequence[onnx.AttributeProto]) -> dict[str, Any]:
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in attributes}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
