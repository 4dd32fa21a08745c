"""Weights that are NaN or infinite where that spoils what is computed with them; what masks, bounds or is chosen is left alone."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.checking.flatten import FLOW
from actconform.checking.source import FLOATS
from actconform.checking.structure import CONTRIB_PREFIXES
from actconform.checking.value_flow import PASSED, value_flow
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    import onnx
    from numpy.typing import NDArray

    from actconform.checking.source import Source
    from actconform.checking.value_flow import Use, ValueFlow

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
_KEEPS_ABOVE = "Celu Elu Exp Gelu HardSwish Mish Relu Selu Softplus Sqrt Swish ThresholdedRelu".split()  # noqa: SIM905


class NonfiniteWeight(NamedTuple):
    """A weight with elements that spoil what is computed with it."""

    name: str
    """Of the initializer, or of the tensor that a Constant node gives."""
    element_type: int
    size: int
    nan: int
    """How many elements are NaN; 0 where none of them spoils anything."""
    infinite: int
    """How many are infinite; 0 likewise."""
    first: tuple[int, ...]
    """The place of the first of both."""
    reader: onnx.NodeProto
    """The first node on the way that reads it."""
    spoiled: onnx.NodeProto
    """The first that computes with it; `reader` itself, or one behind nodes that pass it on."""

    @property
    def words(self) -> str:
        """What is wrong with its numbers, as "has 3 NaN and 1 infinity among 64 numbers, the first at [0, 2]"."""
        counts = [f"{self.nan:,} NaN"] if self.nan else []
        counts += [number_of(self.infinite, "infinity", "infinities")] if self.infinite else []
        place = f", the first at {list(self.first)}" if self.first else ""
        return f"has {' and '.join(counts)} among {number_of(self.size, 'number')}{place}"


def nonfinite_weights(source: Source) -> list[NonfiniteWeight]:
    """Return the weights and constants that are NaN or infinite where that spoils the result, in the order of the nodes that read them.

    Those of float32, float64, float16 and bfloat16, in branches, loops and functions too. A NaN spoils all but what compares it, or chooses
    it by another tensor. An infinity spoils what multiplies by it or normalizes it; added to scores, or as a bound, it is a mask, and is
    left alone. So is what no node reads.
    """
    flow = value_flow(source.light)
    stored = dict(flow.stored)
    for tensor in source.model.graph.initializer:  # large ones are inputs of the graph that the flow follows
        if tensor.name in flow.inputs:
            stored.setdefault(flow.inputs[tensor.name], (tensor.name, tensor))
    harm = _Harm(flow, _constants(flow, stored))
    weights: list[tuple[tuple[int, ...], NonfiniteWeight]] = []
    for number, (name, tensor) in stored.items():
        if tensor.data_type in FLOATS and (number in flow.uses or number in flow.aliases):
            weights += harm.of_weight(number, name, tensor.data_type, source.array(tensor))
    return [weight for _, weight in sorted(weights, key=lambda placed: placed[0])]


def _constants(flow: ValueFlow, stored: Iterable[int]) -> set[int]:
    """Return the tensors that are stored, or computed of such alone."""
    constants = set(stored)
    nodes = {use.outputs: use for uses in flow.uses.values() for use in uses}
    for outputs in sorted(nodes):  # numbered in the order of the nodes
        use = nodes[outputs]
        if use.node.op_type not in FLOW and all(number is None or number in constants for number in use.operands):
            constants.update(outputs)
    return constants


class _Harm:
    """Where NaN and infinities in the constants of a model spoil what is computed."""

    def __init__(self, flow: ValueFlow, constants: Container[int]) -> None:
        self._flow = flow
        self._constants = constants

    def of_weight(
        self, number: int, name: str, element_type: int, array: NDArray[Any]
    ) -> Iterator[tuple[tuple[int, ...], NonfiniteWeight]]:
        """Yield what is wrong with a weight, after the outputs of its reader, by which it is sorted; nothing where all is well."""
        if bool(np.isfinite(array).all()):
            return
        wrong = {}
        for value in (math.nan, math.inf, -math.inf):
            elements = np.isnan(array) if math.isnan(value) else np.equal(array, value)
            way = self._way(number, value) if elements.any() else None
            if way is not None:
                wrong[value] = elements, way
        if not wrong:
            return
        counts = {value: int(np.count_nonzero(elements)) for value, (elements, _) in wrong.items()}
        first = min(tuple(map(int, np.argwhere(elements)[0])) for elements, _ in wrong.values())
        _, (reader, spoiled) = next(iter(wrong.values()))
        yield (
            reader.outputs,
            NonfiniteWeight(
                name=name,
                element_type=element_type,
                size=array.size,
                nan=counts.get(math.nan, 0),
                infinite=counts.get(math.inf, 0) + counts.get(-math.inf, 0),
                first=first,
                reader=reader.node,
                spoiled=spoiled.node,
            ),
        )

    def _way(self, number: int, value: float) -> tuple[Use, Use] | None:
        """Return the node that reads a tensor, and the nearest one that a NaN or infinity in it spoils; None where there is none."""
        waiting: deque[tuple[int, float, Use | None, bool]] = deque([(number, value, None, True)])
        visited = set()
        while waiting:
            tensor, value, reader, bare = waiting.popleft()
            if (tensor, value) in visited:
                continue
            visited.add((tensor, value))
            waiting.extend((alias, value, reader, bare) for alias in self._flow.aliases.get(tensor, ()))
            for use in self._flow.uses.get(tensor, ()):
                for position in (i for i, operand in enumerate(use.operands) if operand == tensor):
                    if self._spoils(use, position, value, bare=bare):
                        return reader or use, use
                    result = self._passed_on(use, position, value)
                    if result is not None:
                        still_bare = bare and _is_moved(use, position)
                        waiting.extend((output, result, reader or use, still_bare) for output in use.outputs)
        return None

    def _spoils(self, use: Use, position: int, value: float, *, bare: bool) -> bool:
        """Tell whether a node's result is worth nothing for such an operand; `bare` where this is still the constant, moved at most."""
        operator, standard = use.node.op_type, use.node.domain in STANDARD
        if math.isnan(value):
            is_defined = standard or use.node.domain.startswith(CONTRIB_PREFIXES)
            return is_defined and not _is_moved(use, position) and not _has(_KEEPS_NAN_APART, operator, position)
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
