"""The open dimensions of a model's inputs: which are the same, which sizes are worth trying for each."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from actconform.checking.source import TensorType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.checking.value_flow import Use, ValueFlow

Sizing: TypeAlias = dict[str, int]
"""The size of each open dimension, and the number of the choice for each input whose value decides, by name."""

_BATCH = (1, 2, 3, 4)
_TOKENS = (8, 16, 12, 24, 32, 5, 64, 128, 77, 1, 256)  # some are the sums of others: past and present
_IMAGE = (64, 48, 96, 32, 128, 224, 160, 256, 320, 512, 640)
_VOLUME = (16, 32, 8, 24, 48, 64, 96, 128)
_SIGNAL = (16, 24, 512, 576, 64, 1, 2, 128, 256, 400, 1024, 160, 480, 2048, 4096, 16000, 8, 4, 32)
_MOST_HINTS = 24  # sizes of weights that are candidates too
_RANKS = (2, 3, 4, 1, 0)  # tried for inputs that declare none
Ties: TypeAlias = Literal["axes", "batch", "nothing"]
TIES: tuple[Ties, ...] = ("axes", "batch", "nothing")
_RECURRENT = ("LSTM", "GRU", "RNN")
_UNNAMED_BATCH = "the batch"


@dataclass(frozen=True)
class Symbol:
    """What has one value in a sample and is tried at several: a dimension wherever it stands, or a choice."""

    name: str
    kind: Literal["batch", "size", "demanded", "choice"]
    """demanded: by weights that the input meets at once, the first candidate."""
    candidates: tuple[int, ...]


def readings(inputs: Mapping[str, TensorType], flow: ValueFlow) -> list[dict[str, TensorType]]:
    """Return the inputs as they may be meant, what is more likely first: every open dimension with a name, every rank stated."""
    declared = [tensor.dims for tensor in inputs.values()]
    ranks = (*(_met_rank(name, flow) for name, tensor in inputs.items() if tensor.dims is None), *_RANKS)
    ties = TIES if any(dims is None or None in dims for dims in declared) else TIES[:1]
    return [
        _with_names(inputs, tied, rank)
        for rank in dict.fromkeys(rank for rank in (ranks if None in declared else (0,)) if rank is not None)
        for tied in ties
    ]


def _with_names(inputs: Mapping[str, TensorType], tied: Ties, rank: int) -> dict[str, TensorType]:
    """Return inputs whose open dimensions all have names, those without a declared rank as of `rank`.

    Dimensions without a name of their own are the same for each axis of all inputs of one rank (tied are "axes"), the same
    where they look like the batch ("axes" and "batch"), or each apart.
    """
    named = {}
    for name, tensor in inputs.items():
        dims = (None,) * rank if tensor.dims is None else tensor.dims
        filled = (dim if dim is not None else _name_of(name, dims, axis, tied) for axis, dim in enumerate(dims))
        named[name] = TensorType(tensor.element_type, tuple(filled))
    return named


def symbols_of(inputs: Mapping[str, TensorType], flow: ValueFlow) -> list[Symbol]:
    """Return the open dimensions of inputs, but those whose names are sums or products of others."""
    places: dict[str, list[tuple[str, int]]] = {}
    for name, tensor in inputs.items():
        for axis, dim in enumerate(tensor.dims or ()):
            if isinstance(dim, str):
                places.setdefault(dim, []).append((name, axis))
    plain = dict.fromkeys(symbol for symbol in places if not re.search(r"[+*]", symbol))
    free = [symbol for symbol in places if symbol in plain or size_of(symbol, dict.fromkeys(plain, 1)) is None]
    return [_symbol(symbol, places[symbol], inputs, flow) for symbol in free]


def shape_at(tensor: TensorType, sizing: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of an input, all of whose dimensions have a size, a name of `sizing`, or one that follows from those."""
    return tuple(dim if isinstance(dim, int) else size_of(str(dim), sizing) or 0 for dim in tensor.dims or ())


def size_of(symbol: str, sizing: Mapping[str, int]) -> int | None:
    """Return the size of a dimension, also of one that is called "past + 1" or "2*batch"; None where that is not known."""
    if symbol in sizing:
        return sizing[symbol]
    total = 0
    for term in symbol.split("+"):
        factors = [factor.strip(" ()") for factor in term.split("*")]
        numbers = [int(factor) if factor.isascii() and factor.isdigit() else sizing.get(factor) for factor in factors]
        if None in numbers or len(factors) + len(symbol.split("+")) < 3:
            return None
        total += math.prod(number for number in numbers if number is not None)
    return total


def _name_of(name: str, dims: Sequence[int | str | None], axis: int, tied: Ties) -> str:
    """Return what an open dimension without a name is called."""
    states = len(dims) == 3 and axis == 1 and isinstance(dims[0], int) and dims[0] != 1  # layers x batch x hidden
    if tied != "nothing" and (axis == 0 or states):
        return _UNNAMED_BATCH
    return f"dimension {axis} of inputs of rank {len(dims)}" if tied == "axes" else f"dimension {axis} of {name}"


def _met_rank(name: str, flow: ValueFlow) -> int | None:
    """Return the rank that the first layer which reads an input takes."""
    for use in flow.uses.get(flow.inputs[name], ()):
        if use.node.op_type in _RECURRENT:
            return 3
        if use.node.op_type in {"Conv", "ConvTranspose"} and use.operands[1] is not None:
            return len(flow.dims.get(use.operands[1], (None,) * 4))
    return None


def _symbol(name: str, places: Sequence[tuple[str, int]], inputs: Mapping[str, TensorType], flow: ValueFlow) -> Symbol:
    met = [size for place in places if (size := _met_size(*place, inputs, flow)) is not None]
    recurrent = [axis for place, axis in places if _enters_recurrent(place, flow)]  # time, batch, features
    # names only say what is tried first
    is_length = re.search(r"seq|len|time|frame|token|step", name.lower()) is not None
    is_batch = not met and (
        "batch" in name.lower()
        or any(axis == 1 for axis in recurrent)
        or (any(axis == 0 for _, axis in places) and not is_length and not recurrent)
    )
    candidates = _BATCH if is_batch else _usual_sizes(places, inputs)
    every = tuple(dict.fromkeys([*met, *candidates, *_weight_sizes(flow)]))
    return Symbol(name, "demanded" if met else "batch" if is_batch else "size", every)


def _usual_sizes(places: Sequence[tuple[str, int]], inputs: Mapping[str, TensorType]) -> tuple[int, ...]:
    """Return sizes by what an open dimension seems to be: of tokens, where the model takes several, images, volumes or signals."""
    takes_tokens = any(
        tensor.dtype.kind in "iub" and any(isinstance(dim, str) for dim in (tensor.dims or ())[1:])
        for tensor in inputs.values()
    )
    rank = max(len(inputs[place].dims or ()) for place, _ in places)
    if takes_tokens:
        return _TOKENS
    return _SIGNAL if rank < 4 else _IMAGE if rank == 4 else _VOLUME


def _enters_recurrent(name: str, flow: ValueFlow) -> bool:
    """Say whether an input is what a recurrent layer reads, or its state."""
    layers = (use for use in flow.uses.get(flow.inputs[name], ()) if use.node.op_type in _RECURRENT)
    return any(flow.inputs[name] in (*use.operands[:1], *use.operands[5:7]) for use in layers)


def _weight_sizes(flow: ValueFlow) -> list[int]:
    """Return sizes that stand in the graph's constants, those of the first nodes first."""
    sizes = [size for dims in flow.dims.values() for size in dims if 1 < size <= 4096]
    for constant in flow.constants.values():
        if constant.dtype.kind == "i" and constant.ndim == 1 and constant.size <= 8:
            sizes += [size for size in constant.tolist() if 1 < size <= 4096]
    return list(dict.fromkeys(sizes))[:_MOST_HINTS]


def _met_size(name: str, axis: int, inputs: Mapping[str, TensorType], flow: ValueFlow) -> int | None:
    """Return the size that the weights which an input meets at once demand of an axis."""
    rank = len(inputs[name].dims or ())
    waiting, visited = [flow.inputs[name]], set()
    while waiting:
        tensor = waiting.pop(0)
        visited.add(tensor)
        for use in flow.uses.get(tensor, ()):
            size = _demanded(use, tensor, axis, rank, flow)
            if size is not None:
                return size
            if use.node.op_type in _SAME_SHAPE and use.outputs[0] not in visited:
                waiting.append(use.outputs[0])
    return None


def _demanded(use: Use, tensor: int, axis: int, rank: int, flow: ValueFlow) -> int | None:
    if len(use.operands) < 2 or use.operands[0] != tensor or use.operands[1] is None:
        return None
    weights = flow.dims.get(use.operands[1])
    attributes = {attribute.name: attribute.i for attribute in use.node.attribute}
    if weights is None:
        return None
    last = axis == rank - 1
    demanded: dict[str, tuple[bool, int]] = {  # by operator: whether it is about this axis, and the axis of its weights
        "MatMul": (last and len(weights) >= 2, -2),
        "Gemm": (axis == (0 if attributes.get("transA") else 1), 1 if attributes.get("transB") else 0),
        "Conv": (axis == 1, 1),
        **dict.fromkeys(("ConvTranspose", "BatchNormalization", "InstanceNormalization"), (axis == 1, 0)),
        "LayerNormalization": (last and len(weights) == 1, 0),
        **dict.fromkeys(_RECURRENT, (axis == 2, 2)),
    }
    applies, weight_axis = demanded.get(use.node.op_type, (False, 0))
    if not applies or not -len(weights) <= weight_axis < len(weights):
        return None
    groups = (attributes.get("group") or 1) if use.node.op_type == "Conv" else 1
    return weights[weight_axis] * groups


_SAME_SHAPE = frozenset(
    {"Cast", "Identity", "Neg", "Relu", "Add", "Sub", "Mul", "Div", "Sigmoid", "Tanh", "Dropout", "Clip"}
)
