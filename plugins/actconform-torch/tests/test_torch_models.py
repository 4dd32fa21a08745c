"""The small reference models in torch in 16 bits and exported, against the float64 truth; calls that leave no trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import msgspec
import numpy as np
import onnx
import pytest

from actconform import Unsupported
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.oracle.layers.model import values
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform_torch import TorchBackend, TorchDynamo, TorchScript
from actconform_torch import torch_module as module

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform import Artifact, Exporter, Model

    Arrays = dict[str, NDArray[Any]]

ort = pytest.importorskip("onnxruntime")

MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}
DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
ONE = {"loss": np.ones(())}

# A softmax of one unit is 1; where 0 is wanted the definition clips it, and torch.nn.BCELoss bounds its logarithm at -100.
BOUNDED = "image-cnn-softmax1"


@pytest.fixture(scope="module", autouse=True)
def torch() -> Any:
    return module.import_torch()


def drawn(model: Model, dtype: Any = np.float32) -> Arrays:
    return {name: array.astype(dtype) for name, array in {**draw_inputs(model), **draw_parameters(model)}.items()}


def check_close(got: Arrays, wanted: Arrays, tolerance: float) -> None:
    """Every tensor within `tolerance` of its greatest magnitude; a gradient that is zero by theory has none."""
    assert set(got) == set(wanted)
    for name, truth in wanted.items():
        assert got[name].shape == truth.shape, name
        limit = tolerance * max(float(np.abs(truth).max()), 0.1)
        np.testing.assert_allclose(got[name].astype(np.float64), truth, rtol=0, atol=limit, err_msg=name)


def truth_of(model: Model, tensors: Arrays) -> Arrays:
    layers = values(model, tensors)
    if model.name == BOUNDED:
        assert np.all(layers["head"] == 1)
        layers["loss"] = np.asarray(100.0 * np.mean(1 - tensors["target"].astype(np.float64)))
    return layers


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_sixteen_bits_run_or_are_refused_in_words(model: Model, dtype: str) -> None:
    tensors = drawn(model, DTYPES[dtype])
    program = TorchBackend().build_model(model, dtype)
    try:
        outputs = program.forward(tensors)
        pulled = program.vjp(tensors, {"loss": np.ones((), DTYPES[dtype])})
    except Unsupported as refusal:
        words = str(refusal)
        assert "not implemented" in words
    else:
        layers = truth_of(model, tensors)
        check_close(outputs, {"y": layers[model.output], "loss": layers["loss"]}, 0.1)
        assert set(pulled) == {f"d_{name}" for name in model.differentiable}


@pytest.mark.parametrize("name", ["regression-softmax-hidden@training", "image-cnn-softmax2@training"])
def test_building_and_calling_leave_no_trace(name: str, torch: Any) -> None:
    model, random = MODELS[name], torch.get_rng_state()
    tensors, other = drawn(model), drawn(model)
    other["x"] = other["x"] * 3 + 1
    program = TorchBackend().build_model(model, "f32")
    first, pulled = program.intermediates(tensors), program.vjp(tensors, ONE)
    program.forward(other)
    program.vjp(other, ONE)
    for again, before in ((program.intermediates(tensors), first), (program.vjp(tensors, ONE), pulled)):
        for one, array in before.items():
            np.testing.assert_array_equal(again[one], array, err_msg=one)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_what_comes_back_does_not_follow_what_was_given() -> None:
    model = MODELS["autoencoder-linear"]
    tensors = drawn(model)
    program = TorchBackend().build_model(model, "f32")
    shown, pulled = program.intermediates(tensors), program.vjp(tensors, ONE)
    kept = {name: array.copy() for name, array in {**shown, **pulled}.items()}
    for array in tensors.values():
        array[:] = 9.0
    for name, array in {**shown, **pulled}.items():
        np.testing.assert_array_equal(array, kept[name], err_msg=name)


def test_programs_say_what_computes_them() -> None:
    said = {name: TorchBackend().build_model(model, "f32").implementation for name, model in MODELS.items()}
    assert said["mlp-relu"] == "torch.nn.Linear, torch.nn.functional.relu, torch.nn.MSELoss"
    assert "torch.nn.MultiheadAttention" in said["attention-block"]
    assert "torch.nn.functional.scaled_dot_product_attention" in said["attention-softmax"]
    assert "composition: x * mask / (1 - 0.3)" in said["regression-softmax-hidden@training"]
    assert "torch.nn.BatchNorm2d" in said["image-cnn-softmax2"]
    assert "composition: -(target * torch.log(" in said["blobs-mlp"]
    assert all(text.startswith(("torch.", "composition: ")) for text in said.values())


def test_a_layer_of_an_unknown_kind_is_named() -> None:
    model = MODELS["linear-stack"]
    strange = msgspec.structs.replace(model.layers[0], kind="no-such")
    with pytest.raises(Unsupported, match="layer dense1: torch has no layer of kind no-such"):
        TorchBackend().build_model(msgspec.structs.replace(model, layers=(strange, *model.layers[1:])), "f32")


def run(artifact: Artifact, tensors: Arrays) -> Arrays:
    """Check the graph, and run it at another batch than it was exported at."""
    model = onnx.load_from_string(artifact.model)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(artifact.model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    given = {one.name: tensors[one.name] for one in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


def expected(layers: Arrays, model: Model) -> Arrays:
    shown = {f"layer.{name}": value for name, value in layers.items()}
    return {"y": layers[model.output], "loss": layers["loss"]} | shown


# An export by way of torch.export takes a second: one of each kind of network.
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(
    "name",
    [
        "regression-softmax-hidden@training",
        "image-cnn-sigmoid",
        "autoencoder-relu",
        "attention-block",
        "ntm-addressing",
    ],
)
def test_a_graph_of_dynamo_shows_every_layer(name: str) -> None:
    model = MODELS[name]
    tensors = drawn(model)
    artifact = TorchDynamo().export_model(model, "f32", None)
    names = [one.name for one in onnx.load_from_string(artifact.model).graph.input]
    assert names == [one.name for one in (*model.inputs, *model.parameters)]
    check_close(run(artifact, tensors), expected(truth_of(model, tensors), model), 1e-5)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(
    ("exporter", "names"),
    [
        (TorchScript, [name for name in MODELS if name not in ("dnc-memory", "image-windows", "masked-attention")]),
        (TorchDynamo, ["multinomial-latent", "maxout-mlp"]),
    ],
)
def test_a_shipped_graph_has_the_parameters_inside(exporter: type[Exporter], names: list[str]) -> None:
    for name in names:
        model = MODELS[name]
        artifact = exporter().export_model(model, "f32", draw_parameters(model))
        inputs = [one.name for one in onnx.load_from_string(artifact.model).graph.input]
        assert inputs == [one.name for one in model.inputs if one.role != "target"], name
        tensors = drawn(model)
        check_close(run(artifact, tensors), {"y": truth_of(model, tensors)[model.output]}, 1e-5)


@pytest.mark.filterwarnings("ignore::Warning")
def test_dynamo_exports_batch_normalization_in_the_wrong_mode_and_says_nothing() -> None:
    model = MODELS["image-cnn-softmax2@training"]
    tensors = drawn(model)
    shown = run(TorchDynamo().export_model(model, "f32", None), tensors)
    inference = values(msgspec.structs.replace(model, training=False), tensors)
    check_close(shown, expected(inference, model), 1e-5)
    training = values(model, tensors)
    check_close({"pool1": shown["layer.pool1"]}, {"pool1": training["pool1"]}, 1e-5)
    assert np.abs(shown["layer.norm1"] - training["norm1"]).max() > 0.1
    scripted = run(TorchScript().export_model(model, "f32", draw_parameters(model)), tensors)
    check_close(scripted, {"y": training["head"]}, 1e-5)


@pytest.mark.filterwarnings("ignore::Warning")
def test_dynamo_writes_an_invalid_graph_for_cross_entropy_of_probabilities() -> None:
    artifact = TorchDynamo().export_model(MODELS["maxout-mlp"], "f32", None)
    with pytest.raises(onnx.shape_inference.InferenceError, match="SoftmaxCrossEntropyLoss"):
        onnx.checker.check_model(onnx.load_from_string(artifact.model), full_check=True)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(
    ("exporter", "name", "shipped", "words"),
    [
        (TorchDynamo, "dnc-memory", True, r"^DispatchError: No ONNX function found for .*aten\.sort"),
        (TorchScript, "dnc-memory", True, r"^OnnxExporterError: .*Sort"),
        (TorchScript, "linear-stack", False, r"^RuntimeError: The stateless API can't be used with Jitted modules"),
    ],
)
def test_what_torch_does_not_export_is_said_in_its_words(
    exporter: type[Exporter], name: str, shipped: bool, words: str
) -> None:
    model = MODELS[name]
    with pytest.raises(Unsupported, match=words) as raised:
        exporter().export_model(model, "f32", draw_parameters(model) if shipped else None)
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_a_graph_has_the_dtype_asked_for(dtype: str) -> None:
    graph = onnx.load_from_string(TorchDynamo().export_model(MODELS["linear-stack"], dtype, None).model).graph
    wanted = {"f16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[dtype]
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {wanted}
