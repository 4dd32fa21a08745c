"""Formats to which weights are rounded on the way into a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import ml_dtypes
import numpy as np

from actconform.checking.trained.weight_layouts import WeightLayout
from actconform.checking.trained.weight_ledger import Deviation
from actconform.checking.trained.weight_values import CHUNK, Array, bits_of, is_constant, trailing_zeros

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.checking.trained.weight_ledger import Ledger


class Rounding(NamedTuple):
    """A format, and how values get there. `apply` takes a canonical array, and returns it rounded, in float32 again."""

    name: str
    words: str
    low_bits: int
    """So many bits at the low end of a float32 are zero in every number of this format."""
    apply: Callable[[Array], Array]


def _to(dtype: type) -> Callable[[Array], Array]:
    def rounded(array: Array) -> Array:
        with np.errstate(all="ignore"):
            return array.astype(dtype).astype(np.float32)

    return rounded


def _truncated(array: Array) -> Array:
    """Return the upper half of each float32: bfloat16 by cutting."""
    single = array.astype(np.float32)
    return (single.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


ROUNDINGS = (
    Rounding("float32", "rounded to float32", 0, _to(np.float32)),
    Rounding("float16", "rounded to float16", 13, _to(np.float16)),
    Rounding("bfloat16", "rounded to bfloat16", 16, _to(ml_dtypes.bfloat16)),
    Rounding("bfloat16", "cut to bfloat16, not rounded", 16, _truncated),
    Rounding("float8_e4m3fn", "rounded to float8_e4m3fn", 20, _to(ml_dtypes.float8_e4m3fn)),
    Rounding("float8_e5m2", "rounded to float8_e5m2", 21, _to(ml_dtypes.float8_e5m2)),
)


def possible_roundings(ledger: Ledger) -> list[Rounding]:
    """Return the roundings after which some open weight might be an open constant, or a part of it."""
    wide = any(ledger.trained(name).dtype == np.float64 for name in ledger.open_parameters())
    constants = map(ledger.constant, ledger.open_constants())
    zeros = [trailing_zeros(array) for array in constants if array.dtype == np.float32 and not is_constant(array)]
    most = max(zeros, default=-1)
    return [rounding for rounding in ROUNDINGS if (rounding.low_bits or wide) and rounding.low_bits <= most]


def deviation_of(expected: Array, constant: Array, layout: WeightLayout | None = None) -> Deviation:
    """Return how far a constant is from what was expected, bit for bit; both canonical, of the shape of the trained weight.

    With a layout the constant has that, and the expected values have the trained shape. NaN in place of a number, or the other way about,
    is an infinite difference.
    """
    layout = layout or WeightLayout(tuple(range(expected.ndim)), constant.shape)
    wanted, got = layout.apply(expected).reshape(-1), constant.reshape(-1)
    if wanted.dtype != got.dtype:
        wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    differing, largest, index = 0, -1.0, 0
    for start in range(0, wanted.size, 16 * CHUNK):
        left, right = wanted[start : start + 16 * CHUNK], got[start : start + 16 * CHUNK]
        unlike = bits_of(left) != bits_of(right)
        if unlike.any():
            differing += int(np.count_nonzero(unlike))
            with np.errstate(all="ignore"):
                gap = np.abs(np.subtract(left, right, dtype=np.float64))
            gap[~unlike] = -1.0
            gap[np.isnan(gap)] = np.inf
            if gap.max() > largest:
                largest, index = float(gap.max()), start + int(gap.argmax())
    if not differing:
        return Deviation()
    return Deviation(differing, largest, layout.place(index, expected.shape))
