"""The graphs of users' own Keras models, SavedModels and TFLite files: they compute what the model does, or are refused in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from actconform import Unsupported
from actconform.types.trained import RunMode, TrainedSource
from actconform_keras import KerasBackend, KerasExport, Tf2Onnx
from actconform_keras.keras_module import keras_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ort = pytest.importorskip("onnxruntime")
keras: Any = pytest.importorskip("keras")
pytest.importorskip("tf2onnx")
RNG = np.random.default_rng(18)
NATIVE = RunMode()
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


@pytest.fixture(scope="module", autouse=True)
def tf() -> Any:
    return keras_on("tensorflow")


def adopted(model: Any, example: object = None) -> Any:
    return KerasBackend().adopt_trained(model, example)


def dense() -> Any:
    x = keras.Input((4,), name="x")
    return adopted(keras.Model(x, keras.layers.Dense(3, activation="tanh", name="y")(x)))


def image() -> Any:
    layers = keras.layers
    x = keras.Input((8, 8, 3), name="image")
    h = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(layers.Rescaling(0.5)(x))
    h = layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2, padding="same")(h))
    return adopted(keras.Model(x, layers.GlobalAveragePooling2D(name="y")(layers.ReLU()(h))))


def sequential() -> Any:
    layers = keras.layers
    return adopted(
        keras.Sequential(
            [keras.Input((5, 3), name="x"), layers.LSTM(4, return_sequences=True), layers.GRU(2), layers.Dense(2)]
        )
    )


def several() -> Any:
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = keras.layers.Dense(3, name="shared")
    return adopted(
        keras.Model([a, b], [keras.layers.Add(name="sum")([shared(a), shared(b)]), keras.ops.exp(shared(b))])
    )


def keyed() -> Any:
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    return adopted(keras.Model({"a": a, "b": b}, {"p": keras.layers.Dense(2)(a), "q": keras.layers.Dense(3)(b)}))


def subclassed() -> Any:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.dense = keras.layers.Embedding(7, 4), keras.layers.Dense(2)

        def call(self, tokens: Any, scale: Any) -> Any:
            return {"y": self.dense(self.embed(tokens)) * scale}

    return adopted(Net(), (np.array([[1, 2, 3]]), np.ones((1, 1, 1), np.float32)))


def inputs_of(model: Any, batch: int) -> dict[str, Any]:
    inputs = {}
    for spec in model.about.inputs:
        sizes = (batch, *(model.about.example[spec.name].shape if model.about.example else spec.dims)[1:])
        drawn = RNG.integers(0, 7, sizes) if "int" in spec.dtype else RNG.standard_normal(sizes)
        inputs[spec.name] = drawn.astype(spec.dtype)
    return inputs


def check_agrees(model: Any, artifact: Any, batch: int, *, by_name: bool) -> None:
    session = ort.InferenceSession(artifact.model, providers=["CPUExecutionProvider"])
    inputs = inputs_of(model, batch)
    names = [entry.name for entry in session.get_inputs()]
    given = session.run(None, {name: inputs[name] for name in names})
    wanted = model.run(inputs, NATIVE).outputs
    if by_name:
        assert {entry.name for entry in session.get_outputs()} == set(wanted)
        given = dict(zip([entry.name for entry in session.get_outputs()], given, strict=True))
    else:
        given = dict(zip(wanted, given, strict=True))
    for name, array in wanted.items():
        np.testing.assert_allclose(given[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("make", [dense, image, sequential, several, keyed, subclassed])
def test_tf2onnx_keeps_names_and_the_open_batch(make: Callable[[], Any]) -> None:
    model = make()
    artifact = Tf2Onnx().export_trained(model, inputs_of(model, 2))
    assert artifact.warnings == ()
    for batch in (1, 5):
        check_agrees(model, artifact, batch, by_name=True)


@pytest.mark.parametrize("make", [dense, sequential, several, keyed])
def test_model_export_computes_what_the_model_does(make: Callable[[], Any]) -> None:
    model = make()
    artifact = KerasExport().export_trained(model, inputs_of(model, 2))
    check_agrees(model, artifact, 3, by_name=False)


def test_constants_that_become_inputs_are_told() -> None:
    with pytest.raises(Unsupported, match=r"makes inputs of constants that layers hold: .*normalization"):
        KerasExport().export_trained(image(), {"image": np.ones((1, 8, 8, 3), np.float32)})


def test_operators_that_are_left_are_told_with_their_layer() -> None:
    x = keras.Input((4,), name="x")
    strange = keras.layers.Lambda(keras_on("tensorflow").math.bessel_i0, name="bessel")
    model = adopted(keras.Model(x, strange(x)))
    for exporter in (Tf2Onnx(), KerasExport()):
        with pytest.raises(Unsupported, match=r"does not have: BesselI0 \(node .*bessel"):
            exporter.export_trained(model, {"x": np.ones((1, 4), np.float32)})


def test_a_graph_in_training_normalizes_by_the_batch() -> None:
    x = keras.Input((4,), name="x")
    model = adopted(keras.Model(x, keras.layers.BatchNormalization(name="norm")(x)))
    data = RNG.standard_normal((16, 4)).astype(np.float32) * 3 + 1
    artifact = Tf2Onnx().export_trained(model, {"x": data}, training=True)
    (given,) = ort.InferenceSession(artifact.model, providers=["CPUExecutionProvider"]).run(None, {"x": data})
    np.testing.assert_allclose(
        given, model.run({"x": data}, RunMode(training=True)).outputs["norm"], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(given.mean(0), 0, atol=1e-5)
    with pytest.raises(Unsupported, match="no model in training"):
        KerasExport().export_trained(model, {"x": data}, training=True)


def test_masks_of_dropouts_are_never_constants() -> None:
    x = keras.Input((40,), name="x")
    model = adopted(keras.Model(x, keras.layers.Dropout(0.5, name="drop")(x)))
    try:
        artifact = Tf2Onnx().export_trained(model, {"x": np.ones((2, 40), np.float32)}, training=True)
    except Unsupported as error:
        assert "drop" in str(error)  # noqa: PT017  an exporter of tomorrow may know random numbers
    else:
        assert any("Random" in node.op_type for node in onnx.load_model_from_string(artifact.model).graph.node)


def test_weights_are_as_before_an_export() -> None:
    x = keras.Input((4,), name="x")
    model = adopted(keras.Model(x, keras.layers.BatchNormalization()(x)))
    before = {name: array.tobytes() for name, array in model.parameters().items()}
    Tf2Onnx().export_trained(model, inputs_of(model, 2), training=True)
    assert {name: array.tobytes() for name, array in model.parameters().items()} == before


def test_a_saved_model_and_a_tflite_file_are_converted(tmp_path: Path) -> None:
    tf = keras_on("tensorflow")
    dense().model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    (tmp_path / "net.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
    for kind, path in (("saved-model", tmp_path / "saved"), ("tflite", tmp_path / "net.tflite")):
        model = KerasBackend().open_trained(TrainedSource(kind, str(path)))  # type: ignore[arg-type]
        assert model.about.exporters == ("tf2onnx",)
        check_agrees(model, Tf2Onnx().export_trained(model, inputs_of(model, 2)), 4, by_name=True)
        with pytest.raises(Unsupported, match="as it was saved"):
            Tf2Onnx().export_trained(model, inputs_of(model, 2), training=True)
        with pytest.raises(Unsupported, match="takes no"):
            KerasExport().export_trained(model, inputs_of(model, 2))
