"""The call of one layer in a run of a Keras model: which layer it is, what it read, how it is called, and what it gives alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actconform.types.trained import RunMode
from actconform_keras import KerasBackend
from actconform_keras.keras_module import keras_on

keras: Any = pytest.importorskip("keras")


@pytest.fixture(scope="module")
def called() -> Any:
    keras_on("tensorflow")
    keras.utils.set_random_seed(0)
    a = keras.Input((4,), name="a")
    shared = keras.layers.Dense(4, name="sha:red")
    block = keras.Model(a, keras.layers.Add(name="sum")([shared(shared(a)), a]), name="block")
    x = keras.Input((4,), name="x")
    inner = keras.Sequential([keras.layers.Dense(3, activation="tanh", name="dense")], name="tail")
    model = KerasBackend().adopt_trained(keras.Model(x, inner(block(x))), None)
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)}
    return model.run(inputs, RunMode(), layers=True), lambda name: model.layer_call(inputs, name)


@pytest.mark.parametrize("name", ["block/sha:red", "block/sha:red#2", "block/sum", "tail/dense"])
def test_a_call_is_that_of_the_run(called: Any, name: str) -> None:
    run, call_of = called
    paths = {record.name for record in run.layers}
    name = next((path for path in paths if path.endswith(name)), name)
    record = next(each for each in run.layers if each.name == name)
    call = call_of(name)
    assert call.path == name.removesuffix("#2")
    for array, place in zip((*call.inputs, *call.outputs), (*record.inputs, *record.outputs), strict=True):
        np.testing.assert_array_equal(array, run.tensors[place])
    assert call.exact[0].dtype == np.float64
    np.testing.assert_allclose(call.exact[0], call.outputs[0], rtol=1e-5, atol=1e-6)


def test_a_list_of_tensors_is_called_as_one(called: Any) -> None:
    call = called[1]("block/sum")
    assert call.arguments.startswith("[input_0, input_1]")
    assert call.around == "block"


def test_of_a_function_the_layer_that_calls_it_is_meant(called: Any) -> None:
    assert called[1]("block/sha:red:MatMul").path == "block/sha:red"
    assert called[1](":nowhere").path == ""
