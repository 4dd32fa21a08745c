"""Whether what a model's file holds is whole: names that are text, tensors with as many numbers as their shapes say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data

from actconform.errors import ExternalDataError, UsageError
from actconform.onnx.external import PACKED_BITS, data_size
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

_DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)  # two numbers an element


def expect_text(message: Any) -> None:
    """Raise UsageError where a name in a protobuf message, at any depth, is no UTF-8; comments may be anything."""
    for field, value in message.ListFields() if not isinstance(message, TensorProto) else _without_numbers(message):
        if field.type == FieldDescriptor.TYPE_STRING and field.name != "doc_string":
            if any(isinstance(text, bytes) for text in ([value] if isinstance(value, str | bytes) else value)):
                where = f"{field.name} of a {message.DESCRIPTOR.name}"
                raise UsageError(f"is damaged: a text ({where}) is no UTF-8; fetch or export it again")
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else value:
                expect_text(inner)


def expect_whole_tensors(tensors: Iterable[TensorProto]) -> None:
    """Raise UsageError where a tensor has a type that onnx does not know, or another count of numbers than its shape."""
    for tensor in tensors:
        if uses_external_data(tensor):
            continue
        try:
            size = 0 if tensor.data_type == TensorProto.STRING else data_size(tensor)
        except ExternalDataError as error:
            raise UsageError(f"is damaged: {one_line(str(error))}; fetch or export it again") from error
        if tensor.HasField("raw_data"):
            stored, expected, unit = len(tensor.raw_data), size, "bytes"
        else:
            stored, expected, unit = _stored_numbers(tensor), _expected_numbers(tensor), "numbers"
        if stored != expected:
            raise UsageError(
                f"is damaged: the tensor {one_line(tensor.name or 'without a name')} holds {stored:,} {unit}, and its shape "
                f"{list(tensor.dims)[:8]} needs {expected:,}; fetch or export it again"
            )


def _stored_numbers(tensor: TensorProto) -> int:
    return sum(len(getattr(tensor, name)) for name in _DATA_FIELDS)


def _expected_numbers(tensor: TensorProto) -> int:
    elements: int = math.prod(tensor.dims)
    if tensor.data_type in _COMPLEX:
        return 2 * elements
    bits = PACKED_BITS.get(TensorProto.DataType.Name(tensor.data_type), 8)
    return -(-elements * bits // 8)


def _without_numbers(tensor: TensorProto) -> list[tuple[FieldDescriptor, Any]]:
    """Return the fields of a tensor that hold text, without copying the rest."""
    fields = tensor.DESCRIPTOR.fields_by_name
    return [(fields[name], getattr(tensor, name)) for name in ("name", "external_data")]
