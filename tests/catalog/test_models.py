"""The reference models: descriptions that cannot be are refused with layer and shapes, numbers the same on every machine."""

from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.feedforward import autoencoder
from actconform.catalog.models.layer_kinds import KINDS, LOSSES, same_pads
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.errors import DescriptionError
from actconform.plugin.validate import SAFE_NAME
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types.model import LOSS, Input

MODELS = networks()
BY_NAME = {model.name: model for model in MODELS}
SMALL = [model for model in MODELS if PUBLISHED not in model.name]
WANTED = """regression-softmax-hidden mlp-softmax mlp-relu image-cnn-softmax1 image-cnn-sigmoid image-cnn-softmax2 blobs-mlp
autoencoder-sigmoid autoencoder-relu autoencoder-linear attention-softmax attention-block ntm-addressing dnc-memory
multinomial-latent maxout-mlp"""
X = Input(name="x", shape=(6,), draw="normal")
TARGET = Input(name="target", shape=(2,), draw="normal", role="target")
DENSE = layer("y", "dense", "x", units=2)
MSE = layer(LOSS, "mean-squared-error", "y", "target")

each = pytest.mark.parametrize("model", MODELS, ids=list(BY_NAME))
each_small = pytest.mark.parametrize("model", SMALL, ids=[model.name for model in SMALL])


def described(*layers, inputs=(X, TARGET), output="y", **options):
    return describe("tried", "a test", inputs, layers, output=output, batch=3, **options)


# Refused descriptions


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"draw": "gauss"}, "input x: no way to draw is called 'gauss'"),
        ({"draw": "mask:2"}, "input x: it draws 'mask:2'; expected a rate for masks alone"),
        ({"draw": "mask"}, "it draws 'mask'"),
        ({"draw": "ids"}, "it draws 'ids'; .* a number for ids"),
        ({"draw": "ids:0"}, "it draws 'ids:0'"),
        ({"draw": "padding:3"}, "it draws 'padding:3'"),
        ({"draw": "normal:1"}, "it draws 'normal:1'"),
        ({"role": "foo"}, "input x: its role is 'foo'; expected data, target, noise"),
        ({"shape": (-4,)}, r"its shape without the batch is \(-4,\); expected positive integers"),
        ({"shape": ()}, "expected positive integers"),
        ({"shape": (True,)}, "expected positive integers"),
        ({"name": "a/b"}, "an input is called 'a/b': wanted lower case letters"),
        ({"name": "y.kernel"}, "an input is called 'y.kernel'"),
    ],
)
def test_an_input_that_cannot_be_is_refused(changed, said):
    given = Input(**{"name": "x", "shape": (6,), "draw": "normal", "role": "data", **changed})
    with pytest.raises(DescriptionError, match=f"model tried.*{said}"):
        described(DENSE, MSE, inputs=(given, TARGET))


@pytest.mark.parametrize("batch", [0, -1, True, 2.0])
def test_a_batch_that_is_no_positive_number_is_refused(batch):
    with pytest.raises(DescriptionError, match=f"model tried: its batch is {batch}; expected a positive integer"):
        describe("tried", "a test", (X, TARGET), [DENSE, MSE], output="y", batch=batch)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([layer("y", "dens", "x", units=2), MSE], ["layer y", "unknown kind 'dens'", "did you mean dense?"]),
        ([layer("y", "dense", "x", unit=2), MSE], ["layer y (dense)", "unknown setting 'unit'", "did you mean units"]),
        ([layer("y", "dense", "x"), MSE], ["layer y (dense)", "setting units is missing"]),
        ([layer("y", "dense", "x", "x", units=2), MSE], ["layer y (dense)", "reads 2 inputs; expected 1"]),
        ([layer("y", "dense", "xs", units=2), MSE], ["layer y (dense)", "reads 'xs'", "did you mean x?"]),
        ([DENSE, DENSE, MSE], ["two layers or inputs are called 'y'"]),
        ([layer("x", "dense", "x", units=2), DENSE, MSE], ["two layers or inputs are called 'x'"]),
        ([layer("Layer 1", "dense", "x", units=2), DENSE, MSE], ["'Layer 1'", "lower case letters"]),
        ([DENSE], ["expected one loss", "found []"]),
        ([DENSE, layer("cost", "mean-squared-error", "y", "target")], ["called 'loss'", "found ['cost']"]),
        ([DENSE, MSE, layer("second", "mean-absolute-error", "y", "target")], ["found ['loss', 'second']"]),
        ([DENSE, layer("cost", "mean-absolute-error", "y", "target"), MSE], ["found ['cost', 'loss']"]),
        ([DENSE, layer(LOSS, "affine", "y")], ["expected one loss", "found []"]),
        ([DENSE, MSE, layer("after", "affine", "y")], ["expected one loss, the last layer"]),
        ([layer("y", "dense", "x", units=3), MSE], ["layer loss (mean-squared-error)", "[3], [2]", "of one shape"]),
        ([layer("y", "dense", "x", units=0), MSE], ["layer y (dense)", "units is 0; expected a positive integer"]),
        (
            [layer("y", "dropout", "x", rate=1.0), MSE],
            ["layer y (dropout)", "rate is 1.0; expected a number in [0, 1)"],
        ),
        ([layer("y", "layer-norm", "x", epsilon=-1.0), MSE], ["epsilon is -1.0; expected a number that is not"]),
        ([layer("left", "affine", "x"), DENSE, MSE], ["nothing reads left"]),
        ([layer("y", "affine", "target"), MSE], ["nothing reads x"]),
        ([layer("y", "dense", "x", units=6), layer(LOSS, "mean-squared-error", "y", "x")], ["nothing reads target"]),
        ([DENSE, layer(LOSS, "mean-squared-error", "target", "y")], ["reads target, y", "to read a target, second"]),
        (
            [DENSE, layer("peek", "add", "y", "target"), layer(LOSS, "mean-squared-error", "peek", "target")],
            ["layer peek (add) reads y, target", "nothing else, to read a target"],
        ),
    ],
)
def test_a_description_that_cannot_be_is_refused_with_model_and_layer(layers, said):
    with pytest.raises(DescriptionError) as caught:
        described(*layers)
    assert str(caught.value).startswith("model tried")
    for part in said:
        assert part in str(caught.value)


def test_a_cycle_is_refused_with_its_layers():
    ring = [layer("a", "add", "x", "b"), layer("b", "affine", "c"), layer("c", "affine", "a")]
    with pytest.raises(DescriptionError, match="model tried: cyclic connection among") as caught:
        described(*ring, DENSE, MSE)
    for part in ("a (reads x, b)", "b (reads c)", "c (reads a)"):
        assert part in str(caught.value)
    assert "y (reads" not in str(caught.value)
    with pytest.raises(DescriptionError, match=r"cyclic connection among a \(reads a\)"):
        described(layer("a", "affine", "a"), DENSE, MSE)


def test_an_output_that_no_layer_bears_and_two_inputs_of_one_name_are_refused():
    with pytest.raises(DescriptionError, match="model tried: output 'yy' is no layer; did you mean y"):
        described(DENSE, MSE, output="yy")
    with pytest.raises(DescriptionError, match="output 'x' is no layer"):
        described(DENSE, MSE, output="x")  # an input is none
    with pytest.raises(DescriptionError, match="model tried: two inputs are called 'x'"):
        described(DENSE, MSE, inputs=(X, X, TARGET))
    for taken in ("y", "loss"):
        with pytest.raises(
            DescriptionError, match=f"model tried: an input is called '{taken}', as what the model gives"
        ):
            described(DENSE, MSE, inputs=(X, TARGET, msgspec.structs.replace(X, name=taken)))


@pytest.mark.parametrize(
    ("kind", "settings", "shapes", "expected"),
    [
        ("conv2d", {"filters": 2, "size": (3, 3)}, [(6, 6)], "(height, width, channels)"),
        ("conv2d", {"filters": 2, "size": (3, 3)}, [(2, 6, 1)], "an image of at least (3, 3)"),
        ("conv2d", {"filters": 2, "size": 3}, [(6, 6, 1)], "two positive integers"),
        ("max-pool", {"size": (2, 2), "strides": (0, 1)}, [(6, 6, 1)], "two positive integers"),
        ("max-pool", {"size": (2, 2), "padding": "full"}, [(6, 6, 1)], "'valid' or 'same'"),
        ("conv2d", {"filters": 2, "size": (3, 3), "dilations": (3, 1)}, [(6, 6, 1)], "an image of at least (7, 3)"),
        ("conv2d", {"filters": 2, "size": (3, 3), "dilations": (0, 1)}, [(6, 6, 1)], "two positive integers"),
        ("conv2d", {"filters": 4, "size": (3, 3), "groups": 2}, [(6, 6, 3)], "fall into 2 groups"),
        ("conv2d", {"filters": 3, "size": (3, 3), "groups": 2}, [(6, 6, 4)], "fall into 2 groups"),
        (
            "conv2d",
            {"filters": 3, "size": (3, 3), "groups": 0},
            [(6, 6, 4)],
            "groups is 0; expected a positive integer",
        ),
        ("conv2d-transpose", {"filters": 2, "size": (3, 3)}, [(6, 6)], "(height, width, channels)"),
        ("conv2d-transpose", {"filters": 2, "size": (3, 3), "padding": "full"}, [(6, 6, 1)], "'valid' or 'same'"),
        ("average-pool", {"size": (3, 3)}, [(2, 6, 1)], "an image of at least (3, 3)"),
        ("global-average-pool", {}, [(6,)], "(height, width, channels)"),
        ("bilinear-resize", {"size": (0, 2)}, [(6, 6, 1)], "two positive integers"),
        ("up-sampling", {"size": (2, 2)}, [(6,)], "(height, width, channels)"),
        ("dropout", {"rate": 0.5}, [(6,), (5,)], "a mask of the shape of x"),
        ("reshape", {"shape": (2, 2)}, [(6,)], "as many elements as (2, 2)"),
        ("activation", {"kernel": "glu"}, [(5,)], "an even last axis"),
        ("add", {}, [(6,), (5,)], "axes that are equal or 1"),
        ("add", {}, [(2, 3), (3, 2)], "axes that are equal or 1"),
        ("multiply", {}, [(6,), (1, 6)], "equal ranks"),
        ("attention", {}, [(3, 4), (5, 4), (6, 4)], "q (t, d), k (s, d), v (s, m)"),
        ("attention", {}, [(3, 4), (5, 3), (5, 4)], "q (t, d), k (s, d), v (s, m)"),
        ("attention", {}, [(3, 4), (5, 4), (5, 4), (3,)], "and a mask (s) if any"),
        ("masked-softmax", {}, [(3, 4), (4,)], "a mask of the shape of x"),
        ("group-norm", {"groups": 3, "epsilon": 1e-5}, [(2, 2, 4)], "channels a multiple of 3 groups"),
        ("instance-norm", {"epsilon": 1e-5}, [(5, 4)], "(height, width, channels)"),
        ("lstm", {"units": 2}, [(5,)], "(t, d)"),
        ("gru", {"units": 2}, [(5, 2, 2)], "(t, d)"),
        ("multi-head-attention", {"heads": 3}, [(5, 8)], "d a multiple of 3 heads"),
        ("cosine-similarity", {}, [(6, 4), (5,)], "(n, w), (r, w)"),
        ("cosine-similarity", {}, [(6, 4), (2, 5)], "(n, w), (r, w)"),
        ("interpolate", {}, [(2,), (6,), (6,)], "(n), (n), (n)"),
        ("circular-shift", {}, [(6,), (4,)], "k odd and at most n"),
        ("circular-shift", {}, [(6,), (7,)], "k odd and at most n"),
        ("sharpen", {}, [(6,), (6,)], "(n), (1)"),
        ("read", {}, [(5,), (6, 4)], "(r, n), (n, m)"),
        ("write", {}, [(6, 4), (6,), (4,), (5,)], "(n, m), (n), (m), (m)"),
        ("retention", {}, [(2,), (3, 6)], "(r), (r, n)"),
        ("usage", {}, [(6,), (6,), (5,)], "(n), (n), (n)"),
        ("allocation", {}, [(6, 1)], "(n)"),
        ("link", {}, [(6, 5), (6,), (6,)], "l (n, n), w (n), p (n)"),
        ("precedence", {}, [(6,), (5,)], "(n), (n)"),
        ("directional", {}, [(6, 6), (2, 5)], "(n, k), (r, n)"),
        ("mix", {}, [(2, 4), (2, 6), (2, 6), (2, 6)], "(r, 3), (r, n), (r, n), (r, n)"),
        ("mean-absolute-error", {}, [(6,), (1, 6)], "prediction and target of one shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_what_is_expected(kind, settings, shapes, expected):
    names = [f"in{number}" for number in range(len(shapes))]
    inputs = [Input(name=name, shape=shape, draw="normal") for name, shape in zip(names, shapes, strict=True)]
    name = LOSS if kind in LOSSES else "bad"
    with pytest.raises(DescriptionError) as caught:
        described(layer(name, kind, *names, **settings), inputs=inputs, output=name)
    said = str(caught.value)
    assert said.startswith(f"model tried, layer {name} ({kind}): ")
    assert expected in said
    if "its setting" not in said:
        assert ", ".join(str(list(shape)) for shape in shapes) in said


def test_every_kind_that_reads_several_inputs_has_a_refused_shape_above():
    tried = test_shapes_that_do_not_fit_are_refused_with_what_is_expected.pytestmark[0].args[1]
    alike = set(LOSSES)
    assert {kind for kind, rule in KINDS.items() if max(rule.inputs) > 1} - alike <= {case[0] for case in tried}


def test_the_autoencoder_as_written_loses_four_columns_and_does_not_fit_its_target():
    written = autoencoder("linear", published=True, as_written=True)
    assert written.shapes[written.output] == (1, 196, 4)
    whole = BY_NAME["autoencoder-linear@published"]
    assert whole.shapes[whole.output] == (1, 200, 4)
    with pytest.raises(DescriptionError, match=r"layer loss \(mean-absolute-error\): .*\[1, 196, 4\], \[1, 200, 4\]"):
        describe(written.name, "a test", whole.inputs, written.layers, output=written.output, batch=2)


# Accepted descriptions


def test_defaults_are_filled_in_and_parameters_named_after_their_layer():
    model = described(DENSE, MSE)
    assert model.layer("y").settings == {"units": 2, "init": "glorot_uniform", "bias": "near:0"}
    assert [(one.name, one.shape) for one in model.parameters] == [("y.kernel", (6, 2)), ("y.bias", (2,))]
    assert model.shapes == {"y": (2,), LOSS: ()}
    assert model.differentiable == ("x", "y.kernel", "y.bias")
    with pytest.raises(StopIteration):
        model.layer("z")


def test_statistics_of_batch_normalization_are_parameters_without_a_gradient():
    model = BY_NAME["image-cnn-softmax2"]
    kept = {one.name for one in model.parameters if not one.trainable}
    assert kept == {f"norm{number}.{name}" for number in (1, 2) for name in ("mean", "variance")}
    assert not kept & set(model.differentiable)


@given(st.randoms(use_true_random=False))
def test_layers_in_any_order_are_put_in_one_in_which_each_reads_what_stands_before_it(chance):
    known = BY_NAME["dnc-memory"]
    shuffled = chance.sample(known.layers, len(known.layers))
    model = describe(known.name, known.source, known.inputs, shuffled, output=known.output, batch=known.batch)
    ready = {one.name for one in model.inputs}
    for one in model.layers:
        assert ready.issuperset(one.inputs)
        ready.add(one.name)
    assert model.layers[-1].name == LOSS
    assert sorted(model.layers, key=lambda one: one.name) == sorted(known.layers, key=lambda one: one.name)
    assert model.shapes == known.shapes
    assert sorted(one.name for one in model.parameters) == sorted(one.name for one in known.parameters)


def test_an_order_that_is_one_is_kept():
    second, first = layer("second", "affine", "x"), layer("first", "affine", "x")
    both = [layer("sum", "add", "first", "second"), layer("y", "dense", "sum", units=2), MSE]
    assert [one.name for one in described(second, first, *both).layers] == ["second", "first", "sum", "y", LOSS]
    assert [one.name for one in described(first, second, *both).layers] == ["first", "second", "sum", "y", LOSS]


@given(length=st.integers(1, 60), window=st.integers(1, 9), stride=st.integers(1, 6))
def test_same_padding_is_the_least_that_makes_a_window_for_every_stride_as_in_tensorflow(length, window, stride):
    # https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2: ceil(length / stride) windows
    windows = len(range(0, length, stride))

    def fitting(total):
        return len(range(0, length + total - window + 1, stride))

    total = next(total for total in range(window + stride) if fitting(total) >= windows)
    assert fitting(total) == windows
    before, after = same_pads(length, window, stride)
    assert before + after == total
    assert before in (after, after - 1)


def test_the_shape_of_a_window_under_same_and_valid():
    inputs = (Input(name="x", shape=(7, 8, 3), draw="normal"), TARGET)
    shapes = {
        padding: described(
            layer("c", "conv2d", "x", filters=5, size=(3, 2), strides=(2, 3), padding=padding),
            layer("f", "flatten", "c"),
            layer("y", "dense", "f", units=2),
            MSE,
            inputs=inputs,
        ).shapes["c"]
        for padding in ("same", "valid")
    }
    assert shapes == {"same": (4, 3, 5), "valid": (3, 3, 5)}


# The networks


def test_the_wanted_models_are_there_in_both_sizes_under_safe_names():
    assert len(SMALL) >= 14
    assert len(BY_NAME) == len(MODELS)
    assert set(WANTED.split()) <= set(BY_NAME)
    assert {name + PUBLISHED for name in WANTED.split()} <= set(BY_NAME)
    for name in BY_NAME:
        assert SAFE_NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("regression-softmax-hidden@published", 487_221),
        ("regression-softmax-hidden@training@published", 487_221),
        ("mlp-softmax@published", 438_017),
        ("mlp-relu@published", 438_017),
    ],
)
def test_published_models_have_as_many_parameters_as_their_texts_count(name, count):
    assert sum(math.prod(one.shape) for one in BY_NAME[name].parameters) == count


@each
def test_every_layer_and_every_input_counts_for_the_loss(model):
    # otherwise there would be no gradient of it
    reached = {LOSS}
    for one in reversed(model.layers):
        if one.name in reached:
            reached |= set(one.inputs)
    assert reached == {one.name for one in (*model.layers, *model.inputs)}


@each
def test_only_the_loss_reads_targets(model):
    targets = {one.name for one in model.inputs if one.role == "target"}
    assert targets
    assert all(not targets & set(one.inputs) for one in model.layers[:-1])


@each
def test_dropout_reads_a_mask_of_its_own_rate_exactly_in_training(model):
    masks = {one.name: one for one in model.inputs if one.draw.startswith("mask")}
    for one in model.layers:
        if one.kind == "dropout":
            assert (len(one.inputs) == 2) is model.training
            for mask in one.inputs[1:]:
                assert masks[mask].draw == f"mask:{one.settings['rate']}"
                assert masks[mask].role == "noise"


@each
def test_the_source_is_told_and_the_output_has_the_shape_of_the_target(model):
    assert model.source
    assert model.shapes[model.output] == next(one.shape for one in model.inputs if one.role == "target")
    assert model.shapes[LOSS] == ()


# The numbers


def sha256(array: np.ndarray) -> str:
    assert array.dtype == np.float32
    return hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()


PINS = {
    ("regression-softmax-hidden", "x"): "0987f9eaf9f11dbb677b42e5482e1b40365210793df14dc88ac251bfff42ecc9",
    ("regression-softmax-hidden@training", "mask1"): "658bc25dc069fb2fdf6fa8a6070e62f4f8d7480a48680fb067d69b88363d1926",
    ("regression-softmax-hidden", "dense1.kernel"): "583423c8d43809f20e9300d5ad1a48c44d1dcc5b313714baabb77859a6714ce0",
    ("blobs-mlp", "dense1.kernel"): "6548e5cbf05e415135a49d93a05d1af7ec9d1add3d93b12a05931326ae77dac8",
    ("blobs-mlp", "target"): "7b4d96ada8ff00b9566e0d1d7a463030defd50cf98a55fdc63341babeab5d42e",
    ("image-cnn-sigmoid", "conv2.kernel"): "c3f6768b067875d4533fbe7c01d1758951aaaa2d3d4f800af9890d00c190c5e7",
    ("image-cnn-sigmoid", "target"): "7472a1a3ade1c12f2ffe2837ae401d69022dc0504bcf8274b4f49b9ad8b248c4",
    ("image-cnn-sigmoid", "norm1.variance"): "12c7b4c0c303fecfd61fdc0be8eaf05e5f3a4e48c8703da8a37a09e90656d4ff",
    ("ntm-addressing", "memory"): "f1b947f74bd381b2e5d76495d2b2627273df9894081f6e6340dc34361eff2ad0",
    ("ntm-addressing", "previous"): "2597e6f5554b779e6df78ab9e07dcdc660e16aa96dfb288f34caaa37f116e192",
    ("dnc-memory", "links"): "11fc734339f04dd371e526c2a4c25c4427d133e94d6e625d658e9e61dcbce0bc",
    ("attention-block", "attention.q-kernel"): "7ea0abb98a609d1101c30bd3013e9c5ac6d950713ef7051319429a565c66eceb",
}
GUMBEL = (2.43211293, -0.717105925, -0.0679304451)


@pytest.mark.parametrize(("model", "name"), PINS)
def test_every_machine_draws_the_same_bits(model, name):
    drawn = draw_inputs(BY_NAME[model]) | draw_parameters(BY_NAME[model])
    assert sha256(drawn[name]) == PINS[model, name]


def test_gumbel_noise_is_the_same_to_the_last_bits_of_a_logarithm():
    noise = draw_inputs(BY_NAME["multinomial-latent"])["noise"]
    assert_allclose(noise[0, :3], GUMBEL, rtol=3e-7)


@each_small
def test_every_tensor_is_finite_float32_of_its_shape_and_none_is_like_another(model):
    inputs, parameters = draw_inputs(model), draw_parameters(model)
    assert list(inputs) == [one.name for one in model.inputs]
    assert list(parameters) == [one.name for one in model.parameters]
    for one in model.inputs:
        assert inputs[one.name].shape == (model.batch, *one.shape)
    for one in model.parameters:
        assert parameters[one.name].shape == one.shape
    for array in (*inputs.values(), *parameters.values()):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    varied = [array.tobytes() for array in parameters.values() if array.size > 1 and array.any()]
    assert len(set(varied)) == len(varied)
