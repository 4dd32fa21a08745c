"""A-priori error bounds of operators: how far an implementation may be from the real function, told from the inputs alone.

A rule stands for one operator. It gets the inputs as `Approximation`s and returns the outputs as such: the real function of the
inputs' values, and how far an implementation may be from it that rounds every step to the tensor's format, or computes
wider and rounds once, and sums in any order, given inputs within their errors. u is the unit roundoff of the format.
Overflow on the way to a finite value, as in squares and exponentials, is not in the account.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import numpy as np
from onnx import TensorProto

from actconform.errors import Unsupported
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE, held
from actconform.onnx.evaluate.elementwise import OperatorNode  # noqa: TC001  part of a named tuple
from actconform.onnx.evaluate.error_bounds.blocks import any_in_blocks
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.tolerance.row_bounds import flushes
from actconform.types.dtypes import FloatFormat

if TYPE_CHECKING:
    from actconform.onnx.evaluate.computation import Array, Computation
    from actconform.oracle.rounding import F64

# the truths of float64 tensors are rounded in float64 themselves, a few times: hence two bits fewer
_DOUBLE = FloatFormat("f64", 64, 51, -1022, 1023)


class Approximation(NamedTuple):
    """What a tensor should hold, and how far what an implementation holds may be from that."""

    value: Array
    """The real function's value: floats in float64, unrounded; integers and booleans in their own dtype."""
    error: F64 | None = None
    """Absolute, >= 0, broadcasts over `value`; infinite where anything is possible; None: it must be exactly `value`.

    Means nothing where `value` is NaN or infinite.
    """

    @property
    def size(self) -> F64:
        """The largest magnitude that each element may have."""
        magnitude: F64 = np.abs(self.value)
        return magnitude if self.error is None else magnitude + self.error

    def moved(self, move: Callable[[Array], Array]) -> Approximation:
        """Return it with its elements moved by `move`, without arithmetic."""
        if self.error is None:
            return Approximation(move(self.value))
        return Approximation(move(self.value), move(np.broadcast_to(self.error, np.shape(self.value))))


class BoundContext(NamedTuple):
    """What a rule knows beside the inputs."""

    node: OperatorNode
    fmt: FloatFormat | None
    """The format of the first output that holds floats; None where there is none."""
    output_types: Sequence[int]
    """The element type of each output, 0 of one left out."""
    compute: Callable[[Sequence[Array | None]], Sequence[Array]]
    """The operator itself: inputs to outputs, None for an input left out."""
    observed: Sequence[Array | None] = ()
    """What a run showed of each output, None where it did not: recurrent layers are judged step by step from that."""

    @property
    def float_format(self) -> FloatFormat:
        """The format, in rules of operators whose output can be of floats alone."""
        if self.fmt is None:
            raise Unsupported(f"no error bound for {self.node.op_type} whose output is not of floating-point numbers")
        return self.fmt

    def values(self, inputs: Sequence[Approximation | None]) -> Sequence[Array]:
        """Return what the operator makes of the inputs' values."""
        return self.compute([None if each is None else each.value for each in inputs])


Rule: TypeAlias = Callable[..., Approximation | tuple[Approximation, ...]]

RuleFunction = TypeVar("RuleFunction", bound=Rule)


class _Registered(NamedTuple):
    rule: Rule
    arithmetic: bool


_RULES: dict[tuple[str, str], _Registered] = {}


def error_bound(*op_types: str, domain: str = "", arithmetic: bool = True) -> Callable[[RuleFunction], RuleFunction]:
    """Register a function as the rule of the operators `op_types` of a domain, "" the standard's.

    It gets a `BoundContext` and the inputs, and returns an `Approximation` of the output, or a tuple of several in order. In
    arithmetic, hardware may read subnormal numbers as zero: they come with that error. Without `arithmetic` they do not.
    Raises ValueError where an operator has a rule.
    """

    def register(rule: RuleFunction) -> RuleFunction:
        for op_type in op_types:
            if (domain, op_type) in _RULES:
                raise ValueError(f"two error bounds for operator {domain}::{op_type}")
            _RULES[domain, op_type] = _Registered(rule, arithmetic)
        return rule

    return register


def has_error_bound(op_type: str, domain: str = "") -> bool:
    """Tell whether an operator has a rule."""
    return ("" if domain in STANDARD else domain, op_type) in _RULES


def bounded_outputs(
    computation: Computation,
    output_types: Sequence[int],
    inputs: Sequence[Approximation | None],
    observed: Sequence[Array | None] = (),
) -> list[Approximation]:
    """Return the outputs of a node and what rounding may have done to them, given its inputs; None for one left out.

    `output_types` are the element types of the outputs, 0 of one left out. Values come in float64, or in the dtype of their
    integers; no error is NaN. Raises Unsupported, naming the operator, where it has no rule or the rule does not go so far.
    """
    node = computation.node
    registered = _RULES.get(("" if node.domain in STANDARD else node.domain, node.op_type))
    if registered is None:
        raise Unsupported(
            f"no error bound for operator {node.op_type} (domain {node.domain or 'ai.onnx'}, opset {node.opset})"
        )
    fmt = next((format_of(kind) for kind in output_types if format_of(kind)), None)
    context = BoundContext(node, fmt, output_types, computation.compute, observed)
    with np.errstate(all="ignore"):
        flushed = fmt if registered.arithmetic and fmt is not None and flushes(fmt) else None
        if _nothing_in(inputs) and _nothing_in(empty := [Approximation(value) for value in context.values(inputs)]):
            return [_settled(*each) for each in zip(empty, output_types, strict=False)]
        outputs = registered.rule(context, *(None if each is None else _as_read(each, flushed) for each in inputs))
        several = (outputs,) if isinstance(outputs, Approximation) else outputs
        return [_settled(each, kind) for each, kind in zip(several, output_types, strict=False)]


def format_of(element_type: int) -> FloatFormat | None:
    """Return the format that rounding to an element type is bounded in; None where it is not one of floats."""
    return _DOUBLE if element_type == TensorProto.DOUBLE else FORMATS.get(element_type)


def _nothing_in(tensors: Sequence[Approximation | None]) -> bool:
    """Tell whether the first tensor has no elements."""
    return bool(tensors) and tensors[0] is not None and np.size(tensors[0].value) == 0


def _as_read(x: Approximation, flushed: FloatFormat | None) -> Approximation:
    """Return an input with subnormal numbers of the format in doubt; NaN and infinities in none."""
    if x.value.dtype.kind != "f":
        return x
    value, error = x
    if error is not None:
        error = np.where(np.isfinite(value), error, 0.0)
    if flushed is not None:
        smallest = flushed.smallest_normal
        if any_in_blocks(lambda part: _has_subnormal(part, smallest), value):
            lost = np.where(np.abs(value) < smallest, np.abs(value), 0.0)
            error = lost if error is None else lost + error
    return Approximation(value, error)


def _has_subnormal(array: F64, smallest_normal: float) -> bool:
    small = np.abs(array) < smallest_normal
    return bool(small.any()) and np.count_nonzero(small) != array.size - np.count_nonzero(array)


def _settled(output: Approximation, element_type: int) -> Approximation:
    """Return an output as a tensor of that type is held, its error without NaN."""
    value, error = np.asarray(output.value), output.error
    if element_type in STORAGE:
        value = held(value, element_type)
    if error is not None:
        error = np.asarray(error, np.float64)
        if error.size and np.isnan(np.max(error)):
            error = np.where(np.isnan(error), np.inf, error)
    return Approximation(value, error)
