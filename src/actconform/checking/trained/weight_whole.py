"""Weights that a constant holds whole: identical, transposed, reshaped, or any of these once rounded."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.checking.trained.weight_gates import lacks_reordering
from actconform.checking.trained.weight_layouts import WeightLayout, candidates
from actconform.checking.trained.weight_names import pair_by_names, words
from actconform.checking.trained.weight_rounding import Rounding, deviation_of
from actconform.checking.trained.weight_values import Array, bits_of, equal_bits, is_constant
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.checking.trained.weight_check import WeightState
    from actconform.checking.trained.weight_ledger import Deviation, Ledger

SAMPLED = 64  # elements by which constants are looked up


def match_whole(ledger: Ledger, rounding: Rounding | None = None) -> None:
    """Settle the weights that, once rounded, a constant holds whole."""
    index = _Index(ledger)
    groups: dict[tuple[str, ...], dict[str, dict[str, WeightLayout]]] = defaultdict(dict)
    for parameter in ledger.open_parameters():
        layouts = _layouts(ledger, parameter, index, rounding)
        if layouts:
            groups[tuple(layouts)][parameter] = layouts
    for initializers, group in groups.items():
        _settle_equal(ledger, group, initializers, rounding)


class _Index:
    """Open constants by shape and some of their elements."""

    def __init__(self, ledger: Ledger) -> None:
        self.places: dict[tuple[int, ...], Array] = {}
        """By shape, where elements are compared: in the flattened constant."""
        self.shapes: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        self.names: dict[tuple[tuple[int, ...], bytes], list[str]] = defaultdict(list)
        for name in ledger.open_constants():
            shape, size = ledger.constants[name].shape, ledger.constants[name].size
            if shape not in self.places:
                chosen = np.random.default_rng(0).integers(0, size, SAMPLED) if size > SAMPLED else np.arange(size)
                self.places[shape] = np.unique(chosen)
                self.shapes[size].append(shape)
            values = ledger.constant_at(name, self.places[shape])
            self.names[shape, _key(values)].append(name)


def _key(values: Array) -> bytes:
    return values.dtype.char.encode() + bits_of(values).tobytes()


def _layouts(ledger: Ledger, parameter: str, index: _Index, rounding: Rounding | None) -> dict[str, WeightLayout]:
    """Return the constants that are a weight, and how each lays it out."""
    trained = ledger.trained(parameter)
    layouts: dict[str, WeightLayout] = {}
    if rounding and trained.dtype.kind != "f":
        return layouts
    rounded: Array | None = None
    for shape in index.shapes.get(trained.size, ()):
        for layout in candidates(trained.shape, shape):
            values = layout.pick(trained, index.places[shape])
            for name in index.names.get((shape, _key(rounding.apply(values) if rounding else values)), ()):
                if name in layouts or not _is_evidence(parameter, trained, name):
                    continue
                if rounded is None:
                    rounded = rounding.apply(trained) if rounding else trained
                if equal_bits(layout.apply(rounded), ledger.constant(name)):
                    layouts[name] = layout
    return {name: layouts[name] for name in sorted(layouts)}


def _is_evidence(parameter: str, trained: Array, initializer: str) -> bool:
    """Whether equal values say that a constant is this weight: a lone number, an index or a size says so only by its name."""
    if trained.size > 1 and (trained.dtype.kind == "f" or not is_constant(trained)):
        return True
    return words(parameter) == words(initializer)


def _settle_equal(
    ledger: Ledger, group: Mapping[str, dict[str, WeightLayout]], initializers: Sequence[str], rounding: Rounding | None
) -> None:
    """Settle weights that are equal, and the constants that are each of them."""
    in_order = [name for name in ledger.constants if name in set(initializers)]
    owners = _owners_of_equal(ledger, list(group), in_order)
    for parameter, layouts in group.items():
        owned = [name for name in in_order if owners.get(name) == parameter]
        _settle(ledger, parameter, owned or in_order, layouts, rounding)
        ledger.enter_owner(parameter, owned)
        _name_copies(ledger, parameter, list(group))


def _owners_of_equal(ledger: Ledger, parameters: Sequence[str], initializers: Sequence[str]) -> dict[str, str]:
    """Return the weight that each constant is, where all of them have equal values."""
    if len(parameters) == 1:
        return dict.fromkeys(initializers, parameters[0])
    pairs = pair_by_names(parameters, initializers, ledger.hints)
    if len(initializers) >= len(parameters):
        return pairs
    # One array that serves several layers belongs to none of them.
    return {name: parameter for name, parameter in pairs.items() if len(ledger.readers[name]) < 2}


def _settle(
    ledger: Ledger,
    parameter: str,
    initializers: Sequence[str],
    layouts: Mapping[str, WeightLayout],
    rounding: Rounding | None,
) -> None:
    trained, constant = ledger.parameters[parameter], ledger.constants[initializers[0]]
    layout = layouts[initializers[0]]
    state, text = _arrangement(layout, trained.shape, constant.shape)
    turned = [size for size in trained.shape if size > 1], [size for size in constant.shape if size > 1]
    if state == "reshaped" and turned[0] != turned[1] and sorted(turned[0]) == sorted(turned[1]):
        if not is_constant(ledger.trained(parameter)):
            _settle_wrong_shape(ledger, parameter, initializers)
            return
        state, text = "transposed", f"transposed to {list(constant.shape)}"
    wrong = "" if is_constant(ledger.trained(parameter)) else lacks_reordering(ledger, parameter, initializers[0])
    if wrong and rounding is None:
        ledger.settle(parameter, initializers, "different", f"{text}: {wrong}", kind="permuted")
        return
    if rounding is None:
        suffix = f", as {constant.dtype.name}" if constant.dtype != trained.dtype else ""
        ledger.settle(parameter, initializers, state, text + suffix)
        return
    deviation = deviation_of(ledger.trained(parameter), ledger.constant(initializers[0]), layout)
    settle_rounded(ledger, parameter, initializers, rounding, deviation, "" if state == "identical" else text)


def _arrangement(layout: WeightLayout, trained: tuple[int, ...], shape: tuple[int, ...]) -> tuple[WeightState, str]:
    if not layout.in_order(trained):
        return "transposed", f"transposed to {list(shape)}"
    if trained != shape:
        return "reshaped", f"reshaped to {list(shape)}"
    return "identical", "identical"


def _settle_wrong_shape(ledger: Ledger, parameter: str, initializers: Sequence[str]) -> None:
    """Settle a weight whose axes have the sizes of a transposed one while its elements stay in their order."""
    trained, constant = ledger.trained(parameter), ledger.constant(initializers[0])
    text = f"reshaped to {list(constant.shape)} where it had to be transposed"
    fits = [layout for layout in candidates(trained.shape, constant.shape) if layout.keeps_axes(trained.shape)]
    deviation = deviation_of(trained, constant, fits[0])
    ledger.settle(parameter, initializers, "different", text, kind="reshaped wrongly", deviation=deviation)


def settle_rounded(
    ledger: Ledger,
    parameter: str,
    initializers: Sequence[str],
    rounding: Rounding,
    deviation: Deviation,
    arrangement: str,
) -> None:
    """Settle a weight that was rounded: `different` where the constant's own format would hold it unrounded."""
    trained = ledger.trained(parameter)
    back = all(ledger.constants[name].dtype.itemsize >= trained.dtype.itemsize for name in initializers)
    text = f"{rounding.words}{f' and back to {ledger.constants[initializers[0]].dtype.name}' if back else ''}"
    text += f": {deviation.differing:,} of {number_of(trained.size, 'value')}, by up to {deviation.largest:.3g}"
    text += "; the largest are beyond its range" if deviation.largest == float("inf") else ""
    text += f"; {arrangement}" if arrangement else ""
    if back:
        ledger.settle(parameter, initializers, "different", text, kind="rounded and back", deviation=deviation)
    else:
        ledger.settle(parameter, initializers, "rounded", text, deviation=deviation)


def _name_copies(ledger: Ledger, parameter: str, alike: Sequence[str]) -> None:
    """Add to the words which other weights have the same values, unless those are one number throughout."""
    copies = [name for name in alike if name != parameter]
    if copies and not is_constant(ledger.trained(parameter)):
        check = ledger.checks[parameter]
        named = f"{', '.join(copies[:3])}{' ...' if copies[3:] else ''}"
        ledger.checks[parameter] = msgspec.structs.replace(check, words=f"{check.words}; tied with {named}, or a copy")
