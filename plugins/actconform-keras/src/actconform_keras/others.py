"""Keras elsewhere: compiled by XLA on TensorFlow, on JAX, and on PyTorch; each a backend of its own with its own process.

Keras takes its backend once in a process, from the environment, when it is imported: each worker sets it before.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from actconform.machine.cpu import cpu_capability, level_of
from actconform.machine.onednn import onednn_in_torch, onednn_settings
from actconform.plugin.framework import fate_of_subnormals, thread_count
from actconform_keras.backend import KerasBackend
from actconform_keras.engines import Engine, Jax, Torch, Xla
from actconform_keras.keras_module import keras_on

if TYPE_CHECKING:
    from actconform import Library
    from actconform.types.trained import SourceKind


class KerasXla(KerasBackend):
    """What `keras` calls, within tf.function(jit_compile=True), and for gradients the tape too; on the CPU."""

    name: ClassVar[str] = "keras-xla"
    compiles_training: ClassVar[bool] = True
    compiles_per_shape: ClassVar[bool] = True
    opens: ClassVar[tuple[SourceKind, ...]] = ()
    extra: ClassVar[bool] = True

    def facts(self) -> dict[str, str]:
        """Return the facts of `keras`, XLA's flags and the fate of subnormals in what it compiles."""
        facts = super().facts()
        tf = keras_on("tensorflow")
        half = tf.function(lambda x: x * 0.5, jit_compile=True)(tf.constant([2e-40]))
        return facts | {**xla_facts(), "subnormals": fate_of_subnormals(half.numpy()[0])}

    def library(self) -> Library:
        """Return TensorFlow's functions as XLA compiles them."""
        return super().library()._replace(name="tensorflow-xla")

    def _engine(self) -> Engine:
        return Xla()


class KerasJax(KerasBackend):
    """keras.activations, keras.layers and keras.ops on JAX with jax.vjp on the CPU, each operation as it is called."""

    name: ClassVar[str] = "keras-jax"
    compiles_training: ClassVar[bool] = True
    compiles_per_shape: ClassVar[bool] = True
    opens: ClassVar[tuple[SourceKind, ...]] = ()
    extra: ClassVar[bool] = True

    def facts(self) -> dict[str, str]:
        """Return versions, CPU capability, XLA's flags, threads and the fate of subnormals; raise `Unavailable` without JAX."""
        jax = self._framework()
        import keras

        return {
            "keras": keras.__version__,
            "jax": jax.__version__,
            "jaxlib": version("jaxlib"),
            "numpy": np.__version__,
            "device": jax.default_backend(),
            **xla_facts(),
            "x64": "on" if jax.config.jax_enable_x64 else "off",
            "subnormals": fate_of_subnormals((jax.numpy.float32(2e-40) * 0.5).item()),
            "threads": str(thread_count()),
        }

    def _framework(self) -> Any:
        return keras_on("jax")

    def _engine(self) -> Engine:
        return Jax()


class KerasTorch(KerasBackend):
    """keras.activations, keras.layers and keras.ops on PyTorch with torch.autograd on the CPU, eagerly."""

    name: ClassVar[str] = "keras-torch"
    opens: ClassVar[tuple[SourceKind, ...]] = ()
    extra: ClassVar[bool] = True

    def facts(self) -> dict[str, str]:
        """Return versions, CPU capability, oneDNN, threads and the fate of subnormals; raise `Unavailable` without torch."""
        torch = self._framework()
        import keras

        return {
            "keras": keras.__version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "device": "cpu",
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            **onednn_in_torch(torch),
            "subnormals": fate_of_subnormals((torch.tensor([2e-40]) * 0.5).item()),
            "threads": str(torch.get_num_threads()),
        }

    def _framework(self) -> Any:
        return keras_on("torch")

    def _engine(self) -> Engine:
        return Torch()


def xla_facts() -> dict[str, str]:
    """Return XLA's flags, and what it compiles for: what the processor offers, lowered by --xla_cpu_max_isa; oneDNN's settings."""
    flags = os.environ.get("XLA_FLAGS", "")
    found = re.search(r"--xla_cpu_max_isa=(\w+)", flags)
    return {
        "cpu_capability": cpu_capability(level_of(found[1] if found else "")),
        "onednn_settings": onednn_settings(),
        "xla_flags": flags or "none",
    }
