"""Layer by layer: a fault is found at the layer that makes it and nowhere else, whatever it does to those that follow."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.comparison.comparator import structural
from actconform.comparison.layerwise import LAYERS, layerwise, locate_layer, top_1
from actconform.oracle.layers.model import layer_value, reading, values
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.tolerance.layer_bounds import layer_bound
from actconform.types import Finding, Worst
from actconform.types.dtypes import DTYPES
from actconform.types.model import LOSS, OUTPUT, Input

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform.types.model import Model

MODELS = {model.name: model for model in networks()}
SMALL = [name for name in MODELS if PUBLISHED not in name]
F32 = DTYPES["f32"]
NORMS = ("norm1", "norm2", "norm3", "norm4")


def tensors_of(model: Model) -> dict[str, Any]:
    return {**draw_inputs(model), **draw_parameters(model)}


def run(model: Model, tensors: dict[str, Any] | None = None, after: Callable[[str, Any], Any] | None = None) -> Any:
    """Return the layers' values as an implementation shows them that is exact but for its storage; `after` may change them."""

    def touch(name: str, value: NDArray[Any]) -> NDArray[Any]:
        kept = np.asarray(value).astype(np.float32)
        return after(name, kept) if after else kept

    return values(model, tensors or tensors_of(model), touch)


def judged(model: Model, seen: dict[str, Any], *, fused: bool = False) -> list[tuple[str, str]]:
    """Return (tensor, class) of every finding."""
    _, findings = layerwise(model, tensors_of(model), seen, F32, fused=fused)
    return [(finding.tensor, finding.class_) for finding in findings]


def edited(model: Model, name: str, **settings: Any) -> Model:
    layers = [
        msgspec.structs.replace(one, settings={**one.settings, **settings}) if one.name == name else one
        for one in model.layers
    ]
    return msgspec.structs.replace(model, layers=tuple(layers))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("fused", [False, True])
def test_a_healthy_implementation_is_clean_at_every_layer(name: str, fused: bool) -> None:
    model = MODELS[name]
    measurements, findings = layerwise(model, tensors_of(model), run(model), F32, fused=fused)
    assert findings == []
    assert [one.tensor for one in measurements] == [one.name for one in model.layers]
    assert {one.regime for one in measurements} == {LAYERS}
    assert all(one.n == np.prod((model.batch, *model.shapes[one.tensor])) for one in measurements[:-1])
    assert measurements[-1].n == 1
    assert all(one.max_scaled <= one.limit for one in measurements)


@pytest.mark.parametrize("fault", NORMS)
@pytest.mark.parametrize("name", ["regression-softmax-hidden", "regression-softmax-hidden@training"])
def test_an_injected_epsilon_is_found_at_its_layer_and_at_no_other(name: str, fault: str) -> None:
    model = MODELS[name]
    seen, right = run(edited(model, fault, epsilon=1e-3)), run(model)
    names = [one.name for one in model.layers]
    for later in names[names.index(fault) :]:
        assert not np.array_equal(seen[later], right[later])  # the fault goes through to the loss
    _, findings = layerwise(model, tensors_of(model), seen, F32, fused=False)
    assert {(one.tensor, one.class_, one.regime) for one in findings} == {(fault, "scaled-error", LAYERS)}
    assert findings[0].magnitude > 3
    assert locate_layer(findings) == f"first layer over its bound: {fault} ({findings[0].magnitude:.3g} times)"


def test_two_faults_are_two_layers_in_their_order() -> None:
    model = MODELS["attention-block"]
    both = edited(edited(model, "gelu", kernel="gelu-tanh"), "norm1", epsilon=1e-3)
    _, findings = layerwise(model, tensors_of(model), run(both), F32, fused=False)
    assert [one.tensor for one in findings] == ["norm1", "gelu"]
    assert locate_layer(findings).startswith("first layer over its bound: norm1 (")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("regression-softmax-hidden", "act1"),
        ("image-cnn-softmax2", "conv1"),
        ("image-cnn-softmax2@training", "relu2"),
        ("attention-block", "wide"),
        ("ntm-addressing", "weights"),
        ("dnc-memory", "usage"),
        ("blobs-mlp", LOSS),
    ],
)
def test_a_nan_is_found_at_the_layer_where_it_appears(name: str, fault: str) -> None:
    model = MODELS[name]

    def lose(layer: str, value: NDArray[Any]) -> NDArray[Any]:
        if layer == fault:
            value.reshape(-1)[0] = np.nan
        return value

    seen = run(model, after=lose)
    assert np.isnan(seen[LOSS])
    for fused in (False, True):
        assert judged(model, seen, fused=fused) == [(fault, "nan-made")]
    _, findings = layerwise(model, tensors_of(model), seen, F32, fused=False)
    assert findings[0].count == 1
    assert locate_layer(findings) == f"first layer over its bound: {fault} (nan-made)"


def test_a_nan_that_comes_from_above_is_wanted_below() -> None:
    model = MODELS["mlp-relu"]
    tensors = tensors_of(model)
    tensors["x"][0, 0] = np.nan
    seen = run(model, tensors)
    assert np.isnan(seen["dense1"][0]).all()
    assert layerwise(model, tensors, seen, F32, fused=False)[1] == []
    seen["act1"] = np.nan_to_num(seen["act1"])
    _, findings = layerwise(model, tensors, seen, F32, fused=False)
    assert ("act1", "nan-lost") in {(one.tensor, one.class_) for one in findings}


def test_an_infinity_is_found_where_it_appears() -> None:
    model = MODELS["linear-stack"]

    def overflow(layer: str, value: NDArray[Any]) -> NDArray[Any]:
        return np.full_like(value, np.inf) if layer == "dense2" else value

    with np.errstate(invalid="ignore"):
        seen = run(model, after=overflow)
    assert judged(model, seen)[0] == ("dense2", "inf")


# What is not there, or of another shape


def test_a_missing_layer_is_a_names_finding_and_its_readers_are_not_judged() -> None:
    model = MODELS["regression-softmax-hidden"]
    seen = run(edited(model, "norm3", epsilon=1e-3))
    del seen["act2"]
    measurements, findings = layerwise(model, tensors_of(model), seen, F32, fused=False)
    assert [(one.tensor, one.class_, one.regime) for one in findings] == [
        ("act2", "names", LAYERS),
        ("norm3", "scaled-error", LAYERS),
    ]
    assert "the value of layer 'act2' is missing; got ['act1'" in findings[0].evidence
    assert locate_layer(findings) == "first layer over its bound: act2 (names)"
    assert {one.name for one in model.layers} - {one.tensor for one in measurements} == {"act2", "dropout2"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda value: value.T, "float32 [8, 4], expected [4, 8]"),
        (lambda value: value[None], "float32 [1, 4, 8], expected [4, 8]"),
        (lambda value: value[:3], "float32 [3, 8], expected [4, 8]"),
        (lambda value: value.astype("U8"), "<U8 [4, 8], expected [4, 8]"),
        (lambda value: value.astype(np.complex64), "complex64 [4, 8], expected [4, 8]"),
    ],
)
def test_a_misshapen_layer_is_a_shape_finding_and_its_readers_are_not_judged(wrong: Any, said: str) -> None:
    model = MODELS["mlp-relu"]
    seen = run(model)
    seen["act5"] = wrong(seen["act5"])
    measurements, findings = layerwise(model, tensors_of(model), seen, F32, fused=False)
    assert [(one.tensor, one.class_, one.evidence) for one in findings] == [("act5", "shape", said)]
    assert {one.name for one in model.layers} - {one.tensor for one in measurements} == {"act5", "head"}


def test_a_loss_is_a_scalar() -> None:
    model = MODELS["linear-stack"]
    seen = run(model)
    seen[LOSS] = seen[LOSS].reshape(1)
    assert judged(model, seen) == [(LOSS, "shape")]


def test_nothing_seen_is_as_many_findings_as_there_are_layers() -> None:
    model = MODELS["linear-stack"]
    assert judged(model, {}) == [(one.name, "names") for one in model.layers]


# Values that a runtime computed each in a graph of its own


# layers between the product and the sum that compute nothing, or are exact
BETWEEN = {
    "nothing": [],
    "relu": [layer("relu", "activation", "dense", kernel="relu")],
    "reshapes": [layer("to", "reshape", "dense", shape=(2, 4)), layer("back", "reshape", "to", shape=(8,))],
    "dropout": [layer("dropout", "dropout", "dense", rate=0.5)],
}


@functools.cache
def summing(between: str = "nothing") -> Model:
    """dense + noise: a runtime may fuse the sum into the product, or compute the product anew in another order."""
    x, noise = Input(name="x", shape=(64,), draw="normal"), Input(name="noise", shape=(8,), draw="gumbel", role="noise")
    target = Input(name="target", shape=(8,), draw="normal", role="target")
    layers = [
        layer("dense", "dense", "x", units=8),
        *BETWEEN[between],
        layer("sum", "add", ["dense", *(one.name for one in BETWEEN[between])][-1], "noise"),
        layer(LOSS, "mean-squared-error", "sum", "target"),
    ]
    return describe("summing", "a test", [x, noise, target], layers, output="sum", batch=4)


@functools.cache
def upstream() -> tuple[NDArray[Any], NDArray[Any]]:
    """The truth of the product, and how far an implementation in float32 may be from it."""
    model, tensors = summing(), tensors_of(summing())
    read = reading(model, model.layer("dense"), tensors)
    truth = layer_value(model, model.layer("dense"), tensors)
    return truth, layer_bound(read, truth, F32)


def shown(apart: float, between: str = "nothing") -> dict[str, Any]:
    """What is seen where the sum worked on a product that is `apart` bounds from the one that was shown."""
    model, tensors = summing(between), tensors_of(summing())
    truth, bound = upstream()
    product = (truth + 0.9 * bound).astype(np.float32)
    seen = run(model, tensors, lambda name, value: product if name == "dense" else value)
    anew = run(model, tensors, lambda name, value: product - apart * bound if name == "dense" else value)
    total = anew["sum"]
    loss = layer_value(model, model.layer(LOSS), {**tensors, "sum": total})
    return {**seen, "sum": total, LOSS: loss.astype(np.float32)}


@pytest.mark.parametrize("between", BETWEEN)
def test_a_sum_of_a_product_computed_anew_passes_fused_and_fails_unfused(between: str) -> None:
    seen = shown(1.8, between)
    assert judged(summing(between), seen, fused=True) == []
    assert judged(summing(between), seen, fused=False) == [("sum", "scaled-error")]


@pytest.mark.parametrize("between", BETWEEN)
def test_what_is_further_off_than_computing_anew_can_be_fails_fused_too(between: str) -> None:
    assert judged(summing(between), shown(8.0, between), fused=True) == [("sum", "scaled-error")]


def test_inputs_are_never_computed_anew() -> None:
    """The first layer reads what everybody was given: fused or not, its own bound is all that it has."""
    model, (truth, bound) = summing(), upstream()
    seen = shown(apart=0.0)
    seen["dense"] = (truth + 1.5 * bound).astype(np.float32)
    for fused in (False, True):
        assert ("dense", "scaled-error") in judged(model, seen, fused=fused)


@pytest.mark.parametrize("fault", NORMS)
def test_the_allowance_does_not_hide_an_injected_epsilon(fault: str) -> None:
    model = MODELS["regression-softmax-hidden"]
    assert judged(model, run(edited(model, fault, epsilon=1e-3)), fused=True) == [(fault, "scaled-error")]


# Words


def found(tensor: str, regime: str = "ordinary", magnitude: float = 0.0, class_: str = "scaled-error") -> Finding:
    worst = Worst(input_hex="0x00000000", index=0, truth=0.0, got=0.0, ulp=0.0, scaled=0.0)
    blank = structural(class_, regime, tensor, "")
    return msgspec.structs.replace(blank, magnitude=magnitude, worst=worst if magnitude else None)


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ([], ""),
        ([found("y", magnitude=3.0), found(LOSS)], ""),
        ([found("dense2", LAYERS, 3.14159)], "first layer over its bound: dense2 (3.14 times)"),
        ([found("b", LAYERS, 2.0), found("a", LAYERS, 9.0)], "first layer over its bound: b (2 times)"),
        ([found("b", LAYERS, class_="shape")], "first layer over its bound: b (shape)"),
        ([found("y", magnitude=9.0), found("b", LAYERS, 2.0)], "first layer over its bound: b (2 times)"),
        ([found("d_x", magnitude=2.0), found("d_a.bias", magnitude=41.25)], "gradient furthest off: d_a.bias (41.2 times its limit)"),
        ([found("d_x", magnitude=np.inf)], "gradient furthest off: d_x (inf times its limit)"),
        ([found("d_a.kernel", class_="names")], "gradient furthest off: d_a.kernel (names)"),
        ([found("d_a.kernel", class_="names"), found("d_x", magnitude=2.0)], "gradient furthest off: d_x (2 times its limit)"),
        ([found("d_x", magnitude=2.0), found("d_b.bias", class_="nan-made")], "gradient furthest off: d_b.bias (nan-made)"),
    ],
)  # fmt: skip
def test_a_reason_names_the_first_layer_or_the_gradient_that_is_furthest_off(
    findings: list[Finding], said: str
) -> None:
    assert locate_layer(findings) == said


SCORES = np.array([[1.0, 2.0, 2.0], [5.0, 0.0, 1.0], [0.0, 0.0, 3.0]])


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (SCORES, "top-1 agrees 3/3"),
        (SCORES - [0.0, 0.5, 0.0], "top-1 agrees 3/3"),  # a tie broken the other way
        (-SCORES, "top-1 agrees 0/3"),
        (np.where(SCORES == 5.0, np.nan, SCORES), "top-1 agrees 2/3"),
        (SCORES[:2], ""),
        (SCORES.astype(str), ""),
    ],
)  # fmt: skip
def test_decisions_agree_row_by_row(got: Any, said: str) -> None:
    model = MODELS["blobs-mlp"]
    assert model.layers[-1].kind.startswith("categorical")
    assert top_1(model, {OUTPUT: SCORES}, {OUTPUT: got}) == said


def test_a_model_that_chooses_no_class_has_no_decisions() -> None:
    assert top_1(MODELS["autoencoder-relu"], {OUTPUT: SCORES}, {OUTPUT: SCORES}) == ""
    assert top_1(MODELS["blobs-mlp"], {"d_x": SCORES}, {"d_x": SCORES}) == ""
