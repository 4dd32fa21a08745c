"""Keras in this process: imported once, on the backend that is asked for, with the threads asked for."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from typing import Any

from actconform import Unavailable
from actconform.plugin.framework import thread_count
from actconform.plugin.import_failure import imported

# What brings TensorFlow and what goes with it, and what brings another of the frameworks that Keras computes on.
INSTALL = 'pip install "actconform[keras]"'
MENDS = {"jax": 'pip install "actconform-keras[jax]"', "torch": 'pip install "actconform-keras[torch]"'}
# No case has f64: it is for holding what is built against the float64 truth closely.
KERAS_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64"}
PLUGIN = "actconform-keras"
PACKAGES = {"tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-intel")}


@cache
def keras_on(backend: str) -> Any:  # a module, and not every framework has types
    """Return the framework, "tensorflow", "jax" or "torch", with Keras imported on it; raise `Unavailable` if it cannot be.

    Keras takes one backend a process: where it has another already, that is said.
    """
    threads = thread_count()
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Keras imports TensorFlow on whichever backend
    if backend == "torch":
        os.environ["KERAS_TORCH_DEVICE"] = "cpu"  # Keras would put everything on a GPU that torch sees
    elif backend == "jax":
        os.environ |= {"JAX_PLATFORMS": "cpu", "NPROC": str(threads)}  # XLA's client asks NPROC for its threads
    framework = imported(backend, MENDS.get(backend, INSTALL), plugin=PLUGIN, packages=PACKAGES.get(backend, ()))
    config = imported("keras", INSTALL, plugin=PLUGIN).config
    if config.backend() != backend:
        reason = f"keras already runs on {config.backend()} in this process: start with KERAS_BACKEND={backend}"
        raise Unavailable(reason)
    if backend == "torch":
        framework.set_num_threads(threads)
    elif backend == "tensorflow":
        with suppress(RuntimeError):  # TensorFlow computed already in this process: `facts` says how many it keeps
            framework.config.threading.set_intra_op_parallelism_threads(threads)
            framework.config.threading.set_inter_op_parallelism_threads(threads)
    return framework
