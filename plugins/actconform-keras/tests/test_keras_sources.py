"""What users name: factories, with the user's faults told by the user's lines, and files, looked through before they are loaded."""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from actconform import SourceError, Unsupported
from actconform.types.trained import RunMode, TrainedSource
from actconform_keras import KerasBackend
from actconform_keras.keras_module import keras_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

keras: Any = pytest.importorskip("keras")
NATIVE = RunMode()

MODULE = """
import keras
import numpy as np

class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)
    def call(self, x):
        return self.dense(x)

def small():
    x = keras.Input((3,), name="x")
    return keras.Model(x, keras.layers.Dense(2, name="y")(x))

def with_example():
    return Net(), np.ones((4, 3), np.float32)

def wrong_example():
    return small(), (np.ones(3), np.ones(3))

def strange_example():
    return small(), object()

def raises():
    return read()

def read():
    raise FileNotFoundError("no weights.h5 here")

def needs(path):
    return small()

def nothing():
    pass

def unknown():
    return Net()
"""


@pytest.fixture(scope="module", autouse=True)
def tf() -> Any:
    return keras_on("tensorflow")


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    folder = tmp_path_factory.mktemp("user")
    (folder / "users_nets.py").write_text(MODULE, encoding="utf-8")
    return lambda name: KerasBackend().open_trained(TrainedSource("factory", f"users_nets:{name}", str(folder)))


def opened(kind: Any, path: Path, *, trusted: bool = False) -> Any:
    return KerasBackend().open_trained(TrainedSource(kind, str(path), str(path.parent), trusted))


def functional(*, dropout: bool = False) -> Any:
    x = keras.Input((3,), name="x")
    h = keras.layers.Dense(4, activation="relu", name="hidden")(x)
    if dropout:
        h = keras.layers.Dropout(0.1, name="drop")(h)
    return keras.Model(x, keras.layers.Dense(2, name="y")(h))


def test_a_factory_gives_a_model_or_a_model_with_inputs(factory: Callable[[str], Any]) -> None:
    about = factory("small").about
    assert [(spec.name, spec.dtype, spec.dims) for spec in about.inputs] == [("x", "float32", (None, 3))]
    assert "(keras.Functional), 8 weights" in about.about
    about = factory("with_example").about
    assert about.about == "Net (keras.Model), 8 weights"
    assert [(spec.name, spec.dims) for spec in about.inputs] == [("x", (None, 3))]
    assert about.example["x"].shape == (4, 3)
    assert about.trainable
    assert about.differentiable


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "raises",
            r"raised FileNotFoundError: no weights\.h5 here\n  users_nets\.py, line \d+, in raises: return read\(\)\n.*in read: ",
        ),
        ("needs", r"needs arguments \(path\)"),
        ("nothing", r"gives None: wanted a keras\.Model"),
        ("unknown", r"gives a Net, which does not say what it takes: give \(model, inputs\)"),
        ("smal", "did you mean small"),
        ("wrong_example", r"gives 2 example inputs: the model takes 1 \(x\)"),
        ("strange_example", "example inputs of object are no array"),
    ],
)
def test_faults_of_a_factory_are_told(factory: Callable[[str], Any], name: str, words: str) -> None:
    with pytest.raises(SourceError, match=words) as told:
        factory(name)
    assert "site-packages" not in str(told.value)
    assert "actconform_keras" not in str(told.value)


def test_the_backend_of_keras_that_is_asked_for_is_told(
    monkeypatch: pytest.MonkeyPatch, factory: Callable[[str], Any]
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert factory("small").about.notes == ("keras runs on tensorflow here, not on jax as KERAS_BACKEND says",)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore::Warning")
def test_a_file_of_keras_is_what_was_saved(tmp_path: Path, ending: str) -> None:
    model, x = functional(), np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    model.save(tmp_path / f"net{ending}")
    file = opened("keras", tmp_path / f"net{ending}")
    np.testing.assert_allclose(file.run({"x": x}, NATIVE).outputs["y"], model(x).numpy(), rtol=1e-6, atol=1e-6)
    assert {array.tobytes() for array in file.parameters().values()} == {w.numpy().tobytes() for w in model.weights}


def rewritten(source: Path, target: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Path:
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)
    return target


def config_with(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def changed(members: dict[str, bytes]) -> dict[str, bytes]:
        config = json.loads(members["config.json"])
        change(config["config"]["layers"][1])
        return members | {"config.json": json.dumps(config).encode()}

    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            config_with(lambda layer: layer.update(module="os", class_name="system")),
            r"system of layer hidden is a class of os.*--trust",
        ),
        (
            config_with(lambda layer: layer.update(registered_name="users>Dense")),
            r"Dense of layer hidden is a class registered by users.*--trust",
        ),
        (
            config_with(lambda layer: layer.update(class_name="Lambda")),
            r"Lambda of layer hidden holds a Python function.*--trust",
        ),
        (
            config_with(
                lambda layer: layer["config"].update(
                    activation={
                        "module": "keras.utils",
                        "class_name": "function",
                        "config": "get_file",
                        "registered_name": "get_file",
                    }
                )
            ),
            r"get_file of layer hidden is a function of keras\.utils.*--trust",
        ),
        (lambda members: members | {"/etc/x": b""}, r"'/etc/x' of the archive would be written outside"),
        (lambda members: members | {"assets/../../x": b""}, "would be written outside"),
        (lambda members: members | {"assets/zeros": bytes(2**28 + 1)}, "would unpack to"),
        (lambda members: members | {"config.json": b"{"}, r"config\.json is damaged"),
        (lambda members: {"metadata.json": members["metadata.json"]}, r"holds no config\.json"),
        (lambda members: members | {"model.weights.h5": b"\x89HDF"}, "is damaged: .*: save it, or fetch it, again"),
    ],
    ids=["module", "registered", "lambda", "function", "absolute", "parent", "bomb", "json", "no-config", "weights"],
)
def test_a_file_that_runs_code_or_is_damaged_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    functional().save(tmp_path / "net.keras")
    path = rewritten(tmp_path / "net.keras", tmp_path / "changed.keras", change)
    with pytest.raises(SourceError, match=words):
        opened("keras", path)


def test_a_truncated_file_is_damaged(tmp_path: Path) -> None:
    functional().save(tmp_path / "net.keras")
    content = (tmp_path / "net.keras").read_bytes()
    for length in (100, len(content) - 10):
        (tmp_path / "cut.keras").write_bytes(content[:length])
        with pytest.raises(SourceError, match="damaged"):
            opened("keras", tmp_path / "cut.keras")
    at = content.index(b"\x89HDF") + 8
    (tmp_path / "flipped.keras").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(SourceError, match=r"is damaged: [^\n]*CRC-32[^\n]*$"):
        opened("keras", tmp_path / "flipped.keras")


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_lambda_layer_is_loaded_where_it_is_trusted_only(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    keras.Model(x, keras.layers.Lambda(lambda t: t * 2, name="twice")(x)).save(tmp_path / "net.keras")
    with pytest.raises(SourceError, match=r"Lambda of layer twice .*--trust"):
        opened("keras", tmp_path / "net.keras")
    run = opened("keras", tmp_path / "net.keras", trusted=True).run({"x": np.ones((1, 3))}, NATIVE)
    np.testing.assert_array_equal(run.outputs["twice"], [[2, 2, 2]])


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    functional().save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(SourceError, match="holds weights without a model: name a function"):
        opened("keras", tmp_path / "net.weights.h5")


def test_a_saved_model_is_its_signature_with_the_nodes_of_its_graph(tmp_path: Path) -> None:
    model, x = functional(dropout=True), np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    model.export(tmp_path / "net", format="tf_saved_model", verbose=False)
    file = opened("saved-model", tmp_path / "net")
    (spec,) = file.about.inputs
    run = file.run({spec.name: x}, NATIVE, layers=True)
    (y,) = run.outputs.values()
    np.testing.assert_allclose(y, model(x).numpy(), rtol=1e-6, atol=1e-6)
    root = run.layers[-1]
    assert root.name == ""
    np.testing.assert_allclose(run.tensors[root.outputs[0]], y, rtol=1e-6, atol=1e-6)
    hidden = next(layer for layer in run.layers if "hidden" in layer.name and layer.kind == "function Relu")
    wanted = np.maximum(x @ model.layers[1].kernel.numpy() + model.layers[1].bias.numpy(), 0)
    np.testing.assert_allclose(run.tensors[hidden.outputs[0]], wanted, rtol=1e-6, atol=1e-6)
    assert {array.tobytes() for array in file.parameters().values()} >= {w.numpy().tobytes() for w in model.weights}
    for mode in (RunMode("float64"), RunMode(training=True)):
        with pytest.raises(Unsupported, match="as it was saved"):
            file.run({spec.name: x}, mode)
    with pytest.raises(SourceError, match="no input z"):
        file.run({"z": x}, NATIVE)


def test_a_saved_model_that_calls_python_is_refused(tmp_path: Path) -> None:
    tf = keras_on("tensorflow")
    module = tf.Module()
    module.call = tf.function(
        lambda x: tf.numpy_function(lambda a: a * 2, [x], tf.float32),
        input_signature=[tf.TensorSpec([None], "float32", name="x")],
    )
    tf.saved_model.save(module, str(tmp_path / "net"), signatures=module.call.get_concrete_function())
    with pytest.raises(SourceError, match=r"PyFunc.*Python function.*--trust"):
        opened("saved-model", tmp_path / "net")


def test_a_saved_model_without_signature_or_with_damage_is_told(tmp_path: Path) -> None:
    tf = keras_on("tensorflow")
    tf.saved_model.save(tf.Module(), str(tmp_path / "none"))
    with pytest.raises(SourceError, match="no signature: save it with signatures="):
        opened("saved-model", tmp_path / "none")
    path = tmp_path / "none" / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-7] + b"\xff" * 7)
    with pytest.raises(SourceError, match=r"damaged|cannot be loaded"):
        opened("saved-model", tmp_path / "none")


def converted(model: Any, folder: Path, examples: list[Any] | None = None) -> bytes:
    tf = keras_on("tensorflow")
    model.export(folder, format="tf_saved_model", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    if examples is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([example] for example in examples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    content: bytes = converter.convert()
    return content


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_tflite_file_is_run_with_all_its_tensors(tmp_path: Path) -> None:
    model, x = functional(), np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    (tmp_path / "net.tflite").write_bytes(converted(model, tmp_path / "saved"))
    file = opened("tflite", tmp_path / "net.tflite")
    (spec,) = file.about.inputs
    assert (spec.dtype, spec.dims) == ("float32", (None, 3))
    run = file.run({spec.name: x}, NATIVE, layers=True)
    (y,) = run.outputs.values()
    np.testing.assert_allclose(y, model(x).numpy(), rtol=1e-5, atol=1e-6)
    hidden = np.maximum(x @ model.layers[1].kernel.numpy() + model.layers[1].bias.numpy(), 0)
    first = run.layers[0]
    assert first.kind == "tflite FULLY_CONNECTED"
    np.testing.assert_allclose(run.tensors[first.outputs[0]], hidden, rtol=1e-5, atol=1e-6)
    assert any(np.array_equal(array, model.layers[1].kernel.numpy().T) for array in file.parameters().values())
    with pytest.raises(Unsupported, match="as it was saved"):
        file.run({spec.name: x}, RunMode("float64"))
    with pytest.raises(SourceError, match="cannot be run"):
        file.run({spec.name: np.ones((5, 4), np.float32)}, NATIVE)


@pytest.mark.filterwarnings("ignore::Warning")
def test_quantized_tensors_are_the_numbers_that_they_stand_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model, examples = functional(), [rng.uniform(-1, 1, (1, 3)).astype(np.float32) for _ in range(30)]
    (tmp_path / "net.tflite").write_bytes(converted(model, tmp_path / "saved", examples))
    file = opened("tflite", tmp_path / "net.tflite")
    run = file.run({file.about.inputs[0].name: examples[0]}, NATIVE, layers=True)
    hidden = np.maximum(examples[0] @ model.layers[1].kernel.numpy() + model.layers[1].bias.numpy(), 0)
    first = next(layer for layer in run.layers if layer.kind == "tflite FULLY_CONNECTED")
    assert run.tensors[first.outputs[0]].dtype == np.float32
    np.testing.assert_allclose(run.tensors[first.outputs[0]], hidden, atol=0.05)
    assert any(array.dtype == np.int8 for array in file.parameters().values())


def test_what_is_no_tflite_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(b"\x1c\x00\x00\x00ABCD" + bytes(100))
    with pytest.raises(SourceError, match="no TFLite file"):
        opened("tflite", tmp_path / "net.tflite")
    (tmp_path / "net.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(100))
    with pytest.raises(SourceError, match="cannot be loaded"):
        opened("tflite", tmp_path / "net.tflite")


def test_a_kind_of_another_framework_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="opens no pt2"):
        opened("pt2", tmp_path / "net.pt2")


def test_a_config_that_is_too_large_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("config.json", b" " * (64 * 2**20 + 1))
        archive.writestr("model.weights.h5", b"")
    (tmp_path / "net.keras").write_bytes(content.getvalue())
    with pytest.raises(SourceError, match="more than 64 MiB"):
        opened("keras", tmp_path / "net.keras")


CLASSES = """
import keras

@keras.saving.register_keras_serializable(package="users")
class Half(keras.layers.Layer):
    def call(self, x):
        return x / 2
"""


def test_a_class_of_the_users_is_loaded_from_the_users_folder_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_layers.py").write_text(CLASSES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    half = importlib.import_module("users_layers").Half
    x = keras.Input((3,), name="x")
    keras.Model(x, half(name="half")(x)).save(tmp_path / "net.keras")
    with pytest.raises(SourceError, match=r"Half of layer half is a class .*--trust"):
        opened("keras", tmp_path / "net.keras")
    run = opened("keras", tmp_path / "net.keras", trusted=True).run({"x": np.ones((1, 3))}, NATIVE)
    np.testing.assert_array_equal(run.outputs["half"], [[0.5, 0.5, 0.5]])
