"""Keras on TensorFlow as a backend: what it is and where it runs, and its functions as programs over numpy arrays."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from actconform import Backend, Program, Support, Unavailable, Unsupported
from actconform.cpu import cpu_capability, onednn_level
from actconform.formats import DTYPES
from actconform_keras.kernels import Implementation, implement

if TYPE_CHECKING:
    from collections.abc import Callable

    import tensorflow as tf

    from actconform import Case, Kernel, Model
    from actconform.types import Bundle

# No case has f64: it is for holding what is built against the float64 truth closely.
KERAS_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64"}

# How TensorFlow, or oneDNN on an older processor, says that an operation has no kernel for a dtype.
NO_KERNEL = (
    "is not in the list of allowed values",
    "Could not find device for node",
    "Could not satisfy device specification",
    "No OpKernel was registered",
    "could not create a primitive",
)


class KerasBackend(Backend):
    """keras.activations, keras.layers and keras.ops with tf.GradientTape on the CPU, eagerly, as users call them."""

    name: ClassVar[str] = "keras"
    kind: ClassVar[Literal["framework", "runtime"]] = "framework"
    device: ClassVar[str | None] = None

    def facts(self) -> dict[str, str]:
        """Return versions, CPU capability, oneDNN, threads and the fate of subnormals; raise `Unavailable` without Keras.

        TensorFlow does not tell which instructions it chose, so `cpu_capability` is what the processor offers.
        """
        tf = self._framework()
        import keras

        return {
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            **_versions("onnx", "tf2onnx"),
            "device": "cpu",
            "cpu_capability": cpu_capability(),
            "onednn": _onednn(),
            "subnormals": "kept" if (tf.constant([1e-40]) + 0.0).numpy()[0] != 0.0 else "flushed",
            "threads": str(tf.config.threading.get_intra_op_parallelism_threads()),
        }

    def supports(self, case: Case) -> Support:
        """Say no to dtypes that are none of ours; a kernel or model that Keras has not is refused when it is built."""
        if case.dtype not in DTYPES:
            return Support(yes=False, reason=f"{self.name} runs {', '.join(DTYPES)} here, not {case.dtype}")
        return Support(yes=True)

    def build(self, kernel: Kernel, dtype: str) -> Program:
        """Return the kernel as a program; a dtype that TensorFlow lacks shows at the first call, as `Unsupported`."""
        self._framework()
        return KerasProgram(kernel, implement(kernel, KERAS_DTYPES[dtype]), self.device)

    def build_model(self, model: Model, dtype: str) -> Program:
        """Return the model of Keras's own layers as a program; raise `Unsupported` for a layer that there is nothing for."""
        self._framework()
        from actconform_keras.models import KerasModelProgram

        return KerasModelProgram(model, dtype, self.device)

    def _framework(self) -> Any:
        """Return tensorflow, which sees no GPU: one that it saw it would compute on, and take all memory of."""
        tf = _tensorflow()
        tf.config.set_visible_devices([], "GPU")
        return tf


class KerasProgram(Program):
    """One kernel: numpy arrays to tensors, the function, eagerly, and back. What is returned has memory of its own."""

    def __init__(self, kernel: Kernel, implementation: Implementation, device: str | None = None) -> None:
        self.implementation, self._function = implementation
        self._kernel, self._device = kernel, device

    def forward(self, inputs: Bundle) -> Bundle:
        """Return `y`, in whatever dtype Keras returns it; raise `Unsupported` where TensorFlow lacks the dtype."""
        return {name: tensor.numpy() for name, tensor in self.ready(inputs)().items()}

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>` of every input by tf.GradientTape; raise `Unsupported` where the kernel has no gradient."""
        return {name: tensor.numpy() for name, tensor in self.ready(inputs, cotangents)().items()}

    def ready(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], dict[str, tf.Tensor]]:
        """Return what computes "y", or with cotangents forward and tf.GradientTape, "d_<name>" of every input, as tensors.

        Eagerly, as `forward` and `vjp` do, in no tf.function. On a GPU a call returns when the device is done.
        """
        tensors = list(as_tensors({name: inputs[name] for name in self._kernel.inputs}, self._device).values())
        if cotangents is None:
            return when_done(lambda: {"y": self._call(*tensors)}, self._device)
        if not self._kernel.differentiable:
            raise Unsupported(f"kernel {self._kernel.name} has no gradient, by declaration")
        cotangent = as_tensors(cotangents, self._device)["y"]
        return when_done(lambda: self._gradients(tensors, cotangent), self._device)

    def _gradients(self, tensors: list[tf.Tensor], cotangent: tf.Tensor) -> dict[str, tf.Tensor]:
        tf = _tensorflow()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            y = self._call(*tensors)
        try:
            gradients = tape.gradient(y, tensors, output_gradients=cotangent)
        except tf.errors.OpError as error:
            raise _refusal(error) from error
        for name, gradient in zip(self._kernel.inputs, gradients, strict=True):
            if gradient is None:
                raise RuntimeError(f"{self.implementation}: no path from y back to {name}, so there is no d_{name}")
        return {f"d_{name}": d for name, d in zip(self._kernel.inputs, gradients, strict=True)}

    def _call(self, *tensors: tf.Tensor) -> tf.Tensor:
        try:
            return self._function(*tensors)
        except _tensorflow().errors.OpError as error:
            raise _refusal(error) from error


def as_tensors(arrays: Bundle, device: str | None) -> dict[str, tf.Tensor]:
    """Return the arrays as tensors of the device, None being wherever TensorFlow puts them."""
    tf = _tensorflow()
    with tf.device(device):
        return {name: tf.convert_to_tensor(array) for name, array in arrays.items()}


def when_done(compute: Callable[[], dict[str, tf.Tensor]], device: str | None) -> Callable[[], dict[str, tf.Tensor]]:
    """Return `compute` on the device, such that it returns when all is computed; on the CPU, None, it does as it is."""
    if device is None:
        return compute
    tf = _tensorflow()

    def whole() -> dict[str, tf.Tensor]:
        with tf.device(device):
            outputs = compute()
        tf.test.experimental.sync_devices()
        return outputs

    return whole


def _refusal(error: Exception) -> Exception:
    """Return `error` itself, or `Unsupported` in its words where TensorFlow says that it has no such kernel."""
    unimplemented = isinstance(error, _tensorflow().errors.UnimplementedError)
    if unimplemented or any(words in str(error) for words in NO_KERNEL):
        return Unsupported(str(error).splitlines()[0])
    return error


@cache
def _tensorflow() -> Any:  # tensorflow has no types
    """Return tensorflow, imported with Keras, with the threads asked for; raise `Unavailable` if it cannot be."""
    threads = _threads()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import tensorflow as tf
        from keras import config
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras"):
            raise Unavailable(f"keras does not import: {error}") from error
        raise Unavailable(f"{error.name} is not installed: pip install actconform[keras]") from error
    except (ImportError, OSError) as error:
        raise Unavailable(f"keras does not import: {error}") from error
    if config.backend() != "tensorflow":
        reason = f"keras already runs on {config.backend()} in this process: start with KERAS_BACKEND=tensorflow"
        raise Unavailable(reason)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        pass  # TensorFlow computed already in this process and keeps its threads: `facts` says how many.
    return tf


def _versions(*packages: str) -> dict[str, str]:
    """Return the version of each package that is installed: what the exporters' graphs depend on. Nothing is imported."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _threads() -> int:
    text = os.environ.get("ACTCONFORM_THREADS", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"ACTCONFORM_THREADS is {text!r}: give the number of threads, 1 or more")
    return int(text)


def _onednn() -> str:
    """Return the level of TensorFlow's oneDNN, "off" where its own switch, or unless told otherwise the machine, says so."""
    default = "1" if platform.machine() in ("x86_64", "AMD64") else "0"
    off = os.environ.get("TF_ENABLE_ONEDNN_OPTS", default).lower() in ("0", "false")
    return "off" if off else onednn_level()
