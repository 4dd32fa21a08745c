"""Arithmetic that writes itself down: numbers whose operators add nodes of standard operators to a graph.

So the definition of an optimizer, which takes anything with operators, also writes the graph of its update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from onnx import TensorProto

from actconform.onnx.constants import constant_tensor, operator_node

if TYPE_CHECKING:
    import onnx

Term: TypeAlias = "Expression | float"

_ELEMENT_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE)


class UpdateNodes:
    """The nodes and constants of expressions in the making; equal ones are written once."""

    def __init__(self, prefix: str) -> None:
        """Start with no nodes; `prefix` begins the name of each."""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._prefix = prefix
        self._written: dict[tuple[str, ...], str] = {}

    def tensor(self, name: str) -> Expression:
        """Return a float32 tensor of the graph as an expression, computed with in float32."""
        return Expression(self, name, TensorProto.FLOAT)

    def scalar(self, name: str) -> Expression:
        """Return a scalar of the graph, of any numeric type, as an expression: computed with in float64 until it meets a tensor.

        Numbers such as 1 - 0.999^t would lose half their digits in float32.
        """
        return Expression(self, self._node("Cast", name, to=TensorProto.DOUBLE), TensorProto.DOUBLE)

    def rename(self, old: str, new: str) -> None:
        """Call the result of a node by another name, wherever it is read."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
        self._written = {key: new if name == old else name for key, name in self._written.items()}

    def apply(self, operator: str, *terms: Term) -> Expression:
        """Return the result of an elementwise operator: float32 where one of the terms is a tensor, else float64."""
        kinds = [term.element_type for term in terms if isinstance(term, Expression)]
        element_type = next(kind for kind in _ELEMENT_TYPES if kind in kinds)
        operands = [self._operand(term, element_type) for term in terms]
        return Expression(self, self._node(operator, *operands), element_type)

    def _operand(self, term: Term, element_type: int) -> str:
        if not isinstance(term, Expression):
            return self._constant(float(term), element_type)
        return term.name if term.element_type == element_type else self._node("Cast", term.name, to=element_type)

    def _constant(self, value: float, element_type: int) -> str:
        key = ("", str(element_type), value.hex())
        if key not in self._written:
            name = self._written[key] = f"{self._prefix}constant_{len(self.initializers)}"
            self.initializers.append(constant_tensor(np.float64(value), element_type, name))
        return self._written[key]

    def _node(self, operator: str, *operands: str, **attributes: Any) -> str:
        key = (operator, *operands, *(f"{name}={value}" for name, value in attributes.items()))
        if key not in self._written:
            name = self._written[key] = f"{self._prefix}{operator}_{len(self.nodes)}"
            self.nodes.append(operator_node(operator, operands, [name], name=name, **attributes))
        return self._written[key]


class Expression:
    """A tensor that nodes give; `+ - * / **` with numbers and others of its kind add nodes, broadcast as NumPy does.

    NaN and infinities go where IEEE arithmetic takes them. Raises NotRepresentableError where float32 cannot hold a number.
    """

    def __init__(self, writer: UpdateNodes, name: str, element_type: int) -> None:
        self.name, self.element_type = name, element_type
        self._writer = writer

    def __add__(self, term: Term) -> Expression:
        return self._writer.apply("Add", self, term)

    def __radd__(self, term: Term) -> Expression:
        return self._writer.apply("Add", term, self)

    def __sub__(self, term: Term) -> Expression:
        return self._writer.apply("Sub", self, term)

    def __rsub__(self, term: Term) -> Expression:
        return self._writer.apply("Sub", term, self)

    def __mul__(self, term: Term) -> Expression:
        return self._writer.apply("Mul", self, term)

    def __rmul__(self, term: Term) -> Expression:
        return self._writer.apply("Mul", term, self)

    def __truediv__(self, term: Term) -> Expression:
        return self._writer.apply("Div", self, term)

    def __rtruediv__(self, term: Term) -> Expression:
        return self._writer.apply("Div", term, self)

    def __pow__(self, exponent: Term) -> Expression:
        return self._writer.apply("Sqrt", self) if exponent == 0.5 else self._writer.apply("Pow", self, exponent)

    def __rpow__(self, base: Term) -> Expression:
        return self._writer.apply("Pow", base, self)
