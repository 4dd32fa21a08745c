"""An ONNX graph as its own formula: evaluated node by node in running-error arithmetic.

What computes numbers is stated as text, one formula an operator (`OPERATORS`); a library may state its own. What moves, counts or
compares is onnx's own implementation, applied to values and errors alike. Floats are `Number`, booleans `Condition`, integers arrays.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache, reduce
from operator import add, and_, invert, or_
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from actconform.errors import Unsupported
from actconform.onnx.evaluate.computation import attributes_of, passed_on
from actconform.onnx.evaluate.elementwise import EXACT as EXACT_OPERATORS
from actconform.onnx.evaluate.elementwise import OPERATIONS, PASSED_ON, OperatorNode
from actconform.onnx.gates import standard_opset
from actconform.onnx.nodes import ELEMENT_TYPES
from actconform.onnx.opset_conversion import inlined
from actconform.oracle.rounding import round_to
from actconform.tolerance.ulp import ulp_of
from actconform.types.dtypes import DTYPES, FloatFormat
from actconform.verdict.causes import primitives
from actconform.verdict.causes.arithmetic import EXACT, Arithmetic, Condition, Number, as_read, settled
from actconform.verdict.causes.formula import Formula, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.types import Bundle

Tensor: TypeAlias = Any  # a Number, a Condition, or an array of integers

FORMAT_OF = {element_type: DTYPES[dtype] for dtype, element_type in ELEMENT_TYPES.items()} | {TensorProto.DOUBLE: EXACT}
BY_DTYPE = {"float32": DTYPES["f32"], "float16": DTYPES["f16"], "bfloat16": DTYPES["bf16"], "float64": EXACT}
INVERSE_ROOT = "0.7071067811865476"

# x, y, z are the inputs in order; attributes go by their names
OPERATORS: Mapping[str, str] = {
    "Abs": "abs(x)",
    "Add": "x + y",
    "Celu": "where(x > 0, x, alpha * (exp(x / alpha) - 1))",
    "Div": "x / y",
    "Elu": "where(x > 0, x, alpha * (exp(x) - 1))",
    "Erf": "erf(x)",
    "Exp": "exp(x)",
    "Gelu": f"0.5 * x * (1 + erf({INVERSE_ROOT} * x))",
    "Gelu/tanh": "0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))",
    "HardSigmoid": "clip(alpha * x + beta, 0, 1)",
    "HardSwish": "x * clip(x / 6 + 0.5, 0, 1)",
    "LeakyRelu": "where(x >= 0, x, alpha * x)",
    "Log": "log(x)",
    "Max": "maximum(x, y)",
    "Min": "minimum(x, y)",
    "Mish": "x * tanh(softplus(x))",
    "Mul": "x * y",
    "Neg": "-x",
    "PRelu": "where(x < 0, x * y, x)",
    "Pow/2": "x * x",
    "Pow/3": "x * x * x",
    "Reciprocal": "1 / x",
    "Relu": "maximum(x, 0)",
    "Selu": "gamma * where(x > 0, x, alpha * (exp(x) - 1))",
    "Shrink": "where(x < -lambd, x + bias, where(x > lambd, x - bias, 0))",
    "Sigmoid": "sigmoid(x)",
    "Sign": "sign(x)",
    "Softplus": "softplus(x)",
    "Softsign": "x * (1 / (1 + abs(x)))",
    "Sqrt": "sqrt(x)",
    "Sub": "x - y",
    "Sum": "x + y",
    "Swish": "x * sigmoid(alpha * x)",
    "Tanh": "tanh(x)",
    "ThresholdedRelu": "where(x > alpha, x, 0)",
}
SIMPLE = ("Abs", "Add", "Div", "Max", "Min", "Mul", "Neg", "Relu", "Sign", "Sub", "Sum", "LeakyRelu", "ThresholdedRelu")
VARIADIC = ("Max", "Min", "Sum")
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}
LOGIC: Mapping[str, Callable[..., Condition]] = {"And": and_, "Not": invert, "Or": or_}
LONG = 3  # trailing bits in use, by which a constant is one that was rounded to its format
MOVES = frozenset(
    """
    Concat Expand Flatten Gather GatherElements GatherND Identity Pad Reshape Slice Split Squeeze Tile Transpose Trilu Unsqueeze
    DepthToSpace SpaceToDepth
    """.split()  # noqa: SIM905  a list to read
)


@cache
def _formula(text: str) -> Formula:
    return Formula(text)


@lru_cache(512)
def _mover(node: bytes, opset: int) -> Any:
    """Return onnx's own implementation of a node, made once: routes share their small graphs."""
    return passed_on(onnx.NodeProto.FromString(node), opset)


class GraphFormula:
    """One graph, ready to be evaluated in any arithmetic. Functions in it are inlined.

    `operators` are a library's own texts beside `OPERATORS`. Raises Unsupported for a graph that cannot be read.
    """

    def __init__(self, model: bytes, operators: Mapping[str, str]) -> None:
        proto = inlined(onnx.load_from_string(model))
        self._graph = proto.graph
        self._opset = standard_opset(proto)
        self._texts = {**OPERATORS, **operators}
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        self._constants = constants
        self._attributes = [attributes_of(node, self._opset) for node in proto.graph.node]
        self.inputs = [value.name for value in proto.graph.input if value.name not in constants]

    def evaluate(self, tensors: Bundle, arithmetic: Arithmetic, *, wide: bool = False) -> dict[str, Number]:
        """Return the float outputs by name; raise Unsupported for an operator that has no text.

        `arithmetic` gives the accuracies; each tensor has its own format, float32 with `wide` where it is narrower (runtimes may
        compute a 16-bit graph so, and round at its end), and float64 without rounding where `arithmetic` is exact.
        """
        evaluation = _Evaluation(arithmetic, self._texts, wide=wide)
        values: dict[str, Tensor] = {name: evaluation.tensor(array) for name, array in self._constants.items()}
        values |= {name: evaluation.tensor(np.asarray(tensors[name]), read=True) for name in self.inputs}
        for node, attributes in zip(self._graph.node, self._attributes, strict=True):
            arguments = [values[name] if name else None for name in node.input]
            results = evaluation.node(node, attributes, arguments, self._opset)
            values.update(zip(node.output, results, strict=False))
        outputs = {}
        for output in self._graph.output:
            number = values[output.name]
            if isinstance(number, Number):
                declared = FORMAT_OF.get(output.type.tensor_type.elem_type, number.arithmetic.fmt)
                outputs[output.name] = number if arithmetic.exact else number.rounded_to(arithmetic.to(declared))
        return outputs


class _Evaluation:
    """Nodes in one arithmetic."""

    def __init__(self, arithmetic: Arithmetic, texts: Mapping[str, str], *, wide: bool) -> None:
        self._arithmetic, self._texts, self._wide = arithmetic, texts, wide

    def tensor(self, array: NDArray[Any], *, read: bool = False) -> Tensor:
        if array.dtype == np.bool_:
            return Condition(array, np.zeros(array.shape, np.bool_))
        fmt = BY_DTYPE.get(array.dtype.name)
        if fmt is None:
            return array
        values = array.astype(np.float64)
        if not read:
            return Number(values, self._misheld(values, fmt), self._of(fmt))
        number = as_read(values, self._arithmetic.to(EXACT if self._arithmetic.exact else fmt))
        return Number(number.value, number.error, self._of(fmt))

    def _misheld(self, values: NDArray[np.float64], fmt: FloatFormat) -> NDArray[np.float64]:
        """Return how far constants may be from the real numbers they stand for, in exact arithmetic: half an ULP if they are long."""
        if not self._arithmetic.exact or fmt.precision >= EXACT.precision:
            return np.zeros(values.shape)
        short = FloatFormat(fmt.name, fmt.bits, fmt.precision - LONG, fmt.emin, fmt.emax)
        half = 0.5 * ulp_of(np.ascontiguousarray(values), fmt)
        return np.where(np.isfinite(values) & (round_to(values, short) != values), half, 0.0)

    def _of(self, fmt: Any) -> Arithmetic:
        if self._arithmetic.exact:
            return self._arithmetic
        return self._arithmetic.to(DTYPES["f32"] if self._wide and fmt.bits == 16 else fmt)

    def node(
        self, node: onnx.NodeProto, attributes: dict[str, Any], arguments: list[Tensor | None], opset: int
    ) -> Sequence[Tensor]:
        """Return the outputs of one node. Raises Unsupported for an operator that computes and has no text."""
        name = node.op_type
        floats = any(isinstance(argument, Number) for argument in arguments)
        if floats and (special := SPECIAL.get(name)):
            return special(self, attributes, arguments)
        if floats and (text := self._text(name, attributes, arguments)) is not None:
            return [self._computed(name, text, attributes, [part for part in arguments if part is not None])]
        if name in LOGIC and isinstance(arguments[0], Condition):
            return [LOGIC[name](*arguments)]
        if name in MOVES:
            return _moved(node, arguments, opset)
        if choice := CHOICES.get(name):
            return [choice(self, attributes, arguments)]
        return self._plain(node, attributes, arguments, opset)

    def _text(self, name: str, attributes: Mapping[str, Any], arguments: Sequence[Tensor | None]) -> str | None:
        if name == "Gelu" and attributes.get("approximate") == "tanh":
            return self._texts["Gelu/tanh"]
        if name == "Pow":
            exponent = np.ravel(_plain(arguments[1]))
            return self._texts.get(f"Pow/{exponent[0]:g}") if exponent.size == 1 else None
        return self._texts.get(name)

    def _computed(self, name: str, text: str, attributes: Mapping[str, Any], arguments: Sequence[Tensor]) -> Number:
        """Return an operator's formula; inside one operator runtimes compute 16-bit tensors in float32."""
        first = next(argument for argument in arguments if isinstance(argument, Number))
        ends = first.arithmetic
        steps = ends.to(DTYPES["f32"]) if ends.fmt.bits == 16 and name not in SIMPLE else ends
        numbers = [
            replace(argument, arithmetic=steps) if isinstance(argument, Number) else _as_number(argument, steps)
            for argument in arguments
        ]
        numbers = numbers[:1] if name == "Pow" else numbers
        fixed = {key: numbers[0].operand(value) for key, value in attributes.items() if isinstance(value, float)}

        def value(*operands: Number) -> Number:
            names = dict(zip("xyz", operands, strict=False)) | fixed
            return _formula(text).evaluate(Scope(names, steps, ends))

        if name in VARIADIC:
            return reduce(value, numbers[1:], numbers[0])
        return value(*numbers)

    def cast(self, tensor: Tensor, to: int) -> Tensor:
        """Return a tensor in another element type."""
        if to in FORMAT_OF:
            into = self._of(FORMAT_OF[to])
            if isinstance(tensor, Condition):
                return Number(tensor.holds.astype(np.float64), tensor.unsure.astype(np.float64), into)
            return tensor.rounded_to(into) if isinstance(tensor, Number) else _as_number(tensor, into)
        if to == TensorProto.BOOL:
            if isinstance(tensor, Number):
                return ~tensor.compared(0.0, np.equal)
            array = _plain(tensor) != 0
            return tensor if isinstance(tensor, Condition) else Condition(array, np.zeros(array.shape, np.bool_))
        return _plain(tensor).astype(onnx.helper.tensor_dtype_to_np_dtype(to))

    def constant(self, attributes: Mapping[str, Any]) -> Tensor:
        """Return the tensor of a node Constant."""
        name, value = next(iter(attributes.items()))
        if name == "value":
            return self.tensor(numpy_helper.to_array(value))
        return self.tensor(np.asarray(value, np.float32 if "float" in name else np.int64))

    def _plain(
        self, node: onnx.NodeProto, attributes: dict[str, Any], arguments: Sequence[Tensor | None], opset: int
    ) -> Sequence[Tensor]:
        """Return what onnx's own implementation gives, for what has no rounding."""
        name = node.op_type
        numbers = [argument for argument in arguments if isinstance(argument, Number)]
        if any((number.error != 0).any() for number in numbers) and name not in ("Shape", "Size", "ArgMax", "Hardmax"):
            raise Unsupported(f"the operator {name} has no formula")
        plain = [None if argument is None else _plain(argument) for argument in arguments]
        if name in PASSED_ON:
            results = _mover(node.SerializeToString(), opset)(plain)
        elif name in OPERATIONS and (not numbers or name in EXACT_OPERATORS):
            result = OPERATIONS[name](OperatorNode(name, attributes, opset), *plain)
            results = result if isinstance(result, tuple) else (result,)
        else:
            raise Unsupported(f"the operator {name} has no formula")
        like = numbers[0].arithmetic if numbers else None
        return [self._back(np.asarray(result), like) for result in results]

    def _back(self, array: NDArray[Any], like: Arithmetic | None) -> Tensor:
        if array.dtype.kind == "f" and like is not None:
            return Number(array.astype(np.float64), np.zeros(array.shape), like)
        return self.tensor(array)


def _plain(tensor: Tensor) -> Any:
    if isinstance(tensor, Number):
        return tensor.value
    return tensor.holds if isinstance(tensor, Condition) else np.asarray(tensor)


def _as_number(array: Any, arithmetic: Arithmetic) -> Number:
    wide = np.asarray(_plain(array), np.float64)
    return Number(wide, np.zeros(wide.shape), arithmetic)


def _where(arguments: Sequence[Tensor | None]) -> Tensor:
    condition, yes, no = arguments
    if isinstance(yes, Number) or isinstance(no, Number):
        assert isinstance(condition, Condition)
        like = (yes if isinstance(yes, Number) else no).arithmetic  # type: ignore[union-attr]
        a, b = (part if isinstance(part, Number) else _as_number(part, like) for part in (yes, no))
        shape = np.broadcast_shapes(condition.holds.shape, a.value.shape, b.value.shape)
        return primitives.where(condition, a, b).moved(lambda array: np.broadcast_to(array, shape))
    if isinstance(yes, Condition) and isinstance(no, Condition):
        assert isinstance(condition, Condition)
        return (condition & yes) | (~condition & no)
    return np.where(_plain(condition), _plain(yes), _plain(no))


def _moved(node: onnx.NodeProto, arguments: Sequence[Tensor | None], opset: int) -> Sequence[Tensor]:
    """Return what an operator that moves elements gives, of values and errors alike."""
    move = _mover(node.SerializeToString(), opset)
    first = next((part for part in arguments if isinstance(part, Number | Condition)), None)
    if isinstance(first, Number):
        parts = [
            [getattr(part, key) if isinstance(part, Number) else _optional(part) for part in arguments]
            for key in ("value", "error")
        ]
        values, errors = (move(part) for part in parts)
        return [Number(np.asarray(v), np.asarray(e), first.arithmetic) for v, e in zip(values, errors, strict=True)]
    if isinstance(first, Condition):
        parts = [
            [getattr(part, key) if isinstance(part, Condition) else _optional(part) for part in arguments]
            for key in ("holds", "unsure")
        ]
        holds, unsure = (move(part) for part in parts)
        return [Condition(np.asarray(h), np.asarray(u)) for h, u in zip(holds, unsure, strict=True)]
    return list(move([_optional(part) for part in arguments]))


def _optional(part: Tensor | None) -> Any:
    return None if part is None else _plain(part)


def _axes(attributes: Mapping[str, Any], arguments: Sequence[Tensor | None], rank: int) -> tuple[int, ...] | None:
    given_axes = arguments[1] if len(arguments) > 1 and arguments[1] is not None else attributes.get("axes")
    if given_axes is None or not len(given_axes):
        return None if attributes.get("noop_with_empty_axes") else tuple(range(rank))
    return tuple(int(axis) % rank for axis in np.ravel(given_axes))


def _reduced(_: _Evaluation, attributes: dict[str, Any], arguments: list[Any], how: Any) -> Number:
    x: Number = arguments[0]
    axes, keep = _axes(attributes, arguments, x.value.ndim), bool(attributes.get("keepdims", 1))
    if axes is None:
        return x
    result: Number = how(x, axes, keepdims=keep)
    return result


def _cumulated(_: _Evaluation, attributes: dict[str, Any], arguments: list[Any]) -> Number:
    x: Number = arguments[0]
    axis = int(np.ravel(arguments[1])[0])
    if attributes.get("exclusive"):
        raise Unsupported("an exclusive CumSum has no formula")

    def turned(array: Any) -> Any:
        return np.flip(array, axis) if attributes.get("reverse") else array

    value, error, reach = (
        turned(np.cumsum(turned(part), axis)) for part in (x.value, x.error, np.abs(x.value) + x.error)
    )
    unit = x.arithmetic.fmt.unit_roundoff
    return settled(value, error + reach * x.value.shape[axis] * unit, x.arithmetic, 0)


def _scattered(_: _Evaluation, attributes: dict[str, Any], arguments: list[Any]) -> Number:
    x, index, updates = arguments
    value, error = x.value.copy(), x.error.copy()
    place = list(np.indices(np.shape(index)))
    place[attributes.get("axis", 0)] = np.asarray(index)
    if attributes.get("reduction", "none") == "add":
        np.add.at(value, tuple(place), updates.value)
        unit = x.arithmetic.fmt.unit_roundoff
        np.add.at(error, tuple(place), updates.error + np.abs(updates.value) * unit)
    elif attributes.get("reduction", "none") == "none":
        value[tuple(place)], error[tuple(place)] = updates.value, updates.error
    else:
        raise Unsupported(f"ScatterElements with {attributes['reduction']} has no formula")
    return Number(value, error, x.arithmetic)


def _top(attributes: Mapping[str, Any], arguments: Sequence[Any]) -> Sequence[Tensor]:
    x: Number = arguments[0]
    axis, count = attributes.get("axis", -1), int(np.ravel(arguments[1])[0])
    order = np.take(np.argsort(-x.value, axis=axis, kind="stable"), np.arange(count), axis=axis)
    return [x.moved(lambda array: np.take_along_axis(array, order, axis)), order]


def _clipped(_: _Evaluation, __: dict[str, Any], arguments: list[Any]) -> Number:
    x, low, high = (*arguments, None, None)[:3]
    if low is not None:
        x = primitives.maximum(x, low)
    result: Number = x if high is None else primitives.minimum(x, high)
    return result


def _global_max(_: _Evaluation, __: dict[str, Any], arguments: list[Any]) -> Number:
    """Return the largest of each window: with a NaN in it runtimes give NaN or skip it, by its place."""
    x: Number = arguments[0]
    axes = tuple(range(2, x.value.ndim))
    largest = primitives.largest(x, axes, "skipped")
    either = np.isnan(x.value).any(axis=axes, keepdims=True)
    return Number(largest.value, np.where(either, np.nan, largest.error), x.arithmetic)


def _compared(name: str, arguments: Sequence[Any]) -> Condition:
    like = next(part.arithmetic for part in arguments if isinstance(part, Number))
    a, b = (part if isinstance(part, Number) else _as_number(part, like) for part in arguments)
    return a.compared(b, COMPARISONS[name])


Special: TypeAlias = "Callable[[_Evaluation, dict[str, Any], list[Any]], Sequence[Tensor]]"
# where an input is a float
SPECIAL: Mapping[str, Special] = {
    **{name: lambda _, __, i, name=name: [_compared(name, i)] for name in COMPARISONS},  # type: ignore[misc]
    "Clip": lambda e, a, i: [_clipped(e, a, i)],
    "CumSum": lambda e, a, i: [_cumulated(e, a, i)],
    "GlobalMaxPool": lambda e, a, i: [_global_max(e, a, i)],
    "Mean": lambda _, __, i: [reduce(add, i[1:], i[0]) / float(len(i))],
    "LogSoftmax": lambda _, a, i: [primitives.softmax(i[0], a.get("axis", -1), logarithm=True)],
    "ReduceMax": lambda e, a, i: [_reduced(e, a, i, primitives.largest)],
    "ReduceSum": lambda e, a, i: [_reduced(e, a, i, primitives.total)],
    "ScatterElements": lambda e, a, i: [_scattered(e, a, i)],
    "Softmax": lambda _, a, i: [primitives.softmax(i[0], a.get("axis", -1))],
    "TopK": lambda _, a, i: _top(a, i),
}
# whatever the inputs are
CHOICES: Mapping[str, Callable[[_Evaluation, dict[str, Any], list[Any]], Tensor]] = {
    "Cast": lambda e, a, i: e.cast(i[0], a["to"]),
    "Constant": lambda e, a, _: e.constant(a),
    "Where": lambda _, __, i: _where(i),
}
