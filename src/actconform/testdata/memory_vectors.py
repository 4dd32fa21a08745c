"""Test vectors whose arrays lie otherwise than aligned and contiguous: the same numbers, and the same truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.catalog.models.zoo import PUBLISHED
from actconform.oracle.rounding import round_to
from actconform.testdata.kernel_vectors import STORAGE, TestVectors, truth_of, unary_vector, unstored_vector
from actconform.testdata.regimes import (
    SPECIALS,
    RowDraw,
    normal,
    raw,
    row_cotangent,
    row_inputs,
    signed_powers,
    uniform,
)
from actconform.types.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from actconform.testdata.kernel_vectors import TestVector
    from actconform.types import Aspect, Kernel
    from actconform.types.dtypes import FloatFormat

    F64 = NDArray[np.float64]

REGIME = "memory"
POINTS = 480  # ordinary ones of a unary kernel
SHAPE = (5, 18)  # of the rows
OF_VECTORS = ("offset", "strided", "reversed", "read-only")
OF_ROWS = (*OF_VECTORS, "padded", "transposed")
OF_MODELS = ("offset", "strided", "transposed", "read-only")  # a call of a model takes as long as many of a kernel


def with_layouts(subject: Kernel | Model, aspect: Aspect, vectors: TestVectors) -> TestVectors:
    """Return the test vectors of a case with further ones, of the regime "memory", in each layout that its arrays can have.

    Of unary kernels ordinary numbers, special ones and kinks in disorder; of row kernels ordinary rows; of models
    their own tensors, but for published sizes. Cotangents are also laid out alone; they, and the x of values, are expanded from one element or row (stride 0).
    """
    fmt = vectors.tolerance.fmt
    if isinstance(subject, Model):
        further = [] if PUBLISHED in subject.name else [*_in(OF_MODELS, vectors.vectors[0])]
    elif subject.form == "row":
        further = list(_of_rows(subject, aspect, fmt))
    else:
        further = list(_of_points(subject, aspect, fmt))
    return msgspec.structs.replace(vectors, vectors=[*vectors.vectors, *further])


def _in(layouts: Iterable[str], vector: TestVector) -> Iterator[TestVector]:
    for layout in layouts:
        yield msgspec.structs.replace(vector, regime=REGIME, layout=layout)


def _of_kernel(layouts: Iterable[str], vector: TestVector) -> Iterator[TestVector]:
    yield from _in(layouts, vector)
    if len(vector.inputs) + len(vector.cotangents or ()) > 1:
        yield msgspec.structs.replace(vector, regime=REGIME, layout="strided", first_plain=True)


def _of_points(kernel: Kernel, aspect: Aspect, fmt: FloatFormat) -> Iterator[TestVector]:
    stream = f"{kernel.name}/memory"
    drawn = [uniform(stream, POINTS, -8, 8), SPECIALS, np.array([kink.x for kink in kernel.kinks], np.float32)]
    x = round_to(np.concatenate(drawn).astype(np.float64), fmt)
    x = x[np.argsort(raw(f"{stream}/order", x.size), kind="stable")]
    with np.errstate(over="ignore"):
        inputs = x.astype(STORAGE[fmt.name])
    result = truth_of(kernel, x, gradient=aspect == "gradient")
    if aspect == "value":
        yield from _of_kernel(OF_VECTORS, unary_vector(REGIME, inputs, x, result, None))
        alike = np.full(x.size, np.argsort(np.abs(x))[x.size // 2])  # an ordinary number, again and again
        yield from _in(("broadcast",), unary_vector(REGIME, inputs[alike], x[alike], result[alike], None))
        return
    powers = signed_powers(f"{stream}/powers", x.size).astype(np.float64)
    yield from _of_kernel(OF_VECTORS, unary_vector(REGIME, inputs, x, result, powers))
    yield from _in(("broadcast",), unary_vector(REGIME, inputs, x, result, np.ones(x.size)))


def _of_rows(kernel: Kernel, aspect: Aspect, fmt: FloatFormat) -> Iterator[TestVector]:
    rows = normal(f"{kernel.name}/memory", SHAPE[0] * SHAPE[1], 3.0).reshape(SHAPE)
    inputs = row_inputs(kernel, rows)
    if aspect == "value":
        yield from _of_kernel(OF_ROWS, unstored_vector(kernel, fmt, REGIME, inputs, None))
        alike = row_inputs(kernel, np.tile(rows[:1], (SHAPE[0], 1)))
        yield from _in(("broadcast",), unstored_vector(kernel, fmt, REGIME, alike, None))
        return

    def drawn(shape: tuple[int, ...]) -> F64:
        return row_cotangent(kernel, 0, RowDraw(REGIME, inputs), shape).astype(np.float64)

    yield from _of_kernel(OF_ROWS, unstored_vector(kernel, fmt, REGIME, inputs, drawn))
    yield from _in(("broadcast",), unstored_vector(kernel, fmt, REGIME, inputs, np.ones))
