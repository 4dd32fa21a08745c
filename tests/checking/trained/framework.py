"""A framework of a few lines: layers in NumPy whose calls are recorded, to be held against graphs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.checking.flatten import flatten
from actconform.checking.trained.layer_matching import Matching, match_layers
from actconform.types.trained import LayerRecord, TrainedRun

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

Arrays = dict[str, Any]
ERF = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x: Any) -> Any:
    return x * 0.5 * (1 + ERF(x / math.sqrt(2)))


def layer_norm(x: Any, weight: Any, bias: Any, epsilon: float = 1e-5) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


def softmax(x: Any) -> Any:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def conv2d(x: Any, weight: Any) -> Any:
    """Of [batch, channels, height, width], padded so that the size stays."""
    reach = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, weight)


class Recorder:
    """Computes in float64 with float32 weights, as a framework does that was told to."""

    def __init__(self, *inputs: Any) -> None:
        self.tensors: list[Any] = []
        self.layers: list[LayerRecord] = []
        self._places: dict[int, int] = {}
        for array in inputs:
            self.place(array)

    def place(self, array: Any) -> int:
        if id(array) not in self._places:
            self._places[id(array)] = len(self.tensors)
            self.tensors.append(array)
        return self._places[id(array)]

    def give(self, name: str, result: Any, *read: Any, parameters: tuple[str, ...] = ()) -> Any:
        """Record that the layer NAME gave `result` for what it read."""
        inputs = tuple(self.place(array) for array in read)
        self.layers.append(LayerRecord(name, f"Kind{name}", inputs, (self.place(result),), parameters))
        return result

    def run(self, *outputs: Any) -> TrainedRun:
        return TrainedRun(
            outputs={f"y{place}": array for place, array in enumerate(outputs)},
            layers=self.layers,
            tensors=self.tensors,
        )


def matched(model: ModelProto, sample: Arrays, run: TrainedRun, owners: Mapping[str, str] | None = None) -> Matching:
    return match_layers(flatten(model, sample), sample, run, owners or {})


def partners(matching: Matching) -> dict[str, str]:
    """Return the tensor of the graph that each layer is."""
    return {match.layer: match.tensor for match in matching.matches}


def evidence(matching: Matching) -> dict[str, str]:
    """Return what showed the layers whose values are others than in the graph."""
    return {match.layer: match.by for match in matching.matches if match.by != "value"}
