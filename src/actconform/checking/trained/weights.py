"""What became of every trained weight in an exported graph, bit for bit."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from actconform.checking.trained.weight_check import WeightCheck, WeightsComparison, WeightState
from actconform.checking.trained.weight_layouts import Layout, exact_layout
from actconform.checking.trained.weight_names import initializer_hints, pair_by_names, words
from actconform.checking.trained.weight_values import Array, Fingerprint, canonical, fingerprint, is_constant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.checking.flatten import FlatGraph
    from actconform.types.trained import LayerRecord

__all__ = ["WeightCheck", "WeightsComparison", "compare_weights"]


def compare_weights(
    parameters: Mapping[str, Array], graph: FlatGraph, layers: Sequence[LayerRecord]
) -> WeightsComparison:
    """Return what became of every weight in a graph.

    `parameters` by name, as they were trained; `layers` of a run of the model tell which layer owns a weight and which follow each other
    (they may be none). Names decide nothing but which of several equal arrays is which.
    """
    comparison = _Comparison(parameters, graph, layers)
    comparison.match_whole()
    comparison.report_absent()
    return comparison.result()


class _Comparison:
    """Weights and constants, and what is known of them so far."""

    def __init__(self, parameters: Mapping[str, Array], graph: FlatGraph, layers: Sequence[LayerRecord]) -> None:
        self.parameters = parameters
        self.graph = graph
        self.layer_of: dict[str, str] = {}
        for layer in layers:
            self.layer_of |= {name: layer.name.split("#")[0] for name in layer.parameters if name not in self.layer_of}
        self.hints = initializer_hints(graph)
        self.readers = Counter(name for node in graph.nodes for name in node.inputs)
        self.constants = {
            name: array for name, array in graph.constants.items() if array.size and array.dtype.kind not in "SUOc"
        }
        self.checks: dict[str, WeightCheck] = {}
        self.owners: dict[str, str] = {}
        self.taken: set[str] = set()

    def open_parameters(self) -> list[str]:
        return [name for name in self.parameters if name not in self.checks]

    def open_constants(self) -> list[str]:
        return [name for name in self.constants if name not in self.taken]

    def result(self) -> WeightsComparison:
        return WeightsComparison(
            checks=tuple(self.checks[name] for name in self.parameters),
            owners={name: self.owners[name] for name in self.graph.constants if name in self.owners},
            foreign=tuple(name for name in self.graph.constants if name not in self.taken),
        )

    def match_whole(self) -> None:
        """Settle the weights that a constant holds whole."""
        groups: dict[Fingerprint, list[str]] = defaultdict(list)
        for name in self.open_parameters():
            groups[fingerprint(canonical(self.parameters[name]))].append(name)
        partners: dict[Fingerprint, list[str]] = defaultdict(list)
        sizes = {group.size for group in groups}
        for name in self.open_constants():
            if self.constants[name].size in sizes:
                partners[fingerprint(canonical(self.constants[name]))].append(name)
        for group, names in groups.items():
            if partners[group]:
                self._settle_equal(names, partners[group])

    def _settle_equal(self, parameters: Sequence[str], initializers: Sequence[str]) -> None:
        """Settle weights and constants that have the same elements, as far as they have them in the same places."""
        layouts: dict[tuple[str, str], Layout] = {}
        for parameter in parameters:
            trained = canonical(self.parameters[parameter])
            for initializer in initializers:
                if self._is_evidence(parameter, trained, initializer):
                    layout = exact_layout(trained, canonical(self.constants[initializer]))
                    if layout is not None:
                        layouts[parameter, initializer] = layout
        owned = [name for name in parameters if any(pair[0] == name for pair in layouts)]
        equal = [name for name in initializers if any(pair[1] == name for pair in layouts)]
        pairs = self._owners_of_equal(owned, equal)
        self.owners.update(pairs)
        self.taken.update(equal)
        for parameter in owned:
            mine = [name for name in equal if pairs.get(name) == parameter and (parameter, name) in layouts]
            mine = mine or [name for name in equal if (parameter, name) in layouts]
            self.checks[parameter] = self._exact_check(parameter, mine, layouts[parameter, mine[0]], owned)

    def _owners_of_equal(self, parameters: Sequence[str], initializers: Sequence[str]) -> dict[str, str]:
        if len(parameters) == 1:
            return dict.fromkeys(initializers, parameters[0])
        pairs = pair_by_names(parameters, initializers, self.hints)
        if len(initializers) >= len(parameters):
            return pairs
        # One array that serves several layers belongs to none of them.
        return {name: parameter for name, parameter in pairs.items() if self.readers[name] < 2}

    def _is_evidence(self, parameter: str, trained: Array, initializer: str) -> bool:
        """Whether equal values say that a constant is this weight: a lone number, an index or a size says so only by its name."""
        if trained.size > 1 and (trained.dtype.kind == "f" or not is_constant(trained)):
            return True
        return words(parameter) == words(initializer)

    def _exact_check(
        self, parameter: str, initializers: Sequence[str], layout: Layout, equal: Sequence[str]
    ) -> WeightCheck:
        trained, constant = self.parameters[parameter], self.constants[initializers[0]]
        state: WeightState
        if not layout.in_order(trained.shape):
            state, text = "transposed", f"transposed to {list(constant.shape)}"
        elif trained.shape != constant.shape:
            state, text = "reshaped", f"reshaped to {list(constant.shape)}"
        else:
            state, text = "identical", "identical"
        if constant.dtype != trained.dtype:
            text += f", as {constant.dtype.name}"
        alike = [name for name in equal if name != parameter]
        if alike and not is_constant(canonical(trained)):
            text += f"; {', '.join(alike[:3])}{' ...' if alike[3:] else ''} has the same values (tied, or a copy)"
        return self._check(parameter, initializers, state, text, exact=True)

    def _check(
        self, parameter: str, initializers: Sequence[str], state: WeightState, text: str, *, exact: bool = False
    ) -> WeightCheck:
        return WeightCheck(
            parameter=parameter,
            layer=self.layer_of.get(parameter, ""),
            shape=self.parameters[parameter].shape,
            initializers=tuple(initializers),
            state=state,
            words=text,
            exact=exact,
        )

    def report_absent(self) -> None:
        for parameter in self.open_parameters():
            self.checks[parameter] = self._check(parameter, (), "missing", "not in the graph")
