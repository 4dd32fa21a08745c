"""Which values an input may have, by what the graph does with them: rows that it picks, masks, sizes, pixels, logarithms."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actconform.checking.source import TensorType
    from actconform.checking.value_flow import Array, Arrival, Use, ValueFlow

Shapes: TypeAlias = "Callable[[], Mapping[str, Sequence[int]]]"

_SIZE = 4  # the largest of the sizes and counts that are drawn
_UNRESTRICTED = 9  # the largest of integers of which the graph says nothing
_EPSILON = 1e-2  # what is added before a logarithm or root
_CONTIGUOUS = 8  # constants in a row that an input is compared with: classes of a one-hot encoding
# What pixels are divided by.
_PIXEL_SCALES = (255.0, 256.0, 127.5, 127.0, 128.0)


@dataclass(frozen=True)
class Domain:
    """The values that an input takes."""

    kind: str
    """normal, positive, uniform, integers, mask, choice, boxes or strings."""
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[float, ...] = ()
    reason: str = ""

    def narrowed(self, further: Domain) -> Domain:
        """Return what both allow."""
        low, high = max(self.low, further.low), min(self.high, further.high)
        narrower = further if (further.high, -further.low) < (self.high, -self.low) else self
        return replace(narrower, low=low, high=max(low, high))


_MASK = Domain("mask", 0, 1)


def domain_of(name: str, tensor: TensorType, flow: ValueFlow, shapes: Shapes) -> Domain:
    """Return what an input may be; `shapes` infers those of the tensors of the main graph, and is called where they matter."""
    kind = tensor.dtype.kind
    if kind == "O":
        return Domain("strings")
    arrivals = list(flow.arrivals(name))
    if kind == "b":
        if any((arrival.use.node.op_type, arrival.position) == ("Dropout", 2) for arrival in arrivals):
            return Domain("choice", choices=(0,), reason="a check trains nothing")
        return Domain("choice", choices=(1, 0), reason="yes or no") if _is_single(tensor) else _MASK
    sizes = _Shapes(flow, shapes)
    indices = [domain for arrival in arrivals if (domain := _index_domain(arrival, sizes)) is not None]
    if indices:
        domain = indices[0]
        for following in indices[1:]:
            domain = domain.narrowed(following)
        return (
            Domain("choice", choices=(1, 0), reason=domain.reason)
            if _is_single(tensor) and domain.kind == "mask"
            else domain
        )
    if kind in "iu":
        return _integers(tensor, arrivals, sizes)
    return _floats(arrivals, sizes)


class _Shapes:
    """The shapes of operands."""

    def __init__(self, flow: ValueFlow, shapes: Shapes) -> None:
        self._flow = flow
        self._shapes = shapes

    def of(self, use: Use, position: int) -> Sequence[int] | None:
        operand = use.operands[position] if position < len(use.operands) else None
        if operand is None:
            return None
        stated = self._flow.dims.get(operand)
        if stated is not None:
            return stated
        name = self._flow.names.get(operand)
        return None if name is None else self._shapes().get(name)

    def constant(self, use: Use, position: int) -> Array | None:
        return self._flow.constant(use, position)


def _index_domain(arrival: Arrival, sizes: _Shapes) -> Domain | None:
    """Return what values may be that pick, count or say yes or no; None for others."""
    use, position, affine, is_truth = arrival
    operator = use.node.op_type
    if is_truth or (operator, position) in _TRUTH:
        return replace(_MASK, reason=f"yes or no for {operator}")
    if operator == "Sub" and position == 1 and affine.scale == 1 and _is(sizes.constant(use, 0), 1.0):
        return replace(_MASK, reason="which is subtracted from 1")
    limit = None
    if (operator, position) in _ROWS:
        limit = _ROWS[operator, position](use, sizes)
    if limit is not None:
        rows, reason = limit
        low, high = sorted(((-affine.low) / affine.scale, (rows - 1 - affine.high) / affine.scale))
        return Domain("integers", math.ceil(low), max(math.floor(high), math.ceil(low)), reason=reason)
    if (operator, position) in _LENGTHS:
        length = _LENGTHS[operator, position](use, sizes)
        if length is not None:
            return Domain("integers", 1, max(length, 1), reason=f"lengths for {operator}")
    if (operator, position) in _SIZES:
        return Domain("integers", 1, _SIZE, reason=f"a size for {operator}")
    return None


def _integers(tensor: TensorType, arrivals: Sequence[Arrival], sizes: _Shapes) -> Domain:
    """Return what integers may be of which no node asks for a range: what they are compared with, or all of a narrow type."""
    comparisons = [arrival for arrival in arrivals if arrival.use.node.op_type in _COMPARISONS]
    compared = _compared(tensor, comparisons, sizes)
    if compared is not None:
        return compared
    if tensor.dtype.itemsize == 1:
        limits = np.iinfo(tensor.dtype)
        return Domain("integers", float(limits.min), float(limits.max), reason=f"all of {tensor.dtype}")
    pixels = [domain for arrival in arrivals if (domain := _scaled(arrival, sizes)) is not None]
    if pixels:
        return replace(pixels[0], kind="integers")
    says = "of which the graph says nothing" if arrivals else "which nothing reads"
    return Domain("integers", 0, _UNRESTRICTED, reason=says)


def _compared(tensor: TensorType, comparisons: Sequence[Arrival], sizes: _Shapes) -> Domain | None:
    """Return what integers may be by what they are compared with; None where that says nothing."""
    values = _compared_values(comparisons, sizes)
    if len(values) >= _CONTIGUOUS:
        return Domain("integers", values[0], values[-1], reason="which the graph compares them with")
    if values and _is_single(tensor):
        strict = any(arrival.use.node.op_type != "Equal" for arrival in comparisons)
        reason = f"the graph compares it with {', '.join(f'{value:g}' for value in values)}"
        further = [values[-1] + 1] + ([values[0] - 1] if strict else [])
        return Domain("choice", choices=(*values, *further), reason=reason)
    if values and set(values) <= {0, 1}:
        return replace(_MASK, reason="which the graph compares with 0 or 1")
    if values:
        ends = min(values[0], 0), max(values[-1] + 1, _UNRESTRICTED)
        return Domain("integers", *ends, reason="around what the graph compares them with")
    lengths = (sizes.of(use, 1 - position) for use, position, _, _ in comparisons)
    length = next((shape[-1] for shape in lengths if shape), None)
    reason = "lengths, which the graph compares with places"
    return None if length is None else Domain("integers", 1, max(length, 1), reason=reason)


def _compared_values(comparisons: Sequence[Arrival], sizes: _Shapes) -> list[float]:
    """Return the constants that an input is compared with, as values of the input, in order."""
    values: set[float] = set()
    for use, position, affine, _ in comparisons:
        constant = sizes.constant(use, 1 - position)
        if constant is not None and constant.dtype.kind in "iufb" and affine.low == affine.high:
            numbers = (constant.astype(np.float64).ravel() - affine.low) / affine.scale
            values |= {number for number in numbers.tolist() if math.isfinite(number) and number == int(number)}
    return sorted(values)


def _is_single(tensor: TensorType) -> bool:
    return tensor.dims is not None and all(dim == 1 for dim in tensor.dims)


def _floats(arrivals: Sequence[Arrival], sizes: _Shapes) -> Domain:
    """Return what floats may be: by functions that are defined on a part of the line only, pixels, else normal."""
    for arrival in arrivals:
        scale, low, high = arrival.affine
        if scale != 1 or max(abs(low), abs(high)) > _EPSILON:
            continue
        if domain := _FUNCTIONS.get((arrival.use.node.op_type, arrival.position)):
            return domain
    pixels = [domain for arrival in arrivals if (domain := _scaled(arrival, sizes)) is not None]
    return pixels[0] if pixels else Domain("normal")


def _scaled(arrival: Arrival, sizes: _Shapes) -> Domain | None:
    """Return the range of what is scaled as pixels are."""
    use, position, affine, _ = arrival
    constant = sizes.constant(use, 1 - position) if len(use.operands) == 2 else None
    if constant is None or constant.dtype.kind != "f" or not constant.size or not (np.abs(constant) > 0).all():
        return None
    if use.node.op_type not in {"Div", "Mul"} or (use.node.op_type == "Div" and position == 1):
        return None
    factors = np.abs(constant.astype(np.float64))
    divisors = (factors if use.node.op_type == "Div" else 1 / factors) / abs(affine.scale)
    least, most = float(divisors.min()), float(divisors.max())
    if affine.low == affine.high <= 0 and any(math.isclose(each, most, rel_tol=1e-3) for each in _PIXEL_SCALES):
        return Domain("uniform", 0, 255, reason=f"pixels: they are divided by {most:.4g}")
    for top in (1.0, 255.0):
        means = 0.3 * top <= -affine.high <= -affine.low <= 0.6 * top
        if affine.scale == 1 and means and 0.15 * top <= least <= most <= 0.55 * top:
            return Domain("uniform", 0, top, reason="pixels: means are subtracted, and they are divided by deviations")
    return None


def _is(constant: Array | None, number: float) -> bool:
    return (
        constant is not None and constant.dtype.kind in "iuf" and constant.size > 0 and bool((constant == number).all())
    )


def _attribute(use: Use, name: str, default: int) -> int:
    return next((attribute.i for attribute in use.node.attribute if attribute.name == name), default)


def _rows_along_axis(use: Use, sizes: _Shapes) -> tuple[int, str] | None:
    shape = sizes.of(use, 0)
    if not shape:
        return None
    return shape[_attribute(use, "axis", 0) % len(shape)], f"rows of {use.node.op_type}'s {use.node.input[0]}"


def _rows_of_all_axes(use: Use, sizes: _Shapes) -> tuple[int, str] | None:
    shape = sizes.of(use, 0)
    return (min(shape), f"places in {use.node.op_type}'s {use.node.input[0]}") if shape else None


def _rows_of(table: int) -> Callable[[Use, _Shapes], tuple[int, str] | None]:
    def rows(use: Use, sizes: _Shapes) -> tuple[int, str] | None:
        shape = sizes.of(use, table)
        return (shape[0], f"rows of {use.node.op_type}'s {use.node.input[table]}") if shape else None

    return rows


def _depth(use: Use, sizes: _Shapes) -> tuple[int, str] | None:
    depth = sizes.constant(use, 1)
    return None if depth is None or not depth.size else (int(depth.ravel()[0]), "classes of OneHot")


def _axis_length(axis: int) -> Callable[[Use, _Shapes], int | None]:
    def length(use: Use, sizes: _Shapes) -> int | None:
        shape = sizes.of(use, 0)
        return shape[axis] if shape and len(shape) > axis else None

    return length


def _time_length(use: Use, sizes: _Shapes) -> int | None:
    return _axis_length(_attribute(use, "time_axis", 0))(use, sizes)


_ROWS: dict[tuple[str, int], Callable[[Use, _Shapes], tuple[int, str] | None]] = {
    ("Gather", 1): _rows_along_axis,
    ("GatherElements", 1): _rows_along_axis,
    ("ScatterElements", 1): _rows_along_axis,
    ("Scatter", 1): _rows_along_axis,
    ("GatherND", 1): _rows_of_all_axes,
    ("ScatterND", 1): _rows_of_all_axes,
    ("OneHot", 0): _depth,
    ("EmbedLayerNormalization", 0): _rows_of(2),
    ("EmbedLayerNormalization", 1): _rows_of(4),
    ("EmbedLayerNormalization", 8): _rows_of(3),
    ("RotaryEmbedding", 1): _rows_of(2),
    ("RotaryEmbedding", 3): _rows_of(1),
    ("RoiAlign", 2): _rows_of(0),
}
_LENGTHS: dict[tuple[str, int], Callable[[Use, _Shapes], int | None]] = {
    **{(operator, 4): _axis_length(0) for operator in ("LSTM", "GRU", "RNN")},
    ("ReverseSequence", 1): _time_length,
}
_SIZES = frozenset(
    {("ConstantOfShape", 0), ("Expand", 1), ("Loop", 0), ("OneHot", 1), ("Pad", 1), ("Range", 1), ("Reshape", 1)}
    | {("Resize", 3), ("Slice", 2), ("Split", 1), ("Tile", 1), ("TopK", 1), ("NonMaxSuppression", 2)}
)
_TRUTH = frozenset(
    {("Where", 0), ("If", 0), ("Loop", 1), ("Not", 0), ("Compress", 1), ("Dropout", 2), ("Attention", 3)}
    | {(operator, position) for operator in ("And", "Or", "Xor") for position in (0, 1)}
    | {("EmbedLayerNormalization", 7), ("MultiHeadAttention", 4)}
)
_COMPARISONS = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
_POSITIVE = Domain("positive", 0, reason="the graph takes their logarithm or root")
_FUNCTIONS = {
    ("Log", 0): _POSITIVE,
    ("Sqrt", 0): _POSITIVE,
    ("Acosh", 0): Domain("positive", 1, reason="the graph takes their acosh"),
    **{(name, 0): Domain("uniform", -1, 1, reason=f"where {name} is defined") for name in ("Acos", "Asin", "Atanh")},
    ("GridSample", 1): Domain("uniform", -1.1, 1.1, reason="places for GridSample"),
    ("Resize", 2): Domain("uniform", 0.5, 2, reason="scales for Resize"),
    ("Upsample", 1): Domain("uniform", 1, 2, reason="scales for Upsample"),
    ("RoiAlign", 1): Domain("boxes", 0, 8, reason="boxes for RoiAlign"),
    ("NonMaxSuppression", 0): Domain("boxes", 0, 8, reason="boxes for NonMaxSuppression"),
    ("NonMaxSuppression", 1): Domain("uniform", 0, 1, reason="scores for NonMaxSuppression"),
    ("NonMaxSuppression", 3): Domain("uniform", 0.2, 0.8, reason="a threshold of NonMaxSuppression"),
    ("NonMaxSuppression", 4): Domain("uniform", 0, 0.5, reason="a threshold of NonMaxSuppression"),
}
