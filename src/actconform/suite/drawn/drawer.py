"""What strategies draw with: sizes, attributes and arrays, each chosen so that what hypothesis shrinks to is the simplest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from actconform.onnx.evaluate.element_types import STORAGE
from actconform.suite.drawn.node import DrawnNode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from actconform.suite.drawn.node import Array

Chosen = TypeVar("Chosen")
OPSETS = (21, 13, 17, 18, 20, 22, 23)
FLOATS = ("float32", "float16", "float64", "bfloat16")
INTEGERS = ("int64", "int32", "int8", "uint8", "int16", "uint16", "uint32", "uint64")
EVERYTHING = (*FLOATS, *INTEGERS, "bool")
DIMS = (2, 1, 3, 4, 5, 8, 17, 33)
SMALL_DIMS = (2, 1, 3, 4, 5)
MOST_POKES = 3  # special values in an array
STEP = 2.0**-30  # between drawn numbers of an interval, before they are rounded


class ValueRange(NamedTuple):
    """The values of a tensor: finite ones of a magnitude up to `most`, and further kinds of numbers."""

    most: float = math.inf
    nan: bool = True
    infinite: bool = True
    tiny: bool = True
    """Subnormal numbers and -0."""
    least: float = -math.inf
    """No number is below; with 0 or more the numbers are not negative."""


ANY = ValueRange()
MODERATE = ValueRange(most=64.0, infinite=False)
"""For what squares, multiplies or exponentiates on the way: an overflow there is not what is asked."""
FINITE = ValueRange(most=64.0, nan=False, infinite=False)
PLAIN = ValueRange(most=8.0, nan=False, infinite=False, tiny=False)


class Drawer:
    """Draws for one node of an operator at one opset.

    `numbers` decides: hypothesis.strategies.randoms() gives one that shrinks.
    """

    def __init__(self, op_type: str, opset: int, numbers: Random) -> None:
        self.op_type = op_type
        self.opset = opset
        self._numbers = numbers
        self.schema = onnx.defs.get_schema(op_type, opset, "")

    def integer(self, low: int, high: int) -> int:
        """Return an integer, both ends included; it shrinks towards 0, or the end nearest to it."""
        return self._numbers.randint(low, high)

    def choice(self, choices: Sequence[Chosen]) -> Chosen:
        """Return one of the choices; it shrinks towards the first."""
        return choices[self.integer(0, len(choices) - 1)]

    def flag(self) -> bool:
        """Return a boolean that shrinks to False."""
        return bool(self.integer(0, 1))

    def seldom(self, times: int = 8) -> bool:
        """Return True once in `times`; it shrinks to False."""
        return self.integer(1, times) == times

    def number(self, low: float, high: float) -> float:
        """Return a float32 number of an interval, as attributes hold them."""
        return float(np.float32(low + (high - low) * self.integer(0, 16) / 16.0))

    def dtype(self, among: Sequence[str] = FLOATS, parameter: str = "") -> str:
        """Return a dtype that the schema allows for its type parameter, that of the first input by default; float32 is drawn half of the time."""
        parameter = parameter or self.schema.inputs[0].type_str
        allowed = self.allowed(parameter)
        open_to = [name for name in among if name in allowed]
        if open_to[0] == "float32" and self.flag():
            return self.choice(open_to)
        return open_to[0] if open_to[0] == "float32" else self.choice(open_to)

    def allowed(self, parameter: str) -> set[str]:
        """Return the dtypes of a type parameter at this opset."""
        spelled = {c.type_param_str: c.allowed_type_strs for c in self.schema.type_constraints}.get(
            parameter, [parameter]
        )
        kinds = (text.removeprefix("tensor(").removesuffix(")").upper() for text in spelled if "(" in text)
        numbers = (onnx.TensorProto.DataType.Value(kind) for kind in kinds if kind in onnx.TensorProto.DataType.keys())  # noqa: SIM118  an enumeration
        return {STORAGE[number].name for number in numbers if number in STORAGE}

    def shape(self, low: int = 0, high: int = 5, *, empty: bool = True, huge: bool = False) -> tuple[int, ...]:
        """Return a shape of a rank from `low` to `high`; seldom with a dimension of 0 (`empty`), or of 100,000 (`huge`)."""
        rank = self.choice([*range(max(low, min(2, high)), high + 1), *range(low, min(2, high))])
        dims = [self.choice(DIMS if rank <= 3 else SMALL_DIMS) for _ in range(rank)]
        if rank and empty and self.seldom(12):
            dims[self.integer(0, rank - 1)] = 0
        elif rank and huge and self.seldom(24):
            dims = [min(dim, 2) if place < rank - 1 else 100_000 for place, dim in enumerate(dims)]
        return tuple(dims)

    def axis(self, rank: int) -> int:
        """Return an axis, counted from either end."""
        axis = self.integer(0, rank - 1)
        return axis - rank if self.flag() else axis

    def axes(self, rank: int, least: int = 0) -> list[int]:
        """Return different axes in any order, at least `least`, each counted from either end."""
        order = self.permutation(rank)[: self.integer(least, rank)]
        return [axis - rank if self.flag() else axis for axis in order]

    def permutation(self, rank: int) -> list[int]:
        """Return the numbers below `rank` in any order; it shrinks to theirs."""
        rest = list(range(rank))
        return [rest.pop(self.integer(0, len(rest) - 1)) for _ in range(rank)]

    def broadcast(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return a shape that broadcasts with `shape` to it: leading dimensions left out, others of 1."""
        start = self.integer(0, len(shape)) if self.flag() else 0
        return tuple(1 if self.seldom(4) else dim for dim in shape[start:])

    def array(self, shape: Sequence[int], dtype: str, values: ValueRange = ANY) -> Array:
        """Return an array: a simple pattern or numbers by a seed, and at a few places special values.

        Integers are of the whole range of their type where `values` goes so far. All come from exact arithmetic of integers,
        so that a seed gives the same bits on every machine.
        """
        if dtype == "bool":
            return self._seeded().integers(0, 2, tuple(shape)).astype(bool)
        array = self._integers(shape, dtype, values) if "int" in dtype else self._floats(shape, dtype, values)
        return array

    def node(
        self, inputs: Sequence[Array | None], attributes: Mapping[str, Any] | None = None, **more: Any
    ) -> DrawnNode:
        """Return the node of these inputs; attributes that are None are left out.

        All inputs but the first are initializers, or none is, unless `constants` says which.
        """
        stated = {name: value for name, value in (attributes or {}).items() if value is not None}
        present = [place for place, array in enumerate(inputs) if array is not None and place]
        if "constants" not in more:
            more["constants"] = frozenset(present) if present and self.flag() else frozenset()
        arrays = tuple(
            None if array is None else np.asarray(array) for array in inputs
        )  # arithmetic makes numbers of scalars
        return DrawnNode(self.op_type, self.opset, arrays, stated, **more)

    def _seeded(self) -> np.random.Generator:
        return np.random.default_rng(self.integer(0, 999))

    def _floats(self, shape: Sequence[int], dtype: str, values: ValueRange) -> Array:
        specials = _special_values(dtype, values)
        kinds = [
            "integers",
            "uniform",
            *(["wide", "zeros"] if values.most > 64 else []),
            *(["mixed"] if specials else []),
        ]
        kind = self.choice(kinds)
        flat: Array
        generator, size = self._seeded(), math.prod(shape)
        largest = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
        most = min(values.most, largest)
        if kind == "integers":
            flat = generator.integers(-min(4, int(most)), min(4, int(most)) + 1, size).astype(np.float64)
        elif kind in ("uniform", "mixed"):
            reach = min(most, 8.0)
            flat = generator.integers(-int(reach / STEP), int(reach / STEP) + 1, size) * STEP
        elif kind == "wide":
            exponent = int(np.log2(largest)) - 1
            mantissa = 1.0 + generator.integers(0, 1 << 30, size) * 2.0**-30
            flat = np.ldexp(mantissa, generator.integers(-exponent, exponent, size)) * generator.choice(
                [-1.0, 1.0], size
            )
        else:
            flat = np.zeros(size)
        if kind == "mixed":
            flat = np.where(generator.integers(0, 4, size) == 0, generator.choice(specials, size), flat)
        for _ in range(self.integer(0, MOST_POKES) if specials and size else 0):
            flat[self.integer(0, min(size, 64) - 1)] = self.choice(specials)
        if values.least > -math.inf:
            flat = np.where(flat < values.least, values.least - flat, flat)
            flat = np.where(flat < values.least, values.least, flat)
        with np.errstate(over="ignore"):
            return flat.reshape(tuple(shape)).astype(dtype)

    def _integers(self, shape: Sequence[int], dtype: str, values: ValueRange) -> Array:
        limits = np.iinfo(dtype)
        most = limits.max if values.most > limits.max else int(values.most)
        low = 0 if values.least >= 0 or limits.min == 0 else limits.min if values.most == math.inf else -most
        reach = most if self.flag() else min(most, 9)
        generator, size = self._seeded(), math.prod(shape)
        flat = generator.integers(
            max(low, -reach - 1 if low < -reach else -reach), reach, size, np.dtype(dtype), endpoint=True
        )
        if values.least > 0:
            flat = np.maximum(flat, np.array(int(values.least), dtype))
        elif values.least == 0 and low == 0:
            flat = np.maximum(flat, np.array(0, dtype))
        for _ in range(self.integer(0, MOST_POKES) if size and values.most == math.inf else 0):
            flat[self.integer(0, min(size, 64) - 1)] = self.choice((limits.max, max(limits.min, low)))
        return flat.reshape(tuple(shape))


def _special_values(dtype: str, values: ValueRange) -> list[float]:
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    specials = []
    if values.tiny:
        specials += [-0.0, float(info.smallest_subnormal), -float(info.tiny)]
    if values.most > float(info.max):
        specials += [float(info.max), -float(info.max)]
    if values.infinite:
        specials += [math.inf, -math.inf]
    if values.nan:
        specials.append(math.nan)
    return specials


def element_type(dtype: str) -> int:
    """Return the element type of a dtype's name, as attributes state it."""
    kind: int = helper.np_dtype_to_tensor_dtype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    return kind
