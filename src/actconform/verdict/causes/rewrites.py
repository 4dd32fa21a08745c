"""Rewritings of graphs that runtimes do and that change what is computed: the formula of such a cause is the graph rewritten."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from actconform.onnx.evaluate.contrib.registry import CONTRIB_DOMAIN
from actconform.onnx.evaluate.node_label import STANDARD

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# Rewrites a graph in place, everywhere that its runtime does, and returns whether it did anywhere.
Rewrite: TypeAlias = "Callable[[GraphProto], bool]"


def pad_into_max_pool(graph: GraphProto) -> bool:
    """Make each Pad of zeros the padding of the MaxPool that alone reads it, which pads with less than any number.

    So where the Pad is constant with a value of 0 or none, its pads are constants, none is negative, there are none of batch and
    channels, and no axes are named; and the MaxPool pads as it states (no auto_pad) and gives no indices.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    fused = []
    for pool in graph.node:
        pad = producers.get(pool.input[0]) if _is(pool, "MaxPool") and len(pool.output) == 1 else None
        if pad is None or not _is(pad, "Pad") or _read_elsewhere(graph, pad.output[0]):
            continue
        pads = _pads_of_zeros(pad, constants)
        if pads is None or _attribute(pool, "auto_pad", b"NOTSET") != b"NOTSET":
            continue
        padding = _attribute(pool, "pads", [0] * len(pads))
        _set_attribute(pool, "pads", [int(each) + int(more) for each, more in zip(padding, pads, strict=True)])
        pool.input[0] = pad.input[0]
        fused.append(pad)
    for pad in fused:
        graph.node.remove(pad)
    return bool(fused)


def softmax_of_whole_reciprocal(graph: GraphProto) -> bool:
    """Quantize the result of each Softmax of quantized numbers by a whole number of levels to 1: the reciprocal of its scale, rounded down.

    So where QLinearSoftmax computes it: a Softmax that reads a DequantizeLinear, and that a QuantizeLinear alone reads; and that operator
    itself. The scale must be a constant, and one number.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    scales = [
        (node, place)
        for node in graph.node
        for place in (1 if _quantizes_softmax(graph, node, producers) else 3 if _is_quantized_softmax(node) else 0,)
        if place
    ]
    rewritten = False
    for node, place in scales:
        scale = constants.get(node.input[place])
        if scale is None or scale.dtype != np.float32 or scale.size != 1 or not scale > 0:
            continue
        levels = np.floor(np.float32(1) / scale)
        if np.isfinite(levels) and levels > 0 and np.float32(1) / levels != scale:
            node.input[place] = _add_constant(graph, np.float32(1) / levels)
            rewritten = True
    return rewritten


REWRITES: dict[str, Rewrite] = {
    "pad-into-max-pool": pad_into_max_pool,
    "softmax-of-whole-reciprocal": softmax_of_whole_reciprocal,
}
"""By the name that a register gives them."""


def _quantizes_softmax(graph: GraphProto, node: NodeProto, producers: dict[str, NodeProto]) -> bool:
    """Return whether a node quantizes what a Softmax of quantized numbers gives to it alone."""
    softmax = producers.get(node.input[0]) if _is(node, "QuantizeLinear") else None
    if softmax is None or not _is(softmax, "Softmax") or _read_elsewhere(graph, softmax.output[0]):
        return False
    dequantize = producers.get(softmax.input[0])
    return dequantize is not None and _is(dequantize, "DequantizeLinear")


def _is_quantized_softmax(node: NodeProto) -> bool:
    return node.op_type == "QLinearSoftmax" and node.domain == CONTRIB_DOMAIN


def _add_constant(graph: GraphProto, array: NDArray[Any]) -> str:
    """Add an initializer under a name that is not in use, and return the name."""
    used = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    used.update(name for node in graph.node for name in node.output)
    name = next(name for number in count() if (name := f"rewritten_{number}") not in used)
    graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _pads_of_zeros(pad: NodeProto, constants: dict[str, NDArray[Any]]) -> list[int] | None:
    """Return by how much a Pad pads the spatial axes with zeros, begins before ends; None where it does anything else."""
    if _attribute(pad, "mode", b"constant") != b"constant" or len(pad.input) > 3:
        return None
    if len(pad.input) > 1:  # from opset 11 on
        names = [name for name in pad.input[1:] if name]
        if not names or any(name not in constants for name in names):
            return None
        pads = [int(count) for count in constants[names[0]]]
        value = constants[names[1]].astype(np.float64).item() if len(names) > 1 else 0.0
    else:
        pads = [int(count) for count in _attribute(pad, "pads", [])]
        value = float(_attribute(pad, "value", 0.0))
    begins, ends = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    if value != 0 or np.signbit(value) or min(pads, default=0) < 0 or any(begins[:2]) or any(ends[:2]):
        return None
    return begins[2:] + ends[2:]


def _read_elsewhere(graph: GraphProto, name: str) -> bool:
    readings = sum(list(node.input).count(name) for node in graph.node)
    return readings > 1 or any(value.name == name for value in graph.output)


def _is(node: NodeProto, op_type: str) -> bool:
    return node.op_type == op_type and node.domain in STANDARD


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    stated = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return default if stated is None else helper.get_attribute_value(stated)


def _set_attribute(node: NodeProto, name: str, value: list[int]) -> None:
    remaining = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*remaining, helper.make_attribute(name, value)])
