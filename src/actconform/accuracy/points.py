"""The inputs at which primitives are measured: all patterns of 16 bits, and float32 by binades, dense where functions are troubled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

POINTS = 6_000_000  # about how many float32 inputs a primitive gets by default
CHUNK = 1 << 23  # how many at a time where all patterns are measured

# Around these, and their mirror images, neighbouring float32 numbers are measured: edges of overflow and underflow of exp, sigmoid
# and erfc, where tanh and erf saturate, where approximations change over (log1p, expm1, erf, tanh, softplus), and the ends of the format.
TROUBLE = (
    *(
        0.0,
        2.0**-126,
        1.0,
        2.0,
        0.5,
        0.35,
        0.41,
        0.625,
        0.693147,
        0.707107,
        1.41421,
        0.0004,
        0.02,
        0.25,
        0.84375,
        3.92,
        4.0,
    ),
    *(5.0, 7.90531, 8.317766, 8.664, 9.0109, 9.19454, 10.0547, 13.8, 15.942385, 16.6355, 17.32868, 18.0, 20.0),
    *(
        87.33654,
        87.68311,
        88.02969,
        88.37626,
        88.72284,
        89.0,
        103.27893,
        103.97208,
        104.0,
        2.0**126,
        2.0**127,
        3.4028235e38,
    ),
)

DTYPES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}


def inputs(dtype: str, points: int = POINTS) -> NDArray[Any]:
    """Return the inputs to measure at in `dtype`, NaN and infinities among them: all patterns in 16 bits, about `points` of float32.

    A third of these lie evenly in all binades of both signs, subnormal ones included, a third in those from 2**-30 to 2**7, a third evenly in
    -110 to 110 and around TROUBLE. The same points in every process.
    """
    if dtype != "f32":
        return np.arange(1 << 16, dtype=np.uint16).view(DTYPES[dtype])
    rng = np.random.default_rng(20)
    third = points // 3
    subnormal = np.concatenate([rng.integers(1 << n, 2 << n, max(third // 554, 2), np.uint32) for n in range(23)])
    sides = [_in_binades(range(1, 255), third // 554, rng), subnormal, _in_binades(range(97, 134), third // 74, rng)]
    near = np.arange(third // (8 * len(TROUBLE)), dtype=np.int64) - third // (16 * len(TROUBLE))
    middles = np.array(TROUBLE, np.float32).view(np.uint32).astype(np.int64)
    sides.append(np.clip(middles[:, None] + near, 0, 0x7F800001).ravel().astype(np.uint32))
    bits = np.concatenate(sides)
    even = rng.uniform(-110.0, 110.0, third * 3 // 4).astype(np.float32)
    return np.concatenate([bits.view(np.float32), (bits | np.uint32(1 << 31)).view(np.float32), even])


def everything(dtype: str) -> Iterator[NDArray[Any]]:
    """Yield all patterns of `dtype` in chunks."""
    if dtype != "f32":
        yield inputs(dtype)
        return
    for start in range(0, 1 << 32, CHUNK):
        yield np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32).view(np.float32)


def partners(x: NDArray[Any]) -> NDArray[Any]:
    """Return a second operand for each element: those of `x` in another order, half of them near the first in size."""
    rng = np.random.default_rng(21)
    y = rng.permutation(x)
    close = x[::2] * rng.uniform(0.25, 4.0, x[::2].shape).astype(x.dtype)
    y[::2] = close
    return y


def _in_binades(exponents: range, each: int, rng: np.random.Generator) -> NDArray[np.uint32]:
    """Return bit patterns of positive numbers with these biased exponents: both ends of each binade, and at random within."""
    mantissas = rng.integers(0, 1 << 23, (len(exponents), max(each, 4)), np.uint32)
    mantissas[:, :4] = [0, 1, 0x7FFFFF, 0x7FFFFE]
    bits: NDArray[np.uint32] = mantissas | (np.array(exponents, np.uint32)[:, None] << np.uint32(23))
    return bits.ravel()
