"""Tensors on their way into ONNX Runtime and out of it: bfloat16 and float8 go by their bits, as it takes and gives them no other way."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from actconform import Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray

# By the name of their type in ONNX Runtime: the type in numpy, and the number in TensorProto.
BY_BITS: dict[str, tuple[np.dtype[Any], int]] = {
    "tensor(bfloat16)": (np.dtype(ml_dtypes.bfloat16), 16),
    "tensor(float8e4m3fn)": (np.dtype(ml_dtypes.float8_e4m3fn), 17),
    "tensor(float8e4m3fnuz)": (np.dtype(ml_dtypes.float8_e4m3fnuz), 18),
    "tensor(float8e5m2)": (np.dtype(ml_dtypes.float8_e5m2), 19),
    "tensor(float8e5m2fnuz)": (np.dtype(ml_dtypes.float8_e5m2fnuz), 20),
}
NUMBERS = dict(BY_BITS.values())


def to_ort(array: NDArray[Any]) -> Any:
    """Return an OrtValue in main memory that shares the memory of `array`, or of a contiguous copy where it is not.

    Raises `Unsupported` for bfloat16 and float8 where this release takes none.
    """
    from onnxruntime import OrtValue

    array = np.asarray(array, order="C")  # not ascontiguousarray, which makes a scalar a vector
    if number := NUMBERS.get(array.dtype):
        if not hasattr(OrtValue, "ortvalue_from_numpy_with_onnx_type"):
            raise Unsupported(f"this ONNX Runtime takes no {array.dtype} from Python: take 1.20 or newer")
        return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(f"u{array.dtype.itemsize}"), number)
    return OrtValue.ortvalue_from_numpy(array)


def from_ort(value: Any) -> NDArray[Any]:
    """Return an OrtValue's numbers as an array of their own; raise RuntimeError for bfloat16 or float8 outside main memory."""
    if value.data_type() not in BY_BITS:
        array: NDArray[Any] = value.numpy()
        return array
    dtype, _ = BY_BITS[value.data_type()]
    shape = tuple(value.shape())
    size = int(np.prod(shape, dtype=np.int64))
    if size == 0:
        return np.empty(shape, dtype)
    if value.device_name() != "cpu":
        raise RuntimeError(f"a {dtype} output lies on {value.device_name()}, expected main memory")
    stored = np.ctypeslib.as_array((ctypes.c_uint8 * (size * dtype.itemsize)).from_address(value.data_ptr()))
    result: NDArray[Any] = stored.copy().view(dtype).reshape(shape)
    return result
