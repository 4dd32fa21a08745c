"""Activations of recurrent layers in running-error arithmetic: smooth ones err by a kernel's limit, others by few roundings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.evaluate.error_bounds.rounding_errors import lost
from actconform.tolerance.limits import SCALED_LIMITS
from actconform.tolerance.running_error import Bounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.onnx.evaluate.recurrent import Activation
    from actconform.oracle.rounding import F64

    # of x, y and the parameters the size that an error of y is counted in
    Size = Callable[..., F64]


def _one_or_more(_: F64, y: F64) -> F64:
    return np.maximum(np.abs(y), 1.0)


def _inside(x: F64, y: F64, alpha: float, beta: float) -> F64:
    """Saturated numbers are exact."""
    unclipped = alpha * x + beta
    size = np.abs(alpha * x) + abs(beta)
    return np.where((unclipped > -1e-2 * size) & (unclipped < 1.0 + 1e-2 * size), np.maximum(size, y), 0.0)


_SMOOTH: dict[str, Size] = {
    **dict.fromkeys(("sigmoid", "softplus", "softsign", "tanh"), _one_or_more),
    "elu": lambda x, y, alpha: np.where(x < 0.0, np.maximum(np.abs(y), abs(alpha)), 0.0),
    "scaledtanh": lambda x, _, alpha, beta: abs(alpha) * (1.25 + np.minimum(np.abs(beta * x), 1.0)),
}
_ROUNDED: dict[str, tuple[float, Size]] = {
    "affine": (2.0, lambda x, _, alpha, beta: np.abs(alpha * x) + abs(beta)),
    "hardsigmoid": (2.0, _inside),
    "leakyrelu": (1.0, lambda x, y, _: np.where(x < 0.0, np.abs(y), 0.0)),
    "relu": (0.0, lambda _, y: np.zeros_like(y)),
    "thresholdedrelu": (0.0, lambda _, y, __: np.zeros_like(y)),
}


def activated(activation: Activation, x: Bounded) -> Bounded:
    """Return an activation of x: its own error, and how far it moves over that of x, told by its ends, as all are monotone."""
    fmt = x.fmt
    value, above, below = activation(np.stack([x.value, x.value + x.error, x.value - x.error]))
    smooth = _SMOOTH.get(activation.name)
    if smooth is None:
        roundings, size_of = _ROUNDED[activation.name]
    else:
        roundings, size_of = SCALED_LIMITS["value", min(fmt.bits, 32)], smooth
    size = size_of(x.value, value, *activation.parameters)
    rounding = roundings * fmt.unit_roundoff * size + np.where(size > 0.0, lost(fmt), 0.0)
    return Bounded(value, rounding + np.maximum(np.abs(above - value), np.abs(below - value)), fmt)
