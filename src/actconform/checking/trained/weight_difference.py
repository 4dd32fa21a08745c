"""What kind of difference lies between a trained weight and the constant that should be it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.weight_ledger import Deviation
from actconform.checking.trained.weight_rounding import ROUNDINGS, deviation_of
from actconform.checking.trained.weight_values import Array, bits_of
from actconform.text import number_of

if TYPE_CHECKING:
    from actconform.checking.trained.weight_check import DifferenceKind
    from actconform.checking.trained.weight_layouts import WeightLayout

SAMPLED = 4096
UNIT = 2.0**-24  # unit roundoff of float32
SMALLEST = float(np.finfo(np.float32).tiny)  # below it roundings are absolute


class WeightDifference(NamedTuple):
    """How a constant differs from a trained weight."""

    kind: DifferenceKind
    words: str
    deviation: Deviation = Deviation()
    factor: float = 1.0
    """Of `scaled`: the constant is the weight times this."""


NONE = WeightDifference("", "")


def difference(trained: Array, constant: Array, layout: WeightLayout) -> WeightDifference:
    """Return how a constant in a layout differs from a weight, both canonical and of equal size."""
    deviation = deviation_of(trained, constant, layout)
    wanted = layout.apply(trained)
    count = f"{deviation.differing:,} of {number_of(trained.size, 'value')}"
    if deviation.differing == 1:
        return WeightDifference("one element", _one_element(trained, wanted, constant, deviation), deviation)
    if not np.isfinite(deviation.largest):
        lost = np.count_nonzero(np.isfinite(wanted) & ~np.isfinite(constant))
        return WeightDifference(
            "not finite", f"{lost:,} of {number_of(trained.size, 'value')} are infinite or NaN", deviation
        )
    if not deviation.largest:
        return WeightDifference("sign of zero", f"{count} are zeros of the other sign", deviation)
    places = np.unique(np.random.default_rng(0).integers(0, trained.size, SAMPLED))
    sample = wanted.reshape(-1)[places], constant.reshape(-1)[places]
    for classify in (_signs, _partly_rounded, _scaled):
        # What a sample rules out need not be looked for in all.
        if classify(*sample, count).kind:
            result = classify(wanted.reshape(-1), constant.reshape(-1), count)
            if result.kind:
                return result._replace(deviation=deviation)
    return _grid(wanted, constant, deviation) or _unlike(*sample, deviation, count)


def _one_element(trained: Array, wanted: Array, constant: Array, deviation: Deviation) -> str:
    unlike = bits_of(wanted) != bits_of(constant)
    left, right = wanted[unlike][0], constant[unlike][0]
    flipped = int(bits_of(np.array([left]))[0]) ^ int(bits_of(np.array([right]))[0])
    which = (
        f"one of {number_of(trained.size, 'value')}, at {list(deviation.place)}"
        if trained.size > 1
        else "its one value"
    )
    words = f"{which}: {left:.9g} was trained, {right:.9g} is there"
    return words + (f" (bit {flipped.bit_length() - 1} is flipped)" if flipped.bit_count() == 1 else "")


def _signs(wanted: Array, constant: Array, count: str) -> WeightDifference:
    if np.array_equal(wanted, -constant):
        return WeightDifference("sign flipped", "the sign of all values is flipped")
    if np.array_equal(np.abs(wanted), np.abs(constant)):
        return WeightDifference("sign flipped", f"the sign of {count} is flipped")
    return NONE


def _partly_rounded(wanted: Array, constant: Array, count: str) -> WeightDifference:
    """Whether each value that differs is the trained one rounded, while others are not."""
    unlike = wanted != constant
    left, right = wanted[unlike], constant[unlike]
    for rounding in ROUNDINGS:
        if rounding.low_bits and np.array_equal(rounding.apply(left), right, equal_nan=True):
            return WeightDifference("rounded and back", f"{count} are {rounding.words} and back")
    return NONE


def _scaled(wanted: Array, constant: Array, _count: str) -> WeightDifference:
    """Whether the constant is the weight times one factor.

    The product is rounded once, and so may be the factor; the factor fitted here is as near to it as the mean of these roundings.
    """
    left, right = wanted.astype(np.float64), constant.astype(np.float64)
    square = float(left @ left)
    factor = float(left @ right) / square if square else 0.0
    if not factor or left.size < 4 or not np.all(np.abs(right - factor * left) <= 3 * UNIT * np.abs(right) + SMALLEST):
        return NONE
    return WeightDifference("scaled", f"all values are multiplied by {factor:.7g}", factor=factor)


def _grid(wanted: Array, constant: Array, deviation: Deviation) -> WeightDifference | None:
    """Whether the constant lies on 256 equidistant values, of all or of each slice along an axis, and within half a step of the weight."""
    for axis in (None, *(axis for axis in range(constant.ndim) if constant.shape[axis] > 1)):
        length = 1 if axis is None else constant.shape[axis]
        if constant.size // length < 16:
            continue
        # A few slices, or a few elements, rule it out where it is not so.
        if axis is None and np.unique(constant.reshape(-1)[:SAMPLED]).size > 256:
            continue
        first = np.arange(min(length, 4))
        if axis is not None and not _on_grid(np.take(wanted, first, axis), np.take(constant, first, axis), axis):
            continue
        if _on_grid(wanted, constant, axis):
            where = "" if axis is None else f" of each slice along axis {axis}"
            words = f"truncated to 256 equidistant values{where}"
            return WeightDifference("truncated to 8 bits", words, deviation)
    return None


def _on_grid(wanted: Array, constant: Array, axis: int | None) -> bool:
    axes = tuple(i for i in range(constant.ndim) if i != axis)
    lowest = constant.min(axes, keepdims=True).astype(np.float64)
    highest = constant.max(axes, keepdims=True).astype(np.float64)
    largest = np.maximum(np.abs(lowest), np.abs(highest))
    for step, start in ((largest / 127, 0.0), (largest / 128, 0.0), ((highest - lowest) / 255, lowest)):
        steps = (constant - start) / np.where(step > 0, step, 1.0)
        # A value of float32 is at most 2^-24 of 255 steps off its place on the grid.
        if np.abs(steps - np.round(steps)).max() <= 2.0**-14 and np.all(np.abs(constant - wanted) <= step * 0.51):
            return True
    return False


def _unlike(wanted: Array, constant: Array, deviation: Deviation, count: str) -> WeightDifference:
    left, right = wanted.astype(np.float64), constant.astype(np.float64)
    left_gap, right_gap = left - left.mean(), right - right.mean()
    norm = float(np.sqrt((left_gap @ left_gap) * (right_gap @ right_gap)))
    correlation = float(left_gap @ right_gap) / norm if norm else 1.0
    # The correlation of n independent pairs has a standard deviation of 1 / sqrt(n).
    if left.size >= 64 and abs(correlation) < min(0.5, 6 / left.size**0.5):
        words = f"other values altogether (their correlation is {correlation:.2g}): of another layer or checkpoint"
        return WeightDifference("uncorrelated", words, deviation)
    mean_square = float(np.sqrt(np.mean((left - right) ** 2)))
    spread = float(left.std())
    share = f", {mean_square / spread:.2g} of their spread in the mean" if spread else ""
    return WeightDifference(
        "", f"{count} differ, by up to {deviation.largest:.3g} at {list(deviation.place)}{share}", deviation
    )
