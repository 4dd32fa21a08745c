"""Keras on TensorFlow as a backend: what it is and where it runs, and its functions as programs over numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from actconform import Library, Program
from actconform.machine.cpu import cpu_capability
from actconform.machine.onednn import onednn_level, onednn_settings
from actconform.plugin.framework import FrameworkBackend, fate_of_subnormals, refuse_without_gradient, versions
from actconform_keras.engines import Engine, TensorFlow, vjp_artifact
from actconform_keras.keras_module import KERAS_DTYPES, keras_on
from actconform_keras.kernels import implement
from actconform_keras.models import KerasModelProgram
from actconform_keras.training import KerasTraining

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Kernel, Model
    from actconform.plugin.framework import Implementation
    from actconform.plugin.trained_model import TrainedModel
    from actconform.types import Bundle
    from actconform.types.trained import SourceKind, TrainedSource
    from actconform.types.training_run import TrainingRecord, TrainingTask
    from actconform_keras.engines import Named, Outputs


class KerasBackend(FrameworkBackend):
    """keras.activations, keras.layers and keras.ops with tf.GradientTape on the CPU, eagerly, as users call them."""

    name: ClassVar[str] = "keras"
    opens: ClassVar[tuple[SourceKind, ...]] = ("factory", "keras", "saved-model", "tflite")
    device: ClassVar[str | None] = None
    compiles_training: ClassVar[bool] = False
    """Whether `fit` has XLA compile its step; TensorFlow makes a graph of it either way."""

    def facts(self) -> dict[str, str]:
        """Return versions, CPU capability, oneDNN, threads and the fate of subnormals; raise `Unavailable` without Keras.

        TensorFlow does not tell which instructions it chose, so `cpu_capability` is what the processor offers, and of its
        oneDNN whether it is used, and the settings.
        """
        tf = self._framework()
        import keras

        return {
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            **versions("onnx", "tf2onnx"),
            "device": "cpu",
            "cpu_capability": cpu_capability(),
            "onednn": _onednn(),
            "onednn_settings": onednn_settings(),
            "subnormals": fate_of_subnormals((tf.constant([1e-40]) + 0.0).numpy()[0]),
            "threads": str(tf.config.threading.get_intra_op_parallelism_threads()),
        }

    def library(self) -> Library:
        """Return TensorFlow's functions as eager code calls them: Eigen's, whether oneDNN is on or not."""
        from actconform_keras.primitives import primitives

        self._framework()
        return Library("tensorflow-eigen", ("tensorflow",), primitives(self._engine()))

    def build(self, kernel: Kernel, dtype: str) -> Program:
        """Return the kernel as a program; a dtype that TensorFlow lacks shows at the first call, as `Unsupported`."""
        self._framework()
        return KerasProgram(kernel, implement(kernel, KERAS_DTYPES[dtype]), self._engine())

    def build_model(self, model: Model, dtype: str) -> Program:
        """Return the model of Keras's own layers as a program; raise `Unsupported` for a layer that there is nothing for."""
        self._framework()
        return KerasModelProgram(model, dtype, self._engine())

    def train(self, task: TrainingTask) -> TrainingRecord:
        """Train by `fit` with an optimizer of keras.optimizers; raise `Unsupported` for a layer that there is nothing for."""
        self._framework()
        return KerasTraining(task, compiled=self.compiles_training).fit()

    def open_trained(self, source: TrainedSource) -> TrainedModel:
        """Return a factory's Keras model, a `.keras` file, a SavedModel or a TFLite file, opened on the CPU."""
        from actconform_keras.trained_source import asked_backend, open_source

        wanted = asked_backend()
        self._framework()
        return open_source(source, wanted)

    def adopt_trained(self, model: object, example: object | None) -> TrainedModel:
        """Return a Keras model of this process, opened; nothing is imported for what is none, and no setting is changed."""
        from actconform_keras.trained_source import adopted

        return adopted(model, example)

    def _framework(self) -> Any:
        """Return tensorflow, which sees no GPU: one that it saw it would compute on, and take all memory of."""
        tf = keras_on("tensorflow")
        tf.config.set_visible_devices([], "GPU")
        return tf

    def _engine(self) -> Engine:
        return TensorFlow(self.device)


class KerasProgram(Program):
    """One kernel: numpy arrays to tensors, the function, as the engine computes, and back, in memory of its own."""

    def __init__(self, kernel: Kernel, implementation: Implementation, engine: Engine) -> None:
        text, self._function, self._prepare = implementation
        self.implementation = text + engine.by
        self._kernel, self._engine = kernel, engine
        self._values, self._pulled = engine.compiled(self._outputs), engine.compiled(self._gradients)

    def forward(self, inputs: Bundle) -> Bundle:
        """Return `y`, in whatever dtype Keras returns it; raise `Unsupported` where its backend lacks the dtype."""
        return self._engine.arrays(self.prepare_call(inputs)())

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>` of every input; raise `Unsupported` where the kernel has no gradient."""
        return self._engine.arrays(self.prepare_call(inputs, cotangents)())

    def prepare_call(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], Outputs]:
        """Return what computes "y", or with cotangents forward and backward, "d_<name>" of every input, as tensors."""
        engine = self._engine
        tensors = engine.tensors({name: inputs[name] for name in self._kernel.inputs})
        if self._prepare:
            self._prepare(tensors["x"])
        if cotangents is None:
            return engine.whole(self._values, *tensors.values())
        refuse_without_gradient(self._kernel)
        cotangent = engine.tensors(cotangents)["y"]
        return engine.whole(self._pulled, tensors, cotangent)

    def close(self) -> None:
        self._engine.close()

    def _outputs(self, *tensors: Any) -> Outputs:
        return {"y": self._function(*tensors)}

    def _gradients(self, tensors: Named, cotangent: Any) -> Outputs:
        # By name: a trace may hand a dict on in an order of its own.
        value = lambda known: self._function(*(known[name] for name in self._kernel.inputs))  # noqa: E731
        return vjp_artifact(self._engine.gradients(value, tensors, cotangent), self.implementation, "y")


def _onednn() -> str:
    """Return the level of TensorFlow's oneDNN; "off" where TensorFlow says that it does not use it.

    TensorFlow turns it on by default only on processors with AVX512_VNNI, AVX512_BF16, AVX_VNNI or AMX, so it is asked.
    """
    from tensorflow.python.util._pywrap_util_port import IsMklEnabled

    return onednn_level() if IsMklEnabled() else "off"
