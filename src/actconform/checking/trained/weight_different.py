"""Weights whose values came out otherwise: each beside the constant that should be it."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from actconform.checking.trained.weight_absent import is_idle
from actconform.checking.trained.weight_difference import WeightDifference, difference
from actconform.checking.trained.weight_layouts import WeightLayout, candidates
from actconform.checking.trained.weight_names import pair_by_names
from actconform.checking.trained.weight_nearest import nearest_partners

if TYPE_CHECKING:
    from actconform.checking.trained.weight_ledger import Ledger


def match_different(ledger: Ledger) -> None:
    """Settle the weights that are like a constant, then those that must be one by their place in the graph, name, or by elimination."""
    parameters = {name: partial(ledger.trained, name) for name in ledger.open_parameters() if _is_float(ledger, name)}
    constants = {
        name: partial(ledger.constant, name) for name in ledger.open_constants() if _holds_weights(ledger, name)
    }
    for pair in nearest_partners(parameters, constants):
        _settle(ledger, pair.parameter, pair.initializer, pair.layout)
    for by in (_by_siblings, _by_names):
        for parameter, initializer in by(ledger).items():
            layout = _likely_layout(ledger, parameter, initializer)
            if layout is not None and parameter not in ledger.checks and initializer not in ledger.taken:
                _settle(ledger, parameter, initializer, layout)


def _is_float(ledger: Ledger, parameter: str) -> bool:
    """Whether a weight has numbers to compare, and is used at all."""
    trained = ledger.trained(parameter)
    return trained.dtype.kind == "f" and trained.size > 1 and not is_idle(ledger, parameter)


def _holds_weights(ledger: Ledger, initializer: str) -> bool:
    constant = ledger.constant(initializer)
    return constant.dtype.kind == "f" and constant.size > 1


def _likely_layout(ledger: Ledger, parameter: str, initializer: str) -> WeightLayout | None:
    """Return the first layout of a weight that keeps its axes whole; None where only a reshaping would do."""
    trained_shape = ledger.parameters[parameter].shape
    layouts = candidates(trained_shape, ledger.constants[initializer].shape)
    return next((layout for layout in layouts if layout.keeps_axes(trained_shape)), None)


def _settle(ledger: Ledger, parameter: str, initializer: str, layout: WeightLayout) -> None:
    result = difference(ledger.trained(parameter), ledger.constant(initializer), layout)
    turned = "" if layout.in_order(ledger.parameters[parameter].shape) else "; transposed"
    attention = _attention_factor(ledger, parameter, result)
    if attention:
        ledger.settle(
            parameter, [initializer], "folded", f"{result.words} = {attention}{turned}", deviation=result.deviation
        )
    else:
        text = result.words + turned
        ledger.settle(parameter, [initializer], "different", text, kind=result.kind, deviation=result.deviation)
    ledger.enter_owner(parameter, [initializer])


def _attention_factor(ledger: Ledger, parameter: str, result: WeightDifference) -> str:
    """Return what a factor is if it is one that exporters fold into weights: 1 / sqrt(d), its root, or sqrt(d), d dividing a dimension."""
    if result.kind != "scaled" or result.factor <= 0:
        return ""
    sizes = {size for name in (parameter, *ledger.siblings(parameter)) for size in ledger.parameters[name].shape}
    for power, words in ((-2, "1 / sqrt({})"), (-4, "1 / sqrt(sqrt({}))"), (2, "sqrt({})")):
        depth = result.factor**power
        nearest_integer = round(depth)
        if abs(depth - nearest_integer) > 1e-6 * depth or nearest_integer < 2:
            continue
        if any(size % nearest_integer == 0 for size in sizes):
            return words.format(nearest_integer)
    return ""


def _by_siblings(ledger: Ledger) -> dict[str, str]:
    """Return pairs where nodes that read another weight of the same layer read one open constant that would fit."""
    pairs: dict[str, list[str]] = defaultdict(list)
    for parameter in filter(partial(_is_float, ledger), ledger.open_parameters()):
        for sibling in ledger.siblings(parameter):
            check = ledger.checks.get(sibling)
            for name in (
                check.initializers
                if check and ledger.owners.get(check.initializers[0] if check.initializers else "") == sibling
                else ()
            ):
                for constant in _neighbours(ledger, name):
                    if constant not in ledger.taken and _likely_layout(ledger, parameter, constant):
                        pairs[parameter].append(constant)
    return {parameter: names[0] for parameter, names in pairs.items() if len(set(names)) == 1}


def _neighbours(ledger: Ledger, initializer: str) -> list[str]:
    """Return the constants near one: of the nodes that read it, and of those that read what these give."""
    results = {name for node in ledger.readers[initializer] for name in node.outputs}
    nodes = [*ledger.readers[initializer], *(node for node in ledger.graph.nodes if results & set(node.inputs))]
    return [name for node in nodes for name in node.inputs if name in ledger.constants and _holds_weights(ledger, name)]


def _by_names(ledger: Ledger) -> dict[str, str]:
    """Return pairs by names, and by order where as many weights as constants of one shape are left."""
    pairs: dict[str, str] = {}
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in ledger.open_parameters():
        if _is_float(ledger, name):
            groups[tuple(sorted(ledger.parameters[name].shape))].append(name)
    constants: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in ledger.open_constants():
        if _holds_weights(ledger, name) and ledger.readers[name]:
            constants[tuple(sorted(ledger.constants[name].shape))].append(name)
    for shape, names in groups.items():
        pairs |= {parameter: name for name, parameter in pair_by_names(names, constants[shape], ledger.hints).items()}
    return pairs
