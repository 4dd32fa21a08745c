"""What became of the weights of a trained model in an exported graph."""

from __future__ import annotations

from typing import Literal

import msgspec

WeightState = Literal[
    "identical",
    "transposed",
    "reshaped",
    "reordered",
    "merged",
    "split",
    "rounded",
    "quantized",
    "folded",
    "different",
    "unused",
    "indistinct",
    "missing",
]
DifferenceKind = Literal[
    "",
    "one element",
    "rounded and back",
    "truncated to 8 bits",
    "transposed wrongly",
    "reshaped wrongly",
    "scaled",
    "permuted",
    "sign flipped",
    "sign of zero",
    "uncorrelated",
    "not finite",
]


class WeightCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One weight of a trained model, and what became of it in a graph."""

    parameter: str
    """Its name in the framework."""
    layer: str = ""
    """The layer that owns it, "" where no layer of the run does."""
    shape: tuple[int, ...]
    """As it was trained."""
    initializers: tuple[str, ...] = ()
    """The constants of the graph that hold it, or a part of it; those of equal values where they cannot be told apart."""
    state: WeightState
    """`reordered`: gates of a recurrent layer in the order of ONNX. `merged`: a part of a larger constant. `split`: in several constants.
    `rounded`: to the narrower format of the constant. `folded`: with a BatchNorm or a factor. `unused`: left out, and nothing is lost by it. `indistinct`: of one or two values, and not
    found as it is.
    """
    kind: DifferenceKind = ""
    """Of `different`: what it looks like, "" where nothing fits."""
    words: str
    """A sentence for people."""
    exact: bool = False
    """Whether no bit of the weight was lost."""
    differing: int = 0
    """How many elements are not bit for bit what they should be."""
    largest_difference: float = 0.0
    """Of an element from what it should be: the trained value, or the one folded as `words` says; infinite or NaN where one of them is."""
    place: tuple[int, ...] = ()
    """The element of the trained weight where that is; () where none differs."""


class WeightsComparison(msgspec.Struct, frozen=True, kw_only=True):
    """All weights of a trained model beside the constants of a graph."""

    checks: tuple[WeightCheck, ...] = ()
    """In the order of the weights."""
    owners: dict[str, str] = {}
    """Of an initializer: the weight that it is, also where it is rounded, folded or different; left out where several would do."""
    rounding_errors: dict[str, float] = {}
    """Of folded initializers: how far roundings on the way allow a value to be off, absolute."""
    foreign: tuple[str, ...] = ()
    """Initializers that are no trained weight, in the order of the graph."""
