"""Running statistics: the biased variance is the definition, the unbiased one a convention, all else a finding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actconform.catalog.models.zoo import networks
from actconform.comparison.running_statistics import compare_statistics, has_statistics
from actconform.oracle.layers.model import values
from actconform.testdata.model_tensors import draw_inputs, draw_parameters

MODELS = {model.name: model for model in networks()}
MODEL = MODELS["image-cnn-softmax2@training"]
TENSORS = {name: array.astype(np.float64) for name, array in {**draw_inputs(MODEL), **draw_parameters(MODEL)}.items()}
READ = {"norm1": "pool1", "norm2": "pool2"}


def left(*, kept: float = 0.99, ddof: int = 0) -> dict[str, Any]:
    """What a step leaves, of NumPy's own mean and variance."""
    layers, statistics = values(MODEL, TENSORS), {}
    for norm, read in READ.items():
        rows = layers[read].reshape(-1, layers[read].shape[-1])
        for name, batch in (("mean", np.mean(rows, axis=0)), ("variance", np.var(rows, axis=0, ddof=ddof))):
            statistics[f"{norm}.{name}"] = kept * TENSORS[f"{norm}.{name}"] + (1 - kept) * batch
    return {name: array.astype(np.float32) for name, array in statistics.items()}


def seen(got: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(finding.tensor, finding.class_, finding.blame) for finding in compare_statistics(MODEL, "f32", got)[1]}


def test_only_batch_normalization_in_training_leaves_statistics() -> None:
    assert [name for name, model in MODELS.items() if has_statistics(model)] == [
        "image-cnn-softmax2@training",
        "image-cnn-softmax2@training@published",
    ]


def test_the_definition_has_no_finding() -> None:
    measurements, findings = compare_statistics(MODEL, "f32", left())
    assert findings == []
    assert {measurement.tensor for measurement in measurements} == set(left())


def test_the_unbiased_variance_is_a_convention() -> None:
    convention = {(f"{norm}.variance", "scaled-error", "convention") for norm in READ}
    assert seen(left(ddof=1)) == convention


@pytest.mark.parametrize("wrong", [{"kept": 0.01}, {"kept": 0.9}, {"kept": 1.0}, {"ddof": 2}, {"kept": 0.9, "ddof": 1}])
def test_another_formula_is_no_convention(wrong: dict[str, Any]) -> None:
    off = {entry for entry in seen(left(**wrong)) if entry[2] != "convention"}
    assert {tensor for tensor, _, _ in off} == {name for name in left() if "kept" in wrong or "variance" in name}


def test_a_statistic_that_is_missing_is_named() -> None:
    got = left()
    del got["norm2.mean"]
    assert {(tensor, class_) for tensor, class_, _ in seen(got)} == {("norm2.mean", "names")}
