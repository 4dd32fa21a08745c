"""What sample inputs show of the units behind each activation: how many are 0 for every sample, how many at an end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.checking.flatten import flatten
from actconform.checking.truth import evaluated
from actconform.errors import Unsupported, UsageError
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.checking.flatten import FlatNode
    from actconform.linting.activations import GraphActivation
    from actconform.linting.linted_model import LintedModel

    Arrays = Mapping[str, NDArray[Any]]

FLAT = 0.01  # of the largest slope: below it a unit counts as saturated


class UnitStatistics(NamedTuple):
    """The units of one activation over all samples; a unit is one channel of a convolution, or one number of a row."""

    activation: GraphActivation
    units: int
    rows: int
    """Numbers that each unit gave."""
    dead: int
    """Units that gave 0 each time."""
    saturated: int
    """Units whose slope was below a hundredth of the largest each time."""


def unit_statistics(model: LintedModel, samples: Sequence[Arrays]) -> list[UnitStatistics]:
    """Return the statistics of the relus, sigmoids and tanhs of the main graph, evaluated in float64 for all samples.

    Raises UsageError where the graph cannot be evaluated at these inputs.
    """
    watched = {
        activation.result: activation
        for activation in model.activations
        if activation.graph is model.main and activation.kind in {"relu", "sigmoid", "tanh"}
    }
    if not watched:
        return []
    tallies: dict[str, list[tuple[NDArray[np.bool_], NDArray[np.bool_], int]]] = {}

    def observe(node: FlatNode, results: Sequence[NDArray[Any]]) -> None:
        for name, array in zip(node.proto.output, results, strict=False):
            if name in watched and array.ndim > 0 and array.size:
                tallies.setdefault(name, []).append(_tally(watched[name], array))

    for sample in samples:
        try:
            evaluated(flatten(model.source.model, sample), sample, observe=observe)
        except (Unsupported, ValueError) as error:
            raise UsageError(f"the model cannot be evaluated at these inputs: {one_line(str(error))}") from error
    return [_joined(watched[name], tallies[name]) for name in watched if name in tallies]


def _tally(activation: GraphActivation, array: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], int]:
    """Return for each unit whether it was 0, and whether it was flat, in all of a sample; and how often each unit answered."""
    axis = _unit_axis(activation, array.ndim)
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    if activation.kind == "relu":
        return (rows == 0).all(axis=0), np.zeros(rows.shape[1], bool), len(rows)
    slope = rows * (1 - rows) * 4 if activation.kind == "sigmoid" else 1 - rows * rows
    return np.zeros(rows.shape[1], bool), (slope < FLAT).all(axis=0), len(rows)


def _unit_axis(activation: GraphActivation, rank: int) -> int:
    """Return the axis of the channels: the second where a convolution or its normalization came before, else the last."""
    graph, name = activation.graph, activation.argument
    while (giver := graph.giver(name)) is not None:
        if giver.op_type in {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool"}:
            return 1 if rank > 2 else rank - 1
        if giver.op_type not in {"BatchNormalization", "InstanceNormalization", "Add", "Mul", "Identity", "Cast"}:
            break
        name = giver.input[1 if graph.is_constant(giver.input[0]) else 0]
    return rank - 1


def _joined(
    activation: GraphActivation, tallies: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_], int]]
) -> UnitStatistics:
    """Return the tallies of all samples as one; units of samples of another size are counted in the first size alone."""
    units = len(tallies[0][0])
    alike = [tally for tally in tallies if len(tally[0]) == units]
    dead = np.all([tally[0] for tally in alike], axis=0)
    saturated = np.all([tally[1] for tally in alike], axis=0)
    return UnitStatistics(activation, units, sum(tally[2] for tally in alike), int(dead.sum()), int(saturated.sum()))
