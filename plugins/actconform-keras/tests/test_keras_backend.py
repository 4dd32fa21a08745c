"""The Keras backend's facts, refusals and tensors; the plugin's hooks."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from typing import Any

import ml_dtypes
import numpy as np
import pluggy
import pytest

from actconform import Case, Kernel, Unavailable, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.machine.cpu import cpu_capability
from actconform.machine.onednn import onednn_settings
from actconform.plugin import hookspecs
from actconform.verdict.causes.check import check_formulas
from actconform_keras import KerasBackend, KerasGpu, KerasJax, KerasTorch, KerasXla, plugin
from actconform_keras.keras_module import keras_on

LINEAR = next(kernel for kernel in UNARY if kernel.name == "linear")
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


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case("relu", "value", "f32", "keras"), ""),
        (Case("a-model-of-a-plugin", "value", "f32", "keras"), ""),
        (Case("relu", "value", "f64", "keras"), "keras runs f32, f16, bf16 here, not f64"),
    ],
)
def test_supports_says_why_not(case: Case, reason: str) -> None:
    support = KerasBackend().supports(case)
    assert (support.yes, support.reason) == (not reason, reason)


def test_bf16_bits_survive_the_round_trip() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    program = KerasBackend().build(LINEAR, "bf16")
    y = program.forward({"x": bits.view(ml_dtypes.bfloat16)})["y"]
    np.testing.assert_array_equal(y.view(np.uint16), bits)
    d = program.vjp({"x": y}, {"y": bits.view(ml_dtypes.bfloat16)})["d_x"]
    np.testing.assert_array_equal(d.view(np.uint16), bits)


def test_what_comes_back_does_not_follow_what_was_given() -> None:
    x, g = np.ones(4, np.float32), np.ones(4, np.float32)
    program = KerasBackend().build(LINEAR, "f32")
    y, d = program.forward({"x": x})["y"], program.vjp({"x": x}, {"y": g})["d_x"]
    x[:] = g[:] = 9.0
    np.testing.assert_array_equal([y, d], np.ones((2, 4)))


@pytest.mark.filterwarnings("error")
def test_read_only_strided_and_scalar_arrays_are_taken() -> None:
    program = KerasBackend().build(RELU, "f32")
    frozen = np.array([-1.0, 2.0], np.float32)
    frozen.setflags(write=False)
    np.testing.assert_array_equal(program.forward({"x": frozen})["y"], [0.0, 2.0])
    backwards = np.array([-1.0, 2.0, 3.0], np.float32)[::-1]
    np.testing.assert_array_equal(program.forward({"x": backwards})["y"], [3.0, 2.0, 0.0])
    assert program.forward({"x": np.array(2.0, np.float32)})["y"].shape == ()


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


@pytest.mark.parametrize("package", ["keras", "tensorflow"])
def test_without_its_packages_the_backend_is_unavailable(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    keras_on.cache_clear()
    with pytest.raises(Unavailable, match=rf"{package} is not installed: pip install actconform\[keras\]"):
        KerasBackend().facts()
    with pytest.raises(Unavailable, match=f"{package} is not installed"):
        KerasBackend().build(Kernel(name="relu", definition="", source=""), "f32")


def test_another_keras_backend_in_the_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    keras_on.cache_clear()
    with pytest.raises(Unavailable, match=r"keras already runs on jax .* start with KERAS_BACKEND=tensorflow"):
        KerasBackend().facts()


def test_importing_the_plugin_imports_no_framework() -> None:
    code = (
        "import sys, actconform_keras; actconform_keras.plugin.actconform_causes();"
        "print('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_hooks_offer_the_backends_and_their_causes() -> None:
    manager = pluggy.PluginManager("actconform")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    assert manager.hook.actconform_backends() == [[KerasBackend, KerasGpu, KerasXla, KerasJax, KerasTorch]]
    ((register,),) = manager.hook.actconform_causes()
    assert register.causes
    check_formulas(register, {kernel.name: kernel for kernel in UNARY + ROWS})
