"""A model's question, with its truth and the end-to-end limit: how far the truth itself moves where every number is rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    """Return the one question of a case: the model's inputs and parameters, its truth, and what rounding may do to that.

    "y" and "loss" are asked of values, with `constants` of the graph "y" alone, then of inputs that are no targets; "d_NAME"
    is asked of gradients, the loss's cotangent being 1. An element's allowed error is 16 times its spread (64 in published
    sizes), or the mean spread of its tensor where that is larger: the root mean square of what it moves by when every input, parameter, layer value and
    cotangent is off by one rounding, in eight draws of signs. A tensor that does not move must be exact, but for a gradient
    beside others of the same layer that do: the bias of attention's keys has a gradient of 0, as a sum that cancels.
    """
    fmt = DTYPES[dtype]
    tensors: Bundle = {**draw_inputs(model), **draw_parameters(model)}
    found = _asked(model, aspect, truths(model, tensors), constants=constants)
    moved = [
        _asked(model, aspect, perturbed(model, aspect, tensors, fmt.unit_roundoff, run), constants=constants)
        for run in range(RUNS)
    ]
    spreads = {
        name: np.sqrt(np.mean([(other[name] - truth) ** 2 for other in moved], axis=0)) for name, truth in found.items()
    }
    limit = PUBLISHED_LIMIT if PUBLISHED in model.name else LIMIT
    bounds = {name: limit * np.maximum(spread, _typical(name, spreads)) for name, spread in spreads.items()}
    given = [one.name for one in model.inputs if not constants or one.role != "target"]
    given += [one.name for one in model.parameters if not constants]
    storage = STORAGE[dtype]
    vector = TestVector(
        regime=REGIME,
        inputs={name: np.asarray(tensors[name]).astype(storage) for name in given},
        cotangents={LOSS: np.ones((), storage)} if aspect == "gradient" else None,
        truth=found,
        input_at=found,
        dtypes=dict.fromkeys(found, storage),
        bounds=bounds,
    )
    return TestVectors(Tolerance(fmt=fmt, limit=1.0, exact=False, unary=False), [vector])


def perturbed(model: Model, aspect: Aspect, tensors: Bundle, unit: float, run: int) -> dict[str, F64]:
    """Return the truths of an aspect with every number off by `unit` of itself, up or down, as the run's signs say; targets and noise stay."""

    def touch(of: str) -> Callable[[str, F64], F64]:
        return lambda name, array: array * (1.0 + unit * _signs(f"{model.name}/{of}/{name}/{run}", array.shape))

    moving = set(model.differentiable) | {one.name for one in model.parameters}
    moved = {
        name: touch("tensor")(name, np.asarray(array, np.float64)) if name in moving else array
        for name, array in tensors.items()
    }
    layers = values(model, moved, touch("value"))
    if aspect == "value":
        return {LAYER + name: value for name, value in layers.items()}
    pulled = gradients(model, moved, layers, touch("cotangent"))
    return {f"d_{name}": touch("gradient")(name, value) for name, value in pulled.items()}


def _typical(name: str, spreads: Mapping[str, F64]) -> float:
    own = float(spreads[name].mean())
    layer, _, parameter = name.rpartition(".")
    if own or not layer or not parameter:
        return own
    return float(np.mean([spread.mean() for other, spread in spreads.items() if other.startswith(f"{layer}.")]))


def _signs(stream: str, shape: tuple[int, ...]) -> F64:
    words = raw(stream, max(int(np.prod(shape)), 1)) >> np.uint64(63)
    return (words.astype(np.float64) * 2.0 - 1.0).reshape(shape)


def _asked(model: Model, aspect: Aspect, found: Mapping[str, Any], *, constants: bool) -> dict[str, F64]:
    if aspect == "gradient":
        return {name: array for name, array in found.items() if name.startswith("d_")}
    outputs = {OUTPUT: found[LAYER + model.output]}
    return outputs if constants else {**outputs, LOSS: found[LAYER + LOSS]}
