"""The register of ONNX Runtime's own operators: how each is composed of standard ones, its defaults, its outputs' element types."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from onnx import TensorProto

if TYPE_CHECKING:
    from actconform.onnx.evaluate.elementwise import Array

CONTRIB_DOMAIN = "com.microsoft"

Tensor: TypeAlias = Any
"""What `Operators` works on: an array, or a value with its error."""

BODY_OPSET = 23
"""The opset of the standard operators that definitions are composed of."""

ADDED_TO_STANDARD = {"LayerNormalization": 17}
"""By name the opset that brought an operator which ONNX Runtime knows, and its optimizer writes, in older ones too."""


class Operators(ABC):
    """The standard's operators as functions on tensors: `op.Gelu(x, approximate="tanh")`, at opset BODY_OPSET.

    A definition is written once with them. On arrays they compute the real function; on values with errors they also bound
    the error of an implementation step by step. `outputs` states how many outputs an operator has where it is not one.
    Arrays and numbers are taken as exact inputs, None as one left out.
    """

    float_type: int
    """Element type of the float tensors of the definition: what Cast needs."""

    @abstractmethod
    def apply(self, op_type: str, inputs: Sequence[Tensor | None], outputs: int, attributes: dict[str, Any]) -> Tensor:
        """Return the output, or a tuple of several."""

    @abstractmethod
    def array(self, tensor: Tensor) -> Array:
        """Return the values of a tensor: to look at shapes, and at integers that steer a definition."""

    @abstractmethod
    def within(self, tensor: Tensor, error: Array) -> Tensor:
        """Return a tensor that an implementation may hold with that much absolute error, as the definition allows."""

    def __getattr__(self, op_type: str) -> Callable[..., Tensor]:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)

        def call(*inputs: Tensor | None, outputs: int = 1, **attributes: Any) -> Tensor:
            return self.apply(op_type, inputs, outputs, attributes)

        return call

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.array(tensor).shape

    def reshape(self, tensor: Tensor, *shape: int) -> Tensor:
        """Return the tensor in another shape; 0 keeps a dimension, -1 takes what is left."""
        return self.Reshape(tensor, np.array(shape, np.int64))

    def real(self, tensor: Tensor) -> Tensor:
        """Return integers as floats."""
        return self.Cast(tensor, to=self.float_type)


# (node, operators, *inputs) to the output, or several in order; an optional input that is left out is None
Definition: TypeAlias = Callable[..., Tensor]

Defined = TypeVar("Defined", bound=Definition)

# Of an output: the index of the input that has its element type, an element type, or a choice of the first that is given.
OutputType: TypeAlias = int | str | tuple[int | str, ...]


class ContribOperator(NamedTuple):
    """How an operator that ONNX Runtime adds is evaluated."""

    define: Definition
    defaults: dict[str, Any]
    """Of its attributes."""
    types: tuple[OutputType, ...]
    """Of its outputs in order."""


CONTRIB: dict[tuple[str, str], ContribOperator] = {}
"""By domain and name; domain "" for those that ONNX Runtime puts into the standard's domain."""


def contrib(
    *op_types: str, types: tuple[OutputType, ...] = (0,), domain: str = CONTRIB_DOMAIN, **defaults: Any
) -> Callable[[Defined], Defined]:
    """Register a definition as the operators `op_types`; `defaults` are those of attributes left out, floats as float32."""
    values = {name: float(np.float32(value)) if isinstance(value, float) else value for name, value in defaults.items()}

    def register(define: Defined) -> Defined:
        CONTRIB.update({(domain, op_type): ContribOperator(define, values, types) for op_type in op_types})
        return define

    return register


def contrib_output_types(domain: str, op_type: str, input_types: Sequence[int]) -> list[int]:
    """Return the element types of all outputs that the operator can have; `input_types` has 0 for an input left out."""
    return [_element_type(kind, input_types) for kind in CONTRIB[domain, op_type].types]


def _element_type(kind: OutputType, input_types: Sequence[int]) -> int:
    if isinstance(kind, str):
        return int(TensorProto.DataType.Value(kind))
    if isinstance(kind, int):
        return input_types[kind] if kind < len(input_types) else 0
    return next(filter(None, (_element_type(choice, input_types) for choice in kind)), 0)
