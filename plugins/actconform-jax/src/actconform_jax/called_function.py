"""The function of JAX, such as jax.nn.gelu, whose code made an equation: told by the lines from which it was traced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax

if TYPE_CHECKING:
    from jax.extend import core

JAX = str(Path(jax.__file__).parent)
# Where the functions stand that consist of several primitives: of jax.nn the innermost is named, of the others the outermost.
_NN = f"{JAX}/_src/nn/"
_OTHERS = tuple(
    f"{JAX}/_src/{file}.py" for file in ("numpy/reductions", "numpy/linalg", "numpy/einsum", "scipy/special")
)


class CalledFunction(NamedTuple):
    """A function as it was called at one place."""

    name: str
    place: tuple[str, int]
    """File and line of the caller."""


def called_function(eqn: core.JaxprEqn) -> CalledFunction | None:
    """Return the function of several primitives that an equation is a part of; None where it is of none."""
    frames = getattr(eqn.source_info.traceback, "frames", None) or []
    named = None
    for frame in frames:  # the innermost first
        if not frame.file_name.startswith(JAX):
            return None if named is None else CalledFunction(named, (frame.file_name, frame.line_num))
        name = frame.function_name.strip("_")
        if frame.file_name.startswith(_NN) and hasattr(jax.nn, name) and (named is None or not hasattr(jax.nn, named)):
            named = name
        elif frame.file_name in _OTHERS and not (named and hasattr(jax.nn, named)):
            named = name if hasattr(jax.numpy, name) or hasattr(jax.numpy.linalg, name) else named
    return None
