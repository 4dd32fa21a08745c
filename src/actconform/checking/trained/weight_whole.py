"""Weights that a constant holds whole: identical, transposed, reshaped, or any of these once rounded."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from actconform.checking.trained.weight_layouts import Layout, candidates, exact_layout
from actconform.checking.trained.weight_names import pair_by_names, words
from actconform.checking.trained.weight_rounding import Rounding, deviation_of
from actconform.checking.trained.weight_values import Array, Fingerprint, fingerprint, is_constant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.checking.trained.weight_check import WeightState
    from actconform.checking.trained.weight_ledger import Ledger


def match_whole(ledger: Ledger, rounding: Rounding | None = None) -> None:
    """Settle the weights that, once rounded, a constant holds whole."""
    groups: dict[Fingerprint, list[str]] = defaultdict(list)
    for name in ledger.open_parameters():
        if not rounding or ledger.trained(name).dtype.kind == "f":
            groups[fingerprint(_rounded(ledger, name, rounding))].append(name)
    partners: dict[Fingerprint, list[str]] = defaultdict(list)
    sizes = {group.size for group in groups}
    for name in ledger.open_constants():
        if ledger.constants[name].size in sizes:
            partners[fingerprint(ledger.constant(name))].append(name)
    for group, names in groups.items():
        if partners[group]:
            _settle_equal(ledger, names, partners[group], rounding)


def _rounded(ledger: Ledger, parameter: str, rounding: Rounding | None) -> Array:
    trained = ledger.trained(parameter)
    return rounding.apply(trained) if rounding else trained


def _settle_equal(
    ledger: Ledger, parameters: Sequence[str], initializers: Sequence[str], rounding: Rounding | None
) -> None:
    """Settle weights and constants that have the same elements, as far as they have them in the same places."""
    layouts: dict[str, dict[str, Layout]] = {}
    for parameter in parameters:
        trained = _rounded(ledger, parameter, rounding)
        layouts[parameter] = {
            initializer: layout
            for initializer in initializers
            if _is_evidence(parameter, trained, initializer)
            and (layout := exact_layout(trained, ledger.constant(initializer)))
        }
    alike = [name for name in parameters if layouts[name]]
    equal = [name for name in initializers if any(name in pairs for pairs in layouts.values())]
    owners = owners_of_equal(ledger, alike, equal)
    for parameter in alike:
        pairs = layouts[parameter]
        own = [name for name in pairs if owners.get(name) == parameter]
        _settle(ledger, parameter, own or list(pairs), pairs, rounding)
        ledger.own(parameter, own)
        _name_copies(ledger, parameter, alike)


def owners_of_equal(ledger: Ledger, parameters: Sequence[str], initializers: Sequence[str]) -> dict[str, str]:
    """Return the weight that each constant is, where all of them have equal values."""
    if len(parameters) == 1:
        return dict.fromkeys(initializers, parameters[0])
    pairs = pair_by_names(parameters, initializers, ledger.hints)
    if len(initializers) >= len(parameters):
        return pairs
    # One array that serves several layers belongs to none of them.
    return {name: parameter for name, parameter in pairs.items() if len(ledger.readers[name]) < 2}


def _is_evidence(parameter: str, trained: Array, initializer: str) -> bool:
    """Whether equal values say that a constant is this weight: a lone number, an index or a size says so only by its name."""
    if trained.size > 1 and (trained.dtype.kind == "f" or not is_constant(trained)):
        return True
    return words(parameter) == words(initializer)


def _settle(
    ledger: Ledger,
    parameter: str,
    initializers: Sequence[str],
    layouts: dict[str, Layout],
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
    if rounding is None:
        suffix = f", as {constant.dtype.name}" if constant.dtype != trained.dtype else ""
        ledger.settle(parameter, initializers, state, text + suffix)
        return
    settle_rounded(ledger, parameter, initializers, rounding, "" if state == "identical" else text)


def _settle_wrong_shape(ledger: Ledger, parameter: str, initializers: Sequence[str]) -> None:
    """Settle a weight whose axes have the sizes of a transposed one while its elements stay in their order."""
    trained, constant = ledger.trained(parameter), ledger.constant(initializers[0])
    text = f"reshaped to {list(constant.shape)} where it had to be transposed"
    fits = [layout for layout in candidates(trained.shape, constant.shape) if layout.keeps_axes(trained.shape)]
    deviation = deviation_of(trained, constant, fits[0])
    ledger.settle(parameter, initializers, "different", text, kind="reshaped wrongly", deviation=deviation)


def settle_rounded(
    ledger: Ledger, parameter: str, initializers: Sequence[str], rounding: Rounding, arrangement: str
) -> None:
    """Settle a weight that was rounded: `different` where the constant's own format would hold it unrounded."""
    trained = ledger.trained(parameter)
    deviation = deviation_of(trained, rounding.apply(trained))
    back = all(ledger.constants[name].dtype.itemsize >= trained.dtype.itemsize for name in initializers)
    overflows = deviation.largest == float("inf")
    text = f"{rounding.words}{f' and back to {ledger.constants[initializers[0]].dtype.name}' if back else ''}"
    text += f": {deviation.differing:,} of {trained.size:,} values, by up to {deviation.largest:.3g}"
    text += "; the largest are beyond its range" if overflows else ""
    text += f"; {arrangement}" if arrangement else ""
    if back:
        ledger.settle(parameter, initializers, "different", text, kind="rounded and back", deviation=deviation)
    else:
        ledger.settle(parameter, initializers, "rounded", text, deviation=deviation)


def _arrangement(layout: Layout, trained: tuple[int, ...], shape: tuple[int, ...]) -> tuple[WeightState, str]:
    if not layout.in_order(trained):
        return "transposed", f"transposed to {list(shape)}"
    if trained != shape:
        return "reshaped", f"reshaped to {list(shape)}"
    return "identical", "identical"


def _name_copies(ledger: Ledger, parameter: str, alike: Sequence[str]) -> None:
    """Add to the words which other weights have the same values, unless those are one number throughout."""
    copies = [name for name in alike if name != parameter]
    if copies and not is_constant(ledger.trained(parameter)):
        check = ledger.checks[parameter]
        others = f"{', '.join(copies[:3])}{' ...' if copies[3:] else ''}"
        ledger.checks[parameter] = msgspec.structs.replace(check, words=f"{check.words}; tied with {others}, or a copy")
