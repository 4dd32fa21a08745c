"""Where a graph in low precision loses range or precision, layer by layer, and whether what came is within the noise of its format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from msgspec.structs import replace

from actconform.checking.flatten import wide
from actconform.checking.format_noise import RELATIVE, FormatNoise, Quantizer, quantizer, side_by_side
from actconform.checking.noise_events import noise_events
from actconform.checking.noise_result import NoiseCheck, NoiseGot, NoiseLayer
from actconform.checking.truth import evaluated
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE
from actconform.onnx.evaluate.quantized import code_limits

if TYPE_CHECKING:
    from actconform.checking.flatten import Array, FlatGraph, FlatNode
    from actconform.checking.format_noise import NodeValues
    from actconform.types.case import Bundle
    from actconform.types.dtypes import FloatFormat

DRAWS = 8
Columns = Mapping[str, Mapping[str, "Array"]]


def noise_check(  # noqa: PLR0913  each says another thing of the check
    graph: FlatGraph,
    sample: Bundle,
    got: Columns,
    *,
    truth: Bundle | None = None,
    truth_name: str = "the graph in float64",
    layer_of: Mapping[str, str] | None = None,
    place: int = 0,
    draws: int = DRAWS,
) -> NoiseCheck:
    """Return what the format of `graph` is expected to do to each of its tensors on `sample`, and what it did.

    `got` has by column ("ort-cpu", "torch float16") the tensors that were shown, by their names in the graph. `truth` are tensors of the
    model as it was trained, float64, in the layout of the graph, by the graph's names: those of the float32 model that was converted, or
    matched ones. Where it has none the graph itself in float64 is the truth, its QuantizeLinear taken out; without `truth` weights are
    then what they are, with it they are expected to have been rounded. `layer_of` has trained layers by node. The graph is evaluated
    draws + 1 times, node by node side by side, so that no tensor is held longer than it is read.
    """
    stored = truth is not None
    lanes = [FormatNoise(graph, seed, stored=stored) for seed in (None, *range(draws))]
    meter = _Meter(graph, got, truth or {}, layer_of or {}, stored=stored)
    layers: list[NoiseLayer] = []
    for values in side_by_side(graph, sample, lanes):
        layers += meter.layers(values)
    check = NoiseCheck(format=_narrowest(layers), truth=truth_name, sample=place, layers=layers)
    return noise_events(graph, check)


def truth_of_original(model_graph: FlatGraph, sample: Bundle, graph: FlatGraph) -> dict[str, Array]:
    """Return the float64 tensors of the float32 model that `graph` was converted from, those that both have under one name and shape.

    `sample` are inputs of the float32 model.
    """
    tensors = {name: wide(array) for name, array in model_graph.constants.items() if name not in graph.constants}

    def keep(node: FlatNode, results: Sequence[Array]) -> None:
        named = zip(node.proto.output, results, strict=False)
        tensors.update({name: array for name, array in named if name and graph.shapes.get(name) == array.shape})

    evaluated(model_graph, sample, observe=keep)
    return tensors


class _Tensor(NamedTuple):
    """A tensor in all evaluations, in the units of its floats."""

    name: str
    format: str
    fmt: FloatFormat | None
    """None for a quantized tensor."""
    truth: Array
    matched: bool
    """Whether the truth is that of another model."""
    computed: Array
    """The graph in float64."""
    draws: list[Array]
    by: Quantizer | None = None


class _Meter:
    """Measures one node after the other; remembers the relative noise of tensors."""

    def __init__(
        self, graph: FlatGraph, got: Columns, truth: Bundle, layer_of: Mapping[str, str], *, stored: bool
    ) -> None:
        self._graph = graph
        self._got = got
        self._truth = truth
        self._layer_of = layer_of
        self._rectified = _rectified(graph)
        self._computing = _computing_nodes(graph)
        self._relative = {
            name: RELATIVE * FORMATS[graph.types[name]].unit_roundoff if stored else 0.0
            for name in (*graph.inputs, *graph.constants)
            if graph.types.get(name) in FORMATS
        }

    @np.errstate(invalid="ignore", over="ignore")  # scales may be infinite: the counts of what is undefined tell
    def layers(self, values: NodeValues) -> list[NoiseLayer]:
        """Return the outputs of a node that are floats or quantized."""
        layers = []
        for i in range(len(values.node.proto.output)):
            tensor = self._tensor(values, i)
            if tensor is not None and tensor.truth.size and tensor.truth.shape == tensor.computed.shape:
                layers.append(self._layer(values, tensor))
        return layers

    def _tensor(self, values: NodeValues, i: int) -> _Tensor | None:
        node = values.node
        name, kind = node.proto.output[i], node.types[i] if i < len(node.types) else 0
        lanes = [None if lane is None or i >= len(lane) else lane[i] for lane in values.results]
        computed = lanes[0]
        if not name or computed is None:
            return None
        moved = [array for array in lanes[1:] if array is not None and array.shape == computed.shape]
        if kind in FORMATS:
            original, fmt = self._truth.get(name), FORMATS[kind]
            truth, matched = (
                (original, True) if original is not None and original.shape == computed.shape else (computed, False)
            )
            if name in self._rectified:
                truth, computed, *moved = (np.maximum(array, 0.0) for array in (truth, computed, *moved))
            return _Tensor(name, fmt.name, fmt, truth, matched, computed, moved)
        read = values.inputs[0] if values.inputs else None
        first = values.results[0] or []
        by = quantizer(node, values.inputs, first) if i == 0 and node.proto.op_type != "DequantizeLinear" else None
        if by is None or read is None:
            self._relative[name] = self._read(node)
            return None
        original = self._truth.get(node.proto.input[0])
        truth, matched = (
            (original, True) if original is not None and original.shape == computed.shape else (read, False)
        )
        counts = [
            (by.scale, by.zero) if by.stated else (lane[1], lane[2]) for lane in values.results if lane is not None
        ]
        floats = [
            (array.astype(np.float64) - zero) * scale
            for array, (scale, zero) in zip((computed, *moved), counts, strict=True)
        ]
        truth = truth.astype(np.float64, copy=False)  # integers too can be quantized
        if by.folds_relu:
            truth = np.maximum(truth, 0.0)
        return _Tensor(name, STORAGE[kind].name, None, truth, matched, floats[0], floats[1:], by)

    def _read(self, node: FlatNode) -> float:
        """Return the largest relative noise of what a node reads."""
        return max((self._relative.get(name, 0.0) for name in node.inputs), default=0.0)

    def _layer(self, values: NodeValues, tensor: _Tensor) -> NoiseLayer:
        node, fmt, truth = values.node, tensor.fmt, tensor.truth
        computing = self._computing.get(node.name, node)
        size = np.abs(truth)
        usable = np.isfinite(truth) & (size < (fmt.overflow if fmt else np.inf))
        finite = [np.isfinite(array) & usable for array in tensor.draws]
        magnitude = _root_mean_square(truth, usable)
        noise = _noise(tensor, finite)
        is_finite = np.isfinite(truth)
        nonzero = is_finite & (size > 0)
        relative = noise / magnitude if magnitude > 0 else 0.0
        floor = _floor(values, tensor, magnitude)
        read = self._read(node)
        self._relative[tensor.name] = relative
        certain = np.logical_and.reduce([usable, *finite])
        counts = _range_counts(size, nonzero, fmt) if fmt else _clipping(truth, tensor)
        if node.proto.op_type == "DequantizeLinear" and node.proto.input[0] in self._graph.constants:
            counts |= _stored_codes(values)
        rounding = floor * magnitude
        conversion = _root_mean_square(tensor.computed - truth, certain) if tensor.matched else None
        layer = NoiseLayer(
            node=computing.name,
            op_type=computing.proto.op_type,
            tensor=tensor.name,
            layer=self._layer_of.get(computing.name, ""),
            format=tensor.format,
            shape=truth.shape,
            magnitude=magnitude,
            largest=float(np.max(size, where=is_finite, initial=0.0)),
            smallest=float(np.min(size, where=nonzero, initial=np.inf)) if nonzero.any() else 0.0,
            noise=noise,
            lost_bits=_lost_bits(relative, max(read, floor)),
            conversion=conversion,
            conversion_ratio=_ratio(conversion or 0.0, max(noise, rounding)),
            got=[
                _got(
                    column,
                    self._floats(tensors[tensor.name], tensor, rectified=tensor.name in self._rectified),
                    truth,
                    (usable, certain),
                    max(noise, rounding),
                )
                for column, tensors in self._got.items()
                if tensor.name in tensors and tensors[tensor.name].shape == truth.shape
            ],
            lost=int(np.count_nonzero(usable & ~certain)),
            undefined=int(np.count_nonzero(np.isnan(truth))),
        )
        return replace(layer, **counts)

    @staticmethod
    def _floats(shown: Array, tensor: _Tensor, *, rectified: bool) -> Array:
        numbers = shown.astype(np.float64)
        if rectified:
            return np.maximum(numbers, 0.0)
        return numbers if tensor.by is None else (numbers - tensor.by.zero) * tensor.by.scale


def _computing_nodes(graph: FlatGraph) -> dict[str, FlatNode]:
    """Return by Cast the node before it, where the Cast alone reads it: that computed in float32 what the Cast rounds."""
    giver = {name: node for node in graph.nodes for name in node.outputs}
    readings = Counter(name for node in graph.nodes for name in node.proto.input)
    return {
        node.name: giver[name]
        for node in graph.nodes
        for name in node.inputs[:1]
        if node.proto.op_type == "Cast" and name in giver and readings[name] == 1 and name not in graph.outputs
        if graph.types.get(name) in FORMATS and giver[name].proto.op_type != "Cast"
    }


def _rectified(graph: FlatGraph) -> set[str]:
    """Return the tensors that only quantizations read which do a Relu: they are compared as it leaves them, as the float model may have it."""
    readers: dict[str, list[FlatNode]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    return {
        name
        for name, nodes in readers.items()
        if name not in graph.outputs and all(_does_relu(graph, node, name) for node in nodes)
    }


def _does_relu(graph: FlatGraph, node: FlatNode, name: str) -> bool:
    places = node.proto.input
    if (
        node.proto.op_type != "QuantizeLinear"
        or places[0] != name
        or len(places) < 3
        or places[2] not in graph.constants
    ):
        return False
    zero = graph.constants[places[2]]
    return "int" in zero.dtype.name and bool(np.all(zero.astype(np.int64) == code_limits(zero.dtype)[0]))


def _root_mean_square(array: Array, where: Array) -> float:
    """Return it of the elements chosen that are numbers; 0 of none, infinite where none of those chosen is a number."""
    chosen = where & np.isfinite(array)
    if not chosen.any():
        return float(np.inf) if where.any() else 0.0
    largest = float(np.max(np.abs(array), where=chosen, initial=0.0))
    if not largest:
        return 0.0
    return largest * float(np.sqrt(np.mean((array / largest) ** 2, where=chosen)))


def _noise(tensor: _Tensor, finite: Sequence[Array]) -> float:
    """Return the root mean square of how far the draws are from the graph in float64, or from the truth where that is a number and this is not."""
    around = np.where(np.isfinite(tensor.computed), tensor.computed, tensor.truth)
    squares = [
        _root_mean_square(array - around, chosen) ** 2 for array, chosen in zip(tensor.draws, finite, strict=True)
    ]
    numbers = [square for square, chosen in zip(squares, finite, strict=True) if chosen.any()]
    usable = np.isfinite(tensor.truth)
    if not numbers:
        return float(np.inf) if tensor.draws and usable.any() else 0.0
    return float(np.sqrt(np.mean(numbers)))


def _floor(values: NodeValues, tensor: _Tensor, magnitude: float) -> float:
    """Return the relative noise that a tensor of its kind has at best: one rounding, or the steps of a scale that just fits."""
    stored = values.node.proto.op_type == "DequantizeLinear"
    by = tensor.by or (quantizer(values.node, values.inputs, []) if stored else None)
    if by is not None and by.is_accumulator and magnitude > 0:
        return float(np.max(by.scale)) / float(np.sqrt(12.0)) / magnitude
    if by is not None and magnitude > 0:
        values_there = tensor.truth[np.isfinite(tensor.truth)]
        reach = float(values_there.max(initial=0.0) - values_there.min(initial=0.0))
        return reach / (by.highest - by.lowest) / float(np.sqrt(12.0)) / magnitude
    return RELATIVE * tensor.fmt.unit_roundoff if tensor.fmt else 0.0


def _lost_bits(relative: float, before: float) -> float:
    if relative <= before or before <= 0 or not np.isfinite(before):
        return 0.0
    return float(np.log2(relative / before))


def _range_counts(size: Array, nonzero: Array, fmt: FloatFormat) -> dict[str, float]:
    tiny = nonzero & (size <= fmt.smallest_subnormal / 2)
    return {
        "overflowed": int(np.count_nonzero(nonzero & (size >= fmt.overflow))),
        "underflowed": int(np.count_nonzero(tiny)),
        "subnormal": int(np.count_nonzero(nonzero & ~tiny & (size < fmt.smallest_normal))),
    }


def _clipping(truth: Array, tensor: _Tensor) -> dict[str, float]:
    """Return what a quantization cuts off, and how much of its range the values span."""
    by = tensor.by
    if by is None:
        return {}
    lowest, highest = (by.lowest - by.zero) * by.scale, (by.highest - by.zero) * by.scale
    is_finite = np.isfinite(truth)
    cut = np.where(is_finite, np.maximum(np.maximum(lowest - truth, truth - highest), 0.0), 0.0)
    codes = np.clip(np.where(is_finite, truth, 0.0) / by.scale, by.lowest - by.zero, by.highest - by.zero)
    span = float(codes.max() - codes.min())
    return {
        "step": float(np.max(by.scale)),
        "clipped": int(np.count_nonzero(cut > by.scale / 2)),
        "clip_loss": float(np.sqrt(np.mean(cut**2))),
        "codes_used": span / (by.highest - by.lowest),
    }


def _stored_codes(values: NodeValues) -> dict[str, float]:
    """Return the step of a quantized weight, and how much of its range the numbers span."""
    by, codes = quantizer(values.node, values.inputs, []), values.inputs[0]
    if by is None or codes is None or not codes.size or by.is_accumulator:
        return {}
    span = float(codes.max()) - float(codes.min())
    return {"step": float(np.max(by.scale)), "codes_used": span / (by.highest - by.lowest)}


def _ratio(error: float, noise: float) -> float:
    if not error or np.isinf(noise):
        return 0.0
    return error / noise if noise else float(np.inf)


def _got(name: str, got: Array, truth: Array, where: tuple[Array, Array], noise: float) -> NoiseGot:
    """Return what came; `where` are the elements whose truth is a number of the format, and those that are a number in every draw too."""
    usable, certain = where
    with np.errstate(all="ignore"):
        strange = ~np.isfinite(got)
        error = _root_mean_square(got - truth, certain)
    return NoiseGot(
        name=name,
        error=error,
        ratio=float(np.inf) if (certain & strange).any() else _ratio(error, noise),
        nonfinite=int(np.count_nonzero(usable & strange)),
    )


def _narrowest(layers: Sequence[NoiseLayer]) -> str:
    """Return the format of fewest bits among the layers'."""
    order = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}
    names = {layer.format for layer in layers}
    return min(names, key=lambda name: (order.get(name, 0), name), default="")
