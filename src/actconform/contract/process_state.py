"""What a process is set to that changes numbers elsewhere in it: floating point, default dtypes, random states, the folder."""

from __future__ import annotations

import hashlib
import pickle
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEPT, FLUSHED = "kept", "flushed to zero"
FRESH = {
    "subnormal results": KEPT,
    "subnormal inputs": KEPT,
    "rounding": "to nearest",
    "torch's default dtype": "torch.float32",
    "torch's recording of gradients": "True",
    "torch's deterministic algorithms": "False",
}
"""What nobody has changed; nothing but code changes it, so that a first look can tell too."""

DRAWN = "random state"  # in the name of what every draw changes


class _Setting(NamedTuple):
    """A setting of a framework, read where its module is imported already: the core imports none."""

    module: str
    name: str
    read: Callable[[Any], object]


SETTINGS = (
    _Setting("torch", "torch's default dtype", lambda torch: torch.get_default_dtype()),
    _Setting("torch", "torch's recording of gradients", lambda torch: torch.is_grad_enabled()),
    _Setting("torch", "torch's deterministic algorithms", lambda torch: torch.are_deterministic_algorithms_enabled()),
    _Setting("torch", f"torch's {DRAWN}", lambda torch: _digest(torch.get_rng_state().numpy().tobytes())),
    _Setting("keras", "keras's floatx", lambda keras: keras.config.floatx()),
    _Setting("keras", "keras's dtype policy", lambda keras: keras.config.dtype_policy().name),
    _Setting("jax", "jax's 64 bits", lambda jax: jax.config.jax_enable_x64),
)


def snapshot() -> dict[str, str]:
    """Return every setting by name, in words; of frameworks those that are imported, and can be read.

    Floating point is that of the calling thread. States of random numbers are digests.
    """
    state = {
        **_floating_point(),
        "the working folder": str(Path.cwd()),
        "numpy's handling of floating-point errors": str(np.geterr()),
        f"Python's {DRAWN}": _digest(pickle.dumps(random.getstate())),
        f"numpy's {DRAWN}": _digest(pickle.dumps(np.random.get_state(legacy=False))),  # noqa: NPY002  the global one is watched
    }
    for module, name, read in SETTINGS:
        loaded = sys.modules.get(module)
        if loaded is None:
            continue
        try:
            state[name] = str(read(loaded))
        except Exception:  # noqa: BLE001, S112  another version of the framework, or one that is half imported
            continue
    return state


def changes(before: Mapping[str, str], after: Mapping[str, str], *, drawing: bool) -> list[str]:
    """Return in words what differs; random states only where `drawing` is watched. What only one side knows is no change."""
    return [
        f"{name} changed" if DRAWN in name else f"{name}: {before[name]} before, {value} after"
        for name, value in after.items()
        if before.get(name, value) != value and (drawing or DRAWN not in name)
    ]


def _floating_point() -> dict[str, str]:
    unit, tiny = np.float64(1.0), np.float64(2.0**-54)
    smallest, half, large = np.float32(2.0**-126), np.float32(0.5), np.float32(2.0**30)
    with np.errstate(all="ignore"):
        up, down = unit + tiny != unit, -unit - tiny != -unit
        nearest = unit + np.float64(1.5 * 2.0**-53) != unit
        return {
            "subnormal results": KEPT if smallest * half != 0 else FLUSHED,
            "subnormal inputs": KEPT if np.float32(2.0**-140) * large != 0 else FLUSHED,
            "rounding": "up" if up else "down" if down else "to nearest" if nearest else "towards zero",
        }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
