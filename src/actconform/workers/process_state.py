"""What a process is set to that changes what else is done in it: floating point, default dtypes, random states, environment."""

from __future__ import annotations

import gc
import locale
import os
import random
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEPT, FLUSHED = "kept", "flushed to zero"
SUBNORMALS = ("subnormal results", "subnormal inputs")
FRESH = {
    **dict.fromkeys(SUBNORMALS, KEPT),
    "rounding": "to nearest",
    "torch's default dtype": "torch.float32",
    "torch's recording of gradients": "True",
    "torch's deterministic algorithms": "False",
}
"""What nobody has changed; nothing but code changes it, so that a first look can tell too."""

DRAWN = "random state"  # in the name of what every draw changes
VARIABLE = "the environment's "  # before the name of a variable, which may be set and removed
SIGNALS = (
    "SIGHUP",
    "SIGINT",
    "SIGTERM",
    "SIGUSR1",
    "SIGUSR2",
    "SIGCHLD",
    "SIGPIPE",
    "SIGALRM",
    "SIGFPE",
    "SIGSEGV",
    "SIGABRT",
)
HIDDEN = "warnings that are hidden"
UNTOLD = (DRAWN, VARIABLE, HIDDEN, "Python's path")  # nobody reads a hash; a variable may be a secret


class _Setting(NamedTuple):
    """A setting of a module, read where it is imported already: the core imports no framework."""

    module: str
    name: str
    read: Callable[[Any], object]


SETTINGS = (
    _Setting("torch", "torch's default dtype", lambda torch: torch.get_default_dtype()),
    _Setting("torch", "torch's default device", lambda torch: torch.empty(0).device),
    _Setting("torch", "torch's recording of gradients", lambda torch: torch.is_grad_enabled()),
    _Setting("torch", "torch's deterministic algorithms", lambda torch: torch.are_deterministic_algorithms_enabled()),
    _Setting("torch", "torch's threads", lambda torch: torch.get_num_threads()),
    _Setting("torch", "torch's precision of products", lambda torch: torch.get_float32_matmul_precision()),
    _Setting("torch", "torch's autocast", lambda torch: torch.is_autocast_enabled("cpu")),
    _Setting("torch", f"torch's {DRAWN}", lambda torch: hash(torch.get_rng_state().numpy().tobytes())),
    _Setting("keras", "keras's floatx", lambda keras: keras.config.floatx()),
    _Setting("keras", "keras's epsilon", lambda keras: keras.config.epsilon()),
    _Setting("keras", "keras's image data format", lambda keras: keras.config.image_data_format()),
    _Setting("keras", "keras's dtype policy", lambda keras: keras.config.dtype_policy().name),
    _Setting("jax", "jax's 64 bits", lambda jax: jax.config.jax_enable_x64),
    _Setting("jax", "jax's precision of products", lambda jax: jax.config.jax_default_matmul_precision),
    _Setting("jax", "jax's compiling", lambda jax: not jax.config.jax_disable_jit),
    _Setting("locale", "the locale", lambda _: locale.setlocale(locale.LC_ALL)),
    _Setting("numpy", "numpy's handling of floating-point errors", lambda numpy: numpy.geterr()),
    _Setting("gc", "the collection of garbage", lambda _: (gc.isenabled(), gc.get_threshold())),
    _Setting("sys", "Python's limit of recursion", lambda sys: sys.getrecursionlimit()),
    _Setting("sys", "Python's path", lambda sys: hash(tuple(sys.path))),
    _Setting("os", "the working folder", lambda os: os.getcwd()),
    _Setting("os", "the processors to run on", lambda os: sorted(os.sched_getaffinity(0))),
    _Setting("os", "the priority", lambda os: os.getpriority(os.PRIO_PROCESS, 0)),
    _Setting("resource", "limits of resources", lambda resource: [resource.getrlimit(n) for n in _limits(resource)]),
    _Setting("signal", "handlers of signals", lambda _: _handlers()),
    _Setting("warnings", HIDDEN, lambda _: hash(tuple(warnings.filters))),
)


def snapshot() -> dict[str, str]:
    """Return every setting by name, in words; of frameworks those that are imported, and can be read.

    Floating point is that of the calling thread. States of random numbers and variables of the environment are hashes.
    """
    state = {
        **_floating_point(),
        f"Python's {DRAWN}": str(hash(random.getstate())),
        f"numpy's {DRAWN}": str(_of_numpy(np.random.get_state(legacy=False))),  # noqa: NPY002  the global one is watched
        **{VARIABLE + name: str(hash(value)) for name, value in os.environ.items()},
    }
    with suppress(OSError, StopIteration):  # os.umask tells it by changing it, under the feet of other threads
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
        state["the mask of new files"] = next(line for line in lines if line.startswith("Umask:")).split()[1]
    for module, name, read in SETTINGS:
        loaded = sys.modules.get(module)
        if loaded is None:
            continue
        with suppress(Exception):  # another version of the framework, or one that is half imported; another system
            state[name] = str(read(loaded))
    return state


def changed_settings(before: Mapping[str, str], after: Mapping[str, str], *, drawing: bool) -> dict[str, str]:
    """Return in words, by the name of the setting, what differs; random states only where `drawing` is watched.

    What only one side knows is no change, but for variables of the environment where `before` has any.
    """
    if before == after:
        return {}
    variables = any(name.startswith(VARIABLE) for name in before)
    differing = {
        name
        for name in {**before, **after}
        if before.get(name) != after.get(name)
        and ((name in before and name in after) or (variables and name.startswith(VARIABLE)))
        and (drawing or DRAWN not in name)
    }
    return {
        name: f"{name} changed"
        if any(word in name for word in UNTOLD)
        else f"{name}: {before[name]} before, {after[name]} after"
        for name in sorted(differing)
    }


def changes(before: Mapping[str, str], after: Mapping[str, str], *, drawing: bool) -> list[str]:
    """Return the words of `changed_settings` alone."""
    return list(changed_settings(before, after, drawing=drawing).values())


class StateWatch:
    """Looks at the process after each step of a job, and keeps what it changed: for each change its setting and the words."""

    def __init__(self) -> None:
        self._start = snapshot()
        self._last = {**self._start, **{name: value for name, value in FRESH.items() if name in self._start}}
        self._modules = len(sys.modules)
        self.changed: list[tuple[str, str]] = []
        self.left_changed = False
        """Whether what was kept is still so, draws aside."""

    def after(self, step: str, *, drawing: bool = False) -> None:
        """Keep what `step` changed; where `drawing` it may not draw from a global stream of random numbers either."""
        now, modules = snapshot(), len(sys.modules)
        settings = changed_settings(self._last, now, drawing=drawing)
        if modules > self._modules:  # what frameworks import late hides some warnings, and sets variables of its own
            settings = {name: words for name, words in settings.items() if name != HIDDEN and VARIABLE not in name}
        self.changed += [(name, f"{step} changes the process: {words}") for name, words in settings.items()]
        self._last, self._modules = now, modules
        left = changed_settings(self._start, now, drawing=False)
        self.left_changed = any(name in left for name, _ in self.changed)


def _handlers() -> str:
    """Return the signals that have another handler than the system's, with its name."""
    handlers = {name: signal.getsignal(getattr(signal, name)) for name in SIGNALS if hasattr(signal, name)}
    return ", ".join(
        f"{name} {getattr(handler, '__qualname__', 'ignored' if handler == signal.SIG_IGN else handler)}"
        for name, handler in handlers.items()
        if handler not in (signal.SIG_DFL, None)
    )


def _of_numpy(state: Any) -> int:
    """Return the hash of a state of numpy's random numbers."""
    inner = state["state"]
    return hash((inner["key"].tobytes(), inner["pos"])) if "key" in inner else hash(repr(state))


def _limits(resource: Any) -> list[int]:
    return [getattr(resource, name) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")]


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
