"""What became of the layers that are no tensor of the graph, and to which layer each node belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actconform.checking.trained.trained_graph import layer_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.checking.trained.matching_walk import Walk
    from actconform.types.trained import LayerRecord


MOVES = frozenset(("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))


class Absence(NamedTuple):
    """A layer without a tensor of its own in the graph."""

    record: LayerRecord
    reason: str


class Remainder:
    """What a finished walk leaves over."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        trained = walk.trained
        self.twins: dict[int, int] = {}
        """Trained tensors without a partner that have the values of one with a partner: that one."""
        for place in walk.prints:
            if place not in walk.taken and trained.givers[place]:
                twins = [each.trained for each in walk.candidates(trained.values(place)) if each.trained in walk.taken]
                self.twins.update({place: twins[0]} if twins else {})
        self._inside = {pair.trained: self._left_out(pair.trained) for pair in walk.pairs.values()}

    def _left_out(self, trained: int) -> list[int]:
        """Return the tensors without a partner from which a matched one was computed, in order."""
        between: set[int] = set()
        waiting = [trained]
        while waiting:
            for parent in self._walk.trained.parents[waiting.pop()] - between:
                if self._is_absent(parent) and not self._walk.prints[parent].alike:
                    between.add(parent)
                    waiting.append(parent)
        return sorted(between)

    def _is_absent(self, place: int) -> bool:
        walk = self._walk
        taken = place in walk.taken or place in self.twins
        return not taken and place in walk.prints and bool(walk.trained.givers[place])

    def other_names(self, trained: int) -> tuple[str, ...]:
        """Return the other layers that gave a matched tensor, or one of the same values that the graph does not have once more."""
        names = list(self._walk.trained.aliases(trained))
        for place, twin in self.twins.items():
            if twin == trained:
                names += [record.name for record in self._walk.trained.givers[place]]
        own = self._walk.trained.namer(trained).name
        return tuple(name for name in dict.fromkeys(names) if name != own)

    def absences(self) -> list[Absence]:
        """Return the layers none of whose tensors has a partner, and why, in the order of the run."""
        return [
            Absence(record, self._reason(record))
            for record in self._walk.trained.records
            if record.outputs and not any(place in self._walk.taken or place in self.twins for place in record.outputs)
        ]

    def _reason(self, record: LayerRecord) -> str:
        walk = self._walk
        floats = [place for place in record.outputs if place in walk.prints]
        if not floats:
            return "it gives no floats, and others are not matched"
        if all(walk.prints[place].alike for place in floats):
            return "all its elements are the same number: nothing tells its output from others"
        for trained, inside in self._inside.items():
            if set(floats) & set(inside):
                layer, kind = walk.trained.namer(trained).name, walk.graph.nodes[walk.pairs[walk.taken[trained]].node]
                if len(self.segment(trained)) == 1:
                    return f"folded into {layer}: the {kind.proto.op_type} {kind.name} computes both"
                return f"the graph computes {layer} in another way, without it"
        sizes = {walk.graph.nbytes(name) // 8 for node in walk.graph.nodes for name in node.outputs}
        shapes = sorted({walk.trained.run.tensors[place].shape for place in floats})
        if not any(walk.prints[place].counts[0] in sizes for place in floats):
            return f"no tensor of the graph has as many elements as its output, {list(shapes[0])}"
        return "no tensor of the graph has its values, and no name or weight tells which one it is"

    def folded(self) -> list[str]:
        """Return a sentence for each node that computes several layers, in the order of the run."""
        walk, sentences = self._walk, []
        for trained, inside in sorted(self._inside.items()):
            if inside and len(self.segment(trained)) == 1:
                names = list(dict.fromkeys(layer_name(walk.trained.namer(place)) for place in (*inside, trained)))
                names = [name or "the model's own" for name in names]
                if len(names) < 2:
                    continue
                node = walk.graph.nodes[walk.pairs[walk.taken[trained]].node]
                sentences.append(f"{', '.join(names[:-1])} and {names[-1]} are one {node.proto.op_type}")
        return sentences

    def segment(self, trained: int) -> list[int]:
        """Return the nodes that compute a matched tensor from the matched ones before it; what computes sizes or moves elements is left out."""
        walk = self._walk
        waiting, places = [walk.taken[trained]], set()
        while waiting:
            name = waiting.pop()
            place = walk.producers.get(name)
            if place is None or place in places or name not in walk.depths:
                continue
            places.add(place)
            waiting += [read for read in walk.graph.nodes[place].inputs if read not in walk.pairs]
        return sorted(place for place in places if walk.graph.nodes[place].proto.op_type not in MOVES)


def layers_of_nodes(walk: Walk, by_name: Sequence[str], weights_of: Sequence[frozenset[str]]) -> dict[str, str]:
    """Return the layer of each node, by its name: the one whose tensor it gives; else by `by_name` or by the one layer whose weights it
    reads; else the one that is computed from what it gives.
    """
    nodes = walk.graph.nodes
    layers: dict[int, str] = {}
    for place in reversed(range(len(nodes))):
        pairs = [walk.pairs[name] for name in nodes[place].outputs if name in walk.pairs]
        readers = [reader for name in nodes[place].outputs for reader in walk.readers.get(name, [])]
        if pairs:
            layers[place] = walk.trained.namer(pairs[0].trained).name
        elif by_name[place]:
            layers[place] = by_name[place]
        elif len(weights_of[place]) == 1:
            layers[place] = next(iter(weights_of[place]))
        else:
            layers[place] = next((layers[reader] for reader in readers if layers.get(reader)), "")
    return {nodes[place].name: layers[place] for place in range(len(nodes)) if layers[place]}
