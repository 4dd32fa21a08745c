"""The reference models of Keras's own layers in 16 bits and exported, against the float64 truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import msgspec
import numpy as np
import onnx
import pytest

from actconform import Artifact, Case, Exporter, Model, Unsupported
from actconform.catalog.models.feedforward import autoencoder
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.onnx.gates import inspect_model
from actconform.oracle.layers.model import values
from actconform.plugin.builtin import Builtin
from actconform.plugin.loader import load_plugins
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.workers.protocol import Call, Job
from actconform.workers.session import Session
from actconform_keras import KerasBackend, KerasExport, Tf2Onnx, plugin

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}
DTYPES: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
ROUTES = [(Tf2Onnx, False), (Tf2Onnx, True), (KerasExport, True)]
# Their graphs hold no operator that tf2onnx has left as it was.
WHOLE = ("linear-stack", "autoencoder-sigmoid", "image-cnn-softmax2@training", "ntm-addressing", "dnc-memory")

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax:UserWarning")


@pytest.fixture(scope="module", autouse=True)
def tf() -> Any:
    return KerasBackend()._framework()


def meant(model: Model) -> Model:
    """Return the model that Keras computes: it takes the logits of the softmax for those of a sigmoid."""
    if model.name != "image-cnn-softmax1":
        return model
    loss = msgspec.structs.replace(
        model.layer("loss"), kind="binary-cross-entropy-from-logits", inputs=("dense2", "target")
    )
    return msgspec.structs.replace(model, layers=(*model.layers[:-1], loss))


def numbers(model: Model, dtype: str) -> dict[str, NDArray[Any]]:
    drawn = draw_inputs(model) | draw_parameters(model)
    return {name: array.astype(DTYPES[dtype]) for name, array in drawn.items()}


def assert_near(got: NDArray[Any], wanted: NDArray[Any], tolerance: float, name: str) -> None:
    """Compare with an error of `tolerance` of the largest number, and of 1 where all of it is small."""
    reach = tolerance * max(float(np.max(np.abs(wanted))), 0.01)
    np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=0, atol=reach, err_msg=name)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_model_runs_in_16_bits(model: Model, dtype: str) -> None:
    tensors = numbers(model, dtype)
    program = KerasBackend().build_model(model, dtype)
    outputs = program.forward(tensors)
    truth = values(meant(model), tensors)
    for name, wanted in (("y", truth[model.output]), ("loss", truth["loss"])):
        assert outputs[name].dtype == DTYPES[dtype]
        assert_near(outputs[name], wanted, 0.05, name)
    slopes = program.vjp(tensors, {"loss": np.array(1.0, DTYPES[dtype])})
    assert {slope.dtype for slope in slopes.values()} == {np.dtype(DTYPES[dtype])}


def test_a_cotangent_scales_the_gradients() -> None:
    tensors = numbers(MODELS["blobs-mlp"], "f32")
    program = KerasBackend().build_model(MODELS["blobs-mlp"], "f32")
    once, thrice = (program.vjp(tensors, {"loss": np.array(g, np.float32)}) for g in (1.0, -3.0))
    for name, slope in once.items():
        np.testing.assert_allclose(thrice[name], -3.0 * slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("aspect", ["value", "gradient"])
@pytest.mark.parametrize("name", ["image-cnn-softmax2@training", "regression-softmax-hidden@training"])
def test_calls_leave_no_trace(name: str, aspect: Any) -> None:
    tensors = numbers(MODELS[name], "f32")
    others = {key: array * np.float32(1.5) for key, array in tensors.items()}
    cotangents = {"loss": np.array(1.0, np.float32)} if aspect == "gradient" else None
    calls = [Call("drawn", tensors, cotangents), Call("others", others, cotangents)]
    session = Session(KerasBackend(), load_plugins([Builtin, plugin], []))
    # It makes the first call once more at the end, and compares.
    outcome = session.run(Job(case=Case(name, aspect, "f32", "keras"), artifact=None, calls=calls, intermediates=True))
    assert outcome.failure is None
    assert (outcome.mutated, outcome.unsteady) == ([], [])
    assert set(outcome.intermediates) == {one.name for one in MODELS[name].layers}


def test_running_statistics_and_weights_stay_as_they_were() -> None:
    model = MODELS["image-cnn-softmax2@training"]
    program = KerasBackend().build_model(model, "f32")
    variables = program._network.keras_model.variables
    before = [np.array(variable) for variable in variables]
    program.forward(numbers(model, "f32"))
    program.vjp(numbers(model, "f32"), {"loss": np.array(1.0, np.float32)})
    for variable, was in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, was, err_msg=variable.path)


def test_building_and_running_draw_no_random_numbers() -> None:
    import random

    state, legacy = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002  what Keras could draw from
    for model in (MODELS["regression-softmax-hidden"], MODELS["attention-block"], MODELS["image-cnn-sigmoid"]):
        KerasBackend().build_model(model, "f32").forward(numbers(model, "f32"))
    assert random.getstate() == state
    assert np.random.get_state()[1].tobytes() == legacy  # noqa: NPY002


def test_forward_gives_what_the_intermediates_show() -> None:
    for model in (MODELS["ntm-addressing"], MODELS["image-cnn-softmax2"]):
        program = KerasBackend().build_model(model, "f32")
        outputs, intermediates = program.forward(numbers(model, "f32")), program.intermediates(numbers(model, "f32"))
        assert set(outputs) == {"y", "loss"}
        np.testing.assert_array_equal(outputs["y"], intermediates[model.output])
        np.testing.assert_array_equal(outputs["loss"], intermediates["loss"])


def test_a_softmax_of_one_unit_is_1_and_yet_its_loss_has_a_gradient() -> None:
    model = MODELS["image-cnn-softmax1"]
    tensors = numbers(model, "f32")
    program = KerasBackend().build_model(model, "f32")
    np.testing.assert_array_equal(program.forward(tensors)["y"], np.ones((model.batch, 1)))
    assert np.abs(program.vjp(tensors, {"loss": np.array(1.0, np.float32)})["d_dense2.kernel"]).max() > 1e-3


def test_the_autoencoder_as_written_is_too_narrow() -> None:
    model = autoencoder("sigmoid", published=True, as_written=True)
    y = KerasBackend().build_model(model, "f32").forward(numbers(model, "f32"))["y"]
    assert y.shape[1:] == (1, 196, 4)


def test_programs_say_what_computes_them() -> None:
    said = {name: KerasBackend().build_model(model, "f32").implementation for name, model in MODELS.items()}
    assert said["mlp-softmax"] == (
        "keras.layers: Dense, Activation(relu), Activation(softmax(axis=-1)); keras.losses: MeanSquaredError"
    )
    assert "keras.layers: LayerNormalization, MultiHeadAttention, Add, Dense" in said["attention-block"]
    assert "keras.ops: dot_product_attention;" in said["attention-softmax"]
    assert "composition of keras.ops: interpolate, circular-shift, sharpen, write;" in said["ntm-addressing"]
    assert said["multinomial-latent"].endswith("keras.losses: BinaryCrossentropy(from_logits=True)")


@pytest.mark.parametrize(
    ("at", "words"), [(0, "keras has no layer of kind no-such here"), (-1, "keras has no loss of kind")]
)
def test_an_unknown_kind_is_unsupported(at: int, words: str) -> None:
    layers = list(MODELS["linear-stack"].layers)
    layers[at] = msgspec.structs.replace(layers[at], kind="no-such")
    with pytest.raises(Unsupported, match=words):
        KerasBackend().build_model(msgspec.structs.replace(MODELS["linear-stack"], layers=tuple(layers)), "f32")


def check_runs(model: Model, artifact: Artifact, *, constants: bool) -> None:
    """Run the graph with onnxruntime, once more with a batch of twice the size unless the model trains."""
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(artifact.model, providers=["CPUExecutionProvider"])
    drawn = numbers(model, "f32")
    rows = {one.name for one in model.inputs}
    double = {name: np.concatenate([array] * 2) if name in rows else array for name, array in drawn.items()}
    for tensors in (drawn,) if model.training else (drawn, double):
        truth = values(meant(model), tensors)
        wanted = {"y": truth[model.output]}
        if not constants:
            wanted |= {"loss": truth["loss"], **{f"layer.{name}": value for name, value in truth.items()}}
        names = [one.name for one in session.get_outputs()]
        assert set(names) == set(wanted)
        got = session.run(names, {one.name: tensors[one.name] for one in session.get_inputs()})
        for name, value in zip(names, got, strict=True):
            assert value.shape == wanted[name].shape
            assert_near(value, wanted[name], 1e-4, name)


def unregistered(artifact: Artifact) -> set[str]:
    graph = onnx.load_from_string(artifact.model).graph
    return {node.op_type for node in graph.node if not onnx.defs.has(node.op_type, artifact.opset, node.domain)}


def exported(model: Model, exporter: type[Exporter], *, constants: bool, dtype: str = "f32") -> Artifact:
    parameters = {one.name: numbers(model, dtype)[one.name] for one in model.parameters} if constants else None
    return exporter().export_model(model, dtype, parameters)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(("exporter", "constants"), ROUTES)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_model_is_a_graph_that_computes_it(model: Model, exporter: type[Exporter], *, constants: bool) -> None:
    artifact = exported(model, exporter, constants=constants)
    breaches = inspect_model(artifact, model, "f32", constants=constants)
    if model.name not in WHOLE and unregistered(artifact):  # written all the same: the gate names it
        assert [kind for kind, _ in breaches] == ["invalid-model"]
        assert any(name in breaches[0][1] for name in unregistered(artifact))
    else:
        assert breaches == []
        check_runs(model, artifact, constants=constants)


@pytest.mark.filterwarnings("ignore::Warning")
def test_parameters_are_inputs_or_constants() -> None:
    model = MODELS["linear-stack"]
    names = []
    for constants in (False, True):
        artifact = exported(model, Tf2Onnx, constants=constants)
        names.append([one.name for one in onnx.load_from_string(artifact.model).graph.input])
    assert names == [["x", "target", *(one.name for one in model.parameters)], ["x"]]


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("exporter", [Tf2Onnx, KerasExport])
def test_a_graph_has_the_dtype_asked_for_and_tells_its_path(exporter: type[Exporter]) -> None:
    artifact = exported(MODELS["image-cnn-softmax2"], exporter, constants=True, dtype="f16")
    assert inspect_model(artifact, MODELS["image-cnn-softmax2"], "f16", constants=True) == []
    assert artifact.path == ("from_function" if exporter is Tf2Onnx else "model.export on tensorflow: tf2onnx")


def test_an_export_by_keras_has_its_weights_as_constants() -> None:
    with pytest.raises(Unsupported, match=r"model\.export keeps weights as constants: see keras-export@const"):
        KerasExport().export_model(MODELS["linear-stack"], "f32", None)


@pytest.mark.parametrize(("exporter", "constants"), ROUTES)
def test_what_is_refused_is_said_in_words(
    exporter: type[Exporter], monkeypatch: pytest.MonkeyPatch, *, constants: bool
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("no such op\nand much more")

    monkeypatch.setattr("tf2onnx.convert.from_function", refuse)
    with pytest.raises(Unsupported, match=r"^NotImplementedError: no such op$"):
        exported(MODELS["linear-stack"], exporter, constants=constants)
