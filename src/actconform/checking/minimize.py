"""From a fault of a check the smallest model and inputs that still show it on that runtime: by cutting, then by delta debugging.

A part of the flat graph that holds the nodes under suspicion is run alone; where it does not differ from the truth beyond its
bound, as where a fusion needs its neighbours, nodes before it are added until it does. Then what is not needed goes: nodes on
the input side, rows of the inputs, their digits. The search ends when nothing more can go, or with its time or runs.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.checking.flatten import wide
from actconform.checking.judge import PIECE_BYTES
from actconform.checking.model_file import ModelFile
from actconform.checking.part import (
    Accepted,
    PartialModel,
    accepted_by_bounds,
    accepted_by_spread,
    part_of,
    read_from_outside,
)
from actconform.checking.runs import Marks
from actconform.checking.truth import evaluated
from actconform.errors import Unsupported
from actconform.onnx.evaluate.element_types import STORAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from actconform.checking.flatten import Array, FlatGraph
    from actconform.checking.result import ModelFault
    from actconform.checking.runs import RuntimeRuns
    from actconform.types.case import Bundle

SECONDS = 60.0
RUNS = 200
MOST_DIGITS = 8  # of an input, in decimal: beyond it rounding to decimals saves nothing
FEWEST_IN_CHUNK = 16  # parts of an input that are set to zero one by one, at the finest


class Criterion(NamedTuple):
    """By what an answer is called wrong."""

    name: str
    """"bound": the error bound given what was read; "spread": how far rounding moves the result end to end."""
    accepted: Callable[[PartialModel, Mapping[str, Array]], dict[str, Accepted]]


BOUND = Criterion("bound", accepted_by_bounds)
SPREAD = Criterion("spread", lambda part, _: accepted_by_spread(part))


@dataclass(frozen=True)
class Minimal:
    """A model with its inputs, what a runtime gives and what is right; `reproduced` is false where nothing smaller differs alone."""

    part: PartialModel
    runtime: str
    level: str
    criterion: str
    got: dict[str, Array] = field(default_factory=dict)
    accepted: dict[str, Accepted] = field(default_factory=dict)
    reproduced: bool = True
    is_whole_model: bool = False
    """Whether no node could be left out."""
    runs: int = 0
    seconds: float = 0.0

    @property
    def ratio(self) -> float:
        """The largest error over what is allowed."""
        return max((accepted.ratio(self.got[name]) for name, accepted in self.accepted.items()), default=0.0)


def minimize(
    fault: ModelFault,
    graph: FlatGraph,
    inputs: Bundle,
    runs: RuntimeRuns,
    *,
    seconds: float = SECONDS,
    most_runs: int = RUNS,
) -> Minimal:
    """Return the smallest part of a flat graph and its inputs that show a fault of it on the runtime, at the fault's level."""
    target = fault.tensor.tensor if fault.tensor else fault.output.name if fault.output else fault.node
    with ModelFile(graph.model) as file:
        values = _Values(graph, inputs, runs, file)
        search = _Search(runs, fault.level, target, time.monotonic() + seconds, most_runs)
        places = _starting_nodes(fault, graph, target)
        minimal, places = _grown(search, values, places, target)
        search.least_ratio = float(np.sqrt(minimal.ratio))
        if minimal.reproduced and minimal.criterion == BOUND.name:
            minimal, places = _with_fewer_nodes(search, values, minimal, places, target)
        if minimal.reproduced:
            minimal = _with_smaller_inputs(search, minimal)
            minimal = _with_simpler_values(search, minimal)
    is_whole_model = len(minimal.part.model.graph.node) == len(graph.nodes)
    return replace(minimal, is_whole_model=is_whole_model, runs=search.runs, seconds=search.elapsed)


class _Values:
    """The values of a flat graph's tensors: as the runtime shows them where it optimizes nothing, else the truth, rounded."""

    def __init__(self, graph: FlatGraph, inputs: Bundle, runs: RuntimeRuns, file: ModelFile) -> None:
        self.graph = graph
        self.sample = inputs
        self._runs = runs
        self._file = file
        self._values: dict[str, Array] = dict(inputs)

    def part(self, places: Sequence[int], outputs: Sequence[str]) -> PartialModel:
        """Return the nodes at `places` as a model. Raises KeyError where a tensor that they read has no value."""
        return part_of(self.graph, places, self._of(read_from_outside(self.graph, places)), outputs)

    def _of(self, names: Sequence[str]) -> dict[str, Array]:
        graph = self.graph
        missing = [name for name in names if name not in self._values]
        if missing:
            level = self._runs.levels[0] if self._runs.levels else ""
            marks = Marks(missing, graph.types, {name: graph.nbytes(name) for name in missing})
            shown = self._runs.marked(self._file, self.sample, marks, budget_bytes=PIECE_BYTES, level=level, final={})
            for tensors in shown:
                self._values.update(tensors.values)
            rest = [name for name in missing if name not in self._values]
            if rest:
                truth = evaluated(replace(graph, outputs=rest), self.sample)
                self._values.update({name: array.astype(STORAGE[graph.types[name]]) for name, array in truth.items()})
        return {name: self._values[name] for name in names}


class _Search:
    """Runs parts, and tells which of them still show the fault; none does once time or runs are used up."""

    def __init__(self, runs: RuntimeRuns, level: str, target: str, deadline: float, most_runs: int) -> None:
        self.runtime = runs
        self.level = level
        self._target = target
        self._started = time.monotonic()
        self._deadline = deadline
        self._most_runs = most_runs
        self.runs = 0
        self.least_ratio = 1.0
        """What a smaller part must show: half the digits of the error over its bound that the first one has."""

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    @property
    def over(self) -> bool:
        """Whether the search must end."""
        return self.runs >= self._most_runs or time.monotonic() >= self._deadline

    def of(self, part: PartialModel, criterion: Criterion) -> Minimal | None:
        """Return what the runtime makes of a part, None where it takes it not, or it cannot be judged."""
        self.runs += 1
        with ModelFile(part.model) as file:
            answer = self.runtime.outputs(file, part.inputs, self.level)
        if answer.failure:
            return None
        try:
            by_output = criterion.accepted(part, answer.outputs)
        except (Unsupported, ValueError):
            return None
        accepted = {name: right for name, right in by_output.items() if name == self._target}
        return Minimal(part, self.runtime.name, self.level, criterion.name, dict(answer.outputs), accepted)

    def smaller(self, part: PartialModel, than: Minimal) -> Minimal | None:
        """Return what the runtime makes of a part where it is wrong in the same way, and clearly: see `least_ratio`."""
        if self.over:
            return None
        minimal = self.of(part, BOUND if than.criterion == BOUND.name else SPREAD)
        if minimal is None or minimal.ratio <= 1 or minimal.ratio < self.least_ratio:
            return None
        return minimal if _nonfinite(minimal) == _nonfinite(than) else None


def _nonfinite(minimal: Minimal) -> bool:
    """Return whether the worst of it is that a number is not finite, or should not be, or has another shape."""
    for name, accepted in minimal.accepted.items():
        got = minimal.got[name]
        if got.shape != accepted.truth.shape:
            return True
        rejected = accepted.rejects(got)
        with np.errstate(invalid="ignore"):
            if not np.isfinite(
                wide(got)[rejected].astype(np.float64) - accepted.truth[rejected].astype(np.float64)
            ).all():
                return True
    return False


def _starting_nodes(fault: ModelFault, graph: FlatGraph, target: str) -> list[int]:
    names = set(fault.segment)
    places = [place for place, node in enumerate(graph.nodes) if node.name in names]
    return places or [place for place, node in enumerate(graph.nodes) if target in node.outputs]


def _ancestors(graph: FlatGraph, target: str) -> list[int]:
    """Return the places of all nodes that a tensor needs, the nearest first."""
    needed, places = {target}, []
    for place in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[place]
        if not needed.isdisjoint(node.outputs):
            places.append(place)
            needed.update(node.inputs)
    return places


def _grown(search: _Search, values: _Values, places: list[int], target: str) -> tuple[Minimal, list[int]]:
    """Return the first part that differs alone: the nodes under suspicion, then with 1, 2, 4 ... nodes before them, then the model."""
    graph = values.graph
    before = [place for place in _ancestors(graph, target) if place not in places]
    counts = [*itertools.takewhile(lambda n: n < len(before), (0, *(2**k for k in range(32)))), len(before)]
    for count in dict.fromkeys(counts):
        chosen = sorted([*places, *before[:count]])
        try:
            minimal = search.of(values.part(chosen, [target]), BOUND)
        except KeyError:
            continue
        if minimal is not None and minimal.ratio > 1:
            return minimal, chosen
        if search.over:
            break
    everything = list(range(len(graph.nodes)))
    outputs = list(dict.fromkeys([*graph.outputs, target]))
    last: Minimal | None = None
    for part in (values.part(everything, [target]), values.part(everything, outputs)):
        for criterion in (BOUND, SPREAD):
            minimal = search.of(part, criterion)
            if minimal is not None and minimal.ratio > 1:
                return minimal, everything
            last = minimal or last
    fallback = last or Minimal(part, search.runtime.name, search.level, BOUND.name)
    return replace(fallback, reproduced=False), everything


def _with_fewer_nodes(
    search: _Search, values: _Values, minimal: Minimal, places: list[int], target: str
) -> tuple[Minimal, list[int]]:
    """Leave out as many nodes from the input side as can go, by bisection, then others one by one, the earliest first."""
    shortest, longest = 1, len(places)
    while shortest < longest and not search.over:
        middle = (shortest + longest) // 2
        tried = search.smaller(values.part(_needed(values.graph, places[-middle:], target), [target]), minimal)
        if tried is None:
            shortest = middle + 1
        else:
            minimal, longest = tried, middle
    places = _needed(values.graph, places[-longest:], target)
    for place in list(places):
        rest = _needed(values.graph, [rest for rest in places if rest != place], target)
        if search.over or not rest or len(places) == 1 or target not in values.graph.nodes[rest[-1]].outputs:
            continue
        if tried := search.smaller(values.part(rest, [target]), minimal):
            minimal, places = tried, rest
    return minimal, places


def _needed(graph: FlatGraph, places: Sequence[int], target: str) -> list[int]:
    """Return those of the nodes that the target needs."""
    needed, needed_places = {target}, []
    for place in sorted(places, reverse=True):
        if not needed.isdisjoint(graph.nodes[place].outputs):
            needed_places.append(place)
            needed.update(graph.nodes[place].inputs)
    return needed_places[::-1]


def _with_smaller_inputs(search: _Search, minimal: Minimal) -> Minimal:
    """Cut the inputs along their axes: to the row of the worst element, else by halves, all axes of one size together or one alone."""
    tried: set[tuple[Any, ...]] = set()
    progress = True
    while progress and not search.over:
        progress = False
        for axes, start, stop in _cuts(minimal):
            key = (tuple(axes), start, stop, tuple(array.shape for array in minimal.part.inputs.values()))
            if key in tried:
                continue
            tried.add(key)
            inputs = {
                name: _cut(array, [axis for owner, axis in axes if owner == name], start, stop)
                for name, array in minimal.part.inputs.items()
            }
            if smaller := search.smaller(minimal.part.with_inputs(inputs), minimal):
                minimal, progress = smaller, True
                break
    return minimal


def _cuts(minimal: Minimal) -> Iterator[tuple[list[tuple[str, int]], int, int]]:
    """Yield which axes, as (input, axis), may be cut, and from where to where."""
    inputs = minimal.part.inputs
    sizes = {array.shape[axis] for array in inputs.values() for axis in range(array.ndim)} - {0, 1}
    for size in sorted(sizes, reverse=True):
        axes = [
            (name, axis) for name, array in inputs.items() for axis, length in enumerate(array.shape) if length == size
        ]
        places = _worst_places(minimal, size)
        groups = [axes, *([axis] for axis in axes if len(axes) > 1)]
        for group in groups:
            for place in places:
                yield group, place, place + 1
            for start, stop in ((0, size // 2), (size // 2, size)):
                yield group, start, stop


def _worst_places(minimal: Minimal, size: int) -> list[int]:
    """Return where the worst element lies along the axes of that size of the outputs."""
    places: dict[int, None] = {}
    for name, accepted in minimal.accepted.items():
        got = minimal.got[name]
        if got.shape != accepted.truth.shape or not got.size:
            continue
        rejected = accepted.rejects(got)
        with np.errstate(invalid="ignore"):
            error = np.abs(wide(got).astype(np.float64) - accepted.truth.astype(np.float64))
        worst = int(np.argmax(np.where(rejected, np.nan_to_num(error, nan=np.inf), -1.0)))
        for axis, place in enumerate(np.unravel_index(worst, got.shape)):
            if got.shape[axis] == size:
                places[int(place)] = None
    return list(places)


def _cut(array: Array, axes: Sequence[int], start: int, stop: int) -> Array:
    index = tuple(slice(start, stop) if axis in axes else slice(None) for axis in range(array.ndim))
    return np.ascontiguousarray(array[index]).reshape(array[index].shape)


def _with_simpler_values(search: _Search, minimal: Minimal) -> Minimal:
    """Set what need not be there to zero, in ever smaller pieces, and round the rest to few decimals."""
    for name in list(minimal.part.inputs):
        array = minimal.part.inputs[name]
        if array.dtype.kind in "biu":
            continue
        for pieces in (1, 2, 4, 8, FEWEST_IN_CHUNK):
            for chunk in np.array_split(np.arange(array.size), pieces):
                array = minimal.part.inputs[name]
                if search.over or not chunk.size or not np.any(array.flat[chunk] != 0):
                    continue
                simpler = array.copy()
                simpler.flat[chunk] = 0
                minimal = (
                    search.smaller(minimal.part.with_inputs({**minimal.part.inputs, name: simpler}), minimal) or minimal
                )
        for digits in range(1, MOST_DIGITS):
            array = minimal.part.inputs[name]
            rounded = _rounded(array, digits)
            if search.over or np.array_equal(wide(rounded), wide(array), equal_nan=True):
                break
            if simpler_still := search.smaller(
                minimal.part.with_inputs({**minimal.part.inputs, name: rounded}), minimal
            ):
                minimal = simpler_still
                break
    return minimal


def _rounded(array: Array, digits: int) -> Array:
    """Return the numbers with so many significant decimal digits."""
    flat = [float(f"{number:.{digits}g}") for number in wide(array).ravel().tolist()]
    return np.array(flat, np.float64).reshape(array.shape).astype(array.dtype)
