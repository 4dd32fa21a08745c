"""The values of weights bit for bit, whatever the format that holds them, and fingerprints that no reordering changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

Array: TypeAlias = NDArray[Any]
Bits: TypeAlias = NDArray[np.uint64]

CHUNK = 1 << 16  # elements: what is computed with them stays in the cache
OFFSET = np.uint64(0x9E3779B97F4A7C15)  # of random bits


class WeightFingerprint(NamedTuple):
    """What two arrays of the same values have in common, in whatever order they stand."""

    format: str
    size: int
    total: int
    """The sum of a hash of each element, modulo 2^64: the total of a concatenation is the sum of the totals."""


def canonical(array: Array) -> Array:
    """Return the values in float32 where it holds them all, else float64; integers and truth values in int64. Bits of NaN stay."""
    if array.dtype.kind in "biu" or (array.dtype.kind == "V" and "int" in array.dtype.name):
        return array.astype(np.int64, copy=False)
    if array.dtype == np.float32:
        return array
    if array.dtype != np.float64:
        return array.astype(np.float32)
    return array.astype(np.float32) if _float32_holds(array) else array


def bits_of(array: Array) -> Array:
    """Return the bits of a canonical array, as unsigned integers of its width. No copy."""
    return np.ascontiguousarray(array).view(np.uint32 if array.dtype == np.float32 else np.uint64)


def is_constant(array: Array) -> bool:
    """Whether all elements of a canonical array have the same bits; an empty one has."""
    if not array.size:
        return True
    flat = bits_of(array).reshape(-1)
    return bool(flat[0] == flat[-1]) and all(bool(np.all(chunk == flat[0])) for chunk in _chunks(flat))


def weight_fingerprint(array: Array) -> WeightFingerprint:
    """Return the fingerprint of a canonical array."""
    total = 0
    for chunk in _chunks(bits_of(array).reshape(-1)):
        total += int(np.sum(_hashed(chunk), dtype=np.uint64))
    return WeightFingerprint(array.dtype.name, array.size, total % 2**64)


def slice_totals(array: Array, axis: int) -> Bits:
    """Return the total of each slice along an axis of a canonical array, as `WeightFingerprint.total` is computed."""
    bits = bits_of(array)
    totals = np.zeros(array.shape[axis], np.uint64)
    axes = tuple(i for i in range(array.ndim) if i != axis)
    rows = max(1, CHUNK * len(array) // max(1, array.size))
    for start in range(0, len(array), rows):
        part = np.sum(_hashed(bits[start : start + rows]), axis=axes, dtype=np.uint64)
        if axis == 0:
            totals[start : start + rows] = part
        else:
            totals += part
    return totals


def trailing_zeros(array: Array) -> int:
    """Return how many bits at the low end are zero in every element of a canonical array; all of them for zeros."""
    bits = bits_of(array).reshape(-1)
    union = int(np.bitwise_or.reduce(bits)) if bits.size else 0
    return (union & -union).bit_length() - 1 if union else 8 * bits.itemsize


def equal_bits(left: Array, right: Array) -> bool:
    """Whether two canonical arrays of one shape hold the same bits."""
    return left.dtype == right.dtype and np.array_equal(bits_of(left), bits_of(right))


def _hashed(bits: Array) -> Bits:
    """Return (bits + offset)^2: the sums of these depend on the sums of the bits and of their squares, modulo 2^64."""
    hashed = bits.astype(np.uint64)
    hashed += OFFSET
    hashed *= hashed
    return hashed


def _chunks(flat: Array) -> Iterator[Array]:
    for start in range(0, flat.size, CHUNK):
        yield flat[start : start + CHUNK]


def _float32_holds(array: Array) -> bool:
    with np.errstate(all="ignore"):
        return all(
            np.array_equal(chunk.astype(np.float32).astype(np.float64), chunk, equal_nan=True)
            for chunk in _chunks(np.ascontiguousarray(array).reshape(-1))
        )
