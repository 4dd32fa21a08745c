"""Error bounds of losses: log-probabilities, chosen by label, weighted, and added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.evaluate.error_bounds.functions import log_softmax_errors
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, lost
from actconform.tolerance.running_error import sum_factor

if TYPE_CHECKING:
    from actconform.oracle.rounding import F64


@error_bound("SoftmaxCrossEntropyLoss")
def _softmax_cross_entropy(
    context: BoundContext, scores: Approximation, labels: Approximation, weights: Approximation | None = None
) -> tuple[Approximation, ...]:
    loss, log_probabilities = context.values((scores, labels, weights))
    rows = scores.moved(lambda v: np.moveaxis(v, 1, -1))
    error = log_softmax_errors(rows, np.moveaxis(log_probabilities, 1, -1), context.float_format)
    output = Approximation(log_probabilities, np.moveaxis(error, -1, 1))
    return Approximation(loss, _loss_error(context, output, labels, weights)), output


@error_bound("NegativeLogLikelihoodLoss")
def _likelihood(
    context: BoundContext, x: Approximation, labels: Approximation, weights: Approximation | None = None
) -> Approximation:
    (loss,) = context.values((x, labels, weights))
    return Approximation(loss, _loss_error(context, x, labels, weights))


def _loss_error(context: BoundContext, x: Approximation, labels: Approximation, weights: Approximation | None) -> F64:
    """Return the error of the loss: a product each, their sum, and its quotient by the sum of the weights."""
    fmt, ignored = context.float_format, np.zeros(labels.value.shape, bool)
    if context.node.attributes.get("ignore_index") is not None:
        ignored = labels.value == context.node.attributes["ignore_index"]
    if labels.error is not None and np.any(labels.error):
        return np.asarray(np.inf)
    chosen = np.where(ignored, 0, labels.value)

    def by_label(array: F64) -> F64:
        picked: F64 = np.take_along_axis(array, np.expand_dims(chosen, 1), 1)[:, 0]
        return picked

    weight = np.where(ignored, 0.0, 1.0 if weights is None else weights.value[chosen])
    weight_error = np.where(ignored, 0.0, 0.0 if weights is None else errors(weights)[chosen])
    size = np.where(ignored, 0.0, by_label(x.size))
    terms = np.abs(weight) * size
    error = np.abs(weight) * np.where(ignored, 0.0, by_label(errors(x))) + weight_error * size
    error = error + fmt.unit_roundoff * terms + lost(fmt)
    reduction = context.node.attributes["reduction"]
    if reduction == "none":
        return np.asarray(error)
    factor = sum_factor(terms.size, fmt)
    total_error: F64 = np.sum(error) + factor * np.sum(terms + error) + terms.size * lost(fmt)
    if reduction == "sum":
        return total_error
    total_weight = np.sum(weight)
    off = np.sum(weight_error) + factor * np.sum(np.abs(weight))
    if off >= abs(total_weight):
        return np.asarray(np.inf)
    quotient_error = (total_error + np.sum(terms) / abs(total_weight) * off) / (abs(total_weight) - off)
    return np.asarray(quotient_error + 3.0 * fmt.unit_roundoff * np.sum(terms) / abs(total_weight) + lost(fmt))
