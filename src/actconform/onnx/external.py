"""Tensor data in files beside a model: read into it, from regular files of its own folder alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnx import TensorProto, helper
from onnx.external_data_helper import uses_external_data

from actconform.errors import ExternalDataError
from actconform.files import read_bytes
from actconform.onnx.gates import tensors
from actconform.text import number_of

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
MOST_BYTES = 2**31 - 1  # of a model and its data: what protobuf can hold


def data_files(model: onnx.ModelProto, folder: Path) -> dict[str, Path]:
    """Return the files, links followed, in which the data of tensors lie, by the name of the tensor.

    Raises ExternalDataError where one is not inside `folder`, or its place is no path.
    """
    return {tensor.name: _file(tensor, folder.resolve()) for tensor in tensors(model) if uses_external_data(tensor)}


def read_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """Take all data that lie in files of `folder` into the model.

    Raises ExternalDataError, naming the tensor, where they lie elsewhere or in no regular file, where offset or length are no
    whole numbers of that file or not what the tensor's shape and type need, or where all of it has more than 2 GiB.
    """
    folder = folder.resolve()
    outside = [tensor for tensor in tensors(model) if uses_external_data(tensor)]
    sizes = [data_size(tensor) for tensor in outside]
    if sum(sizes) > MOST_BYTES:
        raise ExternalDataError(f"the data in files beside it have {number_of(sum(sizes), 'byte')}, more than 2 GiB")
    for tensor, size in zip(outside, sizes, strict=True):
        path = _file(tensor, folder)
        start, length = _number(tensor, "offset", 0), _number(tensor, "length", size)
        if length != size:
            raise ExternalDataError(
                f"the data of {tensor.name} have {number_of(length, 'byte')} by their length, and {size:,} by shape and type"
            )
        try:
            tensor.raw_data = read_bytes(path, MOST_BYTES, start=start, length=size)
        except OSError as error:
            raise ExternalDataError(f"the data of {tensor.name} cannot be read: {path} {error.strerror}") from error
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def _file(tensor: onnx.TensorProto, folder: Path) -> Path:
    location = _entry(tensor, "location") or ""
    try:
        path = (folder / location).resolve()
        exists = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # NUL in it, a loop of links, too many letters
        raise ExternalDataError(f"the data of {tensor.name} should lie in {location!r}, no path: {error}") from error
    if not location or not path.is_relative_to(folder):
        raise ExternalDataError(
            f"the data of {tensor.name} lies in {location!r}, outside the model's folder, and is not read; copy it beside "
            "the model and save the model anew"
        )
    if not exists:
        raise ExternalDataError(f"the data of {tensor.name} should lie in {path}, which is no file")
    return path


def data_size(tensor: onnx.TensorProto) -> int:
    """Return the bytes that shape and type of a tensor need. Raises ExternalDataError for a negative size or a type of no fixed width."""
    if any(dim < 0 for dim in tensor.dims):
        raise ExternalDataError(f"{tensor.name!r} has a negative size among {list(tensor.dims)}")
    name = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in TensorProto.DataType.values() else ""
    if name in {"", "UNDEFINED", "STRING"}:
        raise ExternalDataError(
            f"{tensor.name!r} is of a type whose elements have no fixed width: {name or tensor.data_type}"
        )
    bits = PACKED_BITS.get(name) or 8 * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    size: int = -(-math.prod(tensor.dims) * bits // 8)
    return size


def _number(tensor: onnx.TensorProto, key: str, default: int) -> int:
    text = _entry(tensor, key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ExternalDataError(f"the data of {tensor.name} have the {key} {text[:40]!r}: wanted a count of bytes")
    return int(text)


def _entry(tensor: onnx.TensorProto, key: str) -> str | None:
    return next((entry.value for entry in tensor.external_data if entry.key == key), None)
