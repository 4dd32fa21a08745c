"""The stand-in framework a second time, but its float32 outputs lose their last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from stand_in import Numpy, StandIn

from actconform import Backend, Kernel, Program, hookimpl

if TYPE_CHECKING:
    from stand_in import Arrays


class TruncatedProgram(Numpy):
    def forward(self, inputs: Arrays) -> Arrays:
        y = super().forward(inputs)["y"]
        return {"y": (y.view(np.uint32) & np.uint32(0xFFFFFFFE)).view(np.float32)}


class Truncated(StandIn):
    name = "truncated"

    def build(self, kernel: Kernel, dtype: str) -> Program:
        return TruncatedProgram(kernel)


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Truncated]
