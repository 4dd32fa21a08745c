"""What a model is asked: other data, other batches, large numbers, means far from 0, ties and a NaN, each with a cotangent of its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from actconform.catalog.models.zoo import PUBLISHED
from actconform.oracle.layers.model import values
from actconform.testdata.golden.model_goldens import REGIME
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types.model import LOSS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from actconform.types import Aspect
    from actconform.types.dtypes import FloatFormat
    from actconform.types.model import Model

    F32 = NDArray[np.float32]

LARGE, FAR = 100.0, 1000.0  # what inputs are multiplied by, and where their mean lies
LARGE_LOGITS = 400.0  # what the parameters of logits are multiplied by: their exponentials overflow
SAFE_IN_F16 = 128.0  # of layer values: the square of one is no overflow, sums of squares are
FULL_MANTISSA, LOSS_SCALE = 0.37, 1024.0  # cotangents of a loss
EXTREME = ("large", "far-from-0")
CLIPPED = ("binary-cross-entropy", "categorical-cross-entropy")  # where their logarithms end is each framework's choice
REFUSING = "binary-cross-entropy"  # of probabilities that are NaN: torch raises
BATCHES = (39, 43)  # that leave a remainder of several, whatever number of samples is taken at once
UNSTABLE = "sharpen"  # a power of probabilities is 0 / 0 in float32 where gamma is large, whoever computes it


class ModelQuestion(NamedTuple):
    """One call of a model: the regime that it is reported under, its batch, and how inputs drawn "normal" are changed."""

    regime: str
    batch: int
    cotangent: float = 1.0
    """Of the loss, where gradients are asked for."""
    scale: float = 1.0
    shift: float = 0.0
    logits: float = 1.0
    """What the parameters are multiplied by that give the loss its logits."""
    integers: bool = False
    """Inputs are rounded to integers, so that windows of a pool have equal maxima; rounding cannot break these ties."""
    nan: bool = False
    """One element of the last sample is NaN."""
    loss_judged: bool = True
    """Whether more is asked of the loss than to be a number."""


def questions_of(model: Model, aspect: Aspect, fmt: FloatFormat, *, constants: bool) -> Iterator[ModelQuestion]:
    """Yield the questions of a model in an aspect, the ordinary one first; published sizes have that alone.

    With `constants` parameters are as they are.

    Left out is what has no one answer: the statistics of a batch of one number; gradients of saturated functions, which are
    what cancellation leaves, and those behind NaN; a loss of NaN that frameworks refuse; in 16 bits ties, which rounding makes and breaks,
    and means so far from 0 that nothing of the data is left. Another batch and NaN are asked in float32 alone: no dtype changes them.
    """
    yield ModelQuestion(REGIME, model.batch)
    if PUBLISHED in model.name:
        return
    if not _one_value_a_channel(model):
        yield ModelQuestion("batch-1", 1, cotangent=FULL_MANTISSA if fmt.bits > 16 else LOSS_SCALE)
    kinds = {layer.kind for layer in model.layers}
    if fmt.bits > 16:  # a batch is one in every dtype
        batch = next(batch for batch in BATCHES if batch != model.batch)
        yield ModelQuestion("another-batch", batch, cotangent=LOSS_SCALE)
    if "max-pool" in kinds and fmt.bits > 16:
        yield ModelQuestion("ties", model.batch, integers=True)
    if aspect == "gradient":
        return
    if UNSTABLE not in kinds:
        loss_clips = model.layers[-1].kind in CLIPPED
        scale = _safe_scale(model) if fmt.emax < 16 else LARGE
        yield ModelQuestion(EXTREME[0], model.batch, scale=scale, loss_judged=not loss_clips)
        if "cross-entropy" in model.layers[-1].kind and not constants and fmt.emax > 16:
            yield ModelQuestion("large-logits", model.batch, logits=LARGE_LOGITS, loss_judged=not loss_clips)
        if fmt.bits > 16:
            yield ModelQuestion(EXTREME[1], model.batch, shift=FAR, loss_judged=not loss_clips)
    if REFUSING not in kinds and fmt.bits > 16:
        yield ModelQuestion("nan", model.batch, nan=True)


def draw_question(model: Model, question: ModelQuestion) -> dict[str, F32]:
    """Return every input and parameter of a model for a question in float32, the batch first: each question has data of its own."""
    regime = "" if question.regime == REGIME else f"/{question.regime}"
    inputs = draw_inputs(msgspec.structs.replace(model, batch=question.batch, name=f"{model.name}{regime}"))
    normal = [one.name for one in model.inputs if one.role == "data" and one.draw == "normal"]
    for name in normal:
        x = np.rint(inputs[name]) if question.integers else inputs[name]
        inputs[name] = x * np.float32(question.scale) + np.float32(question.shift)
    if question.nan and normal:
        sample = inputs[normal[0]][-1].reshape(-1)
        sample[sample.size // 2] = np.nan
    parameters = draw_parameters(model)
    if question.logits != 1.0:
        parameters |= {name: parameters[name] * np.float32(question.logits) for name in _of_logits(model)}
    return {**inputs, **parameters}


def _of_logits(model: Model) -> list[str]:
    """Return the parameters of the last layer before the loss that has any."""
    source = model.layers[-1].inputs[0]
    while not model.parameters_of(source):
        source = model.layer(source).inputs[0]
    return [parameter.name for parameter in model.parameters_of(source)]


def _one_value_a_channel(model: Model) -> bool:
    """Tell whether a batch normalization in training sees one number a channel where the batch is 1."""
    shapes = {model_input.name: model_input.shape for model_input in model.inputs} | model.shapes
    norms = [layer for layer in model.layers if layer.kind == "batch-norm"]
    return model.training and any(np.prod(shapes[layer.inputs[0]][:-1]) == 1 for layer in norms)


def _safe_scale(model: Model) -> float:
    """Return the largest power of two up to `LARGE` by which inputs can be multiplied before a layer's value is beyond `SAFE_IN_F16`."""
    scale = float(2.0 ** np.floor(np.log2(LARGE)))
    while scale > 1.0:
        layers = values(model, draw_question(model, ModelQuestion("large", model.batch, scale=scale)))
        if all(np.abs(value).max() <= SAFE_IN_F16 for name, value in layers.items() if name != LOSS):
            break
        scale /= 2.0
    return scale
