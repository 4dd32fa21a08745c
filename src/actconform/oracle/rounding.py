"""Rounding binary64 once, to nearest with ties to even, into the smaller formats; and their bit patterns.

ml_dtypes and torch convert float64 to bfloat16 through float32, which rounds twice: 1 + 2**-8 + 2**-40 becomes 1.0 instead
of 1.0078125. The arithmetic here is on the integers of the binary64 encoding.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from actconform.types.dtypes import FloatFormat

F64: TypeAlias = NDArray[np.float64]

_ONE = np.uint64(1)
_LAST_PLACE_1 = 1.5 * 2.0**52  # its last place is worth 1, and so is that of its neighbours


def round_to(values: F64, target: FloatFormat) -> F64:
    """Return each value rounded once, to nearest with ties to even, to a number of `target`, held in float64.

    Any shape. Results below the smallest normal number are subnormal numbers of it; from `target.overflow` on they are
    infinite. -0, the infinities and NaN stay. `target` is narrower than binary64 in precision and in exponents.
    """
    values = np.asarray(values, dtype=np.float64)
    dropped = np.uint64(53 - target.precision)  # of the bits of the fraction
    unit = np.uint64(1) << dropped
    bits = values.view(np.uint64)
    rounded_bits = (bits >> dropped) & _ONE  # a tie goes up from an odd number
    rounded_bits += (unit >> _ONE) - _ONE
    rounded_bits += bits
    rounded_bits &= ~(unit - _ONE)
    rounded: F64 = rounded_bits.view(np.float64)
    size = np.abs(values)
    small = size < target.smallest_normal
    if small.any():
        anchor = (
            _LAST_PLACE_1 * target.smallest_subnormal
        )  # a sum with it is a multiple of the smallest subnormal number
        with np.errstate(invalid="ignore"):  # a signalling NaN elsewhere
            subnormal = (size + anchor) - anchor
        rounded = np.where(small, np.copysign(subnormal, values), rounded)
    large = ~(size < target.largest)
    if large.any():
        rounded = np.where(large & (np.abs(rounded) > target.largest), np.copysign(np.inf, values), rounded)
        rounded = np.where(np.isfinite(values), rounded, values)
    return np.asarray(rounded)  # numpy's operations give a number where there are no axes


def to_bits(values: F64, target: FloatFormat) -> NDArray[np.uint16]:
    """Return the pattern of each value rounded once to the 16-bit `target`; every NaN is the quiet one with no other bit set."""
    rounded = round_to(values, target)
    mantissa_bits = np.uint64(target.precision - 1)
    largest_bits, smallest = _infinity_bits(target), target.smallest_subnormal
    size = np.abs(rounded)
    with np.errstate(invalid="ignore", over="ignore"):
        subnormal = (size / smallest).astype(np.uint64)
    # In both encodings the exponent field is followed by the fraction: drop the surplus fraction bits, then shift the bias.
    normal = (size.view(np.uint64) >> (np.uint64(52) - mantissa_bits)) - (
        np.uint64(1023 - target.emax) << mantissa_bits
    )
    bits = np.where(size < target.smallest_normal, subnormal, normal)
    bits = np.where(np.isinf(size), largest_bits, bits) | (np.signbit(rounded).astype(np.uint64) << np.uint64(15))
    quiet = largest_bits | (np.uint64(1) << (mantissa_bits - np.uint64(1)))
    return np.where(np.isnan(rounded), quiet, bits).astype(np.uint16)


@cache
def all_patterns(target: FloatFormat) -> F64:
    """Return the 65,536 values of the 16-bit `target` in the order of their patterns 0, 1, ... 65535, exactly, in float64; read-only."""
    patterns = np.arange(1 << 16)
    mantissa_bits = target.precision - 1
    fraction = patterns & ((1 << mantissa_bits) - 1)
    field = (patterns >> mantissa_bits) & (2 * target.emax + 1)
    # Field 0 holds the subnormal numbers: the exponent of field 1 without the hidden bit.
    significand = np.where(field == 0, fraction, fraction + (1 << mantissa_bits))
    size = np.ldexp(significand.astype(np.float64), np.maximum(field, 1) - target.emax - mantissa_bits)
    size = np.where(field == 2 * target.emax + 1, np.where(fraction == 0, np.inf, np.nan), size)
    values = np.copysign(size, np.where(patterns >> 15 == 1, -1.0, 1.0))
    values.flags.writeable = False
    return values


def _infinity_bits(target: FloatFormat) -> np.uint64:
    return np.uint64((2 * target.emax + 1) << (target.precision - 1))
