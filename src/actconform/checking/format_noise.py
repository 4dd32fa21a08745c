"""Rounding as a format does it, drawn by chance: 16-bit floats and integers with a scale. What error a tensor is expected to have."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from onnx import TensorProto

from actconform.checking.flatten import as_held, node_outputs, wide
from actconform.checking.truth import EXACT, TILE, moved_by, structural_inputs
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE, held
from actconform.onnx.evaluate.quantized import FLOATS as SMALL_FLOATS
from actconform.onnx.evaluate.quantized import SCALES, code_limits, spread_over
from actconform.oracle.rounding import round_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from actconform.checking.flatten import Array, FlatGraph, FlatNode
    from actconform.types.case import Bundle
    from actconform.types.dtypes import FloatFormat

# Of rounding to nearest the error is uniform in +-u 2^e, and |x| = m 2^e with 1 <= m < 2; for leading digits spread as they are in data
# (log m uniform, Benford) the root mean square of error over |x| is u sqrt(1/3 * 3/(8 ln 2)).
RELATIVE = 0.4247
# What reads integers with a scale as numbers: the places of such tensors among its inputs, and of their zero points.
QUANTIZED_OPERANDS = {
    "DequantizeLinear": ((0, 2),),
    "MatMulInteger": ((0, 2), (1, 3)),
    "ConvInteger": ((0, 2), (1, 3)),
    "QLinearMatMul": ((0, 2), (3, 5)),
    "QLinearConv": ((0, 2), (3, 5)),
}


_Step: TypeAlias = "tuple[list[Array | None], list[Array]]"  # what a node reads and gives


class Quantizer(NamedTuple):
    """A QuantizeLinear of one node, for the tensor that it reads: all broadcast over it."""

    scale: Array
    zero: Array
    lowest: int
    highest: int
    """The codes."""
    stated: bool = True
    """Whether scale and zero are those of the graph, and not found from the values."""

    @property
    def is_accumulator(self) -> bool:
        """Whether the codes are those of a bias, in steps of a product: its scale fits no range."""
        return self.highest - self.lowest >= 1 << 16

    @property
    def folds_relu(self) -> bool:
        """Whether the codes begin at 0: quantizers leave out a Relu before such a one, so that clipping below is no loss."""
        return self.stated and bool(np.all(self.zero == self.lowest))


def quantizer(node: FlatNode, inputs: Sequence[Array | None], results: Sequence[Array]) -> Quantizer | None:
    """Return how a node counts what it quantizes or dequantizes; None for other nodes and for floats of 8 bits."""
    op_type = node.proto.op_type
    if op_type == "DynamicQuantizeLinear":
        return Quantizer(results[1], results[2].astype(np.float64), 0, 255, stated=False)
    if node.computation is None or op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return None
    x, scale, *rest = inputs
    if x is None or scale is None:
        return None
    zero = rest[0] if rest else None
    dtype = x.dtype if zero is None else zero.dtype
    if op_type == "QuantizeLinear":
        dtype = STORAGE[node.types[0]]
    if dtype.name in SMALL_FLOATS or dtype.name == SCALES or "int" not in dtype.name:
        return None
    attributes = node.computation.node.attributes
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    spread = spread_over(wide(scale).astype(np.float64), x, axis, block)
    zeros = np.zeros(()) if zero is None else spread_over(zero.astype(np.float64), x, axis, block)
    return Quantizer(spread, zeros, *code_limits(dtype))


class FormatNoise:
    """The arithmetic of one draw: each result off by a rounding of its format, up or down by chance.

    A result of a node that rounds is moved by RELATIVE u |y|: 16-bit kernels add up in float32 or wider and round once. What is beyond
    the range becomes infinite, what is below its normal numbers is rounded. What is exactly representable stays. A QuantizeLinear rounds
    and clips as it does: over the elements of a tensor its error has the root mean square step / sqrt(12).
    `stored`: weights and inputs are moved too, as they were rounded when the model was brought into the format, quantized ones by at most
    half a step. Without `seed` nothing is moved, rounded or clipped: the graph in float64, quantization taken out of it.
    """

    def __init__(self, graph: FlatGraph, seed: int | None, *, stored: bool) -> None:
        self._generator = None if seed is None else np.random.default_rng(seed)
        self._stored = stored
        self._structural = structural_inputs(graph)
        self._zeros = {
            node.proto.input[place]: graph.constants.get(node.proto.input[zero])
            if zero < len(node.proto.input)
            else None
            for node in graph.nodes
            for place, zero in QUANTIZED_OPERANDS.get(node.proto.op_type, ())
            if place < len(node.proto.input)
        }
        """The zero points of quantized tensors, where they are constants."""
        self._seeds: dict[str, int] = {}

    def data(self, name: str, array: Array, element_type: int) -> Array:
        """Return an input or a weight, moved by a rounding: the same each time that it is read."""
        if self._generator is None or not self._stored or name in self._structural:
            return array
        seed = self._seeds.setdefault(name, int(self._generator.integers(1 << 32)))
        fmt = FORMATS.get(element_type)
        if fmt is not None:
            among = np.abs(array) < 2.0 ** (fmt.precision - 1)  # above all numbers of the format are integers
            return _moved(array, fmt, np.random.default_rng(seed), (np.rint(array) == array) & among)
        return self._moved_codes(name, array, seed) if name in self._zeros else array

    def _moved_codes(self, name: str, array: Array, seed: int) -> Array:
        """Return quantized weights, off by at most half a step, or by a rounding of their small floats; what stands for 0 stays."""
        zero = self._zeros[name]
        codes: Array = array.astype(np.float64)
        exact = codes == (float(zero.flat[0]) if zero is not None and zero.size else 0.0)
        if array.dtype.name in SMALL_FLOATS:
            return _moved(codes, SMALL_FLOATS[array.dtype.name][0], np.random.default_rng(seed), exact)
        return np.where(exact, codes, codes + _uniform(array.shape, np.random.default_rng(seed)))

    def results(self, node: FlatNode, inputs: Sequence[Array | None], results: Iterable[Array]) -> list[Array]:
        """Return the outputs of a node as later nodes read them."""
        arrays = list(results)
        op_type = node.proto.op_type
        if self._generator is None:
            by, x = quantizer(node, inputs, arrays), inputs[0]
            if by is None or x is None or op_type == "DequantizeLinear":
                return arrays
            codes = x / by.scale + by.zero
            return [np.maximum(codes, by.lowest) if by.folds_relu else codes, *arrays[1:]]
        if op_type in EXACT or op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
            return arrays
        return [self._result(array, kind) for array, kind in zip(arrays, node.types, strict=False)]

    def _result(self, array: Array, element_type: int) -> Array:
        fmt = FORMATS.get(element_type)
        if fmt is None or element_type == TensorProto.DOUBLE or self._generator is None:
            return array
        exact = array.astype(STORAGE[element_type]).astype(np.float64) == array
        return _moved(array, fmt, self._generator, exact)


def _moved(array: Array, fmt: FloatFormat, generator: np.random.Generator, exact: Array) -> Array:
    """Return numbers off by a rounding, but those that are `exact`; infinite beyond the range, rounded below the normal numbers."""
    size = np.abs(array)
    largest, least = size.max(initial=0.0), size.min(initial=np.inf)
    beyond = size >= fmt.overflow if not largest < fmt.overflow else None
    small = (size < fmt.smallest_normal) & (size > 0) if least < fmt.smallest_normal else None
    size *= RELATIVE * fmt.unit_roundoff
    moved = moved_by(array, size, generator, exact)
    if beyond is not None:
        moved[beyond] = np.copysign(np.inf, array[beyond])
    if small is not None and small.any():
        moved[small] = round_to(array[small], fmt)
    return moved


def _uniform(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Return numbers between -1/2 and 1/2, the first TILE of them again and again."""
    count = int(np.prod(shape, dtype=np.int64))
    return np.resize(generator.random(min(count, TILE)) - 0.5, shape)


class NodeValues(NamedTuple):
    """A node in several evaluations side by side."""

    node: FlatNode
    inputs: list[Array | None]
    """Of the first."""
    results: list[list[Array] | None]
    """Of each; None for one that failed, at this node or before it."""


def side_by_side(graph: FlatGraph, sample: Bundle, lanes: Sequence[FormatNoise]) -> Iterator[NodeValues]:
    """Yield the nodes of the graph in order with their values in several evaluations, each with its own rounding.

    Only tensors that are still to be read are held, once for each evaluation. A node that cannot be computed is left out. An evaluation
    in which rounding decides a shape, at which a later node fails, ends there.
    """
    values: list[dict[str, Array] | None] = [_start(graph, sample, lane) for lane in lanes]
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for node, unread in zip(graph.nodes, graph.last_readers(), strict=True):
            first = values[0]
            if first is None:
                return
            if node.computation and all(name in first or name in graph.constants for name in node.inputs):
                steps = list(pool.map(partial(_step, graph, node), lanes, values))
                if steps[0] is not None:
                    yield NodeValues(node, steps[0][0], [step[1] if step else None for step in steps])
                values = [_after(node, *pair) for pair in zip(values, steps, strict=True)]
            for tensors in [tensors for tensors in values if tensors is not None]:
                for name in unread:
                    tensors.pop(name, None)


def _after(node: FlatNode, values: dict[str, Array] | None, step: _Step | None) -> dict[str, Array] | None:
    """Return the tensors of an evaluation after a node; None for one that has ended."""
    if values is None or step is None:
        return None
    values.update((name, array) for name, array in zip(node.proto.output, step[1], strict=False) if name)
    return values


def _start(graph: FlatGraph, sample: Bundle, lane: FormatNoise) -> dict[str, Array]:
    values = {name: as_held(array) for name, array in {**sample, **graph.answered}.items()}
    with np.errstate(all="ignore"):
        return values | {name: lane.data(name, values[name], graph.types[name]) for name in graph.inputs}


def _step(graph: FlatGraph, node: FlatNode, lane: FormatNoise, values: Mapping[str, Array] | None) -> _Step | None:
    """Return what a node reads and gives in one evaluation; None where that has ended, or ends here."""
    if values is None:
        return None
    with np.errstate(all="ignore"):
        try:
            inputs = [_read(graph, values, lane, name) if name else None for name in node.proto.input]
            return inputs, lane.results(node, inputs, _outputs(graph, node, inputs))
        except (ValueError, KeyError):
            return None


def _read(graph: FlatGraph, values: Mapping[str, Array], lane: FormatNoise, name: str) -> Array:
    if name not in graph.constants:
        return values[name]
    return lane.data(name, as_held(graph.constants[name]), graph.types[name])


def _outputs(graph: FlatGraph, node: FlatNode, inputs: Sequence[Array | None]) -> list[Array]:
    """Return the outputs of a node; codes that are no integers here, as no quantization rounds them, are not cut to integers."""
    if node.computation is None:
        return []
    fractional = any(
        array is not None and array.dtype == np.float64 and graph.types.get(name) not in FORMATS
        for name, array in zip(node.proto.input, inputs, strict=True)
    )
    if not fractional:
        return node_outputs(node, node.computation, inputs)
    try:
        results = [np.asarray(array) for array in node.computation.compute(inputs)]
    except Exception as error:
        raise ValueError(f"{node.proto.op_type} at node {node.name} fails: {error}") from error
    return [held(array, kind) if kind in FORMATS else array for array, kind in zip(results, node.types, strict=False)]
