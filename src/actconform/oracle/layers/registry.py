"""The registry of layer formulas: each kind's value and hand-derived vector-Jacobian product, in float64 NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actconform.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actconform.types.model import Layer

F64: TypeAlias = NDArray[np.float64]


class Reading(NamedTuple):
    """What one layer works on: its inputs in order, batch first, its parameters by short name ("kernel"), all float64.

    `errors` says, where it is given, how far each input as seen may be from what the layer in truth worked on, as where a
    runtime computed it anew inside a fused node; bounds take it into account, formulas do not.
    Complex numbers pass through every formula that is analytic, so that tests can take complex steps.
    """

    layer: Layer
    inputs: Sequence[F64]
    parameters: Mapping[str, F64]
    training: bool
    errors: Sequence[F64] = ()


class LayerGradients(NamedTuple):
    """The cotangents of a layer's inputs, None where there is none (masks, targets, noise), and of its trainable parameters."""

    inputs: Sequence[F64 | None]
    parameters: Mapping[str, F64] = {}


class LayerFormula(NamedTuple):
    """`forward(reading)` gives the layer's value; `vjp(reading, value, cotangent)` its vector-Jacobian products."""

    forward: Callable[[Reading], F64]
    vjp: Callable[[Reading, F64, F64], LayerGradients]


LAYERS: dict[str, LayerFormula] = {}


def layer_formula(
    *kinds: str, vjp: Callable[[Reading, F64, F64], LayerGradients]
) -> Callable[[Callable[[Reading], F64]], Callable[[Reading], F64]]:
    """Register a function as the value of `kinds` of layers, with its VJP; raise ValueError where a kind is taken."""

    def register(forward: Callable[[Reading], F64]) -> Callable[[Reading], F64]:
        for kind in kinds:
            if kind in LAYERS:
                raise ValueError(f"two formulas for layers of kind {kind!r}")
            LAYERS[kind] = LayerFormula(forward, vjp)
        return forward

    return register


def formula_of(layer: Layer) -> LayerFormula:
    """Return the formulas of a layer; raise Unsupported where its kind has none."""
    if layer.kind not in LAYERS:
        raise Unsupported(
            f"layer {layer.name}: kind {layer.kind} has no float64 formula: register one with "
            f"actconform.oracle.layers.registry.layer_formula({layer.kind!r})"
        )
    return LAYERS[layer.kind]
