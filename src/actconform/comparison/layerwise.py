"""A model layer by layer: each value against the truth of what that layer read, so that no error of one is another's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.comparison.comparator import measurement, structural
from actconform.elements.classify import classify
from actconform.elements.elementwise import Sample, elementwise_errors
from actconform.oracle.layers.model import reading
from actconform.oracle.layers.registry import formula_of
from actconform.tolerance.layer_bounds import layer_bound
from actconform.tolerance.limits import Tolerance
from actconform.types import FindingClass
from actconform.types.model import OUTPUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.types import Bundle, Finding, Measurement
    from actconform.types.dtypes import FloatFormat
    from actconform.types.model import Model

LAYERS = "layers"  # the regime of all that is measured at layers
NO_NUMBER = ("nan-made", "nan-lost", "inf")  # further off than any number


def layerwise(
    model: Model, tensors: Bundle, layer_values: Bundle, fmt: FloatFormat, *, fused: bool
) -> tuple[list[Measurement], list[Finding]]:
    """Return the measurements and findings of every layer in order, regime "layers", the layer's name as tensor.

    `layer_values` holds the layers' values as a route computed them. Each is judged by the layer's a-priori bound, given the values
    that it read, as the route computed them: a NaN is found at the layer that made it. A layer that is missing, or of another shape,
    is a `names` or `shape` finding; what reads it is not judged. Where values were `fused`, computed each in a graph of its own,
    a layer over its bound may have worked on values that were computed anew: what it read may be off by twice their bounds,
    where layers that are exact, as relu and reshapes are, pass on the bounds of what they read.
    """
    tolerance = Tolerance(fmt=fmt, limit=1.0, exact=False, unary=False)
    values: dict[str, NDArray[Any]] = dict(tensors)
    bounds: dict[str, NDArray[np.float64]] = {}
    measurements, findings = [], []
    for layer in model.layers:
        shape = (model.batch, *model.shapes[layer.name]) if layer is not model.layers[-1] else ()
        wrong = _structure(layer.name, layer_values, shape)
        if wrong:
            findings.append(wrong)
            continue
        values[layer.name] = layer_values[layer.name]
        if any(name not in values for name in layer.inputs):
            continue
        with np.errstate(all="ignore"):
            read = reading(model, layer, values)
            truth = np.asarray(formula_of(layer).forward(read))
            bound = layer_bound(read, truth, fmt)
            if fused:
                anew = [bounds.get(name, np.zeros(values[name].shape)) for name in layer.inputs]
                passed_on = bound if bound.all() else layer_bound(read._replace(errors=anew), truth, fmt)
                bounds[layer.name] = np.where(bound > 0.0, bound, passed_on)
                if not (np.abs(layer_values[layer.name] - truth) <= bound).all():
                    bound = layer_bound(read._replace(errors=[2.0 * error for error in anew]), truth, fmt)
        sample = Sample(got=layer_values[layer.name].ravel(), truth=truth.ravel(), x=truth.ravel(), bound=bound.ravel())
        off = elementwise_errors(sample, tolerance)
        new = classify(sample, tolerance, off, LAYERS, layer.name)
        measurements.append(measurement(sample, tolerance, off, new, LAYERS, layer.name))
        findings += new
    return measurements, findings


def locate_layer(findings: Sequence[Finding]) -> str:
    """Return in words which layer is the first over its bound, or which gradient is furthest off; empty where there is neither."""
    first = next((finding for finding in findings if finding.regime == LAYERS), None)
    if first:
        by = f" ({first.magnitude:.3g} times)" if first.magnitude else f" ({first.class_})"
        return f"first layer over its bound: {first.tensor}{by}"
    gradients = [finding for finding in findings if finding.tensor.startswith("d_")]
    if not gradients:
        return ""
    worst = max(gradients, key=lambda finding: (finding.class_ in NO_NUMBER, finding.magnitude))
    by = f"{worst.magnitude:.3g} times its limit" if worst.magnitude else worst.class_
    return f"gradient furthest off: {worst.tensor} ({by})"


def top_1(model: Model, truth: Bundle, got: Bundle) -> str:
    """Return in how many rows of "y" the class of the largest score is the truth's; empty where the model does not choose a class.

    A row agrees where no other class has a larger truth than the chosen one: ties are no mistakes. A row with NaN disagrees.
    """
    scores, outputs = truth.get(OUTPUT), got.get(OUTPUT)
    if not model.layers[-1].kind.startswith("categorical") or scores is None or outputs is None:
        return ""
    if outputs.shape != scores.shape or outputs.dtype.kind in "cSUmM" or scores.ndim != 2 or scores.shape[1] < 2:
        return ""
    chosen = np.argmax(np.where(np.isnan(outputs), -np.inf, outputs.astype(np.float64)), axis=1)
    best = np.take_along_axis(scores, chosen[:, None], axis=1)[:, 0] == scores.max(axis=1)
    agree = int((best & ~np.isnan(outputs.astype(np.float64)).any(axis=1)).sum())
    return f"top-1 agrees {agree}/{len(scores)}"


def _structure(name: str, layer_values: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> Finding | None:
    if name not in layer_values:
        return structural(
            FindingClass.NAMES, LAYERS, name, f"the value of layer {name!r} is missing; got {sorted(layer_values)}"
        )
    got = layer_values[name]
    if got.shape != shape or got.dtype.kind in "cSUmM":
        return structural(FindingClass.SHAPE, LAYERS, name, f"{got.dtype} {list(got.shape)}, expected {list(shape)}")
    return None
