"""The outputs of a program at a chunk, bit for bit: their digest, and at how many inputs two programs differ."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from actconform.exhaustive.patterns import binades_of, patterns, swept_inputs
from actconform.exhaustive.statistics import CountedInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from actconform.exhaustive.patterns import Extent

CALL = 1 << 20  # inputs of one call of the program: 4 MiB in, 4 MiB out
SMALLEST_NAN = 0x7FC00000


def calls_of_chunk(chunk: int, extent: Extent) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    """Yield each call's binade and input patterns, in ascending order of patterns."""
    for binade in binades_of(chunk):
        bits = patterns(binade, extent)
        for start in range(0, bits.size, CALL):
            yield binade, bits[start : start + CALL]


def same_nans(got: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return outputs with one pattern for every NaN: which of them an implementation gives is its own affair."""
    nan = np.isnan(got)
    return np.where(nan, np.uint32(SMALLEST_NAN).view(np.float32), got) if nan.any() else np.ascontiguousarray(got)


def outputs_of_chunk(
    chunk: int, extent: Extent, call: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> tuple[NDArray[np.float32], str]:
    """Return the outputs at a chunk in the order of patterns, every NaN alike, and their SHA-256, which is that of `measured_chunk`."""
    outputs = np.empty(swept_inputs(chunk, extent), "<f4")
    start = 0
    for _, bits in calls_of_chunk(chunk, extent):
        outputs[start : start + bits.size] = same_nans(call(bits.view(np.float32)))
        start += bits.size
    return outputs, hashlib.sha256(outputs.data).hexdigest()


def differing_inputs(
    chunk: int, extent: Extent, first: NDArray[np.float32], second: NDArray[np.float32]
) -> CountedInputs:
    """Return at how many inputs of a chunk two `outputs_of_chunk` differ in a bit; +0 and -0 do."""
    differ = np.flatnonzero(first.view(np.uint32) != second.view(np.uint32))
    bits = np.concatenate([patterns(binade, extent) for binade in binades_of(chunk)])
    return CountedInputs.of(bits[differ])
