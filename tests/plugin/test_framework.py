"""What native backends share, on a framework that is Python's own math and a layer class of this file."""

from __future__ import annotations

import math

import onnx
import pytest

from actconform.catalog.kernels import KERNELS
from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.zoo import networks
from actconform.errors import DescriptionError, Unsupported
from actconform.onnx.author.exporter import author
from actconform.plugin import framework
from actconform.plugin.framework import (
    Composition,
    FrameworkBackend,
    LayerContext,
    Native,
    builder_of,
    error_line,
    exported,
    fate_of_subnormals,
    implement,
    refuse_without_gradient,
    register_implementations,
    thread_count,
    versions,
)
from actconform.types import Case, Kernel
from actconform.types.model import Input

MODELS = {model.name: model for model in networks()}
CUBE = Kernel(name="cube", definition="x^3", source="a test")


class Leaky:
    """A layer as a framework has it: made with its settings, then called."""

    def __init__(self, slope: float, dtype: str) -> None:
        self.slope, self.dtype = slope, dtype

    def __call__(self, x: float) -> tuple[float, str]:
        return max(x, self.slope * x), self.dtype


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register implementations for a framework that is there for one test alone."""
    monkeypatch.setattr(framework, "IMPLEMENTATIONS", {})
    register_implementations(
        "math",
        {
            "tanh": Native("math.tanh"),
            "softmax": Native("builtins.dict", {"axis": "axis"}, {"how": "none", "exact": False}),
            "exponential": Native("math.isclose", {}, {"rel_tol": 0.125, "b": 2.0}),
            "leaky-relu": Native(f"{__name__}.Leaky", {"slope": "alpha"}),
            "swish": Composition(
                "composition: x / (1 + math.exp(-{beta} x))", lambda x, beta: x / (1 + math.exp(-beta * x))
            ),
            "cube": Composition("composition: x ** 3", lambda x: x**3, prepare=abs),
        },
    )


@pytest.mark.usefixtures("table")
def test_what_a_program_says_of_itself_is_what_it_calls():
    assert implement("math", KERNELS["tanh"]).text == "math.tanh"
    assert implement("math", KERNELS["tanh"]).function(0.5) == math.tanh(0.5)
    assert implement("math", KERNELS["softmax"], dtype="f").text == "builtins.dict(axis=-1, how='none', exact=False)"
    close = implement("math", KERNELS["exponential"])
    assert close.text == "math.isclose(rel_tol=0.125, b=2)"
    assert close.function(1.8)
    swish = implement("math", KERNELS["swish"])
    assert swish.text == "composition: x / (1 + math.exp(-1.5 x))"
    assert swish.function(2.0) == 2.0 / (1 + math.exp(-3.0))


@pytest.mark.usefixtures("table")
def test_a_class_of_layers_is_made_with_the_layer_arguments():
    leaky = implement("math", KERNELS["leaky-relu"], dtype="float16")
    alpha = KERNELS["leaky-relu"].parameters["alpha"]
    assert leaky.function(-2.0) == (-2.0 * alpha, "float16")
    assert implement("math", CUBE, dtype="float16").function(3.0) == 27.0


@pytest.mark.usefixtures("table")
def test_another_plugin_adds_its_kernels_and_takes_no_name_that_is_taken():
    with pytest.raises(Unsupported, match="math has no implementation of kernel sigmoid"):
        implement("math", KERNELS["sigmoid"])
    with pytest.raises(Unsupported, match="other has no implementation of kernel cube"):
        implement("other", CUBE)
    register_implementations("math", {"sigmoid": Composition("composition: s", lambda _: 0.25)})
    assert implement("math", KERNELS["sigmoid"]).function(1.0) == 0.25
    assert implement("math", CUBE).prepare is abs
    with pytest.raises(ValueError, match="two implementations of kernel 'cube' for math"):
        register_implementations("math", {"relu": Native("math.tanh"), "cube": Native("math.tanh")})
    with pytest.raises(Unsupported):
        implement("math", KERNELS["relu"])


def test_a_layer_knows_its_shapes_settings_and_kernel():
    model = MODELS["image-cnn-sigmoid"]
    contexts = {each.name: LayerContext.of(model, each) for each in model.layers}
    first = next(each for each in model.layers if each.kind == "conv2d")
    image = model.inputs[0].shape
    assert contexts[first.name].shapes == (image,)
    assert contexts[first.name].shape == model.shapes[first.name]
    assert contexts[first.name].pair("size") == first.settings["size"]
    assert contexts[first.name].number("filters") == first.settings["filters"]
    assert contexts["head"].kernel == KERNELS["sigmoid"]
    assert [context.training for context in contexts.values()] == [False] * len(model.layers)
    assert LayerContext.of(MODELS["image-cnn-softmax2@training"], model.layers[0]).training


def test_a_kind_without_a_builder_is_unsupported():
    dense = MODELS["mlp-relu"].layers[0]
    assert builder_of(dense, {"dense": "built"}, "math") == "built"
    with pytest.raises(Unsupported, match=f"layer {dense.name}: math has no layer of kind dense here"):
        builder_of(dense, {}, "math")


def test_a_plugins_kernel_is_a_layer_by_itself_not_by_name():
    def model(kernel: object) -> object:
        inputs = [Input(name="x", shape=(4,), draw="normal"), Input(name="t", shape=(4,), draw="normal", role="target")]
        layers = [layer("act", "activation", "x", kernel=kernel), layer("loss", "mean-squared-error", "act", "t")]
        return describe("m", "a test", inputs, layers, output="act", batch=2)

    own = model(CUBE)
    assert LayerContext.of(own, own.layers[0]).kernel is CUBE
    with pytest.raises(
        DescriptionError, match=r"no built-in kernel is called 'cube'.*a plugin's kernel is given itself"
    ):
        model("cube")
    for kernel in ("prelu", "max", "hardmax", "softmax-axis1"):
        with pytest.raises(DescriptionError, match=f"its kernel '{kernel}' cannot be a layer; expected one input x"):
            model(kernel)


def test_a_framework_refuses_other_dtypes_and_gradients_that_there_are_not():
    class Math(FrameworkBackend):
        name = "math"

        def facts(self) -> dict[str, str]:
            return {}

    assert Math().kind == "framework"
    assert Math().supports(Case("relu", "value", "bf16", "math")).yes
    refused = Math().supports(Case("relu", "value", "f64", "math"))
    assert (refused.yes, refused.reason) == (False, "math runs f32, f16, bf16 here, not f64")
    refuse_without_gradient(KERNELS["relu"])
    with pytest.raises(Unsupported, match="kernel hardmax has no gradient, by declaration"):
        refuse_without_gradient(KERNELS["hardmax"])


@pytest.mark.parametrize("text", ["0", "two", "-1", ""])
def test_a_wrong_number_of_threads_is_named(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv("ACTCONFORM_THREADS", text)
    with pytest.raises(ValueError, match=f"ACTCONFORM_THREADS is '{text}': give the number of threads, 1 or more"):
        thread_count()


def test_threads_are_what_is_asked_for_and_one_by_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ACTCONFORM_THREADS", raising=False)
    assert thread_count() == 1
    monkeypatch.setenv("ACTCONFORM_THREADS", "3")
    assert thread_count() == 3


def test_facts_of_packages_subnormals_and_errors():
    assert versions("onnx", "a-package-that-is-nowhere") == {"onnx": onnx.__version__}
    assert (fate_of_subnormals(1e-40), fate_of_subnormals(0.0)) == ("kept", "flushed")
    assert error_line(TypeError("\n  no kernel\nfor bfloat16")) == "TypeError: no kernel"
    assert error_line(KeyError()) == "KeyError: no reason given"


def test_an_exported_graph_states_its_opset_and_ir_version():
    written = author(KERNELS["relu"], "f32")
    proto = onnx.load_model_from_string(written.model)
    artifact = exported(written.model, "convert")
    assert (artifact.model, artifact.path) == (written.model, "convert")
    assert (artifact.opset, artifact.ir_version) == (written.opset, proto.ir_version)
