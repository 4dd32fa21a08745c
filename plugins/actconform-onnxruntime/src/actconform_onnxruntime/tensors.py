"""Tensors on their way into ONNX Runtime and out of it: bfloat16 goes by its bit patterns, which it neither takes nor gives."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from actconform import Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray

BFLOAT16 = 16  # TensorProto.BFLOAT16


def to_ort(array: NDArray[Any]) -> Any:
    """Return an OrtValue in main memory that shares the memory of `array`, or of a contiguous copy where it is not.

    Raises `Unsupported` for bfloat16 where this release takes none.
    """
    from onnxruntime import OrtValue

    array = np.asarray(array, order="C")  # not ascontiguousarray, which makes a scalar a vector
    if array.dtype == ml_dtypes.bfloat16:
        if not hasattr(OrtValue, "ortvalue_from_numpy_with_onnx_type"):
            raise Unsupported("this ONNX Runtime takes no bfloat16 from Python: take 1.20 or newer")
        return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), BFLOAT16)
    return OrtValue.ortvalue_from_numpy(array)


def from_ort(value: Any) -> NDArray[Any]:
    """Return an OrtValue's numbers as an array of their own; raise RuntimeError for bfloat16 outside main memory."""
    if value.data_type() != "tensor(bfloat16)":
        array: NDArray[Any] = value.numpy()
        return array
    shape = tuple(value.shape())
    size = int(np.prod(shape, dtype=np.int64))
    if size == 0:
        return np.empty(shape, ml_dtypes.bfloat16)
    if value.device_name() != "cpu":
        raise RuntimeError(f"a bfloat16 output lies on {value.device_name()}, expected main memory")
    bits = np.ctypeslib.as_array((ctypes.c_uint16 * size).from_address(value.data_ptr()))
    result: NDArray[Any] = bits.copy().view(ml_dtypes.bfloat16).reshape(shape)
    return result
