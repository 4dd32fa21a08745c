"""Element types of tensors: how the evaluators hold them, which formats their floats have, and which a node gives."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from actconform.errors import Unsupported
from actconform.onnx.evaluate.contrib.registry import ADDED_TO_STANDARD, CONTRIB, contrib_output_types
from actconform.onnx.evaluate.node_label import STANDARD, node_label
from actconform.onnx.nodes import ELEMENT_TYPES
from actconform.types.dtypes import DTYPES, FloatFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Array: TypeAlias = NDArray[Any]

FORMATS = {element_type: DTYPES[dtype] for dtype, element_type in ELEMENT_TYPES.items()} | {
    TensorProto.DOUBLE: FloatFormat("f64", 64, 53, -1022, 1023)
}
"""By element type the format of the floats that tensors are computed in; floats of 8 bits and fewer are stored quantities."""

SMALL = {
    "FLOAT8E4M3FN": "float8_e4m3fn",
    "FLOAT8E4M3FNUZ": "float8_e4m3fnuz",
    "FLOAT8E5M2": "float8_e5m2",
    "FLOAT8E5M2FNUZ": "float8_e5m2fnuz",
    "FLOAT8E8M0": "float8_e8m0fnu",
    "FLOAT4E2M1": "float4_e2m1fn",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (2, 4)},
}

STORAGE: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.BOOL: np.dtype(np.bool_),
    **{getattr(TensorProto, f"INT{bits}"): np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{getattr(TensorProto, f"UINT{bits}"): np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{  # older versions of onnx or ml_dtypes lack some
        TensorProto.DataType.Value(name): np.dtype(getattr(ml_dtypes, dtype))
        for name, dtype in SMALL.items()
        if name in TensorProto.DataType.keys() and hasattr(ml_dtypes, dtype)  # noqa: SIM118  an enumeration
    },
}
"""By element type the NumPy dtype of a tensor."""


def held(array: Array, element_type: int) -> Array:
    """Return the array as a tensor of that type is held inside the evaluators.

    Floats of 16 bits and more come as float64, unrounded; integers and booleans in their dtype, floats truncated towards zero,
    wider integers wrapping as in C; floats of 8 bits and fewer rounded, in the dtype of ml_dtypes.
    Raises Unsupported for strings, complex numbers and sequences.
    """
    if element_type in FORMATS:
        with np.errstate(invalid="ignore"):  # a signalling NaN is one of the patterns
            return array.astype(np.float64, copy=False)
    dtype = storage(element_type)
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):
        if dtype.kind in "iu" and array.dtype.kind == "f" and dtype.itemsize < 8:
            array = array.astype(np.int64)
        return array.astype(dtype)


def storage(element_type: int) -> np.dtype[Any]:
    """Return the NumPy dtype of a tensor of that type; raise Unsupported, naming it, for one that the evaluators do not take."""
    if element_type not in STORAGE:
        raise Unsupported(f"tensors of {element_type_name(element_type)} are not evaluated")
    return STORAGE[element_type]


def element_type_name(element_type: int) -> str:
    """Return an element type as ONNX writes it: FLOAT, INT64."""
    names = {number: name for name, number in TensorProto.DataType.items()}
    return names.get(element_type, f"element type {element_type}") if element_type else "no tensor type"


def output_types(node: onnx.NodeProto, opset: int, input_types: Sequence[int]) -> list[int]:
    """Return the element type of every output of a node, 0 for one that is left out.

    `input_types` has those of the inputs, 0 for one that is left out. An operator of the standard gets what its schema says: a
    type of its own, or that of the inputs that share its type parameter; where neither decides, an attribute does. One of
    com.microsoft is typed by its entry in CONTRIB. Nodes with graphs inside them have no types of their own.
    Raises Unsupported, naming the node, for an operator that is unknown at that opset or whose types cannot be told.
    """
    domain = "" if node.domain in STANDARD else node.domain
    if (domain, node.op_type) in CONTRIB:
        types = contrib_output_types(domain, node.op_type, input_types)[: len(node.output)]
    elif not domain:
        types = _standard_types(node, opset, input_types)
    else:
        types = []
    types = [*types, *[0] * (len(node.output) - len(types))]
    for name, element_type in zip(node.output, types, strict=True):
        if name and not element_type:
            raise Unsupported(f"the element type of {name} cannot be told from the inputs of {node_label(node, opset)}")
    return [element_type if name else 0 for name, element_type in zip(node.output, types, strict=True)]


def _standard_types(node: onnx.NodeProto, opset: int, input_types: Sequence[int]) -> list[int]:
    try:
        schema = _schema_types(node.op_type, max(opset, ADDED_TO_STANDARD.get(node.op_type, 0)))
    except onnx.defs.SchemaError as error:
        raise Unsupported(f"{node_label(node, opset)} is not in the standard") from error
    if not node.output:
        return []
    by_parameter: dict[str, int] = {}
    for parameter, element_type in zip(_parameters(schema.inputs, len(input_types)), input_types, strict=True):
        if element_type:
            by_parameter.setdefault(parameter, element_type)
    stated = {attribute.name: attribute for attribute in node.attribute}
    special = STATED_TYPES.get(node.op_type)
    types = []
    for index, parameter in enumerate(_parameters(schema.outputs, len(node.output))):
        by_attribute = special(stated, input_types, index) if special else 0
        types.append(
            by_attribute or by_parameter.get(parameter) or schema.fixed.get(parameter, 0) or _element_type(parameter)
        )
    return types


class _SchemaTypes(NamedTuple):
    """The type parameters of the formal inputs and outputs of an operator, and the element types of those that leave no choice."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    fixed: Mapping[str, int]


@lru_cache(maxsize=4096)  # a schema takes longer to read than a small node to compute
def _schema_types(op_type: str, opset: int) -> _SchemaTypes:
    schema = onnx.defs.get_schema(op_type, opset, "")
    return _SchemaTypes(
        [formal.type_str for formal in schema.inputs],
        [formal.type_str for formal in schema.outputs],
        {each.type_param_str: _element_type(*each.allowed_type_strs) for each in schema.type_constraints},
    )


def _parameters(formal: Sequence[str], count: int) -> list[str]:
    """Return the type parameter of each actual input or output; the last one of a variadic operator stands for all further ones."""
    if count > len(formal) and not formal:
        return [""] * count
    return [formal[min(i, len(formal) - 1)] for i in range(count)]


@cache
def _spelled_types() -> dict[str, int]:
    """Return the element types by their names in schemas, such as tensor(float)."""
    return {
        f"tensor({name.lower()})": number
        for name, number in TensorProto.DataType.items()
        if number != TensorProto.UNDEFINED
    }


def _element_type(*spelled: str) -> int:
    """Return the element type that a schema spells, 0 where it leaves a choice."""
    return _spelled_types().get(spelled[0], 0) if len(spelled) == 1 else 0


Attributes: TypeAlias = "Mapping[str, onnx.AttributeProto]"
Stated: TypeAlias = "Callable[[Attributes, Sequence[int], int], int]"


def _number(name: str, default: int = 0) -> Stated:
    """Return what reads an element type from an attribute."""
    return lambda attributes, _, __: attributes[name].i if name in attributes else default


def _constant_type(attributes: Attributes, _: Sequence[int], __: int) -> int:
    kinds = {"value_float": TensorProto.FLOAT, "value_int": TensorProto.INT64, "value_string": TensorProto.STRING}
    for name, attribute in attributes.items():
        if name == "value":
            return attribute.t.data_type
        if name == "sparse_value":
            return attribute.sparse_tensor.values.data_type
        if (kind := kinds.get(name.removesuffix("s"))) is not None:
            return kind
    return 0


def _filled_type(attributes: Attributes, _: Sequence[int], __: int) -> int:
    return attributes["value"].t.data_type if "value" in attributes else TensorProto.FLOAT


def _quantized_type(attributes: Attributes, input_types: Sequence[int], _: int) -> int:
    """Return the zero point's type, or the attribute's, or uint8."""
    zero_point = input_types[2] if len(input_types) > 2 else 0
    return zero_point or (attributes["output_dtype"].i if "output_dtype" in attributes else 0) or TensorProto.UINT8


def _dequantized_type(attributes: Attributes, input_types: Sequence[int], _: int) -> int:
    return (attributes["output_dtype"].i if "output_dtype" in attributes else 0) or input_types[1]


def _moments_type(attributes: Attributes, _: Sequence[int], index: int) -> int:
    """Return the type of LayerNormalization's mean and inverse deviation."""
    return (attributes["stash_type"].i if "stash_type" in attributes else TensorProto.FLOAT) if index else 0


def _like_type(attributes: Attributes, input_types: Sequence[int], _: int) -> int:
    return attributes["dtype"].i if "dtype" in attributes else input_types[0]


# Where the schema's type parameters decide nothing. 0 leaves it to them.
STATED_TYPES: dict[str, Stated] = {
    "BitCast": _number("to"),
    "BlackmanWindow": _number("output_datatype", TensorProto.FLOAT),
    "Cast": _number("to"),
    "Constant": _constant_type,
    "ConstantOfShape": _filled_type,
    "DequantizeLinear": _dequantized_type,
    "EyeLike": _like_type,
    "HammingWindow": _number("output_datatype", TensorProto.FLOAT),
    "HannWindow": _number("output_datatype", TensorProto.FLOAT),
    "LayerNormalization": _moments_type,
    "LinearAttention": lambda _, input_types, __: input_types[0],
    "MelWeightMatrix": _number("output_datatype", TensorProto.FLOAT),
    "QuantizeLinear": _quantized_type,
}
