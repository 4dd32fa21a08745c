"""A model's test vector, with its truth and the end-to-end limit: how far the truth itself moves where every number is rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform.catalog.models.zoo import PUBLISHED
from actconform.oracle.layers.model import gradients, values
from actconform.testdata.golden.model_goldens import LAYER, REGIME, truths
from actconform.testdata.kernel_vectors import STORAGE, TestVector, TestVectors
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.testdata.regimes import raw
from actconform.tolerance.limits import Tolerance
from actconform.types.dtypes import DTYPES
from actconform.types.model import LOSS, OUTPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from actconform.types import Aspect, Bundle
    from actconform.types.model import Model

    F64 = NDArray[np.float64]

RUNS = 8  # of perturbed evaluations: enough to see every direction in which rounding moves a result
# Of the spread. Healthy routes reach 5 in small models; 34 in published ones, which sum up to 3,600 terms and have up to a
# million elements, of which the worst counts: see docs/architecture.md.
LIMIT, PUBLISHED_LIMIT = 16.0, 64.0


def generate_model(model: Model, aspect: Aspect, dtype: str, *, constants: bool) -> TestVectors:
    """Return the test vectors of a case: the model's inputs and parameters, its truth, and what rounding may do to that.

    Values are asked at the model's batch, then at 1 and at 3 more than its own: a size that an export bakes in shows.

    Of values it has "y" and "loss", with `constants` "y" alone and no targets among the inputs; of gradients "d_NAME", the
    loss's cotangent being 1. An element's allowed error is 16 times its spread (64 in published
    sizes), or the mean spread of its tensor where that is larger: the root mean square of what it moves by when every input, parameter, layer value and
    cotangent is off by one rounding, in eight draws of signs. A tensor that does not move must be exact, but for a gradient
    beside others of the same layer that do: the bias of attention's keys has a gradient of 0, as a sum that cancels.
    """
    batches = [1, model.batch + 3] if aspect == "value" else []
    vectors = [_vector(model, aspect, dtype, REGIME, constants=constants)]
    for batch in batches:
        other = msgspec.structs.replace(model, batch=batch)
        vectors.append(_vector(other, aspect, dtype, f"batch {batch}", constants=constants))
    return TestVectors(Tolerance(fmt=DTYPES[dtype], limit=1.0, exact=False, unary=False), vectors)


def _vector(model: Model, aspect: Aspect, dtype: str, regime: str, *, constants: bool) -> TestVector:
    fmt = DTYPES[dtype]
    tensors: Bundle = {**draw_inputs(model), **draw_parameters(model)}
    expected = _of_aspect(model, aspect, truths(model, tensors), constants=constants)
    moved = [
        _of_aspect(model, aspect, perturbed(model, aspect, tensors, fmt.unit_roundoff, run), constants=constants)
        for run in range(RUNS)
    ]
    spreads = {
        name: np.sqrt(np.mean([(perturbed_truth[name] - truth) ** 2 for perturbed_truth in moved], axis=0))
        for name, truth in expected.items()
    }
    limit = PUBLISHED_LIMIT if PUBLISHED in model.name else LIMIT
    bounds = {name: limit * np.maximum(spread, _typical(name, spreads)) for name, spread in spreads.items()}
    input_names = [model_input.name for model_input in model.inputs if not constants or model_input.role != "target"]
    input_names += [parameter.name for parameter in model.parameters if not constants]
    storage = STORAGE[dtype]
    return TestVector(
        regime=regime,
        inputs={name: np.asarray(tensors[name]).astype(storage) for name in input_names},
        cotangents={LOSS: np.ones((), storage)} if aspect == "gradient" else None,
        truth=expected,
        input_at=expected,
        dtypes=dict.fromkeys(expected, storage),
        bounds=bounds,
    )


def perturbed(model: Model, aspect: Aspect, tensors: Bundle, unit: float, run: int) -> dict[str, F64]:
    """Return the truths of an aspect with every number off by `unit` of itself, up or down, as the run's signs say; targets and noise stay."""

    def touch(of: str) -> Callable[[str, F64], F64]:
        return lambda name, array: array * (1.0 + unit * _signs(f"{model.name}/{of}/{name}/{run}", array.shape))

    moving = set(model.differentiable) | {parameter.name for parameter in model.parameters}
    moved = {
        name: touch("tensor")(name, np.asarray(array, np.float64)) if name in moving else array
        for name, array in tensors.items()
    }
    layers = values(model, moved, touch("value"))
    if aspect == "value":
        return {LAYER + name: value for name, value in layers.items()}
    d_tensors = gradients(model, moved, layers, touch("cotangent"))
    return {f"d_{name}": touch("gradient")(name, value) for name, value in d_tensors.items()}


def _typical(name: str, spreads: Mapping[str, F64]) -> float:
    mean_spread = float(spreads[name].mean())
    layer, _, parameter = name.rpartition(".")
    if mean_spread or not layer or not parameter:
        return mean_spread
    return float(np.mean([spread.mean() for neighbour, spread in spreads.items() if neighbour.startswith(f"{layer}.")]))


def _signs(stream: str, shape: tuple[int, ...]) -> F64:
    words = raw(stream, max(int(np.prod(shape)), 1)) >> np.uint64(63)
    return (words.astype(np.float64) * 2.0 - 1.0).reshape(shape)


def _of_aspect(model: Model, aspect: Aspect, tensors: Mapping[str, Any], *, constants: bool) -> dict[str, F64]:
    if aspect == "gradient":
        return {name: array for name, array in tensors.items() if name.startswith("d_")}
    outputs = {OUTPUT: tensors[LAYER + model.output]}
    return outputs if constants else {**outputs, LOSS: tensors[LAYER + LOSS]}
