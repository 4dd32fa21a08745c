"""The goldens of models: what is drawn and what is true of it, all of it for small models, sampled for published sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.catalog.models.zoo import PUBLISHED
from actconform.errors import GoldenError
from actconform.oracle.layers.model import gradients, values
from actconform.testdata.golden.store import Golden
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.testdata.regimes import TensorGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from actconform.types import Bundle
    from actconform.types.model import Model

SAMPLES = 256
VERIFIED = 1e-12  # of the largest number of a tensor: NumPy's own sums differ by less between machines
REGIME = "ordinary"
LAYER = "layer."


def model_golden(model: Model) -> Golden:
    """Return what is stored of a model: its drawn tensors, "layer.NAME" and "d_NAME", all flat.

    Of published sizes nothing drawn is stored, and of each other tensor its Euclidean norm and 256 elements evenly apart.
    """
    drawn: dict[str, NDArray[Any]] = {**draw_inputs(model), **draw_parameters(model)}
    truth = truths(model, drawn)
    published = {name: sampled(array) for name, array in truth.items()}
    tensors = published if PUBLISHED in model.name else drawn | truth
    draw = TensorGroup(REGIME, {name: array.shape for name, array in tensors.items()})
    return Golden((draw,), {name: array.ravel() for name, array in tensors.items()})


def truths(model: Model, tensors: Bundle) -> dict[str, NDArray[np.float64]]:
    """Return the float64 value of every layer as "layer.NAME", and every gradient of the loss as "d_NAME"."""
    layers = values(model, tensors)
    computed = {LAYER + name: np.asarray(value, np.float64) for name, value in layers.items()}
    return computed | {f"d_{name}": value for name, value in gradients(model, tensors, layers).items()}


def sampled(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Euclidean norm of a tensor, then at most 256 of its elements, evenly apart, the first and last among them."""
    flat = array.ravel()
    index = np.linspace(0, flat.size - 1, min(flat.size, SAMPLES)).astype(np.int64)
    return np.concatenate([[np.linalg.norm(flat)], flat[index]])


def keep_unmoved(old: Golden, new: Golden) -> Golden:
    """Return `new` with the bytes of `old` for each tensor that did not move by more than 1e-12, as `distance` counts."""
    tensors = {}
    for name, array in new.tensors.items():
        stored = old.tensors.get(name)
        same = (
            stored is not None
            and stored.size == array.size
            and distance(array, stored, rounding_scale(name, new.tensors)) <= VERIFIED
        )
        tensors[name] = stored if same and stored is not None else array
    return Golden(new.draws, tensors)


def verify_model(model: Model, golden: Golden) -> float:
    """Return by how much the layers' formulas differ from the goldens, relative to each tensor's largest number.

    Raises GoldenError naming the tensor where that is more than 1e-12, or what is stored is not what the generator draws.
    """
    fresh = model_golden(model)
    if fresh.draws != golden.draws:
        raise GoldenError(f"{model.name}: the stored tensors are not those of its description: mint them again")
    moved = [name for name in _drawn(model, golden) if fresh.tensors[name].tobytes() != golden.tensors[name].tobytes()]
    if moved:
        raise GoldenError(f"{model.name}: the stored {', '.join(moved)} are not what the generator draws")
    worst = 0.0
    for name, stored in golden.tensors.items():
        moved_by = distance(fresh.tensors[name], stored, rounding_scale(name, fresh.tensors))
        if not moved_by <= VERIFIED:
            message = (
                f"{model.name}: {name} differs from its golden by {moved_by:.3g} of its largest number, "
                f"more than {VERIFIED:g}: the formulas or the golden are wrong"
            )
            raise GoldenError(message)
        worst = max(worst, moved_by)
    return worst


def distance(got: NDArray[Any], stored: NDArray[Any], least: float) -> float:
    """Return the largest difference as a share of the largest stored number, or of `least` where that is larger.

    0 for equal tensors, NaN where one has NaN.
    """
    if np.array_equal(got, stored):
        return 0.0
    top = max(np.abs(stored.astype(np.float64)).max(initial=0.0), least)
    return float(np.abs(got.astype(np.float64) - stored).max(initial=0.0) / (top or 1.0))


def rounding_scale(name: str, tensors: Bundle) -> float:
    """Return the scale below which the tensor `name` may be rounding alone: 1e-2 of a model's largest gradient, 0 for values.

    A gradient that is truly 0, as those of a key's bias and of a bias before a normalization are, is what the order of the sums leaves:
    of k terms as large as the largest gradient sqrt(k) * 2^-53 of it, below 1e-12 * 1e-2 up to 8,000 terms.
    """
    if not name.startswith("d_"):
        return 0.0
    return 1e-2 * max(float(np.abs(array).max()) for gradient, array in tensors.items() if gradient.startswith("d_"))


def _drawn(model: Model, golden: Golden) -> Iterator[str]:
    names = [model_input.name for model_input in model.inputs] + [parameter.name for parameter in model.parameters]
    yield from (name for name in names if name in golden.tensors)
