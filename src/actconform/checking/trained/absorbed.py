"""Layers whose values differ although what is computed from them seems the same: a branch that is scaled down hides its faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.checking.trained.layouts import scale_of, worst_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actconform.checking.flatten import Array
    from actconform.checking.trained.matching_walk import Pair, Walk
    from actconform.checking.trained.recovery import Recovery

CLOSER = 8.0  # how much nearer the next matched tensor must come to its trained values
NEXT = 4  # layers without a partner up to that tensor


class Absorbed:
    """Finds pairs between matched tensors, each trained tensor tried once."""

    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self._tried: set[int] = set()

    def __call__(self, walk: Walk) -> Pair | None:
        """Return a pair with which the next matched tensor comes much nearer to its trained values; None where there is none more."""
        for trained, known in walk.prints.items():
            if trained in self._tried or trained in walk.taken or not walk.trained.givers[trained] or known.alike:
                continue
            self._tried.add(trained)
            for behind in _next_matched(walk, trained):
                before = _unmatched_before(walk, behind)
                if before and (pair := self._recovery(walk, before, tried_only=True)):
                    self._tried.discard(trained)
                    return pair
                if pair := self._between(walk, trained, behind):
                    return pair
        return None

    def _between(self, walk: Walk, trained: int, behind: Pair) -> Pair | None:
        wanted = walk.trained_values(behind)
        scale = scale_of(wanted)
        before = _error(walk, behind, {}, wanted, scale)
        if before is None:
            return None
        holding = []
        for name in _unmatched_before(walk, behind):
            values = walk.recomputed([name], {})
            if name not in values or values[name].size != walk.trained.run.tensors[trained].size:
                continue
            guess = self._recovery.guess(walk, walk.producers[name], name, values[name], trained)
            after = _error(walk, behind, {name: walk.trained_values(guess.pair)}, wanted, scale)
            if after is not None and after * CLOSER < before:
                holding.append(guess)
        # what a Relu gave may stand for what it read, too: the nearest one is meant, of equal ones the first
        return min(holding, key=lambda guess: round(guess.distance, 12)).pair if holding else None


def _error(walk: Walk, pair: Pair, values: Mapping[str, Array], wanted: Array, scale: float) -> float | None:
    """Return how far a matched tensor is from its trained values when it is computed from the matched ones before it, and `values`."""
    node = walk.graph.nodes[pair.node]
    read = {**values, **walk.recomputed(node.inputs, values)}
    array = walk.outputs(node, read).get(pair.tensor)
    if array is None or array.shape != wanted.shape:
        return None
    with np.errstate(all="ignore"):
        return worst_error(array, wanted, scale)


def _next_matched(walk: Walk, trained: int) -> Iterator[Pair]:
    """Yield the matched tensors that were computed from a trained tensor, through few that have no partner."""
    level = [trained]
    for _ in range(NEXT):
        readers = dict.fromkeys(reader for place in level for reader in walk.trained.readers[place])
        for reader in readers:
            if reader in walk.taken:
                yield walk.pairs[walk.taken[reader]]
        level = [reader for reader in readers if reader not in walk.taken]


def _unmatched_before(walk: Walk, pair: Pair) -> list[str]:
    """Return the tensors between a matched one and the matched ones before it, those of floats, in order."""
    waiting, names = list(walk.graph.nodes[pair.node].inputs), set()
    while waiting:
        name = waiting.pop()
        if name in names or name in walk.pairs or name not in walk.producers or name not in walk.depths:
            continue
        names.add(name)
        waiting += walk.graph.nodes[walk.producers[name]].inputs
    return sorted(names, key=walk.producers.__getitem__)
