"""What a graph no longer has of the model that it was exported from, so far as it shows: gradients that are not what one means.

A gradient of a graph is right for the graph. Where an exporter tied, copied, folded or dropped something, it is another
gradient than that of the model in its framework; the notes here name what can be seen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from actconform.onnx.constants import FLOATS
from actconform.onnx.gates import deep
from actconform.onnx.grad.rules.tensor_info import constant_of
from actconform.onnx.nested_graphs import needed
from actconform.text import listed, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

    from actconform.onnx.grad.rules.tensor_info import Array

_FX_NODE = "pkg.torch.onnx.fx_node"  # what torch's exporter notes of the operation that a node stands for
_RULE = "rewriter.rule_name"  # the end of the key under which onnxscript's optimizer notes what it did
_SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
_MADE_BY_EXPORTERS = re.compile(r"onnx::|const_fold_opt__|_val_\d|val_\d")  # names that no framework gives a parameter
_CUT = re.compile(r"%detach|aten\.detach|stop_?gradient|/detach", re.IGNORECASE)
_SHOWN = 4  # names in a note
_EMBEDDING = re.compile(r"aten\.embedding\.default\]\(args = \(%?\S+, %?\S+, (\d+)")


def lost_in_export(model: onnx.ModelProto, wrt: Sequence[str], gradient: str = "d_") -> list[str]:
    """Return a sentence for each way that shows in which gradients by the initializers `wrt` are not those of a model's parameters.

    Named are: initializers with several readers; others that hold the same numbers, their transpose or a multiple; weights
    into which a normalization was folded; parameters that the export lists and the graph lacks; detached tensors and rows of
    padding. What an exporter leaves no trace of is not seen. `gradient` begins the names of gradients.
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [name for name in wrt if name in initializers]
    nodes = list(deep(needed(model.graph.node, [value.name for value in model.graph.output])))
    readers = {name: [_label(node) for node in nodes for read in node.input if read == name] for name in weights}
    notes = [
        f"{gradient}{name} is the sum over {number_of(len(by), 'reader')} of {name} ({listed(by, _SHOWN)}): "
        "tied weights, or equal ones that the exporter merged"
        for name, by in readers.items()
        if len(by) > 1
    ]
    tensors = {**initializers, **_constant_nodes(nodes)}
    for name in weights:
        notes += _copies(name, tensors, nodes, gradient)
    notes += _folded(weights, nodes, initializers)
    notes += _padding(weights, nodes, gradient)
    return notes + (_missing(model, initializers) if weights else []) + _cut(nodes)


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or '-> ' + ', '.join(name for name in node.output if name)}"


def _constant_nodes(nodes: Sequence[onnx.NodeProto]) -> dict[str, onnx.TensorProto]:
    constants = ((node.output[0], constant_of(node)) for node in nodes if node.op_type == "Constant")
    return {name: tensor for name, tensor in constants if tensor is not None}


def _copies(
    name: str, tensors: dict[str, onnx.TensorProto], nodes: Sequence[onnx.NodeProto], gradient: str
) -> Iterator[str]:
    """Yield a sentence for each tensor that holds what an initializer holds, or that transposed or multiplied."""
    initializer = tensors[name]
    if initializer.data_type not in FLOATS or uses_external_data(initializer):
        return
    array = numpy_helper.to_array(initializer)
    if array.size < 2 or np.ptp(array.astype(np.float64)) == 0:  # zeros and ones are equal by chance
        return
    for copy, tensor in tensors.items():
        same = tensor.data_type == initializer.data_type and np.prod(tensor.dims, dtype=np.int64) == array.size
        if copy == name or not same or uses_external_data(tensor):
            continue
        relation = _relation(array, numpy_helper.to_array(tensor))
        readers = [_label(node) for node in nodes for read in node.input if read == copy] if relation else []
        if relation and readers:
            content = relation.of(name) if any(relation) else f"the same numbers as {name}"
            gradient_name, part = f"{gradient}{name}", relation.of(f"{gradient}{copy}")
            yield (
                f"{copy}, read by {listed(readers, _SHOWN)}, holds {content}: if both are one parameter of the model, its "
                f"gradient is {gradient_name} plus {part}; {gradient_name} alone lacks that part"
            )


class _Relation(NamedTuple):
    """What one tensor is of another: that or its transpose, and so many times it. Their gradients are related likewise."""

    transposed: bool = False
    ratio: float | None = None

    def of(self, name: str) -> str:
        """Return the words for this relation to the tensor `name`."""
        times = "" if self.ratio is None else f"{self.ratio:.6g} times "
        return f"{times}{'the transpose of ' if self.transposed else ''}{name}"


def _relation(original: Array, copy: Array) -> _Relation | None:
    """Return what `copy` is of `original`; None if nothing. For most that are not related the first rows decide."""
    turned = [
        original,
        *([original.T] if original.ndim >= 2 else []),
        *([np.swapaxes(original, -1, -2)] if original.ndim > 2 else []),
    ]
    for i, array in enumerate(turned):
        if array.shape == copy.shape and _ratio(array[:1], copy[:1]) is not None:
            ratio = _ratio(array, copy)
            if ratio == 1:
                return _Relation(i > 0)
            if ratio is not None and array.size >= 8:
                return _Relation(i > 0, ratio)
    return None


def _ratio(array: Array, copy: Array) -> float | None:
    """Return how many times `array` another of its shape is: 1 where they are equal; None where it is no multiple."""
    if np.array_equal(array, copy, equal_nan=True):
        return 1.0
    largest = np.unravel_index(np.argmax(np.abs(array)), array.shape)
    ratio = float(copy[largest]) / float(array[largest]) if array[largest] else 0.0
    if ratio and np.allclose(copy, ratio * array.astype(np.float64), rtol=1e-6, atol=0):
        return ratio
    return None


def _folded(
    weights: Sequence[str], nodes: Sequence[onnx.NodeProto], initializers: dict[str, onnx.TensorProto]
) -> Iterator[str]:
    """Yield a sentence for each of `weights` that shows that the exporter computed it from several parameters."""
    for name in weights:
        for node in (node for node in nodes if name in node.input):
            rules = [entry.value for entry in node.metadata_props if entry.key.endswith(_RULE)]
            fused = next((rule for rule in rules if "BatchNorm" in rule), "")
            bias = node.input[2] if len(node.input) > 2 else ""
            if fused or (bias == f"{name}_bias" and bias in initializers):
                yield (
                    f"{name} is not the parameter of that name alone: a normalization was folded into it at {_label(node)}"
                    f"{f' ({fused})' if fused else ''}; export parameters as inputs, or without optimization, for its own gradient"
                )
                break
        else:
            if _MADE_BY_EXPORTERS.match(name):
                yield (
                    f"{name} was made by the exporter, of one parameter or of several: transposed, or with a normalization "
                    "folded in; export parameters as inputs for their own gradients"
                )


def _missing(model: onnx.ModelProto, initializers: dict[str, onnx.TensorProto]) -> list[str]:
    """Say which parameters torch's export lists that the graph does not hold."""
    entries = (*model.metadata_props, *model.graph.metadata_props)
    signatures = "\n".join(entry.value for entry in entries if entry.key == _SIGNATURE)
    present = {*initializers, *(value.name for value in model.graph.input)}
    names = re.findall(r"PARAMETER target='([^']+)'", signatures)
    gone = [name for name in names if name not in present]
    if not gone or len(gone) == len(names):  # of none present, they have come as inputs of other names
        return []
    note = f"the export lists parameters that the graph does not have under their names: {listed(gone, _SHOWN)}; they were "
    return [f"{note}merged with equal ones, transposed, or folded into others, whose gradients have their part"]


def _cut(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Say where a gradient was stopped in the model: in the graph it flows on."""
    for node in nodes:
        notes = [entry.value for entry in node.metadata_props if entry.key == _FX_NODE]
        if any(_CUT.search(text) for text in (*notes, node.name, *node.output)):
            return [
                f"the model stopped a gradient before {_label(node)} (detach), and the graph does not: it flows on there"
            ]
    return []


def _padding(weights: Sequence[str], nodes: Sequence[onnx.NodeProto], gradient: str) -> Iterator[str]:
    """Yield a sentence for each embedding one row of which torch never trains."""
    for node in nodes:
        for entry in node.metadata_props:
            row = _EMBEDDING.search(entry.value) if entry.key == _FX_NODE else None
            if row and node.op_type == "Gather" and node.input[0] in weights:
                name = node.input[0]
                yield (
                    f"row {row[1]} of {name} is the model's padding_idx, of gradient 0 in torch; the graph does not know "
                    f"that: set row {row[1]} of {gradient}{name} to 0"
                )
