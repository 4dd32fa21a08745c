"""The one place where numbers become tensors of a graph: rounded once to an element type, which must be able to hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from actconform.errors import NotRepresentableError
from actconform.oracle.rounding import round_to
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.types.dtypes import FloatFormat

Array: TypeAlias = NDArray[Any]

FLOATS: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
_FORMATS: dict[int, FloatFormat] = {
    TensorProto.FLOAT: DTYPES["f32"],
    TensorProto.FLOAT16: DTYPES["f16"],
    TensorProto.BFLOAT16: DTYPES["bf16"],
}


def constant_tensor(value: Array | Sequence[int] | float | np.generic, element_type: int, name: str) -> TensorProto:
    """Return a tensor of `value`, of its shape, rounded once to nearest to `element_type`, a TensorProto.DataType.

    Raises NotRepresentableError where rounding would lose more than half a unit of the last place that normal numbers have:
    a finite number would become infinite, one other than 0 would become 0 or keep too few digits, an integer would change.
    """
    exact = np.asarray(value)
    array, fits = _rounded(exact, element_type)
    if not fits.all():
        number = exact[~fits].flat[0]
        kind = TensorProto.DataType.Name(element_type)
        raise NotRepresentableError(f"{number!s} does not fit {kind}: compute in a wider type and cast the result")
    return numpy_helper.from_array(array, name)


def tensor_of(array: Array, name: str = "") -> TensorProto:
    """Return a tensor of an array as it is, in its own dtype: what was computed, or read, and not a number that somebody writes."""
    return numpy_helper.from_array(array, name)


def is_representable(value: Array | float | np.generic, element_type: int) -> bool:
    """Say whether `constant_tensor` can write `value` in that element type."""
    return bool(_rounded(np.asarray(value), element_type)[1].all())


def operator_node(
    operator: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any
) -> onnx.NodeProto:
    """Return a node of the standard. Raises NotRepresentableError where a float attribute does not fit float32."""
    for attribute, value in attributes.items():
        numbers = [each for each in (value if isinstance(value, list | tuple) else [value]) if isinstance(each, float)]
        if not is_representable(np.array(numbers, np.float64), TensorProto.FLOAT):
            raise NotRepresentableError(
                f"{attribute} = {value} of operator {operator} does not fit FLOAT, as attributes are"
            )
    return helper.make_node(operator, inputs, outputs, name=name, **attributes)


def _rounded(exact: Array, element_type: int) -> tuple[Array, NDArray[np.bool_]]:
    """Return the numbers in that element type, and which of them are themselves there but for one rounding."""
    if element_type not in _FORMATS:
        dtype = FLOATS.get(element_type) or np.dtype(helper.tensor_dtype_to_np_dtype(element_type))
        with np.errstate(all="ignore"):
            array = exact.astype(dtype)
            return array, (array == exact) | np.isnan(exact.astype(np.float64))
    wide = exact.astype(np.float64)
    rounded = round_to(wide, _FORMATS[element_type])
    with np.errstate(all="ignore"):
        lost = np.abs(rounded - wide)
    fits = ~np.isfinite(wide) | (lost <= _FORMATS[element_type].unit_roundoff * np.abs(wide))
    return rounded.astype(FLOATS[element_type]), fits
