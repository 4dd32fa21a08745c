"""Arrays in messages: the bytes that numpy writes and reads, though heads are made and parsed once."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from actconform.workers.serve.frames import npy_array, npy_bytes


def saved(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


ARRAYS = [
    np.arange(6).reshape(2, 3).astype(dtype)[by]
    for dtype in ("f4", "f2", "f8", "i1", "i8", "u2", "?", "c8")
    for by in (np.s_[:], np.s_[0, 0], np.s_[:, :0], np.s_[:, ::-1])
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}-{array.strides}")
def test_arrays_are_written_and_read_as_numpy_does(array):
    ordered = np.ascontiguousarray(array).reshape(array.shape)
    for _ in range(2):  # the second time by the head of the first
        assert npy_bytes(array) == saved(ordered)
        again = npy_array(saved(ordered))
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(again, array)
        assert again.flags.writeable


def test_other_orders_of_elements_and_bytes_are_read():
    array = np.arange(6.0).reshape(2, 3)
    for other in (np.asfortranarray(array), array.astype(">f8")):
        np.testing.assert_array_equal(npy_array(saved(other)), array)
        assert npy_bytes(other) == saved(array)


@pytest.mark.parametrize("content", [b"", saved(np.ones(3))[:-1], saved(np.ones(3)) + b"0", saved(np.ones(3))[:40]])
def test_what_is_no_whole_array_is_refused(content):
    with pytest.raises((ValueError, EOFError)):
        npy_array(content)


def test_objects_are_neither_written_nor_read():
    with pytest.raises(ValueError, match="objects"):
        npy_bytes(np.array([None]))
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        npy_array(saved(np.array([None])))
