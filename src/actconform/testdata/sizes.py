"""The same questions at other lengths and shapes: every short length, long arrays and rows, other ranks, empty arrays.

Inputs of a unary kernel are a block of its points, a prime number of them, repeated: so every point meets every place of a vector,
and the truth of the block is that of any length. Rows are drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform.testdata.kernel_vectors import ORDINARY, TestVector, TestVectors, unary_vector, unstored_vector
from actconform.testdata.regimes import (
    HALVED,
    LONG,
    REDUCING,
    RowDraw,
    raw,
    row_cotangent,
    signed_powers,
    uniform,
)
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from actconform.types import Aspect, Kernel
    from actconform.types.dtypes import FloatFormat

    Shape = tuple[int, ...]

SIZES, SHAPES, EMPTY = OF_SIZES = ("sizes", "shapes", "empty")
BLOCK = 251  # a prime number: no length of a vector or block divides it
VECTOR = 16  # numbers, of the widest vectors
TAILS = (2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15)  # numbers after whole vectors that other regimes leave out
PAGES = (4096, 4097)
INDICES = (1 << 16, (1 << 17) + 7)
MILLION = (1 << 20) + 7
MATRICES: tuple[Shape, ...] = ((17, 17), (1, 37), (37, 1))
OTHER_SHAPES: dict[int, tuple[Shape, ...]] = {
    0: ((),),
    1: ((33,),),
    2: MATRICES,
    3: ((3, 3, 3), (2, 5, 18)),
    4: ((2, 3, 2, 3),),
}
EMPTIES: tuple[Shape, ...] = ((0,), (2, 0, 3))


def with_sizes(kernel: Kernel, aspect: Aspect, dtype: str, test_vectors: TestVectors) -> TestVectors:
    """Return the test vectors with those of other sizes beside them, in `sizes`: regimes sizes, shapes and empty.

    sizes: what every route takes, at other lengths; shapes: other ranks than the kernel declares; empty: arrays without elements.
    The last two may be refused.
    """
    fmt = DTYPES[dtype]
    if kernel.form == "unary":
        return msgspec.structs.replace(test_vectors, sizes=list(_unary(kernel, aspect, fmt, test_vectors.vectors)))
    return msgspec.structs.replace(test_vectors, sizes=list(_rows(kernel, aspect, fmt)))


def _chosen(name: str, choices: Sequence[Any]) -> Any:
    return choices[int(raw(f"{name}/size", 1)[0] % np.uint64(len(choices)))]


def _short(name: str) -> list[int]:
    """Return lengths with each of the tails after one to three vectors, and two below a vector."""
    drawn = [int(word % np.uint64(3)) for word in raw(f"{name}/lengths", len(TAILS) + 2)]
    after = [tail + VECTOR * (1 + vectors) for tail, vectors in zip(TAILS, drawn, strict=False)]
    return [2 + drawn[-2], 9 + 2 * drawn[-1], *after]


def _few(name: str) -> tuple[set[int], set[Shape]]:
    """Return the lengths and the shape that a backend is asked which compiles each."""
    lengths = {_chosen(f"{name}/{place}", choices) for place, choices in enumerate((_short(name), INDICES))}
    return lengths, {_chosen(f"{name}/shape", OTHER_SHAPES[3])}


# Unary kernels


def _unary(kernel: Kernel, aspect: Aspect, fmt: FloatFormat, vectors: Sequence[TestVector]) -> Iterator[TestVector]:
    name = f"{kernel.name}/{aspect}/{fmt.name}"
    block = _block(name, aspect, vectors)
    lengths, shapes = _few(name)
    start = 0
    for n in _short(name):
        index = (start + np.arange(n)) % BLOCK
        start += n
        yield _of_block(block, index, SIZES, each_shape=n not in lengths)
    for n in (*PAGES, *INDICES, *((MILLION,) if aspect == "value" and fmt.bits == 32 else ())):
        yield msgspec.structs.replace(block, rows=n, each_shape=n not in lengths)
    for rank in (0, 2, 3, 4) if aspect == "value" else (0, 3):
        for shape in OTHER_SHAPES[rank]:
            index = (start + np.arange(int(np.prod(shape)))) % BLOCK
            start += index.size
            yield _of_block(block, index.reshape(shape), SHAPES, each_shape=shape not in shapes, may_refuse=True)
    for shape in EMPTIES:
        yield _of_block(block, np.zeros(shape, np.int64), EMPTY, each_shape=len(shape) > 1, may_refuse=True)


def _block(name: str, aspect: Aspect, vectors: Sequence[TestVector]) -> TestVector:
    """Return a test vector of BLOCK points that were asked already, mostly ordinary ones, in a drawn order."""
    (tensor,) = vectors[0].truth
    plain = [vector for vector in vectors if vector.cotangents is None or (vector.cotangents["y"] == 1).all()]
    inputs, x, result = (
        np.concatenate(arrays)
        for arrays in zip(
            *((vector.inputs["x"], vector.input_at[tensor], vector.truth[tensor]) for vector in plain), strict=True
        )
    )
    special = np.concatenate(
        [
            np.full(vector.inputs["x"].size, vector.regime == "special" and vector.inputs["x"].size == 1)
            for vector in plain
        ]
    )
    places = np.concatenate([np.full(vector.inputs["x"].size, vector.regime != "special") for vector in plain])
    usual = np.flatnonzero(places & (np.abs(x) <= ORDINARY) & (np.abs(x) >= 1 / ORDINARY))
    rare = np.flatnonzero(places & ~(np.abs(x) <= ORDINARY) & np.isfinite(x))
    chosen = np.concatenate([np.flatnonzero(special), _spread(rare, BLOCK // 8)])
    chosen = np.concatenate([chosen, _spread(usual, BLOCK - chosen.size)])
    chosen = chosen[np.argsort(raw(f"{name}/block", BLOCK), kind="stable")]
    cotangent = signed_powers(f"{name}/block", BLOCK).astype(np.float64) if aspect == "gradient" else None
    return unary_vector(SIZES, inputs[chosen], x[chosen], result[chosen], cotangent)


def _spread(places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    spread: NDArray[np.int64] = places[np.linspace(0, places.size - 1, count).astype(np.int64)]
    return spread


def _of_block(block: TestVector, index: NDArray[np.int64], regime: str, **flags: bool) -> TestVector:
    """Return the test vector of some elements of the block, in the shape of `index`."""

    def taken(arrays: Any) -> Any:
        return {name: np.asarray(array[index]) for name, array in arrays.items()}  # one element is no array

    return msgspec.structs.replace(
        block,
        regime=regime,
        inputs=taken(block.inputs),
        cotangents=None if block.cotangents is None else taken(block.cotangents),
        truth=taken(block.truth),
        input_at=taken(block.input_at),
        **flags,
    )


# Row kernels


def _rows(kernel: Kernel, aspect: Aspect, fmt: FloatFormat) -> Iterator[TestVector]:
    name = f"{kernel.name}/{aspect}/{fmt.name}"
    lengths, shapes = _few(name)

    def drawn(shape: Shape, regime: str, **flags: bool) -> TestVector:
        inputs = _inputs(kernel, shape)
        cotangent = _cotangent(kernel, inputs["x"]) if aspect == "gradient" else None
        return unstored_vector(kernel, fmt, regime, inputs, cotangent, **flags)

    def in_rank(*shape: int) -> Shape:
        return (*shape, 2 if shape[-1] <= PAGES[-1] else 1) if kernel.axis == 1 else shape

    for n in _short(name)[2:]:  # shorter rows are among the stored ones
        yield drawn(in_rank(2, n), SIZES, each_shape=n not in lengths)
    asked_long = kernel.name in REDUCING and fmt.largest < LONG  # in regime long
    reduces = kernel.name.removesuffix("-axis1") in REDUCING
    for n in (PAGES[-1], LONG) if reduces and not asked_long else (PAGES[-1],):
        # keras counts a row in its dtype, which has no 4097
        yield drawn(in_rank(1, n), SIZES, each_shape=n != LONG, may_refuse=fmt.bits == 16)
    for shape in MATRICES:
        yield drawn((*shape, shape[0]) if kernel.axis == 1 else shape, SIZES, each_shape=shape not in shapes)
    if aspect == "value" or len(kernel.inputs) == 1:  # the gradient of a further input sums over all rows
        block = drawn(in_rank(BLOCK, 3), SIZES, each_shape=True)
        yield msgspec.structs.replace(block, rows=INDICES[0] + 1)
    for rank, shapes_of_rank in OTHER_SHAPES.items():
        if rank != len(kernel.dims("x")) and rank > max(kernel.axis, 0):
            for shape in shapes_of_rank:
                yield drawn(shape, SHAPES, each_shape=shape not in shapes, may_refuse=True)
    yield _without_rows(drawn(in_rank(1, 5), EMPTY, each_shape=False, may_refuse=True))


def _inputs(kernel: Kernel, shape: Shape) -> dict[str, NDArray[Any]]:
    """Return drawn inputs whose x has that shape, its axis twice as long where a kernel that halves it could not; the maximum of long rows stands late."""
    n = shape[kernel.axis]
    if kernel.name in HALVED and n % 2:
        shape = tuple(2 * size if axis == kernel.axis % len(shape) else size for axis, size in enumerate(shape))
    x = uniform(f"{kernel.name}/sizes/{shape}", int(np.prod(shape)), -8.0, 8.0).reshape(shape)
    if n >= PAGES[0]:
        np.moveaxis(x, kernel.axis, 0)[n - n // 8] = x.max() + 0.25
    slopes = {
        name: uniform(f"{kernel.name}/sizes/{name}", shape[-1], -0.5, 0.5) for name in kernel.inputs if name != "x"
    }
    return {"x": x, **slopes}


def _cotangent(kernel: Kernel, x: NDArray[Any]) -> Callable[[Shape], NDArray[Any]]:
    return lambda shape: row_cotangent(kernel, x.size, RowDraw(SIZES, {}), shape).astype(np.float64)


def _without_rows(vector: TestVector) -> TestVector:
    """Return the test vector of one row without it; what sums over rows is 0."""
    rows = {"x", "y", "d_x"}

    def none(arrays: Any) -> Any:
        return {name: array[:0] if name in rows else 0 * array for name, array in arrays.items()}

    return msgspec.structs.replace(
        vector,
        inputs={name: array[:0] if name in rows else array for name, array in vector.inputs.items()},
        cotangents=None if vector.cotangents is None else none(vector.cotangents),
        truth=none(vector.truth),
        input_at=none(vector.input_at),
        bounds=none(vector.bounds),
    )
