"""The built-in kernels: definition, parameters, kinks, limits and policy of each, as data.

Policy for all: NaN in, NaN out; at +-inf the limit of the function; f(+-0) = +-0 where the function passes through zero with
a slope, +0 where it is flat there. What a kernel adds to that stands in its `conventions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform._renamed import moved
from actconform.catalog.kernels.piecewise import PIECEWISE
from actconform.catalog.kernels.rows import ROWS
from actconform.catalog.kernels.smooth import SMOOTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform.types import Kernel

__all__ = ["KERNELS", "ROWS", "UNARY"]

UNARY = SMOOTH + PIECEWISE
KERNELS: Mapping[str, Kernel] = {kernel.name: kernel for kernel in UNARY + ROWS}

__getattr__ = moved(__name__)  # its names before 0.2
