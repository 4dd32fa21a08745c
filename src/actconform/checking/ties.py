"""Where rounding decides: inputs of a step function that lie within their own rounding error of its jump.

Of T5's position 16 the bucket is the integer part of 8 log(2) / log(16), which is 2 of real numbers, and 1.9999999 or 2 of rounded ones. Such
elements are decided as an implementation decides them that rounds every operator correctly, in the evaluation in float64 too: else it
would go another way than all of them.

A tensor is followed from the inputs on through operators that every implementation computes element by element; behind sums of many terms
implementations differ among each other, and what they decide is left to the draws of rounding.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from actconform.onnx.evaluate.element_types import FORMATS, STORAGE, held
from actconform.onnx.evaluate.error_bounds import Approximation, bounded_outputs
from actconform.onnx.evaluate.error_bounds.exact import MOVES
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.onnx.nested_graphs import reads, subgraphs
from actconform.oracle.rounding import round_to

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from actconform.checking.flatten import FlatNode
    from actconform.oracle.rounding import F64

Array: TypeAlias = NDArray[Any]

COMPARISONS = frozenset(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"))
STEPS_OF_FLOATS = frozenset(("Ceil", "Floor", "Round", "Sign"))
STEPS = COMPARISONS | STEPS_OF_FLOATS | {"Cast", "CastLike"}  # casts to integers and booleans
# Each element of the output is computed from one element of each input, in a few roundings.
ELEMENTWISE = frozenset(
    """
    Abs Acos Acosh Add Asin Asinh Atan Atanh Cast CastLike Clip Cos Cosh Div Exp Log Max Min Mul Neg Pow Reciprocal Relu Sigmoid Sin Sinh
    Sqrt Sub Sum Tan Tanh Where
    """.split()  # noqa: SIM905  a list to read
)
OF_SHAPES = frozenset(("Shape", "Size"))  # whatever the elements
ROUNDS = ELEMENTWISE - {"Abs", "Clip", "Max", "Min", "Neg", "Relu", "Where"} | {"Range"}
FOLLOWED = (
    ELEMENTWISE | STEPS | (MOVES - {"Dropout"}) | {"And", "ConstantOfShape", "Not", "Or", "Range", "Xor"} | OF_SHAPES
)


class Tie(NamedTuple):
    """The elements of a step function's output that rounding decides; arrays of its shape."""

    close: NDArray[np.bool_]
    """Which they are."""
    decided: Array
    """The output where every operator rounds correctly."""
    ways: tuple[Array, Array]
    """The outputs where the input is as low, and as high, as rounding leaves room for; of a comparison the first beside the second."""

    def settled(self, output: Array) -> Array:
        """Return an output of the step with these elements as correct rounding decides them; one of another shape as it is."""
        return np.where(self.close, self.decided, output) if output.shape == self.close.shape else output

    def swayed(self, output: Array, high: NDArray[np.bool_]) -> Array:
        """Return an output of the step with these elements as they are at the low or, where it is `high`, at the high end of their errors."""
        if output.shape != self.close.shape:
            return output
        return np.where(self.close, np.where(high, self.ways[1], self.ways[0]), output)


class _Followed(NamedTuple):
    """A tensor beside its value in float64."""

    rounded: Array
    """As it is where every operator rounds correctly."""
    error: F64 | None
    """How far an implementation may be from the value in float64; None where it must be exactly that. Infinite where anything is possible."""


class TieSearch:
    """Finds the ties of a graph while it is evaluated in float64, node by node."""

    def __init__(self, exact: Sequence[Container[str]]) -> None:
        self._exact = exact
        """Names of tensors that every implementation reads as they are: inputs and constants."""
        self._followed: dict[str, _Followed] = {}

    def drop(self, name: str) -> None:
        """Forget a tensor that is not read any more."""
        self._followed.pop(name, None)

    def take(self, node: FlatNode, inputs: Sequence[Array | None], results: Sequence[Array]) -> Tie | None:
        """Follow the outputs of a node, whose inputs and results in float64 these are; return what rounding decides there, if anything."""
        op_type = node.proto.op_type
        read = self._read(node, inputs)
        if read is None:
            return None
        if op_type in OF_SHAPES or (all(each is None or each.error is None for each in read) and not _rounds(node)):
            self._keep(node, [_Followed(array, None) for array in results])
        elif op_type in STEPS_OF_FLOATS or (op_type in STEPS and _gives_whole_numbers(node)):
            return self._step(node, inputs, read, results[0])
        else:
            with suppress(Exception):  # no bound goes so far, or it fails at what rounding makes of its input
                self._keep(node, _computed(node, inputs, read))
        return None

    def _read(self, node: FlatNode, inputs: Sequence[Array | None]) -> list[_Followed | None] | None:
        """Return the inputs as they are followed; None where one is not, or the operator is none that is."""
        op_type = node.proto.op_type
        if node.computation is None or node.proto.domain not in STANDARD or op_type not in FOLLOWED:
            return None
        read: list[_Followed | None] = []
        for name, array in zip(node.proto.input, inputs, strict=True):
            exact = op_type in OF_SHAPES or any(name in names for names in self._exact)
            read.append(_Followed(array, None) if exact and array is not None else self._followed.get(name))
            if name and read[-1] is None:
                return None
        return read

    def _keep(self, node: FlatNode, followed: Sequence[_Followed]) -> None:
        self._followed.update((name, each) for name, each in zip(node.proto.output, followed, strict=False) if name)

    def _step(
        self, node: FlatNode, inputs: Sequence[Array | None], read: Sequence[_Followed | None], value: Array
    ) -> Tie | None:
        """Decide a step function: elements of which nothing is known stay in doubt."""
        decided = _outputs(node, [None if each is None else each.rounded for each in read])[0]
        ways = []
        for side in (-1.0, 1.0):
            signs = [side if i == 0 else -side for i in range(len(inputs))]
            ends = [_moved(x, each, sign) for x, each, sign in zip(inputs, read, signs, strict=True)]
            ways.append(_outputs(node, ends)[0])
        unknown = _unbounded(read, value.shape)
        close = np.asarray((_differ(ways[0], ways[1]) | _differ(decided, value)) & ~unknown)
        tie = Tie(close, decided, (ways[0], ways[1]))
        settled = tie.settled(value)
        self._keep(node, [_Followed(settled, np.where(unknown, np.inf, 0.0) if unknown.any() else None)])
        return tie if close.any() else None


def _gives_whole_numbers(node: FlatNode) -> bool:
    """Return whether an operator gives integers or booleans; narrower ones are quantized numbers."""
    return node.types[0] in STORAGE and STORAGE[node.types[0]].kind in "iub"


def _rounds(node: FlatNode) -> bool:
    """Return whether an operator gives floats that it computed."""
    return any(kind in FORMATS for kind in node.types) and node.proto.op_type in ROUNDS


def _computed(node: FlatNode, inputs: Sequence[Array | None], read: Sequence[_Followed | None]) -> list[_Followed]:
    """Return the outputs of an operator of numbers: correctly rounded ones, and how far an implementation may be from those in float64."""
    assert node.computation is not None
    approximations = [
        None if x is None or each is None else Approximation(x, each.error)
        for x, each in zip(inputs, read, strict=True)
    ]
    bounded = bounded_outputs(node.computation, node.types, approximations)
    rounded = _outputs(node, [None if each is None else each.rounded for each in read])
    errors = [each.error for each in bounded]
    if node.proto.op_type in ELEMENTWISE and errors[0] is not None:
        errors[0] = _without_exact(node, bounded[0], read)
    return [_Followed(array, error) for array, error in zip(rounded, errors, strict=False)]


def _without_exact(node: FlatNode, output: Approximation, read: Sequence[_Followed | None]) -> F64 | None:
    """Return the error of an output, 0 where exact numbers make one that the format holds: 2 * 3 is 6, as in the draws of rounding."""
    fmt = FORMATS.get(node.types[0])
    error = np.broadcast_to(np.asarray(output.error, np.float64), output.value.shape)
    if fmt is None:
        return error
    nearest = np.rint(output.value) if fmt.bits == 64 else round_to(output.value, fmt)
    exact = np.asarray(nearest == output.value)
    for each in read:
        if each is not None and each.error is not None:
            exact = exact & (each.error == 0.0)
    error = np.where(exact, 0.0, error)
    return error if error.any() else None


def _outputs(node: FlatNode, inputs: Sequence[Array | None]) -> list[Array]:
    """Return the outputs of a node, each rounded once to its format."""
    assert node.computation is not None
    results = [
        held(np.asarray(array), kind) for array, kind in zip(node.computation.compute(inputs), node.types, strict=False)
    ]
    return [
        round_to(array, FORMATS[kind]) if kind in FORMATS and kind != onnx.TensorProto.DOUBLE else array
        for array, kind in zip(results, node.types, strict=False)
    ]


def _moved(x: Array | None, followed: _Followed | None, side: float) -> Array | None:
    """Return an input at an end of its error."""
    if x is None or x.dtype.kind != "f" or followed is None or followed.error is None:
        return x
    return x + side * np.where(np.isfinite(followed.error) & np.isfinite(x), followed.error, 0.0)


def _unbounded(read: Sequence[_Followed | None], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    unknown = np.zeros(shape, bool)
    for each in read:
        if each is not None and each.error is not None:
            unknown = unknown | ~np.isfinite(each.error)
    return unknown


def _differ(a: Array, b: Array) -> NDArray[np.bool_]:
    both_nan = np.isnan(a) & np.isnan(b) if a.dtype.kind == "f" else False
    return np.asarray((a != b) & ~np.asarray(both_nan))


def leading_to_steps(graph: onnx.GraphProto, *, is_body: bool) -> set[str]:
    """Return the tensors of a graph that a step function gives, or from which one is reached through operators that are followed.

    What control flow reads counts as such, and what a graph gives that is the body of one.
    """
    leading = {value.name for value in graph.output} if is_body else set()
    for node in reversed(graph.node):
        standard = node.domain in STANDARD
        nested = list(subgraphs(node))
        step = standard and node.op_type in STEPS and not _gives_floats(node)
        passed_on = standard and node.op_type in FOLLOWED - OF_SHAPES
        if nested or step or (passed_on and not leading.isdisjoint(node.output)):
            leading.update((*reads(node), *node.output))
    return leading


def _gives_floats(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(each.name == "to" and each.i in FORMATS for each in node.attribute)
