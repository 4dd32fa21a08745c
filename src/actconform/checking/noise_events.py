"""What the layers of a graph in low precision come to: the first that leaves the range, those that lose precision, what is more than noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from actconform.text import listed, number_of, one_line
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actconform.checking.flatten import FlatGraph
    from actconform.checking.noise_result import NoiseCheck, NoiseLayer

LOST_BITS = 2.0
"""What a layer may lose: an Exp or Softmax of arguments up to 4 does, a sum of products of mixed signs does not."""
SHARE = 0.5
"""Of the values that are not 0, below the normal numbers: what they lose is then what the layer loses."""
LIMIT = 10.0
"""Times the expected noise. The model of rounding is right to a factor of 3, for other orders of sums and what is fused; and where one
rounding, of a mean or a scale, decides a whole tensor, its error is one number drawn: 3.3 standard deviations hold 999 of 1,000."""
MOST_NAMED = 5


class _Leaves(NamedTuple):
    """A layer at which numbers leave the range of the format."""

    layer: NoiseLayer
    victims: int
    """Later tensors that have NaN or infinities for it."""
    is_output: bool


def noise_events(graph: FlatGraph, check: NoiseCheck) -> NoiseCheck:
    """Return `check` with what its layers come to, in fields and in sentences."""
    layers = check.layers
    leaving = _first_leaving(graph, layers)
    losing = _losing(graph, layers)
    coarse = [layer for layer in layers if layer.step and 0 < layer.codes_used < 2.0**-LOST_BITS]
    clipping = [layer for layer in layers if layer.clip_loss > 2.0**LOST_BITS * layer.step / 12**0.5]
    wrong = next((layer for layer in layers if layer.conversion_ratio > LIMIT), None)
    beyond = _beyond(layers)
    serious = leaving is not None and (leaving.victims > 0 or leaving.is_output)
    return replace(
        check,
        range_lost=leaving.layer.node if leaving is not None and serious else "",
        precision_lost=tuple(dict.fromkeys(layer.node for layer in losing)),
        coarse=tuple(dict.fromkeys(layer.node for layer in coarse)),
        clipping=tuple(dict.fromkeys(layer.node for layer in clipping)),
        converted_wrong=wrong.node if wrong else "",
        beyond={column: layer.node for column, layer in beyond.items()},
        summary=(
            *_range_words(leaving, layers),
            *_precision_words(losing),
            *_quantization_words(coarse, clipping),
            *_conversion_words(wrong, check),
            *_got_words(layers, beyond, check),
            *_output_words(graph, layers),
        ),
    )


def _losing(graph: FlatGraph, layers: Sequence[NoiseLayer]) -> list[NoiseLayer]:
    """Return the layers that lose precision, those that lose most first, without those that give or read what is beyond the range."""
    gone = {layer.tensor for layer in layers if layer.lost or layer.overflowed}
    spoilt = {node.name for node in graph.nodes if not gone.isdisjoint(node.inputs)}
    losing = [
        layer
        for layer in layers
        if layer.lost_bits > LOST_BITS and layer.node not in spoilt and layer.tensor not in gone
    ]
    return sorted(losing, key=lambda layer: -layer.lost_bits)


def _first_leaving(graph: FlatGraph, layers: Sequence[NoiseLayer]) -> _Leaves | None:
    """Return the first layer that leaves the range with effect on others, else the first that does so without.

    Where a number becomes NaN or infinite for an earlier one that became 0, as a variance plus an epsilon, the earlier one is told.
    """
    by_tensor = {layer.tensor: layer for layer in layers}
    leaving = [layer for layer in layers if layer.overflowed or layer.lost or _sinks(layer)]
    leaving += [
        layer
        for layer in layers
        if layer not in leaving and any(got.nonfinite for got in layer.got) and not layer.overflowed
    ]
    events = []
    for layer in sorted(leaving, key=layers.index):
        origin = _origin(graph, by_tensor, layer)
        reached = _reached(graph, origin.tensor)
        victims = sum(each.lost > 0 for each in layers if each.tensor in reached and each.tensor != origin.tensor)
        harmful = origin.lost > 0 or (_sinks(origin) and origin.lost_bits > LOST_BITS)
        events.append(_Leaves(origin, victims, harmful or (origin.tensor in graph.outputs and origin.overflowed > 0)))
        if events[-1].victims or events[-1].is_output:
            return events[-1]
    return events[0] if events else None


def _sinks(layer: NoiseLayer) -> bool:
    """Whether a layer loses precision since its values are below the normal numbers of the format."""
    if layer.format not in DTYPES or layer.lost_bits <= LOST_BITS:
        return False
    return layer.magnitude < DTYPES[layer.format].smallest_normal


def _origin(graph: FlatGraph, by_tensor: dict[str, NoiseLayer], layer: NoiseLayer) -> NoiseLayer:
    """Return the nearest layer before one with NaN or infinities whose values became 0 or infinite; the first of a row of such."""
    giver = {name: node for node in graph.nodes for name in node.outputs}
    waiting, visited = [layer.tensor], {layer.tensor}
    origin = layer
    while waiting:
        name = waiting.pop(0)
        read = [each for each in giver[name].inputs if each in giver and each not in visited] if name in giver else []
        visited.update(read)
        causes = [by_tensor[each] for each in read if each in by_tensor and _leaves_range(by_tensor[each])]
        if causes:
            origin, waiting = causes[0], [causes[0].tensor]
        elif origin is layer and not layer.overflowed:
            waiting += read
    return origin


def _leaves_range(layer: NoiseLayer) -> bool:
    return layer.underflowed > 0 or layer.overflowed > 0 or layer.lost > 0


def _reached(graph: FlatGraph, tensor: str) -> set[str]:
    """Return a tensor and all that depend on it."""
    reached = {tensor}
    for node in graph.nodes:
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
    return reached


def _beyond(layers: Sequence[NoiseLayer]) -> dict[str, NoiseLayer]:
    """Return by column the first layer whose error is more than noise."""
    beyond: dict[str, NoiseLayer] = {}
    for layer in layers:
        for got in layer.got:
            if got.ratio > LIMIT:
                beyond.setdefault(got.name, layer)
    return beyond


def _range_words(leaving: _Leaves | None, layers: Sequence[NoiseLayer]) -> Iterator[str]:
    undefined = next((layer for layer in layers if layer.undefined), None)
    if undefined:
        yield f"the graph itself gives NaN first at {_at(undefined)}: {number_of(undefined.undefined, 'value')}, whatever the format"
    if leaving is None:
        return
    layer = leaving.layer
    effect = f"{leaving.victims:,} later tensors have NaN or infinities for it" if leaving.victims else ""
    if not leaving.victims and not leaving.is_output:
        yield f"range is left at {_at(layer)} without effect: {_loss(layer)}, and all later layers are numbers"
    else:
        yield f"range is lost first at {_at(layer)}: {_loss(layer)}{'; ' + effect if effect else ''}"


def _loss(layer: NoiseLayer) -> str:
    """Return what of a layer leaves the range."""
    size = _elements(layer)
    fmt = DTYPES.get(layer.format)
    if layer.overflowed and fmt:
        return f"{layer.largest:.3g} is beyond {fmt.largest:,.6g} ({layer.overflowed:,} of {number_of(size, 'value')})"
    if layer.underflowed and fmt:
        small = f"{layer.smallest:.3g} is 0 in {layer.format}, whose smallest number is {fmt.smallest_subnormal:.3g}"
        return f"{small} ({layer.underflowed:,} of {number_of(size, 'value')})"
    if layer.lost:
        return f"{layer.lost:,} of {number_of(size, 'value')} become NaN or infinite"
    if layer.subnormal and fmt:
        small = f"its values, about {layer.magnitude:.3g}, lie below the normal numbers of {layer.format}"
        return f"{small}, {fmt.smallest_normal:.3g}"
    wrong = next((got for got in layer.got if got.nonfinite), None)
    return (
        f"{wrong.name} gives {number_of(wrong.nonfinite, 'value that is', 'values that are')} NaN or infinite"
        if wrong
        else "values are lost"
    )


def _precision_words(losing: Sequence[NoiseLayer]) -> Iterator[str]:
    if losing:
        layers = [
            f"{_at(layer)} {layer.lost_bits:.1f} bits" if layer.lost_bits < 100 else f"{_at(layer)} all"
            for layer in losing
        ]
        yield f"precision: {_layers(len(losing))} more than {LOST_BITS:g} bits: {listed(layers, MOST_NAMED)}"


def _quantization_words(coarse: Sequence[NoiseLayer], clipping: Sequence[NoiseLayer]) -> Iterator[str]:
    for layer in clipping[:MOST_NAMED]:
        yield (
            f"clipping: {_at(layer)} cuts {layer.clipped:,} of {number_of(_elements(layer), 'value')}, which costs {layer.clip_loss:.3g} of "
            f"{layer.magnitude:.3g} where its step costs {layer.step / 12**0.5:.3g}: its scale is too small for values up to {layer.largest:.3g}"
        )
    for layer in coarse[:MOST_NAMED]:
        yield (
            f"coarse: {_at(layer)} uses {layer.codes_used:.1%} of its codes: its scale is {1 / layer.codes_used:.1f} times what values up to "
            f"{layer.largest:.3g} need"
        )


def _conversion_words(wrong: NoiseLayer | None, check: NoiseCheck) -> Iterator[str]:
    if wrong is not None:
        yield (
            f"conversion: at {_at(wrong)} the graph, computed without rounding, is {wrong.conversion:.3g} from {check.truth}, "
            f"{wrong.conversion_ratio:.0f} times what {check.format} explains: weights or constants are others"
        )


def _got_words(layers: Sequence[NoiseLayer], beyond: dict[str, NoiseLayer], check: NoiseCheck) -> Iterator[str]:
    for column in dict.fromkeys(got.name for layer in layers for got in layer.got):
        if column in beyond:
            layer = beyond[column]
            got = next(each for each in layer.got if each.name == column)
            because = ", as the graph itself is" if layer.conversion_ratio > LIMIT else ""
            came = (
                f"{number_of(got.nonfinite, 'value is', 'values are')} NaN or infinite"
                if got.nonfinite
                else f"its error is {got.error:.3g}, {got.ratio:.0f} times the expected {layer.noise:.3g}"
            )
            yield f"{column} is off by more than the noise of {check.format}{because}, first at {_at(layer)}: {came}"
        else:
            worst, layer = max(
                ((got.ratio, layer) for layer in layers for got in layer.got if got.name == column),
                key=lambda pair: pair[0],
            )
            yield f"{column} is within the noise of {check.format}: at most {worst:.1f} times the expected, at {_at(layer)}"


def _output_words(graph: FlatGraph, layers: Sequence[NoiseLayer]) -> Iterator[str]:
    for layer in [layer for layer in layers if layer.tensor in graph.outputs][:MOST_NAMED]:
        name = one_line(layer.tensor, 60)
        if layer.lost or layer.noise == float("inf"):
            yield f"output {name}: {layer.lost:,} of {number_of(_elements(layer), 'value')} are expected to be NaN or infinite"
        elif layer.magnitude > 0:
            yield f"output {name}: expected noise {layer.noise:.3g} of {layer.magnitude:.3g}, {layer.relative:.2%}"


def _elements(layer: NoiseLayer) -> int:
    count = 1
    for size in layer.shape:
        count *= size
    return count


def _at(layer: NoiseLayer) -> str:
    return one_line(layer.place, 100)


def _layers(count: int) -> str:
    return number_of(count, "layer loses", "layers lose")
