"""Where a walk is lost: which tensor of the graph is which trained tensor although their values differ.

Each guess is tried: with the right one the walk finds its way again, since what the layers behind compute from the trained values is
what the trained model computed.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.layouts import laid_out, orders
from actconform.checking.trained.matching_walk import Pair
from actconform.checking.trained.source_names import framework_function
from actconform.checking.trained.trained_graph import layer_name
from actconform.checking.trained.unmatched_layers import MOVES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actconform.checking.flatten import Array
    from actconform.checking.trained.matching_walk import Evidence, Walk
    from actconform.types.trained import LayerRecord

REGION = 400  # nodes between the last matches and where the walk is lost
WINDOW = 48  # trained tensors that are looked at
TRIES = 60  # guesses for one place
FIRST, EACH = 8, 6  # of these: the best ones of all, and of each trained tensor
FORWARD = 40  # nodes that are computed behind a guess
WORK = 12  # times the nodes of the graph, that are computed for guesses in all
ALIKE = 0.3  # of the root mean square: how far apart two tensors are that are taken for each other without a trial


class Guess(NamedTuple):
    """A pair that may be, with what speaks for it."""

    score: float
    pair: Pair
    distance: float
    """Root mean square of the difference over that of the trained tensor."""
    named: bool
    output: bool


class Recovery:
    """Finds the pair at which a walk goes on. `layer_of_node` gives the layer that a node belongs to by its names, "" where nothing
    says so, `weights_of` the layers whose weights it reads.
    """

    def __init__(
        self, layer_of_node: Sequence[str], weights_of: Sequence[frozenset[str]], layers: Sequence[LayerRecord]
    ) -> None:
        self._layer_of_node = layer_of_node
        self._weights_of = weights_of
        self._outputs_of: dict[str, set[int]] = {}
        for record in layers:
            self._outputs_of.setdefault(layer_name(record), set()).update(record.outputs)
        self._work = 0

    def __call__(self, walk: Walk, lost: Sequence[str], *, tried_only: bool = False) -> Pair | None:
        """Return the pair from which the walk goes on, or None where no guess holds; `tried_only` none that no trial can show."""
        region, trial = _region(walk, lost), _Trial(self, walk)
        named = sorted(
            self._guesses(walk, region, self._is_named), key=lambda guess: (guess.pair.trained, -guess.score)
        )
        for guess in named[:TRIES]:
            if trial(guess):
                return self._first(walk, region, guess, trial)
        guesses = sorted(self._guesses(walk, region), key=lambda guess: -guess.score)
        for guess in itertools.islice(_in_turn(guesses), TRIES):
            if self._work > WORK * len(walk.graph.nodes) + 1000:
                break
            if trial(guess):
                return self._first(walk, region, guess, trial)
        for guess in () if tried_only else guesses:
            if guess.output or (guess.distance <= ALIKE and guess.named):
                return guess.pair
        return None

    def _is_named(self, walk: Walk, place: int, trained: int) -> bool:
        """Return whether a node is one of the layer that gave a trained tensor, by its name."""
        source = self._layer_of_node[place]
        return source != "" and any(layer_name(record) == source for record in walk.trained.givers[trained])

    def _first(self, walk: Walk, region: Sequence[int], holding: Guess, trial: _Trial) -> Pair:
        """Return the first pair that holds: of the trained tensors before, and of the tensors that may be the same."""
        before = walk.trained.ancestors[holding.pair.trained]
        guesses = list(
            self._guesses(walk, region, lambda _, __, place: place == holding.pair.trained or bool(before >> place & 1))
        )
        return _best(guesses, holding, trial, before).pair

    def _guesses(
        self,
        walk: Walk,
        region: Sequence[int],
        wanted: Callable[[Walk, int, int], bool] = lambda _, __, ___: True,
    ) -> Iterator[Guess]:
        """Yield the pairs of the region that may be; `wanted` says of a node and a trained tensor whether they are looked at."""
        names = [(place, name) for place in region for name in walk.graph.nodes[place].outputs]
        frontier = 0
        for _, name in names:
            frontier |= walk.lineages[name].nearest if name in walk.lineages else 0
        by_size: dict[int, list[int]] = {}
        for trained in _window(walk, frontier):
            by_size.setdefault(walk.prints[trained].counts[0], []).append(trained)
        outputs = _outputs(walk)
        known: dict[str, Array] = dict(walk.values)
        for place, name in names:
            if name in walk.pairs or name not in walk.lineages:
                continue
            candidates = by_size.get(int(np.prod(walk.graph.shapes.get(name, (0,)), dtype=np.int64)), [])
            candidates = [
                trained
                for trained in candidates
                if wanted(walk, place, trained)
                and not walk.lineages[name].passed >> trained & 1
                and self._agrees(walk, place, trained)
            ]
            if not candidates:
                continue
            known.update(walk.recomputed([name], known))
            array = known.get(name)
            if array is None or array.dtype.kind != "f":
                continue
            for trained in candidates:
                yield self.guess(walk, place, name, array, trained, output=outputs.get(name) == trained)

    def _agrees(self, walk: Walk, place: int, trained: int) -> bool:
        """Return whether a node may give a trained tensor, by its name: it is the layer's, or its layer was folded into that one."""
        source = self._layer_of_node[place]
        outputs = self._outputs_of.get(source) if source else None
        if not outputs or any(layer_name(record) == source for record in walk.trained.givers[trained]):
            return True
        return any(walk.trained.ancestors[trained] >> output & 1 for output in outputs)

    def guess(self, walk: Walk, place: int, name: str, array: Array, trained: int, *, output: bool = False) -> Guess:
        """Return what speaks for the tensor NAME, which has the values `array`, being a trained one."""
        permutation, distance = _nearest_layout(walk.trained.values(trained), array)
        score = 0.0
        by: Evidence = "order"
        layers = {layer_name(record) for record in walk.trained.givers[trained]}
        functions = {record.kind.rpartition(" ")[2].strip("_") for record in walk.trained.givers[trained]}
        source = self._layer_of_node[place]
        named = self._is_named(walk, place, trained)
        if named:
            score, by = score + 4, "source"
            leaves = any(self._layer_of_node[reader] != source for reader in walk.readers.get(name, []))
            score += 2 * (leaves or name in walk.graph.outputs)
            score += 2 * (framework_function(walk.graph.nodes[place].proto) in functions)
        elif self._weights_of[place] & layers:
            score, by, named = score + 4, "weights", True
        score += 2 * (distance < 0.1) + (distance < 0.5)
        score += walk.lineages[name].nearest == _nearest_matched(walk, trained)
        score += array.shape == walk.trained.run.tensors[trained].shape
        score += 3 * output
        return Guess(score, Pair(name, place, trained, permutation, by), distance, named, output)

    def finds_its_way(self, walk: Walk, pair: Pair) -> bool:
        """Return whether another trained tensor is found behind a pair, when its values are the trained ones."""
        nodes = walk.graph.nodes
        values = {pair.tensor: walk.trained_values(pair)}
        same = {candidate.trained for candidate in walk.candidates(values[pair.tensor])} | {pair.trained}
        behind, count = {pair.tensor}, 0
        unknown: set[str] = set()
        for place in range(pair.node + 1, len(nodes)):
            node = nodes[place]
            if not any(name in behind or name in unknown for name in node.inputs):
                continue
            computed: dict[str, Array] = {}
            if not any(name in unknown for name in node.inputs):
                values.update((name, walk.values[name]) for name in node.inputs if name in walk.values.keys() - behind)
                values.update(walk.recomputed(node.inputs, values))
                computed = walk.outputs(node, values)
            fresh = [name for name in node.outputs if name not in walk.pairs]
            unknown.update(name for name in fresh if name not in computed)
            behind.update(name for name in fresh if name in computed)
            values.update((name, computed[name]) for name in fresh if name in computed)
            self._work += 1
            count += any(array.dtype.kind == "f" for array in computed.values())
            for name in fresh:
                places = (
                    {candidate.trained for candidate in walk.candidates(computed[name])} if name in computed else set()
                )
                if same & places and node.proto.op_type not in MOVES:
                    return False  # a Relu that changes nothing: what it gives is the trained tensor, not what it reads
                if not same & places and any(self._is_new(walk, place, trained) for trained in places):
                    return True
            if count >= FORWARD:
                return False
        return False

    def _is_new(self, walk: Walk, node: int, trained: int) -> bool:
        """Return whether a trained tensor has no partner, and may be what a node gives."""
        return trained not in walk.taken and bool(walk.trained.givers[trained]) and self._agrees(walk, node, trained)


class _Trial:
    """Tries guesses, each once."""

    def __init__(self, recovery: Recovery, walk: Walk) -> None:
        self._recovery, self._walk = recovery, walk
        self._results: dict[Pair, bool] = {}

    def __call__(self, guess: Guess) -> bool:
        if guess.pair not in self._results:
            self._results[guess.pair] = self._recovery.finds_its_way(self._walk, guess.pair)
        return self._results[guess.pair]


def _in_turn(guesses: Sequence[Guess]) -> Iterator[Guess]:
    """Yield guesses to try: those for which most speaks, then for each trained tensor in order some."""
    yield from guesses[:FIRST]
    by_trained: dict[int, list[Guess]] = {}
    for guess in guesses[FIRST:]:
        by_trained.setdefault(guess.pair.trained, []).append(guess)
    for trained in sorted(by_trained):
        yield from by_trained[trained][:EACH]


def _best(guesses: Sequence[Guess], holding: Guess, trial: _Trial, ancestors: int) -> Guess:
    """Return of the guesses that hold like `holding` the first trained tensor: there the two part. Of the graph's tensors that may be it the
    nearest, of equally near ones, which are views of each other, the first.
    """
    before = [
        guess for guess in guesses if ancestors >> guess.pair.trained & 1 and guess.pair.node <= holding.pair.node
    ]
    tries: dict[int, int] = {}
    for guess in sorted(before, key=lambda guess: (guess.pair.trained, -guess.score)):
        tries[guess.pair.trained] = tries.get(guess.pair.trained, 0) + 1
        if tries[guess.pair.trained] <= EACH and trial(guess):
            holding = guess
            break
    alike = [
        guess
        for guess in guesses
        if guess.pair.trained == holding.pair.trained and guess.distance <= holding.distance * (1 + 1e-9)
    ]
    return next(
        (
            guess
            for guess in sorted(alike, key=lambda guess: (round(guess.distance, 12), guess.pair.node))
            if trial(guess)
        ),
        holding,
    )


def _region(walk: Walk, lost: Sequence[str]) -> list[int]:
    """Return the nodes between the last matched tensors and those behind which the walk is lost, in order."""
    places: set[int] = set()
    waiting = list(lost)
    while waiting and len(places) < REGION:
        name = waiting.pop()
        place = walk.producers.get(name)
        if place is None or place in places or name in walk.pairs:
            continue
        places.add(place)
        waiting += walk.graph.nodes[place].inputs
    return sorted(places)


def _window(walk: Walk, frontier: int) -> list[int]:
    """Return the trained tensors without a partner that were computed from tensors of the frontier, in order."""
    window = []
    for trained, known in walk.prints.items():
        if trained in walk.taken or not walk.trained.givers[trained] or known.alike:
            continue
        if not walk.trained.parents[trained] or _nearest_matched(walk, trained) & frontier:
            window.append(trained)
    return window[:WINDOW]


def _nearest_matched(walk: Walk, trained: int) -> int:
    """Return the matched tensors and inputs from which a trained tensor was computed through none such, as bits."""
    bits, waiting, visited = 0, [trained], {trained}
    while waiting:
        for parent in walk.trained.parents[waiting.pop()] - visited:
            visited.add(parent)
            if parent in walk.taken or not walk.trained.givers[parent]:
                bits |= 1 << parent
            else:
                waiting.append(parent)
    return bits


def _outputs(walk: Walk) -> dict[str, int]:
    """Return the trained tensors that are the outputs of the graph by their order, where there are as many."""
    run = walk.trained.run
    if len(run.outputs) != len(walk.graph.outputs):
        return {}
    places: dict[str, int] = {}
    for name, output in zip(walk.graph.outputs, run.outputs.values(), strict=True):
        for place in range(len(run.tensors) - 1, -1, -1):
            tensor = run.tensors[place]
            if walk.trained.givers[place] and np.array_equal(tensor.ravel(), output.ravel()):
                places[name] = place
                break
    return places


def _nearest_layout(trained: Array, array: Array) -> tuple[tuple[int, ...], float]:
    """Return the order of axes in which a trained tensor is nearest to `array`, of those that give its shape, and how far it is."""
    goal = [size for size in array.shape if size > 1]
    fitting = [order for order in orders(trained.shape, array.shape) if _sizes(trained, order) == goal]
    options = fitting[:8] or list(itertools.islice(orders(trained.shape, array.shape), 24))
    distances = [_distance(array, laid_out(trained, order, array.shape)) for order in options]
    best = int(np.argmin(distances))
    return options[best], distances[best]


def _sizes(trained: Array, order: tuple[int, ...]) -> list[int]:
    return [trained.shape[axis] for axis in order if trained.shape[axis] > 1]


def _distance(array: Array, wanted: Array) -> float:
    with np.errstate(all="ignore"):
        difference = np.where(array == wanted, 0.0, array - wanted)
        size = float(np.sqrt(np.mean(np.square(wanted))))
        distance = float(np.sqrt(np.mean(np.square(difference)))) / size if size else np.inf
    return distance if np.isfinite(distance) else 1e9
