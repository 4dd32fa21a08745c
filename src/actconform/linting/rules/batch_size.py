"""The rule on graphs that run for the batch size of the export alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from onnx import numpy_helper

from actconform.linting.linted_graph import is_standard, name_of, shown_sizes
from actconform.plugin.lint_rule import LintRule
from actconform.text import one_line
from actconform.types.lint import LintFix, LintObservation

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from actconform.linting.linted_graph import LintedGraph
    from actconform.linting.linted_model import LintedModel


class _Baked(NamedTuple):
    batch: int
    """The only size for which the node runs."""
    shape: list[int]
    """Of the Reshape, with -1 where the batch is; [] where that cannot be told."""


def _baked_batch(model: LintedModel) -> Iterator[LintObservation]:
    graph = model.main
    for node in graph.nodes:
        if not is_standard(node):
            continue
        if node.op_type == "Reshape" and (baked := _reshaped(graph, node)):
            target = graph.constant(node.input[1])
            shape = [] if target is None else target.tolist()
            sizes = shown_sizes(graph.dims(node.input[0]))
            yield model.at(
                node,
                f"Reshape of {sizes} to the constant {shape} fits batches of {baked.batch:,} alone, and the model's input leaves the batch open",
                {"batch": baked.batch},
            )
        elif node.op_type in {"LSTM", "GRU", "RNN"} and (size := _state_size(graph, node)):
            yield model.at(
                node,
                f"the initial state of {node.op_type} is a constant for batches of {size:,}, and the model's input leaves the batch open",
                {"batch": size},
            )
    yield from _fixed_inputs(model)


def _reshaped(graph: LintedGraph, node: onnx.NodeProto) -> _Baked | None:
    """Return the one batch size for which a Reshape of an open batch runs; None where there are several, or it cannot be told."""
    dims, target = graph.dims(node.input[0]), graph.constant(node.input[1])
    if not dims or target is None or target.ndim != 1 or not _is_open_batch(graph, dims[0]):
        return None
    rest = [size for size in dims[1:] if isinstance(size, int)]
    shape = [int(size) for size in target]
    if len(rest) < len(dims) - 1 or not shape or 0 in shape or 0 in rest:
        return None
    elements = math.prod(rest)
    if -1 not in shape:
        batch, remainder = divmod(math.prod(shape), elements)
        is_plain = not remainder and shape[0] == batch and math.prod(shape[1:]) == elements
        return None if remainder else _Baked(batch, [-1, *shape[1:]] if is_plain else [])
    features = _features_read(graph, node.output[0]) if shape[-1] == -1 and len(shape) == 2 else None
    if features is None:
        return None
    batch, remainder = divmod(shape[0] * features, elements)
    return None if remainder or not batch else _Baked(batch, [-1, features] if batch == shape[0] else [])


def _features_read(graph: LintedGraph, name: str) -> int | None:
    """Return how many features the product with weights has that reads a matrix; None where none does."""
    for node in graph.readers.get(name, ()):
        if node.op_type in {"MatMul", "Gemm"} and node.input[0] == name and graph.is_constant(node.input[1]):
            dims = graph.dims(node.input[1])
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            size = dims[1 if transposed else 0] if dims is not None and len(dims) == 2 else None
            if isinstance(size, int):
                return size
    return None


def _state_size(graph: LintedGraph, node: onnx.NodeProto) -> int | None:
    dims = graph.dims(node.input[0])
    states = [name for name in node.input[5:7] if name and graph.is_constant(name)]
    if not dims or len(dims) != 3 or not states or not _is_open_batch(graph, dims[1]):
        return None
    state = graph.dims(states[0])
    return state[1] if state is not None and len(state) == 3 and isinstance(state[1], int) else None


def _is_open_batch(graph: LintedGraph, size: int | str | None) -> bool:
    """Whether a size is that of the first axis of an input, which the model leaves open under a name."""
    if not isinstance(size, str):
        return False
    inputs = (graph.dims(value.name) for value in graph.body.input if value.name not in graph.weights)
    return any(dims and dims[0] == size for dims in inputs)


def _fixed_inputs(model: LintedModel) -> Iterator[LintObservation]:
    """Yield inputs whose first size is fixed: for a reason, perhaps, so that most are notes."""
    shapes = {name: tensor.dims for name, tensor in model.source.inputs.items()}
    for name, dims in shapes.items():
        if not dims or len(dims) < 2 or not isinstance(dims[0], int):
            continue
        rest_open = any(not isinstance(size, int) for size in dims[1:])
        others_open = any(sizes and not isinstance(sizes[0], int) for label, sizes in shapes.items() if label != name)
        if dims[0] == 1 and not others_open:
            continue  # a model for one example at a time
        if rest_open or others_open or dims[0] > 1:
            is_odd = others_open and dims[0] > 1
            yield LintObservation(
                message=f"input {one_line(name, 80)} has the fixed batch size {dims[0]:,} ({shown_sizes(dims)})"
                + (", while other inputs leave theirs open" if others_open else ""),
                node=one_line(name, 200),
                operator="input",
                numbers={"batch": dims[0]},
                severity="warning" if is_odd else "note",
            )


def _open_reshapes(proto: onnx.ModelProto, model: LintedModel) -> list[LintFix]:
    graph, fixes = model.main, []
    names = {tensor.name for tensor in proto.graph.initializer} | set(graph.givers)
    for node in proto.graph.node:
        twin = graph.givers.get(node.output[0]) if node.op_type == "Reshape" and node.output else None
        baked = _reshaped(graph, twin) if twin is not None and is_standard(node) else None
        if baked is None or not baked.shape:
            continue
        name = f"{node.output[0]}.open_batch"
        while name in names:
            name += "'"
        names.add(name)
        proto.graph.initializer.append(numpy_helper.from_array(np.array(baked.shape, np.int64), name))
        node.input[1] = name
        change = f"reshapes to {baked.shape}, which is the same for batches of {baked.batch:,} and fits others too"
        fixes.append(LintFix(code="AC203", node=one_line(name_of(node), 200), change=change, exact=True))
    return fixes


BATCH_RULES = (
    LintRule(
        code="AC203",
        name="baked-batch-size",
        severity="error",
        why="A Reshape to constant sizes [B, k], as x.view(B, -1) writes it, holds the batch size B of the export: n examples with n != B fail, or are mixed.",
        hint="Write x.flatten(1) or x.reshape(x.shape[0], -1) and export with a dynamic batch axis; --fix puts -1 into such a Reshape.",
        check=_baked_batch,
        fix=_open_reshapes,
    ),
)
