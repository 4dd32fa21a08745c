"""Error bounds of operators that are defined by standard ones: those of the standard ones, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

import actconform.onnx.evaluate.error_bounds.contrib  # noqa: F401  its rules go before composed ones
from actconform.onnx.evaluate.computation import definition_step
from actconform.onnx.evaluate.contrib.registry import CONTRIB, Operators
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE, output_types
from actconform.onnx.evaluate.error_bounds.registry import (
    Approximation,
    BoundContext,
    bounded_outputs,
    error_bound,
    format_of,
    has_error_bound,
)
from actconform.oracle.rounding import round_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.evaluate.computation import Array

_ELEMENT_TYPES = {dtype: element_type for element_type, dtype in STORAGE.items()}


class BoundedOperators(Operators):
    """The standard's operators on approximations, floats in one type: each step gives the value and how far it may be off."""

    def __init__(self, float_type: int) -> None:
        self.float_type = float_type

    def apply(self, op_type: str, inputs: Sequence[Any], outputs: int, attributes: dict[str, Any]) -> Any:
        approximations = [None if each is None else self.approximation(each) for each in inputs]
        node, computation = definition_step(
            op_type, [each and each.value for each in approximations], outputs, attributes
        )
        input_types = [0 if each is None else self._element_type(each.value) for each in approximations]
        kinds = output_types(node, computation.node.opset, input_types)
        results = bounded_outputs(computation, kinds, approximations)
        return results[0] if outputs == 1 else tuple(results)

    def array(self, tensor: Any) -> Array:
        return tensor.value if isinstance(tensor, Approximation) else np.asarray(tensor)

    def within(self, tensor: Any, error: Array) -> Approximation:
        value, before = self.approximation(tensor)
        return Approximation(value, error if before is None else before + error)

    def approximation(self, tensor: Any) -> Approximation:
        """Return a constant of a definition as exact as the float type can hold it; an approximation as it is."""
        if isinstance(tensor, Approximation):
            return tensor
        value, fmt = np.asarray(tensor), format_of(self.float_type)
        if value.dtype.kind != "f" or fmt is None:
            return Approximation(value)
        value = value.astype(np.float64)
        inexact = round_to(value, fmt) != value
        return Approximation(value, fmt.unit_roundoff * np.abs(value) if inexact.any() else None)

    def _element_type(self, value: Array) -> int:
        return self.float_type if value.dtype == np.float64 else _ELEMENT_TYPES[value.dtype]


def _composed(context: BoundContext, *inputs: Approximation | None) -> Approximation | tuple[Approximation, ...]:
    float_type = next((kind for kind in context.output_types if kind in FORMATS), int(TensorProto.FLOAT))
    operators = BoundedOperators(float_type)
    outputs = CONTRIB[context.node.domain, context.node.op_type].define(context.node, operators, *inputs)
    several = outputs if isinstance(outputs, tuple) and not isinstance(outputs, Approximation) else (outputs,)
    return tuple(operators.approximation(each) for each in several)


for _domain, _op_type in CONTRIB:
    if not has_error_bound(_op_type, _domain):
        error_bound(_op_type, domain=_domain, arithmetic=False)(_composed)
