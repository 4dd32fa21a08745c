"""A walk through a flat graph in float64 that finds the tensors of a trained run and goes on from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from actconform.checking.flatten import node_outputs, wide
from actconform.checking.trained.fingerprint import Shelf, fingerprint
from actconform.checking.trained.layouts import Layout, laid_out, layout_in, scale_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actconform.checking.flatten import Array, FlatGraph, FlatNode
    from actconform.checking.trained.fingerprint import Fingerprint
    from actconform.checking.trained.trained_graph import TrainedGraph
    from actconform.types.case import Bundle

Evidence: TypeAlias = Literal["value", "source", "weights", "order"]

DISTINCTIVE = 16  # elements from which on equal values are no coincidence
TIE = 2.0  # candidates whose errors are within this factor are equally near


class Pair(NamedTuple):
    """A tensor of the graph and the trained tensor that it is."""

    tensor: str
    node: int
    """The place of the node that gives it."""
    trained: int
    permutation: tuple[int, ...]
    by: Evidence


class Candidate(NamedTuple):
    """A trained tensor that has the values of a tensor of the graph."""

    trained: int
    layout: Layout


class Lineage(NamedTuple):
    """What a tensor of the graph was computed from, as bits by trained tensor."""

    nearest: int = 0
    """The last matched ones on each way to it, or itself."""
    passed: int = 0
    """All that lie behind matched ones: a match with one of them would lead backwards."""

    def joined(self, other: Lineage) -> Lineage:
        """Return the lineage of what reads both."""
        return Lineage(self.nearest | other.nearest, self.passed | other.passed)


class Walk:
    """One pass over the nodes; `pairs` grows, and each matched tensor has its trained values from there on."""

    def __init__(self, graph: FlatGraph, sample: Bundle, trained: TrainedGraph, tolerance: float) -> None:
        self.graph = graph
        self.trained = trained
        self.tolerance = tolerance
        self.pairs: dict[str, Pair] = {}
        self.taken: dict[int, str] = {}
        """The tensor of the graph that each matched trained tensor is."""
        self.equal: dict[str, int] = {}
        """For live tensors: a trained tensor that has its values, whether or not it is its partner."""
        self._prints = self._fingerprints()
        self._scales: dict[int, float] = {}
        self._shelf = Shelf(self._prints.items())
        self._values: dict[str, Array] = {name: wide(array) for name, array in sample.items()}
        self._values |= {name: wide(array) for name, array in graph.answered.items()}
        self._lineages: dict[str, Lineage] = {}
        for name in graph.inputs:
            self._enter(name)

    def _fingerprints(self) -> dict[int, Fingerprint]:
        prints = {}
        for place in range(len(self.trained.run.tensors)):
            found = fingerprint(self.trained.values(place))
            if found is not None:
                prints[place] = found
        return prints

    def _enter(self, name: str) -> None:
        """Find an input of the graph among what no layer gave."""
        for candidate in self._candidates(self._values[name]):
            if not self.trained.givers[candidate.trained]:
                self.equal[name] = candidate.trained
                self._lineages[name] = Lineage(1 << candidate.trained, 1 << candidate.trained)
                return

    def run(self) -> None:
        """Walk through all nodes."""
        dead = self.graph.last_readers()
        with np.errstate(all="ignore"):
            for place, node in enumerate(self.graph.nodes):
                self._step(place, node)
                for name in dead[place]:
                    for held in (self._values, self.equal, self._lineages):
                        held.pop(name, None)

    def _step(self, place: int, node: FlatNode) -> None:
        lineage = Lineage()
        for name in node.inputs:
            lineage = lineage.joined(self._lineages.get(name, Lineage()))
        for name, array in self.outputs(node, self._values).items():
            self._values[name], self._lineages[name] = array, lineage
            pair = self._partner(place, node, name, array, lineage)
            if pair is not None:
                self.take(pair)

    def outputs(self, node: FlatNode, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return what a node gives for what it reads; nothing where that is not known, or where it fails at these values."""
        if node.computation is None:
            return {name: self._values[name] for name in node.outputs if name in self.graph.answered}
        constants = self.graph.constants
        if any(name not in values and name not in constants for name in node.inputs):
            return {}
        inputs = [
            (wide(constants[name]) if name in constants else values[name]) if name else None
            for name in node.proto.input
        ]
        try:
            results = node_outputs(node, node.computation, inputs)
        except ValueError:  # sizes may depend on values, and the trained ones differ
            return {}
        return {name: array for name, array in zip(node.proto.output, results, strict=False) if name}

    def take(self, pair: Pair) -> None:
        """Let two tensors be one, and go on from the trained values."""
        self.pairs[pair.tensor] = pair
        self.taken[pair.trained] = pair.tensor
        self.equal[pair.tensor] = pair.trained
        values = self.trained.values(pair.trained)
        self._values[pair.tensor] = laid_out(values, pair.permutation, self._values[pair.tensor].shape)
        passed = self._lineages[pair.tensor].passed | self.trained.ancestors[pair.trained]
        self._lineages[pair.tensor] = Lineage(1 << pair.trained, passed | 1 << pair.trained)

    def _partner(self, place: int, node: FlatNode, name: str, array: Array, lineage: Lineage) -> Pair | None:
        """Return the trained tensor that a tensor is by its values, if there is one that is free."""
        ties = self._candidates(array)
        if not ties:
            return None
        self.equal[name] = ties[0].trained
        allowed = [candidate for candidate in ties if self._in_order(candidate.trained, array.size, lineage)]
        chosen = self._chosen(node, array, ties, allowed)
        if chosen is None:
            return None
        return Pair(name, place, chosen.trained, chosen.layout.permutation, "value")

    def _candidates(self, array: Array) -> list[Candidate]:
        """Return the trained tensors that have the values of `array`, those that are equally near to it, in order."""
        if array.dtype.kind != "f" or not self._shelf.has_size(array.size):
            return []
        wanted = fingerprint(array)
        if wanted is None or (wanted.alike and array.size > 1):
            return []
        candidates = []
        # an element may be off by the tolerance of its own magnitude and of the scale: twice that of the largest
        for place in self._shelf.near(wanted, 2 * self.tolerance):
            values = self.trained.values(place)
            scale = self._scales.setdefault(place, scale_of(values))
            layout = layout_in(array, values, scale, self.tolerance)
            if layout is not None:
                candidates.append(Candidate(place, layout))
        nearest = min((candidate.layout.error for candidate in candidates), default=0.0)
        return [candidate for candidate in candidates if candidate.layout.error <= TIE * nearest + 1e-12]

    def _in_order(self, trained: int, size: int, lineage: Lineage) -> bool:
        """Return whether a match may lead on from what was matched before."""
        if trained in self.taken or not self.trained.givers[trained] or lineage.passed >> trained & 1:
            return False
        if size >= DISTINCTIVE:
            return True
        # few numbers may agree by chance: they must come from the same tensors
        return bool(lineage.nearest) and not lineage.nearest & ~self.trained.ancestors[trained]

    def _chosen(
        self, node: FlatNode, array: Array, ties: Iterable[Candidate], allowed: list[Candidate]
    ) -> Candidate | None:
        """Return which of several equal tensors is meant: what computes takes the first, what moves a tensor the one moved alike.

        A view of a tensor has its values, and so has a Dropout: neither may take the place of the layer that computed them.
        """
        members = {candidate.trained for candidate in ties}
        read = [name for name in node.inputs if self.equal.get(name) in members]
        fresh = [candidate for candidate in allowed if not self.trained.parents[candidate.trained] & members]
        if not read:
            return (fresh or [each for each in allowed if self._same_layout(each, array)] or [None])[0]
        derived = [candidate for candidate in allowed if candidate not in fresh]
        for candidate in derived:
            if self._same_layout(candidate, array) or self._kept_layout(candidate, array, read):
                return candidate
        return None

    def _same_layout(self, candidate: Candidate, array: Array) -> bool:
        shape = self.trained.run.tensors[candidate.trained].shape
        return shape == array.shape and candidate.layout.permutation == tuple(range(len(shape)))

    def _kept_layout(self, candidate: Candidate, array: Array, read: Iterable[str]) -> bool:
        """Return whether neither side moved anything: the same shapes and order of axes as what was read."""
        for name in read:
            before = self.pairs.get(name)
            if before is None or before.trained not in self.trained.parents[candidate.trained]:
                continue
            shapes = [self.trained.run.tensors[each].shape for each in (before.trained, candidate.trained)]
            moved = before.permutation != candidate.layout.permutation or self.graph.shapes.get(name) != array.shape
            if shapes[0] == shapes[1] and not moved:
                return True
        return False
