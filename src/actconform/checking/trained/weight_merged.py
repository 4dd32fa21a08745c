"""Weights that are a part of a larger constant, lie in several constants, or whose slices were reordered."""

from __future__ import annotations

from collections import defaultdict
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from actconform.checking.trained.weight_difference import difference
from actconform.checking.trained.weight_gates import lacks_reordering, may_have_gates
from actconform.checking.trained.weight_ledger import owner_path
from actconform.checking.trained.weight_nearest import nearest_partners
from actconform.checking.trained.weight_parts import find_parts
from actconform.checking.trained.weight_rounding import deviation_of
from actconform.checking.trained.weight_values import is_constant, weight_fingerprint
from actconform.checking.trained.weight_whole import settle_rounded
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.checking.trained.weight_difference import WeightDifference
    from actconform.checking.trained.weight_ledger import Deviation, Ledger
    from actconform.checking.trained.weight_parts import WeightPart
    from actconform.checking.trained.weight_rounding import Rounding
    from actconform.checking.trained.weight_values import Array, WeightFingerprint

MOST_RUNS = 64  # heads of an attention whose weights are interleaved; more are a permutation


def match_merged(ledger: Ledger, rounding: Rounding | None = None) -> None:
    """Settle the weights that, once rounded, are parts of a constant, or have constants as their parts."""
    parameters = _open_weights(ledger, rounding)
    constants = {name: partial(ledger.constant, name) for name in ledger.open_constants()}

    @cache
    def fingerprint_of(parameter: str) -> WeightFingerprint:
        return weight_fingerprint(parameters[parameter]())

    def unlike(parameter: str, initializer: str) -> bool:
        return fingerprint_of(parameter) != ledger.fingerprint(initializer)

    merged = find_parts(parameters, constants, unlike, partial(may_have_gates, ledger))
    for part in merged:
        _settle_merged(ledger, part, rounding)
    for part in merged:
        ledger.enter_owner(part.part, [part.container])
    containers = _open_weights(ledger, rounding)
    pieces: dict[str, list[WeightPart]] = defaultdict(list)
    left = {name: fetch for name, fetch in constants.items() if name not in ledger.taken}
    for part in find_parts(
        left, containers, lambda initializer, parameter: unlike(parameter, initializer), lambda _: False
    ):
        pieces[part.container].append(part)
    for parameter, parts in pieces.items():
        _settle_split(ledger, parameter, parts, rounding)
    if rounding is None:
        _settle_uniform(ledger)


def match_sums(ledger: Ledger) -> None:
    """Settle the two biases of a recurrent layer, of the input and of the state, of which a constant holds the sum."""
    pairs = pairs_of_biases(ledger)
    sums = {name: partial(sum_of_biases, ledger, name, state_bias) for name, state_bias in pairs.items()}
    constants = {name: partial(ledger.constant, name) for name in ledger.open_constants()}
    for part in find_parts(sums, constants, lambda _part, _container: False, partial(may_have_gates, ledger)):
        text = f"the sum of both biases: {_sliced(part, ledger.constants[part.container].ndim)}"
        text += f", gates {part.gates}" if part.gates else ""
        for name in (part.part, pairs[part.part]):
            ledger.settle(name, [part.container], "merged", text, exact=False)
        ledger.enter_owner(part.part, [part.container])


def pairs_of_biases(ledger: Ledger) -> dict[str, str]:
    """Return for each open bias of the input of a recurrent layer of torch the open one of its state."""
    pairs = {name: name.replace("bias_ih", "bias_hh") for name in ledger.open_parameters() if "bias_ih" in name}
    return {name: state_bias for name, state_bias in pairs.items() if state_bias in ledger.open_parameters()}


def sum_of_biases(ledger: Ledger, name: str, state_bias: str) -> Array:
    """Return the sum of both, as an exporter computes it."""
    total: Array = ledger.trained(name) + ledger.trained(state_bias)
    return total


def _open_weights(ledger: Ledger, rounding: Rounding | None) -> dict[str, Callable[[], Array]]:
    def fetch(name: str) -> Array:
        trained = ledger.trained(name)
        return rounding.apply(trained) if rounding and trained.dtype.kind == "f" else trained

    return {name: partial(fetch, name) for name in ledger.open_parameters()}


def _settle_merged(ledger: Ledger, part: WeightPart, rounding: Rounding | None) -> None:
    container = ledger.constants[part.container]
    runs = part.runs()
    text = f"{_sliced(part, container.ndim)} of {list(container.shape)}"
    text += f", gates {part.gates}" if part.gates else ""
    trained = ledger.parameters[part.part]
    wrong = "" if part.gates else lacks_reordering(ledger, part.part, part.container)
    if rounding is not None:
        settle_rounded(ledger, part.part, [part.container], rounding, _lost(ledger, part.part, rounding), text)
    elif wrong:
        ledger.settle(part.part, [part.container], "different", f"{text}: {wrong}", kind="permuted")
    elif part.gates and container.size == trained.size:
        ledger.settle(part.part, [part.container], "reordered", f"gates {part.gates}")
    elif part.gates or (
        container.size > trained.size and len(runs) <= MOST_RUNS and list(part.places) == sorted(part.places)
    ):
        ledger.settle(part.part, [part.container], "merged", text)
    else:
        count = sum(place != i for i, place in enumerate(part.places))
        text = f"{count:,} of {number_of(len(part.places), 'slice')} along axis {part.axis} stand elsewhere: the order is permuted"
        ledger.settle(part.part, [part.container], "different", text, kind="permuted")


def _lost(ledger: Ledger, parameter: str, rounding: Rounding) -> Deviation:
    trained = ledger.trained(parameter)
    return deviation_of(trained, rounding.apply(trained))


def _sliced(part: WeightPart, rank: int) -> str:
    """Return the place of a part as Python writes it: "W[:, 0:768]"."""
    runs = part.runs()
    ranges = " and ".join(f"{start}:{end}" for start, end in sorted(runs)[:4]) + (" ..." if runs[4:] else "")
    if part.gates:
        ranges = f"{min(part.places)}:{max(part.places) + 1}"
    indices = [":"] * rank
    if part.entry is None:
        indices[part.container_axis] = ranges
    else:
        indices[0], indices[part.container_axis + 1] = str(part.entry), ranges
    return f"{part.container}[{', '.join(indices)}]"


def _settle_split(ledger: Ledger, parameter: str, parts: list[WeightPart], rounding: Rounding | None) -> None:
    """Settle a weight of which constants are parts, along the axis along which most lie."""
    places = [(part.entry is not None, part.container_axis) for part in parts]
    chosen = [part for part, place in zip(parts, places, strict=True) if place == max(places, key=places.count)]
    axis = chosen[0].container_axis
    size = ledger.parameters[parameter].shape[axis]
    covered = len({place for part in chosen for place in part.places})
    names = [part.part for part in chosen]
    text = f"along axis {axis} into {number_of(len(names), 'constant')}" if covered == size else ""
    text = text or f"only {covered:,} of {number_of(size, 'slice')} along axis {axis}, in {', '.join(names[:3])}"
    if rounding is not None:
        settle_rounded(ledger, parameter, names, rounding, _lost(ledger, parameter, rounding), f"split {text}")
    elif covered < size and (missing := _near_piece(ledger, parameter, axis, chosen)):
        name, result = missing
        names.append(name)
        ledger.settle(
            parameter,
            names,
            "different",
            f"split; of the part in {name}: {result.words}",
            kind=result.kind,
            deviation=result.deviation,
        )
    else:
        ledger.settle(parameter, names, "split", text, exact=covered == size)
    ledger.enter_owner(parameter, names)


def _near_piece(
    ledger: Ledger, parameter: str, axis: int, pieces: list[WeightPart]
) -> tuple[str, WeightDifference] | None:
    """Return the open constant that is most like a piece of a weight that no constant is, and how it differs; the place is in the weight."""
    trained = ledger.trained(parameter)
    lengths = {len(piece.places) for piece in pieces}
    covered = {place for piece in pieces for place in piece.places}
    starts = [start for length in lengths for start in range(0, trained.shape[axis], length) if start not in covered]
    wanted = {
        str(start): partial(np.take, trained, np.arange(start, min(start + length, trained.shape[axis])), axis)
        for length in lengths
        for start in starts
    }
    constants = {name: partial(ledger.constant, name) for name in ledger.open_constants() if ledger.readers[name]}
    floats = {name: fetch for name, fetch in constants.items() if fetch().dtype.kind == "f" and fetch().size > 1}
    for pair in nearest_partners(wanted, floats)[:1]:
        result = difference(wanted[pair.parameter](), floats[pair.initializer](), pair.layout)
        place = tuple(i + int(pair.parameter) * (at == axis) for at, i in enumerate(result.deviation.place))
        return pair.initializer, result._replace(deviation=result.deviation._replace(place=place))
    return None


def _settle_uniform(ledger: Ledger) -> None:
    """Settle weights of one value throughout that lie in a constant which nodes read together with a weight of the same layer.

    A bias of zeros is anywhere in a constant of zeros, so that values alone show nothing.
    """
    for parameter in ledger.open_parameters():
        trained = ledger.trained(parameter)
        if trained.size < 2 or not is_constant(trained):
            continue
        for name in _constants_beside(ledger, parameter):
            constant = ledger.constant(name)
            if (
                constant.dtype == trained.dtype
                and np.count_nonzero(constant == trained.flat[0]) >= trained.size < constant.size
            ):
                text = f"{trained.flat[0]:.6g} throughout, as a part of {name} {list(constant.shape)}"
                ledger.settle(parameter, [name], "merged", text)
                ledger.enter_owner(parameter, [name])
                break


def _constants_beside(ledger: Ledger, parameter: str) -> list[str]:
    """Return the constants of the nodes that read a weight of the same layer."""
    layer = owner_path(parameter)
    settled = [check for name, check in ledger.checks.items() if owner_path(name) == layer]
    nodes = [node for check in settled for name in check.initializers for node in ledger.readers[name]]
    return list(dict.fromkeys(name for node in nodes for name in node.inputs if name in ledger.constants))
