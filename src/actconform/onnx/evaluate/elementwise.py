"""The operators of the correctly rounded evaluator: each the real function of its inputs, in float64, to a few units of the last place.

The evaluator rounds; nothing here does. Float tensors come as float64 arrays, integers and booleans in their own dtype.
Finite inputs give the true value of the operator, without the overflow or cancellation of its formula. At infinities and
NaN an operator gives what the standard's formula gives as written: x * gate(x) is NaN where inf meets a gate of 0, Softsign
of inf is NaN, ThresholdedRelu and Shrink turn NaN into 0. Of -0 and +0 the maximum is +0 and the minimum -0 (IEEE 754-2019).
Attributes are the float32 numbers that they are, in 16-bit graphs too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from actconform.oracle.float64 import piecewise
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import log_probabilities, probabilities

if TYPE_CHECKING:
    from actconform.oracle.rounding import F64

Array: TypeAlias = NDArray[Any]


NEWEST = 1_000  # an opset newer than any


class OperatorNode(NamedTuple):
    """One node as its operator sees it: `attributes` holds the standard's default where the graph is silent."""

    op_type: str
    attributes: dict[str, Any]
    opset: int = NEWEST
    """Of the standard's domain in the model."""
    domain: str = ""
    outputs: tuple[str, ...] = ("",)
    """The names of the outputs in the graph; the first is given in any case, '' of the others is one that nobody asks for."""

    def asks_for(self, index: int) -> bool:
        """Return whether the graph uses that output."""
        return index < len(self.outputs) and bool(self.outputs[index])


# (node, *inputs) to the output, or several in order; an optional input that is not given is None
Operation: TypeAlias = Callable[..., Array | tuple[Array, ...]]

Compute = TypeVar("Compute", bound=Operation)

OPERATIONS: dict[str, Operation] = {}
EXACT: set[str] = set()
"""Those of OPERATIONS that move, compare, choose or count elements: nothing is rounded, but for a Scatter that adds or multiplies."""

# Moving data, comparing, choosing and counting are exact: onnx's own implementation serves, on float64 in place of floats.
# So do its Attention and RotaryEmbedding, which lose nothing there.
PASSED_ON = frozenset(
    """
    And ArgMax ArgMin Attention BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Compress Concat Constant
    ConstantOfShape DepthToSpace Equal Expand EyeLike Flatten Gather Greater GreaterOrEqual Identity IsInf IsNaN
    Less LessOrEqual Mod NonZero Not Or Range Reshape ReverseSequence RotaryEmbedding
    Size Slice SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905  a list to read
)


def operation(*op_types: str, exact: bool = False) -> Callable[[Compute], Compute]:
    """Register a function as the standard operators `op_types`; it gets a `Node` and the inputs, and returns the output(s)."""

    def register(compute: Compute) -> Compute:
        OPERATIONS.update(dict.fromkeys(op_types, compute))
        EXACT.update(op_types if exact else ())
        return compute

    return register


def _elementwise(op_type: str, function: Callable[..., Array]) -> None:
    operation(op_type)(lambda _, *inputs: function(*inputs))


def _maximum(a: Array, b: Array) -> Array:
    return np.where((a == 0) & (b == 0), a + b, np.maximum(a, b))


def _minimum(a: Array, b: Array) -> Array:
    return np.where((a == 0) & (b == 0), -(-a + -b), np.minimum(a, b))


def _quotient(a: Array, b: Array) -> Array:
    """Return a / b; of integers truncated towards zero, as C does and ONNX says."""
    if a.dtype.kind not in "iu":
        return a / b
    floor: Array = a // b
    floor += ((floor < 0) & (floor * b != a)).astype(a.dtype)
    return floor


def _power(a: Array, b: Array) -> Array:
    """Return a to the b-th; of integers exactly, where no exponent is negative."""
    if a.dtype.kind in "iu" and b.dtype.kind in "iu" and (b >= 0).all():
        exact: Array = np.power(a, b.astype(a.dtype))
        return exact
    result: Array = np.power(a.astype(np.float64), b.astype(np.float64))
    return result


for _name, _function in {
    "Abs": np.abs,
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Add": np.add,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Cosh": np.cosh,
    "Div": _quotient,
    "Erf": erf,
    "Exp": np.exp,
    "Floor": np.floor,
    # not passed on: onnx 1.23 reduces other axes where there is but one spatial one
    "GlobalMaxPool": lambda x: np.max(x, axis=tuple(range(2, x.ndim)), keepdims=True),
    "Log": np.log,
    "Max": lambda *inputs: reduce(_maximum, inputs),
    "Mean": lambda *inputs: reduce(np.add, inputs) / len(inputs),
    "Min": lambda *inputs: reduce(_minimum, inputs),
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": _power,
    "Reciprocal": lambda x: 1.0 / x,
    "Relu": lambda x: _maximum(x, np.zeros((), x.dtype)),
    "Round": np.rint,
    "Sign": np.sign,
    "Sin": np.sin,
    "Sinh": np.sinh,
    "Softsign": lambda x: x / (1.0 + np.abs(x)),
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Sum": lambda *inputs: reduce(np.add, inputs),
    "Tan": np.tan,
    "Tanh": np.tanh,
    "Sigmoid": lambda x: FORMULAS["sigmoid"].value(x, {}),
    "Softplus": lambda x: FORMULAS["softplus"].value(x, {}),
}.items():
    _elementwise(_name, _function)


def _product(x: F64, limit: F64) -> F64:
    """Return x * gate(x), given with its limits: as written, an infinite x times a gate of 0 is NaN."""
    return np.where(np.isinf(x) & (limit == 0), np.nan, limit)


@operation("Gelu")
def _gelu(node: OperatorNode, x: F64) -> F64:
    name = "gelu-tanh" if node.attributes["approximate"] == "tanh" else "gelu-erf"
    return _product(x, FORMULAS[name].value(x, {}))


@operation("Swish")
def _swish(node: OperatorNode, x: F64) -> F64:
    return _product(x, FORMULAS["swish"].value(x, {"beta": node.attributes["alpha"]}))


@operation("SwiGLU")
def _gated_swish(node: OperatorNode, gate: F64, x: F64) -> F64:
    return _swish(node, gate) * x


@operation("Mish")
def _mish(_: OperatorNode, x: F64) -> F64:
    return _product(x, FORMULAS["mish"].value(x, {}))


@operation("HardSwish")
def _hard_swish(_: OperatorNode, x: F64) -> F64:
    return _product(x, FORMULAS["hard-swish"].value(x, {}))


@operation("HardSigmoid")
def _hard_sigmoid(node: OperatorNode, x: F64) -> F64:
    return piecewise.hard_sigmoid(x, node.attributes)


@operation("LeakyRelu")
def _leaky_relu(node: OperatorNode, x: F64) -> F64:
    return piecewise.leaky(x, node.attributes)


@operation("PRelu")
def _prelu(_: OperatorNode, x: Array, slope: Array) -> Array:
    return np.where(x < 0, slope * x, x)


@operation("Elu")
def _elu(node: OperatorNode, x: F64) -> F64:
    return FORMULAS["elu"].value(x, node.attributes)


@operation("Celu")
def _celu(node: OperatorNode, x: F64) -> F64:
    return FORMULAS["celu"].value(x, node.attributes)


@operation("Selu")
def _selu(node: OperatorNode, x: F64) -> F64:
    alpha, gamma = node.attributes["alpha"], node.attributes["gamma"]
    negative: F64 = gamma * alpha * np.expm1(x)
    return np.where(x > 0, gamma * x, negative)


@operation("ThresholdedRelu")
def _thresholded_relu(node: OperatorNode, x: F64) -> F64:
    return np.where(x > node.attributes["alpha"], x, 0.0)


@operation("Shrink")
def _shrink(node: OperatorNode, x: F64) -> F64:
    bound, bias = node.attributes["lambd"], node.attributes["bias"]
    return np.where(x < -bound, x + bias, np.where(x > bound, x - bias, 0.0))


@operation("Clip")
def _clip(node: OperatorNode, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Clip between bounds, which are attributes before opset 11; a bound that is left out there is the format's largest number."""
    low, high = (node.attributes.get(name, bound) for name, bound in (("min", low), ("max", high)))
    raised = x if low is None else _maximum(x, np.asarray(low, x.dtype))
    return raised if high is None else _minimum(raised, np.asarray(high, x.dtype))


FLATTENED = 13  # before this opset Softmax and its kin are over all axes from `axis` on


def over_rows(node: OperatorNode, x: Array, compute: Callable[[Array, int], Array]) -> Array:
    """Return `compute(x, axis)` of an operator along `axis`; before opset 13 of rows that go over that axis and all behind it."""
    axis = node.attributes["axis"]
    if node.opset >= FLATTENED:
        return compute(x, axis)
    n_rows = math.prod(x.shape[: axis if axis >= 0 else axis + x.ndim])
    return compute(x.reshape(n_rows, -1), 1).reshape(x.shape)


@operation("Softmax")
def _softmax(node: OperatorNode, x: F64) -> F64:
    return over_rows(node, x, probabilities)


@operation("LogSoftmax")
def _log_softmax(node: OperatorNode, x: F64) -> F64:
    return over_rows(node, x, log_probabilities)


@operation("Hardmax", exact=True)
def _hardmax(node: OperatorNode, x: Array) -> Array:
    """Return 1 at the first of the largest, and 0 elsewhere."""

    def chosen(rows: Array, axis: int) -> Array:
        y = np.zeros_like(rows)
        np.put_along_axis(y, np.argmax(rows, axis, keepdims=True), 1, axis)
        return y

    return over_rows(node, x, chosen)


@operation("GatherElements")
def _gather_elements(node: OperatorNode, x: Array, index: Array) -> Array:
    """Not passed on: onnx 1.23 fails where the axis has 64 entries or more."""
    axis = node.attributes["axis"] % x.ndim
    cut = tuple(slice(None) if i == axis else slice(length) for i, length in enumerate(index.shape))
    return np.take_along_axis(x[cut], index, axis)


CANCELLED = 2.0**-20  # of the magnitudes summed: a sum that is less than this share of them is summed exactly


def sums(rows: Array) -> Array:
    """Return the sum of each row: of float64 rows pairwise, and correctly rounded where it is a small part of what cancels."""
    total: Array = rows.sum(axis=-1)
    if rows.dtype == np.float64:
        with np.errstate(invalid="ignore", over="ignore"):
            magnitude = np.abs(rows).sum(axis=-1)
            cancelled = np.isfinite(rows).all(axis=-1) & ~(np.abs(total) >= CANCELLED * magnitude)
        for i in np.flatnonzero(cancelled & (magnitude > 0)):
            total[i] = math.fsum(rows[i].tolist())
    return total


def _log_sum_exp(rows: F64) -> F64:
    """Return m + log1p(the sum without one maximum m); a row of -inf, or an empty one, gives -inf."""
    if not rows.shape[-1]:
        return np.full(len(rows), -np.inf)
    at = np.argmax(rows, axis=-1, keepdims=True)
    top = np.take_along_axis(rows, at, -1)
    terms = np.exp(np.where(np.isinf(top) & (rows == top), 0.0, rows - top))
    np.put_along_axis(terms, at, 0.0, -1)
    total: F64 = top[:, 0] + np.log1p(terms.sum(axis=-1))
    return total


def _least(dtype: np.dtype[Any]) -> Any:
    """Return the least number of a dtype, which is the largest of no numbers."""
    if dtype.kind == "b":
        return False
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _greatest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return True
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


REDUCTIONS: dict[str, Callable[[Array], Array]] = {
    "ReduceL1": lambda rows: sums(np.abs(rows)),
    "ReduceL2": lambda rows: np.sqrt(sums(rows * rows)),
    "ReduceLogSum": lambda rows: np.log(sums(rows)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": lambda rows: np.max(rows, axis=-1, initial=_least(rows.dtype)),
    "ReduceMean": lambda rows: sums(rows) / rows.shape[-1],
    "ReduceMin": lambda rows: np.min(rows, axis=-1, initial=_greatest(rows.dtype)),
    "ReduceProd": lambda rows: np.prod(rows, axis=-1, dtype=rows.dtype),
    "ReduceSum": sums,
    "ReduceSumSquare": lambda rows: sums(rows * rows),
}


@operation(*REDUCTIONS)
def _reduce(node: OperatorNode, x: Array, axes_input: Sequence[int] | None = None) -> Array:
    """Reduce over the axes, which are an attribute in older opsets and an input in newer ones; all where none are given.

    With `noop_with_empty_axes` each element is a row of its own then: its square, its logarithm, itself.
    """
    stated_axes = node.attributes.get("axes") if axes_input is None else axes_input
    axes = [] if stated_axes is None else [int(axis) % x.ndim for axis in stated_axes]
    if not axes and not node.attributes.get("noop_with_empty_axes"):
        axes = list(range(x.ndim))
    kept_axes = [axis for axis in range(x.ndim) if axis not in axes]
    shape = [x.shape[axis] for axis in kept_axes]
    lengths = [x.shape[axis] for axis in axes]
    rows = x.transpose(kept_axes + axes).reshape(math.prod(shape), math.prod(lengths))
    result = REDUCTIONS[node.op_type](rows)
    if node.attributes["keepdims"]:
        shape = [1 if axis in axes else length for axis, length in enumerate(x.shape)]
    return result.reshape(shape)
