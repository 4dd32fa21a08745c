"""Changes of a kernel's one answer, element by element or row by row, as a few faults need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform_faulty.injected import Answering

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform import Program

    Array = NDArray[Any]
    Tensors = dict[str, Array]


def with_y(program: Program, change: Callable[[Array, Array], Array]) -> Program:
    """Return the program whose y is `change`(x, healthy y), in the dtype of y and without numpy's warnings."""

    def forward(inputs: Tensors, outputs: Tensors) -> Tensors:
        y = outputs["y"]
        with np.errstate(all="ignore"):
            return {**outputs, "y": change(inputs["x"], y).astype(y.dtype)}

    return Answering(program, forward)


def with_gradient(program: Program, change: Callable[[Tensors, Array], Array], name: str = "x") -> Program:
    """Return the program whose d_NAME is `change`(inputs and ct_ cotangents, healthy d_NAME), natively and in a graph."""

    def changed(tensors: Tensors, outputs: Tensors) -> Tensors:
        d = outputs[f"d_{name}"]
        with np.errstate(all="ignore"):
            return {**outputs, f"d_{name}": change(tensors, d).astype(d.dtype)}

    def forward(tensors: Tensors, outputs: Tensors) -> Tensors:
        return changed(tensors, outputs) if f"d_{name}" in outputs else outputs

    return Answering(program, forward, changed)
