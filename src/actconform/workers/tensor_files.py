"""Tensors in files, as a program in any language reads and writes them: NumPy's .npy, or ONNX's TensorProto in .pb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np

from actconform.errors import TensorFileError
from actconform.workers.serve.frames import npy_array, npy_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

Form = Literal["npy", "pb"]


def file_name(name: str, form: Form) -> str:
    """Return the name of the file that holds the tensor `name`."""
    return f"{name}.{form}"


def write_tensor(name: str, array: NDArray[Any], form: Form) -> bytes:
    """Return the file that holds `array`; bfloat16 is uint16, its bit patterns, in .npy, and itself in .pb."""
    is_bfloat16 = array.dtype == ml_dtypes.bfloat16
    bits = array.view(np.uint16) if is_bfloat16 else array
    bits = bits.astype(bits.dtype.newbyteorder("<"), order="C", copy=False)
    if form == "npy":
        return npy_bytes(bits)
    from onnx import TensorProto, helper

    kind = TensorProto.BFLOAT16 if is_bfloat16 else helper.np_dtype_to_tensor_dtype(bits.dtype)
    tensor = TensorProto(name=name, dims=bits.shape, data_type=kind, raw_data=bits.tobytes())
    return bytes(tensor.SerializeToString())


def read_tensor(content: bytes, form: Form, wanted: int) -> NDArray[Any]:
    """Return the array of a file; `wanted` is the TensorProto.DataType that the graph declares.

    Where that is BFLOAT16, two bytes of .npy are one. Raises TensorFileError for anything but one whole tensor of numbers.
    """
    if form == "pb":
        return _from_proto(content)
    try:
        array: NDArray[Any] = npy_array(content)
    except (ValueError, EOFError, SyntaxError, MemoryError) as error:
        raise TensorFileError(str(error)) from error
    if array.dtype in (np.dtype(np.uint16), np.dtype("V2")):
        from onnx import TensorProto

        return array.view(ml_dtypes.bfloat16) if wanted == TensorProto.BFLOAT16 else array
    return array


def _from_proto(content: bytes) -> NDArray[Any]:
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, numpy_helper

    try:
        tensor = TensorProto.FromString(content)
        if tensor.data_type != TensorProto.BFLOAT16:
            array: NDArray[Any] = numpy_helper.to_array(tensor)
            return array
        # By hand: onnx makes float32 of it before 1.19.
        raw = np.frombuffer(tensor.raw_data, "<u2") if tensor.raw_data else np.array(tensor.int32_data, np.uint16)
        halves: NDArray[Any] = raw.astype(np.uint16).view(ml_dtypes.bfloat16)
        return halves.reshape(tuple(tensor.dims))
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        raise TensorFileError(f"no TensorProto of numbers: {error}") from error
