"""Weights that are in no constant of a graph: those that it does not need, and those that it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.checking.trained.weight_ledger import owner_path
from actconform.checking.trained.weight_values import is_constant

if TYPE_CHECKING:
    from actconform.checking.trained.weight_ledger import Ledger


def settle_absent(ledger: Ledger) -> None:
    """Settle what is open as unused, if nothing is lost without it, else as missing."""
    unread = _unread(ledger)
    for parameter in ledger.open_parameters():
        reason = "no output depends on its layer" if parameter in unread else _reason_unused(ledger, parameter)
        if reason:
            ledger.settle(parameter, (), "unused", f"not in the graph: {reason}")
        else:
            ledger.settle(parameter, (), "missing", "in no constant of the graph")


def _reason_unused(ledger: Ledger, parameter: str) -> str:
    trained = ledger.trained(parameter)
    if not trained.size:
        return "it has no elements"
    if trained.dtype.kind == "i" and (trained.size == 1 or "seed" in parameter):
        return "a counter or a random state, which only training reads"
    # A bias of zeros and a factor of ones, one number a channel, change nothing.
    if trained.ndim == 1 and is_constant(trained) and trained[0] in {0, 1}:
        return f"it is {trained[0]:.0f} throughout"
    return "no layer of this run owns it" if is_idle(ledger, parameter) else ""


def is_idle(ledger: Ledger, parameter: str) -> bool:
    """Whether no layer of the run has this weight, as far as there was a run."""
    if not ledger.layers or parameter in ledger.layer_of:
        return False
    # Attention of torch computes with the weights of its output layer itself, without calling that.
    kinds = {layer.kind for layer in ledger.layers if layer.name.split("#")[0] == owner_path(owner_path(parameter))}
    return not any("Attention" in kind for kind in kinds)


def _unread(ledger: Ledger) -> set[str]:
    """Return the weights of layers on which no output of the model depends, as far as the run shows the way of its tensors whole."""
    needed = {place for layer in ledger.layers if not layer.name for place in layer.outputs}
    reached: set[str] = set()
    for layer in reversed(ledger.layers):
        if needed & set(layer.outputs):
            needed |= set(layer.inputs)
            reached |= set(layer.parameters)
    unread = ledger.layer_of.keys() - reached
    # A weight that the graph has is read: where the run does not show it, a tensor was lost between two layers, and nothing is known.
    lost = {name for name in unread if name in ledger.checks and ledger.checks[name].initializers}
    return set() if not reached or any(not is_constant(ledger.trained(name)) for name in lost) else unread
