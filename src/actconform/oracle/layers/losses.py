"""The losses: scalars of a prediction and a target of one shape, and their derivatives by the prediction.

NaN in a prediction gives a NaN loss, and NaN in the gradient at least where it stands. Targets have no gradient. Complex
predictions pass through; which side of a kink they are on is decided by their real parts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from actconform.catalog.kernels.rows import ROWS
from actconform.catalog.models.layer_kinds import CLIP
from actconform.oracle import truth
from actconform.oracle.float64.rows import log_probabilities
from actconform.oracle.layers.registry import LayerGradients, layer_formula

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.oracle.layers.registry import F64, Reading

LOG_SOFTMAX = next(kernel for kernel in ROWS if kernel.name == "log-softmax")


def _mean_squared_error_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    p, t = reading.inputs
    return LayerGradients([2.0 * (p - t) * (g / p.size), None])


@layer_formula("mean-squared-error", vjp=_mean_squared_error_vjp)
def _mean_squared_error(reading: Reading) -> F64:
    error = reading.inputs[0] - reading.inputs[1]
    return np.asarray((error * error).mean())


def _mean_absolute_error_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    p, t = reading.inputs
    return LayerGradients([np.sign(p - t) * (g / p.size), None])


@layer_formula("mean-absolute-error", vjp=_mean_absolute_error_vjp)
def _mean_absolute_error(reading: Reading) -> F64:
    """The derivative is 0 where prediction and target are equal."""
    error = reading.inputs[0] - reading.inputs[1]
    return np.asarray((error * np.sign(error.real)).mean())


def _outside(p: F64) -> NDArray[np.bool_]:
    """Tell where the clip of probabilities is flat; at its ends its derivative is 1. NaN is not outside."""
    outside: NDArray[np.bool_] = (p.real < CLIP[0]) | (p.real > CLIP[1])
    return outside


def _clipped(p: F64) -> F64:
    return np.where(p.real < CLIP[0], CLIP[0], np.where(p.real > CLIP[1], CLIP[1], p))


def _binary_cross_entropy_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    p, t = reading.inputs
    q = _clipped(p)
    return LayerGradients([np.where(_outside(p), 0.0, (q - t) / (q * (1.0 - q))) * (g / p.size), None])


@layer_formula("binary-cross-entropy", vjp=_binary_cross_entropy_vjp)
def _binary_cross_entropy(reading: Reading) -> F64:
    """The clip keeps both logarithms finite, so a target of 0 or 1 takes no 0 times infinity."""
    q, t = _clipped(reading.inputs[0]), reading.inputs[1]
    return np.asarray(-(t * np.log(q) + (1.0 - t) * np.log1p(-q)).mean())


def _binary_from_logits_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """sigmoid(z) - t, written so that a confident, right prediction keeps its digits."""
    z, t = reading.inputs
    return LayerGradients([((1.0 - t) * expit(z) - t * expit(-z)) * (g / z.size), None])


@layer_formula("binary-cross-entropy-from-logits", vjp=_binary_from_logits_vjp)
def _binary_from_logits(reading: Reading) -> F64:
    """max(z, 0) - z t + log(1 + exp(-|z|)): nothing overflows."""
    z, t = reading.inputs
    positive = z.real >= 0
    size = np.where(positive, z, -z)
    return np.asarray((np.where(positive, z, 0.0) - z * t + np.log1p(np.exp(-size))).mean())


def _rows(p: F64) -> int:
    return math.prod(p.shape[:-1])


def _categorical_cross_entropy_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    p, t = reading.inputs
    total = p.sum(axis=-1, keepdims=True)
    share = p / total
    d_share = np.where(_outside(share), 0.0, -t / _clipped(share))
    return LayerGradients([(d_share - (d_share * share).sum(axis=-1, keepdims=True)) / total * (g / _rows(p)), None])


@layer_formula("categorical-cross-entropy", vjp=_categorical_cross_entropy_vjp)
def _categorical_cross_entropy(reading: Reading) -> F64:
    p, t = reading.inputs
    share = _clipped(p / p.sum(axis=-1, keepdims=True))
    return np.asarray(-(t * np.log(share)).sum() / _rows(p))


def _categorical_from_logits_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    z, t = reading.inputs
    return LayerGradients([truth(LOG_SOFTMAX, {"x": z}, {"y": -t * (g / _rows(z))})["d_x"], None])


@layer_formula("categorical-cross-entropy-from-logits", vjp=_categorical_from_logits_vjp)
def _categorical_from_logits(reading: Reading) -> F64:
    z, t = reading.inputs
    return np.asarray(-(t * log_probabilities(z, -1)).sum() / _rows(z))
