"""The flat graph in float64: its true outputs, and how far they move where every tensor is off by one rounding."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from onnx import TensorProto

from actconform.checking.flatten import as_held, node_outputs
from actconform.checking.sum_lengths import sum_length
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE
from actconform.onnx.evaluate.elementwise import EXACT as EXACT_OPERATORS
from actconform.onnx.evaluate.elementwise import PASSED_ON
from actconform.oracle.rounding import round_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actconform.checking.flatten import Array, FlatGraph, FlatNode
    from actconform.types.case import Bundle

DRAWS = 8
ALIKE = 2  # pairs of draws in which all ties of a node go the same way
# Inputs that say how large an output is, or where it is read, and are no data: (operator, first such input).
STRUCTURAL = {"NonMaxSuppression": 2, "OneHot": 1, "Range": 0, "Resize": 1, "TopK": 1, "Upsample": 1}
# What moves, compares, chooses or counts: it gives numbers that it read, or integers, and rounds nothing.
EXACT = (PASSED_ON - {"Attention", "Mod", "Range", "RotaryEmbedding"}) | EXACT_OPERATORS | {
    "Abs", "Ceil", "CenterCropPad", "Clip", "Floor", "GatherElements", "GlobalMaxPool", "Max", "MaxUnpool", "Min",
    "Neg", "Pad", "ReduceMax", "ReduceMin", "Relu", "Round", "Sign", "Dropout",
}  # fmt: skip
# Functions that are computed to a rounding of their scale, not of their result: sigmoid(-20) is off by some 2**-25.
OF_SCALE_ONE = frozenset(("Erf", "Sigmoid", "Softmax", "Tanh", "Sin", "Cos"))
TILE = 65_521  # a prime: rows of a matrix do not share their signs

Progress: TypeAlias = Callable[[], None]
# What hears of each node with its outputs, in the order of the graph.
Observer: TypeAlias = "Callable[[FlatNode, Sequence[Array]], None]"


class NodeArithmetic(Protocol):
    """What becomes of the numbers of an evaluation: how inputs, weights and results are rounded or moved."""

    def data(self, name: str, array: Array, element_type: int) -> Array:
        """Return an input or a weight as it is read."""

    def results(self, node: FlatNode, inputs: Sequence[Array | None], results: Iterable[Array]) -> list[Array]:
        """Return the outputs of a node as later nodes read them."""


def evaluated(
    graph: FlatGraph, sample: Bundle, draw: NodeArithmetic | None = None, observe: Observer | None = None
) -> dict[str, Array]:
    """Return the outputs of the graph in float64, by name, without those that depend on an unknown value.

    With `draw` every tensor that an implementation rounds is off by one rounding. `observe` hears of each node that was computed, with
    its outputs. Tensors are freed after their last reader.
    """
    values = {name: as_held(array) for name, array in sample.items()}
    values |= {name: as_held(array) for name, array in graph.answered.items()}
    if draw:
        values |= {name: draw.data(name, values[name], graph.types[name]) for name in graph.inputs}
    dead = graph.last_readers()
    with np.errstate(all="ignore"):
        for node, unread in zip(graph.nodes, dead, strict=True):
            if node.computation and all(name in values or name in graph.constants for name in node.inputs):
                inputs = [_input(graph, values, name, draw) if name else None for name in node.proto.input]
                results = node_outputs(node, node.computation, inputs)
                if draw:
                    results = draw.results(node, inputs, results)
                if observe:
                    observe(node, results)
                values.update((name, array) for name, array in zip(node.proto.output, results, strict=False) if name)
            for name in unread:
                values.pop(name, None)
    values |= {name: as_held(graph.constants[name]) for name in graph.outputs if name in graph.constants}
    return {name: values[name] for name in graph.outputs if name in values}


def _input(graph: FlatGraph, values: Mapping[str, Array], name: str, draw: NodeArithmetic | None) -> Array:
    if name not in graph.constants:
        return values[name]
    array = as_held(graph.constants[name])
    return draw.data(name, array, graph.types[name]) if draw else array


class CorrectRounding:
    """Each tensor rounded once to its format, as an ideal implementation of the graph gives it."""

    def data(self, name: str, array: Array, element_type: int) -> Array:  # noqa: ARG002  all are rounded alike
        return _rounded(array, element_type)

    def results(self, node: FlatNode, inputs: Sequence[Array | None], results: Iterable[Array]) -> list[Array]:  # noqa: ARG002
        return [_rounded(array, kind) for array, kind in zip(results, node.types, strict=False)]


def structural_inputs(graph: FlatGraph) -> set[str]:
    """Return the tensors that say how large an output is, or where it is read, and are no data."""
    return {
        name
        for node in graph.nodes
        for name in node.proto.input[STRUCTURAL.get(node.proto.op_type, len(node.proto.input)) :]
    }


def _rounded(array: Array, element_type: int) -> Array:
    narrow = element_type in FORMATS and element_type != TensorProto.DOUBLE
    return round_to(array, FORMATS[element_type]) if narrow else array


class RoundingDraw:
    """One draw of stochastic arithmetic: each rounded tensor off by one rounding, up or down by chance, the same in every run.

    Inputs and weights are moved by u |x|, the results of operators that round by u |y|; functions of a scale s by u max(|y|, s),
    as they are computed. A sum of k terms is rounded k times: its result is moved by sqrt(k) u |y|, as rounding errors
    of mean zero add up; where terms cancel, what its inputs were moved by is larger. What is exactly representable stays (Parker's random rounding of Monte Carlo arithmetic): integers held
    in floats, masks, x ** 2. Weights that are integers stay too, and all that says how large a tensor is.
    What rounding decides at a step function (FlatNode.tie) is decided as in the truth; where ties are `swayed`, the other way too:
    each element in one of seeds 2 k and 2 k + 1, all of a node alike in the first of these pairs, each by chance in the others.
    """

    def __init__(self, graph: FlatGraph, seed: int, *, swayed: bool = False) -> None:
        self._generator = np.random.default_rng(seed)
        self._ways = np.random.default_rng(seed // 2) if swayed else None
        self._odd = bool(seed % 2)
        self._alike = seed // 2 < ALIKE
        self._weights: dict[str, int] = {}
        self._structural = structural_inputs(graph)

    def data(self, name: str, array: Array, element_type: int) -> Array:
        """Return an input or a weight as if one rounding earlier it had been another number; the same each time it is read."""
        fmt = FORMATS.get(element_type)
        if fmt is None or name in self._structural:
            return array
        seed = self._weights.setdefault(name, int(self._generator.integers(1 << 32)))
        return moved_by(array, np.abs(array) * fmt.unit_roundoff, np.random.default_rng(seed), np.rint(array) == array)

    def results(self, node: FlatNode, inputs: Sequence[Array | None], results: Iterable[Array]) -> list[Array]:
        """Return the outputs of a node, each off by a rounding where its operator rounds."""
        if node.tie is not None and self._ways is not None:
            ways = self._ways.integers(0, 2, () if self._alike else node.tie.close.shape) == int(self._odd)
            output, *others = results
            return [node.tie.swayed(output, ways), *others]
        if node.computation is None or node.proto.op_type in EXACT:
            return list(results)
        return [
            self._result(node, array, kind, sum_length(node.computation.node, inputs, array))
            for array, kind in zip(results, node.types, strict=False)
        ]

    def _result(self, node: FlatNode, array: Array, element_type: int, terms: int) -> Array:
        fmt = FORMATS.get(element_type)
        if fmt is None:
            return array
        size = np.maximum(np.abs(array), float(node.proto.op_type in OF_SCALE_ONE))
        if terms > 1:
            size *= math.sqrt(terms)
        if element_type == TensorProto.DOUBLE:  # the truth is rounded itself: what was exact is not to be seen
            kept = np.rint(array) == array
        else:
            kept = array.astype(STORAGE[element_type]).astype(np.float64) == array
        return moved_by(array, size * fmt.unit_roundoff, self._generator, kept)


def moved_by(array: Array, by: Array, generator: np.random.Generator, kept: Array) -> Array:
    """Return `array` moved by `by`, which is overwritten, up or down by chance; elements that are `kept` stay."""
    count = min(array.size, TILE)
    bits = np.unpackbits(np.frombuffer(generator.bytes(count // 8 + 1), np.uint8))[:count]
    signs = 2.0 * bits.astype(np.float64) - 1.0
    flat = by.reshape(-1)
    tiles = flat[: flat.size - flat.size % count] if count else flat
    if count:
        tiles.reshape(-1, count)[...] *= signs
        flat[tiles.size :] *= signs[: flat.size - tiles.size]
    moved = flat.reshape(array.shape)
    moved[kept] = 0.0
    moved += array
    return moved


def draws(
    graph: FlatGraph,
    sample: Bundle,
    count: int = DRAWS,
    progress: Progress = lambda: None,
    *,
    swayed: bool = False,
) -> list[dict[str, Array]]:
    """Return the outputs of `count` draws of rounding, computed on two processors at a time where there are two.

    What rounding decides is decided as in the truth, or both ways where it is `swayed`.
    """

    def outputs(seed: int) -> dict[str, Array]:
        try:
            return evaluated(graph, sample, RoundingDraw(graph, seed, swayed=swayed))
        except ValueError:  # rounding decides a shape, at which a later node fails
            return {}
        finally:
            progress()

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        return list(pool.map(outputs, range(count)))
