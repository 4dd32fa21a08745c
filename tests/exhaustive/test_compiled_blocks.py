"""Blocks that compiled code counts have the statistics of NumPy's blocks, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.catalog.kernels import KERNELS
from actconform.exhaustive import measure
from actconform.exhaustive.measure import SweptFunction, measured_chunk

# zero and subnormals; |x| about 2**-23, 2**-7, 1, 2**7; the largest numbers, infinity, NaN; zero, 1 and NaN of the other sign
CHUNKS = (0, 52, 60, 63, 66, 127, 128, 191, 255)


def of_faults(function):
    """A program that is right but for roundings, and at some inputs plainly wrong."""

    def call(x):
        with np.errstate(all="ignore"):
            y = function.formula(x.astype(np.float64), function.kernel.parameters).astype(np.float32)
            y[::7] = np.nextafter(y[::7], np.float32(1))
            y[5 :: 1 << 14] *= np.float32(1.001)
            y[9 :: 1 << 15] = np.nan
            y[1 << 13 :: 1 << 15] = 0  # flushed
        return y

    return call


@pytest.mark.parametrize(
    ("kernel", "aspect"),
    [("tanh", "value"), ("gelu-tanh", "value"), ("silu", "gradient"), ("softsign", "gradient"), ("elu", "value")],
)
def test_compiled_blocks_count_as_numpys(kernel, aspect, monkeypatch):
    pytest.importorskip("numba")
    function = SweptFunction.of(KERNELS[kernel], aspect)
    monkeypatch.setattr(measure, "BLOCK", 1 << 12)  # some without a fault
    plain = [
        repr(measured_chunk(function, chunk, "sample", of_faults(function))) for chunk in CHUNKS
    ]  # NaN is not equal
    monkeypatch.setattr(measure, "COMPILED_FROM", 0)
    added = count_plain(monkeypatch)
    assert [repr(measured_chunk(function, chunk, "sample", of_faults(function))) for chunk in CHUNKS] == plain
    assert True in added
    assert False in added


def count_plain(monkeypatch):
    """Return a list that gets, of each block, whether compiled code counted it."""
    from actconform.elements.compiled import PlainBlocks

    added, add = [], PlainBlocks.add

    def noted(*of):
        errors = add(*of)
        added.append(errors is not None)
        return errors

    monkeypatch.setattr(PlainBlocks, "add", noted)
    return added
