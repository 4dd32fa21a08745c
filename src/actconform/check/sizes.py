"""The sizes at which a model is tried: its open dimensions by name, candidates for each, and a search for those that a run takes."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from actconform.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from actconform.check.source import TensorType
    from actconform.check.value_flow import Use, ValueFlow

Sizing: TypeAlias = dict[str, int]
Refusal: TypeAlias = str | None

MOST_TRIES = 150  # of sizes, until a run takes them
MOST_VARIATIONS = 40  # of them, for each further sizing
_BATCH = (1, 2, 3, 4)
_TOKENS = (8, 12, 16, 32, 5, 64, 128, 77, 1, 256)
_IMAGE = (64, 48, 96, 32, 128, 224, 160, 256, 320, 512, 640)
_SIGNAL = (16, 512, 576, 64, 1, 2, 128, 256, 400, 1024, 160, 480, 2048, 4096, 16000, 8, 4, 32)
_MOST_HINTS = 24  # sizes of weights that are candidates too


@dataclass(frozen=True)
class Symbol:
    """An open dimension: one size wherever it stands."""

    name: str
    is_batch: bool
    candidates: tuple[int, ...]


def symbols_of(inputs: Mapping[str, TensorType], flow: ValueFlow, *, tied: bool) -> dict[str, Symbol]:
    """Return the open dimensions of inputs.

    Those without a name are, if `tied`, one for each axis of all inputs of the same rank; else each is one of its own.
    """
    places: dict[str, list[tuple[str, int]]] = {}
    for name, tensor in inputs.items():
        for axis in range(len(tensor.dims or ())):
            if symbol := symbol_at(name, tensor, axis, tied=tied):
                places.setdefault(symbol, []).append((name, axis))
    return {symbol: _symbol(symbol, where, inputs, flow) for symbol, where in places.items()}


def symbol_at(name: str, tensor: TensorType, axis: int, *, tied: bool) -> str | None:
    """Return what an open dimension is called; None for one of fixed size."""
    dims = tensor.dims or ()
    dim = dims[axis]
    if isinstance(dim, int):
        return None
    if dim is not None:
        return dim
    return f"dimension {axis} of inputs of rank {len(dims)}" if tied else f"dimension {axis} of {name}"


def search(
    symbols: Sequence[Symbol], refusal: Callable[[Sizing], Refusal], fixed: Sizing, most_tries: int
) -> tuple[Sizing | None, str]:
    """Return the first sizing that is not refused, candidates early in their lists first, and the first refusal.

    `fixed` has the sizes of the symbols that are not searched.
    """
    first_refusal = ""
    for tries, sizes in enumerate(_diagonal([symbol.candidates for symbol in symbols])):
        if tries >= most_tries:
            break
        sizing = {**fixed, **{symbol.name: size for symbol, size in zip(symbols, sizes, strict=True)}}
        words = refusal(sizing)
        if words is None:
            return sizing, first_refusal
        first_refusal = first_refusal or f"{described(sizing)}: {words}"
    return None, first_refusal


def sizings(symbols: Mapping[str, Symbol], refusal: Callable[[Sizing], Refusal]) -> list[Sizing]:
    """Return sizes at which the model runs: a first, then others in which batch and other dimensions differ, where there are.

    Raises UsageError, with the first refusal, where none of MOST_TRIES is taken.
    """
    every = list(symbols.values())
    base, words = search(every, refusal, {}, MOST_TRIES)
    if base is None:
        raise UsageError(words)
    found = [base]
    if not every:
        return found
    changed = [_changed(symbol, base) for symbol in every]
    second, _ = search(changed, refusal, {}, MOST_VARIATIONS)
    if second is not None:
        return [base, second]
    for group in ([each for each in every if each.is_batch], [each for each in every if not each.is_batch]):
        varied = _varied(group, every, base, refusal) if group else None
        if varied is not None and varied not in found:
            found.append(varied)
    if len(found) == 1:
        for symbol in every:
            varied = _varied([symbol], every, base, refusal)
            if varied is not None and varied not in found:
                found.append(varied)
    return found


def described(sizing: Mapping[str, int]) -> str:
    """Return sizes in words."""
    return ", ".join(f"{name} = {size}" for name, size in sizing.items()) or "the sizes that it declares"


def _varied(
    group: Sequence[Symbol], every: Sequence[Symbol], base: Sizing, refusal: Callable[[Sizing], Refusal]
) -> Sizing | None:
    """Return a sizing in which the symbols of `group` differ from `base`, and one other may follow the first of them."""
    changed = [_changed(symbol, base) for symbol in group]
    sizing, _ = search(changed, refusal, base, MOST_VARIATIONS)
    if sizing is not None:
        return sizing
    for follower in every:
        if follower in group or base[follower.name] != base[group[0].name]:
            continue
        leader = _changed(group[0], base)
        for size in leader.candidates[:4]:
            attempt = {**base, leader.name: size, follower.name: size}
            if refusal(attempt) is None:
                return attempt
    return None


def _changed(symbol: Symbol, base: Sizing) -> Symbol:
    rest = tuple(size for size in symbol.candidates if size != base[symbol.name])
    return Symbol(symbol.name, symbol.is_batch, rest or symbol.candidates)


def _symbol(name: str, places: Sequence[tuple[str, int]], inputs: Mapping[str, TensorType], flow: ValueFlow) -> Symbol:
    met = [size for where in places if (size := _met_size(*where, inputs, flow)) is not None]
    is_batch = any(axis == 0 for _, axis in places) and not met
    ranks = [(len(inputs[place].dims or ()), axis, inputs[place].dtype.kind) for place, axis in places]
    if is_batch:
        candidates: tuple[int, ...] = _BATCH
    elif any(rank >= 4 for rank, _, _ in ranks):
        candidates = _IMAGE
    elif any(kind in "iub" for _, _, kind in ranks):
        candidates = _TOKENS
    else:
        candidates = _SIGNAL
    return Symbol(name, is_batch, tuple(dict.fromkeys([*met, *candidates, *_weight_sizes(flow)])))


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
        **dict.fromkeys(("LSTM", "GRU", "RNN"), (axis == 2, 2)),
    }
    applies, weight_axis = demanded.get(use.node.op_type, (False, 0))
    if not applies or not -len(weights) <= weight_axis < len(weights):
        return None
    groups = (attributes.get("group") or 1) if use.node.op_type == "Conv" else 1
    return weights[weight_axis] * groups


def _diagonal(candidates: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """Yield all combinations, by the sum of their places in the lists."""
    start = (0,) * len(candidates)
    waiting, visited = [(0, start)], {start}
    while waiting:
        total, places = heapq.heappop(waiting)
        yield tuple(options[place] for options, place in zip(candidates, places, strict=True))
        for i, options in enumerate(candidates):
            further = (*places[:i], places[i] + 1, *places[i + 1 :])
            if places[i] + 1 < len(options) and further not in visited:
                visited.add(further)
                heapq.heappush(waiting, (total + 1, further))


_SAME_SHAPE = frozenset(
    {"Cast", "Identity", "Neg", "Relu", "Add", "Sub", "Mul", "Div", "Sigmoid", "Tanh", "Dropout", "Clip"}
)
