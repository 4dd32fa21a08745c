"""Which tensors of a flat graph are which layers of the trained model: by their values, wherever these lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.checking.trained.absorbed import Absorbed
from actconform.checking.trained.layouts import laid_out
from actconform.checking.trained.matching_walk import Evidence, Pair, Walk
from actconform.checking.trained.recovery import Recovery
from actconform.checking.trained.source_names import SourceNames
from actconform.checking.trained.trained_graph import TrainedGraph, layer_name
from actconform.checking.trained.unmatched_layers import Remainder, layers_of_nodes
from actconform.onnx.evaluate.element_types import FORMATS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform.checking.flatten import Array, FlatGraph
    from actconform.types.case import Bundle
    from actconform.types.trained import TrainedRun

# The walk starts anew at each match, so what may differ is what the nodes since the last one do. Constants are rounded to the graph's
# format: a sum of products is off by at most u |A||B|, and |A||B| is rarely more than 16 times the largest result.
CONSTANTS = 16.0
# A run in a format of unit roundoff u adds the rounding of sums of up to some thousand terms: 1e-4 in float32, sqrt(k) u of k terms and more.
RUN = 1700.0
QUANTIZED = 2.0**-8  # half a step of 8-bit numbers over the largest
SUMS = 1e-9  # two orders of adding up in float64


class LayerMatch(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of the trained run that is one tensor of the graph."""

    layer: str
    """The innermost layer that gave it; where a layer is nothing but one function, the layer."""
    kind: str
    tensor: str
    """Of the flat graph."""
    node: str
    """That gives it."""
    trained: int
    """Place in `TrainedRun.tensors`."""
    permutation: tuple[int, ...]
    """The order of its axes: graph = trained.transpose(permutation).reshape(graph shape)."""
    by: Evidence
    """What showed it: equal values, or, where the two part here, names in the graph, the weights that its nodes read, its place between others."""
    aliases: tuple[str, ...] = ()
    """Other layers that gave the same tensor, or one of the same values that the graph does not have once more."""
    shape: tuple[int, ...] = ()
    """In the graph."""


class Unmatched(msgspec.Struct, frozen=True):
    """A layer none of whose tensors is one of the graph's."""

    layer: str
    kind: str
    reason: str


class Matching(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each layer in a graph."""

    matches: tuple[LayerMatch, ...]
    """In the order of the graph."""
    unmatched: tuple[Unmatched, ...] = ()
    layer_of: dict[str, str] = {}
    """The layer that each node computes, or is a part of; nodes that belong to none are left out."""
    folded: tuple[str, ...] = ()
    """Sentences on layers that are one node: "conv1 and bn1 are one Conv"."""


def match_layers(graph: FlatGraph, sample: Bundle, run: TrainedRun, owners: Mapping[str, str]) -> Matching:
    """Return which tensors of `graph` are which of `run`, for the inputs `sample` that both were run with.

    `run` was computed in float64 or natively. `owners` maps initializers to the parameters that they are, as far as that is known.
    Integers and booleans are not matched, nor are tensors all of whose elements are alike.
    """
    trained = TrainedGraph(run)
    walk = Walk(graph, sample, trained, tolerance_of(graph, run))
    names = SourceNames(record.name for record in run.layers)
    owner_of = {parameter: layer_name(record) for record in run.layers for parameter in record.parameters}
    owners = {**{name: name for name in graph.constants if name in owner_of}, **owners}
    layer_of_node = [names.layer(node.proto) for node in graph.nodes]
    weights_of = [
        frozenset(owner_of[owners[name]] for name in node.inputs if owners.get(name) in owner_of)
        for node in graph.nodes
    ]
    recovery = Recovery(layer_of_node, weights_of, run.layers)
    walk.run(recovery, Absorbed(recovery))
    remainder = Remainder(walk)
    pairs = sorted(walk.pairs.values(), key=lambda pair: pair.node)
    return Matching(
        matches=tuple(_match(walk, pair, remainder.other_names(pair.trained)) for pair in pairs),
        unmatched=tuple(Unmatched(gone.record.name, gone.record.kind, gone.reason) for gone in remainder.absences()),
        layer_of=layers_of_nodes(walk, layer_of_node, weights_of),
        folded=tuple(remainder.folded()),
    )


def in_graph_layout(match: LayerMatch, array: Array) -> Array:
    """Return a tensor of the trained model as it lies in the graph. Raises ValueError where it has other elements."""
    return laid_out(array, match.permutation, match.shape)


def tolerance_of(graph: FlatGraph, run: TrainedRun) -> float:
    """Return by how much a tensor of the graph may differ from the trained one that it is, relative to its scale."""
    kinds = {graph.types.get(name, 0) for name in graph.constants}
    units = [FORMATS[kind].unit_roundoff for kind in kinds if kind in FORMATS]
    if any("Quantize" in node.proto.op_type for node in graph.nodes):
        units.append(QUANTIZED)
    floats = [np.finfo(array.dtype).eps / 2 for array in run.outputs.values() if array.dtype.kind == "f"]
    native = max((unit for unit in floats if unit > 2.0**-50), default=0.0)
    return float(min(0.05, SUMS + CONSTANTS * max(units, default=0.0) + RUN * native))


def _match(walk: Walk, pair: Pair, aliases: tuple[str, ...]) -> LayerMatch:
    layer = walk.trained.namer(pair.trained)
    return LayerMatch(
        layer=layer.name,
        kind=layer.kind,
        tensor=pair.tensor,
        node=walk.graph.nodes[pair.node].name,
        trained=pair.trained,
        permutation=pair.permutation,
        by=pair.by,
        aliases=aliases,
        shape=tuple(walk.graph.shapes[pair.tensor]),
    )
