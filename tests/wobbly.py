"""A framework in plain numpy whose numbers depend on the version of a package: with wobble 2 its relu is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Backend, Kernel, Program, Support, Unavailable, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform import Case


class Relu(Program):
    def __init__(self, version: str) -> None:
        self.implementation = f"wobble {version}"
        self.least = 0.0 if version.startswith("1") else 0.5

    def forward(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        x = inputs["x"]
        return {"y": np.where(np.isnan(x), x, np.where(x > self.least, x, 0)).astype(x.dtype)}


class Wobbly(Backend):
    name = "wobbly"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        try:
            import wobble
        except ImportError as error:
            raise Unavailable("wobble is not installed: pip install wobble") from error
        return {"wobble": wobble.__version__, "mood": wobble.__version__, "whole": str(not hasattr(wobble, "leftover"))}

    def supports(self, case: Case) -> Support:
        return Support(yes=case.subject == "relu" and case.aspect == "value", reason="wobbly has relu alone")

    def build(self, kernel: Kernel, dtype: str) -> Program:
        import wobble

        return Relu(wobble.__version__)


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Wobbly]
