"""JAX in this process: imported on the CPU with the threads asked for, its arrays from numpy's and back."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.plugin.framework import thread_count
from actconform.plugin.import_failure import imported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from jax import Array
    from numpy.typing import NDArray

    Function = Callable[..., dict[str, Array]]


@cache
def import_jax() -> ModuleType:
    """Return jax, on the CPU with the number of threads asked for; raise `Unavailable` where it cannot be imported.

    XLA takes its threads from the environment, once, when it makes its device.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if thread_count() == 1 and "multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ.setdefault("NPROC", str(thread_count()))
    jax = imported("jax", "pip install actconform-jax", plugin="actconform-jax")
    jax.config.update("jax_platforms", "cpu")
    return jax


def when_done(function: Function, *arguments: Any) -> Callable[[], dict[str, Array]]:
    """Return a call of `function` that returns when all is computed."""
    jax = import_jax()

    def whole() -> dict[str, Array]:
        found: dict[str, Array] = jax.block_until_ready(function(*arguments))
        return found

    return whole


def array_of(array: NDArray[Any]) -> Array:
    """Return a numpy array as JAX's, of the same dtype, in memory of its own."""
    # JAX would share the memory of a numpy array, and count on its never changing.
    found: Array = import_jax().numpy.array(array, copy=True)
    return found


def numpy_of(arrays: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    """Return JAX's arrays as numpy's by name, in memory of their own."""
    return {name: np.array(array) for name, array in arrays.items()}
