"""The numbers of a model: inputs and initial parameters, each drawn from its own named stream, the same on every machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.testdata.regimes import normal, raw, uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.types.model import Input, Model, Parameter

    F32 = NDArray[np.float32]


def draw_inputs(model: Model) -> dict[str, F32]:
    """Return every input of a model in float32, the batch first. Raises ValueError for a way to draw that is unknown."""
    return {
        model_input.name: _input(f"{model.name}/{model_input.name}", model_input, (model.batch, *model_input.shape))
        for model_input in model.inputs
    }


def draw_parameters(model: Model) -> dict[str, F32]:
    """Return the initial value of every parameter of a model in float32, canonical shapes.

    he_uniform is uniform within sqrt(6 / in), glorot_uniform within sqrt(6 / (in + out)), where a convolution's in and out
    count its window too (He et al. 2015; Glorot and Bengio 2010). Raises ValueError for an unknown initializer.
    """
    return {parameter.name: _parameter(f"{model.name}/{parameter.name}", parameter) for parameter in model.parameters}


def _input(stream: str, model_input: Input, shape: tuple[int, ...]) -> F32:
    n, width = math.prod(shape), shape[-1]
    drawn: NDArray[Any]
    match model_input.draw:
        case "normal":
            drawn = normal(stream, n, 1.0)
        case "uniform":
            drawn = uniform(stream, n, -1.0, 1.0)
        case "unit":
            drawn = uniform(stream, n, 1 / 64, 63 / 64)
        case "softmax":
            weights = uniform(stream, n, 1 / 8, 1.0).astype(np.float64).reshape(-1, width)
            drawn = weights / weights.sum(axis=1, keepdims=True)
        case "gumbel":
            words = _words(stream, n).astype(np.float64)
            drawn = -np.log(-np.log((words + 0.5) / 2.0**32))
        case _:
            drawn = _discrete(stream, model_input, n, width)
    single: F32 = drawn.astype(np.float32).reshape(shape)
    return single


def _discrete(stream: str, model_input: Input, n: int, width: int) -> NDArray[Any]:
    how, _, number = model_input.draw.partition(":")
    match how:
        case "one-hot":
            rows: NDArray[Any] = np.eye(width)[_words(stream, n // width) % np.uint64(width)]
            return rows
        case "binary":
            return raw(stream, n) >> np.uint64(63)
        case "mask":
            return uniform(stream, n, 0.0, 1.0) >= np.float32(number)
        case "padding":
            lengths = 1 + (int(_words(stream, 1)[0]) + np.arange(n // width)) % width
            return np.arange(width) < lengths[:, None]
        case "ids":
            return _words(stream, n) % np.uint64(int(number))
    raise ValueError(f"input {model_input.name}: no way to draw is called {model_input.draw!r}")


def _words(stream: str, n: int) -> NDArray[np.uint64]:
    return raw(stream, n) >> np.uint64(32)


def _parameter(stream: str, parameter: Parameter) -> F32:
    n = math.prod(parameter.shape)
    how, _, number = parameter.init.partition(":")
    match how:
        case "zeros" | "ones":
            return np.full(parameter.shape, how == "ones", np.float32)
        case "near":
            middle = float(number)
            return uniform(stream, n, middle - 0.25, middle + 0.25).reshape(parameter.shape)
        case "he_uniform" | "glorot_uniform":
            window = math.prod(parameter.shape[:-2])
            fan_in, fan_out = window * parameter.shape[-2], window * parameter.shape[-1]
            reach = math.sqrt(6 / (fan_in if how == "he_uniform" else fan_in + fan_out))
            return uniform(stream, n, -reach, reach).reshape(parameter.shape)
    raise ValueError(f"parameter {parameter.name}: no initializer is called {parameter.init!r}")
