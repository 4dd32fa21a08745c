"""float64 formulas of the kernels made of pieces: lines, clamps, parabolas.

A product of two float32 numbers is exact in float64, so most of these round once or not at all. Where the derivative jumps
it takes the value of the right side, or of the side on which the definition puts the point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform.oracle.rounding import F64


def _or_nan(result: F64, x: F64) -> F64:
    """Return `result` with NaN where x is NaN."""
    return np.where(np.isnan(x), x, result)


def linear(x: F64, _: Mapping[str, float]) -> F64:
    return x.copy()


def linear_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return _or_nan(np.ones_like(x), x)


def relu(x: F64, _: Mapping[str, float]) -> F64:
    # maximum(-0, +0) may be either zero; adding +0 makes it +0.
    return np.maximum(x, 0.0) + 0.0


def relu_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return np.heaviside(x, 1.0)


def leaky(x: F64, parameters: Mapping[str, float]) -> F64:
    return np.where(x > 0, x, parameters["alpha"] * x)


def leaky_derivative(x: F64, parameters: Mapping[str, float]) -> F64:
    return _or_nan(np.where(x >= 0, 1.0, parameters["alpha"]), x)


def hard_sigmoid(x: F64, parameters: Mapping[str, float]) -> F64:
    return np.clip(parameters["alpha"] * x + parameters["beta"], 0.0, 1.0) + 0.0


def hard_sigmoid_derivative(x: F64, parameters: Mapping[str, float]) -> F64:
    # alpha x is exact, so the two comparisons decide about x itself: the kinks are no float32 numbers.
    alpha, beta = parameters["alpha"], parameters["beta"]
    inside = (alpha * x >= -beta) & (alpha * x < 1.0 - beta)
    return _or_nan(np.where(inside, alpha, 0.0), x)


def hard_sigmoid_relu6(x: F64, _: Mapping[str, float]) -> F64:
    return np.clip((x + 3.0) / 6.0, 0.0, 1.0) + 0.0


def hard_sigmoid_relu6_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return _or_nan(np.where((x >= -3.0) & (x < 3.0), 1.0 / 6.0, 0.0), x)


def hard_swish(x: F64, _: Mapping[str, float]) -> F64:
    inside = np.where(x <= -3.0, -0.0, x * (x + 3.0) / 6.0)
    return np.where(x >= 3.0, x, inside)


def hard_swish_derivative(x: F64, _: Mapping[str, float]) -> F64:
    inside = np.where(x < -3.0, 0.0, (2.0 * x + 3.0) / 6.0)
    return np.where(x >= 3.0, 1.0, inside)


def hard_tanh(x: F64, _: Mapping[str, float]) -> F64:
    return np.clip(x, -1.0, 1.0)


def hard_tanh_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return _or_nan(np.where((x >= -1.0) & (x < 1.0), 1.0, 0.0), x)


def relu6(x: F64, _: Mapping[str, float]) -> F64:
    return np.clip(x, 0.0, 6.0) + 0.0


def relu6_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return _or_nan(np.where((x >= 0.0) & (x < 6.0), 1.0, 0.0), x)


def relu_squared(x: F64, _: Mapping[str, float]) -> F64:
    return np.square(np.maximum(x, 0.0))


def relu_squared_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return 2.0 * np.maximum(x, 0.0) + 0.0


def thresholded_relu(x: F64, parameters: Mapping[str, float]) -> F64:
    return _or_nan(np.where(x > parameters["alpha"], x, 0.0), x)


def thresholded_relu_derivative(x: F64, parameters: Mapping[str, float]) -> F64:
    return np.heaviside(x - parameters["alpha"], 0.0)


def threshold(x: F64, parameters: Mapping[str, float]) -> F64:
    return _or_nan(np.where(x > parameters["threshold"], x, parameters["default"]), x)


def threshold_derivative(x: F64, parameters: Mapping[str, float]) -> F64:
    return np.heaviside(x - parameters["threshold"], 0.0)


def hard_shrink(x: F64, parameters: Mapping[str, float]) -> F64:
    return _or_nan(np.where(np.abs(x) > parameters["lambda"], x, 0.0), x)


def soft_shrink(x: F64, parameters: Mapping[str, float]) -> F64:
    shrunk = x - np.copysign(parameters["lambda"], x)
    return _or_nan(np.where(np.abs(x) > parameters["lambda"], shrunk, 0.0), x)


def shrink_derivative(x: F64, parameters: Mapping[str, float]) -> F64:
    """Serve hard-shrink and soft-shrink: 1 outside [-lambda, lambda], 0 on it."""
    return np.heaviside(np.abs(x) - parameters["lambda"], 0.0)


def sparse_plus(x: F64, _: Mapping[str, float]) -> F64:
    inside = np.square(np.maximum(x, -1.0) + 1.0) / 4.0
    return np.where(x >= 1.0, x, inside)


def sparse_sigmoid(x: F64, _: Mapping[str, float]) -> F64:
    """Serve as sparse-sigmoid and, being continuous, as the derivative of sparse-plus."""
    return np.clip((x + 1.0) / 2.0, 0.0, 1.0) + 0.0


def sparse_sigmoid_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return _or_nan(np.where((x >= -1.0) & (x < 1.0), 0.5, 0.0), x)
