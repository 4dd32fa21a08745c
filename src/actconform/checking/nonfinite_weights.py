"""Weights that are NaN or infinite where that spoils what is computed with them; what masks, bounds or is chosen is left alone."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from actconform.checking.constant_values import Constant, ConstantValues
from actconform.checking.flatten import FLOW, wide
from actconform.checking.source import FLOATS
from actconform.checking.structure import CONTRIB_PREFIXES
from actconform.checking.value_flow import PASSED, value_flow
from actconform.onnx.constant_folding import decided
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from actconform.checking.source import Source
    from actconform.checking.value_flow import Use, ValueFlow

Array: TypeAlias = NDArray[Any]

COMPARES = "Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual".split()  # noqa: SIM905  a list to read
READS_NO_VALUE = "EyeLike RandomNormalLike RandomUniformLike Shape Size".split()  # noqa: SIM905
_COLLECTS = "Optional SequenceConstruct SequenceInsert".split()  # noqa: SIM905
# The inputs by which a NaN computes nothing: it is compared, or chosen in places that other tensors tell; None for all.
_KEEPS_NAN_APART: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys((*COMPARES, *READS_NO_VALUE, *_COLLECTS, *FLOW)),
    "CastLike": (1,),
    "OneHot": (2,),
    "Pad": (2,),
    "Scatter": (0, 2),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "Where": (1, 2),
}
# The inputs that are multiplied and summed, or whose mean and variance are taken: an infinity there gives NaN, or infinity
# everywhere; None for all.
_WEIGHS: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul"), (0, 1)),
    **dict.fromkeys(("DequantizeLinear", "PRelu"), (1,)),
    "BatchNormalization": (0, 1, 2, 3),  # an infinite variance leaves its bias
    **dict.fromkeys(
        """
        Cos Einsum GRU GroupNormalization InstanceNormalization LRN LSTM LayerNormalization LpNormalization
        MeanVarianceNormalization RMSNormalization RNN Sin Tan
        """.split()  # noqa: SIM905
    ),
}
# The inputs whose infinity the result has too, with its sign.
_KEEPS_INFINITY: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("Add", "LeakyRelu", "ReduceMean", "ReduceSum", "Sum")),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), (2,)),
    **dict.fromkeys(("Div", "Pow"), (0,)),
}
_FILLS = {("Pad", "value"), ("Resize", "extrapolation_value")}  # attributes that may be NaN
_SCALES = {
    ("Elu", "alpha"),
    ("Gemm", "alpha"),
    ("Gemm", "beta"),
    ("HardSigmoid", "alpha"),
    ("LeakyRelu", "alpha"),
    ("Selu", "alpha"),
    ("Selu", "gamma"),
}  # attributes that multiply
_KEEPS_ABOVE = "Celu Elu Exp Gelu HardSwish Mish Relu Selu Softplus Sqrt Swish ThresholdedRelu".split()  # noqa: SIM905


class NonfiniteWeight(NamedTuple):
    """A weight or an attribute that spoils what is computed with it."""

    name: str
    """Of the initializer, or of the tensor that a Constant node gives; of an attribute, the first tensor that its node gives."""
    element_type: int
    size: int
    nan: int
    """How many elements are NaN; 0 where none of them spoils anything."""
    infinite: int
    """How many are infinite; 0 likewise."""
    first: tuple[int, ...]
    """The place of the first of both."""
    reader: onnx.NodeProto
    """The first node on the way that reads it; of an attribute, the node that has it."""
    spoiled: onnx.NodeProto
    """The first that computes with it, or gives it as an output; `reader` itself, or one behind nodes that pass it on."""
    output: str = ""
    """The output of the model that it comes to as it is; "" where a node computes with it."""
    attribute: str = ""
    """The attribute's name; "" of a weight."""

    @property
    def label(self) -> str:
        """What it is called, as "weight w" or "attribute alpha"."""
        return f"attribute {one_line(self.attribute, 80)}" if self.attribute else f"weight {one_line(self.name, 80)}"

    @property
    def words(self) -> str:
        """What is wrong with its numbers, as "has 3 NaN and 1 infinity among 64 numbers, the first at [0, 2]" or "is NaN"."""
        if self.size == 1:
            return "is NaN" if self.nan else "is infinite"
        counts = [f"{self.nan:,} NaN"] if self.nan else []
        counts += [number_of(self.infinite, "infinity", "infinities")] if self.infinite else []
        place = f", the first at {list(self.first)}" if self.first else ""
        return f"has {' and '.join(counts)} among {number_of(self.size, 'number')}{place}"


class _Way(NamedTuple):
    """Of a NaN or infinity to what it spoils."""

    reader: Use
    spoiled: Use
    output: str = ""


class _Step(NamedTuple):
    """A tensor on the way."""

    tensor: int
    value: float
    """The NaN or infinity in it."""
    constant: Constant | None
    """All of the tensor, with that value alone of those that are not finite; None where it depends on inputs, or is not computed."""
    bare: bool
    """Whether it is constant, or the constant moved among others."""
    last: _Way | None
    """The reader, and the node that gives the tensor."""


def nonfinite_weights(source: Source) -> list[NonfiniteWeight]:
    """Return the weights, constants and attributes that are NaN or infinite where that may spoil an output, in the order of the nodes that read them.

    Those of float32, float64, float16 and bfloat16, in branches, loops and functions too, stored sparse too. A NaN spoils all but what
    compares it, or chooses it by another tensor; so does one that is moved to an output as it is. An infinity spoils what multiplies by it
    or normalizes it; added to scores, or as a bound, it is a mask, and is left alone. So is what no output depends on, and what a node that
    reads constants alone leaves out, as a Slice may.
    """
    flow = value_flow(decided(source.light))
    values = ConstantValues(source, flow)
    harm = _Harm(flow, values)
    weights: list[tuple[tuple[int, ...], NonfiniteWeight]] = []
    for number, (name, tensor) in values.tensors.items():
        if number in harm.needed and tensor.data_type in FLOATS:
            constant = values.stored(number)
            if not bool(np.isfinite(constant.array).all()):
                weights += harm.of_weight(number, name, constant)
    weights += harm.of_attributes()
    return [weight for _, weight in sorted(weights, key=lambda placed: placed[0])]


class _Harm:
    """Where NaN and infinities in the constants of a model spoil what is computed."""

    def __init__(self, flow: ValueFlow, constants: ConstantValues) -> None:
        self._flow = flow
        self._constants = constants
        self._outputs = set(flow.outputs)
        self.needed = flow.needed()

    def of_weight(
        self, number: int, name: str, constant: Constant
    ) -> Iterator[tuple[tuple[int, ...], NonfiniteWeight]]:
        """Yield what is wrong with a weight, after the outputs of its reader, by which it is sorted; nothing where all is well."""
        wrong = {}
        for value, elements in _kinds(constant.array):
            way = self._way(_Step(number, value, _with_alone(constant, value), bare=True, last=None))
            if way is not None:
                wrong[value] = elements, way
        if not wrong:
            return
        counts = {value: int(np.count_nonzero(elements)) for value, (elements, _) in wrong.items()}
        first = min(tuple(map(int, np.argwhere(elements)[0])) for elements, _ in wrong.values())
        _, way = next(iter(wrong.values()))
        yield (
            way.reader.outputs,
            NonfiniteWeight(
                name=name,
                element_type=constant.element_type,
                size=constant.array.size,
                nan=counts.get(math.nan, 0),
                infinite=counts.get(math.inf, 0) + counts.get(-math.inf, 0),
                first=first,
                reader=way.reader.node,
                spoiled=way.spoiled.node,
                output=way.output,
            ),
        )

    def of_attributes(self) -> Iterator[tuple[tuple[int, ...], NonfiniteWeight]]:
        """Yield the attributes of floats that are wrong, likewise."""
        uses = {use.outputs: use for uses in self._flow.uses.values() for use in uses}
        for use in uses.values():
            if _is_defined(use) and not self.needed.isdisjoint(use.outputs):
                for attribute in use.node.attribute:
                    numbers = _numbers(attribute)
                    way = self._way_of_attribute(use, attribute.name, numbers)
                    if way is not None:
                        yield use.outputs, _wrong_attribute(use, attribute.name, numbers, way)

    def _way_of_attribute(self, use: Use, name: str, numbers: Array) -> _Way | None:
        """Return the way to what an attribute spoils; None where it spoils nothing."""
        operator = use.node.op_type
        if operator == "ConstantOfShape":
            (output,) = use.outputs
            filled = self._constants.value(output)
            for value, _ in _kinds(numbers):
                constant = None if filled is None else _with_alone(filled, value)
                if (way := self._way(_Step(output, value, constant, bare=True, last=None))) is not None:
                    return way
            return None
        spoils = np.isnan(numbers).any() or ((operator, name) in _SCALES and np.isinf(numbers).any())
        return _Way(use, use) if spoils and (operator, name) not in _FILLS else None

    def _way(self, start: _Step) -> _Way | None:
        """Return the node that reads a tensor, and the nearest one that a NaN or infinity in it spoils; None where there is none."""
        waiting = deque([start])
        visited = set()
        while waiting:
            step = waiting.popleft()
            if (step.tensor, step.value) in visited:
                continue
            visited.add((step.tensor, step.value))
            if step.last and math.isnan(step.value) and step.tensor in self._outputs:
                return step.last._replace(output=self._flow.names[step.tensor])
            waiting.extend(step._replace(tensor=alias) for alias in self._flow.aliases.get(step.tensor, ()))
            for use in self._flow.uses.get(step.tensor, ()):
                if self.needed.isdisjoint(use.outputs):
                    continue
                reader = step.last.reader if step.last else use
                folded = self._folded(step, use)
                if folded is not None:
                    waiting.extend(each._replace(last=_Way(reader, use)) for each in folded)
                    continue
                for position in (i for i, operand in enumerate(use.operands) if operand == step.tensor):
                    if self._spoils(use, position, step.value, bare=step.bare):
                        return _Way(reader, use)
                    result = self._passed_on(use, position, step.value)
                    if result is not None:
                        bare = step.bare and _is_moved(use, position)
                        waiting.extend(_Step(output, result, None, bare, _Way(reader, use)) for output in use.outputs)
        return None

    def _folded(self, step: _Step, use: Use) -> list[_Step] | None:
        """Return what becomes of a NaN or infinity in a node that reads constants alone; None where that cannot be computed."""
        if step.constant is None:
            return None
        instead = {step.tensor: step.constant}
        for position, operand in enumerate(use.operands):  # what a node moves of others beside it is not of this weight
            if operand is not None and operand not in instead and _is_moved(use, position):
                other = self._constants.value(operand)
                if other is not None and other.element_type in FLOATS:
                    instead[operand] = _with_alone(other, None)
        results = self._constants.results(use, instead)
        if results is None:
            return None
        return [
            _Step(output, value, _with_alone(result, value), bare=True, last=None)
            for output, result in zip(use.outputs, results, strict=True)
            if result.element_type in FLOATS
            for value, _ in _kinds(result.array)
        ]

    def _spoils(self, use: Use, position: int, value: float, *, bare: bool) -> bool:
        """Tell whether a node's result is worth nothing for such an operand; `bare` where this is still the constant, moved at most."""
        operator, standard = use.node.op_type, use.node.domain in STANDARD
        if math.isnan(value):
            return _is_defined(use) and not _is_moved(use, position) and not _has(_KEEPS_NAN_APART, operator, position)
        if standard and operator == "Mul":  # a mask of 0 and 1 times an infinity masks nothing: 0 inf is NaN
            return bare and not self._is_constant(use, 1 - position)
        return standard and _has(_WEIGHS, operator, position)

    def _passed_on(self, use: Use, position: int, value: float) -> float | None:
        """Return the NaN or infinity that a node's outputs have of one that it reads; None where they need not have any."""
        operator = use.node.op_type
        if use.node.domain not in STANDARD:
            return None
        if _is_moved(use, position):
            return value
        if operator == "Neg" or (operator == "Sub" and position == 1):
            return -value
        if operator == "Mul" and self._is_constant(use, 1 - position):
            constant = self._flow.constant(use, 1 - position)
            return -value if constant is not None and bool((constant < 0).all()) else value
        if operator == "Sub" or _has(_KEEPS_INFINITY, operator, position) or (value > 0 and operator in _KEEPS_ABOVE):
            return value
        return None

    def _is_constant(self, use: Use, position: int) -> bool:
        return use.operands[position] in self._constants


def _kinds(array: Array) -> Iterator[tuple[float, NDArray[np.bool_]]]:
    """Yield NaN, inf and -inf, each that an array holds, and where."""
    for value in (math.nan, math.inf, -math.inf):
        elements = np.isnan(array) if math.isnan(value) else np.equal(array, value)
        if elements.any():
            yield value, elements


def _with_alone(constant: Constant, value: float | None) -> Constant:
    """Return a constant with 0 in place of what is not finite, but for one value."""
    elements = np.isfinite(constant.array)
    if value is not None:
        elements |= np.isnan(constant.array) if math.isnan(value) else np.equal(constant.array, value)
    return constant._replace(array=np.where(elements, constant.array, np.zeros((), constant.array.dtype)))


def _numbers(attribute: onnx.AttributeProto) -> Array:
    """Return the floats of an attribute; none of any other."""
    if attribute.HasField("f"):
        return np.array(attribute.f)
    if attribute.HasField("t") and attribute.t.data_type in FLOATS:
        return wide(numpy_helper.to_array(attribute.t))
    return np.array(attribute.floats, np.float64)


def _wrong_attribute(use: Use, name: str, numbers: Array, way: _Way) -> NonfiniteWeight:
    places = np.argwhere(~np.isfinite(numbers))
    return NonfiniteWeight(
        name=next(filter(None, use.node.output)),
        element_type=TensorProto.FLOAT,
        size=numbers.size,
        nan=int(np.isnan(numbers).sum()),
        infinite=int(np.isinf(numbers).sum()),
        first=tuple(map(int, places[0])),
        reader=use.node,
        spoiled=way.spoiled.node,
        output=way.output,
        attribute=name,
    )


def _is_defined(use: Use) -> bool:
    """Tell whether an operator is one whose definition is known."""
    return use.node.domain in STANDARD or use.node.domain.startswith(CONTRIB_PREFIXES)


def _is_moved(use: Use, position: int) -> bool:
    """Tell whether a node passes the elements of an input on as floats, whatever else it reads."""
    operator = use.node.op_type
    if operator == "Where" or not _has(PASSED, operator, position):
        return False
    return operator != "Cast" or any(entry.name == "to" and entry.i in FLOATS for entry in use.node.attribute)


def _has(positions: dict[str, tuple[int, ...] | None], operator: str, position: int) -> bool:
    if operator not in positions:
        return False
    listed = positions[operator]
    return listed is None or position in listed
