"""What gradient rules write with: the nodes and constants that are appended to a graph."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto

from actconform._renamed import old_class_names
from actconform.onnx.constants import FLOATS, constant_tensor, is_representable, operator_node
from actconform.onnx.grad.rules.registry import STANDARD
from actconform.onnx.grad.rules.tensor_info import TensorInfo
from actconform.onnx.nested_graphs import renamed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from actconform.onnx.grad.rules.registry import Cotangents, Node, Rule
    from actconform.onnx.grad.rules.tensor_info import Array

Differentiate: TypeAlias = "Callable[..., onnx.ModelProto]"  # actconform.onnx.grad.add_gradients
Operand: TypeAlias = str | float | np.generic | None

__getattr__ = old_class_names(__name__)

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_WIDER = (TensorProto.FLOAT, TensorProto.DOUBLE)  # in which numbers are written that an element type cannot hold

# The element types of what an operator gives; all else has that of its first input.
_INDICES = "Shape Size NonZero ArgMax ArgMin".split()  # noqa: SIM905  lists to read
_TRUTH = "And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor".split()  # noqa: SIM905
_GIVES = dict.fromkeys(_INDICES, TensorProto.INT64) | dict.fromkeys(_TRUTH, TensorProto.BOOL)
# What gives an exact 0 wherever its operands have one.
_KEEPS_ZEROS = ("Cast", "Expand", "Identity", "Neg", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_AXES_AS_INPUT = 18  # since when every Reduce operator takes its axes as an input; ReduceSum did so since 13


class GraphBuilder(TensorInfo):
    """The nodes and constants of a gradient in the making.

    `b.Mul(a, c)` adds that operator of the standard and returns the name of its output; operands are names of tensors, or
    numbers, which become scalars of `b.element_type`, the float type of the node whose rule is at work; None leaves an
    optional input out. An operator that the opset lacks is an AttributeError. Where that type cannot hold a number, such as
    the count 70,000 in float16, the operator computes in the next wider one that can, and its result is cast back.
    """

    def __init__(
        self, model: onnx.ModelProto, inferred: onnx.GraphProto, prefix: str, differentiate: Differentiate
    ) -> None:
        """Start with no nodes; `prefix` begins the name of each, `differentiate` gives graphs inside nodes their gradients."""
        super().__init__(model, inferred)
        self.differentiate = differentiate
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.element_type: int = TensorProto.FLOAT
        self._prefix = prefix
        self._graphs = 0
        self._constants: dict[tuple[int, tuple[int, ...], bytes], str] = {}
        self._casts: dict[tuple[str, int], str] = {}  # by the name of a tensor and an element type
        self._cast_from: dict[str, str] = {}  # what each of these was cast from
        self._selected: set[str] = set()  # cotangents that are 0 where a choice took another branch

    # Nodes and constants

    def __getattr__(self, operator: str) -> Callable[..., str]:
        if not operator[0].isupper() or not onnx.defs.has(operator, max_inclusive_version=self.opset):
            raise AttributeError(f"ONNX opset {self.opset} has no operator {operator}")
        write = partial(self._single, operator)
        self.__dict__[operator] = write
        return write

    def _single(self, operator: str, *inputs: Operand, **attributes: Any) -> str:
        return self.outputs(1, operator, *inputs, **attributes)[0]

    def outputs(self, n: int, operator: str, *inputs: Operand, **attributes: Any) -> list[str]:
        """Add a node with `n` outputs and return their names."""
        kind = self._holding([each for each in inputs if each is not None and not isinstance(each, str)])
        if kind != self.element_type:
            return self._outputs_in(kind, n, operator, inputs, attributes)
        operands = [self._operand(operand) for operand in inputs]
        if operator in {"Shape", "Size"}:
            operands = [self._cast_from.get(operand, operand) for operand in operands]
        number = len(self.nodes)
        names = [f"{self._prefix}{operator}_{number}" + (f"_{i}" if i else "") for i in range(n)]
        self.nodes.append(
            operator_node(operator, operands, names, name=f"{self._prefix}{operator}_{number}", **attributes)
        )
        for i, name in enumerate(names):
            self._types[name] = self._type_given(operator, i, operands, attributes)
        summed = operator in {"Add", "Sum"} and self._selected.issuperset(operands)
        if summed or (operator in _KEEPS_ZEROS and operands[0] in self._selected):
            self._selected.update(names)
        return names

    def paste(self, graph: onnx.GraphProto, names: Mapping[str, str]) -> list[str]:
        """Add the nodes and initializers of a whole graph, some of whose tensors are called `names` here; return its outputs."""
        prefix = self.prefix()
        copy = renamed(graph, lambda name: names.get(name, prefix + name))
        self.nodes.extend(copy.node)
        self.initializers.extend(copy.initializer)
        return [value.name for value in copy.output]

    def prefix(self) -> str:
        """Return what no name begins with yet, for the names in a graph inside a node."""
        self._graphs += 1
        return f"{self._prefix}graph{self._graphs}_"

    def constant(self, value: Array | float | np.generic, element_type: int | None = None) -> str:
        """Return an initializer that holds `value`; equal ones are one.

        Numbers and arrays of floats are rounded to `element_type`, by default `b.element_type`; arrays of integers and
        truth values keep their dtype unless one is given. Raises NotRepresentableError where a number does not fit.
        """
        if element_type is None and isinstance(value, np.ndarray) and value.dtype.kind in "iub":
            element_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        name = f"{self._prefix}constant_{len(self._constants)}"
        tensor = constant_tensor(value, element_type or self.element_type, name)
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if key not in self._constants:
            self.initializers.append(tensor)
            self.knows(tensor, name)
            self._constants[key] = name
        return self._constants[key]

    def integers(self, values: Iterable[int]) -> str:
        """Return a 1-d int64 initializer: axes and shapes."""
        return self.constant(np.array([int(value) for value in values], dtype=np.int64))

    def at(self, node: Node, element_type: int) -> None:
        """Begin the rule of `node`, in which numbers are scalars of `element_type`."""
        self.node, self.element_type = node, element_type

    def _holding(self, numbers: Sequence[float | np.generic]) -> int:
        """Return the element type of the node, or the next wider one that can hold the numbers."""
        kinds = (self.element_type, *(kind for kind in _WIDER if self.element_type in HALVES or kind in _WIDER[1:]))
        return next(
            (kind for kind in kinds if all(is_representable(each, kind) for each in numbers)), self.element_type
        )

    def _outputs_in(
        self, kind: int, n: int, operator: str, inputs: Sequence[Operand], attributes: dict[str, Any]
    ) -> list[str]:
        """Add a node that computes in another element type than the node's, between casts."""
        element_type = self.element_type
        operands = [
            self.Cast(each, to=kind) if isinstance(each, str) and self.element_type_of(each) == element_type else each
            for each in inputs
        ]
        self.element_type = kind
        results = self.outputs(n, operator, *operands, **attributes)
        self.element_type = element_type
        return [self.Cast(each, to=element_type) if self.element_type_of(each) == kind else each for each in results]

    # The element type that a rule computes in

    def widened(self, rule: Rule, node: Node, g: Cotangents) -> Cotangents:
        """Return what `rule` gives when it computes in the widest of the node's float types, in float32 at least.

        It sees casts of the inputs that are narrower, and outputs computed anew from them, so that 16 bits have not rounded what
        it divides or multiplies by; the cotangents that it returns are rounded to the types of their inputs. A tensor whose
        type is not known is taken to be of the node's float type.
        """
        element_type = self.element_type
        names = (*node.inputs, *node.outputs, *(each for each in g if each))
        kinds = {self.element_type_of(name) for name in names}
        kind = self.element_type = TensorProto.DOUBLE if TensorProto.DOUBLE in kinds else TensorProto.FLOAT
        inputs = tuple(self._cast(name, element_type, kind) for name in node.inputs)
        outputs = tuple(self._cast(name, element_type, kind) for name in node.outputs)
        if outputs != node.outputs and node.domain in STANDARD:
            again = self.outputs(len(outputs), node.op_type, *inputs, **node.attributes)
            outputs = tuple(
                new if cast != old else old for new, cast, old in zip(again, outputs, node.outputs, strict=True)
            )
            for new, old in zip(outputs, node.outputs, strict=True):
                self.knows_like(new, old)
        widened_node = replace(node, inputs=inputs, outputs=outputs)
        cotangents = rule(self, widened_node, [each and self._cast(each, element_type, kind) for each in g])
        self.element_type = element_type
        if not isinstance(cotangents, list | tuple):
            return cotangents
        return [
            self._cast(each, kind, self.element_type_of(x) or element_type) if isinstance(each, str) else each
            for each, x in zip(cotangents, node.inputs, strict=False)
        ]

    def total(self, parts: Sequence[str]) -> str:
        """Return the sum of the cotangents that came to one tensor, of 16 bits rounded once."""
        kind = self.element_type_of(parts[0])
        if kind not in HALVES:
            return self.Add(*parts) if len(parts) == 2 else self.Sum(*parts)
        total = self.total([self._cast(part, kind, TensorProto.FLOAT) for part in parts])
        return self._cast(total, TensorProto.FLOAT, kind)

    def _cast(self, name: str, usual: int, kind: int) -> str:
        """Return a float tensor in the element type `kind`, all else as it is; `usual` is what a type not known is taken for."""
        element_type = (self.element_type_of(name) or usual) if name else TensorProto.UNDEFINED
        if element_type not in FLOATS or element_type == kind:
            return name
        before = self._cast_from.get(name, "")
        if self.element_type_of(before) == kind:  # a cotangent stays as exact as it was between rules that widen
            return before
        if (name, kind) not in self._casts:
            cast = self._casts[name, kind] = self.Cast(name, to=kind)
            self._cast_from[cast] = name
            self.knows_like(cast, name)
        return self._casts[name, kind]

    # What many rules do

    def sum_to(self, g: str, x: str, of: str) -> str:
        """Return `g`, shaped as tensor `of`, summed over the axes along which `x` was broadcast to that shape."""
        if x == of:
            return g
        axes = self.broadcast_axes(x, of)
        if axes is None:
            return self._sum_to_dynamic(g, x, of)
        return self.reshape_like(self.sum_over(g, axes), x) if axes else g

    def _sum_to_dynamic(self, g: str, x: str, of: str) -> str:
        narrow, wide = self.Shape(x), self.Shape(of)
        missing = self.Sub(self.Shape(wide), self.Shape(narrow))
        fill = constant_tensor([1], TensorProto.INT64, "value")
        padded = self.Concat(self.ConstantOfShape(missing, value=fill), narrow, axis=0)
        axes = self.Reshape(self.NonZero(self.Not(self.Equal(padded, wide))), self.integers([-1]))
        return self.Reshape(self.ReduceSum(g, axes, keepdims=1, noop_with_empty_axes=1), narrow, allowzero=1)

    def reshape_like(self, g: str, x: str) -> str:
        """Return `g` in the shape of `x`, of as many elements."""
        shape = self.shape(x)
        if shape is None or 0 in shape or shape.count(None) > 1:
            return self.Reshape(g, self.Shape(x), allowzero=1)
        return self.Reshape(g, self.integers(-1 if dim is None else dim for dim in shape))

    def expand_like(self, g: str, x: str) -> str:
        """Return `g` broadcast to the shape of `x`."""
        return self.Expand(g, self.shape_of(x))

    def shape_of(self, x: str) -> str:
        """Return the shape of `x` as a 1-d int64 tensor: a constant where it is known."""
        shape = self.shape(x)
        if shape is None or None in shape:
            return self.Shape(x)
        return self.integers(dim for dim in shape if dim is not None)

    def size_of(self, x: str, axis: int) -> str:
        """Return the length of `x` along an axis as a 1-d int64 tensor: a constant where it is known."""
        shape = self.shape(x)
        size = None if shape is None else shape[axis]
        if size is not None:
            return self.integers([size])
        return self.Shape(x, start=axis) if axis == -1 else self.Shape(x, start=axis, end=axis + 1)

    def reduce(self, operator: str, x: str, axes: Sequence[int], *, keepdims: bool = True) -> str:
        """Return `x` reduced by "ReduceSum", "ReduceMax", ... over `axes`; `x` itself where there are none."""
        if not axes:
            return x
        if self.opset >= _AXES_AS_INPUT or operator == "ReduceSum":
            return self._single(operator, x, self.integers(axes), keepdims=int(keepdims))
        return self._single(operator, x, axes=list(axes), keepdims=int(keepdims))

    def sum_over(self, g: str, axes: Sequence[int], *, keepdims: bool = True) -> str:
        """Return the sum of `g` over `axes`; `g` itself where there are none."""
        return self.reduce("ReduceSum", g, axes, keepdims=keepdims)

    def mean_over(self, g: str, axes: Sequence[int], *, keepdims: bool = True) -> str:
        """Return the mean of `g` over `axes`; `g` itself where there are none."""
        return self.reduce("ReduceMean", g, axes, keepdims=keepdims)

    def times(self, g: str, factor: str) -> str:
        """Return g * factor; 0 where a branch not taken made `g` 0, even where `factor` is infinite or NaN."""
        return self._linear(g, factor, self.Mul(g, factor))

    def over(self, g: str, divisor: str) -> str:
        """Return g / divisor; 0 where a branch not taken made `g` 0, even where `divisor` is 0 or NaN."""
        return self._linear(g, divisor, self.Div(g, divisor))

    def keep(self, condition: str, g: str) -> str:
        """Return `g` where `condition` holds and else 0: the cotangent of a branch that was taken there alone."""
        selected = self.Where(condition, g, 0.0)
        self._selected.add(selected)
        return selected

    def drop(self, condition: str, g: str) -> str:
        """Return 0 where `condition` holds and else `g`; where it compares with NaN, `g` passes."""
        dropped = self.Where(condition, 0.0, g)
        self._selected.add(dropped)
        return dropped

    def _linear(self, g: str, operand: str, result: str) -> str:
        if g not in self._selected:
            return result
        value = self.value(operand)
        harmless = value is not None and bool(np.all(np.isfinite(value.astype(np.float64)) & (value != 0)))
        if not harmless:
            result = self.Where(self.Equal(g, 0.0), 0.0, result)
        self._selected.add(result)
        return result

    def zeros_like(self, x: str) -> str:
        """Return zeros of the shape and element type of `x`, never NaN as 0 * inf would be."""
        return self._zeros(self.shape_of(x), self.element_type_of(x) or self.element_type)

    def _zeros(self, shape: str, element_type: int) -> str:
        if element_type == TensorProto.BFLOAT16:  # which ConstantOfShape lacks before opset 20
            return self.Cast(self._zeros(shape, TensorProto.FLOAT), to=element_type)
        return self.ConstantOfShape(shape, value=constant_tensor([0], element_type, "value"))

    def iota(self, x: str) -> str:
        """Return the flat index of every element of `x`, int64, in its shape."""
        count = self.Range(*(self.constant(np.array(0)), self.Size(x), self.constant(np.array(1))))
        return self.reshape_like(count, x)

    def scatter(self, x: str, index: str, g: str) -> str:
        """Return zeros in the shape of `x` to which each element of `g` is added at its flat `index`, shaped as `g`.

        The transpose of every operator that only moves data: run it on `b.iota(x)` to get the index. 16-bit sums are
        done in float32.
        """
        element_type = self.element_type_of(x) or self.element_type
        half = element_type in HALVES
        flat = self.integers([-1])
        updates = self.Reshape(g, flat)
        zeros = self._zeros(self.Reshape(self.Size(x), flat), TensorProto.FLOAT if half else element_type)
        if half:
            updates = self.Cast(updates, to=TensorProto.FLOAT)
        total = self.ScatterElements(zeros, self.Reshape(index, flat), updates, axis=0, reduction="add")
        return self.reshape_like(self.Cast(total, to=element_type) if half else total, x)

    def _operand(self, operand: Operand) -> str:
        if operand is None:
            return ""
        return operand if isinstance(operand, str) else self.constant(operand)

    def _type_given(self, operator: str, i: int, operands: list[str], attributes: dict[str, Any]) -> int:
        if operator == "Cast":
            return int(attributes["to"])
        if operator == "ConstantOfShape":
            return int(attributes["value"].data_type) if "value" in attributes else TensorProto.FLOAT
        if operator in _GIVES or (operator in {"TopK", "MaxPool"} and i == 1):
            return _GIVES.get(operator, TensorProto.INT64)
        like = 1 if operator in {"Where", "CastLike"} else 2 if operator == "OneHot" else 0
        return self.element_type_of(operands[like]) if operands else TensorProto.UNDEFINED
