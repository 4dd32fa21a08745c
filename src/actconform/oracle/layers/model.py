"""The truth of a model: all layers forward, and all back from the loss, in float64 NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import actconform.oracle.layers.attention
import actconform.oracle.layers.dense
import actconform.oracle.layers.losses
import actconform.oracle.layers.memory
import actconform.oracle.layers.recurrent
import actconform.oracle.layers.windows  # noqa: F401  registers the built-in kinds, as those above and normalization do
from actconform.oracle.layers.normalization import running_statistics
from actconform.oracle.layers.registry import Reading, formula_of
from actconform.types.model import LOSS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actconform.oracle.layers.registry import F64
    from actconform.types import Bundle
    from actconform.types.model import Layer, Model

    Touch = Callable[[str, F64], F64]


def layer_value(model: Model, layer: Layer, tensors: Bundle) -> F64:
    """Return the value of one layer, given what it reads: layers, inputs and parameters by name, as the numbers they are."""
    with np.errstate(all="ignore"):
        return formula_of(layer).forward(reading(model, layer, tensors))


def values(model: Model, tensors: Bundle, touch: Touch = lambda _, value: value) -> dict[str, F64]:
    """Return the value of every layer by name, the loss last; `tensors` are the model's inputs and parameters.

    `touch(name, value)` may change a layer's value before others read it.
    """
    arrays: dict[str, F64] = {name: np.asarray(array) for name, array in tensors.items()}
    computed = {}
    for layer in model.layers:
        computed[layer.name] = arrays[layer.name] = touch(layer.name, layer_value(model, layer, arrays))
    return computed


def statistics(model: Model, tensors: Bundle, layer_values: Mapping[str, F64]) -> dict[str, F64]:
    """Return the running statistics after one step in training, "LAYER.mean", "LAYER.variance" and "LAYER.unbiased" of each batch-norm.

    Empty for a model that is not trained. `layer_values` are those of the step.
    """
    arrays: dict[str, F64] = {**{name: np.asarray(array) for name, array in tensors.items()}, **layer_values}
    norms = [layer for layer in model.layers if layer.kind == "batch-norm" and model.training]
    return {
        f"{layer.name}.{name}": array
        for layer in norms
        for name, array in running_statistics(reading(model, layer, arrays)).items()
    }


def gradients(
    model: Model, tensors: Bundle, layer_values: Mapping[str, F64], touch: Touch = lambda _, value: value
) -> dict[str, F64]:
    """Return d loss / d name for every name of `model.differentiable`, from the values that the layers had.

    `touch(name, cotangent)` may change a layer's cotangent before its vector-Jacobian product.
    """
    arrays: dict[str, F64] = {**{name: np.asarray(array) for name, array in tensors.items()}, **layer_values}
    cotangents: dict[str, F64] = {LOSS: np.ones(())}
    with np.errstate(all="ignore"):
        for layer in reversed(model.layers):
            if layer.name not in cotangents:
                continue
            g = touch(layer.name, cotangents.pop(layer.name))
            layer_gradients = formula_of(layer).vjp(reading(model, layer, arrays), arrays[layer.name], g)
            for name, part in zip(layer.inputs, layer_gradients.inputs, strict=True):
                if part is not None:
                    cotangents[name] = cotangents[name] + part if name in cotangents else part
            cotangents |= {f"{layer.name}.{name}": part for name, part in layer_gradients.parameters.items()}
    return {name: cotangents[name] for name in model.differentiable}


def reading(model: Model, layer: Layer, tensors: Bundle) -> Reading:
    """Return what one layer works on, out of all tensors by name."""
    arrays = {parameter.name: tensors[parameter.name] for parameter in model.parameters_of(layer.name)}
    parameters = {name.rpartition(".")[2]: _wide(array) for name, array in arrays.items()}
    return Reading(layer, [_wide(tensors[name]) for name in layer.inputs], parameters, model.training)


def _wide(array: F64) -> F64:
    return array if array.dtype.kind == "c" else array.astype(np.float64)
