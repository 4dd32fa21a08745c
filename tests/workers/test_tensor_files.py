"""Files of tensors are those that numpy and onnx write and read."""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from actconform.errors import TensorFileError
from actconform.workers.tensor_files import read_tensor, write_tensor

ARRAYS = {
    "vector": (np.array([1.5, -0.0, np.nan, np.inf], np.float32), TensorProto.FLOAT),
    "matrix": (np.arange(12, dtype=np.float16).reshape(3, 4).T, TensorProto.FLOAT16),
    "scalar": (np.array(0.1), TensorProto.DOUBLE),
    "empty": (np.zeros((0, 3), np.float32), TensorProto.FLOAT),
    "int64": (np.array([[1, -2]], np.int64), TensorProto.INT64),
    "big-endian": (np.array([1.0, 2.0], ">f4"), TensorProto.FLOAT),
}


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_written_others_read(name):
    array, kind = ARRAYS[name]
    np.testing.assert_array_equal(np.load(io.BytesIO(write_tensor("x", array, "npy"))), array)
    tensor = TensorProto.FromString(write_tensor("x", array, "pb"))
    assert (tensor.name, tensor.data_type) == ("x", kind)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), array)


@pytest.mark.parametrize("name", ARRAYS)
def test_what_others_write_is_read(name):
    array, kind = ARRAYS[name]
    np.testing.assert_array_equal(read_tensor(npy(array), "npy", kind), array)
    tensor = numpy_helper.from_array(np.array(array, array.dtype.newbyteorder("="), order="C"), "y")
    there = read_tensor(tensor.SerializeToString(), "pb", kind)
    np.testing.assert_array_equal(there, array)
    assert there.shape == array.shape


def test_bfloat16_is_its_bits_in_npy_and_itself_in_pb():
    array = np.array([1.5, -0.0, np.nan, 3e38], ml_dtypes.bfloat16)
    bits = np.load(io.BytesIO(write_tensor("x", array, "npy")))
    assert bits.dtype == np.uint16
    np.testing.assert_array_equal(bits, array.view(np.uint16))
    tensor = TensorProto.FromString(write_tensor("x", array, "pb"))
    assert tensor.data_type == TensorProto.BFLOAT16
    for form in ("npy", "pb"):
        there = read_tensor(write_tensor("x", array, form), form, TensorProto.BFLOAT16)
        assert there.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(there.view(np.uint16), array.view(np.uint16))
    by_field = TensorProto(dims=[2], data_type=TensorProto.BFLOAT16, int32_data=[0x3FC0, 0x8000])
    np.testing.assert_array_equal(
        read_tensor(by_field.SerializeToString(), "pb", TensorProto.BFLOAT16).view(np.uint16), [0x3FC0, 0x8000]
    )
    assert read_tensor(npy(bits), "npy", TensorProto.UINT16).dtype == np.uint16


HUGE = npy(np.ones(3)).replace(b"(3,), }" + b" " * 14, b"(10000000000000,), }" + b" " * 2)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", npy(np.ones(3))[:-1], npy(np.ones(3)) + b"x", npy(np.ones(3)).replace(b"(3,)", b"(4,)"), HUGE],
)
def test_what_is_no_whole_npy_says_so(content):
    with pytest.raises(TensorFileError):
        read_tensor(content, "npy", TensorProto.FLOAT)


def test_an_array_of_objects_is_not_unpickled():
    stream = io.BytesIO()
    np.save(stream, np.array([{}], object), allow_pickle=True)
    with pytest.raises(TensorFileError, match="allow_pickle"):
        read_tensor(stream.getvalue(), "npy", TensorProto.FLOAT)


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"",
        TensorProto(dims=[3], data_type=TensorProto.FLOAT, raw_data=b"1234").SerializeToString(),
        TensorProto(dims=[3], data_type=TensorProto.BFLOAT16, raw_data=b"12").SerializeToString(),
        TensorProto(dims=[1], data_type=99, raw_data=b"1234").SerializeToString(),
    ],
)
def test_what_is_no_whole_pb_says_so(content):
    with pytest.raises(TensorFileError):
        read_tensor(content, "pb", TensorProto.FLOAT)
