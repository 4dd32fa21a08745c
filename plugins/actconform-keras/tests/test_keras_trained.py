"""A live Keras model, adopted: in every precision with its layers, in training, differentiated; nothing of it is left changed."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from actconform import SourceError, Unsupported
from actconform.types.trained import RunMode
from actconform_keras import KerasBackend
from actconform_keras.keras_module import keras_on

keras: Any = pytest.importorskip("keras")
RNG = np.random.default_rng(18)
NATIVE, FLOAT64 = RunMode(), RunMode("float64")


@pytest.fixture(scope="module", autouse=True)
def tf() -> Any:
    return keras_on("tensorflow")


def adopted(model: Any, example: object = None) -> Any:
    return KerasBackend().adopt_trained(model, example)


def lively(model: Any) -> Any:
    """Draw all weights anew, so that no bias is zero and no statistic is that of the beginning."""
    for variable in model.weights:
        if "seed" not in variable.path:
            low = 0.5 if "variance" in variable.path else -1.0
            variable.assign(RNG.uniform(low, 1.0, variable.shape))
    return model


def network() -> Any:
    layers = keras.layers
    x = keras.Input((5,), name="x")
    h = layers.Dense(7, activation="tanh", name="first")(x)
    h = layers.BatchNormalization(name="norm")(h)
    h = layers.Dropout(0.5, name="drop")(h)
    return lively(keras.Model(x, layers.Dense(3, name="last")(h)))


def digest(model: Any) -> str:
    states = [generator.state for layer in model._flatten_layers() for generator in layer._seed_generators]
    return hashlib.sha256(
        b"".join(variable.numpy().tobytes() for variable in [*model.variables, *states])
        + keras.config.floatx().encode()
        + "".join(str(layer.dtype_policy) for layer in model._flatten_layers()).encode()
        + str([symbol.dtype for symbol in getattr(model, "inputs", None) or []]).encode()
    ).hexdigest()


def test_float64_is_what_numpy_computes() -> None:
    model = network()
    x = RNG.standard_normal((4, 5)).astype(np.float32)
    w = {name: value.astype(np.float64) for name, value in adopted(model).parameters().items()}
    h = np.tanh(x.astype(np.float64) @ w["first/kernel"] + w["first/bias"])
    h = (h - w["norm/moving_mean"]) / np.sqrt(w["norm/moving_variance"] + model.get_layer("norm").epsilon)
    y = (h * w["norm/gamma"] + w["norm/beta"]) @ w["last/kernel"] + w["last/bias"]
    run = adopted(model).run({"x": x}, FLOAT64, layers=True)
    assert run.outputs["last"].dtype == np.float64
    np.testing.assert_allclose(run.outputs["last"], y, rtol=1e-12, atol=1e-12)
    assert {tensor.dtype.name for tensor in run.tensors} == {"float64"}


def test_layer_normalization_in_float64() -> None:
    x = keras.Input((6,), name="x")
    model = lively(keras.Model(x, keras.layers.LayerNormalization(name="norm")(x)))
    data = RNG.standard_normal((3, 6))
    gamma, beta = (value.numpy().astype(np.float64) for value in model.weights)
    centred = data - data.mean(-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + model.get_layer("norm").epsilon) * gamma + beta
    np.testing.assert_allclose(adopted(model).run({"x": data}, FLOAT64).outputs["norm"], wanted, rtol=1e-12, atol=1e-12)


def test_attention_in_float64() -> None:
    x = keras.Input((4, 6), name="x")
    model = lively(keras.Model(x, keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)))
    data = RNG.standard_normal((2, 4, 6))
    w = {name.rpartition("attention/")[2]: v.astype(np.float64) for name, v in adopted(model).parameters().items()}
    query, key, value = (
        np.einsum("bte,ehd->bthd", data, w[f"{part}/kernel"]) + w[f"{part}/bias"] for part in ("query", "key", "value")
    )
    scores = np.einsum("bthd,bshd->bhts", query, key) / 2  # 1 / sqrt(4): Keras rounds this constant to float32
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhts,bshd->bthd", weights, value)
    wanted = np.einsum("bthd,hde->bte", mixed, w["attention_output/kernel"]) + w["attention_output/bias"]
    (given,) = adopted(model).run({"x": data}, FLOAT64).outputs.values()
    np.testing.assert_allclose(given, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "precision", ["native", "float64", "float16", "bfloat16", "autocast-float16", "autocast-bfloat16"]
)
def test_every_way_of_running_leaves_the_model_as_it_was(precision: Any, training: bool) -> None:
    model = network()
    open_model = adopted(model)
    before = digest(model)
    x = {"x": RNG.standard_normal((8, 5)).astype(np.float32)}
    run = open_model.run(x, RunMode(precision, training), layers=True)
    exact = open_model.run(x, RunMode("float64")).outputs["last"]
    assert digest(model) == before
    if not training:
        tolerance = {"native": 1e-5, "float64": 1e-12}.get(precision, 0.1)
        np.testing.assert_allclose(run.outputs["last"].astype(np.float64), exact, rtol=tolerance, atol=tolerance)
    open_model.gradients(x, {"last": np.ones((8, 3))}, RunMode(precision, training))
    assert digest(model) == before


def test_training_normalizes_by_the_batch_and_drops_the_same_each_time() -> None:
    open_model = adopted(network())
    x = {"x": RNG.standard_normal((64, 5)).astype(np.float32)}
    mode = RunMode("float64", training=True)
    run = open_model.run(x, mode, layers=True)
    values = {layer.name: run.tensors[layer.outputs[0]] for layer in run.layers}
    w = open_model.parameters()
    normalized = (values["norm"] - w["norm/beta"]) / w["norm/gamma"]
    np.testing.assert_allclose(normalized.mean(0), 0, atol=1e-12)
    assert np.count_nonzero(values["drop"] == 0) > 0
    again = open_model.run(x, mode).outputs["last"]
    np.testing.assert_array_equal(run.outputs["last"], again)


def test_numbers_drawn_where_they_should_not_be_show_in_two_runs() -> None:
    class Careless(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.drop = keras.layers.Dropout(0.5)

        def call(self, x: Any, training: Any = None) -> Any:
            return self.drop(x, training=True)

    model = Careless()
    open_model = adopted(model, np.ones((4, 50), np.float32))
    before = digest(model)
    x = {"x": np.ones((4, 50), np.float32)}
    first, second = (open_model.run(x, NATIVE).outputs["output_0"] for _ in range(2))
    assert not np.array_equal(first, second)
    assert digest(model) == before


def test_layers_are_named_by_their_path_and_calls_are_counted() -> None:
    layers = keras.layers

    class Block(layers.Layer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.dense = layers.Dense(4, name="dense")

        def call(self, x: Any) -> Any:
            return keras.ops.relu(self.dense(x)) + x

    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense")], name="stem")
    block = Block(name="block")
    x = keras.Input((4,), name="x")
    model = lively(keras.Model(x, layers.Add(name="sum")([block(block(inner(x))), x])))
    run = adopted(model).run({"x": RNG.standard_normal((2, 4)).astype(np.float32)}, NATIVE, layers=True)
    names = [layer.name for layer in run.layers if ":" not in layer.name]
    assert names == ["stem/dense", "stem", "block/dense", "block", "block/dense#2", "block#2", "sum", ""]
    records = {layer.name: layer for layer in run.layers}
    assert records["block/dense"].parameters == ("block/dense/kernel", "block/dense/bias")
    assert records["block"].parameters == ()
    assert records["block:Relu"].kind == "function Relu"
    assert records["block#2"].inputs == records["block"].outputs
    assert records["sum"].inputs == (*records["block#2"].outputs, 0)
    np.testing.assert_array_equal(run.tensors[records[""].outputs[0]], run.outputs["sum"])
    for layer in run.layers:
        assert all(place < max(layer.outputs) for place in layer.inputs if place not in layer.outputs), layer


@pytest.mark.parametrize("unroll", [False, True])
def test_recurrent_layers_give_every_step(unroll: bool) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 3), name="x"),
            layers.LSTM(4, return_sequences=True, unroll=unroll, name="lstm"),
            layers.GRU(2, name="gru"),
        ]
    )
    run = adopted(lively(model)).run({"x": RNG.standard_normal((2, 6, 3))}, FLOAT64, layers=True)
    cells = [layer.name for layer in run.layers if ":" not in layer.name and "cell" in layer.name]
    assert sum(name.startswith("lstm/lstm_cell") for name in cells) >= 6
    assert {tensor.dtype.name for tensor in run.tensors} == {"float64"}


def test_gradients_are_those_of_finite_differences() -> None:
    model = network()
    open_model = adopted(model)
    x = RNG.standard_normal((3, 5))
    cotangent = RNG.standard_normal((3, 3))
    gradients = open_model.gradients({"x": x}, {"last": cotangent}, FLOAT64)
    assert set(gradients) == {
        f"d_{name}"
        for name in ("x", "first/kernel", "first/bias", "norm/gamma", "norm/beta", "last/kernel", "last/bias")
    }
    direction = RNG.standard_normal(x.shape)
    step = 1e-5
    above, below = (
        (open_model.run({"x": x + sign * step * direction}, FLOAT64).outputs["last"] * cotangent).sum()
        for sign in (1, -1)
    )
    assert (above - below) / (2 * step) == pytest.approx((gradients["d_x"] * direction).sum(), rel=1e-7)
    np.testing.assert_allclose(gradients["d_last/bias"], cotangent.sum(0), rtol=1e-12)


def test_a_model_of_mixed_precision_runs_as_it_is_and_in_float64() -> None:
    policy = keras.DTypePolicy("mixed_float16")
    x = keras.Input((5,), name="x")
    h = keras.layers.Dense(8, dtype=policy, activation="relu", name="half")(x)
    model = lively(keras.Model(x, keras.layers.Dense(2, dtype="float32", name="y")(h)))
    data = {"x": RNG.standard_normal((2, 5)).astype(np.float32)}
    native = adopted(model).run(data, NATIVE, layers=True)
    values = {layer.name: native.tensors[layer.outputs[0]].dtype.name for layer in native.layers}
    assert (values["half"], values["y"]) == ("float16", "float32")
    w = {name: value.astype(np.float64) for name, value in adopted(model).parameters().items()}
    wanted = np.maximum(data["x"] @ w["half/kernel"] + w["half/bias"], 0) @ w["y/kernel"] + w["y/bias"]
    np.testing.assert_allclose(adopted(model).run(data, FLOAT64).outputs["y"], wanted, rtol=1e-12)


def test_a_compiled_call_holds_no_weights_of_another_precision() -> None:
    tf = keras_on("tensorflow")

    class Compiled(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(3)
            self.norm = keras.layers.BatchNormalization()

        @tf.function
        def call(self, x: Any, training: Any = None) -> Any:
            return self.norm(self.dense(x), training=training)

    x = RNG.standard_normal((4, 8)).astype(np.float32)
    open_model = adopted(Compiled(), x)
    first = {
        mode: open_model.run({"x": x}, mode).outputs["output_0"]
        for mode in (NATIVE, FLOAT64, RunMode("autocast-float16"))
    }
    for mode, wanted in first.items():
        np.testing.assert_array_equal(open_model.run({"x": x}, mode).outputs["output_0"], wanted)
    assert [layer.name for layer in open_model.run({"x": x}, NATIVE, layers=True).layers if ":" not in layer.name][
        -1
    ] == ""
    open_model.gradients({"x": x}, {"output_0": np.ones((4, 3))}, FLOAT64)


def test_nested_outputs_have_the_names_of_their_keys_and_inputs_those_of_the_call() -> None:
    class Many(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, tokens: Any, weights: Any) -> Any:
            y = self.dense(weights)
            return {"y": y, "aside": {"sum": y + 1, "parts": [y, None]}, "tokens": tokens}

    example = (np.array([[1, 2]]), np.ones((1, 3), np.float32))
    open_model = adopted(Many(), example)
    assert [(spec.name, spec.dtype) for spec in open_model.about.inputs] == [
        ("tokens", "int64"),
        ("weights", "float32"),
    ]
    outputs = open_model.run(open_model.about.example, NATIVE).outputs
    assert list(outputs) == ["y", "aside.sum", "aside.parts_0", "tokens"]
    by_name = adopted(Many(), {"weights": example[1], "tokens": example[0]})
    assert [spec.name for spec in by_name.about.inputs] == ["weights", "tokens"]


def test_faults_of_a_call_are_told() -> None:
    class Fixed(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return keras_on("tensorflow").matmul(x, keras_on("tensorflow").ones((5, 2)))

    x = keras.Input((5,), name="x")
    open_model = adopted(keras.Model(x, Fixed()(x)))
    with pytest.raises(Unsupported, match=r"cannot run in float64: .*Fixed") as refused:
        open_model.run({"x": np.ones((1, 5))}, FLOAT64)
    assert "x1b" not in str(refused.value)
    with pytest.raises(SourceError, match=r"no input y; known: x"):
        open_model.run({"y": np.ones((1, 5))}, NATIVE)
    with pytest.raises(SourceError, match="no array for input x"):
        open_model.run({}, NATIVE)
    with pytest.raises(SourceError, match="cannot be run"):
        open_model.run({"x": np.ones((1, 4))}, NATIVE)
    with pytest.raises(SourceError, match="no output z"):
        open_model.gradients({"x": np.ones((1, 5))}, {"z": np.ones(1)}, NATIVE)


def test_keras_on_another_backend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(Unsupported, match="keras runs on jax in this process"):
        adopted(model)


def test_what_is_no_keras_model_is_told() -> None:
    with pytest.raises(SourceError, match=r"gives a layer.*keras\.Sequential"):
        adopted(keras.layers.Dense(1))
    with pytest.raises(SourceError, match="gives an int"):
        adopted(3)
    with pytest.raises(SourceError, match="does not say what it takes"):
        adopted(keras.Sequential([keras.layers.Dense(1)]))
    torch_like = type("Net", (), {"__module__": "torch.nn"})()
    with pytest.raises(Unsupported, match="a torch module"):
        adopted(torch_like)
