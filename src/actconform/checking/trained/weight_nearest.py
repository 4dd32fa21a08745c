"""Which constant is most like a weight that no constant holds."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.weight_layouts import WeightLayout, candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from actconform.checking.trained.weight_values import Array

    Arrays = Mapping[str, Callable[[], Array]]

SAMPLED = 2048  # elements by which likeness is judged
MOST_LAYOUTS = 24
CHANCE = 1e-8  # that independent values are taken for alike


class Partner(NamedTuple):
    """A weight, the constant most like it, and how that lays it out."""

    parameter: str
    initializer: str
    layout: WeightLayout
    likeness: float
    """The correlation, either sign, or the share of equal elements where that is larger."""


class ElementSample(NamedTuple):
    """Some elements of each constant of one shape: a row for each constant."""

    shape: tuple[int, ...]
    names: list[str]
    places: Array
    """In the flattened constant."""
    values: Array
    directions: Array
    """The values less their mean, each row of length 1."""


def nearest_partners(parameters: Arrays, constants: Arrays) -> list[Partner]:
    """Return pairs whose values are alike, the likest first, each weight and each constant once.

    Both are given as functions that return a canonical array, since not all need be in memory at once. What is no more alike than
    independent values are by chance is left out.
    """
    samples: dict[int, list[ElementSample]] = defaultdict(list)
    for sample in _samples(constants):
        samples[int(np.prod(sample.shape, dtype=np.int64))].append(sample)
    pairs: list[Partner] = []
    for parameter, fetch in parameters.items():
        trained = fetch()
        for sample in samples[trained.size]:
            pairs += _alike(parameter, trained, sample)
    pairs.sort(key=lambda pair: -pair.likeness)
    settled: set[str] = set()
    best: list[Partner] = []
    for pair in pairs:
        ends = {f"parameter {pair.parameter}", f"initializer {pair.initializer}"}
        if not ends & settled:
            settled |= ends
            best.append(pair)
    return best


def _samples(constants: Arrays) -> Iterator[ElementSample]:
    by_shape: dict[tuple[int, ...], dict[str, Array]] = defaultdict(dict)
    places: dict[tuple[int, ...], Array] = {}
    for name, fetch in constants.items():
        constant = fetch()
        if not constant.size:
            continue  # nothing to compare, such as integers whose scale is computed
        shape = constant.shape
        if shape not in places:
            spread = np.random.default_rng(0).choice(constant.size, SAMPLED) if constant.size > SAMPLED else None
            places[shape] = np.arange(constant.size) if spread is None else np.unique(spread)
        by_shape[shape][name] = constant.reshape(-1)[places[shape]].astype(np.float64)
    for shape, rows in by_shape.items():
        values = np.array(list(rows.values()))
        yield ElementSample(shape, list(rows), places[shape], values, _directions(values))


def _directions(values: Array) -> Array:
    finite = np.where(np.isfinite(values), values, 0.0)
    gaps = finite - finite.mean(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        gaps /= np.abs(gaps).max(axis=-1, keepdims=True)
        gaps /= np.sqrt(np.sum(gaps * gaps, axis=-1, keepdims=True))
    directions: Array = np.nan_to_num(gaps)
    return directions


def _alike(parameter: str, trained: Array, sample: ElementSample) -> Iterator[Partner]:
    """Yield the constants of a sample that are like a weight in some layout, each in its best one."""
    # The correlation r of n independent normal pairs exceeds this with a chance of about (1 - r^2)^((n - 2) / 2).
    count = len(sample.places)
    threshold = max(0.5, (1 - CHANCE ** (2 / max(1, count - 2))) ** 0.5)
    best: dict[str, Partner] = {}
    for layout in islice(candidates(trained.shape, sample.shape), MOST_LAYOUTS):
        values = layout.pick(trained, sample.places).astype(np.float64)
        correlation = np.abs(sample.directions @ _directions(values)) if count > 3 else np.zeros(1)
        telling = values != 0
        equal = np.mean(sample.values[:, telling] == values[telling], axis=1) if telling.any() else np.zeros(1)
        for name, likeness in zip(sample.names, np.maximum(correlation, equal), strict=True):
            if likeness >= threshold and (name not in best or likeness > best[name].likeness):
                best[name] = Partner(parameter, name, layout, float(likeness))
    yield from best.values()
