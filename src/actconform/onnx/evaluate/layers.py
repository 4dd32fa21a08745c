"""The correctly rounded evaluator's operators of whole layers: matrix products, normalization, dropout, losses.

As in elementwise: the real function of the inputs, in float64. Products are summed in float64, not exactly: far below one
rounding of float32, whatever their order. An operator with several outputs returns them in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.errors import Unsupported
from actconform.onnx.evaluate.elementwise import operation
from actconform.onnx.evaluate.windows import per_channel
from actconform.oracle.float64.rows import log_probabilities

if TYPE_CHECKING:
    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


@operation("MatMul")
def _matmul(_: OperatorNode, a: Array, b: Array) -> Array:
    product: Array = np.matmul(a, b)
    return product


@operation("Gemm")
def _gemm(node: OperatorNode, a: Array, b: Array, c: Array | None = None) -> Array:
    attributes = node.attributes
    product: Array = attributes["alpha"] * ((a.T if attributes["transA"] else a) @ (b.T if attributes["transB"] else b))
    return product if c is None else product + attributes["beta"] * c


@operation("Einsum")
def _einsum(node: OperatorNode, *inputs: Array) -> Array:
    result: Array = np.einsum(node.attributes["equation"], *inputs, optimize=True)
    return result


def _moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Return mean and biased variance."""
    mean = x.mean(axis=axes, keepdims=True)
    return mean, np.square(x - mean).mean(axis=axes, keepdims=True)


TRAINING_IS_STATED = 14  # before this opset BatchNormalization trains where more than one output is asked for


@operation("BatchNormalization")
def _batch_normalization(
    node: OperatorNode, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> tuple[Array, ...]:
    """In training with the batch's moments, of biased variance, and the running ones are `momentum` parts of the old.

    Before opset 9 statistics that are not `spatial` are those of each element of a sample. Before opset 14 a training node
    also gives the batch's moments themselves.
    """
    spatial = node.attributes.get("spatial", 1)

    def spread(parameter: Array) -> Array:
        return per_channel(parameter, x) if spatial else parameter

    training = (
        node.attributes["training_mode"]
        if node.opset >= TRAINING_IS_STATED
        else any(map(node.asks_for, range(1, len(node.outputs))))
    )
    epsilon, momentum = node.attributes["epsilon"], node.attributes["momentum"]
    if not training:
        centred = x - spread(mean)
        return (centred / np.sqrt(spread(variance) + epsilon) * spread(scale) + spread(bias),)
    now = _moments(x, (0, *range(2, x.ndim)) if spatial else (0,))
    y = (x - now[0]) / np.sqrt(now[1] + epsilon) * spread(scale) + spread(bias)
    batch = [moment.reshape(old.shape) for moment, old in zip(now, (mean, variance), strict=True)]
    running = [momentum * old + (1 - momentum) * new for old, new in zip((mean, variance), batch, strict=True)]
    return (y, *running) if node.opset >= TRAINING_IS_STATED else (y, *running, *batch)


@operation("LayerNormalization")
def _layer_normalization(node: OperatorNode, x: Array, scale: Array, bias: Array | None = None) -> tuple[Array, ...]:
    mean, variance = _moments(x, tuple(range(node.attributes["axis"] % x.ndim, x.ndim)))
    inverse = 1 / np.sqrt(variance + node.attributes["epsilon"])
    y = (x - mean) * inverse * scale
    return (y if bias is None else y + bias), mean, inverse


@operation("RMSNormalization")
def _rms_normalization(node: OperatorNode, x: Array, scale: Array) -> Array:
    axes = tuple(range(node.attributes["axis"] % x.ndim, x.ndim))
    y: Array = x / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + node.attributes["epsilon"]) * scale
    return y


@operation("InstanceNormalization")
def _instance_normalization(node: OperatorNode, x: Array, scale: Array, bias: Array) -> Array:
    mean, variance = _moments(x, tuple(range(2, x.ndim)))
    y: Array = (x - mean) / np.sqrt(variance + node.attributes["epsilon"]) * per_channel(scale, x) + per_channel(
        bias, x
    )
    return y


@operation("GroupNormalization")
def _group_normalization(node: OperatorNode, x: Array, scale: Array, bias: Array) -> Array:
    """Scale and bias have one number for each group before opset 21, and since one for each channel."""
    groups, channels = int(node.attributes["num_groups"]), x.shape[1]
    rows = x.reshape(len(x), groups, -1)
    mean, variance = _moments(rows, (2,))
    y = ((rows - mean) / np.sqrt(variance + node.attributes["epsilon"])).reshape(x.shape)
    scale, bias = (np.repeat(parameter, channels // len(parameter)) for parameter in (scale, bias))
    result: Array = y * per_channel(scale, x) + per_channel(bias, x)
    return result


@operation("LpNormalization")
def _lp_normalization(node: OperatorNode, x: Array) -> Array:
    """Return x / |x|_p, and 0 where the norm is 0."""
    axis, p = node.attributes["axis"], node.attributes["p"]
    norm = (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
    return np.where(norm == 0, 0.0, x / np.where(norm == 0, 1.0, norm))


@operation("MeanVarianceNormalization")
def _mean_variance_normalization(node: OperatorNode, x: Array) -> Array:
    mean, variance = _moments(x, tuple(node.attributes["axes"]))
    y: Array = (x - mean) / (np.sqrt(variance) + 1e-9)
    return y


@operation("LRN")
def _local_response_normalization(node: OperatorNode, x: Array) -> Array:
    """Divide by a power of the sum of squares over the `size` channels around each."""
    alpha, beta, bias, size = (node.attributes[name] for name in ("alpha", "beta", "bias", "size"))
    furthest = max(x.shape[1] - 1, 0)
    before, after = min((size - 1) // 2, furthest), min(size // 2, furthest)
    squares = np.pad(np.square(x), [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    near = sum(squares[:, i : i + x.shape[1]] for i in range(before + 1 + after))
    y: Array = x * (bias + alpha / size * near) ** -beta
    return y


@operation("Dropout")
def _dropout(
    _: OperatorNode, x: Array, ratio: Array | None = None, training: Array | None = None
) -> tuple[Array, Array]:
    """Inference: x and a mask that keeps all. In training it draws numbers of its own, which nobody can foretell."""
    if training is not None and bool(training) and (ratio is None or float(ratio) > 0):
        raise Unsupported("the correctly rounded evaluator does not know Dropout in training: it draws random numbers")
    return x, np.ones(x.shape, np.bool_)


@operation("SoftmaxCrossEntropyLoss")
def _softmax_cross_entropy(
    node: OperatorNode, scores: Array, labels: Array, weights: Array | None = None
) -> tuple[Array, Array]:
    log_probability = log_probabilities(scores, 1)
    return _likelihood_loss(node, log_probability, labels, weights), log_probability


@operation("NegativeLogLikelihoodLoss")
def _likelihood_loss(node: OperatorNode, log_probability: Array, labels: Array, weights: Array | None = None) -> Array:
    ignore = node.attributes.get("ignore_index")
    ignored = np.zeros(labels.shape, np.bool_) if ignore is None else labels == ignore
    chosen = np.where(ignored, 0, labels)
    weight = np.where(ignored, 0.0, 1.0 if weights is None else weights[chosen])
    label_log_probability = np.take_along_axis(log_probability, np.expand_dims(chosen, 1), 1)[:, 0]
    loss: Array = np.where(ignored, 0.0, -weight * label_log_probability)
    total = np.sum(loss)
    reduced: dict[str, Array] = {"none": loss, "sum": total, "mean": total / np.sum(weight)}
    return reduced[node.attributes["reduction"]]
