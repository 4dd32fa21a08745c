"""keras-gpu without a GPU: each way in which it can be missing is told; with one, it computes there and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from actconform import Case, Unavailable, Unsupported
from actconform.catalog.kernels import UNARY
from actconform_keras import KerasBackend, KerasGpu, gpu
from actconform_keras.engines import TensorFlow
from actconform_keras.keras_module import keras_on

if TYPE_CHECKING:
    from collections.abc import Iterator

RELU = next(kernel for kernel in UNARY if kernel.name == "relu")
GPU = {"device": "NVIDIA Fake", "compute_capability": "9.0", "memory": "81920 MiB", "cuda_driver": "13.0"}
BUILD = {"cuda_version": "12.5.1", "cudnn_version": "9"}


@pytest.fixture
def tf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A driver with a device, and TensorFlow built for CUDA 12.5 that finds two; what it is told is kept in `told`."""
    tf = keras_on("tensorflow")
    monkeypatch.setattr(gpu, "first_gpu", lambda: dict(GPU))
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: dict(BUILD))
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: True)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    return tf


@pytest.fixture
def told(tf: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    told: list[Any] = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *given: told.append(given))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *given: told.append(given))
    monkeypatch.setattr(tf.config, "set_soft_device_placement", told.append)
    return told


def test_no_run_needs_it_and_it_names_itself() -> None:
    assert (KerasGpu.name, KerasGpu.kind, KerasGpu.optional) == ("keras-gpu", "framework", True)
    refused = KerasGpu().supports(Case("relu", "value", "f64", "keras-gpu"))
    assert refused.reason == "keras-gpu runs f32, f16, bf16 here, not f64"


def test_without_a_driver_nothing_is_imported_to_say_so() -> None:
    code = (
        "import sys, actconform, actconform_keras.gpu as gpu\n"
        "def none(): raise actconform.Unavailable('no NVIDIA driver')\n"
        "gpu.first_gpu = none\n"
        "try: gpu.KerasGpu().facts()\n"
        "except actconform.Unavailable as error: print(error, {'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "no NVIDIA driver set()"


def test_a_build_without_cuda_is_named_with_the_mend(tf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: False)
    with pytest.raises(
        Unavailable, match=r'^tensorflow .* is built without CUDA: pip install "tensorflow\[and-cuda\]"'
    ):
        KerasGpu().facts()


def test_libraries_that_tensorflow_does_not_find_are_named(tf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    words = (
        r"found no GPU, though the driver has NVIDIA Fake; it wants libraries of CUDA 12.5.1 and cuDNN 9: "
        r'pip install "tensorflow\[and-cuda\]"'
    )
    with pytest.raises(Unavailable, match=words):
        KerasGpu().facts()


@pytest.fixture
def strict() -> Iterator[None]:
    """Soft placement is off, as keras-gpu has it."""
    tf = KerasBackend()._framework()  # no GPU is to be seen, even where there is one
    tf.config.set_soft_device_placement(False)
    yield
    tf.config.set_soft_device_placement(True)


@pytest.mark.usefixtures("strict", "told")
def test_what_tensorflow_cannot_do_with_the_device_is_told_in_its_words() -> None:
    with pytest.raises(Unavailable, match=r"^tensorflow .* cannot use NVIDIA Fake: Could not satisfy device spec"):
        KerasGpu().facts()


@pytest.mark.usefixtures("strict")
def test_nothing_is_computed_on_the_cpu_instead() -> None:
    """What TensorFlow says of an operation without a kernel for the GPU it says of any where there is none."""
    on_cpu: Any = KerasBackend().build(RELU, "f32")
    tensors = TensorFlow().tensors({"x": np.ones(3, np.float32)})
    once = TensorFlow(KerasGpu.device).whole(on_cpu._outputs, *tensors.values())
    with pytest.raises(Unsupported, match=r"^Could not satisfy device specification .*GPU:0"):
        once()


@pytest.mark.parametrize(("on", "word"), [(True, "on"), (False, "off")])
def test_facts_name_the_device_and_how_it_computes(
    tf: Any, told: list[Any], monkeypatch: pytest.MonkeyPatch, on: bool, word: str
) -> None:
    import keras

    monkeypatch.setattr(KerasGpu, "device", "/CPU:0")
    monkeypatch.setattr(tf.config.experimental, "tensor_float_32_execution_enabled", lambda: on)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    facts = KerasGpu().facts()
    assert facts == facts | GPU
    assert (facts["keras"], facts["tensorflow"]) == (keras.__version__, tf.__version__)
    assert (facts["cuda"], facts["cudnn"], facts["tf32"], facts["tf32_override"]) == ("12.5.1", "9", word, "0")
    assert facts["subnormals"] in ("kept", "flushed")
    assert all(type(fact) is str for fact in facts.values())
    # The first device alone, its memory as it is needed, and nothing on another device instead.
    assert told == [(["GPU:0"], "GPU"), ("GPU:0", True), False]


ON_THE_GPU = """
import numpy as np
from actconform import Unavailable
from actconform.catalog.kernels import UNARY
from actconform_keras import KerasGpu
backend = KerasGpu()
try:
    backend.facts()
except Unavailable as error:
    print("needs a GPU:", error)
else:
    program = backend.build(next(kernel for kernel in UNARY if kernel.name == "relu"), "f32")
    x = np.array([-1.0, 2.0], np.float32)
    y = program.ready({"x": x})()["y"]
    print(y.device.rpartition("/")[2], y.numpy().tolist(), program.vjp({"x": x}, {"y": x})["d_x"].tolist())
"""


def test_on_this_machine_it_computes_on_the_gpu_or_says_why_not() -> None:
    """In a process of its own: TensorFlow chooses its devices once."""
    done = subprocess.run([sys.executable, "-c", ON_THE_GPU], capture_output=True, text=True, check=True)
    if done.stdout.startswith("needs a GPU"):
        pytest.skip(done.stdout.strip())
    assert done.stdout.strip() == "device:GPU:0 [0.0, 2.0] [0.0, 2.0]"
