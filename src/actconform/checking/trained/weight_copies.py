"""Weights that have the values of another one, so that one constant serves them all, and constants that repeat a weight."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from actconform.checking.trained.weight_difference import difference
from actconform.checking.trained.weight_layouts import exact_layout
from actconform.checking.trained.weight_ledger import owner_path
from actconform.checking.trained.weight_near_parts import near_parts
from actconform.checking.trained.weight_nearest import nearest_partners
from actconform.checking.trained.weight_values import equal_bits, is_constant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.checking.trained.weight_ledger import Ledger
    from actconform.checking.trained.weight_near_parts import NearPart
    from actconform.checking.trained.weight_values import Array

MOST_ALTERED = (
    16  # of so many elements of a copy one may be another, or one in all: what differs in more is something else
)


def settle_copies(ledger: Ledger) -> None:
    """Settle the open weights of which an equal one is settled, as that is: they are tied, or copies that were never trained apart."""
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in ledger.checks:
        by_shape[ledger.parameters[name].shape].append(name)
    for parameter in ledger.open_parameters():
        trained = ledger.trained(parameter)
        if trained.size < 2 or is_constant(trained):
            continue
        for name in by_shape[trained.shape]:
            if ledger.checks[name].initializers and equal_bits(trained, ledger.trained(name)):
                check = ledger.checks[name]
                ledger.checks[parameter] = msgspec.structs.replace(
                    check,
                    parameter=parameter,
                    layer=ledger.layer_of.get(parameter, ""),
                    words=f"{check.words}; tied with {name}, or a copy",
                )
                if owner_path(name) != owner_path(parameter):
                    ledger.owners.update(dict.fromkeys(check.initializers, ""))
                break


def settle_altered_copies(ledger: Ledger) -> None:
    """Settle anew, as different, the weights of which the graph has a second copy that is another in a few values.

    An exporter writes a weight more than once that several nodes read in several layouts, or that it repeated when it folded constants.
    """
    exact = [name for name, check in ledger.checks.items() if check.exact and check.initializers]
    sizes = {ledger.parameters[name].size for name in exact}
    constants = {
        name: partial(ledger.constant, name)
        for name in ledger.open_constants()
        if ledger.readers[name] and ledger.constants[name].size in sizes
    }
    parts = {label: part for label, part in near_parts(ledger, sizes).items() if not _is_weight(ledger, exact, part)}
    everything: dict[str, Callable[[], Array]] = {
        name: fetch for name, fetch in constants.items() if fetch().dtype.kind == "f" and fetch().size > 1
    }
    everything |= {label: part.fetch for label, part in parts.items()}
    sizes &= {fetch().size for fetch in everything.values()}
    parameters = {name: partial(ledger.trained, name) for name in exact if ledger.parameters[name].size in sizes}
    for pair in nearest_partners(parameters, everything):
        trained = ledger.trained(pair.parameter)
        result = difference(trained, everything[pair.initializer](), pair.layout)
        if trained.dtype.kind == "f" and 0 < result.deviation.differing <= max(1, trained.size // MOST_ALTERED):
            part = parts.get(pair.initializer)
            text = f"of a second copy, {pair.initializer}: {result.words}"
            names = [part.container if part else pair.initializer]
            ledger.settle(pair.parameter, names, "different", text, kind=result.kind, deviation=result.deviation)


def _is_weight(ledger: Ledger, exact: Sequence[str], part: NearPart) -> bool:
    """Whether a part of a constant is one of the weights that the constant has, bit for bit."""
    names = [name for name in exact if part.container in ledger.checks[name].initializers]
    return bool(names) and any(exact_layout(ledger.trained(name), part.fetch()) for name in names)
