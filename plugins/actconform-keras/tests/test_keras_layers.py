"""Each kind of layer as Keras computes it, against the float64 formulas; what Keras's own layers do, as facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.layer_kinds import KINDS, LOSSES, same_pads
from actconform.oracle.layers.model import gradients, values
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types.model import Input, Model
from actconform_keras import KerasBackend
from actconform_keras.keras_module import keras_on
from actconform_keras.layers import BUILDERS, loss_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE = ((5, 7, 3),)
WINDOW = {"size": (2, 3), "strides": (2, 2)}

# A kind, what it reads, without the batch, its settings, and what its inputs are drawn from.
CASES: dict[str, tuple[str, tuple[tuple[int, ...], ...], dict[str, Any], str]] = {
    "dense": ("dense", ((4,),), {"units": 3}, "normal"),
    "dense of rows": ("dense", ((5, 4),), {"units": 3}, "normal"),
    "conv2d valid": ("conv2d", IMAGE, {"filters": 4, **WINDOW}, "normal"),
    "conv2d same": ("conv2d", IMAGE, {"filters": 4, **WINDOW, "padding": "same"}, "normal"),
    "conv2d dilated": (
        "conv2d",
        IMAGE,
        {"filters": 4, "size": (2, 3), "dilations": (2, 2), "padding": "same"},
        "normal",
    ),
    "conv2d grouped": ("conv2d", ((5, 7, 4),), {"filters": 6, **WINDOW, "groups": 2, "padding": "same"}, "normal"),
    "conv2d depthwise": ("conv2d", IMAGE, {"filters": 6, **WINDOW, "groups": 3, "padding": "same"}, "normal"),
    "conv2d-transpose": (
        "conv2d-transpose",
        IMAGE,
        {"filters": 4, "size": (3, 4), "strides": (2, 3), "padding": "same"},
        "normal",
    ),
    "conv2d-transpose with gaps": (
        "conv2d-transpose",
        IMAGE,
        {"filters": 4, "size": (1, 2), "strides": (2, 3)},
        "normal",
    ),
    "average-pool valid": ("average-pool", IMAGE, WINDOW, "normal"),
    "average-pool same": ("average-pool", IMAGE, {"size": (3, 2), "strides": (2, 2), "padding": "same"}, "normal"),
    "global-average-pool": ("global-average-pool", IMAGE, {}, "normal"),
    "bilinear-resize": ("bilinear-resize", IMAGE, {"size": (8, 4)}, "normal"),
    "max-pool valid": ("max-pool", IMAGE, WINDOW, "normal"),
    "max-pool same": ("max-pool", IMAGE, {**WINDOW, "padding": "same"}, "normal"),
    "up-sampling": ("up-sampling", IMAGE, {"size": (2, 3)}, "normal"),
    "batch-norm": ("batch-norm", ((4,),), {"epsilon": 1e-2, "momentum": 0.9}, "normal"),
    "batch-norm of images": ("batch-norm", IMAGE, {"epsilon": 1e-2, "momentum": 0.9}, "normal"),
    "layer-norm": ("layer-norm", ((5, 4),), {"epsilon": 1e-2}, "normal"),
    "group-norm": ("group-norm", ((5, 7, 4),), {"groups": 2, "epsilon": 1e-2}, "normal"),
    "instance-norm": ("instance-norm", IMAGE, {"epsilon": 1e-2}, "normal"),
    "rms-norm": ("rms-norm", ((5, 4),), {"epsilon": 1e-2}, "normal"),
    "l2-normalize": ("l2-normalize", ((5, 4),), {}, "normal"),
    "l2-normalize of short rows": ("l2-normalize", ((5, 4),), {"epsilon": 1.0}, "unit"),
    "embedding": ("embedding", ((5,),), {"tokens": 3, "units": 4}, "ids:3"),
    "lstm": ("lstm", ((5, 3),), {"units": 4}, "normal"),
    "gru": ("gru", ((5, 3),), {"units": 4}, "normal"),
    "masked-softmax": ("masked-softmax", ((5,), (5,)), {}, "normal"),
    "attention with a mask": ("attention", ((5, 4), (3, 4), (3, 2), (3,)), {}, "normal"),
    "dropout": ("dropout", ((4,),), {"rate": 0.3}, "normal"),
    "flatten": ("flatten", IMAGE, {}, "normal"),
    "reshape": ("reshape", ((6,),), {"shape": (2, 3)}, "normal"),
    "activation": ("activation", ((4,),), {"kernel": "tanh"}, "normal"),
    "activation that is a layer": ("activation", ((4,),), {"kernel": "leaky-relu-0.3"}, "normal"),
    "activation of rows": ("activation", ((5, 4),), {"kernel": "log-softmax"}, "normal"),
    "activation that halves": ("activation", ((5, 4),), {"kernel": "glu"}, "normal"),
    "activation of pieces": ("activation", ((5, 4),), {"kernel": "maxout"}, "normal"),
    "add": ("add", ((5, 4), (1, 4)), {}, "normal"),
    "multiply": ("multiply", ((5, 4), (5, 1)), {}, "normal"),
    "affine": ("affine", ((4,),), {"scale": 2.0, "shift": -1.0}, "normal"),
    "attention": ("attention", ((5, 4), (3, 4), (3, 2)), {}, "normal"),
    "multi-head-attention": ("multi-head-attention", ((5, 6),), {"heads": 3}, "normal"),
    "cosine-similarity": ("cosine-similarity", ((5, 4), (4,)), {}, "normal"),
    "cosine-similarity of heads": ("cosine-similarity", ((5, 4), (2, 4)), {}, "normal"),
    "interpolate": ("interpolate", ((1,), (4,), (4,)), {}, "unit"),
    "interpolate each": ("interpolate", ((4,), (4,), (4,)), {}, "unit"),
    "circular-shift": ("circular-shift", ((6,), (5,)), {}, "softmax"),
    "sharpen": ("sharpen", ((5,), (1,)), {}, "unit"),
    "read": ("read", ((5,), (5, 4)), {}, "normal"),
    "read of heads": ("read", ((2, 5), (5, 4)), {}, "normal"),
    "write": ("write", ((5, 4), (5,), (4,), (4,)), {}, "unit"),
    "retention": ("retention", ((3,), (3, 5)), {}, "unit"),
    "usage": ("usage", ((5,), (5,), (5,)), {}, "unit"),
    "allocation": ("allocation", ((6,),), {}, "unit"),
    "link": ("link", ((5, 5), (5,), (5,)), {}, "unit"),
    "precedence": ("precedence", ((5,), (5,)), {}, "unit"),
    "directional": ("directional", ((5, 5), (2, 5)), {}, "unit"),
    "directional transposed": ("directional", ((5, 5), (2, 5)), {"transposed": 1}, "unit"),
    "mix": ("mix", ((2, 3), (2, 5), (2, 5), (2, 5)), {}, "unit"),
}
OF_FLOAT32 = ("attention", "multi-head-attention", "bilinear-resize")  # their softmax, or image, is taken in float32


@pytest.fixture(scope="module", autouse=True)
def keras() -> Any:
    keras_on("tensorflow")
    import keras

    return keras


def model_of(case: str, *, training: bool = False) -> Model:
    """Return the model of one layer and a loss that weighs its elements differently."""
    kind, shapes, settings, draw = CASES[case]
    role = "noise" if draw.startswith("ids") else "data"
    inputs = [Input(name=f"x{n}", shape=shape, draw=draw, role=role) for n, shape in enumerate(shapes)]
    masks = {"masked-softmax": 1, "attention": 3}.get(kind, len(shapes))
    inputs[masks:] = [Input(name="mask", shape=shape, draw="padding", role="noise") for shape in shapes[masks:]]
    if kind == "dropout" and training:
        inputs.append(Input(name="mask", shape=shapes[0], draw="mask:0.3", role="noise"))
    only = layer("only", kind, *(one.name for one in inputs), **settings)
    shape = KINDS[kind].shape(layer("only", kind, **{**KINDS[kind].settings, **settings}), shapes)
    inputs.append(Input(name="target", shape=shape, draw="normal", role="target"))
    loss = layer("loss", "mean-squared-error", "only", "target")
    return describe("one", "a test", inputs, [only, loss], output="only", batch=3, training=training)


def numbers(model: Model, dtype: Any = np.float64) -> dict[str, NDArray[Any]]:
    return {name: array.astype(dtype) for name, array in (draw_inputs(model) | draw_parameters(model)).items()}


def assert_as_the_truth(model: Model, tolerance: float) -> None:
    tensors = numbers(model)
    program = KerasBackend().build_model(model, "f64")
    truth = values(model, tensors)
    intermediates = program.intermediates(tensors)
    assert set(intermediates) == set(truth)
    for name, wanted in truth.items():
        np.testing.assert_allclose(intermediates[name], wanted, rtol=tolerance, atol=tolerance, err_msg=name)
    for name, wanted in gradients(model, tensors, truth).items():
        got = program.vjp(tensors, {"loss": np.array(1.0)})[f"d_{name}"]
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance, err_msg=f"d_{name}")


def test_every_kind_is_among_the_cases() -> None:
    assert {kind for kind, *_ in CASES.values()} == set(KINDS) - set(LOSSES) == set(BUILDERS)


@pytest.mark.parametrize("case", CASES)
def test_a_layer_agrees_with_its_formula(case: str) -> None:
    assert_as_the_truth(model_of(case), 1e-6 if CASES[case][0] in OF_FLOAT32 else 1e-10)


@pytest.mark.parametrize("case", ["batch-norm", "batch-norm of images", "dropout"])
def test_a_layer_in_training_agrees_with_its_formula(case: str) -> None:
    assert_as_the_truth(model_of(case, training=True), 1e-10)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_agrees_with_its_formula(kind: str) -> None:
    shape = (4, 3)
    inputs = [
        Input(name="x", shape=shape, draw="softmax"),
        Input(name="target", shape=shape, draw="one-hot", role="target"),
    ]
    layers = [layer("only", "affine", "x", scale=0.75), layer("loss", kind, "only", "target")]
    assert_as_the_truth(describe("one", "a test", inputs, layers, output="only", batch=3), 1e-10)


def test_tied_usage_is_allocated_in_order() -> None:
    model = model_of("allocation")
    tensors = numbers(model) | {"x0": np.array([[0.5, 0.25, 0.5, 0.25, 0.5, 0.25]] * 3)}
    got = KerasBackend().build_model(model, "f64").forward(tensors)["y"]
    np.testing.assert_allclose(got, values(model, tensors)["only"], rtol=1e-12)


# Facts about Keras: what users get who say nothing, and conventions that other frameworks do not share.


def test_the_default_epsilon_of_normalizations_is_a_thousandth(keras: Any) -> None:
    x = np.array([[0.0, 0.02], [0.02, 0.0]], np.float32)  # the variance is 1e-4
    wanted = np.array([[-1.0, 1.0], [1.0, -1.0]]) * 0.01 / np.sqrt(1e-4 + 1e-3)
    np.testing.assert_allclose(keras.layers.LayerNormalization()(x), wanted, rtol=1e-3)
    np.testing.assert_allclose(keras.layers.BatchNormalization()(x, training=True), wanted, rtol=1e-3)


def test_batch_normalization_keeps_99_hundredths_and_a_biased_variance(keras: Any) -> None:
    x = np.array([[1.0], [4.0]], np.float32)
    norm = keras.layers.BatchNormalization()
    norm(x, training=True)
    np.testing.assert_allclose(norm.moving_mean, [0.99 * 0.0 + 0.01 * 2.5], rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, [0.99 * 1.0 + 0.01 * 2.25], rtol=1e-5)


def test_the_own_dropout_keeps_its_fraction_and_the_mean(keras: Any) -> None:
    rate, n = 0.3, 40_000
    got = np.asarray(keras.layers.Dropout(rate, seed=7)(np.ones((8, n // 8), np.float32), training=True))
    kept = got != 0.0
    np.testing.assert_allclose(got[kept], 1 / (1 - rate), rtol=1e-6)
    sigma = np.sqrt(rate * (1 - rate) / n)
    assert abs(kept.mean() - (1 - rate)) < 5 * sigma
    assert abs(got.mean() - 1.0) < 5 * sigma / (1 - rate)


def test_binary_cross_entropy_clips_at_1e_7() -> None:
    text, loss = loss_of("binary-cross-entropy", "float32")
    assert text == "BinaryCrossentropy"
    zero, one = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    assert 16.1 < float(loss(one, zero)) < 16.13  # -log(1e-7)
    assert 15.9 < float(loss(zero, one)) < 15.96  # -log(2**-23): 1 - 1e-7 rounds to 1 - 2**-23
    assert 0.0 <= float(loss(one, one)) < 2e-7


def test_binary_cross_entropy_takes_the_logits_of_a_softmax_for_those_of_a_sigmoid(keras: Any) -> None:
    loss = keras.losses.BinaryCrossentropy()
    z, target = np.array([[-2.0], [3.0]], np.float32), np.array([[1.0], [0.0]], np.float32)
    with pytest.warns(UserWarning, match="This axis has size 1"):
        p = keras.activations.softmax(keras.ops.convert_to_tensor(z))
    np.testing.assert_array_equal(p, [[1.0], [1.0]])
    of_sigmoid = np.mean(np.log1p(np.exp(z)) - target * z)
    np.testing.assert_allclose(float(loss(target, p)), of_sigmoid, rtol=1e-5)
    np.testing.assert_allclose(float(loss(target, np.asarray(p))), -np.log(2.0**-23) / 2, rtol=1e-3)


def test_up_sampling_repeats(keras: Any) -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(keras.layers.UpSampling2D((2, 3))(x), x.repeat(2, axis=1).repeat(3, axis=2))


@pytest.mark.parametrize("length", [5, 6, 7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [2, 3, 5])
def test_same_padding_of_strided_windows(keras: Any, length: int, stride: int, window: int) -> None:
    x = np.random.default_rng(1).normal(size=(1, 1, length, 2)).astype(np.float32)
    before, after = same_pads(length, window, stride)
    moves: dict[str, Any] = {"strides": (1, stride)}
    same = keras.layers.Conv2D(3, (1, window), padding="same", **moves)
    y = np.asarray(same(x))
    valid = keras.layers.Conv2D(3, (1, window), **moves)
    padded = np.pad(x, ((0, 0), (0, 0), (before, after), (0, 0)))
    valid.build(padded.shape)
    valid.set_weights(same.get_weights())
    np.testing.assert_allclose(y, valid(padded), rtol=1e-4, atol=1e-5)
    lowest = np.pad(x, ((0, 0), (0, 0), (before, after), (0, 0)), constant_values=-np.inf)
    pooled = keras.layers.MaxPooling2D((1, window), padding="same", **moves)(x)
    np.testing.assert_array_equal(pooled, keras.layers.MaxPooling2D((1, window), **moves)(lowest))


def test_the_attention_layer_does_not_scale(keras: Any) -> None:
    q, k = np.full((1, 1, 4), 1.0, np.float32), np.eye(4, dtype=np.float32)[None] * 3.0
    k[0, 0] *= 2
    weights = np.exp([6.0, 3.0, 3.0, 3.0])
    got = keras.layers.Attention()([q, k, k])
    np.testing.assert_allclose(got, (weights / weights.sum() @ k[0])[None, None], rtol=1e-5)
