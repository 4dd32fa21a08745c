"""The Keras backend's facts and refusals."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from actconform import Unavailable, Unsupported
from actconform.catalog.kernels import UNARY
from actconform.machine.cpu import cpu_capability
from actconform.machine.onednn import onednn_settings
from actconform_keras import KerasBackend
from actconform_keras.keras_module import keras_on

RELU = next(kernel for kernel in UNARY if kernel.name == "relu")


@pytest.fixture(scope="module", autouse=True)
def tf() -> Any:
    """TensorFlow as the backend sets it up: importing it takes seconds, so once."""
    return KerasBackend()._framework()


def test_facts_are_words_that_could_explain_a_number(tf: Any) -> None:
    import keras

    facts = KerasBackend().facts()
    assert (facts["keras"], facts["tensorflow"]) == (keras.__version__, tf.__version__)
    assert facts["numpy"] == np.__version__
    assert facts["device"] == "cpu"
    assert facts["threads"] == str(tf.config.threading.get_intra_op_parallelism_threads())
    assert facts["subnormals"] in ("kept", "flushed")
    assert facts["onednn"] in ("AVX512", "AVX2", "DEFAULT", "none", "off")
    assert facts["cpu_capability"] == cpu_capability()
    assert facts["onednn_settings"] == onednn_settings()
    assert all(type(word) is str for word in facts.values())


def test_keras_runs_on_tensorflow_without_a_gpu(tf: Any) -> None:
    import keras

    KerasBackend().facts()
    assert keras.config.backend() == "tensorflow"
    assert tf.config.list_logical_devices("GPU") == []


@pytest.mark.parametrize(("uses", "level"), [(False, "off"), (True, "AVX2")])
def test_tensorflow_is_asked_whether_it_uses_onednn(tf: Any, monkeypatch: pytest.MonkeyPatch, uses: bool, level: str):
    port = import_module("tensorflow.python.util._pywrap_util_port")
    assert isinstance(port.IsMklEnabled(), bool)
    monkeypatch.setattr(port, "IsMklEnabled", lambda: uses)
    monkeypatch.setattr("actconform_keras.backend.onednn_level", lambda: "AVX2")
    assert KerasBackend().facts()["onednn"] == level


def test_a_missing_dtype_is_a_refusal_and_a_fault_is_not(tf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = KerasBackend().build(RELU, "f16")
    halves = {"x": np.ones((2, 2), np.float16)}
    monkeypatch.setattr(program, "_function", tf.math.erfinv)
    with pytest.raises(Unsupported, match="Could not find device for node"):
        program.forward(halves)
    monkeypatch.setattr(program, "_function", lambda x: tf.raw_ops.Svd(input=tf.cast(x, tf.bfloat16)))
    with pytest.raises(Unsupported, match="bfloat16 is not in the list of allowed values"):
        program.forward(halves)
    monkeypatch.setattr(program, "_function", lambda x: x + tf.ones(3, tf.float16))
    with pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible shapes"):
        program.forward(halves)


def test_a_gradient_without_a_path_is_an_error(tf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = KerasBackend().build(RELU, "f32")
    monkeypatch.setattr(program, "_function", tf.stop_gradient)
    x = np.ones(3, np.float32)
    with pytest.raises(RuntimeError, match="no path from y back to x"):
        program.vjp({"x": x}, {"y": x})


def test_another_keras_backend_in_the_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    keras_on.cache_clear()
    with pytest.raises(Unavailable, match=r"keras already runs on jax .* start with KERAS_BACKEND=tensorflow"):
        KerasBackend().facts()
