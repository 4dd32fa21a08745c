"""All 2**32 patterns of float32 in 256 chunks of 2**24, two binades each; or a sample of each binade."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Extent: TypeAlias = Literal["sample", "quick", "all"]
EXTENTS: tuple[Extent, ...] = get_args(Extent)

CHUNKS = 256
BINADES = 512  # sign and exponent: the first nine bits of a pattern
MANTISSAS = 1 << 23  # patterns of a binade
PATTERNS = BINADES * MANTISSAS
ENDS = (
    64  # patterns at each end of a sampled binade: zeros, infinities, the smallest and largest numbers are among them
)
SAMPLE = 1 << 15  # patterns of a sampled binade: the same number in each, for what compiles for each shape
QUICK_EXPONENTS = range(127 - 15, 127 + 7)  # 2**-15 <= |x| < 128, whole in the quick extent


def binades_of(chunk: int) -> tuple[int, int]:
    """Return the two binades of a chunk, 0 to 511: sign and biased exponent."""
    return 2 * chunk, 2 * chunk + 1


def is_whole(binade: int, extent: Extent) -> bool:
    """Tell whether all patterns of a binade are swept: of the quick extent where 2**-15 <= |x| < 128, of a sample nowhere."""
    return extent == "all" or (extent == "quick" and (binade & 0xFF) in QUICK_EXPONENTS)


def patterns(binade: int, extent: Extent) -> NDArray[np.uint32]:
    """Return the patterns of a binade that are swept, ascending, as uint32: all 2**23, or of a sampled one 2**15.

    A sample is the first and last 64 patterns and others about 257 apart, so that every low bit varies.
    """
    first = binade * MANTISSAS
    if is_whole(binade, extent):
        return np.arange(first, first + MANTISSAS, dtype=np.uint32)
    between = SAMPLE - 2 * ENDS
    middle = ENDS + np.arange(between, dtype=np.int64) * (MANTISSAS - 2 * ENDS) // between
    ends = np.arange(ENDS)
    return (first + np.concatenate([ends, middle, MANTISSAS - ENDS + ends])).astype(np.uint32)


def swept_inputs(chunk: int, extent: Extent) -> int:
    """Return how many patterns of a chunk are swept."""
    return sum(MANTISSAS if is_whole(binade, extent) else SAMPLE for binade in binades_of(chunk))


def chunk_order() -> list[int]:
    """Return the chunks by their distance from |x| = 1, so that a sweep that ends early has what matters most."""
    middle = 127 // 2
    return sorted(range(CHUNKS), key=lambda chunk: (abs((chunk & 0x7F) - middle), chunk))
