"""A walk through a flat graph in float64 that finds the tensors of a trained run and goes on from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from actconform.checking.flatten import as_held, node_outputs
from actconform.checking.trained.fingerprint import Shelf, fingerprint
from actconform.checking.trained.layouts import Layout, laid_out, layout_in, scale_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from actconform.checking.flatten import Array, FlatGraph, FlatNode
    from actconform.checking.trained.trained_graph import TrainedGraph
    from actconform.types.case import Bundle

Evidence: TypeAlias = Literal["value", "source", "weights", "order"]

DISTINCTIVE = 16  # elements from which on equal values are no coincidence
LOST = 24  # nodes in a row without a match: attention, written out, has some 15 between two layers
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
    """A walk through the nodes; `pairs` grows, and each matched tensor has its trained values from there on.

    Where it is lost, because nothing has matched for LOST nodes on a way, it asks `recovery` for the tensor at which the two part,
    goes back there, and on from the trained values.
    """

    def __init__(self, graph: FlatGraph, sample: Bundle, trained: TrainedGraph, tolerance: float) -> None:
        self.graph = graph
        self.trained = trained
        self.tolerance = tolerance
        self.pairs: dict[str, Pair] = {}
        self.taken: dict[int, str] = {}
        """The tensor of the graph that each matched trained tensor is."""
        self.lineages: dict[str, Lineage] = {}
        self.producers = {name: place for place, node in enumerate(graph.nodes) for name in node.outputs}
        """The place of the node that gives each tensor."""
        self.readers: dict[str, list[int]] = {}
        """The places of the nodes that read each tensor."""
        for place, node in enumerate(graph.nodes):
            for name in node.inputs:
                self.readers.setdefault(name, []).append(place)
        self._equal: dict[str, int] = {}
        self.depths: dict[str, int] = {}
        """How many nodes lie between each tensor of floats and the last matched ones."""
        self._scales: dict[int, float] = {}
        self.prints = {
            place: made for place in range(len(trained.run.tensors)) if (made := fingerprint(trained.values(place)))
        }
        """Of all trained tensors of floats."""
        self._shelf = Shelf(self.prints.items())
        self._given = {name: as_held(array) for name, array in {**sample, **graph.answered}.items()}
        self.values: dict[str, Array] = dict(self._given)
        """Of live tensors."""
        for name in graph.inputs:
            self._enter(name)

    def _enter(self, name: str) -> None:
        """Find an input of the graph among what no layer gave."""
        self.depths[name] = 0
        for candidate in self.candidates(self._given[name]):
            if not self.trained.givers[candidate.trained]:
                self._equal[name] = candidate.trained
                self.lineages[name] = Lineage(1 << candidate.trained, 1 << candidate.trained)
                return

    def run(
        self,
        recover: Callable[[Walk, Sequence[str]], Pair | None] = lambda _, __: None,
        overlooked: Callable[[Walk], Pair | None] = lambda _: None,
    ) -> None:
        """Walk through all nodes; `recover` gives, for tensors behind which the walk is lost, where it goes on from.

        At the end `overlooked` gives pairs that are left over, one at a time.
        """
        dead = self.graph.last_readers()
        nodes, place = self.graph.nodes, 0
        with np.errstate(all="ignore"):
            while True:
                lost = self._step(place, nodes[place]) if place < len(nodes) else self._lost_outputs()
                pair = recover(self, lost) if lost else None
                if pair is None and place >= len(nodes):
                    pair = overlooked(self)
                if pair is not None:
                    self.take(pair)
                    self.values = dict(
                        self._given
                    )  # those of later nodes are wrong; what is read again is computed again
                    place = pair.node
                elif place >= len(nodes):
                    return
                for name in () if pair is not None else dead[place]:
                    self.values.pop(name, None)
                if pair is None and lost:
                    self.depths.update(dict.fromkeys(lost, 0))
                place += 1

    def _lost_outputs(self) -> list[str]:
        return [name for name in self.graph.outputs if name not in self.pairs and self.depths.get(name, 0) > 0]

    def _step(self, place: int, node: FlatNode) -> list[str]:
        """Compute a node and find its outputs; return those behind which the walk is lost."""
        lineage = Lineage()
        for name in node.inputs:
            lineage = lineage.joined(self.lineages.get(name, Lineage()))
        depth = max((self.depths.get(name, 0) for name in node.inputs), default=0)
        if not all(name in self.pairs for name in node.outputs):
            made = self.recomputed(node.inputs, self.values)
            self.values.update((name, made[name]) for name in node.inputs if name in made)
        computed = self.outputs(node, self.values)
        for name, array in computed.items():
            if name in self.pairs:
                self.values[name] = self.trained_values(self.pairs[name])
                continue
            self.values[name], self.lineages[name] = array, lineage
            if (
                array.dtype.kind == "f"
            ):  # sizes and places of elements are computed on many nodes, and are no way of the data
                self.depths[name] = depth + 1
            pair = self._partner(place, node, name, array, lineage)
            if pair is not None:
                self.take(pair)
        return [name for name in computed if name not in self.pairs and self.depths.get(name, 0) >= LOST]

    def recomputed(self, names: Iterable[str], values: Mapping[str, Array]) -> dict[str, Array]:
        """Return those of the tensors that `values` has not, and what they are computed from, back to the last matched ones."""
        waiting, places = list(names), set()
        made: dict[str, Array] = {}
        while waiting:
            name = waiting.pop()
            if name in values or name in made or name in self.graph.constants:
                continue
            if name in self.pairs:
                made[name] = self.trained_values(self.pairs[name])
            elif name in self._given:
                made[name] = self._given[name]
            elif name in self.producers and self.producers[name] not in places:
                places.add(self.producers[name])
                waiting += self.graph.nodes[self.producers[name]].inputs
        for place in sorted(places):
            node = self.graph.nodes[place]
            held = {
                name: made[name] if name in made else values[name]
                for name in node.inputs
                if name in made or name in values
            }
            for name, array in self.outputs(node, held).items():
                made.setdefault(name, array)
        return made

    def outputs(self, node: FlatNode, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return what a node gives for what it reads; nothing where that is not known, or where it fails at these values."""
        if node.computation is None:
            return {name: self._given[name] for name in node.outputs if name in self._given}
        constants = self.graph.constants
        if any(name not in values and name not in constants for name in node.inputs):
            return {}
        inputs = [
            (as_held(constants[name]) if name in constants else values[name]) if name else None
            for name in node.proto.input
        ]
        try:
            results = node_outputs(node, node.computation, inputs)
        except ValueError:  # sizes may depend on values, and the trained ones differ
            return {}
        return {name: array for name, array in zip(node.proto.output, results, strict=False) if name}

    def trained_values(self, pair: Pair) -> Array:
        """Return the trained values of a matched tensor, as they lie in the graph."""
        return laid_out(self.trained.values(pair.trained), pair.permutation, self.graph.shapes[pair.tensor])

    def take(self, pair: Pair) -> None:
        """Let two tensors be one, and go on from the trained values."""
        self.pairs[pair.tensor] = pair
        self.taken[pair.trained] = pair.tensor
        self._equal[pair.tensor] = pair.trained
        self.depths[pair.tensor] = 0
        self.values[pair.tensor] = self.trained_values(pair)
        passed = self.lineages[pair.tensor].passed | self.trained.ancestors[pair.trained]
        self.lineages[pair.tensor] = Lineage(1 << pair.trained, passed | 1 << pair.trained)

    def _partner(self, place: int, node: FlatNode, name: str, array: Array, lineage: Lineage) -> Pair | None:
        """Return the trained tensor that a tensor is by its values, if there is one that is free."""
        ties = self.candidates(array)
        if not ties:
            return None
        self._equal[name] = ties[0].trained
        allowed = [candidate for candidate in ties if self._in_order(candidate.trained, array.size, lineage)]
        chosen = self._chosen(node, array, ties, allowed)
        if chosen is None:
            return None
        return Pair(name, place, chosen.trained, chosen.layout.permutation, "value")

    def candidates(self, array: Array) -> list[Candidate]:
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
        read = [name for name in node.inputs if self._equal.get(name) in members]
        fresh = [candidate for candidate in allowed if not self.trained.parents[candidate.trained] & members]
        if not read:
            return next(iter(fresh or [each for each in allowed if self._same_layout(each, array)]), None)
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
