"""Keras on TensorFlow on the first GPU: the same functions as on the CPU, and the facts of the device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from actconform import Unavailable, Unsupported
from actconform.machine.gpu import first_gpu
from actconform.plugin.framework import fate_of_subnormals
from actconform_keras.backend import KerasBackend
from actconform_keras.keras_module import keras_on

if TYPE_CHECKING:
    from actconform.types.trained import SourceKind
    from actconform.types.training_run import TrainingRecord, TrainingTask

OVERRIDE = "NVIDIA_TF32_OVERRIDE"  # NVIDIA's libraries heed it, whatever TensorFlow says


class KerasGpu(KerasBackend):
    """keras.activations, keras.layers and keras.ops with tf.GradientTape on the first GPU, eagerly, TF32 as TensorFlow sets it.

    Everything is asked of the GPU by name and soft placement is off, so that nothing is computed on the CPU instead: what has
    no kernel for the GPU is `Unsupported`, in TensorFlow's words.
    """

    name: ClassVar[str] = "keras-gpu"
    opens: ClassVar[tuple[SourceKind, ...]] = ()
    device: ClassVar[str | None] = "/GPU:0"
    optional: ClassVar[bool] = True

    def facts(self) -> dict[str, str]:
        """Return versions, the device, TF32 and the fate of subnormals, and set TensorFlow up for the device.

        Raises `Unavailable` with the cause: no driver or device, asked before TensorFlow is imported, a TensorFlow built without
        CUDA or that finds no GPU, or in its words whatever it cannot do with the device.
        """
        gpu = first_gpu()
        tf = self._framework()
        import keras

        build = tf.sysconfig.get_build_info()
        self._use(tf, gpu["device"])
        try:
            with tf.device(self.device):
                tiny = (tf.constant([1e-40]) + 0.0).numpy()[0]
        except tf.errors.OpError as error:
            words = str(error).strip().splitlines()[0]
            raise Unavailable(f"tensorflow {tf.__version__} cannot use {gpu['device']}: {words}") from error
        return {
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            **gpu,
            "cuda": str(build.get("cuda_version", "unknown")),
            "cudnn": str(build.get("cudnn_version", "unknown")),
            "tf32": "on" if tf.config.experimental.tensor_float_32_execution_enabled() else "off",
            "tf32_override": os.environ.get(OVERRIDE, "none"),
            "subnormals": fate_of_subnormals(tiny),
            "threads": str(tf.config.threading.get_intra_op_parallelism_threads()),
        }

    def train(self, task: TrainingTask) -> TrainingRecord:  # noqa: ARG002
        """Raise `Unsupported`: `fit` reads its batches by way of the CPU, which this backend never uses."""
        raise Unsupported(
            f"{self.name} fits no models: fit reads its batches on the CPU, where nothing of this backend is to be"
        )

    def _framework(self) -> Any:
        return keras_on("tensorflow")

    def _use(self, tf: Any, name: str) -> None:
        """Have TensorFlow see the first GPU alone, take its memory as needed, and put nothing elsewhere."""
        if not tf.test.is_built_with_cuda():
            raise Unavailable(
                f'tensorflow {tf.__version__} is built without CUDA: pip install "tensorflow[and-cuda]" (Linux only)'
            )
        gpus = tf.config.list_physical_devices("GPU")
        if not gpus:
            build = tf.sysconfig.get_build_info()
            wanted = f"CUDA {build.get('cuda_version')} and cuDNN {build.get('cudnn_version')}"
            raise Unavailable(
                f"tensorflow {tf.__version__} found no GPU, though the driver has {name}; it wants libraries of {wanted}: "
                'pip install "tensorflow[and-cuda]"; with TF_CPP_MIN_LOG_LEVEL=0 it logs which it misses'
            )
        tf.config.set_visible_devices(gpus[:1], "GPU")
        tf.config.experimental.set_memory_growth(gpus[0], True)  # noqa: FBT003  has no other way
        tf.config.set_soft_device_placement(False)
