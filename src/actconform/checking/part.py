"""A part of a flat graph as a model of its own, with the values that its nodes read, and the answers that rounding explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from actconform.checking.flatten import FlatGraph, flatten, wide
from actconform.checking.judge import Judge
from actconform.checking.spread import LIMIT, spread_units
from actconform.checking.truth import draws
from actconform.onnx.evaluate.element_types import FORMATS
from actconform.tolerance.row_bounds import flushes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from actconform.checking.flatten import Array
    from actconform.oracle.rounding import F64
    from actconform.types.case import Bundle


class PartialModel(NamedTuple):
    """A model, and its inputs."""

    model: onnx.ModelProto
    inputs: Bundle

    def with_inputs(self, inputs: Bundle) -> PartialModel:
        """Return the same nodes with other values, whose shapes the model then declares."""
        if all(inputs[name].shape == array.shape for name, array in self.inputs.items()):
            return PartialModel(self.model, inputs)
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.input[:]
        model.graph.input.extend(_value_info(name, array) for name, array in inputs.items())
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        return PartialModel(model, inputs)


class Accepted(NamedTuple):
    """The answers of one output that rounding explains: all from `lowest` to `highest`, NaN where the truth is NaN.

    Any where they are -inf and inf.
    """

    truth: Array
    """In float64, unrounded; integers and booleans as they are."""
    lowest: F64
    highest: F64

    def rejects(self, got: Array) -> Array:
        """Return which elements of an answer of the same shape are not explained."""
        value = wide(got).astype(np.float64)
        anything = np.isneginf(self.lowest) & np.isposinf(self.highest)
        both_nan = np.isnan(value) & np.isnan(self.truth.astype(np.float64))
        with np.errstate(invalid="ignore"):
            within = (value >= self.lowest) & (value <= self.highest)
        if self.truth.dtype.kind in "iu" and got.dtype.kind in "iu":  # float64 does not tell all of 64 bits apart
            within &= (self.lowest < self.highest) | (got == self.truth)
        return ~(within | both_nan | anything)

    def ratio(self, got: Array) -> float:
        """Return the largest error over what is allowed; infinite for another shape, and where nothing is allowed."""
        if got.shape != self.truth.shape:
            return np.inf
        rejected = self.rejects(got)
        value, truth = wide(got).astype(np.float64), self.truth.astype(np.float64)
        with np.errstate(all="ignore"):
            allowed = np.where(value < truth, truth - self.lowest, self.highest - truth)
            ratio = np.nan_to_num(np.abs(value - truth) / allowed, nan=np.inf, posinf=np.inf)
        return float(np.max(np.where(rejected, np.maximum(ratio, np.nextafter(1.0, 2.0)), 0.0), initial=0.0))


def part_of(graph: FlatGraph, places: Iterable[int], values: Bundle, outputs: Sequence[str]) -> PartialModel:
    """Return the nodes at `places` of a flat graph as a model that gives `outputs`; `values` has what they read of other nodes.

    Constants stay; the shapes of the inputs are those of this sample. Raises KeyError for a tensor that has no value.
    """
    nodes = [graph.nodes[place].proto for place in sorted(places)]
    produced = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in node.input if name and name not in produced)
    input_names = [name for name in read if name not in graph.constants]
    model = onnx.ModelProto(ir_version=graph.model.ir_version)
    model.opset_import.extend(graph.model.opset_import)
    model.graph.name = "minimal"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        tensor for tensor in graph.model.graph.initializer if tensor.name in read or tensor.name in outputs
    )
    model.graph.input.extend(_value_info(name, values[name]) for name in input_names)
    for name in outputs:
        model.graph.output.append(helper.make_tensor_value_info(name, graph.types[name], None))
    return PartialModel(model, {name: values[name] for name in input_names})


def read_from_outside(graph: FlatGraph, places: Collection[int]) -> list[str]:
    """Return the tensors that the nodes at `places` read of other nodes, or of the model's inputs."""
    produced = {name for place in places for name in graph.nodes[place].outputs}
    read = dict.fromkeys(name for place in sorted(places) for name in graph.nodes[place].inputs)
    return [name for name in read if name not in produced and name not in graph.constants]


def accepted_by_bounds(part: PartialModel, answer: Mapping[str, Array]) -> dict[str, Accepted]:
    """Return for each output that can be judged what its error bound allows; nodes between are carried with their errors.

    `answer` is the runtime's: bounds of recurrent layers go by the states that it shows. Raises Unsupported or ValueError where
    the part cannot be evaluated.
    """
    graph = flatten(part.model, part.inputs)
    judge = Judge(graph, part.inputs, graph.outputs)
    list(judge.take({name: answer[name] for name in graph.outputs}))
    return {
        name: accepted_within(
            expected.value, 0.0 if expected.error is None else expected.error, graph.types.get(name, 0)
        )
        for name, expected in judge.expected.items()
    }


def accepted_by_spread(part: PartialModel) -> dict[str, Accepted]:
    """Return for each output how far rounding may move it end to end. Raises Unsupported or ValueError as `accepted_by_bounds`."""
    graph = flatten(part.model, part.inputs)
    moved = draws(graph, part.inputs)
    accepted = {}
    for name, truth in graph.truth.items():
        if truth.dtype.kind == "f" and all(name in draw and draw[name].shape == truth.shape for draw in moved):
            unit, _ = spread_units(truth, [draw[name] for draw in moved], graph.types.get(name, 0))
            accepted[name] = accepted_within(truth, LIMIT * unit, graph.types.get(name, 0))
    return accepted


def accepted_within(truth: Array, allowed: F64 | float, element_type: int) -> Accepted:
    """Return the answers up to `allowed` from the truth, >= 0, broadcast; with it infinite all, infinite truths too.

    What rounds to infinity in the format of the element type, and what hardware flushes to 0, is accepted as well.
    """
    value = np.asarray(truth).astype(np.float64)
    with np.errstate(invalid="ignore"):
        lowest, highest = np.array(value - allowed), np.array(value + allowed)
    lowest[np.isinf(value)] = highest[np.isinf(value)] = value[np.isinf(value)]
    anything = np.broadcast_to(np.isposinf(allowed), value.shape)
    lowest[anything], highest[anything] = -np.inf, np.inf
    fmt = FORMATS.get(element_type)
    if fmt is not None:
        highest[highest >= fmt.overflow] = np.inf
        lowest[lowest <= -fmt.overflow] = -np.inf
        if flushes(fmt):
            tiny = np.abs(value) < fmt.smallest_normal
            lowest[tiny], highest[tiny] = np.minimum(lowest[tiny], 0.0), np.maximum(highest[tiny], 0.0)
    return Accepted(np.asarray(truth), lowest, highest)


def _value_info(name: str, array: Array) -> onnx.ValueInfoProto:
    element_type = TensorProto.STRING if array.dtype.kind in "OSU" else helper.np_dtype_to_tensor_dtype(array.dtype)
    info: onnx.ValueInfoProto = helper.make_tensor_value_info(name, element_type, array.shape)
    return info
