"""The trained weights and the constants of a graph while they are compared: what is settled, and what is open."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from msgspec.structs import replace

from actconform.checking.trained.weight_check import DifferenceKind, WeightCheck, WeightsComparison, WeightState
from actconform.checking.trained.weight_names import initializer_hints, words
from actconform.checking.trained.weight_values import Array, WeightFingerprint, canonical, weight_fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.checking.flatten import FlatGraph, FlatNode
    from actconform.types.trained import LayerRecord


FEW_VALUES = 2
MOST_LOOKED_AT = 4096  # elements: an array that begins with so many of two values is taken for one of them


class Deviation(NamedTuple):
    """How far a constant is from what it should be."""

    differing: int = 0
    """Elements that are not bit for bit the same."""
    largest: float = 0.0
    place: tuple[int, ...] = ()
    """Where the largest is in the trained weight; () where none differs."""


class Ledger:
    """Each weight is settled once, by the first step that explains it; later steps look at what is open."""

    def __init__(self, parameters: Mapping[str, Array], graph: FlatGraph, layers: Sequence[LayerRecord]) -> None:
        self.parameters = parameters
        self.graph = graph
        self.layers = layers
        self.layer_of: dict[str, str] = {}
        self.kind_of: dict[str, str] = {}
        """Of each weight the kind of its layer."""
        for layer in layers:
            for name in layer.parameters:
                self.layer_of.setdefault(name, layer.name.split("#")[0])
                self.kind_of.setdefault(name, layer.kind)
        self.constants = {
            name: array for name, array in graph.constants.items() if array.size and array.dtype.kind not in "SUOc"
        }
        self.hints = initializer_hints(graph)
        self.readers: dict[str, list[FlatNode]] = defaultdict(list)
        """The nodes that read each constant."""
        for node in graph.nodes:
            for name in node.inputs:
                if name in self.constants:
                    self.readers[name].append(node)
        self.checks: dict[str, WeightCheck] = {}
        self.owners: dict[str, str] = {}
        self.rounding_errors: dict[str, float] = {}
        """Of folded constants how far roundings allow a value to be off, absolute."""
        self.fingerprints: dict[str, WeightFingerprint] = {}
        """Of constants, once they were needed."""
        self.taken: set[str] = set()
        """Constants that are explained."""

    def trained(self, parameter: str) -> Array:
        return canonical(self.parameters[parameter])

    def constant(self, initializer: str) -> Array:
        return canonical(self.constants[initializer])

    def constant_at(self, initializer: str, places: Array) -> Array:
        """Return some elements of a flattened constant as `constant` has them."""
        array = self.constants[initializer]
        if array.dtype == np.float64:  # whether float32 holds it depends on all elements
            return self.constant(initializer).reshape(-1)[places]
        return canonical(array.reshape(-1)[places])

    def fingerprint(self, initializer: str) -> WeightFingerprint:
        if initializer not in self.fingerprints:
            self.fingerprints[initializer] = weight_fingerprint(self.constant(initializer))
        return self.fingerprints[initializer]

    def open_parameters(self) -> list[str]:
        return [name for name in self.parameters if name not in self.checks]

    def open_constants(self) -> list[str]:
        return [name for name in self.constants if name not in self.taken]

    def siblings(self, parameter: str) -> list[str]:
        """Return the weights of the same layer, which by their names share all but the last part."""
        layer = owner_path(parameter)
        return [name for name in self.parameters if name != parameter and owner_path(name) == layer]

    def settle(
        self,
        parameter: str,
        initializers: Sequence[str],
        state: WeightState,
        words: str,
        *,
        kind: DifferenceKind = "",
        deviation: Deviation | None = None,
        exact: bool = True,
    ) -> None:
        """Enter what became of a weight; its constants are explained by it. Only some states can be exact."""
        deviation = deviation or Deviation()
        self.taken.update(initializers)
        self.checks[parameter] = WeightCheck(
            parameter=parameter,
            layer=self.layer_of.get(parameter, ""),
            shape=self.parameters[parameter].shape,
            initializers=tuple(initializers),
            state=state,
            kind=kind,
            words=words,
            exact=exact and state in EXACT and not deviation.differing,
            differing=deviation.differing,
            largest_difference=deviation.largest,
            place=deviation.place,
        )

    def enter_owner(self, parameter: str, initializers: Sequence[str]) -> None:
        """Enter that constants are a weight, or a part of it; one of two weights of two layers belongs to none."""
        for name in initializers:
            owner = self.owners.setdefault(name, parameter)
            if owner_path(owner) != owner_path(parameter):
                self.owners[name] = ""

    def _check(self, name: str) -> WeightCheck:
        """Return what became of a weight; one that was not found and has one or two values cannot be told from many constants."""
        check = self.checks[name]
        array = self.parameters[name]
        if check.state not in ("different", "missing") or not array.size:
            return check
        if np.unique(array.reshape(-1)[:MOST_LOOKED_AT]).size > FEW_VALUES or self._has_own_name(check):
            return check
        text = "has one or two values, which many constants hold: which of them it is cannot be told"
        return replace(
            check, state="indistinct", kind="", words=text, initializers=(), differing=0, largest_difference=0.0
        )

    def _has_own_name(self, check: WeightCheck) -> bool:
        return any(words(name) == words(check.parameter) for name in check.initializers)

    def result(self) -> WeightsComparison:
        return WeightsComparison(
            checks=tuple(self._check(name) for name in self.parameters),
            owners={name: self.owners[name] for name in self.graph.constants if self.owners.get(name)},
            rounding_errors=self.rounding_errors,
            foreign=tuple(name for name in self.graph.constants if name not in self.taken),
        )


EXACT = ("identical", "transposed", "reshaped", "reordered", "merged", "split")


def owner_path(parameter: str) -> str:
    """Return the path of the layer that a weight belongs to, as its name has it."""
    for mark in "/.":
        if mark in parameter:
            return parameter.rpartition(mark)[0]
    return ""
