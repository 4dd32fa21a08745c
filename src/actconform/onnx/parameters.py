"""Whether a graph that holds a model's parameters as constants holds the numbers that were given: bit for bit, or folded."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from actconform.onnx.constants import FLOATS
from actconform.onnx.gates import deep, tensors
from actconform.onnx.nodes import ELEMENT_TYPES
from actconform.onnx.subgraph import extract_subgraph
from actconform.types.dtypes import DTYPES
from actconform.types.model import OUTPUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.types import Bundle
    from actconform.types.model import Layer, Model

    Array = NDArray[Any]

RECURRENT = ("LSTM", "GRU", "RNN")  # operators with gates in an order of their own
MOST_BLOCKS = 16  # of a weight that is kept in parts: heads, gates
TRIVIAL = (0.0, 1.0)  # of parameters that are all 0 or all 1 an exporter may do without

# Roundings of a batch normalization that is folded: of variance + epsilon, epsilon, the root and the quotient, of which the first
# two count half; of the product with a weight; for a bias of a difference, a product and a sum.
ROUNDINGS = 8


class Altered(NamedTuple):
    """A parameter that the graph does not hold as it was given: the element of it that is furthest off, and what stands there."""

    parameter: str
    differing: int
    """Elements that differ from the nearest constant; all where no constant is of this size."""
    place: tuple[int, ...]
    expected: float
    got: float
    """NaN where no constant is of this size."""


class FoldedNumbers(NamedTuple):
    """What a folded batch normalization makes of parameters, and how far roundings allow each element to be off."""

    expected: Array
    allowed: Array


def altered_parameters(graph: bytes, model: Model, parameters: Bundle, dtype: str) -> list[Altered]:
    """Return which of the parameters that y needs the graph does not hold; empty where it holds all.

    A parameter is held where a constant, in some order of its axes, has its numbers one behind the other, in some order of the
    parameter's axes: transposed, reshaped, one part of a longer constant. One that is kept in parts is held where each is a
    constant, or a gate of a recurrent operator; those of a batch normalization, and of the layer before it, where the constants
    are what folding makes of them. All-0 and all-1 parameters may be left out. Raises what onnx does for bytes that are no model.
    """
    storage = FLOATS[ELEMENT_TYPES[dtype]]
    proto = onnx.load_from_string(extract_subgraph(graph, [OUTPUT]))
    constants = _constants(proto, storage)
    in_gates = any(node.op_type in RECURRENT for node in deep(proto.graph.node))
    drawn = {name: parameters[name].astype(storage) for name in _needed(model) if name in parameters}
    absent = [name for name, array in drawn.items() if not _contained(array, constants, in_gates=in_gates)]
    folded = _folded(model, drawn, absent, constants, DTYPES[dtype].unit_roundoff)
    return [_nearest(name, drawn[name], constants) for name in absent if name not in folded]


def near_epsilons(graph: bytes, model: Model, outputs: Sequence[str]) -> list[tuple[str, float, float]]:
    """Return (layer, number, epsilon) for each number of the graph that is near a layer's epsilon, and none of the model's.

    Numbers are attributes `epsilon` and constants of one element that `outputs` need; near is by less than a half of it.
    """
    of_layers = {
        float(layer.settings["epsilon"]): layer.name  # type: ignore[arg-type]
        for layer in reversed(_reached(model))
        if layer.settings.get("epsilon")
    }
    if not of_layers:
        return []
    proto = onnx.load_from_string(extract_subgraph(graph, outputs))
    attributes = [
        np.float32(attribute.f)
        for node in deep(proto.graph.node)
        for attribute in node.attribute
        if attribute.name == "epsilon"
    ]
    arrays = [numpy_helper.to_array(tensor) for tensor in tensors(proto) if tensor.data_type in FLOATS]
    numbers = dict.fromkeys([*attributes, *(array.reshape(-1)[0] for array in arrays if array.size == 1)])
    near_numbers = []
    for number in numbers:
        # As float32 and then narrower, or at once: both are ways to write it.
        exact = any(
            number in (number.dtype.type(epsilon), number.dtype.type(np.float32(epsilon))) for epsilon in of_layers
        )
        near = [epsilon for epsilon in of_layers if abs(float(number) - epsilon) < epsilon / 2]
        near_numbers += [(of_layers[epsilon], float(number), epsilon) for epsilon in near[:1] if not exact]
    return near_numbers


def _reached(model: Model) -> list[Layer]:
    """Return the layers that y is computed from."""
    inputs = {layer.name: layer.inputs for layer in model.layers}
    reached, waiting = set(), [model.output]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += inputs.get(name, ())
    return [layer for layer in model.layers if layer.name in reached]


def _needed(model: Model) -> list[str]:
    """Return the parameters that y is computed from; in training the running statistics are none of them."""
    parameters = [parameter for layer in _reached(model) for parameter in model.parameters_of(layer.name)]
    return [parameter.name for parameter in parameters if parameter.trainable or not model.training]


def _constants(proto: onnx.ModelProto, storage: np.dtype[Any]) -> list[Array]:
    """Return the floating-point tensors of a graph whose numbers the element type can hold, in it."""
    arrays = [numpy_helper.to_array(tensor) for tensor in tensors(proto) if tensor.data_type in FLOATS]
    for node in deep(proto.graph.node):
        arrays += [np.array(attribute.floats, np.float32) for attribute in node.attribute if attribute.floats]
    with np.errstate(all="ignore"):
        narrowed = [(array, array.astype(storage)) for array in arrays]
        return [narrow for array, narrow in narrowed if (narrow.astype(array.dtype) == array).all()]


def _layouts(array: Array) -> Iterator[Array]:
    """Yield the array with its axes in every order, those of size 1 left out, contiguous."""
    core = array.reshape([size for size in array.shape if size != 1])
    for axes in permutations(range(core.ndim)):
        yield np.ascontiguousarray(core.transpose(axes))


def _contained(parameter: Array, constants: Sequence[Array], *, in_gates: bool) -> bool:
    if not parameter.size or any((parameter == value).all() for value in TRIVIAL):
        return True
    numbers = np.unique(parameter)
    able = [constant for constant in constants if constant.size >= parameter.size and np.isin(numbers, constant).all()]
    return _within(parameter, able) or _in_parts(parameter, constants, in_gates=in_gates)


def _within(parameter: Array, constants: Sequence[Array]) -> bool:
    """Tell whether one of the constants has the parameter's numbers one behind the other."""
    patterns = [layout.tobytes() for layout in _layouts(parameter)]
    return any(
        _aligned(layout.tobytes(), pattern, parameter.itemsize)
        for constant in constants
        for layout in _layouts(constant)
        for pattern in patterns
    )


def _aligned(content: bytes, pattern: bytes, itemsize: int) -> bool:
    at = content.find(pattern)
    while at > 0 and at % itemsize:
        at = content.find(pattern, at + 1)
    return at >= 0


def _in_parts(parameter: Array, constants: Sequence[Array], *, in_gates: bool) -> bool:
    """Tell whether some split of an axis gives parts that are constants each, or with `in_gates` lie within constants."""
    for axis, size in enumerate(parameter.shape):
        for blocks in range(2, min(size, MOST_BLOCKS) + 1):
            if size % blocks:
                continue
            parts = np.split(parameter, blocks, axis)
            whole = [constant for constant in constants if in_gates or constant.size == parts[0].size]
            if whole and all(_within(part, whole) for part in parts):
                return True
    return False


def _folded(
    model: Model, drawn: Mapping[str, Array], absent: Sequence[str], constants: Sequence[Array], unit: float
) -> set[str]:
    """Return which absent parameters the constants account for as batch normalizations that are folded."""
    explained: set[str] = set()
    for layer in model.layers:
        statistics = [f"{layer.name}.{name}" for name in ("gamma", "beta", "mean", "variance")]
        if layer.kind != "batch-norm" or model.training or not set(statistics) & set(absent):
            continue
        before = next((candidate for candidate in model.layers if candidate.name == layer.inputs[0]), None)
        alone = _folds(layer, drawn, unit)
        if _near(alone, constants):
            explained.update(statistics)
        elif before and _near(_folds(layer, drawn, unit, before), constants):
            explained.update([*statistics, f"{before.name}.kernel", f"{before.name}.bias"])
    return explained


def _folds(norm: Layer, drawn: Mapping[str, Array], unit: float, before: Layer | None = None) -> list[FoldedNumbers]:
    """Return the factor and shift of a batch normalization, or the kernel and bias of the layer before it with both folded in."""
    gamma, beta, mean, variance = (
        drawn[f"{norm.name}.{name}"].astype(np.float64) for name in ("gamma", "beta", "mean", "variance")
    )
    factor = gamma / np.sqrt(variance + float(norm.settings["epsilon"]))  # type: ignore[arg-type]
    kernel, bias = np.ones(1), np.zeros(1)
    if before:
        kernel, bias = (
            drawn.get(f"{before.name}.{name}", np.empty(0)).astype(np.float64) for name in ("kernel", "bias")
        )
        if kernel.shape[-1:] != factor.shape or bias.shape != factor.shape:
            return []
    sizes = np.abs(beta) + (np.abs(bias) + np.abs(mean)) * np.abs(factor)
    folds = FoldedNumbers(kernel * factor, np.abs(kernel * factor)), FoldedNumbers(beta + (bias - mean) * factor, sizes)
    return [FoldedNumbers(fold.expected, ROUNDINGS * unit * fold.allowed) for fold in folds]


def _near(folds: Sequence[FoldedNumbers], constants: Sequence[Array]) -> bool:
    def is_near(fold: FoldedNumbers, constant: Array) -> bool:
        wide = constant.reshape(-1).astype(np.float64)
        pairs = zip(_layouts(fold.expected), _layouts(fold.allowed), strict=True)
        return any((np.abs(wide - expected.ravel()) <= allowed.ravel()).all() for expected, allowed in pairs)

    return bool(folds) and all(
        any(fold.expected.size == constant.size and is_near(fold, constant) for constant in constants) for fold in folds
    )


def _nearest(name: str, parameter: Array, constants: Sequence[Array]) -> Altered:
    """Return a parameter beside the part of a constant that differs from it in the fewest elements, then by the least."""
    best: tuple[int, float, Array] | None = None
    core = parameter.reshape([size for size in parameter.shape if size != 1])
    for constant in constants:
        if not parameter.size or constant.size % parameter.size:
            continue
        for layout in _layouts(constant):
            for part in layout.reshape(-1, parameter.size):
                for axes in permutations(range(core.ndim)):
                    turned = part.reshape([core.shape[axis] for axis in axes]).transpose(np.argsort(axes))
                    with np.errstate(all="ignore"):
                        off = np.abs(turned.astype(np.float64) - core)
                    key = int((turned != core).sum()), float(off.max())
                    if best is None or key < best[:2]:
                        best = *key, turned
    if best is None:
        return Altered(name, parameter.size, (), float(parameter.flat[0]), float("nan"))
    differing, _, turned = best
    got = turned.reshape(parameter.shape)
    off = np.abs(got.astype(np.float64) - parameter.astype(np.float64))
    index = tuple(int(place) for place in np.unravel_index(int(np.nanargmax(off)), parameter.shape))
    return Altered(name, differing, index, float(parameter[index]), float(got[index]))
