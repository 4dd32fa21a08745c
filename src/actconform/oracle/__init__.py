"""The truth: cancellation-free float64 formulas for run time, compared by `golden verify` with goldens from exact arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.errors import Unsupported
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import ROW_FORMULAS

if TYPE_CHECKING:
    from actconform.types import Bundle, Kernel


def truth(kernel: Kernel, inputs: Bundle, cotangents: Bundle | None = None) -> dict[str, Any]:
    """Return the float64 outputs of a kernel, or with cotangents the vector-Jacobian product `d_<input>` of each input.

    Inputs of any shape and any real dtype are taken as the numbers they are. Special values follow the kernel's policy.
    Raises Unsupported where no formula is registered under the kernel's name, or the kernel has no gradient.
    """
    wide = {name: np.asarray(array).astype(np.float64) for name, array in inputs.items()}
    with np.errstate(all="ignore"):
        if kernel.form == "unary":
            formula = FORMULAS.get(kernel.name)
            if formula is None:
                raise Unsupported(_unregistered(kernel, "actconform.oracle.float64.registry.formula"))
            if cotangents is None:
                return {"y": formula.value(wide["x"], kernel.parameters)}
            return {"d_x": formula.derivative(wide["x"], kernel.parameters) * cotangents["y"].astype(np.float64)}
        row = ROW_FORMULAS.get(kernel.name)
        if row is None:
            raise Unsupported(_unregistered(kernel, "actconform.oracle.float64.rows.row_formula"))
        if cotangents is None:
            return {"y": row.value(wide, kernel)}
        if row.vjp is None:
            message = f"{kernel.name} has no gradient, by declaration"
            raise Unsupported(message)
        return dict(row.vjp(wide, cotangents["y"].astype(np.float64), kernel))


def _unregistered(kernel: Kernel, where: str) -> str:
    return f"kernel {kernel.name} has no float64 formula: register one with {where}({kernel.name!r})"
