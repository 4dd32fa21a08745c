"""The verdict end to end: an output against how far rounding moves the truth.

The spread of an element is the root mean square of how far it moved over the draws of rounding. The error is held against
the largest of it, the mean spread of its tensor (eight draws leave some elements where they were), and one rounding of the
output. LIMIT leaves a factor of ten above what was seen of healthy runtimes: 1.6 on trained models (docs/zoo.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from actconform.checking.flatten import wide
from actconform.onnx.evaluate.element_types import FORMATS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.checking.flatten import Array
    from actconform.checking.result import OutputCheck
    from actconform.types.case import Bundle
    from actconform.types.dtypes import FloatFormat

LIMIT = 16.0
MOST_ABOVE = 1024.0  # times the median spread: one huge element must not lend its spread to all others


def output_verdict(
    output: OutputCheck,
    got: Array,
    truth: Array,
    draws: Sequence[Bundle],
    element_type: int,
    swayed: Sequence[Bundle] = (),
    *,
    quantized: bool = False,
) -> OutputCheck:
    """Return `output`, which has its name, sample and shape, with its verdict; `draws` are the outputs of the draws of rounding.

    With the outputs of draws whose ties are `swayed`, each element may be off by as much as these move it as well. Of a graph that is
    `quantized` rounding moves some elements by whole levels, and which they are is chance: each may be off by as much as those.
    """
    name, value = output.name, wide(got)
    steady = all(name in draw and draw[name].shape == truth.shape for draw in (*draws, *swayed))
    if not steady:
        return replace(output, unjudged="rounding decides its shape")
    if value.shape != truth.shape:
        reason = f"its shape is {list(value.shape)}, and should be {list(truth.shape)}"
        return replace(output, spreads=np.inf, reason=reason, explained=False)
    if value.size == 0:
        return output
    moved, decided = [draw[name] for draw in draws], [draw[name] for draw in swayed]
    if truth.dtype.kind != "f":
        return _of_integers(output, value, truth, moved + decided)
    return _of_floats(output, value, truth, moved, decided, element_type, quantized=quantized)


def _of_integers(output: OutputCheck, got: Array, truth: Array, moved: Sequence[Array]) -> OutputCheck:
    """Integers and booleans are decisions: one that differs is explained where a draw of rounding decides it otherwise too."""
    differ = got != truth
    swayed = np.zeros(truth.shape, bool)
    for array in moved:
        swayed |= array != truth
    error = np.abs(got.astype(np.float64) - truth.astype(np.float64))
    worst = int(np.argmax(np.where(differ & ~swayed, error, -1.0)))
    explained = not (differ & ~swayed).any()
    return replace(
        output,
        spreads=float(differ.any()) if explained else np.inf,
        error=float(error.max()),
        spread=float(np.mean(swayed)),
        magnitude=float(np.abs(truth.astype(np.float64)).max()),
        place=_place(worst, truth.shape),
        got=float(got.flat[worst]),
        wanted=float(truth.flat[worst]),
        decisions=truth.size,
        decided_alike=int(truth.size - np.count_nonzero(differ)),
        explained=explained,
    )


def _of_floats(
    output: OutputCheck,
    got: Array,
    truth: Array,
    moved: Sequence[Array],
    swayed: Sequence[Array],
    element_type: int,
    *,
    quantized: bool,
) -> OutputCheck:
    fmt = FORMATS.get(element_type)
    unit, mean = spread_units(truth, moved, element_type)
    with np.errstate(all="ignore"):
        if quantized and fmt is not None:
            unit = np.fmax(unit, _spread_by_levels(truth, moved, fmt))
        if swayed:
            unit = np.fmax(unit, np.sqrt(_mean_squares(truth, swayed)))
        size = np.abs(truth)
        overflowed = np.zeros(truth.shape, bool)
        if fmt is not None:
            overflowed = np.isinf(got) & np.isfinite(truth) & (np.sign(got) * truth + LIMIT * unit >= fmt.overflow)
        same = (got == truth) | (np.isnan(got) & np.isnan(truth)) | overflowed
        error = np.abs(got - truth)
        spreads = np.nan_to_num(np.where(same | np.isposinf(unit), 0.0, error / unit), nan=np.inf, posinf=np.inf)
    worst = int(np.argmax(spreads))
    decisions, alike = _decisions(got, truth)
    return replace(
        output,
        spreads=float(spreads.flat[worst]),
        error=float(np.max(error, where=np.isfinite(error), initial=0.0)),
        spread=mean,
        magnitude=float(np.max(size, where=np.isfinite(size), initial=0.0)),
        place=_place(worst, truth.shape),
        got=float(got.flat[worst]),
        wanted=float(truth.flat[worst]),
        nonfinite=int(np.count_nonzero(~same & ~np.isfinite(error))),
        overflowed=int(np.count_nonzero(overflowed)),
        decisions=decisions,
        decided_alike=alike,
        explained=bool(spreads.flat[worst] <= LIMIT and not overflowed.any()),
    )


def spread_units(truth: Array, moved: Sequence[Array], element_type: int) -> tuple[Array, float]:
    """Return what the error of each element is measured in, infinite where rounding leaves nothing, and the mean spread."""
    fmt = FORMATS.get(element_type)
    with np.errstate(all="ignore"):
        spread = np.sqrt(_mean_squares(truth, moved))
        finite = np.isfinite(spread)
        mean = float(np.mean(spread, where=finite)) if finite.any() else 0.0
        moving = spread[finite & (spread > 0)]
        common = min(mean, MOST_ABOVE * float(np.median(moving))) if moving.size else 0.0
        size = np.where(np.isfinite(truth), np.abs(truth), 0.0)
        rounding = size * fmt.unit_roundoff + fmt.smallest_normal if fmt else size * 2.0**-53
        return np.maximum(np.maximum(np.where(finite, spread, np.inf), common), rounding), mean


def _spread_by_levels(truth: Array, moved: Sequence[Array], fmt: FloatFormat) -> float:
    """Return the median spread of the elements that more than rounding of the output itself moves; 0 where there are none."""
    spread = np.sqrt(_mean_squares(truth, moved))
    by_levels = spread[np.isfinite(spread) & (spread > LIMIT * fmt.unit_roundoff * np.abs(truth))]
    return float(np.median(by_levels)) if by_levels.size else 0.0


def _mean_squares(truth: Array, moved: Sequence[Array]) -> Array:
    """Return the mean square of how far the draws move each element: 0 for an infinity or NaN that all draws leave as it is."""
    total = np.zeros(truth.shape)
    for array in moved:
        same = (array == truth) | (np.isnan(array) & np.isnan(truth))
        total += np.where(same, 0.0, array - truth) ** 2
    return total / max(len(moved), 1)


def _decisions(got: Array, truth: Array) -> tuple[int, int]:
    """Return in how many rows the largest element can be looked for, and in how many both have it at the same place."""
    if truth.ndim < 2 or not 2 <= truth.shape[-1] <= 100_000:
        return 0, 0
    alike = np.argmax(got, axis=-1) == np.argmax(truth, axis=-1)
    decided = ~np.isnan(truth).any(axis=-1)
    return int(np.count_nonzero(decided)), int(np.count_nonzero(alike & decided))


def _place(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def ill_conditioned(truth: Array, moved: Sequence[Array], fmt: FloatFormat | None) -> dict[str, Any]:
    """Return the mean spread of an output, its magnitude, and whether rounding leaves fewer than a third of the format's digits."""
    precision = fmt.precision if fmt else 53
    with np.errstate(all="ignore"):
        spread = float(np.nan_to_num(np.sqrt(np.mean(_mean_squares(truth, moved))), nan=np.inf))
    magnitude = float(np.max(np.abs(truth), where=np.isfinite(truth), initial=0.0))
    return {
        "spread": spread,
        "magnitude": magnitude,
        "ill_conditioned": bool(magnitude > 0 and spread > magnitude * 2.0 ** (-precision / 3)),
    }
