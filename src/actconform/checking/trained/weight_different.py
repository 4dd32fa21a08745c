"""Weights whose values came out otherwise: each beside the constant that should be it."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from actconform.checking.trained.weight_absent import is_idle
from actconform.checking.trained.weight_difference import WeightDifference, difference
from actconform.checking.trained.weight_layouts import WeightLayout, candidates
from actconform.checking.trained.weight_merged import pairs_of_biases, sum_of_biases
from actconform.checking.trained.weight_names import pair_by_names, words
from actconform.checking.trained.weight_near_parts import near_parts
from actconform.checking.trained.weight_nearest import nearest_partners

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.checking.trained.weight_ledger import Ledger
    from actconform.checking.trained.weight_near_parts import NearPart
    from actconform.checking.trained.weight_values import Array


class _Weight(NamedTuple):
    """A weight, or the two biases of a recurrent layer together."""

    names: tuple[str, ...]
    fetch: Callable[[], Array]
    """Its canonical values."""


def match_different(ledger: Ledger) -> None:
    """Settle the weights that are like a constant or a part of one, then those that must be one by their place in the graph, name, or by elimination."""
    weights = [_Weight((name,), partial(ledger.trained, name)) for name in ledger.open_parameters()]
    weights = [weight for weight in weights if _is_float(ledger, weight.names[0])]
    parts = near_parts(ledger, {ledger.parameters[weight.names[0]].size for weight in weights})
    weights += [_Weight(names, partial(sum_of_biases, ledger, *names)) for names in pairs_of_biases(ledger).items()]
    labelled = {" + ".join(weight.names): weight for weight in weights}
    constants = {
        name: partial(ledger.constant, name) for name in ledger.open_constants() if _holds_weights(ledger, name)
    }
    fetched = {label: weight.fetch for label, weight in labelled.items()}
    for pair in nearest_partners(fetched, constants | {label: part.fetch for label, part in parts.items()}):
        weight = labelled[pair.parameter]
        if ledger.checks.keys().isdisjoint(weight.names):
            _settle(ledger, weight, pair.initializer, pair.layout, parts.get(pair.initializer))
    for by in (_by_siblings, _by_names, _by_own_name):
        for parameter, initializer in by(ledger).items():
            layout = _likely_layout(ledger, parameter, initializer)
            if layout is not None and parameter not in ledger.checks and initializer not in ledger.taken:
                _settle(ledger, _Weight((parameter,), partial(ledger.trained, parameter)), initializer, layout)


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


def _settle(
    ledger: Ledger, weight: _Weight, initializer: str, layout: WeightLayout, part: NearPart | None = None
) -> None:
    """Settle a weight, or two of which there is the sum, by a constant or by a part of one."""
    trained = weight.fetch()
    constant = part.fetch() if part else ledger.constant(initializer)
    result = difference(trained, constant, layout)
    text = result.words if len(weight.names) == 1 else f"of the sum of both biases: {result.words}"
    attention = _attention_factor(ledger, weight.names[0], result)
    text += f" = {attention}" if attention else ""
    text += "" if layout.in_order(trained.shape) else "; transposed"
    text += f"; in {initializer}" if part else ""
    names = [part.container if part else initializer]
    for name in weight.names:
        if attention:
            ledger.settle(name, names, "folded", text, deviation=result.deviation)
        else:
            ledger.settle(name, names, "different", text, kind=result.kind, deviation=result.deviation)
    ledger.enter_owner(weight.names[0], names)


def _attention_factor(ledger: Ledger, parameter: str, result: WeightDifference) -> str:
    """Return what a factor is if it is one that exporters fold into weights: 1 / sqrt(d), its root, or sqrt(d), d dividing a dimension."""
    if result.kind != "scaled" or result.factor <= 0:
        return ""
    sizes = {size for name in (parameter, *ledger.siblings(parameter)) for size in ledger.parameters[name].shape}
    for power, formula in ((-2, "1 / sqrt({})"), (-4, "1 / sqrt(sqrt({}))"), (2, "sqrt({})")):
        depth = result.factor**power
        nearest_integer = round(depth)
        if abs(depth - nearest_integer) > 1e-6 * depth or nearest_integer < 2:
            continue
        if any(size % nearest_integer == 0 for size in sizes):
            return formula.format(nearest_integer)
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


def _by_own_name(ledger: Ledger) -> dict[str, str]:
    """Return the weights of one element whose name a constant of one element has."""
    named = {tuple(words(name)): name for name in ledger.open_constants() if ledger.constants[name].size == 1}
    lone = [
        name
        for name in ledger.open_parameters()
        if ledger.trained(name).dtype.kind == "f" and ledger.trained(name).size == 1
    ]
    return {name: named[tuple(words(name))] for name in lone if tuple(words(name)) in named}
