"""Tensors of a flat graph whose values the standard does not define, so that no runtime can be held to them, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from actconform.checking.nonfinite_weights import COMPARES, READS_NO_VALUE
from actconform.onnx.evaluate.element_types import STORAGE
from actconform.onnx.gates import standard_opset
from actconform.text import labelled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.checking.flatten import FlatGraph, FlatNode

MASK_DEFINED = 12  # the opset from which the standard says what the mask of a Dropout is in inference
_OF_NO_VALUE = frozenset((*COMPARES, *READS_NO_VALUE))


def undefined_tensors(graph: FlatGraph) -> dict[str, str]:
    """Return the tensors that the standard does not define in the sample of `graph`, and those that depend on one, each with the reason."""
    opset = standard_opset(graph.model)
    undefined: dict[str, str] = {}
    for node in graph.nodes:
        nan = next((words for name in node.inputs if (words := graph.nonfinite.nan.get(name))), "")
        before = next((undefined[name] for name in node.inputs if name in undefined), "")
        if before and node.proto.op_type not in READS_NO_VALUE:
            undefined.update(dict.fromkeys(node.outputs, before))
        undefined.update(undefined_outputs(node, opset, nan))
    return undefined


def undefined_outputs(node: FlatNode, opset: int, nan: str) -> dict[str, str]:
    """Return the outputs of a node that the standard does not define whatever it reads, or for the NaN that it reads, each with the reason.

    `nan` says where that NaN comes from; empty where it reads none.
    """
    label = labelled(node.name, node.proto.op_type)
    undefined = {}
    if nan:
        reason = f"{label} makes integers or booleans of NaN, which the standard does not define: {nan}"
        undefined.update(dict.fromkeys(integers_of(node), reason))
    if node.proto.op_type == "Dropout" and opset < MASK_DEFINED:
        reason = f"before opset {MASK_DEFINED} the standard does not say what the mask of {label} is in inference"
        undefined.update(dict.fromkeys(filter(None, node.proto.output[1:]), reason))
    return undefined


def integers_of(node: FlatNode) -> Iterable[str]:
    """Return the outputs of a node that are integers or booleans and depend on the values of the floats that it reads, were they NaN.

    A comparison with NaN is defined, and so is a Cast to booleans: all but 0 is true.
    """
    if node.proto.op_type in _OF_NO_VALUE:
        return []
    casts = node.proto.op_type in ("Cast", "CastLike")
    return [
        name
        for name, kind in zip(node.proto.output, node.types, strict=False)
        if name and _is_integer(kind) and not (casts and kind == TensorProto.BOOL)
    ]


def _is_integer(kind: int) -> bool:
    dtype = STORAGE.get(kind)
    return dtype is not None and (dtype == np.bool_ or "int" in dtype.name)
