"""A trained run as a graph: which layer gave each tensor, and what that tensor was computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.checking.flatten import wide

if TYPE_CHECKING:
    from actconform.checking.flatten import Array
    from actconform.types.trained import LayerRecord, TrainedRun


class TrainedGraph:
    """The tensors of a run, with the layers that gave them and the tensors behind them."""

    def __init__(self, run: TrainedRun) -> None:
        count = len(run.tensors)
        self.run = run
        self.records = run.layers
        self.givers: list[list[LayerRecord]] = [[] for _ in range(count)]
        """Of each tensor: the layers that gave it, innermost first; empty for inputs and what no layer gave."""
        self.parents: list[frozenset[int]] = [frozenset()] * count
        """What the innermost layer read."""
        self.ancestors: list[int] = [0] * count
        """Bit i: whether it depends on tensor i, as far as was recorded."""
        self.readers: list[list[int]] = [[] for _ in range(count)]
        """Of each tensor: those that a layer computed from it, innermost layers only."""
        for record in run.layers:
            for place in record.outputs:
                if not self.givers[place]:
                    self._derive(place, record)
                self.givers[place].append(record)
        self._inner_calls = _inner_calls(run)

    def _derive(self, place: int, record: LayerRecord) -> None:
        parents = frozenset(record.inputs) - {place}
        self.parents[place] = parents
        for parent in parents:
            self.ancestors[place] |= self.ancestors[parent] | 1 << parent
            self.readers[parent].append(place)

    def values(self, place: int) -> Array:
        """Return a tensor in float64, integers and booleans as they are."""
        return wide(np.asarray(self.run.tensors[place]))

    def namer(self, place: int) -> LayerRecord:
        """Return the layer that a tensor is named after: the innermost, or the layer that is nothing but this function."""
        records = self.givers[place]
        for record in records[1:]:
            owner, _, function = records[0].name.rpartition(":")
            if function and owner and record.name == owner and self._inner_calls.get(owner, 0) == 1:
                return record
        return records[0]

    def aliases(self, place: int) -> tuple[str, ...]:
        """Return the names of the other layers that gave it."""
        name = self.namer(place).name
        return tuple(dict.fromkeys(record.name for record in self.givers[place] if record.name != name))


def layer_name(record: LayerRecord) -> str:
    """Return the path of the layer that was called, or in which a function was: "encoder.norm" of "encoder.norm#2" and "encoder.norm:add"."""
    return record.name.partition(":")[0].partition("#")[0]


def _inner_calls(run: TrainedRun) -> dict[str, int]:
    """Return for each layer how many layers and functions were called within it, directly or deeper."""
    calls: dict[str, int] = {}
    for record in run.layers:
        path, _, _ = record.name.partition(":")
        if path != record.name:
            calls[path] = calls.get(path, 0) + 1
        while "." in path or "/" in path:
            path = path[: max(path.rfind("."), path.rfind("/"))]
            calls[path] = calls.get(path, 0) + 1
        calls[""] = calls.get("", 0) + bool(path)
    return calls
