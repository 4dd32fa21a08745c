"""Every kind of layer in JAX against the float64 truth, in shapes that the networks do not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from actconform import Unsupported
from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.layer_kinds import KINDS
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.oracle.layers.model import gradients, values
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types.model import Input
from actconform_jax import JaxBackend
from actconform_jax.layers import BUILDERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform import Model

    Arrays = dict[str, NDArray[Any]]

pytest.importorskip("jax")

MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}
IMAGE = (5, 6, 4)


def alone(kind: str, *shapes: tuple[int, ...], training: bool = False, **settings: Any) -> Model:
    """One layer, called "it", whose value is squared against a target of zeros-and-ones."""
    inputs = [Input(name=f"x{number}", shape=shape, draw="unit") for number, shape in enumerate(shapes)]
    if kind == "dropout":
        inputs[1:] = [Input(name="mask", shape=shape, draw="mask:0.4", role="noise") for shape in shapes[1:]]
    if kind == "embedding":
        inputs = [Input(name="ids", shape=shapes[0], draw=f"ids:{settings['tokens']}", role="noise")]
    masks = {"masked-softmax": 1, "attention": 3}.get(kind, len(shapes))
    inputs[masks:] = [Input(name="mask", shape=shape, draw="padding", role="noise") for shape in shapes[masks:]]
    it = layer("it", kind, *(one.name for one in inputs), **{**KINDS[kind].settings, **settings})
    target = Input(name="target", shape=KINDS[kind].shape(it, shapes), draw="binary", role="target")
    layers = [it, layer("loss", "mean-squared-error", "it", "target")]
    return describe(f"only-{kind}", "test", [*inputs, target], layers, output="it", batch=3, training=training)


ALONE = {
    "dense-of-an-image": alone("dense", IMAGE, units=3),
    "conv-valid-strided": alone("conv2d", IMAGE, filters=2, size=(2, 3), strides=(2, 1)),
    "conv-same-even": alone("conv2d", IMAGE, filters=2, size=(4, 2), padding="same"),
    "conv-same-strided": alone("conv2d", IMAGE, filters=2, size=(3, 3), strides=(2, 3), padding="same"),
    "pool-same": alone("max-pool", IMAGE, size=(2, 4), strides=(2, 3), padding="same"),
    "conv-dilated-in-groups": alone(
        "conv2d", IMAGE, filters=6, size=(2, 2), dilations=(2, 1), groups=2, padding="same"
    ),
    "transposed-same": alone("conv2d-transpose", IMAGE, filters=3, size=(3, 4), strides=(2, 3), padding="same"),
    "transposed-with-gaps": alone("conv2d-transpose", IMAGE, filters=3, size=(1, 2), strides=(2, 3)),
    "average-same": alone("average-pool", IMAGE, size=(3, 2), strides=(2, 2), padding="same"),
    "global-average": alone("global-average-pool", IMAGE),
    "resize": alone("bilinear-resize", IMAGE, size=(8, 3)),
    "up-sampling": alone("up-sampling", IMAGE, size=(2, 3)),
    "batch-norm-image": alone("batch-norm", IMAGE, epsilon=1e-3, momentum=0.9),
    "batch-norm-training": alone("batch-norm", IMAGE, epsilon=1e-3, momentum=0.9, training=True),
    "layer-norm": alone("layer-norm", (5, 8), epsilon=1e-5),
    "embedding": alone("embedding", (2, 5), tokens=3, units=4),
    "attention-masked-narrow-values": alone("attention", (3, 4), (5, 4), (5, 2), (5,)),
    "dropout-training": alone("dropout", (7,), (7,), rate=0.4, training=True),
    "dropout": alone("dropout", (7,), rate=0.4),
    "reshape": alone("reshape", (4, 6), shape=(3, 8)),
    "affine": alone("affine", (4,), scale=2.5, shift=-1.0),
    "attention": alone("attention", (3, 4), (5, 4), (5, 4)),
    "attention-narrow-values": alone("attention", (3, 4), (5, 4), (5, 2)),
    "heads": alone("multi-head-attention", (5, 6), heads=2),
    "cosine-one-key": alone("cosine-similarity", (5, 3), (3,)),
    "cosine-keys": alone("cosine-similarity", (5, 3), (2, 3)),
    "shift": alone("circular-shift", (6,), (3,)),
    "sharpen": alone("sharpen", (6,), (1,)),
    "read-one": alone("read", (5,), (5, 3)),
    "allocation": alone("allocation", (6,)),
    "link": alone("link", (4, 4), (4,), (4,)),
    "directional": alone("directional", (4, 4), (2, 4)),
    "directional-transposed": alone("directional", (4, 4), (2, 4), transposed=1),
    "mix": alone("mix", (2, 3), (2, 4), (2, 4), (2, 4)),
}


def check_close(got: Arrays, wanted: Arrays) -> None:
    """Every tensor within 2e-5 of its greatest magnitude."""
    assert set(got) == set(wanted)
    for name, truth in wanted.items():
        assert got[name].shape == truth.shape, name
        limit = 2e-5 * max(float(np.abs(truth).max()), 0.1)
        np.testing.assert_allclose(got[name].astype(np.float64), truth, rtol=0, atol=limit, err_msg=name)


@pytest.mark.parametrize("model", ALONE.values(), ids=ALONE)
def test_layers_and_gradients_agree_with_the_truth(model: Model) -> None:
    tensors = {n: array.astype(np.float32) for n, array in {**draw_inputs(model), **draw_parameters(model)}.items()}
    before = {name: array.tobytes() for name, array in tensors.items()}
    program = JaxBackend().build_model(model, "f32")
    layers = values(model, tensors)
    check_close(program.intermediates(tensors), layers)
    check_close(program.forward(tensors), {"y": layers[model.output], "loss": layers["loss"]})
    wanted = {f"d_{name}": array for name, array in gradients(model, tensors, layers).items()}
    check_close(program.vjp(tensors, {"loss": np.ones((), np.float32)}), wanted)
    assert {name: array.tobytes() for name, array in tensors.items()} == before


def test_every_kind_of_layer_has_a_builder() -> None:
    assert set(BUILDERS) == set(KINDS)


def test_a_layer_of_unknown_kind_and_a_mask_that_is_not_given_are_refused_by_name() -> None:
    model = MODELS["mlp-relu"]
    odd = msgspec.structs.replace(model.layers[0], kind="odd")
    with pytest.raises(Unsupported, match=f"layer {odd.name}: jax has no layer of kind odd"):
        JaxBackend().build_model(msgspec.structs.replace(model, layers=(odd, *model.layers[1:])), "f32")
    with pytest.raises(Unsupported, match="layer it: jax has no dropout that draws its own mask"):
        JaxBackend().build_model(msgspec.structs.replace(alone("dropout", (7,), rate=0.4), training=True), "f32")


def test_the_text_says_what_computes_each_layer_once() -> None:
    text = JaxBackend().build_model(MODELS["mlp-relu"], "f32").implementation
    assert text.count("jnp.matmul(x, kernel) + bias") == 1
    assert "jax.nn.relu" in text
