"""Weights that have the values of another one, so that one constant serves them all."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from actconform.checking.trained.weight_ledger import owner_path
from actconform.checking.trained.weight_values import equal_bits, is_constant

if TYPE_CHECKING:
    from actconform.checking.trained.weight_ledger import Ledger


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
