"""Arrays that lie otherwise than aligned and contiguous: equal to what was asked for, amid garbage, and watched."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from actconform.workers.layouts import LAYOUTS, lay_out

SHAPES = [(), (0,), (1,), (7,), (3, 4), (1, 5), (2, 3, 4), (2, 1, 3, 2)]


def drawn(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_the_elements_of_the_array_and_nothing_is_changed(layout, shape, dtype):
    array = drawn(shape, dtype)
    laid_out = lay_out(array, layout)
    assert isinstance(laid_out.array, np.ndarray)
    assert (laid_out.array.shape, laid_out.array.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(laid_out.array, array)
    assert laid_out.array.flags.aligned
    assert not laid_out.changed()


def test_each_layout_lies_as_it_is_called():
    array = drawn((4, 6), np.float32)
    views = {layout: lay_out(array, layout).array for layout in LAYOUTS}
    assert views["offset"].flags.c_contiguous
    assert views["offset"].ctypes.data % 64 == 4
    assert views["strided"].strides == (96, 8)
    assert views["reversed"].strides == (-24, -4)
    assert views["padded"].strides == (36, 4)
    assert views["transposed"].strides == (4, 16)
    assert [name for name, view in views.items() if not view.flags.writeable] == ["read-only", "broadcast"]
    halves = lay_out(drawn((9,), np.float16), "offset").array
    assert halves.ctypes.data % 64 == 2


def test_equal_elements_lie_once():
    row = drawn((1, 5), np.float32)
    assert lay_out(np.tile(row, (3, 1)), "broadcast").array.strides == (0, 4)
    ones = lay_out(np.ones((3, 5), np.float32), "broadcast")
    assert ones.array.strides == (0, 0)
    assert (ones.memory.view(np.float32) == 1).sum() == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_beside_an_array_is_nan_for_as_long_as_the_array(layout):
    laid_out = lay_out(np.ones(50, np.float32), layout)
    first = laid_out.array.ctypes.data - laid_out.memory.ctypes.data
    lowest = first + min(0, laid_out.array.strides[0] * 49)
    before = laid_out.memory[lowest % 4 : lowest].view(np.float32)
    after = laid_out.memory[-200:].view(np.float32)
    assert before.size >= 50
    assert np.isnan(before).all()
    assert np.isnan(after).all()


def test_a_write_between_before_and_behind_the_elements_is_seen():
    for place in (0, -1):
        laid_out = lay_out(np.ones(8, np.float32), "strided")
        laid_out.memory[place] = 7
        assert laid_out.changed()
    laid_out = lay_out(np.ones(8, np.float32), "strided")
    between = laid_out.array.ctypes.data - laid_out.memory.ctypes.data + 4
    laid_out.memory[between] = 7
    assert laid_out.changed()
    np.testing.assert_array_equal(laid_out.array, 1)


def test_another_name_is_no_layout():
    with pytest.raises(KeyError, match="diagonal"):
        lay_out(np.ones(3), "diagonal")
