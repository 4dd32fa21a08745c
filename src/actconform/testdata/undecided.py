"""Where rounding decides which way a gradient goes: numbers beside a kink, and the largest of a pool beside the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from actconform.catalog.models.layer_kinds import CLIP, same_pads
from actconform.oracle.training.trajectory import kinks_of
from actconform.types.model import LOSS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.oracle.training.trajectory import Touch
    from actconform.types import Bundle, Kink
    from actconform.types.model import Layer, Model

    F64 = NDArray[np.float64]

REACH = 16.0  # spreads, as limits have
MOST = 64  # flips of a step: one evaluation each
MOST_OF_LARGE = 2  # of a model that is LARGE
LARGE = 1 << 20  # numbers that all layers of a batch have
TOGETHER = 4.0  # times what a group of flips moves: how it moves by any of them alone


class Flip(NamedTuple):
    """One or several elements that fall to the other side: what brings it about, to be given to `passed_through`."""

    touch: Callable[[str], Touch]
    factor: float
    """How many times what it moves is to be allowed."""


def flips(
    model: Model, tensors: Bundle, layers: Mapping[str, F64], moved: Sequence[Mapping[str, F64]]
) -> Iterator[Flip]:
    """Yield a flip for each undecided element; where there are many, or the model is large, for groups of them.

    `moved` are the layers' values when all is off by a rounding: an element is undecided where 16 spreads reach the other side.
    """
    undecided: list[tuple[str, Any, float]] = []
    for layer in model.layers:
        source = layer.inputs[0]
        if source not in layers:
            continue
        x = layers[source]
        reach = REACH * np.sqrt(np.mean([(run[source] - x) ** 2 for run in moved], axis=0))
        undecided += [(source, *side) for side in _undecided(model, layer, x, reach, tensors)]
    most = MOST if sum(array.size for array in layers.values()) < LARGE else MOST_OF_LARGE
    factor = 1.0 if len(undecided) <= most else TOGETHER
    for first in range(min(most, len(undecided))):
        yield Flip(_setting(undecided[first::most]), factor)


def _setting(sides: Sequence[tuple[str, Any, float]]) -> Callable[[str], Touch]:
    def touch(of: str) -> Touch:
        def changed(layer: str, array: F64) -> F64:
            places = [(place, value) for name, place, value in sides if name == layer] if of == "value" else []
            if places:
                array = np.array(array)
            for place, value in places:
                array[place] = value
            return array

        return changed

    return touch


def _undecided(model: Model, layer: Layer, x: F64, reach: F64, tensors: Bundle) -> Iterator[tuple[Any, float]]:
    """Yield the place of each undecided element of what the layer reads, and a number on the other side."""
    if layer.kind == "activation":
        for kink in kinks_of(model).get(layer.inputs[0], ()):
            yield from _on(x, kink)
            yield from _beside(x, np.full(x.shape, kink.x), reach)
    elif layer.name == LOSS and layer.kind == "mean-absolute-error":
        yield from _beside(x, np.asarray(tensors[layer.inputs[1]], np.float64), reach)
    elif layer.kind in ("binary-cross-entropy", "categorical-cross-entropy"):
        # Beyond its ends the clip is flat: there a probability that is certain and wrong has no gradient any more.
        wrong = [(CLIP[0], tensors[layer.inputs[1]] > 0.0), (CLIP[1], tensors[layer.inputs[1]] < 1.0)]
        for end, where in wrong[: 2 if layer.kind.startswith("binary") else 1]:
            yield from _beside(x, np.full(x.shape, end), np.where(where, reach, 0.0))
    elif layer.kind == "max-pool":
        yield from _next_to_largest(layer, x, reach)


def _on(x: F64, kink: Kink) -> Iterator[tuple[Any, float]]:
    """Yield all elements on a kink together: which slope that has is a choice, and the same for all."""
    on = np.abs(x - kink.x) <= max(abs(kink.x) * 2.0**-51, 2.0**-1069)
    if on.any():
        middle = x[on][0]
        yield on, 2.0 * kink.x - middle if middle != kink.x else np.nextafter(kink.x, np.inf)


def _beside(x: F64, kink: F64, reach: F64) -> Iterator[tuple[Any, float]]:
    for place in np.argwhere((np.abs(x - kink) <= reach) & (reach > 0.0)):
        at = tuple(place)
        beyond = 2.0 * kink[at] - x[at]
        # on the kink itself: a hair to either side
        yield at, beyond if beyond != x[at] else x[at] + reach[at]
        if beyond == x[at]:
            yield at, x[at] - reach[at]


def _next_to_largest(layer: Layer, x: F64, reach: F64) -> Iterator[tuple[Any, float]]:
    """Yield the elements of each window that another rounding would make its largest."""
    (rows, columns), (down, right) = _pair(layer, "size"), _pair(layer, "strides")
    same = layer.settings["padding"] == "same"
    pads = [
        same_pads(n, k, s) if same else (0, 0)
        for n, k, s in zip(x.shape[1:3], (rows, columns), (down, right), strict=True)
    ]
    padded = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=-np.inf)
    reaches = np.pad(reach, [(0, 0), *pads, (0, 0)])
    flat, reaching = (
        np.lib.stride_tricks.sliding_window_view(array, (rows, columns), (1, 2))[:, ::down, ::right].reshape(
            len(x), (padded.shape[1] - rows) // down + 1, (padded.shape[2] - columns) // right + 1, x.shape[3], -1
        )
        for array in (padded, reaches)
    )
    largest = flat.argmax(-1)[..., None]
    top, top_reach = np.take_along_axis(flat, largest, -1), np.take_along_axis(reaching, largest, -1)
    near = (top - flat <= top_reach + reaching) & (top_reach + reaching > 0.0)
    np.put_along_axis(near, largest, values=False, axis=-1)
    for batch, row, column, channel, place in np.argwhere(near):
        at_row, at_column = divmod(int(place), columns)
        at = (batch, row * down + at_row - pads[0][0], column * right + at_column - pads[1][0], channel)
        yield at, float(top[batch, row, column, channel, 0] + reaching[batch, row, column, channel, place])


def _pair(layer: Layer, setting: str) -> tuple[int, int]:
    rows, columns = cast("tuple[int, int]", layer.settings[setting])
    return rows, columns
