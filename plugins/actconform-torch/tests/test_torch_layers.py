"""Every kind of layer in torch against the float64 truth, in shapes that the networks do not have; what torch does otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from actconform import Unsupported
from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.layer_kinds import KINDS, LOSSES
from actconform.oracle.layers.model import gradients, values
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types.model import Input
from actconform_torch import TorchBackend
from actconform_torch import torch_module as module
from actconform_torch.layers import BUILDERS
from actconform_torch.models import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform import Model

    Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module", autouse=True)
def torch() -> Any:
    return module.import_torch()


def alone(kind: str, *shapes: tuple[int, ...], draw: str = "unit", training: bool = False, **settings: Any) -> Model:
    """One layer, called "it", whose value is squared against a target of zeros-and-ones."""
    inputs = [Input(name=f"x{number}", shape=shape, draw=draw) for number, shape in enumerate(shapes)]
    if kind == "dropout":
        inputs[1:] = [Input(name="mask", shape=shape, draw="mask:0.4", role="noise") for shape in shapes[1:]]
    if kind == "embedding":
        inputs = [Input(name="ids", shape=shapes[0], draw=f"ids:{settings['tokens']}", role="noise")]
    masks = {"masked-softmax": 1, "attention": 3}.get(kind, len(shapes))
    inputs[masks:] = [Input(name="mask", shape=shape, draw="padding", role="noise") for shape in shapes[masks:]]
    settings = {**KINDS[kind].settings, **settings}
    it = layer("it", kind, *(one.name for one in inputs), **settings)
    shape = KINDS[kind].shape(it, shapes)
    target = Input(name="target", shape=shape, draw="binary", role="target")
    layers = [it, layer("loss", "mean-squared-error", "it", "target")]
    return describe(f"only-{kind}", "test", [*inputs, target], layers, output="it", batch=3, training=training)


def loss(kind: str, shape: tuple[int, ...], draw: str, target: str) -> Model:
    inputs = [Input(name="x", shape=shape, draw=draw), Input(name="target", shape=shape, draw=target, role="target")]
    layers = [layer("it", "affine", "x"), layer("loss", kind, "it", "target")]
    return describe(f"only-{kind}", "test", inputs, layers, output="it", batch=3)


IMAGE = (5, 6, 4)
ALONE = {
    "dense-of-an-image": alone("dense", IMAGE, units=3),
    "dense-of-rows": alone("dense", (5, 4), units=3),
    "conv-valid-strided": alone("conv2d", IMAGE, filters=2, size=(2, 3), strides=(2, 1)),
    "conv-same-even": alone("conv2d", IMAGE, filters=2, size=(4, 2), padding="same"),
    "conv-same-strided": alone("conv2d", IMAGE, filters=2, size=(3, 3), strides=(2, 2), padding="same"),
    "conv-same-strided-one-side": alone("conv2d", IMAGE, filters=2, size=(2, 3), strides=(2, 2), padding="same"),
    "conv-dilated": alone("conv2d", IMAGE, filters=3, size=(2, 2), dilations=(2, 3), padding="same"),
    "conv-dilated-strided": alone("conv2d", (9, 8, 4), filters=2, size=(3, 2), dilations=(2, 3), strides=(2, 2)),
    "conv-grouped": alone("conv2d", IMAGE, filters=6, size=(3, 2), groups=2, strides=(2, 1), padding="same"),
    "conv-depthwise": alone("conv2d", IMAGE, filters=8, size=(3, 3), groups=4, padding="same"),
    "transposed-valid": alone("conv2d-transpose", IMAGE, filters=3, size=(3, 2), strides=(2, 2)),
    "transposed-valid-with-gaps": alone("conv2d-transpose", IMAGE, filters=3, size=(1, 2), strides=(2, 3)),
    "transposed-same": alone("conv2d-transpose", IMAGE, filters=3, size=(4, 5), strides=(2, 1), padding="same"),
    "transposed-same-one-side": alone(
        "conv2d-transpose", IMAGE, filters=3, size=(3, 4), strides=(2, 3), padding="same"
    ),
    "transposed-same-with-gaps": alone(
        "conv2d-transpose", IMAGE, filters=3, size=(2, 3), strides=(3, 2), padding="same"
    ),
    "average-valid": alone("average-pool", IMAGE, size=(2, 3), strides=(2, 2), draw="normal"),
    "average-same": alone("average-pool", IMAGE, size=(3, 3), padding="same", draw="normal"),
    "average-same-one-side": alone(
        "average-pool", (5, 5, 4), size=(3, 2), strides=(2, 2), padding="same", draw="normal"
    ),
    "global-average": alone("global-average-pool", IMAGE, draw="normal"),
    "resize-larger": alone("bilinear-resize", IMAGE, size=(10, 7), draw="normal"),
    "resize-smaller": alone("bilinear-resize", IMAGE, size=(2, 3), draw="normal"),
    "pool-valid": alone("max-pool", IMAGE, size=(2, 3), strides=(2, 2), draw="normal"),
    "pool-same": alone("max-pool", (5, 5, 4), size=(3, 3), strides=(2, 2), padding="same", draw="normal"),
    "pool-same-one-side": alone("max-pool", IMAGE, size=(2, 3), strides=(2, 2), padding="same", draw="normal"),
    "up-sampling": alone("up-sampling", IMAGE, size=(2, 3)),
    **{
        f"batch-norm-{len(shape)}{'-training' * training}": alone(
            "batch-norm", shape, epsilon=1e-2, momentum=0.9, training=training
        )
        for shape in (IMAGE, (5, 4), (4,))
        for training in (False, True)
    },
    "group-norm": alone("group-norm", IMAGE, groups=2, epsilon=1e-2),
    "instance-norm": alone("instance-norm", IMAGE, epsilon=1e-2),
    "rms-norm-of-an-image": alone("rms-norm", IMAGE, epsilon=1e-2),
    "l2-normalize-of-an-image": alone("l2-normalize", IMAGE),
    "l2-normalize-of-short-rows": alone("l2-normalize", (5, 4), epsilon=1.0),
    "embedding": alone("embedding", (5,), tokens=3, units=4),
    "embedding-of-rows": alone("embedding", (2, 5), tokens=3, units=4),
    "lstm": alone("lstm", (5, 3), units=4, draw="normal"),
    "gru": alone("gru", (5, 3), units=4, draw="normal"),
    "masked-softmax": alone("masked-softmax", (5,), (5,), draw="normal"),
    "masked-softmax-of-an-image": alone("masked-softmax", IMAGE, IMAGE, draw="normal"),
    "attention-masked": alone("attention", (5, 4), (6, 4), (6, 3), (6,), draw="normal"),
    "layer-norm-of-an-image": alone("layer-norm", IMAGE, epsilon=1e-2),
    "dropout": alone("dropout", (4,), rate=0.4),
    "dropout-of-an-image": alone("dropout", IMAGE, IMAGE, rate=0.4, training=True),
    "flatten": alone("flatten", IMAGE),
    "reshape-to-an-image": alone("reshape", (5, 8), shape=(2, 4, 5)),
    "reshape-of-an-image": alone("reshape", IMAGE, shape=(8, 15)),
    **{f"{name}-of-an-image": alone("activation", IMAGE, kernel=name) for name in ("softmax", "glu", "maxout", "mish")},
    "add": alone("add", IMAGE, (1, 6, 1)),
    "multiply": alone("multiply", IMAGE, (5, 1, 4)),
    "affine": alone("affine", IMAGE, scale=-2.0, shift=3.0),
    "attention": alone("attention", (5, 4), (6, 4), (6, 3), draw="normal"),
    "multi-head-attention": alone("multi-head-attention", (5, 6), heads=3, draw="normal"),
    "cosine-similarity": alone("cosine-similarity", (5, 4), (4,), draw="normal"),
    "cosine-similarity-of-heads": alone("cosine-similarity", (5, 4), (2, 4), draw="normal"),
    "interpolate": alone("interpolate", (5,), (5,), (5,)),
    "circular-shift": alone("circular-shift", (7,), (5,)),
    "sharpen": alone("sharpen", (5,), (1,)),
    "read": alone("read", (5,), (5, 4)),
    "read-of-heads": alone("read", (2, 5), (5, 4)),
    "write": alone("write", (5, 4), (5,), (4,), (4,)),
    "retention": alone("retention", (2,), (2, 5)),
    "usage": alone("usage", (5,), (5,), (5,)),
    "allocation": alone("allocation", (5,)),
    "link": alone("link", (5, 5), (5,), (5,)),
    "precedence": alone("precedence", (5,), (5,)),
    "directional": alone("directional", (5, 5), (2, 5)),
    "directional-transposed": alone("directional", (5, 5), (2, 5), transposed=1),
    "mix": alone("mix", (2, 3), (2, 5), (2, 5), (2, 5)),
    "mean-squared-error": loss("mean-squared-error", IMAGE, "normal", "normal"),
    "mean-absolute-error": loss("mean-absolute-error", IMAGE, "normal", "normal"),
    "binary-cross-entropy": loss("binary-cross-entropy", IMAGE, "unit", "binary"),
    "binary-cross-entropy-from-logits": loss("binary-cross-entropy-from-logits", IMAGE, "normal", "unit"),
    "categorical-cross-entropy": loss("categorical-cross-entropy", IMAGE, "unit", "softmax"),
    "categorical-cross-entropy-from-logits": loss("categorical-cross-entropy-from-logits", IMAGE, "normal", "softmax"),
}


def drawn(model: Model) -> Arrays:
    return {name: array.astype(np.float64) for name, array in {**draw_inputs(model), **draw_parameters(model)}.items()}


def test_every_kind_has_a_layer_and_is_tried() -> None:
    assert set(BUILDERS) == set(KINDS)
    assert {one.kind for model in ALONE.values() for one in model.layers} == set(KINDS)
    assert set(LOSSES) <= set(ALONE)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("model", ALONE.values(), ids=ALONE)
def test_a_layer_alone_agrees_with_the_truth_in_float64(model: Model) -> None:
    tensors = drawn(model)
    program = TorchBackend().build_model(model, "f32")
    truth = values(model, tensors)
    shown = program.intermediates(tensors)
    assert list(shown) == list(truth)
    for name, wanted in truth.items():
        np.testing.assert_allclose(shown[name], wanted, rtol=1e-10, atol=1e-12, err_msg=name)
    got = program.vjp(tensors, {"loss": np.asarray(-2.0)})
    for name, wanted in gradients(model, tensors, truth).items():
        np.testing.assert_allclose(got[f"d_{name}"], -2.0 * wanted, rtol=1e-10, atol=1e-12, err_msg=name)


def test_an_average_that_torch_cannot_pad_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"layer it: torch\.nn\.AvgPool2d pads both sides alike"):
        TorchBackend().build_model(alone("average-pool", IMAGE, size=(2, 3), padding="same"), "f32")


def test_ties_of_usage_are_allocated_in_their_order() -> None:
    model = alone("allocation", (20,))
    tensors = drawn(model) | {"x0": np.full((3, 20), 0.5)}
    allocation = TorchBackend().build_model(model, "f32").forward(tensors)["y"]
    np.testing.assert_allclose(allocation, np.broadcast_to(0.5 ** np.arange(1, 21), (3, 20)))


def test_torch_counts_momentum_the_other_way_and_keeps_the_unbiased_variance(torch: Any) -> None:
    model = alone("batch-norm", (4,), epsilon=1e-2, momentum=0.9, training=True, draw="normal")
    tensors = drawn(model)
    network = Network(model)
    state = network.state({name: torch.from_numpy(array) for name, array in tensors.items()})
    mean, variance = (state[f"layers.layer-it.0.running_{name}"] for name in ("mean", "var"))
    torch.func.functional_call(
        network.module, state, ({name: torch.from_numpy(tensors[name]) for name in ("x0", "target")},)
    )
    x = tensors["x0"]
    np.testing.assert_allclose(mean, 0.9 * tensors["it.mean"] + 0.1 * x.mean(axis=0))
    unbiased, biased = (0.9 * tensors["it.variance"] + 0.1 * x.var(axis=0, ddof=ddof) for ddof in (1, 0))
    np.testing.assert_allclose(variance, unbiased)
    assert not np.allclose(variance, biased, rtol=1e-3)  # what the layer itself divides by


def test_dropout_of_torch_keeps_the_part_it_should_and_scales_it(torch: Any) -> None:
    rate, n = 0.3, 200_000
    with torch.random.fork_rng():
        torch.manual_seed(20)
        y = torch.nn.Dropout(rate).train()(torch.ones(n, dtype=torch.float64)).numpy()
    assert set(np.unique(y)) == {0.0, 1 / (1 - rate)}
    kept = np.count_nonzero(y) / n
    sigma = np.sqrt(rate * (1 - rate) / n)
    assert abs(kept - (1 - rate)) < 5 * sigma
    assert abs(y.mean() - 1) < 5 * sigma / (1 - rate)


def test_dropout_in_training_wants_a_mask() -> None:
    with pytest.raises(
        Unsupported, match=r"layer it: torch\.nn\.Dropout draws its own mask in training; give the layer a mask"
    ):
        TorchBackend().build_model(msgspec.structs.replace(alone("dropout", (4,), rate=0.4), training=True), "f32")


@pytest.mark.parametrize(("p", "target"), [(0.0, 1.0), (1.0, 0.0)])
def test_binary_cross_entropy_of_torch_is_bounded_at_100(p: float, target: float) -> None:
    model = loss("binary-cross-entropy", (1,), "unit", "binary")
    tensors = {"x": np.full((3, 1), p), "target": np.full((3, 1), target)}
    assert TorchBackend().build_model(model, "f32").forward(tensors)["loss"] == 100
    assert values(model, tensors)["loss"] < 17  # the definition clips p at 1e-7


def test_cosine_similarity_of_torch_has_an_answer_for_a_key_of_zeros() -> None:
    model = alone("cosine-similarity", (5, 4), (4,), draw="normal")
    tensors = drawn(model) | {"x1": np.zeros((3, 4))}
    np.testing.assert_array_equal(TorchBackend().build_model(model, "f32").forward(tensors)["y"], np.zeros((3, 5)))


def test_an_unknown_kernel_is_named() -> None:
    known = alone("activation", (4,), kernel="tanh")
    it = msgspec.structs.replace(known.layer("it"), settings={"kernel": "no-such"})
    model = msgspec.structs.replace(known, layers=(it, *known.layers[1:]))
    with pytest.raises(Unsupported, match="layer it: no built-in kernel is called 'no-such'"):
        TorchBackend().build_model(model, "f32")
