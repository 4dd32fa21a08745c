"""A runtime in plain Python that computes graphs right, but for a step beyond $ACTCONFORM_TEST_STEPS: there it raises, or dies."""

from __future__ import annotations

import os
import signal
from typing import Any

from actconform import Artifact, Backend, Program, hookimpl


class Interpreted(Program):
    def __init__(self, artifact: Artifact) -> None:
        from onnx.reference import ReferenceEvaluator

        self.evaluator = ReferenceEvaluator(artifact.model)

    def forward(self, inputs: Any) -> Any:
        if int(inputs.get("step", 0)) > int(os.environ["ACTCONFORM_TEST_STEPS"]):
            if os.environ["ACTCONFORM_TEST_END"] == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("out of luck")
        return dict(zip(self.evaluator.output_names, self.evaluator.run(None, dict(inputs)), strict=True))


class Failing(Backend):
    name, kind = "failing", "runtime"

    def facts(self) -> dict[str, str]:
        return {}

    def load(self, artifact: Artifact, dtype: str) -> Program:
        return Interpreted(artifact)


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Failing]
