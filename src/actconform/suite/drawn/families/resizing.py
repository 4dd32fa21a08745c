"""Resize in its modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.suite.drawn.drawer import FLOATS, Drawer, ValueRange
from actconform.suite.drawn.registry import drawn_operator

if TYPE_CHECKING:
    from actconform.suite.drawn.node import DrawnNode

SHARED = (None, "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")


@drawn_operator("Resize", since=13)
def _resize(d: Drawer) -> DrawnNode:
    """By scales or sizes, of the last axes; modes linear and cubic with their attributes."""
    mode = d.choice((None, "nearest", "linear", "cubic"))
    spatial = 2 if mode == "cubic" else d.choice((2, 1))
    shape = (1, d.choice((1, 2)), *(d.choice((2, 3, 4, 5, 8)) for _ in range(spatial)))
    kept = [1.0] * (len(shape) - spatial)
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": d.choice(SHARED)}
    if mode in (None, "nearest"):
        attributes["nearest_mode"] = d.choice((None, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"))
    if mode == "cubic":
        attributes["cubic_coeff_a"] = d.choice((None, -0.5, -0.75))
        attributes["exclude_outside"] = d.choice((None, 0, 1))
    if mode in ("linear", "cubic") and d.opset >= 18:
        attributes["antialias"] = d.choice((None, 0, 1))
    x = d.array(
        shape,
        d.dtype((*FLOATS, "uint8") if mode in (None, "nearest") else FLOATS),
        ValueRange(most=64, nan=False, infinite=False),
    )
    if d.flag():
        sizes = [*shape[: len(kept)], *(d.choice((2, 1, 3, 4, 6, 9)) for _ in range(spatial))]
        return d.node([x, None, None, np.array(sizes, np.int64)], attributes)
    scales = [*kept, *(d.choice((2.0, 1.0, 0.5, 3.0, 1.5, 0.75)) for _ in range(spatial))]
    return d.node([x, None, np.array(scales, np.float32)], attributes)
