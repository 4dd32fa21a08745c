"""The inputs: families of points (regimes) for unary kernels, shaped tensors for row kernels, the same on every machine.

All draws come from a counter-based generator seeded by name, read as raw 64-bit words, so that no library version moves a bit.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from actconform.types import Kernel
    from actconform.types.dtypes import FloatFormat

    F32 = NDArray[np.float32]

SPECIAL_LENGTHS = (1, 8, 17, 67)  # scalar, one vector, vector and tail, several vectors and tail
FILLERS = 80
MAX = float(np.finfo(np.float32).max)


class TensorGroup(msgspec.Struct, frozen=True):
    """One set of tensors that belong together: its regime and the shape of each tensor, stored flat one after another."""

    regime: str
    shapes: dict[str, tuple[int, ...]]


def raw(name: str, n: int) -> NDArray[np.uint64]:
    """Return n uniform 64-bit words of the stream called `name` (Philox keyed with its SHA-256)."""
    key = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], np.uint64)
    words: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(n)
    return words


def uniform(name: str, n: int, low: float, high: float) -> F32:
    """Return n float32 between low and high, multiples of (high - low) / 2**32 before rounding."""
    return (low + (raw(name, n) >> np.uint64(32)).astype(np.float64) * ((high - low) / 2.0**32)).astype(np.float32)


def normal(name: str, n: int, scale: float) -> F32:
    """Return n float32 of nearly normal distribution: the sum of twelve uniform words, less six, times `scale`."""
    words = (raw(name, 12 * n) >> np.uint64(40)).astype(np.float64).reshape(n, 12)
    drawn: F32 = ((words.sum(axis=1) / 2.0**24 - 6.0) * scale).astype(np.float32)
    return drawn


def signed_powers(name: str, n: int) -> F32:
    """Return n signed powers of two between 1/2 and 4: cotangents that multiply without rounding."""
    words = raw(name, n) >> np.uint64(60)
    size = 2.0 ** ((words >> np.uint64(1) & np.uint64(3)).astype(np.float64) - 1)
    return np.where(words & np.uint64(1), -size, size).astype(np.float32)


def _from_bits(bits: NDArray[np.uint32]) -> F32:
    return bits.astype(np.uint32).view(np.float32)


def _binades(name: str, exponents: range) -> F32:
    """Eight mantissas in every binade and sign: the ends, their neighbours, and four drawn."""
    drawn = (raw(name, 4 * len(exponents)) >> np.uint64(41)).astype(np.uint32).reshape(-1, 4)
    ends = np.broadcast_to(np.array([0, 1, 0x7FFFFE, 0x7FFFFF], np.uint32), drawn.shape)
    biased = np.array([e + 127 for e in exponents], np.uint32)[:, None] << np.uint32(23)
    positive = (biased | np.concatenate([ends, drawn], axis=1)).ravel()
    return _from_bits(np.concatenate([positive, positive | np.uint32(0x80000000)]))


def _subnormals(name: str) -> F32:
    widths = np.arange(23, dtype=np.uint32)
    drawn = (raw(name, 6 * 23) >> np.uint64(41)).astype(np.uint32).reshape(23, 6)
    low = np.uint32(1) << widths[:, None]
    bits = np.concatenate([low, 2 * low - 1, low | (drawn & (low - 1))], axis=1).ravel()
    return _from_bits(np.unique(np.concatenate([bits, bits | np.uint32(0x80000000)])))


def _around(points: list[float], steps: int) -> F32:
    """Each point with its neighbours up to `steps` float32 ULP away on both sides."""
    neighbours = []
    for point in points:
        for direction in (-MAX, MAX):
            x = np.float32(point)
            for _ in range(steps + 1):
                neighbours.append(x)
                x = np.nextafter(x, np.float32(direction))
    return np.unique(np.array(neighbours, np.float32))


SPECIALS = np.array(
    [
        np.nan,
        np.inf,
        -np.inf,
        0.0,
        -0.0,
        1e-45,
        -1e-45,
        2.0**-126,
        -(2.0**-126),
        MAX,
        -MAX,
        1.0,
        -1.0,
        -17.9,
        88.75,
        -104.5,
    ],
    np.float32,
)
# Float32's NaN beside the quiet positive one: negative, signalling of both signs, with a payload
NAN_PATTERNS = np.array([0xFFC00000, 0x7F800001, 0xFF800001, 0x7FC12345], np.uint32)
# Where exp, x*x, x*x*x, cosh overflow or vanish in float32
OVERFLOW_EDGES = [
    88.72284,
    89.4,
    104.0,
    103.28,
    87.33655,
    44.36,
    1.8446743e19,
    1.3043817e19,
    7.0e12,
    1.7e38,
    5.67e37,
    MAX,
]


def unary_regimes(kernel: Kernel) -> dict[str, F32]:
    """Return the float32 points of a unary kernel by regime, all but `hard`, about 10,000 in all.

    ordinary in [-8, 8]; tail to +-120; edge: every binade of normal numbers and overflow edges; huge from 2**64;
    subnormal; kink: kinks, roots and 0 with their neighbours; special, followed by the ordinary numbers that fill its arrays.
    """
    name = kernel.name
    grid = np.arange(-512, 513, dtype=np.float32) / np.float32(64)
    edges = [sign * edge for edge in OVERFLOW_EDGES for sign in (-1.0, 1.0)]
    joints = [0.0, 1.0, -1.0, *(kink.x for kink in kernel.kinks), *kernel.gradient_roots]
    return {
        "ordinary": np.concatenate([uniform(f"{name}/ordinary", 2048, -8, 8), grid]),
        "tail": np.concatenate([uniform(f"{name}/tail-", 768, -120, -8), uniform(f"{name}/tail+", 768, 8, 120)]),
        "edge": np.concatenate([_binades(f"{name}/edge", range(-126, 64)), _around(edges, 4)]),
        "huge": _binades(f"{name}/huge", range(64, 128)),
        "subnormal": _subnormals(f"{name}/subnormal"),
        "kink": _around(joints, 8),
        "special": np.concatenate([SPECIALS, uniform(f"{name}/fill", FILLERS, -4, 4)]),
    }


COTANGENT_SIZES = np.array([1.0, 2.0**-20, 1024.0, 2.0**30], np.float32)


def _cotangent_sizes(fmt: FloatFormat) -> F32:
    """Return the sizes that leave the format room for what is computed with them; 1 in place of others."""
    return np.where(2.0 ** (fmt.emax / 2 + 5) > COTANGENT_SIZES, COTANGENT_SIZES, np.float32(1.0))


def mixed_cotangents(name: str, n: int, fmt: FloatFormat) -> F32:
    """Return n cotangents of all 24 bits of a significand, about 1, 2**-20, 2**10 and 2**30 in size, the last not in f16; every sixteenth 0."""
    size = _cotangent_sizes(fmt)[(raw(f"{name}/size", n) >> np.uint64(62)).astype(np.int64)]
    return _full_significands(name, n) * size


def row_cotangents(name: str, shape: tuple[int, ...], fmt: FloatFormat) -> F32:
    """Return cotangents of rows of all 24 bits of a significand, each row of one size of `mixed_cotangents`, every sixteenth 0."""
    size = np.resize(_cotangent_sizes(fmt), shape[0]).reshape(-1, *([1] * (len(shape) - 1)))
    return _full_significands(name, math.prod(shape)).reshape(shape) * size


def _full_significands(name: str, n: int) -> F32:
    sign = np.where(raw(f"{name}/sign", n) >> np.uint64(63), -1.0, 1.0).astype(np.float32)
    drawn: F32 = uniform(name, n, 1.0, 2.0) * sign
    drawn[::16] = 0.0
    return drawn


def special_placements(start: int, kinks: Sequence[int] = ()) -> list[NDArray[np.int64]]:
    """Return, for the `special` points that begin at `start` and the points `kinks`, the index array of each call.

    Every such point stands once in the body and at the end of an array of each length, among ordinary fillers, so that both the
    vector loop and the scalar tail of an implementation meet it.
    """
    calls = []
    fill = start + len(SPECIALS) + np.arange(FILLERS)
    for length in SPECIAL_LENGTHS:
        for point in (*range(start, start + len(SPECIALS)), *kinks):
            index = fill[:length].copy()
            index[[length // 3, length - 1]] = point
            calls.append(index)
    return calls


NAN, INF = np.nan, np.inf
SPECIAL_ROWS: list[list[float]] = [
    [0.0, NAN, 1.0, 2.0],
    [0.0, INF, 1.0, 2.0],
    [-INF, 1.0, -INF, 2.0],
    [-INF, -INF, -INF, -INF],
    [-INF, -INF, -INF, 3.0],
    [INF, -INF, 0.0, 0.0],
    [-0.0, 0.0, -0.0, 0.0],
]
WORKED_ROWS = [[3.0, 2.0, 1.0, 0.1], [2.0, 4.3, 1.2, -3.1]]  # textbook examples of softmax and argmax
SPECIAL_ROW_LENGTHS = (17, 1000, 4096)
ROTATED = 1000
COTANGENT_ROW_LENGTHS = (17, 1000)
HUGE_ROW_LENGTHS = (67, 1000)
SMOOTH = ("softmax", "softmax-axis1", "softmin", "log-softmax", "log-softmax-axis1")  # each slope reads the whole row
LONG = 1 << 17  # a vocabulary: its sums leave float16
REDUCING = ("softmax", "softmin", "log-softmax", "max", "argmax", "hardmax")
HALVED = ("glu", "reglu", "swiglu", "geglu", "maxout")
SHRINKING = (*HALVED, "max", "argmax")


class RowDraw(msgspec.Struct, frozen=True):
    """The inputs of one call of a row kernel; its cotangent is one-hot at `one_hot` on the axis, or drawn where that is None."""

    regime: str
    inputs: dict[str, F32]
    one_hot: int | None = None


def row_draws(kernel: Kernel) -> list[RowDraw]:
    """Return the calls of a row kernel: lengths 1 to 4096, ties, masks of -inf, huge and tiny logits, specials.

    The kernel's axis carries the lengths; kernels that halve it get even ones. Lengths up to 3 come again for each one-hot
    cotangent where the output is as long as the input.
    """
    name = kernel.name
    draws = []
    for rows, n in ((4, 1), (4, 2), (5, 3), (3, 17), (2, 1000), (2, 4096)):
        inputs = row_inputs(kernel, normal(f"{name}/ordinary/{n}", rows * n, 3.0).reshape(rows, n))
        draws.append(RowDraw("ordinary", inputs))
        if n <= 3 and name not in SHRINKING:
            draws += [RowDraw("ordinary", inputs, one_hot) for one_hot in range(n)]
    draws.append(RowDraw("ordinary", row_inputs(kernel, np.array(WORKED_ROWS, np.float32))))
    for n, size in ((8, 80.0), (17, 1e4), (18, 3e38)):
        draws.append(RowDraw("huge", row_inputs(kernel, uniform(f"{name}/huge/{n}", 3 * n, -size, size).reshape(3, n))))
    for n, size in ((16, 1e-30), (18, 1e-40)):
        draws.append(
            RowDraw("subnormal", row_inputs(kernel, uniform(f"{name}/tiny/{n}", 3 * n, -size, size).reshape(3, n)))
        )
    ties = (raw(f"{name}/ties", 4 * 16) >> np.uint64(62)).astype(np.float32) - np.float32(1)
    draws.append(RowDraw("kink", row_inputs(kernel, ties.reshape(4, 16))))
    draws += [RowDraw("special", row_inputs(kernel, np.array([row], np.float32))) for row in SPECIAL_ROWS]
    return draws


def long_special_rows(kernel: Kernel, n: int) -> dict[str, F32]:
    """Return the special rows at length n, never stored: their elements a third of the way, half of it, and last, among drawn ones.

    Where a special row has nothing but -inf beside at most one number, -inf fills it. Rows up to 1000 come in two orders, so that
    each element is the last of one.
    """
    orders = (0, 1) if n <= ROTATED else (0,)
    specials = [[*row[turn:], *row[:turn]] for turn in orders for row in SPECIAL_ROWS]
    rows = normal(f"{kernel.name}/special/{n}", len(specials) * n, 3.0).reshape(len(specials), n)
    for row, special in zip(rows, specials, strict=True):
        if special.count(-INF) >= len(special) - 1:
            row[:] = -INF
        row[[n // 3, n // 2, n - 2, n - 1]] = special
    return row_inputs(kernel, rows)


def huge_rows(kernel: Kernel, n: int) -> dict[str, F32]:
    """Return rows of n large logits, never stored: within 1e4, within 3e38, and all below -1e38."""
    drawn = uniform(f"{kernel.name}/huge/{n}", 3 * n, -1.0, 1.0).reshape(3, n)
    rows = drawn * np.array([[1e4], [3e38], [1e38]], np.float32)
    return row_inputs(kernel, rows + np.array([[0.0], [0.0], [-2e38]], np.float32))


def cotangent_rows(kernel: Kernel, n: int) -> dict[str, F32]:
    """Return six rows of ordinary numbers, never stored, whose gradient is asked with cotangents of all sizes."""
    return row_inputs(kernel, normal(f"{kernel.name}/cotangent/{n}", 6 * n, 3.0).reshape(6, n))


def long_row(kernel: Kernel) -> dict[str, F32] | None:
    """Return one row of 2**17 of a kernel that reduces its axis, used where its sums leave the format and never stored; None for others."""
    if kernel.name not in REDUCING:
        return None
    return row_inputs(kernel, normal(f"{kernel.name}/long", LONG, 3.0).reshape(1, LONG))


def row_inputs(kernel: Kernel, x: F32) -> dict[str, F32]:
    """Return the inputs of a row kernel whose x is made of these rows: as long as it takes them, on its axis, with its slopes."""
    if kernel.name in HALVED and x.shape[1] % 2:
        x = np.concatenate([x, -x], axis=1)
    if kernel.axis == 1:
        x = np.ascontiguousarray(np.stack([x, x[::-1] * np.float32(0.5), -x], axis=2))
    if "slope" in kernel.inputs:
        return {"x": x, "slope": uniform(f"{kernel.name}/slope", x.shape[-1], -0.5, 0.5)}
    return {"x": x}


def row_cotangent(kernel: Kernel, number: int, draw: RowDraw, shape: tuple[int, ...]) -> F32:
    """Return the cotangent of one draw: one-hot, or odd multiples of 1/32 below 2 in size, exact in every format."""
    if draw.one_hot is not None:
        hot = np.zeros(shape, np.float32)
        hot[(slice(None), draw.one_hot) if kernel.axis == 1 else (..., draw.one_hot)] = 1.0
        return hot
    words = (raw(f"{kernel.name}/cotangent/{number}", int(np.prod(shape))) >> np.uint64(58)).astype(np.float32)
    return ((words - np.float32(31.5)) / np.float32(16)).reshape(shape)
