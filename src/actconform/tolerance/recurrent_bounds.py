"""What rounding may do to recurrent layers, step by step: the errors of a state are what the next step reads.

The sum before a gate may be taken in any order: what x gives, what the state gives, and the biases are terms of one sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from actconform.tolerance.limits import SCALED_LIMITS
from actconform.tolerance.running_error import Bounded, projected, widest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actconform.tolerance.running_error import F64


def lstm_bound(x: Bounded, parameters: Mapping[str, Bounded]) -> Bounded:
    """Return the states of all steps, of `parameters` kernel, recurrent and bias."""
    h = c = _zeros(x, parameters)
    states = []
    for time in range(x.value.shape[1]):
        z = projected(_joined([x[:, time], h], -1), _weights(parameters), parameters["bias"])
        i, f, g, o = _gates(z, 4)
        c = _sigmoid(f) * c + _sigmoid(i) * _tanh(g)
        h = _sigmoid(o) * _tanh(c)
        states.append(h[:, None])
    return _joined(states, 1)


def gru_bound(x: Bounded, parameters: Mapping[str, Bounded]) -> Bounded:
    """Return the states of all steps; a new state may be written as z h + (1 - z) n, or from the difference of h and n."""
    h = _zeros(x, parameters)
    bias, weights = parameters["bias"], _weights(parameters)
    units = h.value.shape[-1]
    states = []
    for time in range(x.value.shape[1]):
        both = projected(
            _joined([x[:, time], h], -1), weights[:, : 2 * units], bias[0, : 2 * units] + bias[1, : 2 * units]
        )
        z, r = map(_sigmoid, _gates(both, 2))
        inner = projected(h, parameters["recurrent"][:, 2 * units :], bias[1, 2 * units :])
        outer = projected(x[:, time], parameters["kernel"][:, 2 * units :], bias[0, 2 * units :])
        n = _tanh(outer + r * inner)
        h = widest(z * h + (1.0 - z) * n, n + z * (h - n))
        states.append(h[:, None])
    return _joined(states, 1)


def _zeros(x: Bounded, parameters: Mapping[str, Bounded]) -> Bounded:
    zeros = np.zeros((len(x.value), len(parameters["recurrent"].value)))
    return Bounded(zeros, zeros, x.fmt)


def _weights(parameters: Mapping[str, Bounded]) -> Bounded:
    return _joined([parameters["kernel"], parameters["recurrent"]], 0)


def _joined(parts: list[Bounded], axis: int) -> Bounded:
    value, error = (
        np.concatenate(arrays, axis) for arrays in zip(*((part.value, part.error) for part in parts), strict=True)
    )
    return Bounded(value, error, parts[0].fmt)


def _gates(z: Bounded, count: int) -> list[Bounded]:
    width = z.value.shape[-1] // count
    return [z[:, gate * width : (gate + 1) * width] for gate in range(count)]


def _sigmoid(z: Bounded) -> Bounded:
    return _monotone(expit, z)


def _tanh(z: Bounded) -> Bounded:
    return _monotone(np.tanh, z)


def _monotone(function: Callable[[F64], F64], z: Bounded) -> Bounded:
    """Return an activation of at most 1: off by its kernel's limit, and by what it moves over the error of z, at both ends."""
    value, above, below = function(np.stack([z.value, z.value + z.error, z.value - z.error]))
    rounding = SCALED_LIMITS["value", z.fmt.bits] * z.fmt.unit_roundoff
    return Bounded(value, rounding + np.maximum(above - value, value - below), z.fmt)
